//! The two ends of what moves bodies: where bytes come from and where they go. Read and written through a shared
//! reference, like the connections behind them.

use gateward_http::{ChunkedError, Headers};
use std::io;
use std::task::{Context, Poll};

/// Where a body comes from.
pub(crate) trait Source {
    /// Receive into `buf`; 0: the end. What was received before has gone on: the sender may send as much again.
    fn poll_receive(&self, context: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Whether nothing follows what was received, as far as that is known without waiting.
    fn is_ended(&self) -> bool {
        false
    }

    /// Append the trailers that came with the end, if they come apart from the body.
    fn take_trailers(&self, _trailers: &mut Headers) -> Result<(), ChunkedError> {
        Ok(())
    }
}

/// Where a message goes. The first bytes sent are its head, as HTTP/1.1 writes it.
pub(crate) trait Sink {
    /// Send from `buf`; how much was taken. `last`: the message ends with `buf`.
    fn poll_send(&self, context: &mut Context<'_>, buf: &[u8], last: bool) -> Poll<io::Result<usize>>;

    /// Everything was sent; `trailers` are for who takes them apart from the body. Once or more often.
    fn end(&self, _trailers: &Headers) -> io::Result<()> {
        Ok(())
    }
}

/// Takes everything and keeps nothing.
pub(crate) struct Discard;

impl Sink for Discard {
    fn poll_send(&self, _context: &mut Context<'_>, buf: &[u8], _last: bool) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }
}
