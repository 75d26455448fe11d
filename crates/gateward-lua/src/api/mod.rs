//! Functions in Rust that the files in `src/lua` call, by subject. They get and give plain values; checking arguments and
//! phases is done in Lua, where the error names the plugin's line.

mod answer;
mod log;
mod message;
mod names;
mod time;

use crate::shared::Shared;
use mlua::{Lua, Table};
use std::rc::Rc;

/// Add all of them to `functions`.
pub(crate) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> mlua::Result<()> {
    answer::add(lua, functions, shared)?;
    log::add(lua, functions)?;
    message::add(lua, functions, shared)?;
    names::add(lua, functions)?;
    time::add(lua, functions)
}
