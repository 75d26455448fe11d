//! The list of native plugins.
