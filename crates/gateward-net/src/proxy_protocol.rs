//! The PROXY protocol: how a load balancer that passes connections through says who the client is.
//!
//! A header stands before the first byte of a connection, in a text form (version 1) or a binary one (version 2, with
//! further facts as type-length-value entries). Source: HAProxy's "The PROXY protocol, versions 1 & 2"; the entries of
//! AWS and Azure are those of their documentation. Parsing is a pure function of the bytes so far and bounded:
//! [`V1_MAX`], [`V2_MAX`]. [`receive`](receive::receive) takes a header off a socket.
//!
//! A header is prepended, not replaced, on its way: who wrote it, and so whether to believe it, is the caller's question.

pub mod fuzzing;
pub mod receive;
mod tlv;
mod v1;
mod v2;

pub use tlv::{Ssl, Tlvs};
pub use v1::V1_MAX;
pub use v2::V2_MAX;

use std::net::{IpAddr, SocketAddr};

/// What a listener does about headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// They are not expected; the bytes of one are malformed HTTP or TLS.
    #[default]
    Off,
    /// Every connection begins with one, as for nginx and Kong with `proxy_protocol`; others are closed.
    Require,
    /// A connection may begin with one: health probes and direct clients without it are served too.
    Auto,
}

/// Which form a header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What the sender of a header does with the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// It opened the connection itself, e.g. to probe its health; the addresses are those of the sockets.
    Local,
    /// It passes on a client's connection.
    Proxy,
}

/// Between whom the client's connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// The sender does not know or does not tell.
    Unknown,
    /// IP addresses with ports; both of one family.
    Inet {
        /// The client.
        source: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
        /// UDP rather than TCP.
        datagram: bool,
    },
    /// Paths of Unix sockets, padded with zeros; only version 2 has them.
    Unix {
        /// The client's.
        source: Box<[u8; 108]>,
        /// The one it connected to.
        destination: Box<[u8; 108]>,
        /// Datagrams rather than a stream.
        datagram: bool,
    },
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its form.
    pub version: Version,
    /// What it is about.
    pub command: Command,
    /// Who is connected.
    pub addresses: Addresses,
    /// Further facts; version 2 only.
    pub tlvs: Tlvs,
    /// It carries (and when parsed: satisfied) a CRC32C of itself; version 2 only.
    pub checksum: bool,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// No header, whatever follows.
    Absent,
    /// A header so far, or too little to tell.
    Partial,
    /// A header of so many bytes.
    Complete(Box<Header>, usize),
}

/// A header that begins like one and breaks its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A line of version 1 has no end within [`V1_MAX`] bytes, or a stray CR.
    #[error("the line does not end within {V1_MAX} bytes")]
    LineEnd,
    /// A line of version 1 is none of the forms there are.
    #[error("the line is not PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT or PROXY UNKNOWN")]
    Line,
    /// Version or command of a binary header is unknown.
    #[error("unknown version or command")]
    Command,
    /// Address family or transport of a binary header is unknown.
    #[error("unknown address family or transport")]
    Family,
    /// The length of a binary header is beyond [`V2_MAX`] or too short for its addresses.
    #[error("length too long, or too short for the addresses")]
    Length,
    /// A type-length-value entry does not fit, is there twice or has a value its type does not allow.
    #[error("malformed type-length-value entry")]
    Tlv,
    /// The CRC32C does not match.
    #[error("checksum mismatch")]
    Checksum,
}

impl Addresses {
    /// Addresses of a TCP connection. Should the families differ, both are written as IPv6.
    pub fn tcp(source: SocketAddr, destination: SocketAddr) -> Self {
        let (source, destination) = if source.is_ipv4() == destination.is_ipv4() {
            (plain(source), plain(destination))
        } else {
            (as_v6(source), as_v6(destination))
        };
        Self::Inet { source, destination, datagram: false }
    }
}

impl Header {
    /// The header of a client's TCP connection, without further facts.
    pub fn tcp(version: Version, source: SocketAddr, destination: SocketAddr) -> Self {
        let addresses = Addresses::tcp(source, destination);
        Self { version, command: Command::Proxy, addresses, tlvs: Tlvs::default(), checksum: false }
    }

    /// Append the header's bytes. Version 1 leaves out what it has no form for.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self.version {
            Version::V1 => v1::write(self, out),
            Version::V2 => v2::write(self, out),
        }
    }
}

/// Look at the first bytes of a connection. The answer for more bytes never contradicts one that was not
/// [`Parsed::Partial`], and what follows a header is not looked at.
///
/// # Errors
/// The bytes begin like a header and cannot become one.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    if begins(bytes, v1::SIGNATURE) {
        return v1::parse(bytes);
    }
    if begins(bytes, v2::SIGNATURE) {
        return v2::parse(bytes);
    }
    Ok(Parsed::Absent)
}

/// Whether `bytes` begin with `signature`, as far as they are there.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    let common = bytes.len().min(signature.len());
    bytes[..common] == signature[..common]
}

/// Without the flow and scope of an IPv6 socket address, which headers do not carry.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

fn as_v6(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(ip.into(), address.port())
}

#[cfg(test)]
mod tests;
