//! Fields of the request and of the response as a whole, and those changes that `fast` has no function for.

use crate::shared::Shared;
use gateward_http::Headers;
use gateward_plugin::Exchange;
use mlua::{Lua, LuaString, Result, Table, Value};
use std::borrow::Cow;
use std::rc::Rc;

/// Which fields; `core.lua` knows the numbers.
const REQUEST: u32 = 0;

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    let list = lua.create_function(move |lua, (which, most, raw): (u32, usize, bool)| {
        let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
        let mut total = 0;
        own.state.read(|exchange| {
            let found = of(exchange, which);
            total = found.len();
            let name = |name: &str| if raw { name.to_owned() } else { name.to_ascii_lowercase() };
            fields.extend(found.iter().take(most).map(|(key, value)| (name(key), value.to_vec())));
        });
        Ok((table(lua, fields)?, total > most))
    })?;
    functions.raw_set("fields", list)?;
    let own = shared.clone();
    let change = lua.create_function(move |_, (which, how, name, values): (u32, LuaString, LuaString, Value)| {
        let Ok(name) = name.to_str() else { return Ok(2) };
        let values = texts(&values)?;
        let (replace, name) = (*how.as_bytes() == *b"set", field_name(which, &name));
        Ok(match own.state.exchange(|exchange| change(exchange, which, replace, &name, &values)) {
            Some(true) => 0,
            None => 1,
            Some(false) => 2,
        })
    })?;
    functions.raw_set("change_field", change)
}

/// In responses underscores become dashes, as in OpenResty.
fn field_name(which: u32, name: &str) -> Cow<'_, str> {
    if which != REQUEST && name.contains('_') { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) }
}

pub(super) fn of(exchange: &Exchange, which: u32) -> &Headers {
    match which {
        REQUEST => &exchange.request.headers,
        _ if exchange.response.status == 0 => &exchange.response.early,
        _ => &exchange.response.headers,
    }
}

fn of_mut(exchange: &mut Exchange, which: u32) -> &mut Headers {
    match which {
        REQUEST => &mut exchange.request.headers,
        _ if exchange.response.status == 0 => &mut exchange.response.early,
        _ => &mut exchange.response.headers,
    }
}

/// Names to values; to arrays where a name is there more than once.
fn table(lua: &Lua, fields: Vec<(String, Vec<u8>)>) -> Result<Table> {
    let table = lua.create_table_with_capacity(0, fields.len())?;
    for (name, value) in fields {
        let value = lua.create_string(value)?;
        match table.raw_get::<Value>(name.as_str())? {
            Value::Nil => table.raw_set(name, value)?,
            Value::Table(values) => values.raw_push(value)?,
            first => table.raw_set(name, lua.create_sequence_from([first, Value::String(value)])?)?,
        }
    }
    Ok(table)
}

/// A value, an array of them, or none.
fn texts(values: &Value) -> Result<Vec<Vec<u8>>> {
    match values {
        Value::Nil => Ok(Vec::new()),
        Value::Table(values) => values.sequence_values::<Value>().map(|value| text(&value?)).collect(),
        value => Ok(vec![text(value)?]),
    }
}

fn text(value: &Value) -> Result<Vec<u8>> {
    match value {
        Value::String(text) => Ok(text.as_bytes().to_vec()),
        other => other.to_string().map(String::into_bytes),
    }
}

/// `false`: not a field's name or value; then nothing was changed but values before it.
fn change(exchange: &mut Exchange, which: u32, replace: bool, name: &str, values: &[Vec<u8>]) -> bool {
    if which == REQUEST && name.eq_ignore_ascii_case("host") {
        let host = values.first().and_then(|value| str::from_utf8(value).ok()).filter(|host| !host.is_empty());
        exchange.upstream.host = host.map(str::to_owned);
        return match values.first() {
            Some(value) => exchange.request.headers.set("Host", value),
            None => true,
        };
    }
    if replace && values.is_empty() {
        of_mut(exchange, which).remove(name);
        return true;
    }
    let headers = of_mut(exchange, which);
    let mut rest = values.iter();
    if replace && !rest.next().is_some_and(|first| headers.set(name, first)) {
        return false;
    }
    rest.all(|value| headers.add(name, value))
}
