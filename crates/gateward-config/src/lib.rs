//! Kong's declarative format (YAML, JSON) to the model, reporting every problem at its place.
