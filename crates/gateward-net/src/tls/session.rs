//! A TLS connection over a socket: handshake, reading and writing, through a shared reference like the plain stream.
//!
//! Reading and writing drive rustls directly. Two rules differ from a generic wrapper. A write is finished only when
//! the socket has taken all of its records, because callers of the plain stream know no "flush"; a write that had to
//! wait must therefore be repeated with the same bytes, or be the last. And the end of the stream is 0 only after the
//! peer's close_notify: an end without it is an error (RFC 8446 section 6.1), so that a cut answer does not pass for a
//! whole one.

use super::facts::Facts;
use crate::socket::{receive, transmit, transmit_many};
use rustls::{AlertDescription, Connection, Error, InvalidMessage, PeerMisbehaved};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, BufRead, Read, Write};
use std::task::{Context, Poll, Waker, ready};
use tokio::net::TcpStream;

/// Label of handshakes that fail because none of the protocols offered by ALPN is spoken at the other end.
pub(super) const NOTHING_AGREED: &str = "tls_alpn";

/// Why a handshake failed.
#[derive(Debug)]
pub struct HandshakeError {
    /// The label it is counted under.
    pub reason: &'static str,
    /// For the log; nothing secret.
    pub message: String,
    /// The client speaks, but not TLS: it would understand an answer in the clear.
    pub cleartext: bool,
}

/// An established session.
#[derive(Debug)]
pub(crate) struct Session {
    connection: RefCell<Connection>,
    /// Bytes of the write under way: taken by rustls, not yet by the socket.
    taken: Cell<usize>,
    facts: Box<Facts>,
}

impl Session {
    /// Do the handshake of `connection` on `tcp`.
    pub(crate) async fn establish(tcp: &TcpStream, connection: impl Into<Connection>) -> Result<Self, HandshakeError> {
        Self::establish_with(tcp, connection, Facts::of).await
    }

    /// Likewise, with facts of its own.
    pub(crate) async fn establish_with(
        tcp: &TcpStream,
        connection: impl Into<Connection>,
        facts: fn(&Connection) -> Facts,
    ) -> Result<Self, HandshakeError> {
        let mut connection = connection.into();
        poll_fn(|context| poll_handshake(tcp, &mut connection, context)).await?;
        let facts = Box::new(facts(&connection));
        Ok(Self { connection: RefCell::new(connection), taken: Cell::new(0), facts })
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Until there is content, or the end.
    pub(crate) fn poll_readable(&self, tcp: &TcpStream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut connection = self.connection.borrow_mut();
        ready!(poll_content(tcp, &mut connection, context, |reader| reader.fill_buf().map(drop)))?;
        Poll::Ready(Ok(()))
    }

    /// Likewise; whether it is content.
    pub(crate) fn poll_arrival(&self, tcp: &TcpStream, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut connection = self.connection.borrow_mut();
        poll_content(tcp, &mut connection, context, |reader| reader.fill_buf().map(|content| !content.is_empty()))
    }

    pub(crate) fn poll_read(
        &self,
        tcp: &TcpStream,
        context: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut connection = self.connection.borrow_mut();
        poll_content(tcp, &mut connection, context, |reader| reader.read(buf))
    }

    pub(crate) fn poll_write(&self, tcp: &TcpStream, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut connection = self.connection.borrow_mut();
        if self.taken.get() == 0 && !buf.is_empty() {
            let mut taken = connection.writer().write(buf)?;
            if taken == 0 {
                // Full of what reading left behind: that goes first.
                ready!(poll_flush(tcp, &mut connection, context))?;
                taken = connection.writer().write(buf)?;
            }
            self.taken.set(taken);
        }
        ready!(poll_flush(tcp, &mut connection, context))?;
        Poll::Ready(Ok(self.taken.replace(0).min(buf.len())))
    }

    /// Say with close_notify that no more will be sent, as far as the socket takes it now: everything else has been
    /// written before, so there is room for it unless the peer does not read.
    pub(crate) fn close(&self, tcp: &TcpStream) {
        let mut connection = self.connection.borrow_mut();
        connection.send_close_notify();
        while connection.wants_write() && connection.write_tls(&mut Socket(tcp)).is_ok() {}
    }

    /// Whether anything but TLS' own messages (tickets, key updates) arrived on a connection that ought to be silent.
    pub(crate) fn has_spoken(&self, tcp: &TcpStream) -> bool {
        let context = &mut Context::from_waker(Waker::noop());
        self.poll_readable(tcp, context).is_ready()
    }
}

/// rustls reads and writes here; nothing blocks.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        receive(self.0, buf)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        transmit(self.0, buf)
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        transmit_many(self.0, bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Take from the content with `take`, receiving as long as there is none.
fn poll_content<T>(
    tcp: &TcpStream,
    connection: &mut Connection,
    context: &mut Context<'_>,
    mut take: impl FnMut(&mut rustls::Reader<'_>) -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        match take(&mut connection.reader()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            taken => return Poll::Ready(taken),
        }
        ready!(poll_receive(tcp, connection, context))?.map_err(io::Error::other)?;
    }
}

/// Receive once and decrypt; how many bytes that were, 0 at the end of the stream. The outer error is the socket's, the
/// inner one TLS'.
fn poll_receive(
    tcp: &TcpStream,
    connection: &mut Connection,
    context: &mut Context<'_>,
) -> Poll<io::Result<Result<usize, Error>>> {
    let count = loop {
        ready!(tcp.poll_read_ready(context))?;
        match connection.read_tls(&mut Socket(tcp)) {
            Ok(count) => break count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    };
    let processed = connection.process_new_packets().map(|_| count);
    if matches!(processed, Err(Error::InvalidMessage(InvalidMessage::InvalidContentType))) {
        // Not TLS: an alert would say nothing to it.
        return Poll::Ready(Ok(processed));
    }
    // Answers of TLS' own, or the alert that says what was wrong. What the socket does not take now goes with the
    // next write.
    while connection.wants_write() && connection.write_tls(&mut Socket(tcp)).is_ok() {}
    Poll::Ready(Ok(processed))
}

fn poll_flush(tcp: &TcpStream, connection: &mut Connection, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    while connection.wants_write() {
        match connection.write_tls(&mut Socket(tcp)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(tcp.poll_write_ready(context))?,
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    Poll::Ready(Ok(()))
}

fn poll_handshake(
    tcp: &TcpStream,
    connection: &mut Connection,
    context: &mut Context<'_>,
) -> Poll<Result<(), HandshakeError>> {
    loop {
        ready!(poll_flush(tcp, connection, context)).map_err(|error| HandshakeError::closed(&error))?;
        if !connection.is_handshaking() {
            return Poll::Ready(Ok(()));
        }
        match ready!(poll_receive(tcp, connection, context)).map_err(|error| HandshakeError::closed(&error))? {
            Ok(0) => return Poll::Ready(Err(HandshakeError::closed(&io::ErrorKind::UnexpectedEof.into()))),
            Ok(_) => {}
            Err(error) => return Poll::Ready(Err(HandshakeError::of(&error))),
        }
    }
}

impl HandshakeError {
    pub(super) fn closed(error: &io::Error) -> Self {
        Self { reason: "tls_closed", message: error.to_string(), cleartext: false }
    }

    pub(super) fn of(error: &Error) -> Self {
        let (reason, cleartext) = match error {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => ("tls_not_tls", true),
            Error::InvalidMessage(_) | Error::PeerMisbehaved(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec) => {
                ("tls_malformed", false)
            }
            Error::PeerIncompatible(_) => ("tls_nothing_in_common", false),
            Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                (NOTHING_AGREED, false)
            }
            Error::NoCertificatesPresented => ("tls_no_certificate", false),
            Error::InvalidCertificate(_) => ("tls_bad_certificate", false),
            Error::AlertReceived(AlertDescription::CloseNotify | AlertDescription::UserCanceled) => {
                ("tls_closed", false)
            }
            Error::AlertReceived(_) => ("tls_refused_by_peer", false),
            _ => ("tls_protocol", false),
        };
        Self { reason, message: error.to_string(), cleartext }
    }
}
