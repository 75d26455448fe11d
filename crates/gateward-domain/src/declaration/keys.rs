//! TSIG keys: their names and algorithms, and where their secrets come from. A declaration holds no secret.

use std::collections::BTreeMap;

use gateward_yaml::{Path, quote};
use gateward_zone::Name;
use serde::{Deserialize, Serialize};

use super::reader::{At, Report};

/// A TSIG key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// How messages are signed.
    pub algorithm: Algorithm,
    /// Where its secret comes from.
    pub secret: SecretSource,
}

/// Algorithms of TSIG that a new key may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// cert-manager's and external-dns's common ground.
    HmacSha256,
    /// RFC 8945.
    HmacSha384,
    /// RFC 8945.
    HmacSha512,
    /// For old clients only.
    HmacSha1,
}

impl Algorithm {
    /// As in RFC 8945, 6.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::HmacSha256 => "hmac-sha256",
            Algorithm::HmacSha384 => "hmac-sha384",
            Algorithm::HmacSha512 => "hmac-sha512",
            Algorithm::HmacSha1 => "hmac-sha1",
        }
    }
}

const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("hmac-sha256", Algorithm::HmacSha256),
    ("hmac-sha384", Algorithm::HmacSha384),
    ("hmac-sha512", Algorithm::HmacSha512),
    ("hmac-sha1", Algorithm::HmacSha1),
];

/// Where a secret is found when a plan is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    /// It is made when the key is, and written to a file.
    Generate,
    /// In an environment variable.
    Env(String),
    /// In a file.
    File(String),
}

const KEY: &[&str] = &["algorithm", "secret"];

/// Reads `keys`.
pub(super) fn keys(at: At<'_>, report: &mut Report) -> BTreeMap<String, Key> {
    let mut keys = BTreeMap::new();
    for (name, node) in at.entries(report) {
        let path = Path::Key(at.path, &name.text);
        let at = At::new(node, &path);
        let fields = at.fields(KEY, report);
        let parsed = name.text.parse::<Name>();
        if !parsed.is_ok_and(|parsed| !parsed.is_root())
            || name.text.ends_with('.')
            || name.text.to_lowercase() != name.text
        {
            let message = "the name of a key has the form of a domain name in lower case, without a dot at its end";
            report.add(name.position, &path, message);
        }
        let algorithm = fields.read("algorithm", |at| at.word(ALGORITHMS, report));
        let secret = fields.read("secret", |at| secret_source(at, report));
        let key = Key {
            algorithm: algorithm.unwrap_or(Algorithm::HmacSha256),
            secret: secret.unwrap_or(SecretSource::Generate),
        };
        keys.insert(name.text.clone(), key);
    }
    keys
}

/// `generate`, `env:NAME` or `file:PATH`.
pub(super) fn secret_source(at: At<'_>, report: &mut Report) -> Option<SecretSource> {
    let text = at.text(report)?;
    let source = match text.split_once(':') {
        None if text == "generate" => Some(SecretSource::Generate),
        Some(("env", name)) if !name.is_empty() => Some(SecretSource::Env(name.to_owned())),
        Some(("file", path)) if !path.is_empty() => Some(SecretSource::File(path.to_owned())),
        _ => None,
    };
    if source.is_none() {
        // What is here may be the secret itself: it is not repeated.
        at.fail(report, "a secret is not written here; say where it is: generate, env:NAME or file:PATH");
    }
    source
}

/// A key's name that `keys` must know.
pub(super) fn known_key(at: At<'_>, keys: &BTreeMap<String, Key>, report: &mut Report) -> Option<String> {
    let name = at.text(report)?;
    if !keys.contains_key(name) {
        let hint = gateward_yaml::did_you_mean(name, keys.keys().map(String::as_str));
        at.fail(report, format!("there is no key '{}' under keys{hint}", quote(name)));
        return None;
    }
    Some(name.to_owned())
}
