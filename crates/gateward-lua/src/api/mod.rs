//! Functions in Rust that the files in `src/lua` call, by subject. They get and give plain values; checking arguments and
//! phases is done in Lua, where the error names the plugin's line.

mod answer;
mod dict;
mod digest;
mod log;
mod message;
mod names;
mod semaphore;
mod snapshot;
mod socket;
mod thread;
mod time;
mod timer;

use crate::shared::Shared;
use mlua::{Lua, Table};
use std::rc::Rc;

/// Add all of them to `functions`.
pub(crate) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> mlua::Result<()> {
    answer::add(lua, functions, shared)?;
    dict::add(lua, functions)?;
    digest::add(lua, functions)?;
    log::add(lua, functions)?;
    message::add(lua, functions, shared)?;
    names::add(lua, functions)?;
    semaphore::add(lua, functions)?;
    snapshot::add(lua, functions, shared)?;
    socket::add(lua, functions, shared)?;
    thread::add(lua, functions, shared)?;
    time::add(lua, functions)?;
    timer::add(lua, functions, shared)
}
