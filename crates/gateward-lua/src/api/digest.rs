//! `digest(algorithm, text)`, `hmac(algorithm, key, text)` (nothing for an unknown algorithm), `random(bytes)` and
//! `same_bytes(a, b)`, which takes as long whatever differs.

use crate::crypto::digest::{digest, hmac};
use aws_lc_rs::{constant_time, rand};
use mlua::{BString, Lua, LuaString, Result, Table};

/// Most random bytes at once.
const RANDOM: usize = 1 << 20;

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
