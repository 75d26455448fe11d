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

/// A call did less than it was asked to: another would have to wait, which is known without making it.
fn exhausted(tcp: &TcpStream, interest: Interest) {
    let _ = tcp.try_io(interest, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
}
