//! AES in the modes CBC, ECB, CTR and GCM.

use super::bounded;
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext,
    PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;

/// Bytes of a block.
const BLOCK: usize = 16;
/// Bytes of GCM's tag.
pub(crate) const TAG: usize = 16;
/// Bytes of GCM's nonce.
const NONCE: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Cbc,
    Ecb,
    Ctr,
    Gcm,
}

/// A cipher by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cipher {
    /// Bytes of its key.
    pub(crate) key: usize,
    mode: Mode,
}

impl Cipher {
    /// By OpenSSL's name for it: `aes-256-cbc`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (bits, mode) = name.strip_prefix("aes-")?.split_once('-')?;
        let key = match bits {
            "128" => 16,
            "192" => 24,
            "256" => 32,
            _ => return None,
        };
        let mode = match mode {
            "cbc" => Mode::Cbc,
            "ecb" => Mode::Ecb,
            "ctr" => Mode::Ctr,
            "gcm" => Mode::Gcm,
            _ => return None,
        };
        Some(Self { key, mode })
    }

    /// Bytes of its initialization vector.
    pub(crate) fn iv(self) -> usize {
        match self.mode {
            Mode::Ecb => 0,
            Mode::Cbc | Mode::Ctr => BLOCK,
            Mode::Gcm => NONCE,
        }
    }

    /// Whether texts are sealed with a tag.
    pub(crate) fn seals(self) -> bool {
        self.mode == Mode::Gcm
    }

    fn block_key(self, key: &[u8]) -> Result<UnboundCipherKey, String> {
        let algorithm = match self.key {
            16 => &AES_128,
            24 => &AES_192,
            _ => &AES_256,
        };
        UnboundCipherKey::new(algorithm, key).map_err(|_| failed())
    }

    fn sealing_key(self, key: &[u8]) -> Result<LessSafeKey, String> {
        let algorithm = match self.key {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            _ => &AES_256_GCM,
        };
        Ok(LessSafeKey::new(UnboundKey::new(algorithm, key).map_err(|_| failed())?))
    }
}

/// A key and what goes with it.
pub(crate) struct Keyed<'a> {
    pub(crate) cipher: Cipher,
    pub(crate) key: &'a [u8],
    pub(crate) iv: &'a [u8],
    /// Whether texts are filled up to whole blocks.
    pub(crate) padded: bool,
    /// What GCM's tag vouches for beside the text.
    pub(crate) beside: &'a [u8],
}

impl Keyed<'_> {
    fn check(&self, text: &[u8]) -> Result<(), String> {
        bounded(text)?;
        bounded(self.beside)?;
        let Cipher { key, .. } = self.cipher;
        if self.key.len() != key {
            return Err(format!("the key has {} bytes, this cipher's has {key}", self.key.len()));
        }
        let iv = self.cipher.iv();
        if self.iv.len() != iv {
            return Err(format!("the initialization vector has {} bytes, this cipher's has {iv}", self.iv.len()));
        }
        let blocks = matches!(self.cipher.mode, Mode::Cbc | Mode::Ecb);
        if blocks && !self.padded && !text.len().is_multiple_of(BLOCK) {
            return Err(format!("without padding a text has whole blocks of {BLOCK} bytes"));
        }
        Ok(())
    }

    fn vector(&self) -> Result<FixedLength<BLOCK>, String> {
        FixedLength::try_from(self.iv).map_err(|_| failed())
    }

    /// `text` encrypted, for GCM with its tag behind.
    pub(crate) fn encrypt(&self, text: &[u8]) -> Result<Vec<u8>, String> {
        self.check(text)?;
        let mut room = text.to_vec();
        if self.cipher.seals() {
            let nonce = Nonce::try_assume_unique_for_key(self.iv).map_err(|_| failed())?;
            let key = self.cipher.sealing_key(self.key)?;
            key.seal_in_place_append_tag(nonce, Aad::from(self.beside), &mut room).map_err(|_| failed())?;
            return Ok(room);
        }
        let key = self.cipher.block_key(self.key)?;
        let context = match self.cipher.mode {
            Mode::Ecb => EncryptionContext::None,
            _ => EncryptionContext::Iv128(self.vector()?),
        };
        match (self.cipher.mode, self.padded) {
            (Mode::Cbc, true) => {
                PaddedBlockEncryptingKey::cbc_pkcs7(key).and_then(|key| key.less_safe_encrypt(&mut room, context))
            }
            (Mode::Ecb, true) => {
                PaddedBlockEncryptingKey::ecb_pkcs7(key).and_then(|key| key.less_safe_encrypt(&mut room, context))
            }
            (Mode::Cbc, false) => EncryptingKey::cbc(key).and_then(|key| key.less_safe_encrypt(&mut room, context)),
            (Mode::Ecb, false) => EncryptingKey::ecb(key).and_then(|key| key.less_safe_encrypt(&mut room, context)),
            (Mode::Ctr | Mode::Gcm, _) => {
                EncryptingKey::ctr(key).and_then(|key| key.less_safe_encrypt(&mut room, context))
            }
        }
        .map_err(|_| failed())?;
        Ok(room)
    }

    /// What `encrypt` was given.
    pub(crate) fn decrypt(&self, text: &[u8]) -> Result<Vec<u8>, String> {
        self.check(text)?;
        let mut room = text.to_vec();
        if self.cipher.seals() {
            let nonce = Nonce::try_assume_unique_for_key(self.iv).map_err(|_| failed())?;
            let key = self.cipher.sealing_key(self.key)?;
            let opened = key.open_in_place(nonce, Aad::from(self.beside), &mut room).map_err(|_| undone())?;
            return Ok(opened.to_vec());
        }
        let key = self.cipher.block_key(self.key)?;
        let context = match self.cipher.mode {
            Mode::Ecb => DecryptionContext::None,
            _ => DecryptionContext::Iv128(self.vector()?),
        };
        let opened = match (self.cipher.mode, self.padded) {
            (Mode::Cbc, true) => {
                PaddedBlockDecryptingKey::cbc_pkcs7(key).and_then(|key| Ok(key.decrypt(&mut room, context)?.to_vec()))
            }
            (Mode::Ecb, true) => {
                PaddedBlockDecryptingKey::ecb_pkcs7(key).and_then(|key| Ok(key.decrypt(&mut room, context)?.to_vec()))
            }
            (Mode::Cbc, false) => DecryptingKey::cbc(key).and_then(|key| Ok(key.decrypt(&mut room, context)?.to_vec())),
            (Mode::Ecb, false) => DecryptingKey::ecb(key).and_then(|key| Ok(key.decrypt(&mut room, context)?.to_vec())),
            (Mode::Ctr | Mode::Gcm, _) => {
                DecryptingKey::ctr(key).and_then(|key| Ok(key.decrypt(&mut room, context)?.to_vec()))
            }
        };
        opened.map_err(|_| undone())
    }
}

fn failed() -> String {
    "the text could not be encrypted".to_owned()
}

/// The same for a wrong key, a changed text and a wrong padding, so that nobody learns which.
fn undone() -> String {
    "the text cannot be decrypted with this key".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["cbc", "ecb", "ctr", "gcm"];

    fn keyed<'a>(mode: &str, key: &'a [u8], iv: &'a [u8], padded: bool) -> Keyed<'a> {
        Keyed { cipher: Cipher::named(&format!("aes-128-{mode}")).unwrap(), key, iv, padded, beside: b"" }
    }

    #[test]
    fn keys_and_vectors_of_other_lengths_are_refused() {
        for mode in NAMES {
            let right = Cipher::named(&format!("aes-128-{mode}")).unwrap().iv();
            for bytes in [0, 1, 11, 12, 13, 15, 16, 17, 32, 1000] {
                let (key, iv, rest) = ([7; 16], vec![7; bytes], vec![7; right]);
                let fine = keyed(mode, &key, &iv, true).encrypt(b"text").is_ok();
                assert_eq!(fine, bytes == right, "{mode} with a vector of {bytes}");
                let decrypted = keyed(mode, &key, &iv, true).decrypt(&[0; 16]);
                assert!(bytes == right || decrypted.is_err(), "{mode} {bytes}");
                let fine = keyed(mode, &iv, &rest, true).encrypt(b"text").is_ok();
                assert_eq!(fine, bytes == 16, "{mode} with a key of {bytes}");
            }
        }
    }

    #[test]
    fn texts_of_any_length_are_decrypted_or_refused() {
        for mode in NAMES {
            for padded in [true, false] {
                for bytes in (0..=33).chain([4095, 4096]) {
                    let (key, text) = ([7; 16], vec![1; bytes]);
                    let iv = vec![7; Cipher::named(&format!("aes-128-{mode}")).unwrap().iv()];
                    let keyed = keyed(mode, &key, &iv, padded);
                    let blocks = matches!(mode, "cbc" | "ecb");
                    let whole = bytes % BLOCK == 0;
                    let sealed = keyed.encrypt(&text);
                    assert_eq!(sealed.is_ok(), !blocks || padded || whole, "{mode} {padded} {bytes}");
                    if let Ok(sealed) = sealed {
                        assert_eq!(keyed.decrypt(&sealed).unwrap(), text, "{mode} {padded} {bytes}");
                    }
                    // What nobody encrypted: with a padding or a tag it is found out.
                    let expected = if mode == "gcm" || blocks && padded { false } else { mode == "ctr" || whole };
                    assert_eq!(keyed.decrypt(&text).is_ok(), expected, "{mode} {padded} {bytes}");
                }
            }
        }
    }
}
