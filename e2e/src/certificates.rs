//! An authority of the test's own, and certificates it signs.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
    SignatureAlgorithm, date_time_ymd,
};
use std::path::{Path, PathBuf};

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, in PEM form.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// When the system has no randomness.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        let pem = params.self_signed(&key).expect("a certificate can be made").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for `name` with an ECDSA key.
    ///
    /// # Panics
    /// When `name` is not a name.
    #[track_caller]
    pub fn issue(&self, name: &str) -> Issued {
        self.issue_with(name, &PKCS_ECDSA_P256_SHA256)
    }

    /// Likewise with an RSA key.
    ///
    /// # Panics
    /// When `name` is not a name.
    #[track_caller]
    pub fn issue_rsa(&self, name: &str) -> Issued {
        self.issue_with(name, &PKCS_RSA_SHA256)
    }

    /// Likewise with an ECDSA key, valid in these years, from the first of January to the first of January.
    ///
    /// # Panics
    /// When `name` is not a name.
    #[track_caller]
    pub fn issue_for_years(&self, name: &str, years: std::ops::Range<i32>) -> Issued {
        let mut params = params(name);
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        self.sign(&params, &PKCS_ECDSA_P256_SHA256)
    }

    #[track_caller]
    fn issue_with(&self, name: &str, algorithm: &'static SignatureAlgorithm) -> Issued {
        self.sign(&params(name), algorithm)
    }

    fn sign(&self, params: &CertificateParams, algorithm: &'static SignatureAlgorithm) -> Issued {
        let key = KeyPair::generate_for(algorithm).expect("a key can be made");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate can be made").pem();
        Issued { cert, key: key.serialize_pem() }
    }
}

#[track_caller]
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Issued {
    /// Write `name.crt` and `name.key` into `dir`.
    ///
    /// # Panics
    /// When they cannot be written.
    #[track_caller]
    pub fn write(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        std::fs::write(&cert, &self.cert).expect("files can be written");
        std::fs::write(&key, &self.key).expect("files can be written");
        (cert, key)
    }

    /// As an entry of `certificates`, for these server names.
    pub fn entity(&self, snis: &[&str]) -> String {
        let snis: String = snis.iter().map(|sni| format!("  - name: '{sni}'\n")).collect();
        format!("- cert: |\n{}  key: |\n{}  snis:\n{snis}", indented(&self.cert), indented(&self.key))
    }

    /// Likewise with a second pair of another kind.
    pub fn entity_with(&self, other: &Self, snis: &[&str]) -> String {
        let alternative = format!("  cert_alt: |\n{}  key_alt: |\n{}", indented(&other.cert), indented(&other.key));
        format!("{}{alternative}", self.entity(snis))
    }
}

/// A PEM text as the lines of a YAML block.
pub fn indented(pem: &str) -> String {
    pem.lines().map(|line| format!("    {line}\n")).collect()
}
