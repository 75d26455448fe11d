//! How upstreams are spoken to over TLS.

use super::pem::{KeyPair, certificates, provider};
use super::session::{HandshakeError, NOTHING_AGREED, Session};
use super::verify::UpstreamVerifier;
use super::{HTTP_1_1, HTTP_2, TlsError};
use rustls::client::{ClientConfig, ClientConnection, ResolvesClientCert};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::net::TcpStream;

/// The gateway's own certificate for an upstream, and what tells it from others.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Certificate and key.
    pub pair: Arc<KeyPair>,
    /// Anything that changes when the certificate does: its PEM text.
    pub cert: String,
}

/// What a service says about TLS to its upstream.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// Verify the upstream; `None`: as the process is set.
    pub verify: Option<bool>,
    /// Most intermediate certificates; `None`: as the process is set.
    pub depth: Option<u8>,
    /// PEM texts of authorities; `None`: as the process is set.
    pub authorities: Option<Vec<String>>,
    /// Those of the process beside `authorities`.
    pub with_trusted: bool,
    /// The certificate to show when asked.
    pub identity: Option<Identity>,
}

/// The protocols that an upstream may choose from by ALPN (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone.
    Http2,
    /// HTTP/2, or else HTTP/1.1.
    Either,
    /// None of these: ALPN is left alone, because something else is spoken.
    Nothing,
}

impl Offer {
    fn names(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Http1 => &[HTTP_1_1],
            Self::Http2 => &[HTTP_2],
            Self::Either => &[HTTP_2, HTTP_1_1],
            Self::Nothing => &[],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

/// Options in force, shared by every service that has the same: it keeps sessions to resume.
#[derive(Debug)]
pub struct Client {
    id: u64,
    verifies: bool,
    config: Arc<ClientConfig>,
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Client {
    /// Tells these options from all others of this process: connections may be shared within an id, and only there.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether upstreams are verified.
    pub fn verifies(&self) -> bool {
        self.verifies
    }

    /// The first bytes of a handshake for `name`.
    #[cfg(test)]
    pub(crate) fn hello_for_tests(&self, name: &str) -> Vec<u8> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(self.config.clone(), name).unwrap();
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).unwrap();
        hello
    }

    /// Do the handshake on a connection to `ip`.
    pub(crate) async fn handshake(
        &self,
        tcp: &TcpStream,
        ip: IpAddr,
        name: &str,
        offer: Offer,
    ) -> std::io::Result<Session> {
        // What cannot be a server name is not sent as one; the address is then what is verified.
        let name = ServerName::try_from(name.to_owned()).unwrap_or(ServerName::IpAddress(ip.into()));
        // Sessions are kept by name in the one configuration: what was offered is no part of them.
        let connection = ClientConnection::new_with_alpn(self.config.clone(), name, offer.names());
        let connection = connection.map_err(std::io::Error::other)?;
        let failed = |error: HandshakeError| {
            let nothing_in_common = error.reason == NOTHING_AGREED;
            let kind = if nothing_in_common { ErrorKind::Unsupported } else { ErrorKind::InvalidData };
            std::io::Error::new(kind, error.message)
        };
        Session::establish(tcp, connection).await.map_err(failed)
    }
}

/// The clients of a process, by options.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    clients: HashMap<Vec<u8>, Weak<Client>>,
    next: u64,
}

/// Options with the process' settings filled in.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) verify: bool,
    pub(crate) depth: u8,
    /// Empty unless `verify`.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    pub(crate) identity: Option<Identity>,
}

impl Resolved {
    /// A text of fixed length for the options: equal exactly when they are.
    fn fingerprint(&self) -> Vec<u8> {
        let mut digest = Sha256::new();
        digest.update([u8::from(self.verify), if self.verify { self.depth } else { 0 }]);
        for authority in &self.authorities {
            digest.update((authority.len() as u64).to_be_bytes());
            digest.update(authority);
        }
        digest.update(u64::MAX.to_be_bytes());
        if let Some(identity) = &self.identity {
            digest.update(&identity.cert);
        }
        digest.finalize().to_vec()
    }
}

impl Clients {
    /// The client for these options, an existing one where possible.
    pub(crate) fn get(&self, options: Resolved) -> Result<Arc<Client>, TlsError> {
        let fingerprint = options.fingerprint();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known.clients.get(&fingerprint).and_then(Weak::upgrade) {
            return Ok(client);
        }
        known.clients.retain(|_, client| client.strong_count() > 0);
        known.next += 1;
        let made = Arc::new(Client { id: known.next, verifies: options.verify, config: Arc::new(configure(options)?) });
        known.clients.insert(fingerprint, Arc::downgrade(&made));
        Ok(made)
    }
}

fn configure(options: Resolved) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| TlsError::Settings(error.to_string()))?;
    let verifier = if options.verify {
        UpstreamVerifier::strict(options.authorities, options.depth)
    } else {
        UpstreamVerifier::lenient()
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(match options.identity {
        Some(Identity { pair, .. }) => builder.with_client_cert_resolver(Arc::new(Shown(pair))),
        None => builder.with_no_client_auth(),
    })
}

/// The certificates of PEM texts, to be authorities.
pub(crate) fn authorities(texts: &[String]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mut all = Vec::new();
    for text in texts {
        all.extend(certificates(text, "cert")?);
    }
    Ok(all)
}

/// A set of authorities that rustls can use.
pub(crate) fn roots(authorities: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    roots
}

/// Shows a certificate to whoever asks and can verify it.
#[derive(Debug)]
struct Shown(Arc<KeyPair>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _root_hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.choose_for(schemes)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
