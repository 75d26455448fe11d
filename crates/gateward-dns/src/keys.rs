//! The file of TSIG keys: `name: {algorithm: hmac-sha256, secret: BASE64}`, readable by the server's user alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use gateward_model::Secret;
use gateward_yaml::{Node, parse_yaml};
use gateward_zone::Name;

use crate::folder::{PRIVATE, Stamp, read_stamped, remove_durably, replace_durably};
use crate::tsig::{Algorithm, Key, Keys};

/// Longest name or secret of a key in the file.
const MAX_TEXT: usize = 4_096;

/// The keys, and the file that they are kept in.
pub struct KeyFile {
    path: PathBuf,
    keys: ArcSwap<Keys>,
    held: Mutex<Held>,
}

/// What the file held when it was read or written, and how it looked then.
struct Held {
    entries: BTreeMap<Name, Entry>,
    stamp: Option<Stamp>,
}

#[derive(Clone)]
struct Entry {
    algorithm: Algorithm,
    secret: Secret,
}

impl KeyFile {
    /// Reads the file; there are no keys when it is not there.
    ///
    /// # Errors
    /// Everything that is wrong in it, with its line; never a secret.
    pub fn open(path: PathBuf) -> Result<Self, String> {
        let held = read(&path)?;
        let keys = keys_of(&held.entries)?;
        Ok(KeyFile { path, keys: ArcSwap::from_pointee(keys), held: Mutex::new(held) })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys as they are now.
    #[must_use]
    pub fn keys(&self) -> Arc<Keys> {
        self.keys.load_full()
    }

    /// Names and algorithms, by name.
    #[must_use]
    pub fn list(&self) -> Vec<(Name, Algorithm)> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.entries.iter().map(|(name, entry)| (name.clone(), entry.algorithm)).collect()
    }

    /// Reads the file again. When something is wrong with it, the keys stay as they are.
    pub fn reload(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.take(&mut held) {
            tracing::error!(file = %self.path.display(), error, "the keys stay as they were");
        }
    }

    /// What the file says holds from now on.
    fn take(&self, held: &mut Held) -> Result<(), String> {
        let new = read(&self.path)?;
        self.keys.store(Arc::new(keys_of(&new.entries)?));
        *held = new;
        Ok(())
    }

    /// Adds or replaces a key; in the file before in use.
    ///
    /// # Errors
    /// It is no key, or the file cannot be written.
    pub fn put(&self, name: Name, algorithm: &str, secret: &str) -> Result<(), String> {
        let algorithm: Algorithm = algorithm.parse().map_err(|error: crate::tsig::KeyError| error.to_string())?;
        Key::from_base64(name.clone(), algorithm, secret).map_err(|error| error.to_string())?;
        self.change(|entries| {
            entries.insert(name, Entry { algorithm, secret: Secret::new(secret.trim()) });
            true
        })
        .map(drop)
    }

    /// Takes a key away; whether there was one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remove(&self, name: &Name) -> Result<bool, String> {
        self.change(|entries| entries.remove(name).is_some())
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Name, Entry>) -> bool) -> Result<bool, String> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if Stamp::of(&self.path) != held.stamp {
            // Somebody edited it: what is written below must have that, too.
            self.take(&mut held)
                .map_err(|error| format!("the file of keys was edited; put it right first: {error}"))?;
        }
        let mut next = held.entries.clone();
        if !change(&mut next) {
            return Ok(false);
        }
        let keys = keys_of(&next)?;
        let failed = |error: io::Error| format!("{}: {error}", self.path.display());
        let stamp = if next.is_empty() {
            remove_durably(&self.path).map_err(failed)?;
            None
        } else {
            let is_as_read = |stamp: Option<Stamp>| stamp == held.stamp;
            let written = replace_durably(&self.path, rendered(&next).as_bytes(), PRIVATE, is_as_read);
            let again = || "the file of keys was edited at the same moment; try again".to_owned();
            Some(written.map_err(failed)?.ok_or_else(again)?)
        };
        *held = Held { entries: next, stamp };
        self.keys.store(Arc::new(keys));
        Ok(true)
    }
}

fn rendered(entries: &BTreeMap<Name, Entry>) -> String {
    let mut text = String::from("# TSIG keys; written by gateward dns.\n");
    for (name, entry) in entries {
        let secret = entry.secret.expose();
        writeln!(text, "\"{}\": {{algorithm: {}, secret: \"{secret}\"}}", escaped(name), entry.algorithm)
            .expect("strings take everything");
    }
    text
}

/// A name within double quotes of YAML.
fn escaped(name: &Name) -> String {
    name.to_string().trim_end_matches('.').replace('\\', "\\\\").replace('"', "\\\"")
}

fn keys_of(entries: &BTreeMap<Name, Entry>) -> Result<Keys, String> {
    let key = |(name, entry): (&Name, &Entry)| Key::from_base64(name.clone(), entry.algorithm, entry.secret.expose());
    entries.iter().map(key).collect::<Result<Keys, _>>().map_err(|error| error.to_string())
}

fn read(path: &Path) -> Result<Held, String> {
    let file = path.display();
    let (text, stamp) = match read_stamped(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Held { entries: BTreeMap::new(), stamp: None });
        }
        read => read.map_err(|error| format!("{file}: {error}"))?,
    };
    let stamp = Some(stamp);
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!(%file, mode = format!("{:o}", mode & 0o777), "others can read the keys; chmod 600 the file");
    }
    let at = |node: &Node, message: &str| format!("{file}:{}: {message}", node.position.line);
    let root = parse_yaml(&text).map_err(|error| format!("{file}:{}: {}", error.position.line, error.message))?;
    if root.is_null() {
        return Ok(Held { entries: BTreeMap::new(), stamp });
    }
    let mut entries = BTreeMap::new();
    let mut errors = Vec::new();
    for (key, node) in root.as_map().ok_or_else(|| at(&root, "expected a map of key names"))? {
        match entry(&key.text, node) {
            Ok((name, entry)) => _ = entries.insert(name, entry),
            Err(error) => errors.push(at(node, &error)),
        }
    }
    if errors.is_empty() { Ok(Held { entries, stamp }) } else { Err(errors.join("\n")) }
}

fn entry(name: &str, node: &Node) -> Result<(Name, Entry), String> {
    let text = |field: &str| {
        let text = node.get(field).and_then(Node::as_str).filter(|text| text.len() <= MAX_TEXT);
        text.ok_or_else(|| {
            format!("key {name}: '{field}' must be a text; write {{algorithm: hmac-sha256, secret: BASE64}}")
        })
    };
    let (algorithm, secret) = (text("algorithm")?, text("secret")?);
    let name: Name = name.parse().map_err(|error| format!("'{name}' is not the name of a key: {error}"))?;
    let algorithm = algorithm.parse::<Algorithm>().map_err(|error| error.to_string())?;
    Key::from_base64(name.clone(), algorithm, secret).map_err(|error| error.to_string())?;
    Ok((name, Entry { algorithm, secret: Secret::new(secret) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_in_a_file_of_their_own() {
        let dir = std::env::temp_dir().join(format!("gateward-keys-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("keys.yaml");
        let file = KeyFile::open(path.clone()).unwrap();
        let name: Name = r"odd\032name.example".parse().unwrap();
        file.put(name.clone(), "hmac-sha512", "c2VjcmV0").unwrap();
        file.put("b".parse().unwrap(), "hmac-md5", "c2VjcmV0").unwrap();
        assert!(file.put("c".parse().unwrap(), "hmac-sha1", "***").is_err());
        assert!(file.put("c".parse().unwrap(), "rot13", "c2VjcmV0").is_err());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
        let again = KeyFile::open(path.clone()).unwrap();
        assert_eq!(again.list(), file.list());
        assert!(again.keys().find(&name).is_some_and(|key| key.algorithm() == Algorithm::HmacSha512));
        assert_eq!((again.remove(&name), again.remove(&name)), (Ok(true), Ok(false)));
        // Somebody edits the file, and a key comes over the API before anybody looked.
        std::fs::write(
            &path,
            "b: {algorithm: hmac-md5, secret: c2VjcmV0}\nedited: {algorithm: hmac-sha256, secret: c2VjcmV0}\n",
        )
        .unwrap();
        again.put("c".parse().unwrap(), "hmac-sha256", "c2VjcmV0").unwrap();
        assert_eq!(KeyFile::open(path.clone()).unwrap().list().len(), 3, "the edit is not lost");
        std::fs::write(&path, "b: {algorithm: hmac-sha256, secret: '***'}\nc: 7\n").unwrap();
        again.reload();
        assert_eq!(again.list().len(), 3, "a bad file changes nothing");
        assert!(again.remove(&"b".parse().unwrap()).unwrap_err().contains("edited"), "nor is it overwritten");
        let errors = KeyFile::open(path).err().unwrap();
        assert!(errors.contains("keys.yaml:1:") && errors.contains("keys.yaml:2:"), "{errors}");
        assert!(!errors.contains("***"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
