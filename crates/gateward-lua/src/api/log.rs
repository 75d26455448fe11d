//! `log(level, text)`: a line in the gateway's log, at nginx's level.

use mlua::{Lua, LuaString, Result, Table};

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    let log = lua.create_function(|_, (level, text): (u32, LuaString)| {
        let text = text.to_string_lossy();
        match level {
            0..=4 => tracing::error!(target: "lua", "{text}"),
            5 => tracing::warn!(target: "lua", "{text}"),
            6 | 7 => tracing::info!(target: "lua", "{text}"),
            _ => tracing::debug!(target: "lua", "{text}"),
        }
        Ok(())
    })?;
    functions.raw_set("log", log)
}
