//! Digests, and digests with a key, by their names.

use aws_lc_rs::{digest, hmac};
use md5::{Digest, Md5};

/// Bytes that HMAC-MD5 works on at a time (RFC 2104).
const MD5_BLOCK: usize = 64;

/// The digest of `text` by the algorithm of that name; nothing for an unknown one.
pub(crate) fn digest(name: &str, text: &[u8]) -> Option<Vec<u8>> {
    let algorithm = match name {
        "md5" => return Some(Md5::digest(text).to_vec()),
        "sha1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        "sha224" => &digest::SHA224,
        "sha256" => &digest::SHA256,
        "sha384" => &digest::SHA384,
        "sha512" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, text).as_ref().to_vec())
}

/// The same with a key.
pub(crate) fn hmac(name: &str, key: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let algorithm = match name {
        "md5" => return Some(hmac_md5(key, text)),
        "sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        "sha224" => hmac::HMAC_SHA224,
        "sha256" => hmac::HMAC_SHA256,
        "sha384" => hmac::HMAC_SHA384,
        "sha512" => hmac::HMAC_SHA512,
        _ => return None,
    };
    Some(hmac::sign(&hmac::Key::new(algorithm, key), text).as_ref().to_vec())
}

fn hmac_md5(key: &[u8], text: &[u8]) -> Vec<u8> {
    let key = if key.len() > MD5_BLOCK { Md5::digest(key).to_vec() } else { key.to_vec() };
    let pad = |with: u8| -> Vec<u8> {
        let padded = key.iter().copied().chain(std::iter::repeat(0)).take(MD5_BLOCK);
        padded.map(|byte| byte ^ with).collect()
    };
    let inner = Md5::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Md5::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}
