//! `to_json(value)` and `from_json(text)`: as cjson does it, `nil` and an error when it does not go.

use crate::convert::{to_json, to_lua};
use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Result, Table, Value};

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    let encode = lua.create_function(|lua, value: Value| match to_json(&value) {
        Ok(json) => json.to_string().into_lua_multi(lua),
        Err(error) => (Value::Nil, error).into_lua_multi(lua),
    })?;
    functions.raw_set("to_json", encode)?;
    let decode = lua.create_function(|lua, text: LuaString| -> Result<MultiValue> {
        match serde_json::from_slice(&text.as_bytes()) {
            Ok(json) => to_lua(lua, &json, &Value::NULL)?.into_lua_multi(lua),
            Err(error) => (Value::Nil, error.to_string()).into_lua_multi(lua),
        }
    })?;
    functions.raw_set("from_json", decode)
}
