//! What clients are shown: certificates by server name, and the configuration of handshakes.

use super::hello::{Carries, Wishes, without_tickets};
use super::names::NameTable;
use super::pem::KeyPair;
use super::session::{HandshakeError, Session};
use rustls::SupportedCipherSuite;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig, ServerConnection};
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use tokio::net::TcpStream;

/// Certificates by server name.
#[derive(Debug, Default)]
pub struct Certificates {
    names: NameTable<Arc<KeyPair>>,
}

impl Certificates {
    /// Show `pair` to who asks for `name` (exact, `*.rest`, `name.*` or `*`).
    pub fn insert(&mut self, name: &str, pair: Arc<KeyPair>) {
        self.names.insert(name, pair);
    }
}

/// How handshakes with clients are done under one configuration.
#[derive(Debug, Clone)]
pub struct Server {
    pub(crate) http1: Arc<ServerConfig>,
    pub(crate) http2: Arc<ServerConfig>,
    /// For streams: nothing is said about the protocol inside.
    pub(crate) stream: Arc<ServerConfig>,
    /// Likewise each of them with clients asked for a certificate, where the settings do not have them asked.
    pub(crate) asking: Option<Arc<[Arc<ServerConfig>; 3]>>,
}

impl Server {
    /// Whether the settings have clients asked for a certificate.
    pub(crate) fn asks_clients(&self) -> bool {
        self.asking.is_none()
    }

    /// The configuration of one handshake.
    pub(crate) fn config(&self, carries: Carries, wishes: Wishes) -> Arc<ServerConfig> {
        let usual = match carries {
            Carries::Http1 => &self.http1,
            Carries::Http2 => &self.http2,
            Carries::Stream => &self.stream,
        };
        let config = match &self.asking {
            Some(asking) if wishes.client_certificate => &asking[carries as usize],
            _ => usual,
        };
        if wishes.no_resumption { without_tickets(config) } else { config.clone() }
    }

    /// Do the handshake on a connection that a client has just made.
    pub(crate) async fn handshake(&self, tcp: &TcpStream, http2: bool) -> Result<Session, HandshakeError> {
        Self::begin(if http2 { &self.http2 } else { &self.http1 }, tcp).await
    }

    /// Likewise on one that carries a stream of any protocol.
    pub(crate) async fn handshake_of_stream(&self, tcp: &TcpStream) -> Result<Session, HandshakeError> {
        Self::begin(&self.stream, tcp).await
    }

    async fn begin(config: &Arc<ServerConfig>, tcp: &TcpStream) -> Result<Session, HandshakeError> {
        let connection = ServerConnection::new(config.clone()).map_err(|error| HandshakeError::of(&error))?;
        Session::establish(tcp, connection).await
    }
}

/// Finds the certificate for a client's hello.
#[derive(Debug)]
pub(crate) struct Resolver {
    pub(crate) certificates: Certificates,
    pub(crate) default: Arc<KeyPair>,
    /// The suites of the versions that are spoken.
    pub(crate) suites: Vec<SupportedCipherSuite>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificates.names.find(hello.server_name()).unwrap_or(&self.default).choose(&hello, &self.suites)
    }
}
