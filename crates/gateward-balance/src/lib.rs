//! Balancing algorithms: pure choices among weighted targets.
