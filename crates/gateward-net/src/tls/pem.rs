//! PEM texts to certificates and keys that fit together. Errors say what is wrong and never show what is inside.

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ParsedCertificate};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureAlgorithm, SupportedCipherSuite};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a certificate, a key or a setting of TLS cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// There is no certificate in the text, or it is broken.
    #[error("{field}: not a certificate that can be used: {reason}")]
    Certificate {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no key in the text, or it is broken or of a kind that cannot be used.
    #[error("{field}: not a private key that can be used: {reason}")]
    Key {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key are each right but do not belong together.
    #[error("{key}: does not belong to the certificate in '{cert}'")]
    Mismatch {
        /// Field of the certificate.
        cert: &'static str,
        /// Field of the key.
        key: &'static str,
    },
    /// Both pairs are of one kind (Kong refuses this too).
    #[error("cert_alt: of the same kind of key ({0}) as cert; the second pair is for the other kind (RSA and ECDSA)")]
    SameKind(&'static str),
    /// A file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Something in a file, named by the setting, cannot be used.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        error: Box<TlsError>,
    },
    /// rustls refuses a combination of settings.
    #[error("{0}")]
    Settings(String),
}

/// A certificate with its key, or two of different kinds of which the client's abilities choose.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// Preferred first: ECDSA costs the server a fraction of RSA.
    choices: Vec<Arc<CertifiedKey>>,
}

impl KeyPair {
    /// From the texts of a certificate chain (leaf first) and its key, and perhaps a second pair of the other kind.
    ///
    /// # Errors
    /// Anything that does not parse or does not belong together, by field (`cert`, `key`, `cert_alt`, `key_alt`).
    pub fn parse(cert: &str, key: &str, alternative: Option<(&str, &str)>) -> Result<Self, TlsError> {
        let first = certified(cert, key, "cert", "key")?;
        let mut choices = vec![first];
        if let Some((cert, key)) = alternative {
            let second = certified(cert, key, "cert_alt", "key_alt")?;
            if kind(&choices[0]) == kind(&second) {
                return Err(TlsError::SameKind(kind(&second)));
            }
            choices.push(second);
        }
        choices.sort_by_key(|choice| kind(choice) == "RSA");
        Ok(Self { choices })
    }

    /// Pairs of files, one after the other: Kong's `ssl_cert` and `ssl_cert_key` are lists for two kinds of keys.
    pub(crate) fn read(files: &[(PathBuf, PathBuf)]) -> Result<Self, TlsError> {
        let mut choices: Vec<Arc<CertifiedKey>> = Vec::new();
        for (cert, key) in files {
            let made = certified(&read(cert)?, &read(key)?, "certificate", "key");
            let made = made.map_err(|error| TlsError::InFile { path: cert.clone(), error: Box::new(error) })?;
            if choices.iter().any(|other| kind(other) == kind(&made)) {
                return Err(TlsError::SameKind(kind(&made)));
            }
            choices.push(made);
        }
        choices.sort_by_key(|choice| kind(choice) == "RSA");
        Ok(Self { choices })
    }

    /// Of keys made in this process.
    pub(crate) fn of_der(cert: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        let made = CertifiedKey::from_der(vec![cert], key, &provider());
        let made = made.map_err(|error| TlsError::Settings(format!("the default certificate cannot be used: {error}")));
        Ok(Self { choices: vec![Arc::new(made?)] })
    }

    /// What is wrong with the time of a certificate at `now` (seconds since 1970), if anything. It is shown to clients all
    /// the same: those that look at the time refuse it, and to show another one would help nobody.
    pub fn lapse(&self, now: u64) -> Option<String> {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        self.choices.iter().find_map(|choice| {
            // It was parsed when it was loaded; what this parser will not read is not judged.
            let (_, certificate) = X509Certificate::from_der(choice.cert.first()?).ok()?;
            let (from, until) = (certificate.validity().not_before, certificate.validity().not_after);
            if now > until.timestamp() {
                Some(format!("expired on {until}: clients refuse it"))
            } else if now < from.timestamp() {
                Some(format!("is not valid before {from}: clients refuse it"))
            } else {
                None
            }
        })
    }

    /// The one that this client can verify and a suite of both sides can be used with; the preferred one when there is
    /// none, for the handshake to fail on.
    pub(crate) fn choose(&self, hello: &ClientHello<'_>, suites: &[SupportedCipherSuite]) -> Option<Arc<CertifiedKey>> {
        let fits = |choice: &&Arc<CertifiedKey>| {
            // Suites of TLS 1.3 go with any key.
            choice.key.choose_scheme(hello.signature_schemes()).is_some()
                && suites.iter().any(|suite| {
                    hello.cipher_suites().contains(&suite.suite())
                        && suite.usable_for_signature_algorithm(choice.key.algorithm())
                })
        };
        self.choices.iter().find(fits).or(self.choices.first()).cloned()
    }

    /// Likewise for a server that asks for a client certificate and takes these schemes.
    pub(crate) fn choose_for(&self, schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.choices.iter().find(|choice| choice.key.choose_scheme(schemes).is_some()).cloned()
    }
}

/// The cryptography in use: AWS-LC, as shipped with rustls.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

/// Every certificate of a PEM text, each one parsed.
///
/// # Errors
/// There is none, or one is broken.
pub(crate) fn certificates(text: &str, field: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::Certificate { field, reason };
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let found = found.map_err(|error| wrong(outer_form(&error)))?;
    if found.is_empty() {
        return Err(wrong("there is no '-----BEGIN CERTIFICATE-----'".to_owned()));
    }
    for certificate in &found {
        ParsedCertificate::try_from(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(found)
}

/// Whether `text` is a certificate that can be an authority.
///
/// # Errors
/// It is none, or broken.
pub fn check_authority(text: &str) -> Result<(), TlsError> {
    certificates(text, "cert").map(drop)
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, TlsError> {
    let failed = |reason: String| TlsError::File { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| failed("it is not text; PEM is wanted".to_owned()))
}

fn certified(
    cert: &str,
    key: &str,
    cert_field: &'static str,
    key_field: &'static str,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(cert, cert_field)?;
    let wrong_key = |reason: String| TlsError::Key { field: key_field, reason };
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| {
        wrong_key(match error {
            pem::Error::NoItemsFound if key.contains("ENCRYPTED") => "it is encrypted; store it decrypted".to_owned(),
            error => outer_form(&error),
        })
    })?;
    let signing = provider().key_provider.load_private_key(key);
    let signing = signing.map_err(|_| {
        wrong_key("RSA (2048 to 8192 bits), ECDSA (P-256, P-384, P-521) and Ed25519 keys are".to_owned())
    })?;
    let made = CertifiedKey::new(chain, signing);
    match made.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(made)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch { cert: cert_field, key: key_field }),
        Err(error) => Err(TlsError::Certificate { field: cert_field, reason: error.to_string() }),
    }
}

fn outer_form(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "there is no '-----BEGIN ...-----' of the right kind".to_owned(),
        pem::Error::MissingSectionEnd { .. } => "an '-----END ...-----' is missing".to_owned(),
        pem::Error::Base64Decode(_) => "what stands between BEGIN and END is not base64".to_owned(),
        _ => "it is not in PEM form".to_owned(),
    }
}

fn kind(key: &CertifiedKey) -> &'static str {
    match key.key.algorithm() {
        SignatureAlgorithm::RSA => "RSA",
        SignatureAlgorithm::ECDSA => "ECDSA",
        _ => "EdDSA",
    }
}
