//! The piece of the response body under way, and the record of a request that is over.

use crate::convert::to_lua;
use crate::shared::Shared;
use mlua::{Lua, LuaString, Result, Table, Value};
use std::rc::Rc;

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    let chunk = lua.create_function(move |lua, ()| {
        let chunk = own.state.chunk(|chunk| chunk.clone());
        chunk.map(|chunk| lua.create_string(chunk)).transpose()
    })?;
    functions.raw_set("chunk", chunk)?;
    let own = shared.clone();
    let set_chunk = lua.create_function(move |_, text: Option<LuaString>| {
        own.state.chunk(|chunk| {
            chunk.clear();
            chunk.extend_from_slice(&text.map(|text| text.as_bytes().to_vec()).unwrap_or_default());
        });
        Ok(())
    })?;
    functions.raw_set("set_chunk", set_chunk)?;
    let own = shared.clone();
    let record = lua.create_function(move |lua, ()| {
        let record = own.state.record(|record| record.to_json());
        let record = record.or_else(|| own.state.stream_record(|record| record.to_json()));
        record.map_or(Ok(Value::Nil), |record| to_lua(lua, &record, &Value::Nil))
    })?;
    functions.raw_set("record", record)
}
