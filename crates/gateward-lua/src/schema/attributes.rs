//! The attributes of a field as rules, in the order in which Kong looks at them.

use super::Problem;
use super::build::{Built, function_id};
use super::hosted::Host;
use gateward_model::schema::{Rule, Text};
use serde_json::{Map, Value};

/// What a field may say (Kong's metaschema, and what its tools write beside).
const KNOWN: &[&str] = &[
    "abstract",
    "auto",
    "between",
    "cache_key",
    "contains",
    "custom_validator",
    "default",
    "deprecation",
    "description",
    "elements",
    "encrypted",
    "entity_checks",
    "eq",
    "err",
    "examples",
    "fields",
    "gt",
    "immutable",
    "indexed",
    "is_regex",
    "json_schema",
    "keys",
    "len_eq",
    "len_max",
    "len_min",
    "legacy",
    "match",
    "match_all",
    "match_any",
    "match_none",
    "mutually_exclusive_subsets",
    "ne",
    "nilable",
    "not_match",
    "not_one_of",
    "on_delete",
    "on_update",
    "one_of",
    "prefix_ws",
    "reference",
    "referenceable",
    "required",
    "shorthand_fields",
    "shorthands",
    "starts_with",
    "timestamp",
    "transformations",
    "translate_backwards",
    "type",
    "unique",
    "unique_across_ws",
    "uuid",
    "values",
];

/// Whether every attribute is one.
pub(super) fn check_names(attributes: &Map<String, Value>) -> Built<()> {
    match attributes.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Problem::new(format!("`{name}` is no attribute of a field")).within(name)),
    }
}

/// The text of a `deprecation`.
pub(super) fn deprecation(definition: &Value) -> Option<Text> {
    let deprecation = definition.get("deprecation").filter(|value| !value.is_null())?;
    let message = deprecation.get("message").and_then(Value::as_str).unwrap_or("use something else");
    let removal = deprecation.get("removal_in_version").and_then(Value::as_str);
    Some(removal.map_or_else(|| message.to_owned(), |version| format!("{message} (to be removed in {version})")).into())
}

/// The rules of a field of type `kind`.
pub(super) fn rules(kind: &str, attributes: &Map<String, Value>, host: &Host) -> Built<Vec<Rule>> {
    let mut rules = Vec::new();
    for (name, read) in READERS {
        let Some(argument) = attributes.get(*name) else { continue };
        let rule = read(argument, host, name).map_err(|message| Problem::new(message).within(name))?;
        rules.extend(rule);
    }
    // Kong takes no empty text unless it is told to.
    if kind == "string" && !["len_min", "len_eq"].iter().any(|name| attributes.contains_key(*name)) {
        rules.push(Rule::LenMin(1));
    }
    Ok(rules)
}

type Read = fn(&Value, &Host, &'static str) -> Result<Option<Rule>, String>;

/// Kong's `validators_order`.
const READERS: &[(&str, Read)] = &[
    ("eq", |value, _, _| Ok(Some(Rule::Eq(value.clone())))),
    ("ne", |value, _, _| Ok(Some(Rule::Ne(value.clone())))),
    ("not_one_of", |value, _, _| Ok(Some(Rule::NotOneOf(list(value)?)))),
    ("one_of", |value, _, _| Ok(Some(Rule::OneOf(list(value)?)))),
    ("gt", |value, _, _| Ok(Some(Rule::Gt(number(value)?)))),
    ("timestamp", |value, _, _| Ok(flag(value)?.then_some(Rule::IsTimestamp))),
    ("uuid", |value, _, _| Ok(flag(value)?.then_some(Rule::IsUuid))),
    ("is_regex", |value, _, _| Ok(flag(value)?.then_some(Rule::IsRegex))),
    ("between", |value, _, _| match list(value)?.as_slice() {
        [low, high] => Ok(Some(Rule::Between(number(low)?, number(high)?))),
        _ => Err("must be two numbers: { least, most }".to_owned()),
    }),
    ("len_eq", |value, _, _| Ok(Some(Rule::LenEq(length(value)?)))),
    ("len_min", |value, _, _| Ok(Some(Rule::LenMin(length(value)?)))),
    ("len_max", |value, _, _| Ok(Some(Rule::LenMax(length(value)?)))),
    ("starts_with", |value, _, _| match value.as_str() {
        Some(text) => Ok(Some(Rule::StartsWith(text.to_owned().into()))),
        None => Err("must be a text".to_owned()),
    }),
    ("not_match", pattern),
    ("match_none", patterns),
    ("match", pattern),
    ("match_all", patterns),
    ("match_any", |value, host, name| match value.get("patterns").and_then(Value::as_array) {
        Some(_) => host.pattern(name, value).map(Rule::Hosted).map(Some),
        None => Err("must be a table with a list of `patterns` and an `err`".to_owned()),
    }),
    ("contains", |value, _, _| Ok(Some(Rule::Contains(value.clone())))),
    ("custom_validator", |value, host, _| match function_id(value) {
        Some(id) => Ok(Some(Rule::Hosted(host.validator(id)))),
        None => Err("must be a function".to_owned()),
    }),
    ("mutually_exclusive_subsets", |value, _, _| {
        let subsets = list(value)?.iter().map(list).collect::<Result<_, _>>()?;
        Ok(Some(Rule::MutuallyExclusiveSubsets(subsets)))
    }),
];

fn pattern(value: &Value, host: &Host, name: &'static str) -> Result<Option<Rule>, String> {
    if !value.is_string() {
        return Err("must be a Lua pattern".to_owned());
    }
    host.pattern(name, value).map(Rule::Hosted).map(Some)
}

fn patterns(value: &Value, host: &Host, name: &'static str) -> Result<Option<Rule>, String> {
    let of_one = |one: &Value| one.get("pattern").is_some_and(Value::is_string);
    if !list(value)?.iter().all(of_one) {
        return Err("must be a list of tables with a `pattern` and an `err`".to_owned());
    }
    host.pattern(name, value).map(Rule::Hosted).map(Some)
}

fn list(value: &Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(items) => Ok(items.clone()),
        Value::Object(fields) if fields.is_empty() => Ok(Vec::new()),
        _ => Err("must be a list".to_owned()),
    }
}

fn number(value: &Value) -> Result<f64, String> {
    value.as_f64().ok_or_else(|| "must be a number".to_owned())
}

fn length(value: &Value) -> Result<usize, String> {
    let length = value.as_u64().and_then(|length| usize::try_from(length).ok());
    length.ok_or_else(|| "must be a whole number, 0 or more".to_owned())
}

fn flag(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "must be true or false".to_owned())
}
