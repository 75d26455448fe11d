//! The limits of a text, in one place: it may come from anyone who may post to a control API.

/// Bytes of text.
pub(crate) const TEXT_BYTES: usize = 256 << 20;
/// Values in the file, those that YAML aliases repeat counted every time.
pub(crate) const NODES: usize = 5_000_000;
/// Bytes of texts in a file of YAML, those that aliases repeat counted every time.
pub(crate) const BYTES: usize = 2 * TEXT_BYTES;
/// Nesting.
pub(crate) const DEPTH: usize = 64;
/// Candidates compared for one "did you mean".
pub(crate) const SUGGESTION_CANDIDATES: usize = 10_000;
/// Characters of a value that a message quotes.
pub(crate) const QUOTED_CHARS: usize = 60;
