//! A connected stream as the data plane uses it: read and written through a shared reference, by one worker.

use crate::socket::{receive, transmit};
use crate::tls::session::Session;
use crate::tls::{Carries, Client, Facts, HandshakeError, Hello, Offer, Server, Wishes};
use socket2::{SockRef, TcpKeepalive};
use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection to a client or an upstream, in the clear or with TLS.
///
/// It never leaves its worker's thread, so reading and writing need neither halves nor a lock.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    tls: Option<Box<Session>>,
    /// What is to be sent before anything else.
    posted: Posted,
}

/// Bytes that an [`Outbox`](crate::Outbox) has to send.
#[derive(Default)]
struct Posted(RefCell<Vec<u8>>);

impl fmt::Debug for Posted {
    /// How many they are: what they say is not for logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.0.borrow().len())
    }
}

impl Stream {
    /// The stream of a connected socket.
    pub fn plain(tcp: TcpStream) -> Self {
        Self { tcp, tls: None, posted: Posted::default() }
    }

    fn over_tls(tcp: TcpStream, session: Session) -> Self {
        Self { tls: Some(Box::new(session)), ..Self::plain(tcp) }
    }

    /// Do the TLS handshake with a client that has just connected; `http2`: offer it.
    ///
    /// # Errors
    /// The client closed, speaks something else, shares no parameters, or has no certificate where one is required;
    /// with the socket, on which a word in the clear may help. There is no deadline here: the caller has one.
    pub async fn accept_tls(server: &Server, tcp: TcpStream, http2: bool) -> Result<Self, (TcpStream, HandshakeError)> {
        match server.handshake(&tcp, http2).await {
            Ok(session) => Ok(Self::over_tls(tcp, session)),
            Err(error) => Err((tcp, error)),
        }
    }

    /// Likewise with a client whose protocol is its own: ALPN is left alone.
    ///
    /// # Errors
    /// As [`Self::accept_tls`], without the socket.
    pub async fn accept_tls_of_stream(server: &Server, tcp: TcpStream) -> Result<Self, HandshakeError> {
        let session = server.handshake_of_stream(&tcp).await?;
        Ok(Self::over_tls(tcp, session))
    }

    /// Go on with a handshake whose `hello` was read from `tcp`.
    ///
    /// # Errors
    /// As [`Self::accept_tls`].
    pub async fn answer_tls(
        hello: Hello,
        server: &Server,
        tcp: TcpStream,
        carries: Carries,
        wishes: Wishes,
    ) -> Result<Self, HandshakeError> {
        let session = hello.answer(&tcp, server, carries, wishes).await?;
        Ok(Self::over_tls(tcp, session))
    }

    /// Do the TLS handshake on a connection to `ip`, for `name` (a host name or an address, without a port), and speak
    /// HTTP/1.1.
    ///
    /// # Errors
    /// `InvalidData` with rustls' text.
    pub async fn into_tls(self, client: &Client, ip: IpAddr, name: &str) -> io::Result<Self> {
        self.negotiate_tls(client, ip, name, Offer::Http1).await
    }

    /// Likewise to speak what of the `offer` the other end chooses: see [`Self::alpn`], which is `None` where it knows
    /// nothing of ALPN.
    ///
    /// # Errors
    /// Likewise; `Unsupported` when it speaks nothing that was offered.
    pub async fn negotiate_tls(self, client: &Client, ip: IpAddr, name: &str, offer: Offer) -> io::Result<Self> {
        let session = client.handshake(&self.tcp, ip, name, offer).await?;
        Ok(Self { tls: Some(Box::new(session)), ..self })
    }

    /// What the TLS handshake came to; `None` in the clear.
    pub fn tls(&self) -> Option<&Facts> {
        self.tls.as_deref().map(Session::facts)
    }

    /// The protocol agreed on by ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls().and_then(|facts| facts.alpn.as_deref())
    }

    /// Connect to `address`, without Nagle's algorithm: heads and small bodies leave in one write, so there is
    /// nothing it could gather.
    ///
    /// # Errors
    /// Those of `connect(2)`.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        Ok(Self::plain(tcp))
    }

    /// The socket.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Wait until there is something to read, so that a buffer is needed only then.
    ///
    /// # Errors
    /// The runtime is shutting down; with TLS also those of reading.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| match &self.tls {
            None => self.tcp.poll_read_ready(context),
            Some(session) => session.poll_readable(&self.tcp, context),
        })
        .await
    }

    /// Wait for the first byte of a new connection without taking it; `false`: the peer closed instead.
    ///
    /// tokio takes an accepted socket for readable before it knows, so this looks at the socket itself.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn arrival(&self) -> io::Result<bool> {
        match &self.tls {
            None => Ok(self.tcp.peek(&mut [0]).await? > 0),
            Some(session) => poll_fn(|context| session.poll_arrival(&self.tcp, context)).await,
        }
    }

    /// Whether anything arrived on this connection, which ought to be silent. `closely`: ask the socket itself, which
    /// sees what the reactor has not been told yet, for a system call.
    pub(crate) fn has_spoken(&self, closely: bool) -> bool {
        let nothing = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        let context = &mut Context::from_waker(Waker::noop());
        if self.tls.is_none() && self.tcp.poll_read_ready(context).is_ready() {
            // The reactor may remember readiness that was already used up.
            if !matches!(self.tcp.try_read(&mut [0_u8; 1]), Err(error) if nothing(&error)) {
                return true;
            }
        }
        if let Some(session) = &self.tls {
            // What rustls takes for its own (tickets) it has taken; more, later, speaks.
            if session.has_spoken(&self.tcp) {
                return true;
            }
        }
        let mut byte = [std::mem::MaybeUninit::new(0_u8)];
        closely && !matches!(SockRef::from(&self.tcp).peek(&mut byte), Err(error) if nothing(&error))
    }

    /// Read into `buf`; 0: the peer has sent its last byte.
    ///
    /// # Errors
    /// Those of `recv(2)`; with TLS also `UnexpectedEof` when the peer's end was not announced by close_notify.
    pub fn poll_read(&self, context: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Some(session) = &self.tls {
            return session.poll_read(&self.tcp, context, buf);
        }
        loop {
            ready!(self.tcp.poll_read_ready(context))?;
            match receive(&self.tcp, buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }

    /// Write from `buf`; how much of it was taken. A write that had to wait is repeated with the same bytes (and
    /// perhaps more behind them), or is the last.
    ///
    /// # Errors
    /// Those of `send(2)`.
    pub fn poll_write(&self, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(session) = &self.tls {
            return session.poll_write(&self.tcp, context, buf);
        }
        ready!(self.poll_sent(context))?;
        loop {
            match transmit(&self.tcp, buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
            ready!(self.tcp.poll_write_ready(context))?;
        }
    }

    /// Read into `buf`; 0: the peer has sent its last byte.
    ///
    /// # Errors
    /// Those of `recv(2)`.
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context, buf)).await
    }

    /// Write from `buf`; how much of it was taken.
    ///
    /// # Errors
    /// Those of `send(2)`.
    pub async fn write(&self, buf: &[u8]) -> io::Result<usize> {
        poll_fn(|context| self.poll_write(context, buf)).await
    }

    /// Say that nothing more will be sent; with TLS first in its own words (close_notify).
    ///
    /// # Errors
    /// Those of `shutdown(2)`; `WouldBlock` where the peer has not taken all of what was posted, behind which the
    /// connection ends when it is dropped.
    pub fn finish(&self) -> io::Result<()> {
        if let Some(session) = &self.tls {
            session.close(&self.tcp);
        }
        if !self.send_posted()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(rustix::net::shutdown(&self.tcp, rustix::net::Shutdown::Write)?)
    }

    /// Send what was posted.
    ///
    /// # Errors
    /// Those of `send(2)`.
    pub fn poll_sent(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.send_posted()? {
            ready!(self.tcp.poll_write_ready(context))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether there is nothing left of what was posted.
    pub(crate) fn is_sent(&self) -> bool {
        self.posted.0.borrow().is_empty()
    }

    /// Whether [`Self::post`] may be called.
    pub(crate) fn can_post(&self) -> bool {
        self.tls.is_none() && self.is_sent()
    }

    /// Keep `message` to be sent before anything else, and leave `spare` memory in its place. Nothing else is posted.
    pub(crate) fn post(&self, message: &mut Vec<u8>, spare: Vec<u8>) {
        debug_assert!(self.can_post() && spare.is_empty(), "one message at a time, and only in the clear");
        self.posted.0.replace(std::mem::replace(message, spare));
    }

    /// Send of what was posted as much as fits; whether that was all.
    ///
    /// # Errors
    /// Those of `send(2)`; nothing is posted any more.
    pub(crate) fn send_posted(&self) -> io::Result<bool> {
        let mut posted = self.posted.0.borrow_mut();
        while !posted.is_empty() {
            match transmit(&self.tcp, &posted) {
                Ok(count) => drop(posted.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => {
                    posted.clear();
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    /// The memory of a message that was sent.
    pub(crate) fn take_sent(&self) -> Vec<u8> {
        debug_assert!(self.is_sent(), "taken while there is something to send");
        self.posted.0.take()
    }

    /// End both directions at once, so that who reads finds the end.
    pub(crate) fn shut_down(&self) {
        let _ = rustix::net::shutdown(&self.tcp, rustix::net::Shutdown::Both);
    }

    /// Probe the other side after this idle time: a peer that is gone without a word is noticed, and a balancer on the
    /// way sees that the connection lives.
    pub fn keep_alive(&self, idle: Duration) {
        keep_alive(&SockRef::from(&self.tcp), idle);
    }

    /// Make closing the connection a reset: the peer must not take its end for the end of a message.
    pub fn reset_on_close(&self) {
        let _ = self.tcp.set_zero_linger();
    }
}

/// Seconds between two probes.
const PROBE_EVERY: Duration = Duration::from_secs(15);
/// Probes without an answer after which a connection is dead.
const PROBES: u32 = 4;

/// A socket that refuses stays as it is: probing is a help, not a promise.
pub(crate) fn keep_alive(socket: &SockRef<'_>, idle: Duration) {
    let probes = TcpKeepalive::new().with_time(idle).with_interval(PROBE_EVERY).with_retries(PROBES);
    let _ = socket.set_tcp_keepalive(&probes);
}

/// Both forms: shared, and owned for those who want a stream of their own.
macro_rules! asynchronous {
    ($($stream:ty),*) => {$(
        impl AsyncRead for $stream {
            fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                let count = ready!(Stream::poll_read(&self, context, buf.initialize_unfilled()))?;
                buf.advance(count);
                Poll::Ready(Ok(()))
            }
        }

        impl AsyncWrite for $stream {
            fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Stream::poll_write(&self, context, buf)
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_sent(context)
            }

            fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                ready!(self.poll_sent(context))?;
                Poll::Ready(self.finish())
            }
        }
    )*};
}

asynchronous!(&Stream, Stream);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (Stream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (here, there) = tokio::join!(Stream::connect(listener.local_addr().unwrap()), listener.accept());
        (here.unwrap(), Stream::plain(there.unwrap().0))
    }

    #[tokio::test]
    async fn both_directions_at_once_move_more_than_the_socket_holds() {
        const BYTES: usize = 8 << 20;
        let (here, there) = pair().await;
        let data: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8).collect();
        let send = async |stream: &Stream| {
            (&mut &*stream).write_all(&data).await.unwrap();
            stream.finish().unwrap();
        };
        let receive = async |stream: &Stream| {
            let mut got = Vec::new();
            (&mut &*stream).read_to_end(&mut got).await.unwrap();
            assert!(got == data);
        };
        tokio::join!(send(&here), receive(&here), send(&there), receive(&there));
    }

    #[tokio::test]
    async fn small_messages_come_one_by_one_and_the_end_shows() {
        let (here, there) = pair().await;
        let mut buf = [0; 64];
        for message in ["a", "bc", "def"] {
            here.write(message.as_bytes()).await.unwrap();
            there.readable().await.unwrap();
            let count = there.read(&mut buf).await.unwrap();
            assert_eq!(&buf[..count], message.as_bytes());
        }
        here.finish().unwrap();
        assert_eq!(there.read(&mut buf).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn accepted_connections_inherit_their_listeners_probes() {
        let listener = crate::Listener::bind("127.0.0.1:0".parse().unwrap(), 8).unwrap();
        listener.keep_alive(Duration::from_secs(77));
        let address = listener.local_addr().unwrap();
        let listener = listener.into_tokio().unwrap();
        let (here, there) = tokio::join!(Stream::connect(address), listener.accept());
        let (here, there) = (here.unwrap(), there.unwrap().0);
        let idle = |tcp: &TcpStream| {
            (SockRef::from(tcp).keepalive().unwrap(), SockRef::from(tcp).tcp_keepalive_time().unwrap())
        };
        assert_eq!(idle(&there), (true, Duration::from_secs(77)));
        here.keep_alive(Duration::from_secs(33));
        assert_eq!(idle(here.tcp()), (true, Duration::from_secs(33)));
    }

    #[tokio::test]
    async fn writing_to_a_closed_peer_is_an_error_and_no_signal() {
        let (here, there) = pair().await;
        there.reset_on_close();
        drop(there);
        while here.write(b"x").await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
