//! Taking a header off a new connection, and nothing else: what follows it may be a TLS handshake.
//!
//! The socket's bytes are looked at without taking them until it is known whether, and how far, they are a header.

use super::{Header, Malformed, Mode, Parsed, V2_MAX, parse};
use crate::socket::{Unseen, look};
use rustix::net::{RecvFlags, recv};
use std::io;
use tokio::net::TcpStream;

/// Bytes looked at first; longer headers are rare.
const FIRST_LOOK: usize = 512;

/// Why a connection cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The peer closed before it was known what it sends.
    #[error("closed before its PROXY header was complete")]
    Closed,
    /// There is no header though [`Mode::Require`] asks for one.
    #[error("does not begin with a PROXY header")]
    Missing,
    /// The header breaks its rules.
    #[error("malformed PROXY header: {0}")]
    Malformed(#[from] Malformed),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Take the header off `tcp`; `None` where there is none and `mode` allows that. Set a deadline around it: a client that
/// connects in advance may be silent for long, since AWS sends the header with the first payload by default.
///
/// # Errors
/// The connection cannot be served; see [`ReceiveError`].
pub async fn receive(tcp: &TcpStream, mode: Mode) -> Result<Option<Box<Header>>, ReceiveError> {
    if mode == Mode::Off {
        return Ok(None);
    }
    let found = look(tcp, FIRST_LOOK, V2_MAX, |bytes| {
        Ok(match parse(bytes)? {
            Parsed::Absent if mode == Mode::Require => return Err(ReceiveError::Missing),
            Parsed::Absent => Some(None),
            Parsed::Complete(header, length) => Some(Some((header, length))),
            Parsed::Partial => None,
        })
    });
    let Some((header, length)) = found.await? else { return Ok(None) };
    take(tcp, &mut vec![0; length])?;
    Ok(Some(header))
}

impl From<Unseen> for ReceiveError {
    fn from(unseen: Unseen) -> Self {
        match unseen {
            Unseen::Closed => Self::Closed,
            Unseen::Io(error) => Self::Io(error),
        }
    }
}

/// Take exactly the bytes that were seen.
fn take(tcp: &TcpStream, bytes: &mut [u8]) -> io::Result<()> {
    let mut taken = 0;
    while taken < bytes.len() {
        match recv(tcp, &mut bytes[taken..], RecvFlags::empty())?.0 {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => taken += count,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy_protocol::{Command, Version};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (here, there) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let here = here.unwrap();
        here.set_nodelay(true).unwrap();
        (here, there.unwrap().0)
    }

    fn header(version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        Header::tcp(version, "1.2.3.4:5".parse().unwrap(), "6.7.8.9:10".parse().unwrap()).write(&mut out);
        out
    }

    #[tokio::test]
    async fn a_header_is_taken_in_any_pieces_and_what_follows_stays() {
        for version in [Version::V1, Version::V2] {
            for piece in [1, 7, 1000] {
                let (mut client, mut server) = pair().await;
                let mut bytes = header(version);
                bytes.extend_from_slice(b"\x16\x03\x01rest");
                let send = async {
                    for piece in bytes.chunks(piece) {
                        client.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    client.shutdown().await.unwrap();
                };
                let (received, ()) = tokio::join!(receive(&server, Mode::Require), send);
                assert_eq!(received.unwrap().unwrap().command, Command::Proxy);
                let mut rest = Vec::new();
                server.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest, b"\x16\x03\x01rest", "{version:?} in pieces of {piece}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_left_alone() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"PROPFIND / HTTP/1.1\r\n", b"\x16\x03\x01", b"\r\n\r\nGET /", b"x"] {
            let (mut client, mut server) = pair().await;
            client.write_all(bytes).await.unwrap();
            assert!(receive(&server, Mode::Auto).await.unwrap().is_none());
            client.shutdown().await.unwrap();
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, bytes);

            let (mut client, server) = pair().await;
            client.write_all(bytes).await.unwrap();
            assert!(matches!(receive(&server, Mode::Require).await, Err(ReceiveError::Missing)));
        }
    }

    #[tokio::test]
    async fn the_end_within_a_header_is_noticed() {
        for bytes in [&b""[..], b"P", b"PROXY TCP4", b"\r\n\r\n\0\r\nQUIT\n\x21"] {
            let (mut client, server) = pair().await;
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let received = tokio::time::timeout(Duration::from_secs(10), receive(&server, Mode::Auto)).await;
            assert!(matches!(received, Ok(Err(ReceiveError::Closed))), "{bytes:?}: {received:?}");
        }
    }

    #[tokio::test]
    async fn a_silent_beginning_waits_without_spinning() {
        let (mut client, server) = pair().await;
        client.write_all(b"PRO").await.unwrap();
        let mut receiving = std::pin::pin!(receive(&server, Mode::Auto));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut receiving).await.is_err());
        client.write_all(b"PFIND / ").await.unwrap();
        assert!(receiving.await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_header_longer_than_the_first_look_arrives() {
        let (mut client, server) = pair().await;
        let mut bytes = header(Version::V2);
        let extra = [0x04, 0x08, 0x00].into_iter().chain(std::iter::repeat_n(0, 2048));
        bytes.extend(extra);
        let length = (bytes.len() - 16) as u16;
        bytes[14..16].copy_from_slice(&length.to_be_bytes());
        client.write_all(&bytes).await.unwrap();
        assert!(receive(&server, Mode::Require).await.unwrap().is_some());
    }
}
