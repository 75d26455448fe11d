//! Paths and queries: the one normaliser and the one escaper.

/// A path that cannot be normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed path")]
pub struct PathError;

/// Normalise the raw path of a target into `out` (cleared first), as Kong's `kong/tools/uri.lua` does.
pub fn normalize_path(raw: &str, merge_slashes: bool, out: &mut String) -> Result<(), PathError> {
    let _ = (raw, merge_slashes, out);
    Err(PathError)
}

/// Append `path` (a normalised path, possibly with a service path in front) to `out`, percent-encoding what may not
/// stand raw in a request target. Existing escapes stay as they are.
pub fn escape_path(path: &str, out: &mut String) {
    let _ = (path, out);
}

/// The arguments of a query in order: percent- and plus-decoded names and values; `None` for an argument without `=`.
pub fn query_args(query: &str) -> impl Iterator<Item = (std::borrow::Cow<'_, str>, Option<std::borrow::Cow<'_, str>>)> {
    let _ = query;
    std::iter::empty()
}
