//! A handshake in two steps: the client's hello is read, somebody decides, then it is answered.

use super::facts::Facts;
use super::server::Server;
use super::session::{HandshakeError, Session};
use crate::socket::{receive, transmit};
use rustls::server::{Accepted, Acceptor, ServerConfig};
use std::io::{self, Read};
use std::sync::Arc;
use tokio::net::TcpStream;

/// The alert `internal_error`, which a client gets whose handshake ends here (RFC 8446 section 6; OpenSSL sends the same
/// when a callback for the certificate fails).
const REFUSED: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, or HTTP/1.1 for who does not know it.
    Http2,
    /// Anything; ALPN is left alone.
    Stream,
}

/// What a handshake does otherwise than the settings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// Ask the client for a certificate; whatever it shows is taken, and not verified. Where the settings have one asked
    /// for, it is verified as ever.
    pub client_certificate: bool,
    /// Let nobody resume this session later.
    pub no_resumption: bool,
}

/// A client's hello that was not answered yet.
pub struct Hello(Accepted);

impl Hello {
    /// Receive it. There is no deadline here: the caller has one.
    ///
    /// # Errors
    /// The client closed, or speaks something else.
    pub async fn receive(tcp: &TcpStream) -> Result<Self, HandshakeError> {
        let mut acceptor = Acceptor::default();
        loop {
            tcp.readable().await.map_err(|error| HandshakeError::closed(&error))?;
            match acceptor.read_tls(&mut Receiving(tcp)) {
                Ok(0) => return Err(HandshakeError::closed(&io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(HandshakeError::closed(&error)),
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return Ok(Self(accepted)),
                Err((error, mut alert)) => {
                    let error = HandshakeError::of(&error);
                    let mut bytes = Vec::new();
                    // As far as it fits; a socket just opened has room. To who does not speak TLS it would say nothing.
                    if !error.cleartext && alert.write_all(&mut bytes).is_ok() {
                        let _ = transmit(tcp, &bytes);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// The name the client asks for, in lower case.
    pub fn server_name(&self) -> Option<String> {
        self.0.client_hello().server_name().map(str::to_ascii_lowercase)
    }

    /// Tell the client that there will be no session.
    pub fn refuse(self, tcp: &TcpStream) {
        let _ = transmit(tcp, &REFUSED);
    }

    pub(crate) async fn answer(
        self,
        tcp: &TcpStream,
        server: &Server,
        carries: Carries,
        wishes: Wishes,
    ) -> Result<Session, HandshakeError> {
        let config = server.config(carries, wishes);
        let connection = self.0.into_connection(config).map_err(|(error, mut alert)| {
            let mut bytes = Vec::new();
            if alert.write_all(&mut bytes).is_ok() {
                let _ = transmit(tcp, &bytes);
            }
            HandshakeError::of(&error)
        })?;
        let facts = if wishes.client_certificate && !server.asks_clients() { Facts::unverified } else { Facts::of };
        Session::establish_with(tcp, connection, facts).await
    }
}

struct Receiving<'a>(&'a TcpStream);

impl Read for Receiving<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        receive(self.0, buf)
    }
}

/// `config` for a session that nobody resumes.
pub(super) fn without_tickets(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.ticketer = Arc::new(NoTickets);
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// Makes no tickets and takes none.
#[derive(Debug)]
pub(super) struct NoTickets;

impl rustls::server::ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}
