//! What a plugin wants otherwise than the service says, for one request.

use crate::{Exchange, Scheme};
use gateward_model::Secret;
use sha2::{Digest, Sha256};
use std::fmt::Debug;
use std::rc::Rc;

/// `None`: as the service says.
#[derive(Debug, Clone, Default)]
pub struct Detour {
    /// Host and port to go to, past the balancer.
    pub target: Option<(String, u16)>,
    /// Name of the upstream whose targets are balanced over.
    pub upstream: Option<String>,
    /// With or without TLS.
    pub scheme: Option<Scheme>,
    /// Tries after the first.
    pub retries: Option<u16>,
    /// Milliseconds to connect, between two writes and between two reads.
    pub timeouts_ms: Option<[u32; 3]>,
    /// Verify the upstream's certificate.
    pub tls_verify: Option<bool>,
    /// Most intermediate certificates.
    pub tls_verify_depth: Option<u8>,
    /// What its certificate is verified against.
    pub tls_authorities: Option<Rc<TlsAuthorities>>,
    /// The certificate that the upstream is shown.
    pub tls_identity: Option<Rc<TlsIdentity>>,
    /// Asked before a try that follows a failed one, where no upstream is balanced over.
    pub before_retry: Option<Rc<dyn BeforeRetry>>,
}

/// Says where the next try goes.
pub trait BeforeRetry: Debug {
    /// Change what `exchange` has of the way to the upstream; whether the next try goes by it.
    fn ask(&self, exchange: &mut Exchange) -> bool;
}

/// Certificates to verify an upstream against, and what tells them from others.
#[derive(Debug)]
pub struct TlsAuthorities {
    /// In PEM.
    certs: Vec<String>,
    with_trusted: bool,
    fingerprint: [u8; 32],
}

impl TlsAuthorities {
    /// These, in PEM; `with_trusted`: and those that the process trusts.
    pub fn new(certs: Vec<String>, with_trusted: bool) -> Self {
        let fingerprint = fingerprint(certs.iter().map(String::as_str).chain([if with_trusted { "+" } else { "" }]));
        Self { certs, with_trusted, fingerprint }
    }

    /// The certificates, in PEM.
    pub fn certs(&self) -> &[String] {
        &self.certs
    }

    /// Whether those that the process trusts are among them.
    pub fn with_trusted(&self) -> bool {
        self.with_trusted
    }

    /// Equal for equal ones only.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

/// A certificate with its key, and what tells it from others.
#[derive(Debug)]
pub struct TlsIdentity {
    cert: String,
    key: Secret,
    fingerprint: [u8; 32],
}

impl TlsIdentity {
    /// Of PEM texts: the certificate with what belongs to it, leaf first, and the key.
    pub fn new(cert: String, key: Secret) -> Self {
        let fingerprint = fingerprint([cert.as_str(), key.expose()].into_iter());
        Self { cert, key, fingerprint }
    }

    /// The certificate, in PEM.
    pub fn cert(&self) -> &str {
        &self.cert
    }

    /// Its key, in PEM.
    pub fn key(&self) -> &Secret {
        &self.key
    }

    /// Equal for equal ones only.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

fn fingerprint<'t>(texts: impl Iterator<Item = &'t str>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for text in texts {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_in_anything_has_another_fingerprint() {
        let identity = |cert: &str, key: &str| TlsIdentity::new(cert.to_owned(), Secret::new(key)).fingerprint();
        assert_eq!(identity("a", "b"), identity("a", "b"));
        assert!(identity("a", "b") != identity("a", "c") && identity("ab", "") != identity("a", "b"));
        let authorities = |certs: &[&str], trusted| {
            TlsAuthorities::new(certs.iter().map(|&cert| cert.to_owned()).collect(), trusted).fingerprint()
        };
        assert_eq!(authorities(&["a"], false), authorities(&["a"], false));
        assert!(authorities(&["a"], false) != authorities(&["a"], true));
        assert!(authorities(&["ab"], false) != authorities(&["a", "b"], false));
    }

    #[test]
    fn keys_are_not_shown() {
        assert!(!format!("{:?}", TlsIdentity::new("cert".to_owned(), Secret::new("hidden"))).contains("hidden"));
    }
}
