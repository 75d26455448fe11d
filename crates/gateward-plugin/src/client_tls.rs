//! What plugins, logs and routes get to know about a client's TLS session. One value per connection.

use serde::Serialize;
use std::sync::Arc;

/// A client's TLS session, in the words of nginx's variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// OpenSSL's name of the cipher suite.
    pub cipher: &'static str,
    /// The server name the client asked for, in lower case.
    pub sni: Option<String>,
    /// The client's certificate.
    pub certificate: Option<ClientCertificate>,
}

/// A client's certificate. Unless `verified`, all that is known is that the client has its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Distinguished name of the subject (RFC 4514).
    pub subject: String,
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// Serial number in hex.
    pub serial: String,
    /// SHA-256 of the certificate in hex.
    pub fingerprint: String,
    /// Whether it was verified against the operator's authorities. One that only a plugin asked for was not.
    pub verified: bool,
    /// It and what the client sent with it, in DER.
    pub chain: Arc<[Box<[u8]>]>,
}

impl ClientTls {
    /// nginx's `$ssl_client_verify`: `NONE` without a certificate. One that the operator's authorities do not vouch for
    /// ends the handshake; `FAILED` is one that only a plugin asked for.
    pub fn client_verify(&self) -> &'static str {
        match &self.certificate {
            None => "NONE",
            Some(certificate) if certificate.verified => "SUCCESS",
            Some(_) => "FAILED:not verified",
        }
    }

    /// The certificate, if it was verified.
    pub fn verified(&self) -> Option<&ClientCertificate> {
        self.certificate.as_ref().filter(|certificate| certificate.verified)
    }
}

/// `request.tls` of Kong's log record (kong/pdk/log.lua), and who the client is.
#[derive(Serialize)]
pub(crate) struct TlsView<'a> {
    version: &'static str,
    cipher: &'static str,
    client_verify: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_subject: Option<&'a str>,
}

impl<'a> From<&'a ClientTls> for TlsView<'a> {
    fn from(tls: &'a ClientTls) -> Self {
        Self {
            version: tls.version,
            cipher: tls.cipher,
            client_verify: tls.client_verify(),
            client_subject: tls.verified().map(|certificate| certificate.subject.as_str()),
        }
    }
}
