//! The literal text a regular expression must start with: what the index files it under.

use regex_syntax::hir::{Hir, HirKind, Look};

/// The text every match of `pattern` starts with, when the match has to start at the beginning; else nothing.
pub(crate) fn literal_start(pattern: &str) -> Vec<u8> {
    let Ok(parsed) = regex_syntax::parse(pattern) else { return Vec::new() };
    let HirKind::Concat(parts) = parsed.kind() else { return Vec::new() };
    let mut parts = parts.iter().map(Hir::kind).peekable();
    let mut anchored = false;
    while parts.next_if(|part| matches!(part, HirKind::Look(Look::Start))).is_some() {
        anchored = true;
    }
    match parts.next() {
        Some(HirKind::Literal(literal)) if anchored => literal.0.to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_starts_are_what_every_match_starts_with() {
        for (pattern, expected) in [
            ("^/api/v1", "/api/v1"),
            ("^/api/v\\d+/x", "/api/v"),
            ("^/api/(?<id>\\d+)", "/api/"),
            ("^^/a", "/a"),
            ("^/ab?", "/a"),
            ("^/ab*", "/a"),
            ("^/a|/b", ""),
            ("^(/a|/b)", ""),
            ("^(?i)/a", "/"),
            ("/a", ""),
            ("^", ""),
            ("^.*", ""),
            ("^/a\\.b", "/a.b"),
            ("(?m)^/a", ""),
            ("^/é[x]", "/éx"),
        ] {
            let found = literal_start(pattern);
            assert_eq!(String::from_utf8_lossy(&found), expected, "{pattern}");
        }
    }
}
