//! Secrets of keys: from where the declaration says, or made here and written to a file that only its owner reads.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateward_domain::Secrets;
use gateward_domain::declaration::SecretSource;
use gateward_model::Secret;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Octets of a secret that is made: as many as the longest usual digest has (RFC 8945, 8).
const SECRET_OCTETS: usize = 64;

/// The secrets of one declaration.
pub(super) struct FileSecrets<'a> {
    /// What file names in the declaration are relative to.
    pub(super) folder: &'a Path,
    /// Where secrets that are made are written.
    pub(super) keys_dir: Option<&'a Path>,
    /// The algorithm of a key, for its file.
    pub(super) algorithm: &'a dyn Fn(&str) -> &'static str,
}

/// The secret that a variable or a file holds.
///
/// # Errors
/// A text for the user.
pub(super) fn find(source: &SecretSource, folder: &Path) -> Result<Secret, String> {
    let text = match source {
        SecretSource::Env(name) => std::env::var(name).map_err(|_| format!("the variable {name} is not set"))?,
        SecretSource::File(path) => {
            let path = folder.join(path);
            std::fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?
        }
        SecretSource::Generate => return Err("it cannot be made here; say env:NAME or file:PATH".to_owned()),
    };
    let text = text.trim();
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(Secret::new(text)) }
}

impl Secrets for FileSecrets<'_> {
    fn secret(&self, key: &str, source: &SecretSource) -> Result<Secret, String> {
        if *source == SecretSource::Generate {
            return self.generate(key);
        }
        let secret = find(source, self.folder)?;
        match STANDARD.decode(secret.expose()) {
            Ok(octets) if !octets.is_empty() => Ok(secret),
            _ => Err("it is not Base64".to_owned()),
        }
    }
}

impl FileSecrets<'_> {
    /// A new secret, or the one that an earlier run made.
    fn generate(&self, key: &str) -> Result<Secret, String> {
        let folder = self.keys_dir.ok_or("it is to be made here; say where it is kept with --keys-dir DIR")?;
        let path = folder.join(format!("{key}.key"));
        let failed = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let mut octets = [0; SECRET_OCTETS];
        getrandom::fill(&mut octets).map_err(|error| format!("no randomness: {error}"))?;
        let secret = Secret::new(STANDARD.encode(octets));
        let mut file = match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return kept(&path),
            Err(error) => return Err(failed(error)),
        };
        let text = key_file(key, (self.algorithm)(key), &secret);
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(secret)
    }
}

/// As nsupdate, dig and named read it.
fn key_file(key: &str, algorithm: &str, secret: &Secret) -> String {
    format!("key \"{key}\" {{\n\talgorithm {algorithm};\n\tsecret \"{}\";\n}};\n", secret.expose())
}

/// The secret in a key file.
fn kept(path: &PathBuf) -> Result<Secret, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let secret = text.split_once("secret \"").and_then(|(_, rest)| rest.split_once('"')).map(|(secret, _)| secret);
    let secret = secret.filter(|secret| STANDARD.decode(secret).is_ok_and(|octets| !octets.is_empty()));
    secret.map(Secret::new).ok_or_else(|| format!("{} is there and holds no key", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_are_read_back() {
        let folder = std::env::temp_dir().join(format!("gateward-keys-{}", std::process::id()));
        let algorithm = |_: &str| "hmac-sha256";
        let secrets = FileSecrets { folder: Path::new(""), keys_dir: Some(&folder), algorithm: &algorithm };
        let made = secrets.secret("a.b", &SecretSource::Generate).unwrap();
        assert_eq!(STANDARD.decode(made.expose()).unwrap().len(), SECRET_OCTETS);
        assert_eq!(secrets.secret("a.b", &SecretSource::Generate), Ok(made), "a second run takes what is there");
        std::fs::write(folder.join("a.b.key"), "nothing").unwrap();
        assert!(secrets.secret("a.b", &SecretSource::Generate).unwrap_err().ends_with("holds no key"));
        std::fs::remove_dir_all(&folder).unwrap();
        let nowhere = FileSecrets { keys_dir: None, ..secrets };
        assert!(nowhere.secret("a.b", &SecretSource::Generate).unwrap_err().contains("--keys-dir"));
    }
}
