//! The bytes of an HTTP/2 connection: what had been read before the protocol was known comes first, frames are
//! counted as they pass, and a peer that takes nothing is noticed.

use super::TURN_BYTES;
use super::budget::{Budgets, Follower};
use gateward_net::{Deadlines, Stream};
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Length of the client's preface (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24;

/// A connection as the h2 crate reads and writes it.
pub(crate) struct Io {
    stream: Rc<Stream>,
    /// Read already.
    before: Vec<u8>,
    watch: Rc<Watch>,
    received: Follower,
    sent: Follower,
}

/// What is known about the connection from its bytes.
pub(crate) struct Watch {
    pub(crate) budgets: Budgets,
    clock: Rc<Deadlines>,
    /// Bytes that may still be taken in before others have their turn.
    turn: Cell<usize>,
    /// Since when the peer takes nothing although there is something to send.
    stuck_since_ms: Cell<Option<u64>>,
}

impl Watch {
    /// A turn of the connection begins: what came in before has been seen by who it is for.
    pub(crate) fn begin_turn(&self) {
        self.turn.set(TURN_BYTES);
    }

    /// Whether the peer takes nothing although there is something to send.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck_since_ms.get().is_some()
    }

    /// Milliseconds for which the peer has taken nothing although there is something to send.
    pub(crate) fn stuck_ms(&self) -> u64 {
        self.stuck_since_ms.get().map_or(0, |since| self.clock.now_ms().saturating_sub(since))
    }
}

impl Io {
    /// A client's connection, of which `before` has been read.
    pub(crate) fn accepted(stream: Rc<Stream>, before: Vec<u8>, clock: Rc<Deadlines>) -> Self {
        let budgets = Budgets::new(clock.now_ms());
        Self::new(stream, before, clock, budgets, (PREFACE_BYTES, 0))
    }

    /// A connection to an upstream.
    pub(crate) fn outgoing(stream: Rc<Stream>, clock: Rc<Deadlines>) -> Self {
        let budgets = Budgets::outgoing(clock.now_ms());
        Self::new(stream, Vec::new(), clock, budgets, (0, PREFACE_BYTES))
    }

    /// `received` and `sent`: bytes that are no frames yet.
    fn new(
        stream: Rc<Stream>,
        before: Vec<u8>,
        clock: Rc<Deadlines>,
        budgets: Budgets,
        (received, sent): (usize, usize),
    ) -> Self {
        let watch = Rc::new(Watch { budgets, clock, turn: Cell::new(TURN_BYTES), stuck_since_ms: Cell::new(None) });
        Self { stream, before, watch, received: Follower::after(received), sent: Follower::after(sent) }
    }

    /// To be asked while the connection is in use.
    pub(crate) fn watch(&self) -> Rc<Watch> {
        self.watch.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.watch.budgets.excess().is_some() {
            // Whoever drives the connection ends it; nothing more is taken in.
            return Poll::Pending;
        }
        if this.watch.turn.get() == 0 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = if this.before.is_empty() {
            ready!(this.stream.poll_read(context, buf.initialize_unfilled()))?
        } else {
            let count = this.before.len().min(buf.remaining());
            buf.initialize_unfilled()[..count].copy_from_slice(&this.before[..count]);
            this.before.drain(..count);
            count
        };
        this.watch.turn.set(this.watch.turn.get().saturating_sub(count));
        this.received.received(&buf.initialize_unfilled()[..count], &this.watch.budgets, this.watch.clock.now_ms());
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let (watch, now_ms) = (&this.watch, this.watch.clock.now_ms());
        let Poll::Ready(written) = this.stream.poll_write(context, buf) else {
            watch.stuck_since_ms.set(watch.stuck_since_ms.get().or(Some(now_ms)));
            return Poll::Pending;
        };
        watch.stuck_since_ms.set(None);
        let count = written?;
        this.sent.sent(&buf[..count], &watch.budgets, now_ms);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.stream).poll_shutdown(context)
    }
}
