//! `log(level, text)`: a line in the gateway's log, at nginx's level; `logs(level)`: whether it would be written.

use mlua::{Lua, LuaString, Result, Table};
use tracing::Level;

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
    functions.raw_set("log", log)?;
    let logs = lua.create_function(|_, level: u32| {
        Ok(match level {
            0..=4 => tracing::enabled!(target: "lua", Level::ERROR),
            5 => tracing::enabled!(target: "lua", Level::WARN),
            6 | 7 => tracing::enabled!(target: "lua", Level::INFO),
            _ => tracing::enabled!(target: "lua", Level::DEBUG),
        })
    })?;
    functions.raw_set("logs", logs)
}
