//! `digest(algorithm, text)`, `hmac(algorithm, key, text)` (nothing for an unknown algorithm), `random(bytes)` and
//! `same_bytes(a, b)`, which takes as long whatever differs.

use aws_lc_rs::{constant_time, digest, hmac, rand};
use md5::{Digest, Md5};
use mlua::{BString, Lua, LuaString, Result, Table};

/// Most random bytes at once.
const RANDOM: usize = 1 << 20;
/// Bytes that HMAC-MD5 works on at a time (RFC 2104).
const MD5_BLOCK: usize = 64;

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    let digest = lua.create_function(|_, (name, text): (String, LuaString)| {
        Ok(digest(&name, &text.as_bytes()).map(BString::from))
    })?;
    functions.raw_set("digest", digest)?;
    let hmac = lua.create_function(|_, (name, key, text): (String, LuaString, LuaString)| {
        Ok(hmac(&name, &key.as_bytes(), &text.as_bytes()).map(BString::from))
    })?;
    functions.raw_set("hmac", hmac)?;
    let random = lua.create_function(|_, bytes: usize| {
        let mut random = vec![0; bytes.min(RANDOM)];
        rand::fill(&mut random).map_err(|_| mlua::Error::runtime("the system has no random bytes"))?;
        Ok(BString::from(random))
    })?;
    functions.raw_set("random", random)?;
    let same = lua.create_function(|_, (one, other): (LuaString, LuaString)| {
        Ok(constant_time::verify_slices_are_equal(&one.as_bytes(), &other.as_bytes()).is_ok())
    })?;
    functions.raw_set("same_bytes", same)
}

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

fn hmac(name: &str, key: &[u8], text: &[u8]) -> Option<Vec<u8>> {
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
