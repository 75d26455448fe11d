//! Functions in Rust that the files in `src/lua` call, by subject. They get and give plain values; checking arguments and
//! phases is done in Lua, where the error names the plugin's line.

mod answer;
mod arguments;
mod body;
mod ciphers;
mod codec;
mod dict;
mod digest;
mod entities;
mod fields;
mod figures;
mod keys;
mod log;
mod message;
mod names;
mod node;
mod onward;
mod regex;
pub(crate) mod request;
mod semaphore;
mod snapshot;
mod socket;
mod thread;
mod time;
mod timer;
mod variables;
mod wire;
mod work;
mod x509;
mod yaml;

use crate::code::Code;
use crate::shared::Shared;
use mlua::{Lua, Table};
use std::rc::Rc;
use std::sync::Arc;

/// Add all of them to `functions`.
pub(crate) fn add(lua: &Lua, functions: &Table, code: &Arc<Code>, shared: &Rc<Shared>) -> mlua::Result<()> {
    answer::add(lua, functions, shared)?;
    arguments::add(lua, functions)?;
    body::add(lua, functions, shared)?;
    ciphers::add(lua, functions)?;
    codec::add(lua, functions)?;
    dict::add(lua, functions)?;
    digest::add(lua, functions)?;
    entities::add(lua, functions, shared)?;
    fields::add(lua, functions, shared)?;
    figures::add(lua, functions, shared)?;
    keys::add(lua, functions)?;
    log::add(lua, functions)?;
    message::add(lua, functions, shared)?;
    names::add(lua, functions)?;
    node::add(lua, functions, code)?;
    onward::add(lua, functions, shared)?;
    request::add(lua, functions, shared)?;
    regex::add(lua, functions)?;
    semaphore::add(lua, functions, shared)?;
    snapshot::add(lua, functions, shared)?;
    socket::add(lua, functions, shared)?;
    thread::add(lua, functions, shared)?;
    time::add(lua, functions)?;
    timer::add(lua, functions, shared)?;
    variables::add(lua, functions, shared)?;
    wire::add(lua, functions, shared)?;
    work::add(lua, functions)?;
    x509::add(lua, functions)?;
    yaml::add(lua, functions)
}
