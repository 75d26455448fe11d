//! Version 1: one line of text (specification section 2.1).

use super::{Addresses, Command, Header, Malformed, Parsed, Tlvs, Version};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest line with its CRLF: the specification's worst case.
pub const V1_MAX: usize = 107;

pub(super) const SIGNATURE: &[u8] = b"PROXY ";

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let window = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = window.iter().position(|byte| *byte == b'\r') else {
        return if bytes.len() >= V1_MAX { Err(Malformed::LineEnd) } else { Ok(Parsed::Partial) };
    };
    match window.get(end + 1) {
        None if bytes.len() < V1_MAX => return Ok(Parsed::Partial),
        Some(b'\n') => {}
        _ => return Err(Malformed::LineEnd),
    }
    let line = str::from_utf8(&window[SIGNATURE.len()..end]).map_err(|_| Malformed::Line)?;
    let addresses = addresses(line).ok_or(Malformed::Line)?;
    let header =
        Header { version: Version::V1, command: Command::Proxy, addresses, tlvs: Tlvs::default(), checksum: false };
    Ok(Parsed::Complete(Box::new(header), end + 2))
}

/// What follows `PROXY `. Behind UNKNOWN anything may stand, and is ignored.
fn addresses(line: &str) -> Option<Addresses> {
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(Addresses::Unknown);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let (source, destination) = match family {
        "TCP4" => (IpAddr::V4(source.parse::<Ipv4Addr>().ok()?), IpAddr::V4(destination.parse::<Ipv4Addr>().ok()?)),
        "TCP6" => (IpAddr::V6(source.parse::<Ipv6Addr>().ok()?), IpAddr::V6(destination.parse::<Ipv6Addr>().ok()?)),
        _ => return None,
    };
    let source = SocketAddr::new(source, port(words.next()?)?);
    let destination = SocketAddr::new(destination, port(words.next()?)?);
    words.next().is_none().then_some(Addresses::Inet { source, destination, datagram: false })
}

/// Decimal digits without a sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical)
}

pub(super) fn write(header: &Header, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = match &header.addresses {
        Addresses::Inet { source, destination, .. } if header.command == Command::Proxy => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            write!(out, "PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port())
        }
        _ => write!(out, "PROXY UNKNOWN\r\n"),
    };
}
