//! Parameters of SVCB and HTTPS records (RFC 9460, 2.1, 2.2, 7 and 8).

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use domain::utils::base64;

use super::Cursor;
use super::write::{big_endian, quoted};
use crate::lexer::{Fault, Token, push_unescaped};

/// Keys by number; the others are written `keyN`.
const KEYS: [&str; 10] = [
    "mandatory",
    "alpn",
    "no-default-alpn",
    "port",
    "ipv4hint",
    "ech",
    "ipv6hint",
    "dohpath",
    "ohttp",
    "tls-supported-groups",
];

pub(crate) const MANDATORY: u16 = 0;
pub(crate) const ALPN: u16 = 1;
pub(crate) const NO_DEFAULT_ALPN: u16 = 2;
const PORT: u16 = 3;
const IPV4_HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6_HINT: u16 = 6;
const OHTTP: u16 = 8;
const GROUPS: u16 = 9;

/// The keys and values, in order; `None` when they do not have the form, the order or the rules of the RFC.
pub(crate) fn params(mut rest: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut found: Vec<(u16, &[u8])> = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = rest.split_at_checked(4)?;
        let key = u16::from_be_bytes([head[0], head[1]]);
        let (value, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes([head[2], head[3]])))?;
        if found.last().is_some_and(|(last, _)| *last >= key) || !is_valid(key, value) {
            return None;
        }
        found.push((key, value));
        rest = tail;
    }
    missing(&found).is_none().then_some(found)
}

fn is_valid(key: u16, value: &[u8]) -> bool {
    match key {
        MANDATORY => {
            !value.is_empty()
                && value.len().is_multiple_of(2)
                && value.chunks(2).is_sorted_by(|a, b| a < b)
                && value[..2] != [0, 0]
        }
        ALPN => !value.is_empty() && alpn_items(value).is_some(),
        NO_DEFAULT_ALPN | OHTTP => value.is_empty(),
        PORT => value.len() == 2,
        IPV4_HINT => !value.is_empty() && value.len().is_multiple_of(4),
        IPV6_HINT => !value.is_empty() && value.len().is_multiple_of(16),
        GROUPS => !value.is_empty() && value.len().is_multiple_of(2),
        ECH => !value.is_empty(),
        _ => true,
    }
}

/// A key that is called mandatory but is not there (RFC 9460, 8).
fn missing(found: &[(u16, &[u8])]) -> Option<u16> {
    let (_, mandatory) = found.first().filter(|(key, _)| *key == MANDATORY)?;
    let mut keys = mandatory.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    keys.find(|wanted| !found.iter().any(|(key, _)| key == wanted))
}

fn alpn_items(mut value: &[u8]) -> Option<Vec<&[u8]>> {
    let mut items = Vec::new();
    while let Some((len, rest)) = value.split_first() {
        let (item, rest) = rest.split_at_checked(usize::from(*len)).filter(|(item, _)| !item.is_empty())?;
        items.push(item);
        value = rest;
    }
    Some(items)
}

/// Reads `key` and `key=value` words to the end; keys may stand in any order.
pub(super) fn read(words: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut found: Vec<(u16, Vec<u8>)> = Vec::new();
    let first = words.peek().copied();
    while let Some(token) = words.take() {
        let (key, value) = read_param(token)?;
        if found.iter().any(|(other, _)| *other == key) {
            return Err(token.fault(format!("the key `{}` is given twice", key_name(key))));
        }
        found.push((key, value));
    }
    found.sort();
    let borrowed: Vec<(u16, &[u8])> = found.iter().map(|(key, value)| (*key, &**value)).collect();
    if let (Some(key), Some(token)) = (missing(&borrowed), first) {
        return Err(token.fault(format!("`mandatory` names `{}`, which the record does not have", key_name(key))));
    }
    for (key, value) in borrowed {
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
        out.extend(key.to_be_bytes());
        out.extend(len.to_be_bytes());
        out.extend_from_slice(&value[..usize::from(len)]);
    }
    Ok(())
}

fn read_param(token: &Token<'_>) -> Result<(u16, Vec<u8>), Fault> {
    let end = token.raw.iter().position(|octet| *octet == b'=');
    let (key, raw) = match end {
        Some(end) => (&token.raw[..end], &token.raw[end + 1..]),
        None => (token.raw, &b""[..]),
    };
    let raw = raw.strip_prefix(b"\"").and_then(|raw| raw.strip_suffix(b"\"")).unwrap_or(raw);
    let number = std::str::from_utf8(key).ok().and_then(key_number).filter(|_| !token.quoted);
    let key = number.ok_or_else(|| {
        let known = KEYS.join(", ");
        token
            .fault(format!("`{}` does not begin with a key", token.shown()))
            .remedy(format!("keys are {known} and keyNUMBER"))
    })?;
    let mut text = Vec::new();
    push_unescaped(raw, &mut text).map_err(|error| token.fault(error.to_string()))?;
    let value = read_value(key, &text).filter(|value| is_valid(key, value) && value.len() <= usize::from(u16::MAX));
    let value = value
        .ok_or_else(|| token.fault(format!("`{}` is not a value of the key `{}`", token.shown(), key_name(key))))?;
    Ok((key, value))
}

fn read_value(key: u16, text: &[u8]) -> Option<Vec<u8>> {
    let items = || comma_list(text);
    let mut value = Vec::new();
    match key {
        MANDATORY => {
            let mut keys: Vec<u16> = Vec::new();
            for item in items()? {
                keys.push(key_number(std::str::from_utf8(&item).ok()?)?);
            }
            keys.sort_unstable();
            value.extend(keys.into_iter().flat_map(u16::to_be_bytes));
        }
        ALPN => {
            for item in items()? {
                value.push(u8::try_from(item.len()).ok()?);
                value.extend(item);
            }
        }
        PORT => value.extend(parse::<u16>(text)?.to_be_bytes()),
        IPV4_HINT => {
            for item in items()? {
                value.extend(parse::<Ipv4Addr>(&item)?.octets());
            }
        }
        IPV6_HINT => {
            for item in items()? {
                value.extend(parse::<Ipv6Addr>(&item)?.octets());
            }
        }
        GROUPS => {
            for item in items()? {
                value.extend(parse::<u16>(&item)?.to_be_bytes());
            }
        }
        ECH => value = base64::decode(std::str::from_utf8(text).ok()?).ok()?,
        _ => value.extend_from_slice(text),
    }
    Some(value)
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// RFC 9460, A.1: items between commas; `\,` and `\\` are themselves.
fn comma_list(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut items = vec![Vec::new()];
    let mut octets = text.iter();
    while let Some(octet) = octets.next() {
        let item = items.last_mut()?;
        match octet {
            b',' => items.push(Vec::new()),
            b'\\' => item.push(*octets.next().filter(|next| matches!(next, b',' | b'\\'))?),
            _ => item.push(*octet),
        }
    }
    items.iter().all(|item| !item.is_empty()).then_some(items)
}

fn key_number(text: &str) -> Option<u16> {
    if let Some(index) = KEYS.iter().position(|key| key.eq_ignore_ascii_case(text)) {
        return u16::try_from(index).ok();
    }
    let digits = text.strip_prefix("key").filter(|digits| digits.bytes().all(|octet| octet.is_ascii_digit()))?;
    // No leading zeros (RFC 9460, 2.1).
    digits.parse().ok().filter(|_| digits == "0" || !digits.starts_with('0'))
}

fn key_name(key: u16) -> String {
    KEYS.get(usize::from(key)).map_or_else(|| format!("key{key}"), |name| (*name).to_owned())
}

pub(super) fn write(octets: &[u8], out: &mut impl Write) -> fmt::Result {
    for (index, (key, value)) in params(octets).unwrap_or_default().into_iter().enumerate() {
        let space = if index > 0 { " " } else { "" };
        write!(out, "{space}{}", key_name(key))?;
        if !value.is_empty() {
            out.write_char('=')?;
            write_value(key, value, out)?;
        }
    }
    Ok(())
}

fn write_value(key: u16, value: &[u8], out: &mut impl Write) -> fmt::Result {
    let list = |items: Vec<String>| items.join(",");
    match key {
        MANDATORY => {
            let names = value.chunks(2).map(|pair| key_name(u16::from_be_bytes([pair[0], pair[1]]))).collect();
            out.write_str(&list(names))
        }
        ALPN => {
            let mut text = Vec::new();
            for (index, item) in alpn_items(value).unwrap_or_default().into_iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                for octet in item {
                    if matches!(octet, b',' | b'\\') {
                        text.push(b'\\');
                    }
                    text.push(*octet);
                }
            }
            quoted(&text, out)
        }
        PORT => write!(out, "{}", big_endian(value)),
        IPV4_HINT => {
            let addresses =
                value.chunks_exact(4).map(|four| Ipv4Addr::new(four[0], four[1], four[2], four[3]).to_string());
            out.write_str(&list(addresses.collect()))
        }
        IPV6_HINT => {
            let address = |octets: &[u8]| <[u8; 16]>::try_from(octets).map(|octets| Ipv6Addr::from(octets).to_string());
            out.write_str(&list(value.chunks_exact(16).filter_map(|octets| address(octets).ok()).collect()))
        }
        GROUPS => out.write_str(&list(value.chunks(2).map(|pair| big_endian(pair).to_string()).collect())),
        ECH => out.write_str(&base64::encode_string(value)),
        _ => quoted(value, out),
    }
}
