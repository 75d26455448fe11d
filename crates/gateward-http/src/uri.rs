//! Paths and queries: the one normaliser and the one escaper.
//!
//! Matching, access control and the upstream must see one path. The normaliser makes that path: it decodes
//! what has no meaning of its own, keeps escaped what has (reserved characters, and every byte that servers
//! read in different ways), and removes dot segments after decoding. The escaper turns it back into a target
//! that normalises to the same path again. Behaviour is that of `kong/tools/uri.lua` except that escapes of
//! control characters, `\` and bytes that are no UTF-8 stay escaped, and that malformed escapes are refused.

use std::borrow::Cow;

/// Arguments of a query that are looked at; the rest are ignored. Bounds the work a query can cause.
pub const QUERY_ARGS_MAX: usize = 1000;

/// A path that cannot be normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PathError {
    /// `%` that two hex digits do not follow.
    #[error("malformed percent escape in the path; write % as %25")]
    BadEscape,
    /// NUL, escaped or raw: the end of the string to some readers.
    #[error("NUL in the path")]
    Nul,
    /// A dot segment with parameters (`..;a`): a name to most readers, a dot segment to some (RFC 3986
    /// section 3.3 allows both).
    #[error("dot segment with parameters in the path; write . as a plain segment")]
    DotParams,
    /// Not `*` and not starting with `/`.
    #[error("the path does not start with /")]
    NotAbsolute,
}

impl PathError {
    /// Status to answer a client with: 400.
    pub fn status(self) -> u16 {
        400
    }

    /// Reason label for the refusal counter, e.g. `path_escape`.
    pub fn label(self) -> &'static str {
        match self {
            Self::BadEscape => "path_escape",
            Self::Nul => "path_nul",
            Self::DotParams => "path_dot_params",
            Self::NotAbsolute => "path_not_absolute",
        }
    }
}

/// Normalise the raw path of a target into `out` (cleared first), as Kong's `kong/tools/uri.lua` does.
///
/// Decodes percent escapes except of reserved characters (`!*'();:@&=+$,/?%#[]`), `\`, control characters and
/// bytes that are not valid UTF-8, which are kept with upper-case hex digits; removes dot segments (RFC 3986
/// section 5.2.4) after decoding; with `merge_slashes` makes one of every run of `/`. `*` stays as it is.
/// Idempotent. Does not allocate when nothing is to be done and `out` has the room.
///
/// # Errors
/// A malformed escape, NUL, a dot segment with parameters, or a path that does not start with `/`; `out` is then of no use.
pub fn normalize_path(raw: &str, merge_slashes: bool, out: &mut String) -> Result<(), PathError> {
    out.clear();
    if raw == "*" {
        out.push('*');
        return Ok(());
    }
    if is_normal(raw.as_bytes(), merge_slashes) {
        out.push_str(raw);
        return Ok(());
    }
    let rest = raw.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
    out.push('/');
    let mut segments = rest.split('/').peekable();
    // `out` ends with `/` whenever a segment begins.
    while let Some(segment) = segments.next() {
        let start = out.len();
        decode_segment(segment, out)?;
        let is_last = segments.peek().is_none();
        match &out[start..] {
            "." => out.truncate(start),
            ".." => {
                out.truncate(start - 1);
                let parent = out.rfind('/').unwrap_or(0);
                out.truncate(parent);
                out.push('/');
            }
            segment if segment.starts_with(".;") || segment.starts_with("..;") => return Err(PathError::DotParams),
            "" if merge_slashes => {}
            _ if is_last => {}
            _ => out.push('/'),
        }
    }
    Ok(())
}

/// Append `path` (a normalised path, possibly with a service path in front) to `out`, percent-encoding what may not
/// stand raw in a request target. Existing escapes stay as they are.
///
/// Reserved characters stay raw but for `?` and `#`, which would end the path; a `%` that begins no escape
/// becomes `%25`.
pub fn escape_path(path: &str, out: &mut String) {
    let bytes = path.as_bytes();
    // Bytes kept are ASCII, so every run of them can be copied as text.
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let keep = match byte {
            b'%' => escape_at(bytes, at).is_some(),
            b'?' | b'#' => false,
            _ => byte.is_ascii_alphanumeric() || is_reserved(byte) || matches!(byte, b'-' | b'.' | b'_' | b'~'),
        };
        if !keep {
            out.push_str(path.get(copied..at).unwrap_or_default());
            push_escape(byte, out);
            copied = at + 1;
        }
    }
    out.push_str(path.get(copied..).unwrap_or_default());
}

/// Host and port of an authority that the codec has accepted; IPv6 stays in brackets.
///
/// ```
/// use gateward_http::uri::split_authority;
/// assert_eq!(split_authority("example.com:8000"), ("example.com", Some(8000)));
/// assert_eq!(split_authority("[::1]"), ("[::1]", None));
/// assert_eq!(split_authority("[::1]:81"), ("[::1]", Some(81)));
/// assert_eq!(split_authority("1.2.3.4"), ("1.2.3.4", None));
/// ```
pub fn split_authority(authority: &str) -> (&str, Option<u16>) {
    // Outside brackets the only colon is the one before the port, which is all digits; five of them at most.
    let tail = authority.as_bytes().iter().rev().take(PORT_DIGITS + 1);
    match tail.take_while(|byte| byte.is_ascii_digit() || **byte == b':').position(|byte| *byte == b':') {
        Some(digits) => {
            let (host, port) = authority.split_at(authority.len() - digits - 1);
            (host, port[1..].parse().ok())
        }
        None => (authority, None),
    }
}

/// Most digits a port has.
const PORT_DIGITS: usize = 5;

/// The arguments of a query in order: percent- and plus-decoded names and values; `None` for an argument without `=`.
///
/// Malformed escapes stay as they are and bytes that are no UTF-8 become U+FFFD: a query is data to match on,
/// and is forwarded as it came. At most [`QUERY_ARGS_MAX`] arguments; empty ones are skipped.
pub fn query_args(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Option<Cow<'_, str>>)> {
    query.split('&').filter(|argument| !argument.is_empty()).take(QUERY_ARGS_MAX).map(|argument| {
        match argument.split_once('=') {
            Some((name, value)) => (decode_form(name), Some(decode_form(value))),
            None => (decode_form(argument), None),
        }
    })
}

/// Append one argument to the query in `out`, after `&` unless it is the first. Everything but unreserved
/// characters is percent-encoded, so that [`query_args`] gives back what was put in.
pub fn write_query_arg(out: &mut String, name: &str, value: Option<&str>) {
    if !out.is_empty() {
        out.push('&');
    }
    push_encoded(name, out);
    if let Some(value) = value {
        out.push('=');
        push_encoded(value, out);
    }
}

/// Whether normalising would change nothing: no escape, no dot at the start of a segment, no `//` to merge,
/// no byte that must be escaped.
fn is_normal(raw: &[u8], merge_slashes: bool) -> bool {
    let mut previous = 0;
    for &byte in raw {
        let segment_start = previous == b'/';
        if byte == b'%'
            || must_stay_escaped_raw(byte)
            || (segment_start && (byte == b'.' || (merge_slashes && byte == b'/')))
        {
            return false;
        }
        previous = byte;
    }
    raw.first() == Some(&b'/')
}

/// Append `segment`, which holds no raw `/`, decoded.
fn decode_segment(segment: &str, out: &mut String) -> Result<(), PathError> {
    let bytes = segment.as_bytes();
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte != b'%' && !must_stay_escaped_raw(byte) {
            at += 1;
            continue;
        }
        out.push_str(&segment[copied..at]);
        if byte == b'%' {
            let decoded = escape_at(bytes, at).ok_or(PathError::BadEscape)?;
            at += push_decoded(decoded, bytes, at, out)?;
        } else if byte == 0 {
            return Err(PathError::Nul);
        } else {
            push_escape(byte, out);
            at += 1;
        }
        copied = at;
    }
    out.push_str(&segment[copied..]);
    Ok(())
}

/// Append what the escape of `byte` at `at` stands for; how many bytes of input that took.
fn push_decoded(byte: u8, bytes: &[u8], at: usize, out: &mut String) -> Result<usize, PathError> {
    match byte {
        0 => return Err(PathError::Nul),
        0x80.. => {
            if let Some(character) = escaped_char(byte, bytes, at) {
                out.push(character);
                return Ok(character.len_utf8() * 3);
            }
            push_escape(byte, out);
        }
        _ if is_reserved(byte) || byte == b'%' || must_stay_escaped_raw(byte) => push_escape(byte, out),
        _ => out.push(char::from(byte)),
    }
    Ok(3)
}

/// The character whose UTF-8 encoding is escaped from `at` on and begins with `lead`. Overlong forms,
/// surrogates and cut sequences are none.
fn escaped_char(lead: u8, bytes: &[u8], at: usize) -> Option<char> {
    let length = match lead {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    let mut encoded = [lead; 4];
    for (index, slot) in encoded.iter_mut().enumerate().take(length).skip(1) {
        *slot = escape_at(bytes, at + index * 3)?;
    }
    str::from_utf8(&encoded[..length]).ok()?.chars().next()
}

/// The byte that the escape at `at` stands for, when there is one.
fn escape_at(bytes: &[u8], at: usize) -> Option<u8> {
    let &[b'%', high, low] = bytes.get(at..at + 3)? else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

fn push_escape(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 0xf)]));
}

/// Bytes that are escaped even when they come raw: they end a path, or servers read them in different ways.
const fn must_stay_escaped_raw(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f || matches!(byte, b'\\' | b'?' | b'#')
}

/// Reserved characters (RFC 3986 section 2.2): escaped and raw they mean different things.
const fn is_reserved(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'*'
            | b'\''
            | b'('
            | b')'
            | b';'
            | b':'
            | b'@'
            | b'&'
            | b'='
            | b'+'
            | b'$'
            | b','
            | b'/'
            | b'?'
            | b'#'
            | b'['
            | b']'
    )
}

/// `%XX` and `+` decoded, as forms encode (URL standard).
fn decode_form(text: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'%', b'+', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (byte, taken) = match (bytes[at], escape_at(bytes, at)) {
            (_, Some(byte)) => (byte, 3),
            (b'+', None) => (b' ', 1),
            (byte, None) => (byte, 1),
        };
        decoded.push(byte);
        at += taken;
    }
    Cow::Owned(match String::from_utf8(decoded) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

fn push_encoded(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            push_escape(byte, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(raw: &str, merge_slashes: bool) -> Result<String, PathError> {
        let mut out = "left over".to_owned();
        normalize_path(raw, merge_slashes, &mut out).map(|()| out)
    }

    /// Each row: a raw path and its normal form, which must hold with and without merging.
    fn check(rows: &[(&str, &str)]) {
        for (raw, expected) in rows {
            assert_eq!(normal(raw, true).as_deref(), Ok(*expected), "{raw}");
            assert_eq!(normal(raw, false).as_deref(), Ok(*expected), "{raw}");
            crate::fuzzing::uri(raw.as_bytes());
        }
    }

    fn check_refused(rows: &[(&str, PathError)]) {
        for (raw, error) in rows {
            assert_eq!(normal(raw, true), Err(*error), "{raw}");
            assert_eq!((error.status(), error.label().is_empty()), (400, false));
        }
    }

    #[test]
    fn unreserved_and_other_characters_are_decoded() {
        check(&[
            ("/", "/"),
            ("*", "*"),
            ("/a/b", "/a/b"),
            ("/%61%2D%5f%7E", "/a-_~"),
            ("/a%20b", "/a b"),
            ("/%22%3c%3E%5E%60%7b%7C%7d", "/\"<>^`{|}"),
            ("/%C3%A9%e2%82%ac%F0%9F%98%80", "/é€😀"),
        ]);
    }

    #[test]
    fn reserved_characters_stay_escaped_in_upper_case() {
        check(&[
            (
                "/%21%2a%27%28%29%3b%3a%40%26%3d%2b%24%2c%3f%23%5b%5d",
                "/%21%2A%27%28%29%3B%3A%40%26%3D%2B%24%2C%3F%23%5B%5D",
            ),
            ("/!*'();:@&=+$,[]", "/!*'();:@&=+$,[]"),
        ]);
    }

    #[test]
    fn escaped_slash_and_backslash_stay_escaped() {
        check(&[("/a%2fb", "/a%2Fb"), ("/a%5cb", "/a%5Cb"), ("/a\\b", "/a%5Cb"), ("/a%2f..%2fb", "/a%2F..%2Fb")]);
    }

    #[test]
    fn escaped_nul_and_malformed_escapes_are_refused() {
        check_refused(&[
            ("/a%00", PathError::Nul),
            ("/a\0", PathError::Nul),
            ("/%", PathError::BadEscape),
            ("/%2", PathError::BadEscape),
            ("/%zz", PathError::BadEscape),
            ("/%+1", PathError::BadEscape),
            ("/%é", PathError::BadEscape),
            ("/%%35c", PathError::BadEscape),
            ("", PathError::NotAbsolute),
            ("a/b", PathError::NotAbsolute),
            ("**", PathError::NotAbsolute),
            ("..", PathError::NotAbsolute),
        ]);
    }

    #[test]
    fn control_characters_stay_escaped() {
        check(&[("/%0d%0A%1f%7f", "/%0D%0A%1F%7F"), ("/a\tb", "/a%09b")]);
    }

    #[test]
    fn overlong_and_invalid_utf8_stay_escaped() {
        check(&[
            ("/%c0%af", "/%C0%AF"),
            ("/%c0%ae%c0%ae/a", "/%C0%AE%C0%AE/a"),
            ("/%e0%80%af", "/%E0%80%AF"),
            ("/%ed%a0%80", "/%ED%A0%80"),
            ("/%f4%90%80%80", "/%F4%90%80%80"),
            ("/%ff%fe", "/%FF%FE"),
            ("/%c3", "/%C3"),
            ("/%c3a", "/%C3a"),
            ("/%c3é", "/%C3é"),
            ("/%c3%c3%a9", "/%C3é"),
            ("/%a9%c3", "/%A9%C3"),
        ]);
    }

    #[test]
    fn double_encoding_is_not_decoded_twice() {
        check(&[
            ("/%2541", "/%2541"),
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/%25%32%66", "/%252f"),
            ("/%25zz", "/%25zz"),
        ]);
    }

    #[test]
    fn dot_segments_are_removed_after_decoding() {
        check(&[
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/%2e./b", "/b"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/.", "/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/a/b/c/../../d", "/a/d"),
            ("/.a/..b/c./d..", "/.a/..b/c./d.."),
            ("/...", "/..."),
        ]);
    }

    #[test]
    fn slashes_are_merged_when_asked() {
        for (raw, merged, kept) in [
            ("//", "/", "//"),
            ("/a//b///c/", "/a/b/c/", "/a//b///c/"),
            ("/a//../b", "/b", "/a/b"),
            ("/a/.//b", "/a/b", "/a//b"),
            ("//../a", "/a", "/a"),
            ("/a//", "/a/", "/a//"),
        ] {
            assert_eq!((normal(raw, true).as_deref(), normal(raw, false).as_deref()), (Ok(merged), Ok(kept)), "{raw}");
            crate::fuzzing::uri(raw.as_bytes());
        }
    }

    #[test]
    fn parameters_stay_but_never_hide_a_dot_segment() {
        check(&[("/a;b=c/d", "/a;b=c/d"), ("/a..;x", "/a..;x"), ("/..%3bx", "/..%3Bx"), ("/;/..", "/")]);
        check_refused(&[
            ("/a/..;/b", PathError::DotParams),
            ("/a/%2e.;x=y/b", PathError::DotParams),
            ("/a/.;x", PathError::DotParams),
        ]);
    }

    #[test]
    fn a_path_in_normal_form_costs_no_allocation() {
        let mut out = String::with_capacity(32);
        let before = out.as_ptr();
        normalize_path("/some/plain.html/path", true, &mut out).unwrap();
        assert_eq!((out.as_str(), out.as_ptr()), ("/some/plain.html/path", before));
    }

    #[test]
    fn escaping_makes_a_valid_target_of_the_same_path() {
        for (path, expected) in [
            ("/a b", "/a%20b"),
            ("/é\"<>", "/%C3%A9%22%3C%3E"),
            ("/a%2Fb%2f", "/a%2Fb%2f"),
            ("/100%/%zz%4", "/100%25/%25zz%254"),
            ("/a?b#c\\", "/a%3Fb%23c%5C"),
            ("/!$&'()*+,;=:@[]-._~", "/!$&'()*+,;=:@[]-._~"),
            ("/\r\nX: y", "/%0D%0AX:%20y"),
            ("", ""),
        ] {
            let mut out = "base".to_owned();
            escape_path(path, &mut out);
            assert_eq!(out, format!("base{expected}"));
        }
    }

    #[test]
    fn query_arguments_are_decoded_in_order() {
        let args: Vec<_> = query_args("a=1&b&&c=&=d&a=x+y%20%3D&%ff=%zz&e=f=g").collect();
        let shown: Vec<_> = args.iter().map(|(name, value)| (name.as_ref(), value.as_deref())).collect();
        let expected = [
            ("a", Some("1")),
            ("b", None),
            ("c", Some("")),
            ("", Some("d")),
            ("a", Some("x y =")),
            ("\u{fffd}", Some("%zz")),
            ("e", Some("f=g")),
        ];
        assert_eq!(shown, expected);
        assert_eq!(query_args("").count(), 0);
        assert_eq!(query_args(&"a&".repeat(5000)).count(), QUERY_ARGS_MAX);
    }

    #[test]
    fn queries_are_rebuilt_with_everything_encoded() {
        let mut query = String::new();
        write_query_arg(&mut query, "a b", Some("c&d=é+"));
        write_query_arg(&mut query, "e", None);
        write_query_arg(&mut query, "f", Some(""));
        assert_eq!(query, "a%20b=c%26d%3D%C3%A9%2B&e&f=");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn one_view_of_every_path(path in r"/([a-c./;\\?# é&=+]|%[0-9a-fA-F]{2}|%2[eEfF5]|%[cCeE][0-9a-f]%[89aA][0-9a-f]){0,16}") {
            crate::fuzzing::uri(path.as_bytes());
        }

        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            crate::fuzzing::uri(text.as_bytes());
            crate::fuzzing::uri(format!("/{text}").as_bytes());
        }
    }
}
