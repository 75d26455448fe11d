//! The closures of a schema whose rules are Lua.

use crate::code::Code;
use crate::vm::{Said, ask};
use gateward_model::schema::{CheckTest, Expand, HostedRule, Kind, Schema, Test, Text};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Asks the functions of one plugin's schema, on whatever thread.
#[derive(Clone)]
pub(super) struct Host {
    code: Arc<Code>,
    plugin: Arc<str>,
}

impl Host {
    pub(super) fn new(code: &Arc<Code>, plugin: &str) -> Self {
        Self { code: code.clone(), plugin: plugin.into() }
    }

    fn ask(&self, what: &str, id: &str, values: &[Value]) -> Result<Said, String> {
        ask(&self.code, &self.plugin, what, id, values)
    }

    /// Kong's rule `name`, one of those with Lua patterns.
    ///
    /// # Errors
    /// A pattern is none.
    pub(super) fn pattern(&self, name: &'static str, argument: &Value) -> Result<HostedRule, String> {
        // A text nothing is said of, to find out whether the patterns are right.
        self.ask(name, "", &[Value::from("-"), argument.clone()])?;
        let (host, given) = (self.clone(), argument.clone());
        let test: Arc<Test> = Arc::new(move |value| match host.ask(name, "", &[value.clone(), given.clone()])? {
            Said::Yes(_) => Ok(()),
            Said::No(text, _) => Err(text),
        });
        Ok(HostedRule { name: name.into(), argument: argument.clone(), test })
    }

    /// The `custom_validator` named `id`.
    pub(super) fn validator(&self, id: String) -> HostedRule {
        let host = self.clone();
        let test: Arc<Test> =
            Arc::new(move |value| match host.ask("custom_validator", &id, std::slice::from_ref(value)) {
                Ok(Said::Yes(_)) => Ok(()),
                Ok(Said::No(text, _)) => Err(text),
                Err(error) => Err(format!("the plugin's custom_validator failed: {error}")),
            });
        HostedRule { name: "custom_validator".into(), argument: Value::Null, test }
    }

    /// The `custom_entity_check` named `id` over these fields. `top`: it is written for the entity that holds `config`.
    pub(super) fn check(&self, id: String, sources: &[String], top: bool) -> Arc<CheckTest> {
        let host = self.clone();
        let listed = Value::from(sources.to_vec());
        let only = match sources {
            [one] => below_config(one, top).to_owned(),
            _ => String::new(),
        };
        Arc::new(move |record| {
            let record = if top {
                Value::Object(Map::from_iter([("config".to_owned(), record.clone())]))
            } else {
                record.clone()
            };
            match host.ask("custom_entity_check", &id, &[record, listed.clone()]) {
                Ok(Said::Yes(_)) => Ok(()),
                Ok(Said::No(text, field)) => {
                    let field = field.map_or_else(|| only.clone(), |field| below_config(&field, top).to_owned());
                    Err((field, text))
                }
                Err(error) => Err((String::new(), format!("the plugin's entity check failed: {error}"))),
            }
        })
    }

    /// The function named `id` of a shorthand in a record with these fields.
    pub(super) fn shorthand(&self, id: String, fields: Vec<(Text, gateward_model::schema::Field)>) -> Expand {
        let host = self.clone();
        let schema = Schema { fields, ..Schema::default() };
        Arc::new(move |value| match host.ask("shorthand", &id, std::slice::from_ref(value)) {
            Ok(Said::Yes(values)) => {
                let mut pairs = Vec::new();
                flatten(&schema, &values, "", &mut pairs);
                Ok(pairs)
            }
            Ok(Said::No(text, _)) => Err(text),
            Err(error) => Err(format!("the plugin's shorthand failed: {error}")),
        })
    }

    /// Run the transformation function named `id` on these values: what it gives is to be merged into the record.
    pub(super) fn transform(&self, id: &str, values: &[Value]) -> Result<Value, String> {
        match self.ask("transform", id, values) {
            Ok(Said::Yes(values)) => Ok(values),
            Ok(Said::No(text, _)) => Err(format!("transformation failed: {text}")),
            Err(error) => Err(format!("transformation failed: {error}")),
        }
    }
}

/// A path of the entity as one of its `config`.
pub(super) fn below_config(path: &str, top: bool) -> &str {
    match path.strip_prefix("config") {
        Some("") if top => "",
        Some(rest) if top && rest.starts_with('.') => &rest[1..],
        _ => path,
    }
}

/// Nested records as paths; anything else is a value.
fn flatten(schema: &Schema, values: &Value, path: &str, pairs: &mut Vec<(String, Value)>) {
    let Value::Object(values) = values else { return };
    for (name, value) in values {
        let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match (schema.field(name).map(|field| &field.kind), value) {
            (Some(Kind::Record(inner)), Value::Object(fields)) if !fields.is_empty() => {
                flatten(inner, value, &at, pairs);
            }
            (Some(Kind::Array(_) | Kind::Set(_)), Value::Object(fields)) if fields.is_empty() => {
                pairs.push((at, Value::Array(Vec::new())));
            }
            _ => pairs.push((at, value.clone())),
        }
    }
}
