//! What a handshake came to, in the words of nginx's variables.

use super::settings::suite_name;
use rustls::pki_types::CertificateDer;
use rustls::{Connection, HandshakeKind, ProtocolVersion};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What is known of a TLS connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// OpenSSL's name of the cipher suite.
    pub cipher: &'static str,
    /// The server name the client asked for, in lower case.
    pub sni: Option<Box<str>>,
    /// The protocol agreed on by ALPN.
    pub alpn: Option<Box<[u8]>>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The client's certificate. On connections to upstreams: none.
    pub client: Option<PeerCertificate>,
}

/// A certificate that a client showed: it has its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Distinguished name of the subject (RFC 4514, most specific part first).
    pub subject: String,
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// Serial number in hex, capitals, as nginx's `$ssl_client_serial`.
    pub serial: String,
    /// SHA-256 of the certificate in hex.
    pub fingerprint: String,
    /// Whether it was verified. One that only a plugin had asked for was not.
    pub verified: bool,
    /// The certificate and what came with it, in DER.
    pub chain: Arc<[Box<[u8]>]>,
}

impl Facts {
    pub(crate) fn of(connection: &Connection) -> Self {
        let (sni, client) = match connection {
            Connection::Server(server) => {
                let shown = server.peer_certificates().and_then(PeerCertificate::of);
                (server.server_name().map(|name| name.to_ascii_lowercase().into()), shown)
            }
            Connection::Client(_) => (None, None),
        };
        Self {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            cipher: connection.negotiated_cipher_suite().map_or("unknown", |suite| suite_name(suite.suite())),
            sni,
            alpn: connection.alpn_protocol().map(Into::into),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            client,
        }
    }
}

impl Facts {
    /// Likewise where whatever the client showed was taken.
    pub(crate) fn unverified(connection: &Connection) -> Self {
        let mut facts = Self::of(connection);
        if let Some(client) = &mut facts.client {
            client.verified = false;
        }
        facts
    }
}

impl PeerCertificate {
    /// Of a chain that begins with it; `None`: it is empty.
    pub(crate) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let chain: Arc<[Box<[u8]>]> = chain.iter().map(|certificate| certificate.as_ref().into()).collect();
        Some(Self::first(chain.first()?, chain.clone()))
    }

    fn first(certificate: &[u8], chain: Arc<[Box<[u8]>]>) -> Self {
        let fingerprint = hex(&Sha256::digest(certificate), false);
        let verified = true;
        // Its signature was verified, so it parses; what another parser will not read shows as empty.
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            let (subject, issuer, serial) = (String::new(), String::new(), String::new());
            return Self { subject, issuer, serial, fingerprint, verified, chain };
        };
        Self {
            subject: distinguished_name(parsed.subject()),
            issuer: distinguished_name(parsed.issuer()),
            serial: hex(parsed.raw_serial(), true),
            fingerprint,
            verified,
            chain,
        }
    }
}

/// RFC 4514: the last part of the sequence comes first, values are escaped.
fn distinguished_name(name: &x509_parser::x509::X509Name<'_>) -> String {
    let registry = x509_parser::objects::oid_registry();
    let mut parts = Vec::new();
    for relative in name.iter() {
        let mut text = String::new();
        for attribute in relative.iter() {
            if !text.is_empty() {
                text.push('+');
            }
            let oid = attribute.attr_type();
            match x509_parser::objects::oid2abbrev(oid, registry) {
                Ok(short) => text.push_str(short),
                Err(_) => text.push_str(&oid.to_id_string()),
            }
            text.push('=');
            escape(attribute.as_str().unwrap_or_default(), &mut text);
        }
        parts.push(text);
    }
    parts.reverse();
    parts.join(",")
}

/// RFC 4514 section 2.4; control characters too, so that a name cannot break a log line or a header.
fn escape(value: &str, out: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', character]),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            '#' if at == 0 => out.push_str("\\#"),
            character if character.is_control() => {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\{byte:02X}");
                }
            }
            character => out.push(character),
        }
    }
}

fn hex(bytes: &[u8], capitals: bool) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = if capitals { write!(text, "{byte:02X}") } else { write!(text, "{byte:02x}") };
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_described() {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "A, B\n");
        params.distinguished_name.push(rcgen::DnType::CommonName, "ann");
        params.serial_number = Some(vec![0x0a, 0xff].into());
        let key = rcgen::KeyPair::generate().unwrap();
        let described = PeerCertificate::of(&[params.self_signed(&key).unwrap().der().clone()]).unwrap();
        assert_eq!(described.subject, "CN=ann,O=A\\, B\\0A");
        assert_eq!(described.issuer, described.subject);
        assert_eq!(described.serial, "0AFF");
        assert_eq!(described.fingerprint.len(), 64);
    }

    #[test]
    fn values_are_escaped() {
        for (value, expected) in
            [("a b", "a b"), (" a ", "\\ a\\ "), ("#1", "\\#1"), ("a\"<>;\\", "a\\\"\\<\\>\\;\\\\")]
        {
            let mut out = String::new();
            escape(value, &mut out);
            assert_eq!(out, expected);
        }
    }
}
