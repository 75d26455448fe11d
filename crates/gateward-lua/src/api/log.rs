//! `log(level, text)`: a line in the gateway's log, at nginx's level; `logs(level)`: whether it would be written;
//! `telemetry(...)`: a record with attributes, gives why not.

use crate::convert::to_json_up_to;
use mlua::{Lua, LuaString, Result, Table, Value};
use tracing::Level;

/// Values in the attributes of one record, and bytes of names and texts.
const ATTRIBUTES: usize = 1024;
const ATTRIBUTE_BYTES: usize = 64 << 10;

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
    functions.raw_set("logs", logs)?;
    let telemetry = lua.create_function(|_, (entry, attributes): (Table, Value)| {
        let text =
            |name: &str| entry.raw_get::<Option<LuaString>>(name).map(|text| text.map(|text| text.to_string_lossy()));
        let (plugin, id, instance) = (text("plugin")?, text("id")?, text("instance")?);
        let (message_type, message) = (text("type")?, text("message")?.unwrap_or_default());
        Ok(match to_json_up_to(&attributes, ATTRIBUTES, ATTRIBUTE_BYTES) {
            Ok(attributes) => {
                tracing::info!(target: "lua", plugin, id, instance, message_type, %attributes, "{message}");
                None
            }
            Err(error) => Some(error),
        })
    })?;
    functions.raw_set("telemetry", telemetry)
}
