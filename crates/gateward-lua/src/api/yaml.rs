//! `yaml(text, null)`: what a text in YAML says, with `null` for nothing, or nothing and why.

use gateward_yaml::{Node, Tree, parse_yaml_within};
use mlua::{IntoLua, IntoLuaMulti, Lua, LuaString, Result, Table, Value};

/// Most bytes of a text: a call may not take longer.
const TEXT: usize = 256 << 10;
/// Most values in it, aliases expanded.
const VALUES: usize = 20_000;
/// Likewise bytes of the texts among them.
const TEXTS: usize = 4 << 20;

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    let yaml = lua.create_function(|lua, (text, null): (LuaString, Value)| match read(&text.as_bytes()) {
        Ok(node) => made(lua, &node, &null)?.into_lua_multi(lua),
        Err(why) => (Value::Nil, why).into_lua_multi(lua),
    })?;
    functions.raw_set("yaml", yaml)
}

fn read(text: &[u8]) -> std::result::Result<Node, String> {
    if text.len() > TEXT {
        return Err(format!("a text in YAML has {TEXT} bytes at most, this one has {}", text.len()));
    }
    parse_yaml_within(text, VALUES, TEXTS)
        .map_err(|error| format!("{}:{}: {}", error.position.line, error.position.column, error.message))
}

/// The reader bounds how deep this goes.
fn made(lua: &Lua, node: &Node, null: &Value) -> Result<Value> {
    match &node.value {
        Tree::Null => Ok(null.clone()),
        Tree::Bool(yes) => yes.into_lua(lua),
        Tree::Int(number) => number.into_lua(lua),
        Tree::Float(number) => number.into_lua(lua),
        Tree::String { text, plain } => match old_boolean(text).filter(|_| *plain) {
            Some(yes) => yes.into_lua(lua),
            None => text.as_str().into_lua(lua),
        },
        Tree::Seq(items) => {
            let list = lua.create_table_with_capacity(items.len(), 0)?;
            for (index, item) in items.iter().enumerate() {
                list.raw_set(index + 1, made(lua, item, null)?)?;
            }
            Ok(Value::Table(list))
        }
        Tree::Map(entries) => {
            let map = lua.create_table_with_capacity(0, entries.len())?;
            for (key, value) in entries {
                map.raw_set(key.text.as_str(), made(lua, value, null)?)?;
            }
            Ok(Value::Table(map))
        }
    }
}

/// What YAML 1.1 has for booleans beside `true` and `false`.
fn old_boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}
