//! The limits of a configuration file, in one place.
//!
//! A file may come from anyone who may post to the Admin API, so each of its dimensions is bounded.

/// Diagnostics of one severity kept; the rest are counted.
pub(crate) const DIAGNOSTICS: usize = 1_000;
/// "Did you mean" searches per file among entity names.
pub(crate) const SUGGESTION_SEARCHES: usize = 20;
/// Bytes a compiled regular expression of the file may take; the default of the `regex` crate, so of Kong.
pub(crate) const REGEX_BYTES: usize = 10 << 20;
