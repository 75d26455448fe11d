//! Templates in a machine.

use super::Vm;
use crate::state::{Phase, Reach, Scene};
use gateward_plugin::{Captures, Exchange, query};
use mlua::{Function, LuaString, Table, Value};

impl Vm {
    /// Whether `text` is a template.
    ///
    /// # Errors
    /// It is not, and why.
    pub(crate) fn template(&self, text: &str) -> Result<(), String> {
        let compile = || self.templates.raw_get::<Function>("compile")?.call::<Value>(text);
        self.watched.during(compile).0.map(drop).map_err(|error| first_line(&error))
    }

    /// What these templates come to for the request of `exchange`.
    ///
    /// # Errors
    /// One failed, or was stopped.
    pub(crate) fn render(&self, texts: &[String], exchange: &mut Exchange) -> Result<Vec<String>, String> {
        let request = self.request(exchange);
        let given = self.template_values(texts, exchange).map_err(|error| first_line(&error))?;
        let reach = Reach::Exchange(exchange);
        let mut scene = Scene { reach, chunk: None, phase: Phase::Access, instance: 0, request };
        let call = || self.templates.raw_get::<Function>("render")?.call::<Vec<LuaString>>(given);
        let (rendered, _) = self.watched.during(|| self.shared.state.enter(&mut scene, call));
        // What an expression said is no answer.
        self.shared.forget();
        let rendered = rendered.map_err(|error| first_line(&error))?;
        Ok(rendered.iter().map(LuaString::to_string_lossy).collect())
    }

    /// The texts, and what they look at: fields, the query, what the route captured.
    fn template_values(&self, texts: &[String], exchange: &Exchange) -> mlua::Result<(Table, Table, Table, Table)> {
        let texts = self.lua.create_sequence_from(texts.iter().map(String::as_str))?;
        let headers = self.lua.create_table()?;
        for (name, value) in exchange.request.headers.iter() {
            self.add_value(&headers, &name.to_ascii_lowercase(), Value::String(self.lua.create_string(value)?))?;
        }
        let arguments = self.lua.create_table()?;
        for (name, value) in query::pairs(exchange.upstream.query.as_deref().unwrap_or_default()) {
            let value = match value {
                Some(value) => Value::String(self.lua.create_string(&*query::decode(value))?),
                None => Value::Boolean(true),
            };
            self.add_value(&arguments, &query::decode(name), value)?;
        }
        let captures = self.lua.create_table()?;
        let Captures { unnamed, named } = &exchange.captures;
        for (number, text) in unnamed.iter().enumerate() {
            captures.raw_set(number, text.as_str())?;
        }
        for (name, text) in named {
            captures.raw_set(name.as_str(), text.as_str())?;
        }
        Ok((texts, headers, arguments, captures))
    }

    /// As OpenResty: several values of a name are a list.
    fn add_value(&self, table: &Table, name: &str, value: Value) -> mlua::Result<()> {
        match table.raw_get::<Value>(name)? {
            Value::Nil => table.raw_set(name, value),
            Value::Table(list) => list.raw_push(value),
            first => table.raw_set(name, self.lua.create_sequence_from([first, value])?),
        }
    }
}

/// Without the traceback.
pub(super) fn first_line(error: &mlua::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("runtime error: ").trim_start_matches("syntax error: ").to_owned()
}
