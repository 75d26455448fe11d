//! `answer(status, body, headers)` and `fail(status, message, headers)`: what `kong.response.exit` and `.error` said.

use crate::shared::Shared;
use gateward_plugin::{LocalBody, LocalResponse};
use mlua::{Lua, Result, Table, Value};
use std::borrow::Cow;
use std::rc::Rc;

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    let fail = lua.create_function(move |_, (status, message, headers): (u16, String, Option<Table>)| {
        let headers = fields(headers.as_ref())?;
        *own.answer.borrow_mut() = Some(LocalResponse { status, headers, body: LocalBody::Message(message.into()) });
        Ok(())
    })?;
    functions.raw_set("fail", fail)?;
    let shared = shared.clone();
    let answer = lua.create_function(move |_, (status, body, headers): (u16, Value, Option<Table>)| {
        let mut fields = fields(headers.as_ref())?;
        let body = content(&body, &mut fields)?;
        *shared.answer.borrow_mut() = Some(LocalResponse { status, headers: fields, body });
        Ok(())
    })?;
    functions.raw_set("answer", answer)
}

type Fields = Vec<(Cow<'static, str>, String)>;

fn fields(headers: Option<&Table>) -> Result<Fields> {
    let mut fields = Fields::new();
    for pair in headers.into_iter().flat_map(Table::pairs::<String, Value>) {
        let (name, value) = pair?;
        match &value {
            Value::Table(values) => {
                for value in values.sequence_values::<Value>() {
                    fields.push((name.clone().into(), text(&name, &value?)?));
                }
            }
            value => fields.push((name.clone().into(), text(&name, value)?)),
        }
    }
    Ok(fields)
}

fn text(name: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(_) | Value::Integer(_) | Value::Number(_) | Value::Boolean(_) => value.to_string(),
        other => Err(mlua::Error::runtime(format!(
            "invalid value in headers[\"{name}\"]: got {}, expected string, number, boolean or array of strings",
            other.type_name()
        ))),
    }
}

fn content(body: &Value, fields: &mut Fields) -> Result<LocalBody> {
    let named = fields.iter().position(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let content_type = named.map(|index| fields.remove(index).1);
    Ok(match body {
        Value::Nil => {
            if let Some(content_type) = content_type {
                fields.push(("Content-Type".into(), content_type));
            }
            LocalBody::Empty
        }
        Value::String(text) => {
            // What a text is, is for the plugin to say, as in Kong.
            LocalBody::Bytes(content_type.unwrap_or_default(), text.as_bytes().to_vec())
        }
        other => {
            return Err(mlua::Error::runtime(format!("body must be a nil or string, got {}", other.type_name())));
        }
    })
}
