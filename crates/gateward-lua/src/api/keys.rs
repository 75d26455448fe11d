//! Keys and signatures: `key_*`. What goes wrong is given as nothing and why.

use crate::crypto::key::{Form, Key, Kind};
use crate::crypto::sign::Scheme;
use mlua::{BString, Lua, LuaString, Result, Table, UserData, UserDataRef};

impl UserData for Key {}

type Own = UserDataRef<Key>;

/// A result as Lua's functions have it: the value, or nothing and why.
pub(super) fn answer<T>(result: std::result::Result<T, String>) -> (Option<T>, Option<String>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(why) => (None, Some(why)),
    }
}

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    functions.raw_set("key_read", lua.create_function(|_, arguments| Ok(answer(read(&arguments))))?)?;
    functions.raw_set("key_make", lua.create_function(|_, kind: String| Ok(answer(make(&kind))))?)?;
    let about = lua.create_function(|_, key: Own| Ok((key.kind.name(), key.is_private(), key.size())))?;
    functions.raw_set("key_about", about)?;
    let write = lua.create_function(|_, (key, private, pem): (Own, bool, bool)| {
        Ok(answer(if pem { key.pem(private).map(BString::from) } else { key.der(private).map(BString::from) }))
    })?;
    functions.raw_set("key_write", write)?;
    let sign = lua.create_function(|_, (key, text, digest, scheme): (Own, LuaString, String, String)| {
        let made = known(&scheme).and_then(|scheme| key.sign(&text.as_bytes(), &digest, scheme));
        Ok(answer(made.map(BString::from)))
    })?;
    functions.raw_set("key_sign", sign)?;
    let verify = lua.create_function(
        |_, (key, signature, text, digest, scheme): (Own, LuaString, LuaString, String, String)| {
            let scheme = known(&scheme);
            Ok(answer(scheme.and_then(|scheme| key.verify(&signature.as_bytes(), &text.as_bytes(), &digest, scheme))))
        },
    )?;
    functions.raw_set("key_verify", verify)?;
    let encrypt = lua.create_function(|_, (key, text, scheme): (Own, LuaString, String)| {
        Ok(answer(key.encrypt(&text.as_bytes(), &scheme).map(BString::from)))
    })?;
    functions.raw_set("key_encrypt", encrypt)?;
    let decrypt = lua.create_function(|_, (key, text, scheme): (Own, LuaString, String)| {
        Ok(answer(key.decrypt(&text.as_bytes(), &scheme).map(BString::from)))
    })?;
    functions.raw_set("key_decrypt", decrypt)
}

fn read((text, form): &(LuaString, String)) -> std::result::Result<Key, String> {
    let form = match form.as_str() {
        "*" => Form::Any,
        "PEM" => Form::Pem,
        "DER" => Form::Der,
        "JWK" => Form::Jwk,
        _ => return Err("a key's format is PEM, DER, JWK or * for any of them".to_owned()),
    };
    Key::read(&text.as_bytes(), form)
}

fn make(kind: &str) -> std::result::Result<Key, String> {
    // Those of RSA take longer: `work_rsa`.
    let kinds = [Kind::P256, Kind::P384, Kind::P521, Kind::Ed25519];
    let kind = kinds.into_iter().find(|known| known.name() == kind);
    Key::make(kind.ok_or("keys are made of P-256, P-384, P-521 and Ed25519")?)
}

fn known(scheme: &str) -> std::result::Result<Scheme, String> {
    Scheme::of(scheme).ok_or_else(|| "an unknown way to sign".to_owned())
}
