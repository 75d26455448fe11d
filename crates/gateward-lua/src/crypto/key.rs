//! Keys of RSA (2048 to 8192 bits), the curves P-256, P-384 and P-521, and Ed25519: reading, making and writing them.

use super::{jwk, pem};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    self, KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512,
    OaepAlgorithm, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, Pkcs1PrivateDecryptingKey,
    Pkcs1PublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING,
    ECDSA_P521_SHA512_ASN1, ECDSA_P521_SHA512_ASN1_SIGNING, ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair, ParsedPublicKey, VerificationAlgorithm,
};

/// Most bytes of a text with a key in it; 8192 bits of RSA in PEM have some 7000, a chain of certificates more.
const TEXT: usize = 128 << 10;
/// Bytes of an Ed25519 public key in its outer form (RFC 8410).
const ED25519_DER: usize = 44;
/// The first byte of every key in DER.
const SEQUENCE: u8 = 0x30;

/// What a key is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl Kind {
    const CURVES: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// As JSON Web Keys call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rsa => "RSA",
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
            Self::Ed25519 => "Ed25519",
        }
    }

    /// What reads a private key on this curve.
    pub(super) fn signing(self) -> Option<&'static EcdsaSigningAlgorithm> {
        match self {
            Self::P256 => Some(&ECDSA_P256_SHA256_ASN1_SIGNING),
            Self::P384 => Some(&ECDSA_P384_SHA384_ASN1_SIGNING),
            Self::P521 => Some(&ECDSA_P521_SHA512_ASN1_SIGNING),
            Self::Rsa | Self::Ed25519 => None,
        }
    }

    /// What reads a public key on this curve.
    fn verifying(self) -> Option<&'static dyn VerificationAlgorithm> {
        match self {
            Self::P256 => Some(&ECDSA_P256_SHA256_ASN1),
            Self::P384 => Some(&ECDSA_P384_SHA384_ASN1),
            Self::P521 => Some(&ECDSA_P521_SHA512_ASN1),
            Self::Ed25519 => Some(&ED25519),
            Self::Rsa => None,
        }
    }
}

/// The form of a text with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Whichever it is.
    Any,
    Pem,
    Der,
    Jwk,
}

pub(super) enum Private {
    Rsa(rsa::KeyPair),
    /// PKCS #8.
    Ec(Vec<u8>),
    Ed25519(Ed25519KeyPair),
}

/// A key, with its private half or without.
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(super) private: Option<Private>,
    /// The public half as certificates have it.
    pub(super) public: Vec<u8>,
    /// Bits of an RSA modulus.
    modulus_bits: usize,
}

impl Key {
    /// The key in `text`.
    pub(crate) fn read(text: &[u8], form: Form) -> Result<Self, String> {
        if text.len() > TEXT {
            return Err(format!("a key has {} bytes at most, this text has {}", TEXT, text.len()));
        }
        #[cfg(test)]
        tests::READ.set(tests::READ.get() + 1);
        match form {
            Form::Pem => from_pem(text),
            Form::Der => from_der(text),
            Form::Jwk => jwk::read(text),
            Form::Any if text.first() == Some(&SEQUENCE) => from_der(text),
            Form::Any if text.trim_ascii_start().first() == Some(&b'{') => jwk::read(text),
            Form::Any => from_pem(text),
        }
    }

    /// The size of a new RSA key. Of others the library behind makes none.
    pub(crate) fn rsa_size(bits: f64) -> Result<KeySize, String> {
        let sizes = [KeySize::Rsa2048, KeySize::Rsa3072, KeySize::Rsa4096, KeySize::Rsa8192];
        let size = [2048.0, 3072.0, 4096.0, 8192.0].iter().position(|known| *known == bits);
        size.map(|index| sizes[index])
            .ok_or_else(|| format!("RSA keys are made of 2048, 3072, 4096 and 8192 bits, not of {bits}"))
    }

    /// A new RSA key. To find its primes takes from a tenth of a second to many seconds: not for a worker.
    pub(crate) fn make_rsa(size: KeySize) -> Result<Self, String> {
        Self::rsa(rsa::KeyPair::generate(size).map_err(|_| "no RSA key could be made".to_owned())?)
    }

    /// A new key of another kind.
    pub(crate) fn make(kind: Kind) -> Result<Self, String> {
        let failed = |_| format!("no {} key could be made", kind.name());
        match kind {
            Kind::Rsa => Err("RSA keys are made beside the workers".to_owned()),
            Kind::Ed25519 => Self::ed25519(Ed25519KeyPair::generate().map_err(failed)?),
            Kind::P256 | Kind::P384 | Kind::P521 => {
                let algorithm = kind.signing().ok_or("not a curve")?;
                Self::ec(kind, &EcdsaKeyPair::generate(algorithm).map_err(failed)?)
            }
        }
    }

    pub(super) fn rsa(pair: rsa::KeyPair) -> Result<Self, String> {
        let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).map_err(|_| unwritten())?;
        let public = Self::public(spki.as_ref())?;
        Ok(Self { private: Some(Private::Rsa(pair)), ..public })
    }

    pub(super) fn ec(kind: Kind, pair: &EcdsaKeyPair) -> Result<Self, String> {
        let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).map_err(|_| unwritten())?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| unwritten())?;
        let private = Some(Private::Ec(pkcs8.as_ref().to_vec()));
        Ok(Self { kind, private, public: spki.as_ref().to_vec(), modulus_bits: 0 })
    }

    pub(super) fn ed25519(pair: Ed25519KeyPair) -> Result<Self, String> {
        let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).map_err(|_| unwritten())?;
        let public = spki.as_ref().to_vec();
        Ok(Self { kind: Kind::Ed25519, private: Some(Private::Ed25519(pair)), public, modulus_bits: 0 })
    }

    /// The public key in `spki`, which is what certificates hold.
    fn public(spki: &[u8]) -> Result<Self, String> {
        if let Ok(key) = PublicEncryptingKey::from_der(spki) {
            let modulus_bits = key.key_size_bits();
            return Ok(Self { kind: Kind::Rsa, private: None, public: spki.to_vec(), modulus_bits });
        }
        for kind in Kind::CURVES {
            if let Ok(key) = Self::parsed(kind, spki) {
                return Ok(key);
            }
        }
        // Shorter ones would be taken for the bytes of the key itself.
        if spki.len() == ED25519_DER {
            return Self::parsed(Kind::Ed25519, spki);
        }
        Err(unread())
    }

    /// The public key of `kind` in `bytes`: as certificates have it, or its bytes alone.
    pub(super) fn parsed(kind: Kind, bytes: &[u8]) -> Result<Self, String> {
        let algorithm = kind.verifying().ok_or_else(unread)?;
        let key = ParsedPublicKey::new(algorithm, bytes).map_err(|_| unread())?;
        let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(&key).map_err(|_| unwritten())?;
        Ok(Self { kind, private: None, public: spki.as_ref().to_vec(), modulus_bits: 0 })
    }

    /// Whether it can sign.
    pub(crate) fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// Most bytes of a signature with it.
    pub(crate) fn size(&self) -> usize {
        match self.kind {
            Kind::Rsa => self.modulus_bits.div_ceil(8),
            Kind::P256 => 72,
            Kind::P384 => 104,
            Kind::P521 => 139,
            Kind::Ed25519 => 64,
        }
    }

    /// In DER: PKCS #8, or the public half as certificates have it.
    pub(crate) fn der(&self, private: bool) -> Result<Vec<u8>, String> {
        if !private {
            return Ok(self.public.clone());
        }
        match self.private.as_ref().ok_or_else(half)? {
            Private::Rsa(pair) => {
                AsDer::<Pkcs8V1Der<'_>>::as_der(pair).map(|der| der.as_ref().to_vec()).map_err(|_| unwritten())
            }
            Private::Ec(pkcs8) => Ok(pkcs8.clone()),
            Private::Ed25519(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()).map_err(|_| unwritten()),
        }
    }

    /// In PEM.
    pub(crate) fn pem(&self, private: bool) -> Result<String, String> {
        let label = if private { "PRIVATE KEY" } else { "PUBLIC KEY" };
        Ok(pem::write(label, &self.der(private)?))
    }

    /// `text` for whoever has the private half. `scheme` is `pkcs1` or `oaep-DIGEST`.
    pub(crate) fn encrypt(&self, text: &[u8], scheme: &str) -> Result<Vec<u8>, String> {
        if self.kind != Kind::Rsa {
            return Err(format!("{} keys do not encrypt, only RSA keys do", self.kind.name()));
        }
        let key = PublicEncryptingKey::from_der(&self.public).map_err(|_| unread())?;
        let mut room = vec![0; self.size()];
        let failed = |_| format!("{} bytes cannot be encrypted with this key and padding at once", text.len());
        let made = match oaep(scheme)? {
            None => {
                Pkcs1PublicEncryptingKey::new(key).and_then(|key| key.encrypt(text, &mut room).map(|made| made.len()))
            }
            Some(oaep) => OaepPublicEncryptingKey::new(key)
                .and_then(|key| key.encrypt(oaep, text, &mut room, None).map(|made| made.len())),
        };
        let length = made.map_err(failed)?;
        room.truncate(length);
        Ok(room)
    }

    /// What `encrypt` was given.
    pub(crate) fn decrypt(&self, text: &[u8], scheme: &str) -> Result<Vec<u8>, String> {
        if self.kind != Kind::Rsa {
            return Err(format!("{} keys do not decrypt, only RSA keys do", self.kind.name()));
        }
        let key = PrivateDecryptingKey::from_pkcs8(&self.der(true)?).map_err(|_| unread())?;
        let mut room = vec![0; self.size()];
        let made = match oaep(scheme)? {
            None => {
                Pkcs1PrivateDecryptingKey::new(key).and_then(|key| key.decrypt(text, &mut room).map(|made| made.len()))
            }
            Some(oaep) => OaepPrivateDecryptingKey::new(key)
                .and_then(|key| key.decrypt(oaep, text, &mut room, None).map(|made| made.len())),
        };
        let length = made.map_err(|_| "the text cannot be decrypted with this key and padding".to_owned())?;
        room.truncate(length);
        Ok(room)
    }
}

fn unread() -> String {
    "not a key that is taken here: RSA of 2048 to 8192 bits, P-256, P-384, P-521 or Ed25519, without a passphrase"
        .to_owned()
}

fn unwritten() -> String {
    "the key cannot be written".to_owned()
}

pub(super) fn half() -> String {
    "the key is a public one, and a private one is needed".to_owned()
}

fn oaep(scheme: &str) -> Result<Option<&'static OaepAlgorithm>, String> {
    match scheme {
        "pkcs1" => Ok(None),
        "oaep-sha1" => Ok(Some(&OAEP_SHA1_MGF1SHA1)),
        "oaep-sha256" => Ok(Some(&OAEP_SHA256_MGF1SHA256)),
        "oaep-sha384" => Ok(Some(&OAEP_SHA384_MGF1SHA384)),
        "oaep-sha512" => Ok(Some(&OAEP_SHA512_MGF1SHA512)),
        _ => Err("the padding is neither PKCS #1 nor OAEP with SHA-1, SHA-256, SHA-384 or SHA-512".to_owned()),
    }
}

/// The first key or certificate in `text`.
fn from_pem(text: &[u8]) -> Result<Key, String> {
    if memchr::memmem::find(text, b"ENCRYPTED").is_some() {
        return Err("the key has a passphrase; keys are taken without one".to_owned());
    }
    for (label, der) in pem::read(text)? {
        match label.as_str() {
            "PUBLIC KEY" | "RSA PUBLIC KEY" | "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
                return from_der(&der);
            }
            "CERTIFICATE" => {
                let (_, certificate) = x509_parser::parse_x509_certificate(&der)
                    .map_err(|_| "the certificate cannot be read".to_owned())?;
                return Key::public(certificate.tbs_certificate.subject_pki.raw);
            }
            _ => {}
        }
    }
    Err("no key in PEM form (-----BEGIN PUBLIC KEY----- or another)".to_owned())
}

/// A private or public key in whichever structure it stands.
fn from_der(der: &[u8]) -> Result<Key, String> {
    if der.first() != Some(&SEQUENCE) {
        return Err(unread());
    }
    if let Ok(key) = Key::public(der) {
        return Ok(key);
    }
    if let Ok(pair) = rsa::KeyPair::from_pkcs8(der).or_else(|_| rsa::KeyPair::from_der(der)) {
        return Key::rsa(pair);
    }
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
        return Key::ed25519(pair);
    }
    for kind in Kind::CURVES {
        let pair = kind.signing().and_then(|algorithm| EcdsaKeyPair::from_private_key_der(algorithm, der).ok());
        if let Some(pair) = pair {
            return Key::ec(kind, &pair);
        }
    }
    let bare = rsa::PublicKey::from_der(der).map_err(|_| unread())?;
    let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(&bare).map_err(|_| unread())?;
    Key::public(spki.as_ref())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    thread_local! {
        /// Texts that were read for a key, for tests to see what is read once only.
        pub(crate) static READ: Cell<usize> = const { Cell::new(0) };
    }
}
