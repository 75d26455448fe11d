//! `figure(name)`: how a request ended, whatever plugins changed in what is logged of it; `tries()`: whom it was sent to, and how
//! many microseconds it took to reach them.

use crate::shared::Shared;
use gateward_plugin::RequestRecord;
use mlua::{Lua, LuaString, Result, Table};
use std::rc::Rc;

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    let figure = lua.create_function(move |_, name: LuaString| {
        Ok(own.state.record(|record| figure(record, &name.as_bytes())).flatten())
    })?;
    functions.raw_set("figure", figure)?;
    let own = shared.clone();
    let tries = lua.create_function(move |_, ()| {
        let each = |record: &RequestRecord<'_>| -> (Vec<String>, Vec<u64>) {
            record.tries.iter().map(|attempt| (attempt.address.to_string(), attempt.connect_us)).unzip()
        };
        Ok(own.state.record(each).unwrap_or_default())
    })?;
    functions.raw_set("tries", tries)
}

fn figure(record: &RequestRecord<'_>, name: &[u8]) -> Option<f64> {
    let figure = match name {
        b"request_bytes" => record.request_bytes,
        b"response_bytes" => record.response_bytes,
        b"request_us" => record.request_us,
        b"upstream_us" => record.upstream_us?,
        b"receive_us" => record.receive_us,
        _ => return None,
    };
    Some(figure as f64)
}
