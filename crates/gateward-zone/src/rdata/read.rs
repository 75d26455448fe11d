//! A record's data from text, part by part.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use domain::base::iana::Rtype;
use domain::utils::{base16, base32, base64};

use super::{Field, MAX_RDATA_LEN, apl, check, extra, gateway, loc, shape, svcb};
use crate::lexer::{Fault, Token, push_unescaped};
use crate::name::{Name, push_text};
use crate::ttl::parse_ttl;

/// The words of an entry that are still to be read.
pub(crate) struct Cursor<'t, 'a> {
    tokens: &'t [Token<'a>],
    /// The line of the word before, for what is missing.
    line: u32,
}

impl<'t, 'a> Cursor<'t, 'a> {
    pub(crate) fn new(tokens: &'t [Token<'a>], line: u32) -> Self {
        Cursor { tokens, line }
    }

    pub(crate) fn peek(&self) -> Option<&'t Token<'a>> {
        self.tokens.first()
    }

    pub(crate) fn take(&mut self) -> Option<&'t Token<'a>> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        self.line = first.line;
        Some(first)
    }

    /// The next word, or that `what` is missing.
    pub(crate) fn need(&mut self, what: &str) -> Result<&'t Token<'a>, Fault> {
        let line = self.line;
        self.take().ok_or_else(|| Fault { line, message: format!("{what} is missing"), remedy: None })
    }

    pub(crate) fn rest(&self) -> &'t [Token<'a>] {
        self.tokens
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Nothing may be left.
    pub(crate) fn finish(&self) -> Result<(), Fault> {
        match self.peek() {
            None => Ok(()),
            Some(token) => Err(token.fault(format!("`{}` is more than the record can hold", token.shown()))),
        }
    }
}

/// Reads the data of a record of `rtype` from the words that are left, names relative to `origin`; appends it to `out`.
pub(crate) fn read(rtype: Rtype, words: &mut Cursor<'_, '_>, origin: &Name, out: &mut Vec<u8>) -> Result<(), Fault> {
    let begin = out.len();
    let line = words.line;
    if words.peek().is_some_and(|token| token.raw == b"\\#" && !token.quoted) {
        words.take();
        generic(words, out)?;
        check(rtype, &out[begin..]).map_err(|bad| Fault {
            line,
            message: format!(
                "the octets after `\\#` are not the data of a record of type {rtype}: wrong from octet {}",
                bad.at
            ),
            remedy: None,
        })?;
    } else {
        let Some(shape) = shape(rtype) else {
            return Err(Fault { line, message: format!("the data of type {rtype} is not known here"), remedy: None }
                .remedy("write it as `\\# LENGTH HEXADECIMAL` (RFC 3597)"));
        };
        for field in shape {
            read_field(*field, words, origin, out)?;
        }
    }
    words.finish()?;
    if out.len() - begin > MAX_RDATA_LEN {
        return Err(Fault { line, message: "the data is longer than 65,535 octets".to_owned(), remedy: None });
    }
    Ok(())
}

/// RFC 3597, 5: length and hexadecimal digits.
fn generic(words: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let token = words.need("the length of the data")?;
    let len = usize::from(number::<u16>(token)?);
    let begin = out.len();
    if !words.is_empty() {
        joined(words, "hexadecimal digits", out, |text| base16::decode_vec(text).ok())?;
    }
    let found = out.len() - begin;
    if found == len { Ok(()) } else { Err(token.fault(format!("{len} octets are announced, {found} follow"))) }
}

fn read_field(field: Field, words: &mut Cursor<'_, '_>, origin: &Name, out: &mut Vec<u8>) -> Result<(), Fault> {
    match field {
        Field::Name => name(words.need("a domain name")?, origin, out)?,
        Field::U8 => out.push(number(words.need("a number")?)?),
        Field::U16 => out.extend(number::<u16>(words.need("a number")?)?.to_be_bytes()),
        Field::U32 => out.extend(number::<u32>(words.need("a number")?)?.to_be_bytes()),
        Field::Seconds => out.extend(seconds(words.need("a time")?)?.to_be_bytes()),
        Field::V4 => out.extend(parsed::<Ipv4Addr>(words.need("an IPv4 address")?, "an IPv4 address")?.octets()),
        Field::V6 => out.extend(parsed::<Ipv6Addr>(words.need("an IPv6 address")?, "an IPv6 address")?.octets()),
        Field::Text => text(words.need("a string")?, out)?,
        Field::Tag => {
            let token = words.need("a tag")?;
            if token.raw.is_empty() || !token.raw.iter().all(u8::is_ascii_alphanumeric) {
                return Err(token.fault(format!("`{}` is not a tag of letters and digits", token.shown())));
            }
            text(token, out)?;
        }
        Field::Texts => {
            text(words.need("a string")?, out)?;
            while let Some(token) = words.take() {
                text(token, out)?;
            }
        }
        Field::Raw => {
            let token = words.need("a string")?;
            push_unescaped(token.raw, out).map_err(|error| token.fault(error.to_string()))?;
        }
        Field::Hex => joined(words, "hexadecimal digits", out, |text| base16::decode_vec(text).ok())?,
        Field::Base64 => joined(words, "Base64", out, |text| base64::decode::<Vec<u8>>(text).ok())?,
        Field::SaltHex => salt(words.need("a salt")?, out)?,
        Field::HashBase32 => {
            let token = words.need("a hash")?;
            let hash =
                token.ascii().and_then(|text| base32::decode_hex::<Vec<u8>>(text).ok()).filter(|hash| !hash.is_empty());
            counted(token, hash, "Base32 with extended hexadecimal digits", out)?;
        }
        Field::Rtype => out.extend(rtype(words.need("a record type")?)?.to_int().to_be_bytes()),
        Field::Bitmap => extra::read_bitmap(words, out)?,
        Field::Time => out.extend(extra::read_time(words.need("a time")?)?.to_be_bytes()),
        Field::Algorithm => out.push(extra::read_algorithm(words.need("an algorithm")?)?),
        Field::CertType => out.extend(extra::read_cert_type(words.need("a kind of certificate")?)?.to_be_bytes()),
        Field::Eui48 => extra::read_groups(words.need("an address")?, 6, 2, '-', out)?,
        Field::Eui64 => extra::read_groups(words.need("an address")?, 8, 2, '-', out)?,
        Field::Node64 => extra::read_groups(words.need("an identifier")?, 4, 4, ':', out)?,
        Field::Nsap => extra::read_nsap(words.need("an address")?, out)?,
        Field::Loc => loc::read(words, out)?,
        Field::Apl => apl::read(words, out)?,
        Field::Ipseckey => gateway::read_ipseckey(words, origin, out)?,
        Field::Amtrelay => gateway::read_amtrelay(words, origin, out)?,
        Field::Hip => gateway::read_hip(words, origin, out)?,
        Field::SvcParams => svcb::read(words, out)?,
    }
    Ok(())
}

pub(super) fn name(token: &Token<'_>, origin: &Name, out: &mut Vec<u8>) -> Result<(), Fault> {
    if token.raw == b"@" && !token.quoted {
        out.extend_from_slice(origin.as_wire());
        return Ok(());
    }
    push_text(token.raw, origin, out)
        .map_err(|error| token.fault(format!("`{}` is not a domain name: {error}", token.shown())))
}

/// A decimal number that fits.
pub(super) fn number<T: FromStr>(token: &Token<'_>) -> Result<T, Fault> {
    let digits = token.ascii().filter(|text| text.bytes().all(|octet| octet.is_ascii_digit()));
    let wrong = || {
        let largest = (1_u128 << (8 * size_of::<T>())) - 1;
        token.fault(format!("`{}` is not a number from 0 to {largest}", token.shown()))
    };
    digits.and_then(|text| text.parse().ok()).ok_or_else(wrong)
}

fn seconds(token: &Token<'_>) -> Result<u32, Fault> {
    parse_ttl(token.raw)
        .ok_or_else(|| token.fault(format!("`{}` is not a time in seconds, or in units such as 1h30m", token.shown())))
}

fn parsed<T: FromStr>(token: &Token<'_>, what: &str) -> Result<T, Fault> {
    let value = token.ascii().and_then(|text| text.parse().ok());
    value.ok_or_else(|| token.fault(format!("`{}` is not {what}", token.shown())))
}

pub(super) fn text(token: &Token<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let at = out.len();
    out.push(0);
    push_unescaped(token.raw, out).map_err(|error| token.fault(error.to_string()))?;
    let len = out.len() - at - 1;
    out[at] = u8::try_from(len).map_err(|_| {
        token
            .fault(format!("a string has {len} octets; at most 255 fit"))
            .remedy("split it into several quoted strings: readers put them together again")
    })?;
    Ok(())
}

/// All words that are left, put together and decoded.
pub(super) fn joined(
    words: &mut Cursor<'_, '_>,
    what: &str,
    out: &mut Vec<u8>,
    decode: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<(), Fault> {
    let first = words.need(what)?;
    let mut text = Vec::from(first.raw);
    while let Some(token) = words.take() {
        text.extend_from_slice(token.raw);
    }
    let decoded = std::str::from_utf8(&text).ok().and_then(decode).filter(|octets| !octets.is_empty());
    out.extend(decoded.ok_or_else(|| first.fault(format!("`{}` is not {what}", first.shown())))?);
    Ok(())
}

fn salt(token: &Token<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    if token.raw == b"-" {
        out.push(0);
        return Ok(());
    }
    let salt = token.ascii().and_then(|text| base16::decode_vec(text).ok());
    counted(token, salt, "`-` or hexadecimal digits", out)
}

/// Octets behind their count in one octet.
pub(super) fn counted(token: &Token<'_>, octets: Option<Vec<u8>>, what: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    let octets = octets.ok_or_else(|| token.fault(format!("`{}` is not {what}", token.shown())))?;
    let len = u8::try_from(octets.len()).map_err(|_| token.fault("more than 255 octets"))?;
    out.push(len);
    out.extend(octets);
    Ok(())
}

/// A type by its mnemonic or as TYPE123 (RFC 3597, 5).
pub(crate) fn rtype(token: &Token<'_>) -> Result<Rtype, Fault> {
    let known = token.ascii().filter(|_| !token.quoted).and_then(|text| text.parse().ok());
    known.ok_or_else(|| {
        token
            .fault(format!("`{}` is not a record type", token.shown()))
            .remedy("types without a name here are written as TYPE and their number (RFC 3597)")
    })
}
