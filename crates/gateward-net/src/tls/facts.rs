//! What a handshake came to, in the words of nginx's variables.

use super::settings::suite_name;
use rustls::pki_types::CertificateDer;
use rustls::{Connection, HandshakeKind, ProtocolVersion};
use sha2::{Digest, Sha256};
use std::fmt::Write;
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
    /// The client's certificate, which was verified. On connections to upstreams: none.
    pub client: Option<PeerCertificate>,
}

/// A verified certificate.
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
}

impl Facts {
    pub(crate) fn of(connection: &Connection) -> Self {
        let (sni, client) = match connection {
            Connection::Server(server) => {
                let leaf = server.peer_certificates().and_then(<[_]>::first);
                (server.server_name().map(|name| name.to_ascii_lowercase().into()), leaf.map(PeerCertificate::of))
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

impl PeerCertificate {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let fingerprint = hex(&Sha256::digest(certificate), false);
        // It was verified, so it parses; what another parser will not read shows as empty.
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return Self { subject: String::new(), issuer: String::new(), serial: String::new(), fingerprint };
        };
        Self {
            subject: distinguished_name(parsed.subject()),
            issuer: distinguished_name(parsed.issuer()),
            serial: hex(parsed.raw_serial(), true),
            fingerprint,
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
        let described = PeerCertificate::of(params.self_signed(&key).unwrap().der());
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
