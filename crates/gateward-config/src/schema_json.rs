//! Schemas in the JSON form of Kong's `/schemas/...` Admin API.

use gateward_model::schema::{Check, Field, Kind, Rule, Schema};
use serde_json::{Map, Value, json};

/// `{"fields": [{"name": {"type": .., "default": ..}}, ..], "shorthand_fields": [..], "entity_checks": [..]}`.
pub fn schema_to_json(schema: &Schema) -> Value {
    let mut out = Map::new();
    let fields = schema.fields.iter().map(|(name, field)| one(name, field_to_json(field)));
    out.insert("fields".to_owned(), fields.collect());
    if !schema.shorthands.is_empty() {
        let shorthands =
            schema.shorthands.iter().map(|shorthand| one(&shorthand.name, field_to_json(&shorthand.field)));
        out.insert("shorthand_fields".to_owned(), shorthands.collect());
    }
    let checks: Vec<Value> = schema.checks.iter().filter_map(check_to_json).collect();
    if !checks.is_empty() {
        out.insert("entity_checks".to_owned(), Value::Array(checks));
    }
    Value::Object(out)
}

fn one(name: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(name.to_owned(), value)]))
}

fn field_to_json(field: &Field) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| drop(out.insert(name.to_owned(), value));
    match &field.kind {
        Kind::String => put("type", json!("string")),
        Kind::Number => put("type", json!("number")),
        Kind::Integer => put("type", json!("integer")),
        Kind::Boolean => put("type", json!("boolean")),
        Kind::Any => put("type", json!("any")),
        Kind::Array(element) | Kind::Set(element) => {
            put("type", json!(if matches!(field.kind, Kind::Set(_)) { "set" } else { "array" }));
            put("elements", field_to_json(element));
        }
        Kind::Map(key, value) => {
            put("type", json!("map"));
            put("keys", field_to_json(key));
            put("values", field_to_json(value));
        }
        Kind::Record(schema) => {
            put("type", json!("record"));
            if let Value::Object(nested) = schema_to_json(schema) {
                nested.into_iter().for_each(|(name, value)| put(&name, value));
            }
        }
        Kind::Foreign(target) => {
            put("type", json!("foreign"));
            put("reference", json!(target));
        }
    }
    if field.required || field.default.is_some() {
        put("required", json!(true));
    }
    if let Some(default) = &field.default {
        put("default", default.clone());
    }
    if field.referenceable {
        put("referenceable", json!(true));
    }
    if field.secret {
        put("encrypted", json!(true));
    }
    for rule in &field.rules {
        match rule {
            Rule::OneOf(values) => put("one_of", json!(values)),
            Rule::NotOneOf(values) => put("not_one_of", json!(values)),
            Rule::Between(low, high) => put("between", json!([low, high])),
            Rule::Gt(bound) => put("gt", json!(bound)),
            Rule::LenMin(least) => put("len_min", json!(least)),
            Rule::LenMax(most) => put("len_max", json!(most)),
            Rule::Match(pattern) => put("match", json!(pattern)),
            Rule::StartsWith(text) => put("starts_with", json!(text)),
            Rule::IsRegex => put("is_regex", json!(true)),
            Rule::IsUuid => put("uuid", json!(true)),
            Rule::Custom(_) => {}
        }
    }
    Value::Object(out)
}

fn check_to_json(check: &Check) -> Option<Value> {
    Some(match check {
        Check::AtLeastOneOf(fields) => json!({ "at_least_one_of": fields }),
        Check::OnlyOneOf(fields) => json!({ "only_one_of": fields }),
        Check::MutuallyExclusive(fields) => json!({ "mutually_exclusive": fields }),
        Check::MutuallyRequired(fields) => json!({ "mutually_required": fields }),
        Check::RequiredWhen { when, equals, then } => json!({ "conditional": {
            "if_field": when,
            "if_match": { "eq": equals },
            "then_field": then,
            "then_match": { "required": true },
        } }),
        Check::Custom(_) => return None,
    })
}
