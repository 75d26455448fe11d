//! What lives as long as the process: the default certificate, keys of session tickets, authorities.

use super::client::{Client, ClientOptions, Clients, Resolved, authorities, roots};
use super::hello::NoTickets;
use super::pem::{KeyPair, TlsError, certificates, provider, read};
use super::server::{Certificates, Resolver, Server};
use super::settings::{Authorities, ClientVerify, TlsSettings, suites};
use super::verify::AnyClient;
use super::{HTTP_1_1, HTTP_2};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig, WebPkiClientVerifier};
use rustls::{SupportedProtocolVersion, version};
use std::sync::{Arc, OnceLock};

/// Process-wide state of TLS.
#[derive(Debug)]
pub struct Context {
    settings: TlsSettings,
    provider: Arc<CryptoProvider>,
    default: Arc<KeyPair>,
    /// One set of keys for all workers and configurations, so that any of them resumes any session; rustls renews
    /// them every six hours and keeps the previous ones for as long.
    tickets: Arc<dyn ProducesTickets>,
    clients_verifier: Option<Arc<dyn ClientCertVerifier>>,
    clients: Clients,
    /// Read when first needed.
    trusted: OnceLock<Result<Vec<CertificateDer<'static>>, TlsError>>,
}

impl Context {
    /// Read what the settings name, and make a default certificate when they name none.
    ///
    /// # Errors
    /// Files that cannot be read or used, and combinations that rustls refuses.
    pub fn new(settings: TlsSettings) -> Result<Self, TlsError> {
        let default =
            if settings.certificates.is_empty() { self_signed()? } else { KeyPair::read(&settings.certificates)? };
        let suites = suites(&settings.suites);
        let provider = Arc::new(CryptoProvider { cipher_suites: suites, ..(*provider()).clone() });
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new();
        let tickets = tickets.map_err(|error| TlsError::Settings(format!("no keys for session tickets: {error}")))?;
        Ok(Self {
            clients_verifier: clients_verifier(&settings, &provider)?,
            default: Arc::new(default),
            provider,
            tickets,
            clients: Clients::default(),
            trusted: OnceLock::new(),
            settings,
        })
    }

    /// How clients are served that may be shown `certificates`, and the default certificate otherwise.
    ///
    /// # Errors
    /// When the settings leave no version or cipher suite.
    pub fn server(&self, certificates: Certificates) -> Result<Server, TlsError> {
        self.serve(certificates, self.clients_verifier.as_ref())
    }

    /// Likewise for the node's own interfaces: the default certificate, and nobody is asked for one.
    ///
    /// # Errors
    /// As [`Self::server`].
    pub fn internal_server(&self) -> Result<Server, TlsError> {
        self.serve(Certificates::default(), None)
    }

    fn serve(
        &self,
        certificates: Certificates,
        verifier: Option<&Arc<dyn ClientCertVerifier>>,
    ) -> Result<Server, TlsError> {
        let versions = self.versions();
        let spoken = self.provider.cipher_suites.iter().copied().filter(|suite| versions.contains(&suite.version()));
        let resolver = Resolver { certificates, default: self.default.clone(), suites: spoken.collect() };
        let refused =
            |error: rustls::Error| TlsError::Settings(format!("the TLS settings do not go together: {error}"));
        let builder = ServerConfig::builder_with_provider(self.provider.clone());
        let builder = builder.with_protocol_versions(&versions).map_err(refused)?;
        let resolver = Arc::new(resolver);
        let asking = verifier.is_none().then(|| {
            let verifier = Arc::new(AnyClient);
            let mut config = builder.clone().with_client_cert_verifier(verifier).with_cert_resolver(resolver.clone());
            // What a session that was not verified leaves behind must not be taken for one that was.
            config.ticketer = Arc::new(NoTickets);
            config.send_tls13_tickets = 0;
            config.session_storage = Arc::new(NoServerSessionStorage {});
            Arc::new(by_content(config))
        });
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(resolver);
        config.ticketer = self.tickets.clone();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let [http1, http2, stream] = by_content(config);
        Ok(Server { http1, http2, stream, asking })
    }

    /// What is shown to clients that no certificate of the configuration is for.
    pub fn default_certificate(&self) -> &Arc<KeyPair> {
        &self.default
    }

    /// How an upstream with these options is spoken to; the same value for the same options.
    ///
    /// # Errors
    /// Authorities that cannot be read.
    pub fn client(&self, options: ClientOptions) -> Result<Arc<Client>, TlsError> {
        let verify = options.verify.unwrap_or(self.settings.upstream_verify);
        let trusted = || self.trusted.get_or_init(|| trusted(&self.settings.upstream_authorities)).clone();
        let authorities = match &options.authorities {
            _ if !verify => Vec::new(),
            Some(texts) => {
                let mut all = authorities(texts)?;
                if options.with_trusted {
                    all.extend(trusted()?);
                }
                all
            }
            None => trusted()?,
        };
        let depth = options.depth.unwrap_or(self.settings.upstream_depth);
        self.clients.get(Resolved { verify, depth, authorities, identity: options.identity })
    }

    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let tls13 = self.settings.tls13.then_some(&version::TLS13);
        tls13.into_iter().chain(self.settings.tls12.then_some(&version::TLS12)).collect()
    }
}

/// `config` for each of [`Carries`](super::Carries), in their order.
fn by_content(mut config: ServerConfig) -> [Arc<ServerConfig>; 3] {
    let stream = Arc::new(config.clone());
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    let http1 = Arc::new(config.clone());
    config.alpn_protocols.insert(0, HTTP_2.to_vec());
    [http1, Arc::new(config), stream]
}

fn clients_verifier(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    if settings.client_verify == ClientVerify::Off {
        return Ok(None);
    }
    let Some(path) = &settings.client_authorities else {
        return Err(TlsError::Settings(
            "client certificates are asked for, and no authorities are set to verify them with".to_owned(),
        ));
    };
    let in_file = |error| TlsError::InFile { path: path.clone(), error: Box::new(error) };
    let authorities = certificates(&read(path)?, "authorities").map_err(in_file)?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)), provider.clone());
    let builder =
        if settings.client_verify == ClientVerify::Request { builder.allow_unauthenticated() } else { builder };
    let verifier = builder.build().map_err(|error| in_file(TlsError::Settings(error.to_string())))?;
    Ok(Some(verifier))
}

/// Authorities for upstreams whose service names none.
fn trusted(sources: &[Authorities]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mut all = Vec::new();
    for source in sources {
        match source {
            Authorities::System => {
                let found = rustls_native_certs::load_native_certs();
                if let (true, Some(error)) = (found.certs.is_empty(), found.errors.first()) {
                    return Err(TlsError::Settings(format!(
                        "the system's certificate authorities cannot be read: {error}"
                    )));
                }
                all.extend(found.certs);
            }
            Authorities::File(path) => {
                let found = certificates(&read(path)?, "authorities");
                all.extend(found.map_err(|error| TlsError::InFile { path: path.clone(), error: Box::new(error) })?);
            }
        }
    }
    Ok(all)
}

/// A certificate for `localhost`, like the one Kong makes at its first start.
fn self_signed() -> Result<KeyPair, TlsError> {
    let failed = |error: rcgen::Error| TlsError::Settings(format!("the default certificate cannot be made: {error}"));
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).map_err(failed)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "localhost");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "Gateward");
    let cert = params.self_signed(&key).map_err(failed)?;
    let der = PrivateKeyDer::try_from(key.serialize_der());
    let der = der.map_err(|error| TlsError::Settings(format!("the default key cannot be used: {error}")))?;
    KeyPair::of_der(cert.der().clone(), der)
}
