//! The description of a schema as fields: kinds, defaults, records, shorthands, transformations.

use super::attributes;
use super::checks;
use super::hosted::{Host, below_config};
use super::{PluginSchema, Problem, Scope};
use gateward_model::schema::{Field, Kind, Rule, Schema, Shorthand, Text, Transform};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Fields of the plugin entity that a schema may speak of.
const ENTITY: &[&str] = &[
    "consumer",
    "consumer_group",
    "route",
    "service",
    "protocols",
    "config",
    "enabled",
    "instance_name",
    "tags",
    "ordering",
    "created_at",
    "updated_at",
    "id",
    "name",
];

pub(super) type Built<T> = Result<T, Problem>;

/// A whole `schema.lua`.
pub(super) fn plugin(described: &Value, host: &Host) -> Built<PluginSchema> {
    if described.get("no_consumer").is_some() || described.get("self_check").is_some() {
        return Err(Problem::new("this is a schema for Kong before 1.0; write it with `name` and a list of `fields`"));
    }
    if !described.get("name").is_some_and(Value::is_string) {
        return Err(Problem::new("`name` is missing: the name of the plugin"));
    }
    let mut scope = Scope::default();
    let mut config = None;
    for (name, definition) in entries(described, "fields")? {
        if !ENTITY.contains(&name) {
            return Err(Problem::new("a plugin has no such field; its own settings go below `config`").within(name));
        }
        match name {
            "config" => config = Some((definition, record_of_config(definition, described, host)?)),
            "protocols" => scope.protocols(definition),
            _ if definition.get("eq").is_some_and(Value::is_null) => scope.forbidden.push(name.to_owned()),
            _ => {}
        }
    }
    let Some((_, mut schema)) = config else {
        return Err(Problem::new("there is no `config` among the fields: a record with the plugin's settings"));
    };
    for check in items(described, "entity_checks")? {
        let checks = checks::check(check, true, host).map_err(|problem| problem.within("entity_checks"))?;
        schema.checks.extend(checks.of_config);
        scope.checks.extend(checks.of_entity);
    }
    Ok(PluginSchema { config: Arc::new(schema), scope })
}

impl Scope {
    fn protocols(&mut self, definition: &Value) {
        let texts = |value: Option<&Value>| -> Option<Vec<String>> {
            let texts = value?.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
            (!texts.is_empty()).then_some(texts)
        };
        self.protocols = texts(definition.pointer("/elements/one_of"));
        self.default_protocols = texts(definition.get("default"));
    }
}

fn record_of_config(definition: &Value, described: &Value, host: &Host) -> Built<Schema> {
    let inner = || {
        if definition.get("type").and_then(Value::as_str) != Some("record") {
            return Err(Problem::new("must be of type 'record'"));
        }
        let mut schema = record(definition, host)?;
        schema.transforms.extend(transforms(described, true, host)?);
        Ok(schema)
    };
    inner().map_err(|problem| problem.within("config"))
}

/// The fields and rules of a record.
fn record(definition: &Value, host: &Host) -> Built<Schema> {
    let mut schema = Schema::default();
    for (name, definition) in entries(definition, "fields")? {
        if schema.field(name).is_some() {
            return Err(Problem::new("this field is declared twice").within(name));
        }
        let field = field(definition, host).map_err(|problem| problem.within(name))?;
        schema.fields.push((Text::from(name.to_owned()), field));
    }
    for (name, definition) in entries(definition, "shorthand_fields")? {
        let shorthand = shorthand(name, definition, &schema, host).map_err(|problem| problem.within(name))?;
        schema.shorthands.push(shorthand);
    }
    for (name, function) in entries(definition, "shorthands")? {
        let id = function_id(function).ok_or_else(|| Problem::new("must be a function").within(name))?;
        let expand = host.shorthand(id, schema.fields.clone());
        schema.shorthands.push(Shorthand {
            name: Text::from(name.to_owned()),
            field: Field::any(),
            expand,
            deprecated: None,
        });
    }
    for check in items(definition, "entity_checks")? {
        let checks = checks::check(check, false, host).map_err(|problem| problem.within("entity_checks"))?;
        schema.checks.extend(checks.of_config);
    }
    schema.transforms = transforms(definition, false, host)?;
    Ok(schema)
}

fn shorthand(name: &str, definition: &Value, schema: &Schema, host: &Host) -> Built<Shorthand> {
    let id = definition.get("func").and_then(function_id);
    let id = id.ok_or_else(|| Problem::new("a shorthand needs `func`: the function that gives what it stands for"))?;
    let mut plain = definition.clone();
    if let Value::Object(attributes) = &mut plain {
        attributes.retain(|name, _| !["func", "translate_backwards", "deprecation"].contains(&name.as_str()));
    }
    Ok(Shorthand {
        name: Text::from(name.to_owned()),
        field: field(&plain, host)?,
        expand: host.shorthand(id, schema.fields.clone()),
        deprecated: attributes::deprecation(definition),
    })
}

/// One field.
pub(super) fn field(definition: &Value, host: &Host) -> Built<Field> {
    let Some(attributes) = definition.as_object() else {
        return Err(Problem::new("must be a table that describes the field"));
    };
    attributes::check_names(attributes)?;
    let Some(kind) = attributes.get("type").and_then(Value::as_str) else {
        return Err(Problem::new("`type` is missing"));
    };
    let mut field = Field::new(kind_of(kind, attributes, host)?);
    if kind == "function" {
        field.rules.push(Rule::Custom(|_| Err("expected a function, which a file cannot hold".to_owned())));
    }
    field.required = attributes.get("required") == Some(&Value::Bool(true));
    field.default = attributes.get("default").filter(|value| !value.is_null()).map(|value| {
        let mut value = value.clone();
        settle(&field.kind, &mut value, field.required);
        value
    });
    field.referenceable = attributes.get("referenceable") == Some(&Value::Bool(true));
    field.secret = attributes.get("encrypted") == Some(&Value::Bool(true));
    let text = |name: &str| attributes.get(name).and_then(Value::as_str).map(|text| Text::from(text.to_owned()));
    field.description = text("description");
    field.error = text("err");
    field.deprecated = attributes::deprecation(definition);
    field.rules.extend(attributes::rules(kind, attributes, host)?);
    Ok(field)
}

fn kind_of(kind: &str, attributes: &Map<String, Value>, host: &Host) -> Built<Kind> {
    let inner = |name: &str| {
        let definition = attributes.get(name).ok_or_else(|| {
            Problem::new(format!("a field of type '{kind}' needs `{name}`: the field that describes them"))
        })?;
        let mut inner = field(definition, host).map_err(|problem| problem.within(name))?;
        inner.required = true;
        Ok(Box::new(inner))
    };
    Ok(match kind {
        "string" => Kind::String,
        "number" => Kind::Number,
        "integer" => Kind::Integer,
        "boolean" => Kind::Boolean,
        "any" | "json" | "function" => Kind::Any,
        "array" => Kind::Array(inner("elements")?),
        "set" => Kind::Set(inner("elements")?),
        "map" => Kind::Map(inner("keys")?, inner("values")?),
        "record" => Kind::Record(record(&Value::Object(attributes.clone()), host)?),
        // Nothing in a configuration is looked up: what Kong's own plugins call foreign there is an id.
        "foreign" => Kind::Record(Schema::new([("id", Field::string().rule(Rule::IsUuid).required())])),
        other => {
            return Err(Problem::new(format!(
                "invalid type: {other}; there are array, set, string, number, boolean, integer, foreign, map, record, json, any"
            )));
        }
    })
}

/// A default as the field's kind: an empty table is list and map alike, and the fields of a record have defaults too.
fn settle(kind: &Kind, value: &mut Value, fill: bool) {
    match (kind, &mut *value) {
        (Kind::Array(_) | Kind::Set(_), Value::Object(fields)) if fields.is_empty() => {
            *value = Value::Array(Vec::new());
        }
        (Kind::Map(_, _) | Kind::Record(_), Value::Array(items)) if items.is_empty() => {
            *value = Value::Object(Map::new());
            settle(kind, value, fill);
        }
        (Kind::Array(element) | Kind::Set(element), Value::Array(items)) => {
            items.iter_mut().for_each(|item| settle(&element.kind, item, true));
        }
        (Kind::Map(_, inner), Value::Object(fields)) => {
            fields.values_mut().for_each(|value| settle(&inner.kind, value, true));
        }
        (Kind::Record(schema), Value::Object(fields)) => {
            for (name, field) in &schema.fields {
                match fields.get_mut(&**name) {
                    Some(Value::Null) => drop(fields.remove(&**name)),
                    Some(value) => settle(&field.kind, value, field.required),
                    None if fill => {
                        if let Some(value) = default_of(field) {
                            fields.insert(name.to_string(), value);
                        }
                    }
                    None => {}
                }
            }
        }
        _ => {}
    }
}

/// What the loader fills in for an absent field.
fn default_of(field: &Field) -> Option<Value> {
    if field.default.is_some() || !field.required {
        return field.default.clone();
    }
    let Kind::Record(_) = &field.kind else { return None };
    let mut value = Value::Object(Map::new());
    settle(&field.kind, &mut value, true);
    Some(value)
}

fn transforms(definition: &Value, top: bool, host: &Host) -> Built<Vec<Transform>> {
    let mut transforms = Vec::new();
    for transformation in items(definition, "transformations")? {
        let names = |name: &str| -> Vec<String> {
            let texts = transformation.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            texts.iter().filter_map(Value::as_str).map(|path| below_config(path, top).to_owned()).collect()
        };
        let inputs: Vec<String> = names("input").into_iter().chain(names("needs")).collect();
        // A file is written and read: both happen to it.
        for function in ["on_write", "on_read"] {
            let Some(id) = transformation.get(function).and_then(function_id) else { continue };
            let (host, inputs) = (host.clone(), inputs.clone());
            let apply = move |record: &Value| {
                let value = |path: &String| path.split('.').try_fold(record, |value, name| value.get(name));
                let Some(values) = inputs.iter().map(|path| value(path).cloned()).collect::<Option<Vec<_>>>() else {
                    return Ok(record.clone());
                };
                let given = host.transform(&id, &values)?;
                let given = if top { given.get("config").cloned().unwrap_or_default() } else { given };
                let mut record = record.clone();
                merge(&mut record, given);
                Ok(record)
            };
            transforms.push(Transform { apply: Arc::new(apply) });
        }
    }
    Ok(transforms)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                match into.get_mut(&name) {
                    Some(known) if known.is_object() && value.is_object() => merge(known, value),
                    _ => drop(into.insert(name, value)),
                }
            }
        }
        (_, Value::Null) => {}
        (into, from) => *into = from,
    }
}

/// The name under which a machine knows a function.
pub(super) fn function_id(value: &Value) -> Option<String> {
    value.get("$function")?.as_str().map(str::to_owned)
}

/// A list; an empty table may be one, and so may nothing.
pub(super) fn items<'v>(definition: &'v Value, name: &str) -> Built<&'v [Value]> {
    match definition.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(Value::Object(fields)) if fields.is_empty() => Ok(&[]),
        Some(_) => Err(Problem::new(format!("`{name}` must be a list: {{ {{ name = .. }}, .. }}"))),
    }
}

/// A list of tables with one name each.
fn entries<'v>(definition: &'v Value, name: &str) -> Built<Vec<(&'v str, &'v Value)>> {
    let entry = |item: &'v Value| match item.as_object().map(|fields| (fields.len(), fields.iter().next())) {
        Some((1, Some((name, value)))) => Ok((name.as_str(), value)),
        _ => Err(Problem::new(format!("each of `{name}` must be a table with one name: {{ name = {{ .. }} }}"))),
    };
    items(definition, name)?.iter().map(entry).collect()
}
