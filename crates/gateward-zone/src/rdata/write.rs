//! A record's data as text, part by part; what does not have its type's form is written as RFC 3597 says.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use domain::base::iana::Rtype;
use domain::utils::{base16, base32, base64};

use super::{Field, apl, extra, gateway, loc, shape, svcb, walk};
use crate::name::write_label;

/// Writes the data of a record of `rtype`; names are absolute.
pub(crate) fn write(rtype: Rtype, octets: &[u8], out: &mut impl Write) -> fmt::Result {
    if shape(rtype).is_none() || walk(rtype, octets, |_, _| ()).is_err() {
        return generic(octets, out);
    }
    let mut done = Ok(());
    let mut first = true;
    // The walk was good a moment ago.
    _ = walk(rtype, octets, |field, range| {
        if done.is_ok() && !range.is_empty() | (field == Field::Raw) {
            done = if first { Ok(()) } else { out.write_char(' ') };
            done = done.and_then(|()| write_field(field, &octets[range], out));
            first = false;
        }
    });
    done
}

fn generic(octets: &[u8], out: &mut impl Write) -> fmt::Result {
    write!(out, "\\# {}", octets.len())?;
    if octets.is_empty() { Ok(()) } else { write!(out, " {}", base16::encode_string(octets)) }
}

fn write_field(field: Field, octets: &[u8], out: &mut impl Write) -> fmt::Result {
    match field {
        Field::Name => name(octets, out),
        Field::U8 | Field::Algorithm | Field::U16 | Field::U32 | Field::CertType | Field::Seconds => {
            write!(out, "{}", big_endian(octets))
        }
        Field::V4 => {
            <[u8; 4]>::try_from(octets).map_or(Err(fmt::Error), |octets| write!(out, "{}", Ipv4Addr::from(octets)))
        }
        Field::V6 => {
            <[u8; 16]>::try_from(octets).map_or(Err(fmt::Error), |octets| write!(out, "{}", Ipv6Addr::from(octets)))
        }
        Field::Text => quoted(&octets[1..], out),
        Field::Tag => octets[1..].iter().try_for_each(|octet| out.write_char(char::from(*octet))),
        Field::Texts => texts(octets, out),
        Field::Raw => quoted(octets, out),
        Field::Hex => out.write_str(&base16::encode_string(octets)),
        Field::Base64 => out.write_str(&base64::encode_string(octets)),
        Field::SaltHex if octets.len() == 1 => out.write_char('-'),
        Field::SaltHex => out.write_str(&base16::encode_string(&octets[1..])),
        Field::HashBase32 => out.write_str(&base32::encode_string_hex(&octets[1..])),
        Field::Rtype => write!(out, "{}", rtype(octets)),
        Field::Bitmap => extra::write_bitmap(octets, out),
        Field::Time => extra::write_time(octets, out),
        Field::Eui48 | Field::Eui64 => extra::write_groups(octets, 1, '-', out),
        Field::Node64 => extra::write_groups(octets, 2, ':', out),
        Field::Nsap => write!(out, "0x{}", base16::encode_string(octets)),
        Field::Loc => loc::write(octets, out),
        Field::Apl => apl::write(octets, out),
        Field::Ipseckey => gateway::write_ipseckey(octets, out),
        Field::Amtrelay => gateway::write_amtrelay(octets, out),
        Field::Hip => gateway::write_hip(octets, out),
        Field::SvcParams => svcb::write(octets, out),
    }
}

pub(super) fn big_endian(octets: &[u8]) -> u64 {
    octets.iter().fold(0, |sum, octet| sum << 8 | u64::from(*octet))
}

pub(super) fn rtype(octets: &[u8]) -> Rtype {
    Rtype::from_int(u16::try_from(big_endian(octets)).unwrap_or_default())
}

/// An absolute name, letter case as it is.
pub(super) fn name(mut wire: &[u8], out: &mut impl Write) -> fmt::Result {
    if wire == [0] {
        return out.write_char('.');
    }
    while let Some((len, rest)) = wire.split_first().filter(|(len, _)| **len > 0) {
        let (label, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        write_label(label, out)?;
        out.write_char('.')?;
        wire = rest;
    }
    Ok(())
}

fn texts(mut octets: &[u8], out: &mut impl Write) -> fmt::Result {
    let mut first = true;
    while let Some((len, rest)) = octets.split_first() {
        if !first {
            out.write_char(' ')?;
        }
        first = false;
        let (text, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        quoted(text, out)?;
        octets = rest;
    }
    Ok(())
}

/// A string in quotes; what is not printable ASCII as `\DDD`.
pub(super) fn quoted(text: &[u8], out: &mut impl Write) -> fmt::Result {
    out.write_char('"')?;
    for octet in text {
        match octet {
            b'"' | b'\\' => write!(out, "\\{}", char::from(*octet))?,
            0x20..=0x7e => out.write_char(char::from(*octet))?,
            _ => write!(out, "\\{octet:03}")?,
        }
    }
    out.write_char('"')
}
