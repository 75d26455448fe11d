//! Loading modules: where their sources come from and in which environment they run. What is in that environment is in
//! `sandbox.lua`.

use crate::code::Code;
use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, Table, Value};
use std::sync::Arc;

/// Add `load(name, environment)`: the function of the module, or nothing.
pub(crate) fn add(lua: &Lua, functions: &Table, code: &Arc<Code>) -> mlua::Result<()> {
    // Weak, because the machine lives as long as somebody has the code.
    let code = Arc::downgrade(code);
    let load = lua.create_function(move |lua, (name, environment): (String, Table)| {
        let Some(code) = code.upgrade() else { return Ok(Value::Nil) };
        let Some(source) = code.module(&name) else { return Ok(Value::Nil) };
        let name = format!("@{}", source.path.display());
        compile(lua, &source.text, name, environment).map(Value::Function)
    })?;
    functions.raw_set("load", load)?;
    let compile = lua.create_function(|lua, (text, name, environment): (mlua::LuaString, String, Table)| {
        compile(lua, &text.as_bytes(), name, environment)
    })?;
    functions.raw_set("compile", compile)
}

/// Text only: bytecode can break out of the machine.
fn compile(lua: &Lua, text: &[u8], name: String, environment: Table) -> mlua::Result<Function> {
    lua.load(text).set_name(name).set_mode(ChunkMode::Text).set_environment(environment).into_function()
}
