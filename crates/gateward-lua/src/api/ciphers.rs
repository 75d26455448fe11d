//! Ciphers and derived keys: `cipher_*` and `derive_*`. What goes wrong is given as nothing and why.

use super::keys::answer;
use crate::crypto::cipher::{Cipher, Keyed, TAG};
use crate::crypto::derive;
use mlua::{BString, Lua, LuaString, Result, Table};

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    let about = lua.create_function(|_, name: String| {
        let Some(cipher) = Cipher::named(&name) else { return Ok((None, None, None)) };
        Ok((Some(cipher.key), Some(cipher.iv()), Some(if cipher.seals() { TAG } else { 0 })))
    })?;
    functions.raw_set("cipher_about", about)?;
    functions.raw_set("cipher_run", lua.create_function(|_, arguments| Ok(answer(run(&arguments))))?)?;
    let pbkdf2 = lua.create_function(
        |_, (digest, password, salt, rounds, length): (String, LuaString, LuaString, usize, usize)| {
            let key = derive::pbkdf2(&digest, &password.as_bytes(), &salt.as_bytes(), rounds, length, derive::HERE);
            Ok(answer(key.map(BString::from)))
        },
    )?;
    functions.raw_set("derive_pbkdf2", pbkdf2)?;
    let hkdf = lua.create_function(
        |_, (digest, secret, salt, info, length, extracted): (String, LuaString, LuaString, LuaString, usize, bool)| {
            let (secret, salt, info) = (secret.as_bytes(), salt.as_bytes(), info.as_bytes());
            Ok(answer(derive::hkdf(&digest, &secret, &salt, &info, length, extracted).map(BString::from)))
        },
    )?;
    functions.raw_set("derive_hkdf", hkdf)?;
    let chained = lua.create_function(
        |_, (digest, password, salt, rounds, length): (String, LuaString, LuaString, usize, usize)| {
            let key = derive::chained(&digest, &password.as_bytes(), &salt.as_bytes(), rounds, length, derive::HERE);
            Ok(answer(key.map(BString::from)))
        },
    )?;
    functions.raw_set("derive_chained", chained)
}

/// Whether to encrypt, the cipher, its key and vector, the text, whether it is padded, and what the tag vouches for.
type Arguments = (bool, String, LuaString, LuaString, LuaString, bool, LuaString);

fn run((encrypt, name, key, iv, text, padded, beside): &Arguments) -> std::result::Result<BString, String> {
    let cipher = Cipher::named(name).ok_or_else(|| format!("the cipher {name} is not there"))?;
    let (key, iv, beside) = (key.as_bytes(), iv.as_bytes(), beside.as_bytes());
    let keyed = Keyed { cipher, key: &key, iv: &iv, padded: *padded, beside: &beside };
    let text = text.as_bytes();
    if *encrypt { keyed.encrypt(&text) } else { keyed.decrypt(&text) }.map(BString::from)
}
