//! What the ready-made fields of schemas ask of a text: is it a host, a regular expression, a certificate?

use gateward_config::{Host, check_regex, host_port, is_pem};
use mlua::chunk::ChunkMode;
use mlua::{Lua, LuaString, Result, Table};
use std::net::IpAddr;

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    // The kind of host, the host, the port; nothing when it is none.
    let host = lua.create_function(|_, text: LuaString| {
        let parsed = text.to_str().ok().and_then(|text| host_port(&text));
        Ok(parsed.map_or((None, None, None), |parsed| {
            let kind = match parsed.host {
                Host::Name(_) => "name",
                Host::Ip(IpAddr::V4(_)) => "ipv4",
                Host::Ip(IpAddr::V6(_)) => "ipv6",
            };
            (Some(kind), Some(parsed.host.to_string()), parsed.port)
        }))
    })?;
    functions.raw_set("host_port", host)?;
    let regex = lua.create_function(|_, text: LuaString| {
        Ok(match text.to_str() {
            Ok(text) => check_regex(&text).err(),
            Err(_) => Some("not UTF-8".to_owned()),
        })
    })?;
    functions.raw_set("regex_error", regex)?;
    let pem = lua.create_function(|_, (text, kind): (LuaString, String)| {
        let label = |label: &str| match kind.as_str() {
            "key" => label.ends_with("KEY"),
            _ => label == "CERTIFICATE",
        };
        Ok(text.to_str().is_ok_and(|text| is_pem(&text, label)))
    })?;
    functions.raw_set("is_pem", pem)?;
    functions.raw_set("utf8", lua.create_function(|_, text: LuaString| Ok(text.to_str().is_ok()))?)?;
    let json = lua.create_function(|_, text: LuaString| {
        Ok(serde_json::from_slice::<serde_json::Map<_, _>>(&text.as_bytes()).is_ok())
    })?;
    functions.raw_set("json_object", json)?;
    // Whether it is Lua, and if not, why not.
    let compiles = lua.create_function(|lua, text: LuaString| {
        let chunk = lua.load(&*text.as_bytes()).set_name("=code").set_mode(ChunkMode::Text).into_function();
        Ok(match chunk {
            Ok(_) => (true, None),
            Err(error) => (false, Some(error.to_string())),
        })
    })?;
    functions.raw_set("compiles", compiles)
}
