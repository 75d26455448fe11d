//! One stream of an HTTP/2 connection as one side of an exchange, read and written through a shared reference like
//! an HTTP/1.1 connection.
//!
//! Flow control runs through: what was received is given back to the peer when the next bytes are asked for, which
//! is when these have gone on; and no more is taken to be sent than the peer has room for.

use super::fields;
use crate::flow::{Sink, Source};
use bytes::{Buf, Bytes};
use gateward_http::{ChunkedError, Headers, read_trailers};
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::uri::Scheme;
use http::{HeaderMap, Response, StatusCode};
use std::cell::{Cell, RefCell};
use std::io;
use std::task::{Context, Poll, Waker, ready};

/// Bytes handed to the connection at a time: a few frames.
const SEND_AT_ONCE: usize = 64 * 1024;

/// A stream: a request and its response.
pub(crate) struct Http2Stream {
    receiving: RefCell<Receiving>,
    sending: RefCell<Sending>,
    /// Of a request sent: its answer to come.
    answer: RefCell<Option<ResponseFuture>>,
    /// Waits for the request to be sent, so that its answer can be waited for.
    awaiting: RefCell<Option<Waker>>,
    /// The peer did not look at the request: it said so (RFC 9113 section 8.7), or the request never left.
    refused: Cell<bool>,
    /// The connection broke.
    lost: Cell<bool>,
}

/// What an upstream answered.
pub(crate) enum Answer {
    /// An interim response.
    Interim(Response<()>),
    /// The response, and whether it ended with its head.
    Final(Response<()>, bool),
}

#[derive(Default)]
struct Receiving {
    body: Option<RecvStream>,
    /// Received and not yet asked for.
    rest: Bytes,
    /// Given out, and not yet known to have gone on.
    unreleased: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
}

enum Sending {
    /// The response's head comes first.
    Response(SendResponse<Bytes>),
    /// The request's head comes first.
    Request(SendRequest<Bytes>, Scheme),
    /// The head is out. `ended`: so is the end.
    Body { stream: SendStream<Bytes>, ended: bool },
    /// The head could not be sent.
    Broken,
}

impl Http2Stream {
    /// A client's stream.
    pub(crate) fn accepted(body: RecvStream, response: SendResponse<Bytes>) -> Self {
        let receiving = Receiving { body: Some(body), ..Receiving::default() };
        Self::new(receiving, Sending::Response(response))
    }

    /// A stream to an upstream; opened when the head is sent.
    pub(crate) fn outgoing(sender: SendRequest<Bytes>, scheme: Scheme) -> Self {
        Self::new(Receiving::default(), Sending::Request(sender, scheme))
    }

    fn new(receiving: Receiving, sending: Sending) -> Self {
        let (receiving, sending) = (RefCell::new(receiving), RefCell::new(sending));
        let (answer, awaiting) = (RefCell::default(), RefCell::default());
        Self { receiving, sending, answer, awaiting, refused: Cell::new(false), lost: Cell::new(false) }
    }

    /// Whether nothing of what was asked was done, so that asking again is safe whatever was asked.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.get()
    }

    /// Whether the connection broke, and every request on it.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.get()
    }

    /// Wait for the next interim response or the response.
    pub(crate) fn poll_answer(&self, context: &mut Context<'_>) -> Poll<io::Result<Answer>> {
        let mut answer = self.answer.borrow_mut();
        let Some(coming) = answer.as_mut() else {
            if matches!(*self.sending.borrow(), Sending::Request(..)) {
                *self.awaiting.borrow_mut() = Some(context.waker().clone());
                return Poll::Pending;
            }
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match coming.poll_informational(context) {
            Poll::Ready(Some(Ok(interim))) => return Poll::Ready(Ok(Answer::Interim(interim))),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.note(error))),
            Poll::Ready(None) | Poll::Pending => {}
        }
        let response = ready!(std::pin::Pin::new(coming).poll(context)).map_err(|error| self.note(error))?;
        *answer = None;
        let (parts, body) = response.into_parts();
        let ended = body.is_end_stream();
        self.receiving.borrow_mut().body = Some(body);
        Poll::Ready(Ok(Answer::Final(Response::from_parts(parts, ()), ended)))
    }

    /// Wait until the peer gives the stream up, or its connection ends.
    pub(crate) fn poll_abandoned(&self, context: &mut Context<'_>) -> Poll<()> {
        match &mut *self.sending.borrow_mut() {
            Sending::Response(response) => response.poll_reset(context).map(drop),
            Sending::Body { stream, .. } => stream.poll_reset(context).map(drop),
            Sending::Request(..) | Sending::Broken => Poll::Pending,
        }
    }

    /// Send an interim response, if there is still time for one.
    pub(crate) fn send_interim(&self, status: u16, headers: &Headers) -> io::Result<()> {
        if let Sending::Response(sender) = &mut *self.sending.borrow_mut() {
            let mut interim = Response::new(());
            *interim.status_mut() = StatusCode::from_u16(status).map_err(|_| io::ErrorKind::InvalidData)?;
            *interim.headers_mut() = fields::map(headers).ok_or(io::ErrorKind::InvalidData)?;
            sender.send_informational(interim).map_err(|error| self.note(error))?;
        }
        Ok(())
    }

    /// Give the stream up unless it has ended: `reason` says why.
    pub(crate) fn reset(&self, reason: Reason) {
        match &mut *self.sending.borrow_mut() {
            Sending::Response(response) => response.send_reset(reason),
            Sending::Body { stream, ended: false } => stream.send_reset(reason),
            Sending::Body { ended: true, .. } | Sending::Request(..) | Sending::Broken => {}
        }
    }

    /// Whether the response's head is still to be sent.
    pub(crate) fn is_unanswered(&self) -> bool {
        matches!(*self.sending.borrow(), Sending::Response(_))
    }

    /// The error in the words of what is above; notes that the peer refused to look.
    fn note(&self, error: h2::Error) -> io::Error {
        let above_last = error.is_go_away() && error.is_remote();
        if above_last || error.reason() == Some(Reason::REFUSED_STREAM) {
            self.refused.set(true);
        }
        self.lost.set(self.lost.get() || error.is_io());
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }

    /// Send the head at the start of `buf`; its length.
    fn send_head(&self, sending: &mut Sending, buf: &[u8], last: bool) -> io::Result<usize> {
        let length = fields::head_length(buf).ok_or(io::ErrorKind::InvalidData)?;
        let (head, ended) = (&buf[..length], last && length == buf.len());
        let stream = match std::mem::replace(sending, Sending::Broken) {
            Sending::Response(mut sender) => {
                let response = fields::response(head).ok_or(io::ErrorKind::InvalidData)?;
                sender.send_response(response, ended).map_err(|error| self.note(error))?
            }
            Sending::Request(mut sender, scheme) => {
                let request = fields::request(head, &scheme).ok_or(io::ErrorKind::InvalidData)?;
                let sent = sender.send_request(request, ended).inspect_err(|_| self.refused.set(true));
                let (answer, stream) = sent.map_err(|error| self.note(error))?;
                *self.answer.borrow_mut() = Some(answer);
                if let Some(waker) = self.awaiting.take() {
                    waker.wake();
                }
                stream
            }
            Sending::Body { .. } | Sending::Broken => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        *sending = Sending::Body { stream, ended };
        Ok(length)
    }
}

impl Source for Http2Stream {
    fn poll_receive(&self, context: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut receiving = self.receiving.borrow_mut();
        receiving.release();
        let mut count = 0;
        while count < buf.len() {
            if receiving.rest.is_empty() {
                match receiving.poll_more(context) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(Ok(false)) => break,
                    // What came before an error or a wait goes on first; both are met again.
                    _ if count > 0 => break,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(self.note(error))),
                    Poll::Pending => return Poll::Pending,
                }
            }
            let length = receiving.rest.len().min(buf.len() - count);
            receiving.rest.copy_to_slice(&mut buf[count..count + length]);
            receiving.unreleased += length;
            count += length;
        }
        Poll::Ready(Ok(count))
    }

    fn is_ended(&self) -> bool {
        let receiving = self.receiving.borrow();
        let body_ended = receiving.ended || receiving.body.as_ref().is_none_or(RecvStream::is_end_stream);
        body_ended && receiving.rest.is_empty() && receiving.trailers.is_none()
    }

    fn take_trailers(&self, trailers: &mut Headers) -> Result<(), ChunkedError> {
        match self.receiving.borrow_mut().trailers.take() {
            Some(map) => read_trailers(fields::message_fields(&map), trailers),
            None => Ok(()),
        }
    }
}

impl Receiving {
    /// What was given out has gone on.
    fn release(&mut self) {
        if self.unreleased > 0
            && let Some(body) = &mut self.body
        {
            // Fails only when the stream is gone, which the next read tells.
            let _ = body.flow_control().release_capacity(self.unreleased);
            self.unreleased = 0;
        }
    }

    /// Get more data into `rest`; `false`: the end.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, h2::Error>> {
        let Some(body) = self.body.as_mut().filter(|_| !self.ended) else { return Poll::Ready(Ok(false)) };
        loop {
            match ready!(body.poll_data(context)).transpose()? {
                Some(data) if data.is_empty() => {}
                Some(data) => {
                    self.rest = data;
                    return Poll::Ready(Ok(true));
                }
                None => {
                    self.trailers = ready!(body.poll_trailers(context))?;
                    self.ended = true;
                    return Poll::Ready(Ok(false));
                }
            }
        }
    }
}

impl Sink for Http2Stream {
    fn poll_send(&self, context: &mut Context<'_>, buf: &[u8], last: bool) -> Poll<io::Result<usize>> {
        let sending = &mut *self.sending.borrow_mut();
        let Sending::Body { stream, ended } = sending else {
            return Poll::Ready(self.send_head(sending, buf, last));
        };
        if *ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let wanted = buf.len().min(SEND_AT_ONCE);
        stream.reserve_capacity(wanted);
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(self.note(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let count = wanted.min(stream.capacity());
        *ended = last && count == buf.len();
        let sent = stream.send_data(Bytes::copy_from_slice(&buf[..count]), *ended);
        Poll::Ready(sent.map(|()| count).map_err(|error| self.note(error)))
    }

    fn end(&self, trailers: &Headers) -> io::Result<()> {
        let Sending::Body { stream, ended } = &mut *self.sending.borrow_mut() else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        if std::mem::replace(ended, true) {
            return Ok(());
        }
        let sent = if trailers.is_empty() {
            stream.send_data(Bytes::new(), true)
        } else {
            let map = fields::map(trailers).ok_or(io::ErrorKind::InvalidData)?;
            stream.send_trailers(map)
        };
        sent.map_err(|error| self.note(error))
    }
}
