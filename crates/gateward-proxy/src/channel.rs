//! One side of an exchange, client or upstream, whatever carries it: an HTTP/1.1 connection or a stream of an
//! HTTP/2 connection.

use crate::flow::{Sink, Source};
use crate::http2::Http2Stream;
use crate::pump::Pump;
use gateward_http::{BodyFraming, ChunkedError, Headers};
use gateward_net::{Outbox, Stream};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A client's or an upstream's side.
#[derive(Clone, Copy)]
pub(crate) enum Channel<'a> {
    Http1(&'a Rc<Stream>),
    Http2(&'a Http2Stream),
}

impl Channel<'_> {
    /// Whether a message's end is told by the channel itself, not by the message.
    pub(crate) fn ends_messages(self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// How a body of this `framing` is received here: where the channel ends messages, there may be trailers after
    /// a body whose length is known.
    pub(crate) fn received_as(self, framing: BodyFraming) -> BodyFraming {
        match (self, framing) {
            (Self::Http1(_), framing) | (Self::Http2(_), framing @ BodyFraming::None) => framing,
            (Self::Http2(_), _) => BodyFraming::UntilClose,
        }
    }

    /// Let all of what `pump` has to send leave with what others send; `false`: it has to be written.
    pub(crate) fn post(self, pump: &mut Pump, outbox: &Rc<Outbox>) -> bool {
        match self {
            Self::Http1(stream) => pump.post(stream, outbox),
            // Its frames are gathered already.
            Self::Http2(_) => false,
        }
    }

    /// Make closing the connection a reset: the peer must not take its end for the end of a message. A stream that
    /// ends early is always reset.
    pub(crate) fn reset_on_close(self) {
        if let Self::Http1(stream) = self {
            stream.reset_on_close();
        }
    }
}

impl Source for Stream {
    fn poll_receive(&self, context: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read(context, buf)
    }
}

impl Sink for Stream {
    fn poll_send(&self, context: &mut Context<'_>, buf: &[u8], _last: bool) -> Poll<io::Result<usize>> {
        self.poll_write(context, buf)
    }
}

impl Source for Channel<'_> {
    fn poll_receive(&self, context: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Http1(stream) => stream.poll_read(context, buf),
            Self::Http2(stream) => stream.poll_receive(context, buf),
        }
    }

    fn is_ended(&self) -> bool {
        matches!(self, Self::Http2(stream) if stream.is_ended())
    }

    fn take_trailers(&self, trailers: &mut Headers) -> Result<(), ChunkedError> {
        match self {
            Self::Http1(_) => Ok(()),
            Self::Http2(stream) => stream.take_trailers(trailers),
        }
    }
}

impl Sink for Channel<'_> {
    fn poll_send(&self, context: &mut Context<'_>, buf: &[u8], last: bool) -> Poll<io::Result<usize>> {
        match self {
            Self::Http1(stream) => stream.poll_write(context, buf),
            Self::Http2(stream) => stream.poll_send(context, buf, last),
        }
    }

    fn end(&self, trailers: &Headers) -> io::Result<()> {
        match self {
            Self::Http1(_) => Ok(()),
            Self::Http2(stream) => stream.end(trailers),
        }
    }
}
