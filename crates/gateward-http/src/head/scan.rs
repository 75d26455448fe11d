//! The short way through heads that are plainly well-formed: one look at each byte, no intermediate list.
//!
//! Nearly every head is `name: value CRLF` lines of the strict grammar and nothing else. These functions accept
//! just those and say "not plain" (`None`) about everything else, be it wrong, unusual or incomplete. What is not
//! plain goes the long way, which alone decides what is an error and which. Both ways give the same result for
//! what both accept; the fuzz targets compare them.

use crate::headers::{Places, is_valid_value};
use crate::method::is_token_byte;

/// One line of a header section.
pub(super) enum Line<'a> {
    /// A field's name and its value without surrounding white space, and where they are.
    Field { name: &'a [u8], value: &'a [u8], places: Places },
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

/// The line of `section` that begins at `start`, and where the next one begins.
pub(super) fn line(section: &[u8], start: usize) -> Option<(Line<'_>, usize)> {
    let bytes = &section[start..];
    if bytes.starts_with(b"\r\n") {
        return Some((Line::End, start + 2));
    }
    let (name_len, underscored) = token(bytes);
    let after = bytes[name_len..].strip_prefix(b":")?;
    let leading = after.iter().take_while(|byte| is_space(**byte)).count();
    let length = value_length(&after[leading..]);
    let (value, rest) = after[leading..].split_at(length);
    if name_len == 0 || !rest.starts_with(b"\r\n") {
        return None;
    }
    let trimmed = trim_end(value);
    let places = Places {
        name_start: start as u32,
        value_start: (start + name_len + 1 + leading) as u32,
        value_len: trimmed.len() as u32,
        underscored,
        line: leading == 1 && after[0] == b' ' && trimmed.len() == length,
    };
    let next = start + name_len + 1 + leading + length + 2;
    Some((Line::Field { name: &bytes[..name_len], value: trimmed, places }, next))
}

/// Length of the token that `bytes` starts with, and whether there is an underscore in it.
fn token(bytes: &[u8]) -> (usize, bool) {
    let (mut length, mut underscored) = (0, false);
    while let Some(byte) = bytes.get(length)
        && is_token_byte(*byte)
    {
        underscored |= *byte == b'_';
        length += 1;
    }
    (length, underscored)
}

/// How many bytes `bytes` starts with that may stand in a field value (see [`is_valid_value`]).
///
/// Eight at a time: each expression sets the highest bit of the bytes it names, without a carry between bytes.
fn value_length(bytes: &[u8]) -> usize {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    const LOW: u64 = !HIGH;
    let equal = |word: u64, byte: u8| {
        let other = word ^ u64::from_ne_bytes([byte; 8]);
        !((other & LOW).wrapping_add(LOW) | other) & HIGH
    };
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = !((word & LOW).wrapping_add(0x6060_6060_6060_6060) | word) & HIGH;
        let bad = (control & !equal(word, b'\t')) | equal(word, 0x7f);
        if bad != 0 {
            return index * 8 + bad.trailing_zeros() as usize / 8;
        }
    }
    words.len() * 8 + rest.iter().take_while(|byte| is_valid_value(&[**byte])).count()
}

/// The digit after `HTTP/1.` when it is 0 or 1 and `end` follows.
fn minor_version(bytes: &[u8], end: &[u8]) -> Option<u8> {
    let (digit, after) = bytes.strip_prefix(b"HTTP/1.")?.split_first()?;
    (matches!(digit, b'0' | b'1') && after.starts_with(end)).then(|| digit - b'0')
}

/// Without optional white space (RFC 9110 section 5.6.3) at the end.
fn trim_end(mut value: &[u8]) -> &[u8] {
    while let [rest @ .., last] = value
        && is_space(*last)
    {
        value = rest;
    }
    value
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_at_the_first_byte_that_may_not_stand_in_one() {
        for bad in 0..=255_u8 {
            for place in 0..20 {
                let mut bytes = *b"a\t~ \x80\xff!b\ta~ \x80\xff!bcdefghij";
                bytes[place] = bad;
                let expected = if is_valid_value(&[bad]) { bytes.len() } else { place };
                assert_eq!(value_length(&bytes), expected, "{bad:#x} at {place}");
            }
        }
    }
}
