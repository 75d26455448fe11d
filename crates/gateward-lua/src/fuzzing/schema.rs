//! Schemas as plugins might write them, and configurations for them: whatever they are, they are taken or refused, and
//! loading ends.

use super::bytes::Bytes;
use super::no_plugins;
use crate::schema::{self, PluginSchema};
use crate::vm::describe_here;
use gateward_config::{Format, Options, load};
use gateward_model::RouterFlavor;
use gateward_model::schema::{PluginSchemas, Schema};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Turns what JSON cannot say into Lua: `{"$f": n}` is a function, `{"$t": name}` a ready-made field, `{"$v": n}` a value
/// that has no place in a schema.
const ENLIVEN: &str = r"
local require, null = ...
local typedefs = require 'kong.db.schema.typedefs'
local functions = {
  function() return true end,
  function() return nil, 'no' end,
  function(value) return value end,
  function() error('at once') end,
  function() error({ fields = { a = 'b' } }) end,
  function() while true do end end,
  function() return { a = 1, b = { c = null } } end,
  function(value) if type(value) == 'table' then value.a = value end return value end,
  function(value) local deep = {} for _ = 1, 300 do deep = { deep } end return deep end,
  function() return nil, { a = { b = { 'no', 'never' } } } end,
  function(value) return tostring(value):rep(1000) end,
  function() local function again() return 1 + again() end return again() end,
  function(value) return value.a.b.c end,
  function() return function() end end,
  function() return { [1] = 1, [1000] = 2, a = 0 / 0, b = 1 / 0 } end,
  function() return false, setmetatable({}, { __tostring = function() error('never') end }) end,
}
local circle = {}
circle.circle = circle
local values = {
  0 / 0, 1 / 0, circle, setmetatable({}, { __index = function() error('never') end }), null, newproxy(),
  coroutine.create(function() end), function() end, '\255\0', { [1.5] = true }, { [true] = 1 }, { [circle] = 1 },
}
local function enliven(value)
  if type(value) ~= 'table' then return value end
  if value['$f'] then return functions[value['$f'] % #functions + 1] end
  if value['$v'] then return values[value['$v'] % #values + 1] end
  if value['$t'] then return typedefs[value['$t']] or values[1] end
  for name, inner in next, value do value[name] = enliven(inner) end
  return value
end
return enliven
";

const WORDS: &[&str] = &["a", "b", "c", "config", "config.a", "a.b", "http", "https", "", "x.y.z", "id", "é"];
const TYPES: &[&str] = &[
    "string", "number", "integer", "boolean", "array", "set", "map", "record", "foreign", "any", "json", "function",
    "x",
];
const TYPEDEFS: &[&str] = &[
    "host",
    "port",
    "url",
    "headers",
    "protocols_http",
    "no_consumer",
    "uuid",
    "cidr",
    "ip_or_cidr",
    "tags",
    "timeout",
    "redis_host",
    "http_method",
    "lua_code",
    "queue",
    "certificate",
    "key",
    "methods",
    "sources",
    "semantic_version",
    "nope",
];
const ATTRIBUTES: &[&str] = &[
    "required",
    "default",
    "one_of",
    "not_one_of",
    "eq",
    "ne",
    "gt",
    "between",
    "len_eq",
    "len_min",
    "len_max",
    "match",
    "not_match",
    "match_all",
    "match_none",
    "match_any",
    "starts_with",
    "contains",
    "is_regex",
    "uuid",
    "timestamp",
    "custom_validator",
    "mutually_exclusive_subsets",
    "referenceable",
    "encrypted",
    "err",
    "deprecation",
    "auto",
    "fields",
    "elements",
    "keys",
    "values",
    "shorthand_fields",
    "shorthands",
    "transformations",
    "entity_checks",
    "nonsense",
];
const CHECKS: &[&str] = &[
    "at_least_one_of",
    "only_one_of",
    "distinct",
    "conditional",
    "conditional_at_least_one_of",
    "custom_entity_check",
    "mutually_required",
    "mutually_exclusive",
    "mutually_exclusive_sets",
    "nonsense",
];
/// With at most two repetitions each: what takes long is a matter of C (docs/adr/0018).
const PATTERNS: &[&str] = &["^a", "a-b", "%d+", "[", "%", "(a", "%b()", "%f[%w]", "^%s*$", "(%1)", ".*x", ""];
/// Levels of what is made.
const DEPTH: usize = 5;

/// A schema and a configuration, made of the bytes.
pub fn schema(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let written = plugin(&mut bytes);
    let Ok(Some(described)) = describe_here(no_plugins(), "fuzzed", ENLIVEN, &written) else { return };
    let Ok(built) = schema::of(no_plugins(), "fuzzed", &described) else { return };
    let plugins = Plugins(Arc::new(built));
    let config = config(&mut bytes, &written, DEPTH);
    let file = json!({ "_format_version": "3.0", "plugins": [{ "name": "fuzzed", "config": config }] });
    let text = file.to_string();
    let options = Options { plugins: &plugins, flavor: RouterFlavor::default(), vault: &|_| None, now: 1_700_000_000 };
    if let Err(problems) = load(text.as_bytes(), Format::Json, &options) {
        assert!(!problems.is_empty(), "refused without a reason: {text}");
    }
}

struct Plugins(Arc<PluginSchema>);

impl PluginSchemas for Plugins {
    fn config_schema(&self, _: &str) -> Option<Arc<Schema>> {
        Some(self.0.config.clone())
    }

    fn plugin_names(&self) -> Vec<String> {
        vec!["fuzzed".to_owned()]
    }

    fn default_protocols(&self, _: &str) -> Option<Vec<String>> {
        self.0.default_protocols()
    }

    fn check_scope(&self, entity: &gateward_model::PluginConfig) -> Result<(), String> {
        self.0.check_scope(entity)
    }
}

/// A whole `schema.lua`, which is seldom right but never far off.
fn plugin(bytes: &mut Bytes<'_>) -> Value {
    let mut fields = vec![json!({ "config": record(bytes, DEPTH) })];
    if bytes.below(3) == 0 {
        fields.push(json!({ "protocols": { "$t": "protocols_http" } }));
    }
    if bytes.below(4) == 0 {
        fields.push(json!({ bytes.text(&["consumer", "route", "service", "config", "id"]): { "$t": "no_consumer" } }));
    }
    let mut schema = json!({ "name": "fuzzed", "fields": fields });
    if bytes.below(2) == 1 {
        schema["entity_checks"] = checks(bytes, 2);
    }
    if bytes.below(3) == 2 {
        schema["transformations"] = transformations(bytes);
    }
    schema
}

fn record(bytes: &mut Bytes<'_>, depth: usize) -> Value {
    let mut record = json!({ "type": "record", "fields": fields(bytes, depth) });
    for name in ["entity_checks", "shorthand_fields", "transformations", "required", "default"] {
        if bytes.below(4) == 3 {
            record[name] = attribute(bytes, name, depth.saturating_sub(1));
        }
    }
    record
}

fn fields(bytes: &mut Bytes<'_>, depth: usize) -> Value {
    let mut name = || bytes.byte();
    let names = [name(), name(), name()].map(|byte| WORDS[usize::from(byte) % 4]);
    let count = bytes.below(4);
    names.iter().take(count).map(|name| json!({ *name: field(bytes, depth.saturating_sub(1)) })).collect()
}

fn field(bytes: &mut Bytes<'_>, depth: usize) -> Value {
    if bytes.below(8) == 7 {
        return json!({ "$t": bytes.one_of(TYPEDEFS) });
    }
    if bytes.below(32) == 31 {
        return strange(bytes, depth);
    }
    let kind = bytes.one_of(if depth == 0 { &TYPES[..4] } else { TYPES });
    let mut field = if kind == "record" { record(bytes, depth) } else { json!({ "type": kind }) };
    match kind {
        "array" | "set" => field["elements"] = self::field(bytes, depth - 1),
        "map" => {
            field["keys"] = self::field(bytes, depth - 1);
            field["values"] = self::field(bytes, depth - 1);
        }
        _ => {}
    }
    for _ in 0..bytes.below(4) {
        let name = bytes.one_of(ATTRIBUTES);
        field[name] = attribute(bytes, name, depth.saturating_sub(1));
    }
    field
}

fn strange(bytes: &mut Bytes<'_>, depth: usize) -> Value {
    if bytes.below(2) == 0 { json!({ "$v": bytes.byte() }) } else { bytes.json(WORDS, depth.min(3)) }
}

fn attribute(bytes: &mut Bytes<'_>, name: &str, depth: usize) -> Value {
    if bytes.below(8) == 7 {
        return strange(bytes, depth);
    }
    let pattern =
        |bytes: &mut Bytes<'_>| bytes.text(PATTERNS).chars().filter(|c| !"*+-?".contains(*c)).collect::<String>();
    match name {
        "required" | "is_regex" | "uuid" | "timestamp" | "referenceable" | "encrypted" | "auto" => {
            Value::Bool(bytes.byte().is_multiple_of(2))
        }
        "gt" => json!(bytes.byte()),
        "between" => json!([bytes.byte(), bytes.byte()]),
        "len_eq" | "len_min" | "len_max" => json!(bytes.below(4)),
        "match" | "not_match" => {
            if bytes.below(2) == 0 {
                json!(bytes.one_of(PATTERNS))
            } else {
                json!(pattern(bytes))
            }
        }
        "match_all" | "match_none" => json!([{ "pattern": bytes.one_of(PATTERNS), "err": "no" }]),
        "match_any" => json!({ "patterns": [bytes.one_of(PATTERNS), pattern(bytes)], "err": "no" }),
        "starts_with" | "err" => json!(bytes.text(WORDS)),
        "custom_validator" => json!({ "$f": bytes.byte() }),
        "one_of" | "not_one_of" => json!([bytes.text(WORDS), bytes.byte()]),
        "mutually_exclusive_subsets" => json!([[bytes.text(WORDS)], [bytes.text(WORDS)]]),
        "deprecation" => json!({ "message": bytes.text(WORDS), "removal_in_version": "4.0" }),
        "fields" => fields(bytes, depth),
        "elements" | "keys" | "values" => field(bytes, depth),
        "shorthand_fields" => {
            let name = bytes.text(WORDS);
            json!([{ name: { "type": bytes.one_of(TYPES), "func": { "$f": bytes.byte() } } }])
        }
        "shorthands" => json!([{ bytes.text(WORDS): { "$f": bytes.byte() } }]),
        "transformations" => transformations(bytes),
        "entity_checks" => checks(bytes, depth),
        _ => bytes.json(WORDS, depth.min(3)),
    }
}

fn transformations(bytes: &mut Bytes<'_>) -> Value {
    let mut transformation = json!({ "input": [bytes.text(WORDS)] });
    transformation[bytes.one_of(&["on_write", "on_read"])] = json!({ "$f": bytes.byte() });
    if bytes.below(2) == 1 {
        transformation["needs"] = json!([bytes.text(WORDS)]);
    }
    json!([transformation])
}

fn checks(bytes: &mut Bytes<'_>, depth: usize) -> Value {
    let count = bytes.below(3);
    (0..count).map(|_| check(bytes, depth)).collect()
}

fn check(bytes: &mut Bytes<'_>, depth: usize) -> Value {
    let name = bytes.one_of(CHECKS);
    let condition = |bytes: &mut Bytes<'_>| {
        let name = bytes.one_of(ATTRIBUTES);
        json!({ name: attribute(bytes, name, depth.min(1)) })
    };
    let argument = match name {
        "conditional" => json!({
            "if_field": bytes.text(WORDS), "if_match": condition(bytes),
            "then_field": bytes.text(WORDS), "then_match": condition(bytes), "then_err": bytes.text(WORDS),
        }),
        "conditional_at_least_one_of" => json!({
            "if_field": bytes.text(WORDS), "if_match": condition(bytes),
            "then_at_least_one_of": [bytes.text(WORDS), bytes.text(WORDS)],
            "else_match": condition(bytes), "else_then_at_least_one_of": [bytes.text(WORDS)],
        }),
        "custom_entity_check" => json!({ "field_sources": [bytes.text(WORDS)], "fn": { "$f": bytes.byte() } }),
        "mutually_exclusive_sets" => json!({ "set1": [bytes.text(WORDS)], "set2": [bytes.text(WORDS)] }),
        _ => json!([bytes.text(WORDS), bytes.text(WORDS)]),
    };
    if bytes.below(8) == 7 { strange(bytes, depth) } else { json!({ name: argument }) }
}

/// A configuration that knows the names of the schema.
fn config(bytes: &mut Bytes<'_>, schema: &Value, depth: usize) -> Value {
    if depth == 0 || bytes.below(8) == 7 {
        return bytes.json(WORDS, depth.min(3));
    }
    let names = schema.get("fields").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if let Some(inner) = names.iter().find_map(|entry| entry.get("config")) {
        return config(bytes, inner, depth);
    }
    let mut object = Map::new();
    for (name, field) in names.iter().filter_map(Value::as_object).flatten() {
        let value = match field.get("type").and_then(Value::as_str) {
            _ if bytes.below(6) == 5 => bytes.json(WORDS, 2),
            Some("string") => json!(bytes.text(WORDS)),
            Some("number" | "integer") => json!(bytes.byte()),
            Some("boolean") => json!(bytes.byte().is_multiple_of(2)),
            Some("array" | "set") => {
                let element = &field["elements"];
                let count = bytes.below(5);
                (0..count).map(|_| of_field(bytes, element, depth - 1)).collect()
            }
            Some("map") => json!({ bytes.text(WORDS): of_field(bytes, &field["values"], depth - 1) }),
            Some("record") => config(bytes, field, depth - 1),
            _ => bytes.json(WORDS, 2),
        };
        object.insert(name.clone(), value);
    }
    for _ in 0..bytes.below(3) {
        object.insert(bytes.text(WORDS), bytes.json(WORDS, 2));
    }
    Value::Object(object)
}

fn of_field(bytes: &mut Bytes<'_>, field: &Value, depth: usize) -> Value {
    match field.get("type").and_then(Value::as_str) {
        Some("string") => json!(bytes.text(WORDS)),
        Some("number" | "integer") => json!(bytes.byte()),
        Some("record") => config(bytes, field, depth),
        _ => bytes.json(WORDS, depth.min(2)),
    }
}
