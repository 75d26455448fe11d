//! Looking at the hello of a new connection. Nothing is taken: whoever serves the connection finds all of it.

use super::{ClientHello, HELLO_MAX, Malformed, Parsed, parse};
use crate::socket::{Unseen, look};
use std::io;
use tokio::net::TcpStream;

/// Bytes looked at first: a usual hello.
const FIRST_LOOK: usize = 2 * 1024;

/// Why there is no hello.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The peer closed before it was known what it sends.
    #[error("closed before its hello was complete")]
    Closed,
    /// What comes is not TLS.
    #[error("not TLS")]
    NotTls,
    /// The hello breaks its rules.
    #[error("malformed hello: {0}")]
    Malformed(#[from] Malformed),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Unseen> for HelloError {
    fn from(unseen: Unseen) -> Self {
        match unseen {
            Unseen::Closed => Self::Closed,
            Unseen::Io(error) => Self::Io(error),
        }
    }
}

/// The hello with which the connection begins. There is no deadline here: a client may send nothing at all.
///
/// # Errors
/// There is none; see [`HelloError`].
pub async fn receive(tcp: &TcpStream) -> Result<ClientHello, HelloError> {
    look(tcp, FIRST_LOOK, HELLO_MAX, |bytes| match parse(bytes)? {
        Parsed::NotTls => Err(HelloError::NotTls),
        Parsed::Partial => Ok(None),
        Parsed::Complete(hello) => Ok(Some(hello)),
    })
    .await
}
