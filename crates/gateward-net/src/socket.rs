//! Receiving and sending on a non-blocking socket without waiting, with the reactor kept informed.
//!
//! System calls are made directly: in a process with several threads every call through the C library pays for making
//! it a cancellation point.

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};
use std::io::{self, IoSlice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Receive what is there; `WouldBlock` when nothing is.
pub(crate) fn receive(tcp: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    let room = buf.len();
    let count = tcp.try_io(Interest::READABLE, || Ok(recv(tcp, &mut *buf, RecvFlags::empty())?.0))?;
    if count > 0 && count < room {
        exhausted(tcp, Interest::READABLE);
    }
    Ok(count)
}

/// Send what fits; `WouldBlock` when nothing does.
pub(crate) fn transmit(tcp: &TcpStream, buf: &[u8]) -> io::Result<usize> {
    let count = tcp.try_io(Interest::WRITABLE, || Ok(send(tcp, buf, SendFlags::NOSIGNAL)?))?;
    if count > 0 && count < buf.len() {
        exhausted(tcp, Interest::WRITABLE);
    }
    Ok(count)
}

/// Likewise from several buffers.
pub(crate) fn transmit_many(tcp: &TcpStream, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let length: usize = bufs.iter().map(|buf| buf.len()).sum();
    let count = tcp.try_io(Interest::WRITABLE, || {
        Ok(sendmsg(tcp, bufs, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?)
    })?;
    if count > 0 && count < length {
        exhausted(tcp, Interest::WRITABLE);
    }
    Ok(count)
}

/// Why the beginning of a connection could not be looked at.
#[derive(Debug)]
pub(crate) enum Unseen {
    /// The peer closed before there was enough to decide.
    Closed,
    /// The socket failed.
    Io(io::Error),
}

/// Look at the first bytes of a connection, and at more of them as they come, until `decide` has seen enough. They stay
/// where they are. `first` bytes are looked at first and never more than `most`, with which `decide` must come to an end.
pub(crate) async fn look<T, E: From<Unseen>>(
    tcp: &TcpStream,
    first: usize,
    most: usize,
    mut decide: impl FnMut(&[u8]) -> Result<Option<T>, E>,
) -> Result<T, E> {
    let mut buffer = vec![0; first];
    let mut seen = 0;
    loop {
        let ready = tcp.ready(Interest::READABLE).await.map_err(Unseen::Io)?;
        let peeked = tcp.try_io(Interest::READABLE, || Ok(recv(tcp, &mut buffer[..], RecvFlags::PEEK)?.0));
        let count = match peeked {
            Ok(0) => return Err(Unseen::Closed.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(Unseen::Io(error).into()),
        };
        if let Some(decided) = decide(&buffer[..count])? {
            return Ok(decided);
        }
        if count == buffer.len() && count < most {
            buffer.resize(most, 0);
            continue;
        }
        if count == seen && ready.is_read_closed() {
            return Err(Unseen::Closed.into());
        }
        seen = count;
        // What is there stays there, so readiness must be forgotten by hand: only more bytes are news.
        exhausted(tcp, Interest::READABLE);
    }
}

/// A call did less than it was asked to: another would have to wait, which is known without making it.
pub(crate) fn exhausted(tcp: &TcpStream, interest: Interest) {
    let _ = tcp.try_io(interest, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
}
