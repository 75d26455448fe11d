//! `figure(name)`: how a request ended, whatever plugins changed in what is logged of it; `tries()`: whom it was sent to, and how
//! many microseconds it took to reach them; `tries_list()`: what Kong keeps of each, of those that were made so far.

use crate::shared::Shared;
use gateward_plugin::{RequestRecord, Try};
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
        let each = |tries: &[Try]| -> (Vec<String>, Vec<u64>) {
            tries.iter().map(|attempt| (attempt.address.to_string(), attempt.connect_us)).unzip()
        };
        Ok(with_tries(&own, each).unwrap_or_default())
    })?;
    functions.raw_set("tries", tries)?;
    let own = shared.clone();
    let tries_list =
        lua.create_function(move |lua, ()| list(lua, &with_tries(&own, <[Try]>::to_vec).unwrap_or_default()))?;
    functions.raw_set("tries_list", tries_list)
}

/// Look at the tries of the request or stream that is over, or of the request under way.
fn with_tries<R>(shared: &Shared, look: impl Fn(&[Try]) -> R) -> Option<R> {
    let state = &shared.state;
    let over = state.record(|record| look(record.tries));
    let over = over.or_else(|| state.stream_record(|record| look(record.tries)));
    over.or_else(|| state.read(|exchange| look(&exchange.tries)))
}

/// Tries as Kong keeps them (kong/runloop/balancer/init.lua, kong/init.lua).
fn list(lua: &Lua, tries: &[Try]) -> Result<Table> {
    let list = lua.create_table_with_capacity(tries.len(), 0)?;
    for attempt in tries {
        let entry = lua.create_table()?;
        entry.raw_set("ip", attempt.address.ip().to_string())?;
        entry.raw_set("port", attempt.address.port())?;
        entry.raw_set("balancer_start", attempt.started_at_ms as f64)?;
        entry.raw_set("balancer_start_ns", attempt.started_at_ms as f64 * 1e6)?;
        entry.raw_set("balancer_latency", (attempt.connect_us / 1000) as f64)?;
        entry.raw_set("balancer_latency_ns", attempt.connect_us as f64 * 1e3)?;
        entry.raw_set("keepalive", attempt.keepalive)?;
        entry.raw_set("state", attempt.failure)?;
        entry.raw_set("code", attempt.code())?;
        list.raw_push(entry)?;
    }
    Ok(list)
}

fn figure(record: &RequestRecord<'_>, name: &[u8]) -> Option<f64> {
    let figure = match name {
        b"request_bytes" => record.request_bytes,
        b"response_bytes" => record.response_bytes,
        b"response_body_bytes" => record.response_body_bytes,
        b"completed" => u64::from(record.error.is_none()),
        b"request_us" => record.request_us,
        b"upstream_us" => record.upstream_us?,
        b"receive_us" => record.receive_us,
        _ => return None,
    };
    Some(figure as f64)
}
