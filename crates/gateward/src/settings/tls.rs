//! Settings of TLS: files, versions, cipher suites, and who is verified.

use crate::settings::resolve::Reader;
use crate::settings::values;
use gateward_net::tls::{Authorities, ClientVerify, TlsSettings, is_suite};
use std::path::PathBuf;

/// Most files of one list.
const FILES: usize = 8;

/// Read them all.
pub(super) fn read(reader: &mut Reader<'_>) -> TlsSettings {
    let (versions, old) = reader.read("ssl-protocols", protocols);
    reader.warnings.extend(old);
    let (suites, unknown) = suites(reader);
    reader.warnings.extend(unknown);
    let modern = reader.read("ssl-cipher-suite", suite_of_suites) == Selection::Modern;
    let authorities: Vec<PathBuf> = reader.read("tls-client-ca", files);
    let settings = TlsSettings {
        certificates: certificates(reader),
        tls12: versions.tls12 && !modern,
        tls13: versions.tls13,
        suites,
        client_verify: reader.read("tls-client-verify", client_verify),
        client_authorities: authorities.into_iter().next(),
        upstream_verify: reader.read("tls-certificate-verify", values::switch),
        upstream_depth: reader.read("tls-verify-depth", depth),
        upstream_authorities: reader.read("trusted-certificate", trusted),
    };
    if settings.client_verify != ClientVerify::Off && settings.client_authorities.is_none() {
        let told = "--tls-client-verify: needs --tls-client-ca, a file with the authorities of clients' certificates";
        reader.errors.push(told.to_owned());
    }
    if reader.errors.is_empty() && !settings.tls12 && !settings.tls13 {
        reader.errors.push("--ssl-protocols and --ssl-cipher-suite leave no version of TLS".to_owned());
    }
    settings
}

fn certificates(reader: &mut Reader<'_>) -> Vec<(PathBuf, PathBuf)> {
    let (certs, keys): (Vec<PathBuf>, Vec<PathBuf>) =
        (reader.read("ssl-cert", files), reader.read("ssl-cert-key", files));
    if certs.len() != keys.len() {
        let (certs, keys) = (certs.len(), keys.len());
        reader.errors.push(format!("--ssl-cert names {certs} file(s) and --ssl-cert-key {keys}; each needs the other"));
    }
    certs.into_iter().zip(keys).collect()
}

fn files(text: &str) -> Result<Vec<PathBuf>, String> {
    let files: Vec<PathBuf> = list(text, &[',']).map(PathBuf::from).collect();
    if files.len() > FILES { Err(format!("more than {FILES} files")) } else { Ok(files) }
}

fn list<'a>(text: &'a str, separators: &'a [char]) -> impl Iterator<Item = &'a str> {
    text.split(separators).map(str::trim).filter(|entry| !entry.is_empty())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Versions {
    tls12: bool,
    tls13: bool,
}

/// nginx's list of versions; the old ones are known and not spoken.
fn protocols(text: &str) -> Result<(Versions, Vec<String>), String> {
    let (mut versions, mut warnings) = (Versions::default(), Vec::new());
    for version in list(text, &[' ', ',']) {
        match version {
            "TLSv1.2" => versions.tls12 = true,
            "TLSv1.3" => versions.tls13 = true,
            "SSLv2" | "SSLv3" | "TLSv1" | "TLSv1.1" => {
                warnings
                    .push(format!("--ssl-protocols: {version} is broken and not spoken; clients need TLS 1.2 or 1.3"));
            }
            other => return Err(format!("'{other}' is not a version of TLS; use TLSv1.2 and TLSv1.3")),
        }
    }
    Ok((versions, warnings))
}

/// Kong's `ssl_cipher_suite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Selection {
    Modern,
    #[default]
    All,
    Custom,
}

fn suite_of_suites(text: &str) -> Result<Selection, String> {
    match text.trim() {
        "modern" => Ok(Selection::Modern),
        "intermediate" | "old" | "fips" => Ok(Selection::All),
        "custom" => Ok(Selection::Custom),
        other => Err(format!("'{other}' is none of modern, intermediate, old, custom")),
    }
}

/// The list of `ssl-ciphers` when it counts, and what of it is not spoken.
fn suites(reader: &mut Reader<'_>) -> (Vec<String>, Vec<String>) {
    if reader.read("ssl-cipher-suite", suite_of_suites) != Selection::Custom {
        return (Vec::new(), Vec::new());
    }
    let (known, unknown) = reader.read("ssl-ciphers", ciphers);
    if known.is_empty() {
        let told = "--ssl-ciphers: none of these can be spoken; see docs/guide/tls.md for those that can";
        reader.errors.push(told.to_owned());
    }
    let names = unknown.join(", ");
    let warning = (!unknown.is_empty()).then(|| format!("--ssl-ciphers: not spoken and left out: {names}"));
    (known, warning.into_iter().collect())
}

/// OpenSSL's colon-separated list: those that can be spoken, and those that cannot.
fn ciphers(text: &str) -> Result<(Vec<String>, Vec<String>), String> {
    Ok(list(text, &[':', ',', ' ']).map(str::to_owned).partition(|name| is_suite(name)))
}

fn client_verify(text: &str) -> Result<ClientVerify, String> {
    match text.trim() {
        "off" => Ok(ClientVerify::Off),
        "request" => Ok(ClientVerify::Request),
        "require" => Ok(ClientVerify::Require),
        other => Err(format!("'{other}' is none of off, request, require")),
    }
}

fn depth(text: &str) -> Result<u8, String> {
    let depth = text.trim().parse().ok().filter(|depth| *depth <= 64);
    depth.ok_or_else(|| format!("'{text}' is not a number from 0 to 64"))
}

/// `system` and files, as Kong's `lua_ssl_trusted_certificate`.
fn trusted(text: &str) -> Result<Vec<Authorities>, String> {
    let source = |entry: &str| match entry {
        "system" => Authorities::System,
        path => Authorities::File(path.into()),
    };
    let sources: Vec<Authorities> = list(text, &[',']).map(source).collect();
    if sources.len() > FILES { Err(format!("more than {FILES} entries")) } else { Ok(sources) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::resolve::{Options, resolve};
    use crate::settings::sources::Given;

    fn check(environment: &[(&str, &str)]) -> Result<Options, Vec<String>> {
        resolve(&Given::of(&[], environment))
    }

    #[test]
    fn kongs_settings_are_understood() {
        let options = check(&[
            ("KONG_SSL_CERT", "/a.crt,/b.crt"),
            ("KONG_SSL_CERT_KEY", "/a.key,/b.key"),
            ("KONG_SSL_PROTOCOLS", "TLSv1.1 TLSv1.2"),
            ("KONG_SSL_CIPHER_SUITE", "custom"),
            ("KONG_SSL_CIPHERS", "ECDHE-RSA-AES128-GCM-SHA256:DES-CBC3-SHA"),
            ("KONG_TLS_CERTIFICATE_VERIFY", "on"),
            ("KONG_LUA_SSL_TRUSTED_CERTIFICATE", "system,/ca.pem"),
            ("KONG_LUA_SSL_VERIFY_DEPTH", "3"),
        ])
        .unwrap();
        let tls = &options.data_plane.tls;
        assert_eq!(tls.certificates, [("/a.crt".into(), "/a.key".into()), ("/b.crt".into(), "/b.key".into())]);
        assert!(tls.tls12 && !tls.tls13 && tls.upstream_verify);
        assert_eq!(tls.suites, ["ECDHE-RSA-AES128-GCM-SHA256"]);
        assert_eq!(tls.upstream_authorities, [Authorities::System, Authorities::File("/ca.pem".into())]);
        assert_eq!(tls.upstream_depth, 3);
        assert!(options.warnings.iter().any(|it| it.contains("TLSv1.1")), "{:?}", options.warnings);
        assert!(options.warnings.iter().any(|it| it.contains("DES-CBC3-SHA")), "{:?}", options.warnings);
        let modern = check(&[("KONG_SSL_CIPHER_SUITE", "modern")]).unwrap();
        assert!(!modern.data_plane.tls.tls12 && modern.data_plane.tls.tls13);
    }

    #[test]
    fn what_cannot_work_is_a_mistake() {
        for environment in [
            &[("KONG_SSL_CERT", "/a.crt")][..],
            &[("KONG_SSL_PROTOCOLS", "TLSv1.4")],
            &[("KONG_SSL_PROTOCOLS", "TLSv1.1")],
            &[("KONG_SSL_PROTOCOLS", "TLSv1.2"), ("KONG_SSL_CIPHER_SUITE", "modern")],
            &[("KONG_SSL_CIPHER_SUITE", "custom"), ("KONG_SSL_CIPHERS", "DES-CBC3-SHA")],
            &[("GATEWARD_TLS_CLIENT_VERIFY", "require")],
            &[("GATEWARD_TLS_CLIENT_VERIFY", "maybe")],
            &[("KONG_LUA_SSL_VERIFY_DEPTH", "65")],
        ] {
            assert_eq!(check(environment).map(|_| ()).unwrap_err().len(), 1, "{environment:?}");
        }
    }
}
