//! The short way through heads that are plainly well-formed: one look at each byte, no intermediate list.
//!
//! Nearly every head is `name: value CRLF` lines of the strict grammar and nothing else. These functions accept
//! just those and say "not plain" (`None`) about everything else, be it wrong, unusual or incomplete. What is not
//! plain goes the long way, which alone decides what is an error and which. Both ways give the same result for
//! what both accept; the fuzz targets compare them.

use crate::headers::is_valid_value;
use crate::method::is_token_byte;

/// One line of a header section.
pub(super) enum Line<'a> {
    /// A field's name and its value without surrounding white space.
    Field(&'a [u8], &'a [u8]),
    /// The empty line.
    End,
}

/// Method, target and minor version of the request line that `rest` starts with; `rest` then starts with what
/// follows it. The target's bytes are not checked.
pub(super) fn request_line<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8], u8)> {
    let bytes = *rest;
    let method_end = memchr::memchr(b' ', bytes)?;
    let (method, after) = (&bytes[..method_end], &bytes[method_end + 1..]);
    let target_end = memchr::memchr(b' ', after)?;
    let (target, after) = (&after[..target_end], &after[target_end + 1..]);
    let minor = minor_version(after, b"\r\n")?;
    *rest = &after[10..];
    (!method.is_empty() && !target.is_empty()).then_some((method, target, minor))
}

/// Minor version, status code and reason phrase of the status line that `rest` starts with.
pub(super) fn status_line<'a>(rest: &mut &'a [u8]) -> Option<(u8, u16, &'a [u8])> {
    let bytes = *rest;
    let minor = minor_version(bytes, b" ")?;
    let (code, after) = bytes[9..].split_first_chunk::<3>()?;
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    let status = digit(code[0])? * 100 + digit(code[1])? * 10 + digit(code[2])?;
    let after = after.strip_prefix(b" ")?;
    let end = memchr::memchr(b'\r', after)?;
    let reason = &after[..end];
    *rest = after[end..].strip_prefix(b"\r\n")?;
    reason.iter().all(|byte| matches!(byte, b' '..=b'~')).then_some((minor, status, reason))
}

/// The line that `rest` starts with; `rest` then starts with the next.
pub(super) fn line<'a>(rest: &mut &'a [u8]) -> Option<Line<'a>> {
    let bytes = *rest;
    if let Some(after) = bytes.strip_prefix(b"\r\n") {
        *rest = after;
        return Some(Line::End);
    }
    let name_end = bytes.iter().position(|byte| !is_token_byte(*byte))?;
    let after = bytes[name_end..].strip_prefix(b":")?;
    let end = memchr::memchr(b'\r', after)?;
    *rest = after[end..].strip_prefix(b"\r\n")?;
    let value = trim(&after[..end]);
    (name_end > 0 && is_valid_value(value)).then_some(Line::Field(&bytes[..name_end], value))
}

/// The digit after `HTTP/1.` when it is 0 or 1 and `end` follows.
fn minor_version(bytes: &[u8], end: &[u8]) -> Option<u8> {
    let (digit, after) = bytes.strip_prefix(b"HTTP/1.")?.split_first()?;
    (matches!(digit, b'0' | b'1') && after.starts_with(end)).then(|| digit - b'0')
}

/// Without optional white space (RFC 9110 section 5.6.3) at both ends.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
