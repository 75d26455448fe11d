//! What the operator sets for TLS; Kong's names stand beside each.

use super::pem::provider;
use std::path::PathBuf;

/// Settings of TLS; fixed while the process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Files of the default certificate and its key, up to one pair per kind of key (`ssl_cert`, `ssl_cert_key`).
    /// Empty: one is made at the start.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// Speak TLS 1.2 (`ssl_protocols`).
    pub tls12: bool,
    /// Speak TLS 1.3.
    pub tls13: bool,
    /// OpenSSL names of the cipher suites for clients, in order (`ssl_ciphers`); empty: all that rustls has.
    pub suites: Vec<String>,
    /// Whether clients are asked for a certificate.
    pub client_verify: ClientVerify,
    /// Authorities of client certificates.
    pub client_authorities: Option<PathBuf>,
    /// Verify upstreams whose service does not say (`tls_certificate_verify`).
    pub upstream_verify: bool,
    /// Most intermediate certificates of an upstream's chain (`lua_ssl_verify_depth`).
    pub upstream_depth: u8,
    /// Who may have signed upstreams' certificates when the service does not say (`lua_ssl_trusted_certificate`).
    pub upstream_authorities: Vec<Authorities>,
}

/// Where authorities come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorities {
    /// The operating system's.
    System,
    /// A file of PEM certificates.
    File(PathBuf),
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientVerify {
    /// They are not.
    #[default]
    Off,
    /// They are, and may do without; one that cannot be verified ends the handshake.
    Request,
    /// They must have one.
    Require,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            tls12: true,
            tls13: true,
            suites: Vec::new(),
            client_verify: ClientVerify::Off,
            client_authorities: None,
            upstream_verify: false,
            upstream_depth: 1,
            upstream_authorities: vec![Authorities::System],
        }
    }
}

/// OpenSSL's name of a suite, which is what Kong's settings and nginx's `$ssl_cipher` show, and IANA's.
const SUITES: &[(&str, rustls::CipherSuite)] = {
    use rustls::CipherSuite as Id;
    &[
        ("TLS_AES_256_GCM_SHA384", Id::TLS13_AES_256_GCM_SHA384),
        ("TLS_AES_128_GCM_SHA256", Id::TLS13_AES_128_GCM_SHA256),
        ("TLS_CHACHA20_POLY1305_SHA256", Id::TLS13_CHACHA20_POLY1305_SHA256),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", Id::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", Id::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", Id::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
        ("ECDHE-RSA-AES256-GCM-SHA384", Id::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
        ("ECDHE-RSA-AES128-GCM-SHA256", Id::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
        ("ECDHE-RSA-CHACHA20-POLY1305", Id::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ]
};

/// Whether a suite of this OpenSSL name can be spoken.
pub fn is_suite(name: &str) -> bool {
    SUITES.iter().any(|(known, _)| *known == name)
}

/// OpenSSL's name.
pub(crate) fn suite_name(suite: rustls::CipherSuite) -> &'static str {
    SUITES.iter().find(|(_, known)| *known == suite).map_or("unknown", |(name, _)| name)
}

/// The suites of these names in their order. As in nginx, `ssl_ciphers` says nothing about TLS 1.3 unless it names a
/// suite of it.
pub(crate) fn suites(names: &[String]) -> Vec<rustls::SupportedCipherSuite> {
    let all = provider().cipher_suites.clone();
    if names.is_empty() {
        return all;
    }
    let by_name = |name: &String| all.iter().copied().find(|suite| suite_name(suite.suite()) == name);
    let mut chosen: Vec<_> = names.iter().filter_map(by_name).collect();
    if !chosen.iter().any(|suite| suite.tls13().is_some()) {
        chosen.splice(0..0, all.iter().copied().filter(|suite| suite.tls13().is_some()));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_a_name() {
        for suite in &provider().cipher_suites {
            assert_ne!(suite_name(suite.suite()), "unknown", "{suite:?}");
        }
    }

    #[test]
    fn a_list_keeps_its_order_and_tls_1_3() {
        let names = ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"].map(str::to_owned);
        let chosen: Vec<_> = suites(&names).iter().map(|suite| suite_name(suite.suite())).collect();
        assert_eq!(chosen[chosen.len() - 2..], names);
        assert!(chosen[0].starts_with("TLS_"));
        assert!(is_suite(&names[0]) && !is_suite("DES-CBC3-SHA"));
    }
}
