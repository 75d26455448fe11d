//! A plugin's `schema.lua` as the loader's [`Schema`]: what a configuration may hold, its defaults and rules, and with
//! what scope and protocols the plugin may be used.
//!
//! `schema/describe.lua` gives the schema as plain data. [`build`] turns that into fields and rules; what of them is code,
//! or a Lua pattern, becomes a closure that asks a machine of its thread ([`hosted`]). Problems of a schema are told with
//! the file and the line where the field stands ([`place`]).

mod attributes;
mod build;
mod checks;
mod hosted;
mod place;

use crate::code::Code;
use gateward_model::schema::{Check, Schema};
use gateward_model::{PluginConfig, Protocol};
use serde_json::{Value, json};
use std::sync::Arc;

/// What a plugin's schema says.
#[derive(Debug)]
pub(crate) struct PluginSchema {
    /// The `config` record.
    pub(crate) config: Arc<Schema>,
    scope: Scope,
}

/// Where a plugin may stand.
#[derive(Debug, Default)]
struct Scope {
    /// References that must not be set: `consumer`, `route`, `service`.
    forbidden: Vec<String>,
    /// Protocols it works with; `None`: any.
    protocols: Option<Vec<String>>,
    /// Protocols of an entity that names none.
    default_protocols: Option<Vec<String>>,
    /// Rules over the whole entity.
    checks: Vec<Check>,
}

/// What is wrong in a schema, and the names that lead there.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    path: Vec<String>,
    message: String,
}

/// The schema of `plugin` as `described`.
///
/// # Errors
/// What is wrong with it: file, line, field.
pub(crate) fn of(code: &Arc<Code>, plugin: &str, described: &Value) -> Result<PluginSchema, String> {
    let host = hosted::Host::new(code, plugin);
    build::plugin(described, &host).map_err(|problem| {
        let source = code.module(&format!("kong.plugins.{plugin}.schema"));
        let Problem { path, message } = problem;
        let field = if path.is_empty() { String::new() } else { format!("{}: ", path.join(".")) };
        match source {
            Some(source) => {
                let line = place::line(&String::from_utf8_lossy(&source.text), &path);
                format!("{}:{line}: {field}{message}", source.path.display())
            }
            None => format!("kong.plugins.{plugin}.schema: {field}{message}"),
        }
    })
}

impl PluginSchema {
    /// The protocols of an entity that names none.
    pub(crate) fn default_protocols(&self) -> Option<Vec<String>> {
        self.scope.default_protocols.clone()
    }

    /// Whether `entity` may stand where it stands.
    ///
    /// # Errors
    /// It may not; a text for the user.
    pub(crate) fn check_scope(&self, entity: &PluginConfig) -> Result<(), String> {
        let name = &entity.name;
        for (field, id) in [("consumer", entity.consumer), ("route", entity.route), ("service", entity.service)] {
            if id.is_some() && self.scope.forbidden.iter().any(|forbidden| forbidden == field) {
                return Err(format!("plugin '{name}' cannot be configured for a {field}: remove `{field}`"));
            }
        }
        if let Some(allowed) = &self.scope.protocols
            && let Some(refused) = entity.protocols.iter().map(word).find(|word| !allowed.contains(word))
        {
            return Err(format!("plugin '{name}' does not work with protocol '{refused}': use {}", allowed.join(", ")));
        }
        if self.scope.checks.is_empty() {
            return Ok(());
        }
        let reference = |id: Option<gateward_model::EntityId>| id.map(|id| json!({ "id": id.to_string() }));
        let record = json!({
            "name": name,
            "config": entity.config,
            "protocols": entity.protocols.iter().map(word).collect::<Vec<_>>(),
            "route": reference(entity.route),
            "service": reference(entity.service),
            "consumer": reference(entity.consumer),
        });
        let broken = self.scope.checks.iter().find_map(|check| gateward_config::broken_check(check, &record));
        broken.map_or(Ok(()), |(_, text)| Err(text))
    }
}

fn word(protocol: &Protocol) -> String {
    serde_json::to_value(protocol).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

impl Problem {
    fn new(message: impl Into<String>) -> Self {
        Self { path: Vec::new(), message: message.into() }
    }

    /// The same, of something within `name`.
    fn within(mut self, name: &str) -> Self {
        self.path.insert(0, name.to_owned());
        self
    }
}

#[cfg(test)]
mod tests;
