//! What the measured programs share: listening, the event loop's tokens, writing until the socket is full.
//!
//! The programs here exist to be cheap, so that a measurement shows the proxy and not its surroundings. They
//! speak only the HTTP that the load generator sends (keep-alive requests without bodies) and end a connection
//! on anything else; they are not servers to expose to anybody.

pub mod websocket;

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Poll, Token};

/// The listener's token; connections count from zero.
pub const LISTENER: Token = Token(usize::MAX);

/// Bytes one connection may hold before it is closed; the load generator's messages are a few hundred.
pub const BUFFER_BYTES: usize = 16 * 1024;

/// What a read left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadState {
    /// The socket is empty for now.
    Drained,
    /// The peer is gone, or sent more than [`BUFFER_BYTES`].
    Ended,
}

/// Binds `address` and registers the listener.
///
/// # Errors
/// The address is taken or not ours.
pub fn listen(poll: &Poll, address: SocketAddr) -> io::Result<TcpListener> {
    let mut listener = TcpListener::bind(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    Ok(listener)
}

/// Registers both directions once: edge-triggered, so no further epoll_ctl for the life of the connection.
///
/// # Errors
/// The kernel refuses the registration (out of memory or watches).
pub fn register(poll: &Poll, stream: &mut TcpStream, token: Token) -> io::Result<()> {
    stream.set_nodelay(true)?;
    poll.registry().register(stream, token, Interest::READABLE | Interest::WRITABLE)
}

/// Reads what is there behind `filled` bytes of `buffer`.
///
/// A short read means that the socket is empty, so the usual message costs one system call.
pub fn read_available(stream: &mut TcpStream, buffer: &mut [u8], filled: &mut usize) -> ReadState {
    loop {
        let room = buffer.len() - *filled;
        if room == 0 {
            return ReadState::Ended;
        }
        match stream.read(&mut buffer[*filled..]) {
            Ok(0) => return ReadState::Ended,
            Ok(count) => {
                *filled += count;
                if count < room {
                    return ReadState::Drained;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return ReadState::Drained,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return ReadState::Ended,
        }
    }
}

/// Writes `pending` from its start and keeps what the socket did not take. False: the peer is gone.
pub fn write_pending(stream: &mut TcpStream, pending: &mut Vec<u8>) -> bool {
    let mut written = 0;
    while written < pending.len() {
        match stream.write(&pending[written..]) {
            Ok(0) => return false,
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    pending.drain(..written);
    true
}
