//! Noticing that a peer has closed while nothing is read from it: what it sent before may stay unread.

use crate::socket::exhausted;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Waits for the end of what a peer sends. Has a descriptor of its own: the readiness that readers of the connection go by
/// stays as it is.
#[derive(Debug)]
pub struct Departure(TcpStream);

impl Departure {
    /// Of the peer of this socket.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn of(tcp: &TcpStream) -> io::Result<Self> {
        let descriptor = rustix::io::fcntl_dupfd_cloexec(tcp, 0)?;
        Ok(Self(TcpStream::from_std(descriptor.into())?))
    }

    /// Ready once the peer has sent its last byte or the connection broke.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            // An error is the reactor's end.
            if ready!(self.0.poll_read_ready(context)).is_err() {
                return Poll::Ready(());
            }
            match pin!(self.0.ready(Interest::READABLE)).poll(context) {
                Poll::Ready(Ok(readiness)) if !readiness.is_read_closed() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => continue,
            }
            // Bytes, which somebody else reads.
            exhausted(&self.0, Interest::READABLE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    async fn has_left(departure: &Departure) {
        let left = poll_fn(|context| departure.poll(context));
        tokio::time::timeout(Duration::from_secs(10), left).await.expect("it left");
    }

    #[tokio::test]
    async fn bytes_are_no_departure_and_do_not_hide_one() {
        let (mut near, mut far) = pair().await;
        let departure = Departure::of(&near).unwrap();
        for piece in [b"a", b"b"] {
            far.write_all(piece).await.unwrap();
            let left = poll_fn(|context| departure.poll(context));
            assert!(tokio::time::timeout(Duration::from_millis(30), left).await.is_err());
        }
        drop(far);
        has_left(&departure).await;
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"ab");
    }

    #[tokio::test]
    async fn a_reset_is_one_and_one_that_was_before_as_well() {
        let (near, far) = pair().await;
        far.set_zero_linger().unwrap();
        drop(far);
        near.readable().await.unwrap();
        has_left(&Departure::of(&near).unwrap()).await;
    }
}
