//! Routes compiled to an index; find(request head).
