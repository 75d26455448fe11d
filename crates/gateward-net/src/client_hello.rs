//! The first message of a TLS handshake: which server name a client asks for, without taking part in the handshake.
//!
//! What passes a connection through unread finds its route by this name (RFC 6066 section 3). The message may be cut into
//! several records (RFC 8446 section 5.1) and these into any number of segments. Parsing is a pure function of the bytes
//! so far and bounded by [`HELLO_MAX`]; [`receive`](receive::receive) looks at a socket and takes nothing from it.
//!
//! Only what decides about the name is judged: suites and versions are for the two ends to agree on.

pub mod fuzzing;
pub mod receive;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

/// Most bytes of records that are looked at; with post-quantum key shares a hello has some two thousand (nginx:
/// `preread_buffer_size` 16k).
pub const HELLO_MAX: usize = 24 * 1024;
/// Longest message taken.
const MESSAGE_MAX: usize = 16 * 1024;

/// Content type of records of the handshake.
const HANDSHAKE: u8 = 22;
/// Major version of every version of TLS.
const MAJOR: u8 = 3;
/// Bytes before a record's content.
const RECORD_HEAD: usize = 5;
/// Longest content of a record in the clear.
const RECORD_MAX: usize = 1 << 14;
/// Type of the message.
const CLIENT_HELLO: u8 = 1;
/// Bytes before a message's body.
const MESSAGE_HEAD: usize = 4;
/// Number of the extension with the server name, and the type of a host name in it.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Longest host name (RFC 1035 section 2.3.4).
const NAME_MAX: usize = 255;

/// What is known of a client's hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The name asked for, in lower case and without a dot at its end. An address is no name (RFC 6066 section 3).
    pub server_name: Option<String>,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// No TLS, whatever follows.
    NotTls,
    /// A hello so far, or too little to tell.
    Partial,
    /// A hello.
    Complete(ClientHello),
}

/// Bytes that begin like TLS and are no hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A record in the middle of the message is of another kind, empty or longer than records may be.
    #[error("malformed TLS record")]
    Record,
    /// The message or its records are longer than is looked at.
    #[error("the hello does not end within {HELLO_MAX} bytes")]
    TooLong,
    /// Another message, or one whose parts do not fit.
    #[error("malformed hello")]
    Message,
    /// The server name is there twice, is empty, or cannot be a host's.
    #[error("malformed server name")]
    ServerName,
}

/// Look at the first bytes of a connection. The answer for more bytes never contradicts one that was not
/// [`Parsed::Partial`], and what follows the hello is not looked at.
///
/// # Errors
/// The bytes begin like TLS and cannot become a hello.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let differs = |at: usize, expected: u8| bytes.get(at).is_some_and(|byte| *byte != expected);
    if differs(0, HANDSHAKE) || differs(1, MAJOR) {
        return Ok(Parsed::NotTls);
    }
    let mut message = Vec::new();
    let mut rest = &bytes[..bytes.len().min(HELLO_MAX)];
    while let Some(content) = next_content(&mut rest)? {
        message.extend_from_slice(content);
        if let Some(body) = body_of(&message)? {
            return hello(body).map(Parsed::Complete);
        }
    }
    if bytes.len() < HELLO_MAX { Ok(Parsed::Partial) } else { Err(Malformed::TooLong) }
}

/// The content of the next record as far as it is there; `None` when that is nothing. Every byte is judged as soon as it
/// is there: what cannot become a hello should not be waited for.
fn next_content<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    let bytes = *rest;
    if bytes.first().is_some_and(|kind| *kind != HANDSHAKE) || bytes.get(1).is_some_and(|major| *major != MAJOR) {
        return Err(Malformed::Record);
    }
    let Some((head, content)) = bytes.split_at_checked(RECORD_HEAD) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
    if length == 0 || length > RECORD_MAX {
        return Err(Malformed::Record);
    }
    let (content, after) = content.split_at(length.min(content.len()));
    *rest = after;
    Ok(Some(content).filter(|content| !content.is_empty()))
}

/// The body of the message, once it is there.
fn body_of(message: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(Malformed::Message);
    }
    let Some((head, body)) = message.split_at_checked(MESSAGE_HEAD) else { return Ok(None) };
    let length = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
    if length > MESSAGE_MAX {
        return Err(Malformed::TooLong);
    }
    Ok(body.get(..length))
}

/// RFC 8446 section 4.1.2; in TLS 1.2 and before the extensions may be missing.
fn hello(body: &[u8]) -> Result<ClientHello, Malformed> {
    let mut parts = Parts(body);
    let (_version, _random) = (parts.take(2)?, parts.take(32)?);
    let (_session, _suites, _compressions) = (parts.short()?, parts.long()?, parts.short()?);
    let mut server_name = None;
    if !parts.is_empty() {
        let mut extensions = Parts(parts.long()?);
        while !extensions.is_empty() {
            let (kind, content) = (extensions.number()?, extensions.long()?);
            if kind == SERVER_NAME && server_name.replace(name(content)?).is_some() {
                return Err(Malformed::ServerName);
            }
        }
    }
    if !parts.is_empty() {
        return Err(Malformed::Message);
    }
    Ok(ClientHello { server_name: server_name.flatten() })
}

/// The host name of the extension (RFC 6066 section 3).
fn name(content: &[u8]) -> Result<Option<String>, Malformed> {
    let mut parts = Parts(content);
    let mut names = Parts(parts.long()?);
    let mut host = None;
    while !names.is_empty() {
        let (kind, name) = (names.take(1)?[0], names.long()?);
        if kind == HOST_NAME && host.replace(name).is_some() {
            return Err(Malformed::ServerName);
        }
    }
    if !parts.is_empty() {
        return Err(Malformed::Message);
    }
    let Some(host) = host else { return Ok(None) };
    let host = host.strip_suffix(b".").unwrap_or(host);
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    if host.is_empty() || host.len() > NAME_MAX || !host.iter().all(fits) {
        return Err(Malformed::ServerName);
    }
    let host = str::from_utf8(host).map_err(|_| Malformed::ServerName)?.to_ascii_lowercase();
    if host.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    if host.contains(':') { Err(Malformed::ServerName) } else { Ok(Some(host)) }
}

/// Bytes taken from the front.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::Message)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A vector with a length of one byte.
    fn short(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    /// A vector with a length of two bytes.
    fn long(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.number()?;
        self.take(usize::from(length))
    }
}
