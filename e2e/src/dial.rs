//! How a client of a test connects: in the clear, or with what the test brings, such as TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection in the clear or not.
pub trait Line: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

/// A connection that is being made.
pub type Dialling = Pin<Box<dyn Future<Output = io::Result<Box<dyn Line>>> + Send>>;

/// How a load connects.
pub type Dial = Arc<dyn Fn() -> Dialling + Send + Sync>;

/// In the clear.
pub fn plain(addr: SocketAddr) -> Dial {
    Arc::new(move || {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(addr).await?;
            Ok(Box::new(stream) as Box<dyn Line>)
        })
    })
}
