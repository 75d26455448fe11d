//! The piece of the response body under way, and the record of a request.

use crate::convert::{to_json_up_to, to_lua};
use crate::shared::Shared;
use gateward_plugin::{CHANGES_MAX, ChangeMode};
use mlua::{Lua, LuaString, Result, Table, Value};
use std::rc::Rc;

/// Values of one change of a record.
const VALUES: usize = 1 << 15;

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
        record.map_or(Ok(Value::Nil), |record| to_lua(lua, &record, &Value::NULL))
    })?;
    functions.raw_set("record", record)?;
    let own = shared.clone();
    let change = lua.create_function(move |_, (path, value, mode): (LuaString, Value, LuaString)| {
        Ok(change_record(&own, path.to_string_lossy(), &value, &mode.as_bytes()).err())
    })?;
    functions.raw_set("change_record", change)
}

/// Change a field of the record that the request or stream under way will have; nil lets it go.
fn change_record(shared: &Shared, path: String, value: &Value, mode: &[u8]) -> std::result::Result<(), String> {
    let mode = match mode {
        b"add" => ChangeMode::Add,
        b"replace" => ChangeMode::Replace,
        _ => ChangeMode::Set,
    };
    let value = if value.is_nil() { None } else { Some(to_json_up_to(value, VALUES, CHANGES_MAX)?) };
    let mut change = Some((path, value));
    let of_stream = shared.state.stream_record(|record| {
        change.take().map_or(Ok(()), |(path, value)| record.stream.changes.push(path, value, mode))
    });
    let of_request = || {
        shared
            .state
            .read(|exchange| change.take().map_or(Ok(()), |(path, value)| exchange.changes.push(path, value, mode)))
    };
    of_stream.or_else(of_request).unwrap_or(Ok(()))
}
