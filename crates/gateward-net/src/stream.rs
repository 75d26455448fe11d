//! A connected stream as the data plane uses it: read and written through a shared reference, by one worker.

use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{SockRef, TcpKeepalive};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A connection to a client or an upstream.
///
/// It never leaves its worker's thread, so reading and writing need neither halves nor a lock. System calls are
/// made directly: in a process with several threads every call through the C library pays for making it a
/// cancellation point.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
}

impl Stream {
    /// The stream of a connected socket.
    pub fn plain(tcp: TcpStream) -> Self {
        Self { tcp }
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
    /// The runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.tcp.poll_read_ready(context)).await
    }

    /// Read into `buf`; 0: the peer has sent its last byte.
    ///
    /// # Errors
    /// Those of `recv(2)`.
    pub fn poll_read(&self, context: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_read_ready(context))?;
            match self.tcp.try_io(Interest::READABLE, || Ok(recv(&self.tcp, &mut *buf, RecvFlags::empty())?.0)) {
                Ok(count) => {
                    if count > 0 && count < buf.len() {
                        self.exhausted(Interest::READABLE);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Write from `buf`; how much of it was taken.
    ///
    /// # Errors
    /// Those of `send(2)`.
    pub fn poll_write(&self, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.tcp.try_io(Interest::WRITABLE, || Ok(send(&self.tcp, buf, SendFlags::NOSIGNAL)?)) {
                Ok(count) => {
                    if count > 0 && count < buf.len() {
                        self.exhausted(Interest::WRITABLE);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.tcp.poll_write_ready(context))?;
        }
    }

    /// A call did less than it was asked to: another would have to wait, which is known without making it.
    fn exhausted(&self, interest: Interest) {
        let _ = self.tcp.try_io(interest, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
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

    /// Say that nothing more will be sent.
    ///
    /// # Errors
    /// Those of `shutdown(2)`.
    pub fn finish(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.tcp, rustix::net::Shutdown::Write)?)
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

impl AsyncRead for &Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = ready!(Stream::poll_read(&self, context, buf.initialize_unfilled()))?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for &Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Stream::poll_write(&self, context, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }
}

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
