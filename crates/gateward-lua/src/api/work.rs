//! Work beside the worker, as operations to wait for: `work_rsa(bits)`, `work_pbkdf2`, `work_chained`. Each gives the operation,
//! or nothing and why not; what it comes to is the result, or nothing and why.

use super::keys::answer;
use crate::crypto::derive;
use crate::crypto::key::Key;
use crate::shared::Op;
use crate::work::BENCH;
use mlua::{BString, IntoLua, Lua, LuaString, Result, Table};

/// What a key is made of: the digest, the password, the salt, rounds, bytes of the key.
type Arguments = (String, LuaString, LuaString, usize, usize);

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    let rsa = lua.create_function(|lua, bits: f64| match Key::rsa_size(bits) {
        Ok(size) => Ok(begun(lua, move || Key::make_rsa(size))),
        Err(why) => Ok((None, Some(why))),
    })?;
    functions.raw_set("work_rsa", rsa)?;
    let pbkdf2 = lua.create_function(|lua, arguments: Arguments| Ok(derived(lua, derive::pbkdf2, arguments)))?;
    functions.raw_set("work_pbkdf2", pbkdf2)?;
    let chained = lua.create_function(|lua, arguments: Arguments| Ok(derived(lua, derive::chained, arguments)))?;
    functions.raw_set("work_chained", chained)
}

type Begun = (Option<Op>, Option<String>);

/// How a key is made; the last argument is the most digests that may be made for it.
type Derive = fn(&str, &[u8], &[u8], usize, usize, usize) -> std::result::Result<Vec<u8>, String>;

fn derived(lua: &Lua, derive: Derive, (digest, password, salt, rounds, length): Arguments) -> Begun {
    let (password, salt) = (password.as_bytes().to_vec(), salt.as_bytes().to_vec());
    begun(lua, move || derive(&digest, &password, &salt, rounds, length, derive::BESIDE).map(BString::from))
}

fn begun<T: IntoLua + Send + 'static>(
    lua: &Lua,
    work: impl FnOnce() -> std::result::Result<T, String> + Send + 'static,
) -> Begun {
    match BENCH.beside(work) {
        Ok(done) => (Some(Op::giving(lua, async move { answer(done.await.flatten()) })), None),
        Err(why) => (None, Some(why)),
    }
}
