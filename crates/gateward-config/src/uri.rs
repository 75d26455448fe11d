//! The normal form of a route's path (kong/tools/uri.lua), and the rewriting of paths of old file formats.
//!
//! The data plane normalises request paths the same way before it matches them; a configured prefix that is
//! not in normal form could therefore never match, which is why the loader refuses it.

/// Characters that stay percent-encoded: RFC 3986's reserved set, and `%` itself.
const RESERVED: &[u8] = b"!*'();:@&=+$,/?%#[]";

/// Decode what need not be encoded, write escapes in capitals, remove dot segments, merge slashes.
pub(crate) fn normalize(path: &str) -> String {
    let decoded = decode(path, |byte, out| {
        if RESERVED.contains(&byte) {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            out.push(byte);
        }
    });
    let mut segments: Vec<&str> = Vec::new();
    let mut open = false;
    for segment in decoded.split('/').skip(1) {
        open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let mut normal = format!("/{}", segments.join("/"));
    if open && normal.len() > 1 {
        normal.push('/');
    }
    normal
}

/// A path of `_format_version` 1.1 or 2.1 as 3.0 writes it: what could only be a prefix stays one, anything
/// else was a regular expression and gets `~` (kong/db/migrations/migrate_path_280_300.lua).
pub(crate) fn migrate(path: &str) -> String {
    if path.starts_with('~') {
        return path.to_owned();
    }
    let is_prefix = path.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_~/%".contains(&b));
    if is_prefix {
        return if path.starts_with('/') { normalize(path) } else { path.to_owned() };
    }
    let decoded = decode(path, |byte, out| {
        if RESERVED.contains(&byte) {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            // A decoded character stands for itself, also where a bare one would be an operator.
            if b".^{}|\\".contains(&byte) {
                out.push(b'\\');
            }
            out.push(byte);
        }
    });
    format!("~{decoded}")
}

/// Replace each valid escape by what `put` writes for its byte. Text that would not be UTF-8 is left alone.
fn decode(path: &str, put: impl Fn(u8, &mut Vec<u8>)) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes.get(at..at + 3).and_then(escape) {
            Some(byte) => {
                put(byte, &mut out);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| path.to_owned())
}

fn escape(bytes: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match bytes {
        [b'%', high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_form() {
        for (path, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/a//b/", "/a/b/"),
            ("/a/./b", "/a/b"),
            ("/a/../../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/%41%2f%3a", "/A%2F%3A"),
            ("/%zz%4", "/%zz%4"),
            ("/%ff", "/%ff"),
        ] {
            assert_eq!(normalize(path), expected, "{path}");
        }
    }

    #[test]
    fn old_formats() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("/a/%41", "/a/A"),
            ("/a/\\d+", "~/a/\\d+"),
            ("/(x|y)", "~/(x|y)"),
            ("/a b%2E", "~/a b\\."),
            ("~/x", "~/x"),
        ] {
            assert_eq!(migrate(path), expected, "{path}");
        }
    }
}
