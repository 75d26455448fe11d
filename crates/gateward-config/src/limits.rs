//! The limits of a configuration file, in one place.
//!
//! A file may come from anyone who may post to the Admin API, so each of its dimensions is bounded.

/// Bytes of text.
pub(crate) const TEXT_BYTES: usize = 256 << 20;
/// Values in the file, those that YAML aliases repeat counted every time.
pub(crate) const NODES: usize = 5_000_000;
/// Nesting.
pub(crate) const DEPTH: usize = 64;
/// Diagnostics of one severity kept; the rest are counted.
pub(crate) const DIAGNOSTICS: usize = 1_000;
/// Candidates compared for one "did you mean".
pub(crate) const SUGGESTION_CANDIDATES: usize = 10_000;
/// "Did you mean" searches per file among entity names.
pub(crate) const SUGGESTION_SEARCHES: usize = 20;
/// Bytes a compiled regular expression of the file may take; the default of the `regex` crate, so of Kong.
pub(crate) const REGEX_BYTES: usize = 10 << 20;
/// Characters of a value that a message quotes.
pub(crate) const QUOTED_CHARS: usize = 60;
