//! What a plugin brings for TLS with an upstream: authorities, and a certificate to show.

use gateward_model::Secret;
use sha2::{Digest, Sha256};

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
