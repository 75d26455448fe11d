//! The node: who it is, whom it trusts, what its machines take.

use crate::code::Code;
use crate::convert::to_lua;
use mlua::{Lua, LuaString, Result, Table, Value};
use std::net::IpAddr;
use std::sync::Arc;

pub(super) fn add(lua: &Lua, functions: &Table, code: &Arc<Code>) -> Result<()> {
    let facts = code.facts.clone();
    functions.raw_set("node_id", facts.node_id.as_str())?;
    functions.raw_set("hostname", facts.hostname.as_str())?;
    let configuration = serde_json::Value::Object(facts.configuration.clone());
    functions.raw_set("configuration", to_lua(lua, &configuration, &Value::Nil)?)?;
    let counting = facts.clone();
    let statistics = lua.create_function(move |lua, ()| match &counting.statistics {
        Some(statistics) => to_lua(lua, &statistics(), &Value::Nil),
        None => Ok(Value::Nil),
    })?;
    functions.raw_set("statistics", statistics)?;
    let is_trusted = lua.create_function(move |_, address: LuaString| {
        let address = address.to_string_lossy().parse::<IpAddr>().map(|ip| ip.to_canonical());
        Ok(address.is_ok_and(|ip| facts.trusted.iter().any(|network| network.contains(&ip))))
    })?;
    functions.raw_set("is_trusted", is_trusted)?;
    functions.raw_set("memory", lua.create_function(|lua, ()| Ok(lua.used_memory()))?)?;
    functions.raw_set("pid", std::process::id())
}
