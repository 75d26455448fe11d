//! The certificate of DNS over TLS: read from files, and read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file that cannot be read, or holds no PEM of the kind it must.
    #[error("{0}: {1}")]
    File(PathBuf, rustls::pki_types::pem::Error),
    /// Certificate and key do not fit together, or are of a kind that is not known.
    #[error("{0} and {1}: {2}")]
    Pair(PathBuf, PathBuf, rustls::Error),
}

/// A certificate chain with its key, both in PEM files.
#[derive(Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    pair: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// [`CertificateError`] names the file.
    pub fn open(certificate: &Path, key: &Path) -> Result<Arc<Self>, CertificateError> {
        let pair = ArcSwap::from(read(certificate, key)?);
        Ok(Arc::new(Certificate { certificate: certificate.into(), key: key.into(), pair }))
    }

    /// Reads both files again; connections from now on see what is in them.
    ///
    /// # Errors
    /// [`CertificateError`]: the pair from before goes on being used.
    pub fn reload(&self) -> Result<(), CertificateError> {
        self.pair.store(read(&self.certificate, &self.key)?);
        Ok(())
    }

    /// How connections are accepted with it: TLS 1.2 and 1.3, ALPN `dot` (RFC 7858, RFC 9103).
    ///
    /// # Panics
    /// Never: the versions are those of the provider.
    #[must_use]
    pub fn server_config(self: &Arc<Self>) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.expect("the provider has the default versions").with_no_client_auth();
        let mut config = builder.with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"dot".to_vec()];
        Arc::new(config)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair.load_full())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| CertificateError::File(certificate.into(), error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| CertificateError::File(key.into(), error))?;
    CertifiedKey::from_der(chain, private, &provider())
        .map(Arc::new)
        .map_err(|error| CertificateError::Pair(certificate.into(), key.into(), error))
}
