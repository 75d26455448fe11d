//! The dictionaries behind `ngx.shared`: `dict(name)` and `dict_*(dict, key, ...)`.

use crate::dict::{Dict, End, Found, Item, Put, Value as Held, When, named, now_ms};
use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Result, Table, UserData, UserDataRef, Value};
use std::sync::Arc;

/// Longest life in seconds: about 30 years.
const LONGEST: f64 = 1e9;

struct Zone(Arc<Dict>);

impl UserData for Zone {}

type Dictionary = UserDataRef<Zone>;

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    functions.raw_set("dict", lua.create_function(|_, name: String| Ok(named(&name).map(Zone)))?)?;
    entries(lua, functions)?;
    lists(lua, functions)?;
    whole(lua, functions)
}

fn milliseconds(seconds: f64) -> u64 {
    let ms = (seconds.clamp(0.0, LONGEST) * 1000.0) as u64;
    // The shortest life is no life without end.
    if ms == 0 && seconds > 0.0 { 1 } else { ms }
}

fn to_lua(lua: &Lua, held: &Held) -> Result<Value> {
    Ok(match held {
        Held::Text(text) => Value::String(lua.create_string(text)?),
        Held::Number(number) => Value::Number(*number),
        Held::Flag(flag) => Value::Boolean(*flag),
        Held::List(_) => Value::Nil,
    })
}

fn refused(lua: &Lua, reason: &str) -> Result<MultiValue> {
    (Value::Nil, reason).into_lua_multi(lua)
}

fn entries(lua: &Lua, functions: &Table) -> Result<()> {
    let get = lua.create_function(|lua, (dict, key, stale): (Dictionary, LuaString, bool)| {
        match dict.0.get(&key.as_bytes(), now_ms(), stale) {
            Err(reason) => refused(lua, reason),
            Ok(None) => Value::Nil.into_lua_multi(lua),
            Ok(Some(Found { value, flags, stale: over })) => {
                let flags = (flags != 0).then_some(flags);
                let value = to_lua(lua, &value)?;
                if stale { (value, flags, over).into_lua_multi(lua) } else { (value, flags).into_lua_multi(lua) }
            }
        }
    })?;
    functions.raw_set("dict_get", get)?;
    type Arguments = (Dictionary, LuaString, Value, f64, f64, String, bool);
    let set = lua.create_function(|lua, (dict, key, value, ttl, flags, when, evict): Arguments| {
        let value = match value {
            Value::String(text) => Held::Text((*text.as_bytes()).into()),
            Value::Integer(number) => Held::Number(number as f64),
            Value::Number(number) => Held::Number(number),
            Value::Boolean(flag) => Held::Flag(flag),
            _ => return refused(lua, "bad value type"),
        };
        let when = match when.as_str() {
            "new" => When::New,
            "known" => When::Known,
            _ => When::Any,
        };
        let put = Put { value, ttl_ms: milliseconds(ttl), flags: flags as u32, when, evict };
        match dict.0.put(&key.as_bytes(), put, now_ms()) {
            Ok(forced) => (true, Value::Nil, forced).into_lua_multi(lua),
            Err(reason) => (false, reason, false).into_lua_multi(lua),
        }
    })?;
    functions.raw_set("dict_set", set)?;
    let delete = lua.create_function(|_, (dict, key): (Dictionary, LuaString)| {
        dict.0.delete(&key.as_bytes());
        Ok(true)
    })?;
    functions.raw_set("dict_delete", delete)?;
    type Addition = (Dictionary, LuaString, f64, Option<f64>, f64);
    let incr = lua.create_function(|lua, (dict, key, by, init, ttl): Addition| {
        match dict.0.incr(&key.as_bytes(), by, init, milliseconds(ttl), now_ms()) {
            Ok((sum, forced)) if init.is_some() => (sum, Value::Nil, forced).into_lua_multi(lua),
            Ok((sum, _)) => sum.into_lua_multi(lua),
            Err(reason) => refused(lua, reason),
        }
    })?;
    functions.raw_set("dict_incr", incr)?;
    let ttl = lua.create_function(|lua, (dict, key): (Dictionary, LuaString)| {
        match dict.0.ttl_ms(&key.as_bytes(), now_ms()) {
            Ok(ms) => (ms as f64 / 1000.0).into_lua_multi(lua),
            Err(reason) => refused(lua, reason),
        }
    })?;
    functions.raw_set("dict_ttl", ttl)?;
    let expire = lua.create_function(|lua, (dict, key, ttl): (Dictionary, LuaString, f64)| {
        match dict.0.expire(&key.as_bytes(), milliseconds(ttl), now_ms()) {
            Ok(()) => true.into_lua_multi(lua),
            Err(reason) => refused(lua, reason),
        }
    })?;
    functions.raw_set("dict_expire", expire)
}

fn lists(lua: &Lua, functions: &Table) -> Result<()> {
    let end = |front| if front { End::Front } else { End::Back };
    let push = lua.create_function(move |lua, (dict, key, value, front): (Dictionary, LuaString, Value, bool)| {
        let item = match value {
            Value::String(text) => Item::Text((*text.as_bytes()).into()),
            Value::Integer(number) => Item::Number(number as f64),
            Value::Number(number) => Item::Number(number),
            _ => return refused(lua, "bad value type"),
        };
        match dict.0.push(&key.as_bytes(), item, end(front), now_ms()) {
            Ok(length) => length.into_lua_multi(lua),
            Err(reason) => refused(lua, reason),
        }
    })?;
    functions.raw_set("dict_push", push)?;
    let pop = lua.create_function(move |lua, (dict, key, front): (Dictionary, LuaString, bool)| {
        match dict.0.pop(&key.as_bytes(), end(front), now_ms()) {
            Ok(None) => Value::Nil.into_lua_multi(lua),
            Ok(Some(Item::Text(text))) => lua.create_string(text)?.into_lua_multi(lua),
            Ok(Some(Item::Number(number))) => number.into_lua_multi(lua),
            Err(reason) => refused(lua, reason),
        }
    })?;
    functions.raw_set("dict_pop", pop)?;
    let length = lua.create_function(|lua, (dict, key): (Dictionary, LuaString)| {
        match dict.0.length(&key.as_bytes(), now_ms()) {
            Ok(length) => length.into_lua_multi(lua),
            Err(reason) => refused(lua, reason),
        }
    })?;
    functions.raw_set("dict_length", length)
}

fn whole(lua: &Lua, functions: &Table) -> Result<()> {
    let flush = lua.create_function(|_, dict: Dictionary| {
        dict.0.flush_all();
        Ok(())
    })?;
    functions.raw_set("dict_flush_all", flush)?;
    let expired =
        lua.create_function(|_, (dict, most): (Dictionary, f64)| Ok(dict.0.flush_expired(most as usize, now_ms())))?;
    functions.raw_set("dict_flush_expired", expired)?;
    let keys = lua.create_function(|lua, (dict, most): (Dictionary, f64)| {
        let keys = dict.0.keys(most as usize, now_ms());
        let texts = keys.iter().map(|key| lua.create_string(key)).collect::<Result<Vec<_>>>()?;
        lua.create_sequence_from(texts)
    })?;
    functions.raw_set("dict_keys", keys)?;
    let room = lua.create_function(|_, dict: Dictionary| Ok(dict.0.room()))?;
    functions.raw_set("dict_room", room)
}
