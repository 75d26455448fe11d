//! Schemas in the JSON form of Kong's `/schemas/...` Admin API.

use gateward_model::schema::{Check, Condition, Field, Kind, Rule, Schema};
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
    if let Some(text) = &field.description {
        put("description", json!(text));
    }
    if let Some(text) = &field.deprecated {
        put("deprecation", json!({ "message": text }));
    }
    if let Some(text) = &field.error {
        put("err", json!(text));
    }
    for rule in &field.rules {
        if let Some((name, argument)) = rule_to_json(rule) {
            put(name, argument);
        }
    }
    Value::Object(out)
}

fn rule_to_json(rule: &Rule) -> Option<(&str, Value)> {
    Some(match rule {
        Rule::OneOf(values) => ("one_of", json!(values)),
        Rule::NotOneOf(values) => ("not_one_of", json!(values)),
        Rule::Eq(value) => ("eq", value.clone()),
        Rule::Ne(value) => ("ne", value.clone()),
        Rule::Between(low, high) => ("between", json!([low, high])),
        Rule::Gt(bound) => ("gt", json!(bound)),
        Rule::LenEq(exact) => ("len_eq", json!(exact)),
        Rule::LenMin(least) => ("len_min", json!(least)),
        Rule::LenMax(most) => ("len_max", json!(most)),
        Rule::Match(pattern) => ("match", json!(pattern)),
        Rule::StartsWith(text) => ("starts_with", json!(text)),
        Rule::IsRegex => ("is_regex", json!(true)),
        Rule::IsUuid => ("uuid", json!(true)),
        Rule::IsTimestamp => ("timestamp", json!(true)),
        Rule::Contains(value) => ("contains", value.clone()),
        Rule::MutuallyExclusiveSubsets(subsets) => ("mutually_exclusive_subsets", json!(subsets)),
        Rule::Hosted(rule) if !rule.argument.is_null() => (&*rule.name, rule.argument.clone()),
        Rule::Custom(_) | Rule::Hosted(_) => return None,
    })
}

/// A condition as Kong writes it in a schema.
fn condition_to_json(condition: &Condition) -> Value {
    let mut out: Map<String, Value> =
        condition.rules.iter().filter_map(rule_to_json).map(|(name, value)| (name.to_owned(), value)).collect();
    if condition.required {
        out.insert("required".to_owned(), json!(true));
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
        Check::Distinct(fields) => json!({ "distinct": fields }),
        Check::MutuallyExclusiveSets(first, second) => {
            json!({ "mutually_exclusive_sets": { "set1": first, "set2": second } })
        }
        Check::Conditional { when, matches, then, must, error } => {
            let mut check = json!({
                "if_field": when,
                "if_match": condition_to_json(matches),
                "then_field": then,
                "then_match": condition_to_json(must),
            });
            if let Some(error) = error {
                check["then_err"] = json!(error);
            }
            json!({ "conditional": check })
        }
        Check::ConditionalAtLeastOneOf { when, cases } => {
            let mut check = json!({ "if_field": when });
            let names = [
                ("if_match", "then_at_least_one_of", "then_err"),
                ("else_match", "else_then_at_least_one_of", "else_then_err"),
            ];
            for ((condition, then, error), (matches, fields, text)) in cases.iter().zip(names) {
                check[matches] = condition_to_json(condition);
                check[fields] = json!(then);
                if let Some(error) = error {
                    check[text] = json!(error);
                }
            }
            json!({ "conditional_at_least_one_of": check })
        }
        Check::Hosted(check) if !check.fields.is_empty() => {
            json!({ "custom_entity_check": { "field_sources": check.fields } })
        }
        Check::Custom(_) | Check::Hosted(_) => return None,
    })
}
