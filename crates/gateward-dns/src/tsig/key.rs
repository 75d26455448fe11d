//! Keys: a name, an algorithm, and a secret that does not show.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gateward_zone::Name;

/// How messages are authenticated (RFC 8945, 6).
///
/// MD5 and SHA-1 are broken as hashes but not as HMACs; MD5 is cert-manager's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `hmac-md5.sig-alg.reg.int`
    HmacMd5,
    /// `hmac-sha1`
    HmacSha1,
    /// `hmac-sha224`
    HmacSha224,
    /// `hmac-sha256`
    HmacSha256,
    /// `hmac-sha384`
    HmacSha384,
    /// `hmac-sha512`
    HmacSha512,
}

const ALGORITHMS: [(Algorithm, &str, usize); 6] = [
    (Algorithm::HmacMd5, "hmac-md5.sig-alg.reg.int", 16),
    (Algorithm::HmacSha1, "hmac-sha1", 20),
    (Algorithm::HmacSha224, "hmac-sha224", 28),
    (Algorithm::HmacSha256, "hmac-sha256", 32),
    (Algorithm::HmacSha384, "hmac-sha384", 48),
    (Algorithm::HmacSha512, "hmac-sha512", 64),
];

impl Algorithm {
    /// As text without the last dot, the way key files write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        ALGORITHMS[self as usize].1
    }

    /// Octets of an authentication code.
    #[must_use]
    pub fn mac_len(self) -> usize {
        ALGORITHMS[self as usize].2
    }

    /// As it stands in messages.
    #[must_use]
    pub fn name(self) -> Name {
        self.as_str().parse().expect("the table holds names")
    }

    /// The algorithm of that name.
    #[must_use]
    pub fn from_name(name: &Name) -> Option<Self> {
        ALGORITHMS.iter().map(|row| row.0).find(|algorithm| algorithm.name() == *name)
    }

    /// The shortest code anybody may send: ten octets or half of the whole (RFC 8945, 5.2.2.1).
    pub(super) fn shortest_mac(self) -> usize {
        self.mac_len().div_ceil(2).max(10)
    }
}

impl FromStr for Algorithm {
    type Err = KeyError;

    /// `hmac-md5` is short for its long name; case and a last dot do not matter.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let lower = text.trim_end_matches('.').to_ascii_lowercase();
        ALGORITHMS
            .iter()
            .find(|(algorithm, name, _)| *name == lower || (*algorithm == Algorithm::HmacMd5 && lower == "hmac-md5"))
            .map(|row| row.0)
            .ok_or_else(|| KeyError::Algorithm(text.to_owned()))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why something is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// An algorithm that does not exist.
    #[error(
        "unknown TSIG algorithm {0:?}; there are hmac-md5, hmac-sha1, hmac-sha224, hmac-sha256, hmac-sha384 and hmac-sha512"
    )]
    Algorithm(String),
    /// A secret that is not base64.
    #[error("the secret of key {0} is not base64")]
    Base64(Name),
    /// A secret of no octets.
    #[error("the secret of key {0} is empty")]
    Empty(Name),
    /// A shortest code above or below what the algorithm allows.
    #[error("authentication codes of key {name} must have {shortest} to {longest} octets")]
    MacLen {
        /// The key's name.
        name: Name,
        /// Octets of the shortest code.
        shortest: usize,
        /// Octets of the whole code.
        longest: usize,
    },
}

/// A key that two servers share.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    name: Name,
    algorithm: Algorithm,
    secret: Box<[u8]>,
    /// Shorter codes are refused.
    shortest_mac: usize,
}

impl Key {
    /// A key from its parts.
    ///
    /// # Errors
    /// [`KeyError::Empty`].
    pub fn new(name: Name, algorithm: Algorithm, secret: impl Into<Box<[u8]>>) -> Result<Self, KeyError> {
        let secret = secret.into();
        if secret.is_empty() {
            return Err(KeyError::Empty(name));
        }
        Ok(Key { name, algorithm, secret, shortest_mac: algorithm.mac_len() })
    }

    /// A key whose secret is text in base64, as key files have it.
    ///
    /// # Errors
    /// [`KeyError`]; its text does not repeat the secret.
    pub fn from_base64(name: Name, algorithm: Algorithm, secret: &str) -> Result<Self, KeyError> {
        match STANDARD.decode(secret.trim()) {
            Ok(octets) => Key::new(name, algorithm, octets),
            Err(_) => Err(KeyError::Base64(name)),
        }
    }

    /// Also accepts codes cut to `octets` or more (RFC 8945, 5.2.2.1). Without it they must be whole.
    ///
    /// # Errors
    /// [`KeyError::MacLen`] below half of the whole or 10, and above the whole.
    pub fn with_shortest_mac(mut self, octets: usize) -> Result<Self, KeyError> {
        let (shortest, longest) = (self.algorithm.shortest_mac(), self.algorithm.mac_len());
        if !(shortest..=longest).contains(&octets) {
            return Err(KeyError::MacLen { name: self.name, shortest, longest });
        }
        self.shortest_mac = octets;
        Ok(self)
    }

    /// The name both sides know it by.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Octets a signature with it adds to a message, at most.
    #[must_use]
    pub fn signature_len(&self) -> usize {
        // Fixed part of a record, fixed part of its data, and the server's time of BADTIME.
        self.name.as_wire().len() + 10 + self.algorithm.name().as_wire().len() + 16 + self.algorithm.mac_len() + 6
    }

    pub(super) fn secret(&self) -> &[u8] {
        &self.secret
    }

    pub(super) fn shortest_mac(&self) -> usize {
        self.shortest_mac
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} {} ***)", self.name, self.algorithm)
    }
}

/// The keys a server knows, by name.
#[derive(Debug, Clone, Default)]
pub struct Keys(HashMap<Name, Arc<Key>>);

impl Keys {
    /// Adds a key; one of the same name is replaced.
    pub fn insert(&mut self, key: Key) {
        self.0.insert(key.name.clone(), Arc::new(key));
    }

    /// Removes a key; tells whether there was one.
    pub fn remove(&mut self, name: &Name) -> bool {
        self.0.remove(name).is_some()
    }

    /// The key of that name.
    #[must_use]
    pub fn find(&self, name: &Name) -> Option<&Arc<Key>> {
        self.0.get(name)
    }

    /// All keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.0.values()
    }
}

impl FromIterator<Key> for Keys {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        let mut all = Keys::default();
        keys.into_iter().for_each(|key| all.insert(key));
        all
    }
}
