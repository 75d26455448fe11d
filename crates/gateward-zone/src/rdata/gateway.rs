//! Data whose form depends on what comes first: IPSECKEY (RFC 4025), AMTRELAY (RFC 8777), HIP (RFC 8005).

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use domain::utils::{base16, base64};

use super::read::{joined, name, number};
use super::{Cursor, Field, name_len, write};
use crate::lexer::{Fault, Token};
use crate::name::Name;

/// Whether `octets` are all of a record's data of this kind.
pub(super) fn is_valid(field: Field, octets: &[u8]) -> bool {
    match field {
        Field::Ipseckey => ipseckey(octets).is_some(),
        Field::Amtrelay => amtrelay(octets).is_some(),
        _ => hip(octets).is_some(),
    }
}

/// Where names stand in data that is valid.
pub(super) fn names(field: Field, octets: &[u8]) -> Vec<Range<usize>> {
    match field {
        Field::Ipseckey if octets.get(1) == Some(&3) => ipseckey(octets).map(|end| 3..end).into_iter().collect(),
        Field::Amtrelay if octets.get(1).is_some_and(|kind| kind & 0x7f == 3) => {
            std::iter::once(2..octets.len()).collect()
        }
        Field::Hip => hip(octets).map(|(_, servers)| servers).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// The octets that a gateway of this kind takes at the start of `rest`.
fn gateway_len(kind: u8, rest: &[u8]) -> Option<usize> {
    let len = match kind {
        0 => 0,
        1 => 4,
        2 => 16,
        3 => name_len(rest)?,
        _ => return None,
    };
    (rest.len() >= len).then_some(len)
}

fn write_gateway(kind: u8, octets: &[u8], out: &mut impl Write) -> fmt::Result {
    match kind {
        1 => <[u8; 4]>::try_from(octets).map_or(Err(fmt::Error), |octets| write!(out, "{}", Ipv4Addr::from(octets))),
        2 => <[u8; 16]>::try_from(octets).map_or(Err(fmt::Error), |octets| write!(out, "{}", Ipv6Addr::from(octets))),
        3 => write::name(octets, out),
        _ => out.write_char('.'),
    }
}

fn read_gateway(kind: u8, token: &Token<'_>, origin: &Name, out: &mut Vec<u8>) -> Result<(), Fault> {
    let wrong =
        |what: &str| token.fault(format!("`{}` is not {what}, which the gateway's type asks for", token.shown()));
    match kind {
        0 if token.raw == b"." => {}
        0 => return Err(wrong("`.`")),
        1 => out.extend(
            token
                .ascii()
                .and_then(|text| text.parse::<Ipv4Addr>().ok())
                .ok_or_else(|| wrong("an IPv4 address"))?
                .octets(),
        ),
        2 => out.extend(
            token
                .ascii()
                .and_then(|text| text.parse::<Ipv6Addr>().ok())
                .ok_or_else(|| wrong("an IPv6 address"))?
                .octets(),
        ),
        3 => name(token, origin, out)?,
        _ => return Err(token.fault("the gateway's type is not one of 0, 1, 2, 3")),
    }
    Ok(())
}

/// Where the key begins.
fn ipseckey(octets: &[u8]) -> Option<usize> {
    let kind = *octets.get(1)?;
    Some(3 + gateway_len(kind, octets.get(3..)?)?)
}

pub(super) fn read_ipseckey(words: &mut Cursor<'_, '_>, origin: &Name, out: &mut Vec<u8>) -> Result<(), Fault> {
    out.push(number(words.need("a precedence")?)?);
    let kind = number(words.need("the gateway's type")?)?;
    out.push(kind);
    out.push(number(words.need("an algorithm")?)?);
    read_gateway(kind, words.need("a gateway")?, origin, out)?;
    if words.is_empty() { Ok(()) } else { joined(words, "Base64", out, |text| base64::decode::<Vec<u8>>(text).ok()) }
}

pub(super) fn write_ipseckey(octets: &[u8], out: &mut impl Write) -> fmt::Result {
    let end = ipseckey(octets).ok_or(fmt::Error)?;
    write!(out, "{} {} {} ", octets[0], octets[1], octets[2])?;
    write_gateway(octets[1], &octets[3..end], out)?;
    if end < octets.len() { write!(out, " {}", base64::encode_string(&octets[end..])) } else { Ok(()) }
}

fn amtrelay(octets: &[u8]) -> Option<()> {
    let kind = octets.get(1)? & 0x7f;
    let rest = octets.get(2..)?;
    (gateway_len(kind, rest)? == rest.len()).then_some(())
}

pub(super) fn read_amtrelay(words: &mut Cursor<'_, '_>, origin: &Name, out: &mut Vec<u8>) -> Result<(), Fault> {
    out.push(number(words.need("a precedence")?)?);
    let token = words.need("the discovery bit")?;
    let discovery = match token.raw {
        b"0" => 0,
        b"1" => 0x80,
        _ => return Err(token.fault(format!("`{}` is neither 0 nor 1", token.shown()))),
    };
    let token = words.need("the relay's type")?;
    let kind: u8 = number(token)?;
    if kind > 3 {
        return Err(token.fault("the relay's type is not one of 0, 1, 2, 3"));
    }
    out.push(discovery | kind);
    read_gateway(kind, words.need("a relay")?, origin, out)
}

pub(super) fn write_amtrelay(octets: &[u8], out: &mut impl Write) -> fmt::Result {
    let kind = octets[1] & 0x7f;
    write!(out, "{} {} {kind} ", octets[0], octets[1] >> 7)?;
    write_gateway(kind, &octets[2..], out)
}

/// Where the key begins, and where the names of the rendezvous servers stand.
fn hip(octets: &[u8]) -> Option<(usize, Vec<Range<usize>>)> {
    let head = octets.get(..4)?;
    let key = 4 + usize::from(head[0]);
    let mut at = key + usize::from(u16::from_be_bytes([head[2], head[3]]));
    if head[0] == 0 || at == key || at > octets.len() {
        return None;
    }
    let mut servers = Vec::new();
    while at < octets.len() {
        let len = name_len(&octets[at..])?;
        servers.push(at..at + len);
        at += len;
    }
    Some((key, servers))
}

pub(super) fn read_hip(words: &mut Cursor<'_, '_>, origin: &Name, out: &mut Vec<u8>) -> Result<(), Fault> {
    let algorithm = number::<u8>(words.need("an algorithm")?)?;
    let token = words.need("a host identity tag")?;
    let tag = token.ascii().and_then(|text| base16::decode_vec(text).ok()).filter(|tag| (1..=255).contains(&tag.len()));
    let tag = tag.ok_or_else(|| token.fault(format!("`{}` is not a tag of hexadecimal digits", token.shown())))?;
    let token = words.need("a key")?;
    let key = token.ascii().and_then(|text| base64::decode::<Vec<u8>>(text).ok()).filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| token.fault(format!("`{}` is not Base64", token.shown())))?;
    let key_len = u16::try_from(key.len()).map_err(|_| token.fault("the key is longer than 65,535 octets"))?;
    out.push(u8::try_from(tag.len()).unwrap_or(u8::MAX));
    out.push(algorithm);
    out.extend(key_len.to_be_bytes());
    out.extend(tag);
    out.extend(key);
    while let Some(token) = words.take() {
        name(token, origin, out)?;
    }
    Ok(())
}

pub(super) fn write_hip(octets: &[u8], out: &mut impl Write) -> fmt::Result {
    let (key, servers) = hip(octets).ok_or(fmt::Error)?;
    let end = servers.first().map_or(octets.len(), |first| first.start);
    let (tag, key) = (base16::encode_string(&octets[4..key]), base64::encode_string(&octets[key..end]));
    write!(out, "{} {tag} {key}", octets[1])?;
    for server in servers {
        out.write_char(' ')?;
        write::name(&octets[server], out)?;
    }
    Ok(())
}
