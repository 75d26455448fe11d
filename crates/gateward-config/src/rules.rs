//! The rules of a schema: on one value, and across the fields of a record.

use crate::limits;
use crate::tree::quote;
use gateward_model::schema::{Check, Rule};
use serde_json::Value;

/// The first rule that `value` breaks, as a text for the user. `secret` values are not quoted.
pub(crate) fn broken(rules: &[Rule], value: &Value, secret: bool) -> Option<String> {
    rules.iter().find_map(|rule| broken_rule(rule, value, secret))
}

fn broken_rule(rule: &Rule, value: &Value, secret: bool) -> Option<String> {
    let shown = || if secret { "this value".to_owned() } else { show(value) };
    let number = value.as_f64();
    let length = || match value {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    };
    let text = value.as_str();
    match rule {
        Rule::OneOf(allowed) if !allowed.iter().any(|one| same(one, value)) => {
            let hint = text.map_or_else(String::new, |text| {
                crate::suggest::did_you_mean(text, allowed.iter().filter_map(Value::as_str))
            });
            let allowed: Vec<String> = allowed.iter().map(show).collect();
            Some(format!("{} is not one of: {}{hint}", shown(), allowed.join(", ")))
        }
        Rule::NotOneOf(refused) if refused.iter().any(|one| same(one, value)) => {
            Some(format!("{} is not allowed here", shown()))
        }
        Rule::Between(low, high) if number.is_some_and(|number| number < *low || number > *high) => {
            Some(format!("{} is not between {low} and {high}", shown()))
        }
        Rule::Gt(bound) if number.is_some_and(|number| number <= *bound) => {
            Some(format!("{} is not greater than {bound}", shown()))
        }
        Rule::LenMin(least) if length() < *least => Some(match (value, least) {
            (Value::String(_), 1) => "must not be empty".to_owned(),
            (Value::String(_), _) => format!("must have at least {least} characters"),
            _ => format!("must have at least {least} element{}", if *least == 1 { "" } else { "s" }),
        }),
        Rule::LenMax(most) if length() > *most => Some(match value {
            Value::String(_) => format!("must have at most {most} characters"),
            _ => format!("must have at most {most} elements"),
        }),
        Rule::Match(pattern) => {
            let text = text?;
            match regex(pattern) {
                Ok(regex) if regex.is_match(text) => None,
                Ok(_) => Some(format!("{} does not match the pattern {pattern}", shown())),
                Err(error) => Some(format!("the schema's pattern {pattern} is broken: {error}")),
            }
        }
        Rule::StartsWith(start) if text.is_some_and(|text| !text.starts_with(&**start)) => {
            Some(format!("must start with '{start}'"))
        }
        Rule::IsRegex => regex(text?).err(),
        Rule::IsUuid if text.is_some_and(|text| gateward_model::EntityId::parse(text).is_none()) => {
            Some(format!("{} is not a UUID", shown()))
        }
        Rule::Custom(rule) => rule(value).err(),
        _ => None,
    }
}

/// Compile a regular expression of a file, within bounds; the error is a text for the user.
pub(crate) fn regex(pattern: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(pattern).size_limit(limits::REGEX_BYTES).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "this regular expression is too large".to_owned(),
        regex::Error::Syntax(_) if ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|look| pattern.contains(look)) => {
            "this regular expression uses look-around, which is not supported; rewrite it without".to_owned()
        }
        error => {
            // The crate draws the pattern over several lines; the last one is the reason.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("not a regular expression: {reason}")
        }
    })
}

/// The fields at fault when `record` breaks `check`, and the text. Fields in `failed` have been reported
/// already; a rule that involves one of them is not applied.
pub(crate) fn broken_check(check: &Check, record: &Value, failed: &[String]) -> Option<(String, String)> {
    let names: Vec<&str> = match check {
        Check::AtLeastOneOf(fields)
        | Check::OnlyOneOf(fields)
        | Check::MutuallyExclusive(fields)
        | Check::MutuallyRequired(fields) => fields.iter().map(|field| &**field).collect(),
        Check::RequiredWhen { when, then, .. } => vec![when, then],
        Check::Custom(rule) => {
            return if failed.is_empty() { rule(record).err() } else { None };
        }
    };
    let first = |path: &str| path.split('.').next().unwrap_or(path).to_owned();
    if names.iter().any(|name| failed.contains(&first(name))) {
        return None;
    }
    let set: Vec<&str> = names.iter().copied().filter(|name| is_set(record, name)).collect();
    let list = names.join(", ");
    let at_second = || set.get(1).copied().unwrap_or_default().to_owned();
    match check {
        Check::AtLeastOneOf(_) if set.is_empty() => {
            Some((String::new(), format!("at least one of these is needed: {list}")))
        }
        Check::OnlyOneOf(_) if set.len() != 1 => {
            Some((at_second(), format!("exactly one of these must be set: {list}")))
        }
        Check::MutuallyExclusive(_) if set.len() > 1 => {
            Some((at_second(), format!("at most one of these may be set: {list}")))
        }
        Check::MutuallyRequired(_) if !set.is_empty() && set.len() < names.len() => {
            Some((set[0].to_owned(), format!("these must be set together or not at all: {list}")))
        }
        Check::RequiredWhen { when, equals, then }
            if get(record, when).is_some_and(|value| same(value, equals)) && !is_set(record, then) =>
        {
            Some((String::new(), format!("'{then}' must be set when '{when}' is {}", show(equals))))
        }
        _ => None,
    }
}

/// The value at a path of names joined by `.`.
pub(crate) fn get<'v>(record: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(record, |value, name| value.get(name))
}

fn is_set(record: &Value, path: &str) -> bool {
    match get(record, path) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
        Some(_) => true,
    }
}

/// Equality in which 1 and 1.0 are the same, as in Lua.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{}'", quote(text)),
        Value::Array(_) => "this list".to_owned(),
        Value::Object(_) => "this map".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(rule: &Rule, good: &[Value], bad: &[(Value, &str)]) {
        for value in good {
            assert_eq!(broken(std::slice::from_ref(rule), value, false), None, "{rule:?} {value}");
        }
        for (value, expected) in bad {
            assert_eq!(broken(std::slice::from_ref(rule), value, false).as_deref(), Some(*expected), "{rule:?}");
        }
    }

    #[test]
    fn one_value() {
        check(
            &Rule::OneOf(vec![json!("http"), json!("https"), json!(3)]),
            &[json!("http"), json!(3.0)],
            &[(json!("htpp"), "'htpp' is not one of: 'http', 'https', 3 - did you mean 'http'?")],
        );
        check(&Rule::NotOneOf(vec![json!("a")]), &[json!("b")], &[(json!("a"), "'a' is not allowed here")]);
        check(&Rule::Between(0.0, 5.0), &[json!(0), json!(5)], &[(json!(6), "6 is not between 0 and 5")]);
        check(&Rule::Gt(0.0), &[json!(0.1)], &[(json!(0), "0 is not greater than 0")]);
        check(
            &Rule::LenMin(1),
            &[json!("x"), json!([1])],
            &[(json!(""), "must not be empty"), (json!([]), "must have at least 1 element")],
        );
        check(&Rule::LenMax(1), &[json!("é")], &[(json!("ab"), "must have at most 1 characters")]);
        check(&Rule::Match("^a+$".into()), &[json!("aa")], &[(json!("b"), "'b' does not match the pattern ^a+$")]);
        check(&Rule::StartsWith("/".into()), &[json!("/x")], &[(json!("x"), "must start with '/'")]);
        check(&Rule::IsUuid, &[json!("0dc6f45b-8f8d-40d2-a504-473544ee190b")], &[(json!("x"), "'x' is not a UUID")]);
        check(
            &Rule::IsRegex,
            &[json!("^(?<name>x)$")],
            &[
                (
                    json!("(?=x)"),
                    "this regular expression uses look-around, which is not supported; rewrite it without",
                ),
                (json!("("), "not a regular expression: unclosed group"),
                (json!("\\w{1000}{100}"), "this regular expression is too large"),
            ],
        );
    }

    #[test]
    fn across_fields() {
        let record = json!({"a": 1, "b": {"c": "x"}, "e": ""});
        let one = |check: Check| broken_check(&check, &record, &[]).map(|(at, _)| at);
        let names = |names: &[&'static str]| names.iter().map(|name| (*name).into()).collect::<Vec<_>>();
        assert_eq!(one(Check::AtLeastOneOf(names(&["d", "e"]))), Some(String::new()));
        assert_eq!(one(Check::AtLeastOneOf(names(&["d", "b.c"]))), None);
        assert_eq!(one(Check::OnlyOneOf(names(&["a", "b.c"]))), Some("b.c".into()));
        assert_eq!(one(Check::MutuallyExclusive(names(&["a", "d"]))), None);
        assert_eq!(one(Check::MutuallyRequired(names(&["a", "d"]))), Some("a".into()));
        let when = |equals| Check::RequiredWhen { when: "a".into(), equals, then: "d".into() };
        assert_eq!(one(when(json!(1.0))), Some(String::new()));
        assert_eq!(one(when(json!(2))), None);
        assert_eq!(broken_check(&when(json!(1)), &record, &["d".into()]), None);
    }
}
