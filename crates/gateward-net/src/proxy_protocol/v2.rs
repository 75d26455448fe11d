//! Version 2: a binary header (specification section 2.2).

use super::{Addresses, Command, Header, Malformed, Parsed, Tlvs, Version, tlv};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Signature, command, family and length.
const FIXED: usize = 16;
/// Longest header taken. The length field allows 64 KiB; what load balancers send has some hundred bytes.
pub const V2_MAX: usize = FIXED + 4096;

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

const VERSION: u8 = 0x20;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;

/// Bytes of each family's pair of addresses.
const INET_BYTES: usize = 12;
const INET6_BYTES: usize = 36;
const UNIX_BYTES: usize = 216;

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    // Every byte is judged as soon as it is there: what cannot become a header should not be waited for.
    let command = match bytes.get(12) {
        None => return Ok(Parsed::Partial),
        Some(byte) if *byte == VERSION | LOCAL => Command::Local,
        Some(byte) if *byte == VERSION | PROXY => Command::Proxy,
        Some(_) => return Err(Malformed::Command),
    };
    let Some(family) = bytes.get(13).copied() else { return Ok(Parsed::Partial) };
    let address_bytes = if command == Command::Local { 0 } else { address_bytes(family)? };
    let Some(length) = bytes.get(14..FIXED) else { return Ok(Parsed::Partial) };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if FIXED + length > V2_MAX || length < address_bytes {
        return Err(Malformed::Length);
    }
    let Some(header) = bytes.get(..FIXED + length) else { return Ok(Parsed::Partial) };
    let mut parsed =
        Header { version: Version::V2, command, addresses: Addresses::Unknown, tlvs: Tlvs::default(), checksum: false };
    // With LOCAL everything after the length is to be discarded (section 2.2).
    if command == Command::Proxy {
        parsed.addresses = addresses(family, &header[FIXED..FIXED + address_bytes]);
        // Where the family is not told, it cannot be known where entries would begin.
        if family != 0 {
            (parsed.tlvs, parsed.checksum) = tlv::parse(header, FIXED + address_bytes)?;
        }
    }
    Ok(Parsed::Complete(Box::new(parsed), header.len()))
}

/// Bytes of the addresses of a family and transport; other values must be refused.
fn address_bytes(family: u8) -> Result<usize, Malformed> {
    match family {
        0x00 => Ok(0),
        0x11 | 0x12 => Ok(INET_BYTES),
        0x21 | 0x22 => Ok(INET6_BYTES),
        0x31 | 0x32 => Ok(UNIX_BYTES),
        _ => Err(Malformed::Family),
    }
}

/// `bytes` has the length of the family's addresses.
fn addresses(family: u8, bytes: &[u8]) -> Addresses {
    let datagram = family & 0x0f == 2;
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    match family >> 4 {
        1 => {
            let ip = |at: usize| IpAddr::V4(Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]));
            let (source, destination) = (SocketAddr::new(ip(0), port(8)), SocketAddr::new(ip(4), port(10)));
            Addresses::Inet { source, destination, datagram }
        }
        2 => {
            let ip = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&bytes[at..at + 16]);
                IpAddr::V6(Ipv6Addr::from(octets))
            };
            let (source, destination) = (SocketAddr::new(ip(0), port(32)), SocketAddr::new(ip(16), port(34)));
            Addresses::Inet { source, destination, datagram }
        }
        3 => {
            let path = |at: usize| {
                let mut path = Box::new([0; 108]);
                path.copy_from_slice(&bytes[at..at + 108]);
                path
            };
            Addresses::Unix { source: path(0), destination: path(108), datagram }
        }
        _ => Addresses::Unknown,
    }
}

pub(super) fn write(header: &Header, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(SIGNATURE);
    out.push(VERSION | if header.command == Command::Local { LOCAL } else { PROXY });
    let family_at = out.len();
    out.extend_from_slice(&[0, 0, 0]);
    if header.command == Command::Proxy && header.addresses != Addresses::Unknown {
        out[family_at] = write_addresses(&header.addresses, out);
        tlv::write(&header.tlvs, header.checksum, start, out);
    }
    set_length(start, out);
    if header.checksum && out[family_at] != 0 {
        tlv::seal(start, out);
    }
}

/// Append the addresses; their family and transport.
fn write_addresses(addresses: &Addresses, out: &mut Vec<u8>) -> u8 {
    let transport = |datagram: bool| if datagram { 2 } else { 1 };
    match addresses {
        Addresses::Unknown => 0,
        Addresses::Inet { source, destination, datagram } => {
            for address in [source, destination] {
                match address.ip() {
                    IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
                }
            }
            for address in [source, destination] {
                out.extend_from_slice(&address.port().to_be_bytes());
            }
            (if source.is_ipv4() { 0x10 } else { 0x20 }) | transport(*datagram)
        }
        Addresses::Unix { source, destination, datagram } => {
            out.extend_from_slice(&source[..]);
            out.extend_from_slice(&destination[..]);
            0x30 | transport(*datagram)
        }
    }
}

fn set_length(start: usize, out: &mut [u8]) {
    // `tlv::write` stops before the length would not fit.
    let length = u16::try_from(out.len() - start - FIXED).unwrap_or(u16::MAX);
    out[start + 14..start + FIXED].copy_from_slice(&length.to_be_bytes());
}
