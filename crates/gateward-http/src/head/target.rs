//! The request target and the authority (RFC 9112 section 3.2).
//!
//! The target is checked and split by form, never normalised: that is `uri`'s, once, for matching and for
//! the upstream alike.

use super::HeadError;
use crate::Method;
use std::net::Ipv6Addr;

/// A target split by its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// Path and query, or `*`.
    Origin(&'a str),
    /// `http://authority/path?query`: authority, and the rest, which may lack its path.
    Absolute(&'a str, &'a str),
    /// CONNECT's `host:port`.
    Authority(&'a str),
}

/// The form of `text`, when `method` allows it and every byte may stand in a target.
pub(super) fn split<'a>(method: &Method, text: &'a str) -> Result<Target<'a>, HeadError> {
    if !text.bytes().all(is_target_byte) {
        return Err(HeadError::BadTarget);
    }
    if *method == Method::Connect {
        return match port_of(text) {
            Some(Some(_)) => Ok(Target::Authority(text)),
            _ => Err(HeadError::BadTarget),
        };
    }
    if text.starts_with('/') {
        return Ok(Target::Origin(text));
    }
    if text == "*" {
        return if *method == Method::Options { Ok(Target::Origin(text)) } else { Err(HeadError::BadTarget) };
    }
    let rest = strip_scheme(text, "http://").or_else(|| strip_scheme(text, "https://")).ok_or(HeadError::BadTarget)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if port_of(authority).is_none() {
        return Err(HeadError::BadHost);
    }
    Ok(Target::Absolute(authority, path))
}

/// `value` as text when it is a host with an optional port: a registered name, an IPv4 address or an IPv6 address in
/// brackets. No user information, no empty host, no comma (which merged Host fields would show).
pub(super) fn authority(value: &[u8]) -> Option<&str> {
    str::from_utf8(value).ok().filter(|text| port_of(text).is_some())
}

/// The port of an authority, `Some(None)` when it has none; `None` when `text` is not an authority.
fn port_of(text: &str) -> Option<Option<u16>> {
    let (host_ok, rest) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (address, rest) = bracketed.split_once(']')?;
            (address.parse::<Ipv6Addr>().is_ok(), rest)
        }
        None => {
            let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_registered_name(host.as_bytes()), rest)
        }
    };
    if !host_ok {
        return None;
    }
    if rest.is_empty() {
        return Some(None);
    }
    let digits = rest.strip_prefix(':')?;
    if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Some)
}

/// reg-name of RFC 3986 section 3.2.2 without the comma, not empty.
fn is_registered_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let Some(odd) = rest.iter().position(|byte| !NAME_BYTE[*byte as usize]) {
        rest = match &rest[odd..] {
            [b'%', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => tail,
            _ => return false,
        };
    }
    !host.is_empty()
}

/// unreserved and sub-delims of RFC 3986 but the comma.
const NAME_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric()
            || matches!(
                byte as u8,
                b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
            );
        byte += 1;
    }
    table
};

fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Visible ASCII but `#` (a fragment is never sent) and `\` (which some servers read as `/`).
fn is_target_byte(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && byte != b'#' && byte != b'\\'
}
