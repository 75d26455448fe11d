//! Where in `schema.lua` a field is written. Lua keeps no lines of the keys of a table, so they are looked for in the text:
//! the names of the path, one after the other.

/// The line, from 1, of the last name of `path` that is found.
pub(super) fn line(text: &str, path: &[String]) -> usize {
    let mut at = 0;
    for name in path {
        if let Some(found) = key(text, at, name) {
            at = found + name.len();
        }
    }
    text[..at].bytes().filter(|byte| *byte == b'\n').count() + 1
}

/// Where after `from` something is written for the key `name`.
fn key(text: &str, from: usize, name: &str) -> Option<usize> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text[from..].match_indices(name).map(|(offset, _)| from + offset).find(|start| {
        let (before, after) = (&text[..*start], &text[start + name.len()..]);
        let whole = !before.bytes().next_back().is_some_and(word) && !after.bytes().next().is_some_and(word);
        let after = after.trim_start_matches(['"', '\'']).trim_start().trim_start_matches(']').trim_start();
        whole && after.starts_with('=') && !after.starts_with("==")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_followed_in_order() {
        let text = "local host = 1\nreturn {\n  fields = {\n    { config = { fields = {\n      { host = { len = 1 } },\n      { ['port'] =\n 5 } } } } }";
        for (path, expected) in
            [("", 1), ("config", 4), ("config.host", 5), ("config.host.len", 5), ("config.port", 6), ("config.no", 4)]
        {
            let path: Vec<String> = path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            assert_eq!(line(text, &path), expected, "{path:?}");
        }
        assert_eq!(line("é = 1", &["é".to_owned()]), 1);
    }
}
