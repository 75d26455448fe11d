//! The rules of a schema: on one value, and across the fields of a record.

use crate::limits;
use gateward_model::schema::{Check, Condition, Rule, Text};
use gateward_yaml::quote;
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
                gateward_yaml::did_you_mean(text, allowed.iter().filter_map(Value::as_str))
            });
            let allowed: Vec<String> = allowed.iter().map(show).collect();
            Some(format!("{} is not one of: {}{hint}", shown(), allowed.join(", ")))
        }
        Rule::NotOneOf(refused) if refused.iter().any(|one| same(one, value)) => {
            Some(format!("{} is not allowed here", shown()))
        }
        Rule::Eq(wanted) if !same(wanted, value) => Some(format!("value must be {}", plain(wanted))),
        Rule::Ne(refused) if same(refused, value) => Some(format!("value must not be {}", plain(refused))),
        Rule::Between(low, high) if number.is_some_and(|number| number < *low || number > *high) => {
            Some(format!("{} is not between {low} and {high}", shown()))
        }
        Rule::Gt(bound) if number.is_some_and(|number| number <= *bound) => {
            Some(format!("{} is not greater than {bound}", shown()))
        }
        Rule::LenEq(exact) if length() != *exact => Some(format!("length must be {exact}")),
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
        Rule::IsTimestamp if number.is_none_or(|number| number <= 0.0) => Some("expected a valid timestamp".to_owned()),
        Rule::Contains(wanted) if !items(value).iter().any(|item| same(item, wanted)) => {
            Some(format!("expected to contain: {}", plain(wanted)))
        }
        Rule::MutuallyExclusiveSubsets(subsets) => exclusive(subsets, items(value)),
        Rule::Custom(rule) => rule(value).err(),
        // What a plugin says may quote the value.
        Rule::Hosted(rule) if secret => (rule.test)(value).err().map(|_| format!("breaks the rule '{}'", rule.name)),
        Rule::Hosted(rule) => (rule.test)(value).err(),
        _ => None,
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Kong's text when `values` are of more than one of `subsets`.
fn exclusive(subsets: &[Vec<Value>], values: &[Value]) -> Option<String> {
    // As in Kong an element that is in several subsets counts for the last.
    let of = |value: &Value| subsets.iter().rposition(|subset| subset.iter().any(|one| same(one, value)));
    let mut used: Vec<usize> = Vec::new();
    for subset in values.iter().filter_map(of) {
        if !used.contains(&subset) {
            used.push(subset);
        }
    }
    let list = |subset: &usize| {
        let words: Vec<String> = subsets[*subset].iter().map(|value| format!("'{}'", plain(value))).collect();
        format!("({})", words.join(", "))
    };
    let lists: Vec<String> = used.iter().map(list).collect();
    (used.len() > 1).then(|| format!("these sets are mutually exclusive: {}", lists.join(", ")))
}

/// Whether `value` (null where there is none) is what `condition` asks for; if not, why.
fn unmet(condition: &Condition, value: &Value) -> Option<String> {
    if !value.is_null() {
        return match condition.rules.iter().find(|rule| matches!(rule, Rule::Eq(Value::Null))) {
            Some(_) => Some("value must be null".to_owned()),
            None => broken(&condition.rules, value, false),
        };
    }
    if condition.required {
        return Some("required field missing".to_owned());
    }
    condition.rules.iter().find_map(|rule| match rule {
        Rule::Ne(Value::Null) => Some("value must not be null".to_owned()),
        Rule::Eq(wanted) if !wanted.is_null() => Some(format!("value must be {}", plain(wanted))),
        _ => None,
    })
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
    let names = fields_of(check);
    let first = |path: &str| path.split('.').next().unwrap_or(path).to_owned();
    // What looks at the whole record needs all of it.
    let everything = matches!(check, Check::Custom(_) | Check::Hosted(_)) && names.is_empty();
    if names.iter().any(|name| failed.contains(&first(name))) || (everything && !failed.is_empty()) {
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
        Check::Distinct(_) => {
            let value = |name: &str| get(record, name).unwrap_or(&Value::Null);
            let repeated = set
                .iter()
                .enumerate()
                .find(|(index, name)| set[..*index].iter().any(|earlier| same(value(earlier), value(name))));
            repeated.map(|(_, name)| {
                ((*name).to_owned(), format!("values of these fields must be distinct: {}", quoted(&names)))
            })
        }
        Check::MutuallyExclusiveSets(first, second) => {
            let used = |fields: &[Text]| -> Vec<String> {
                fields.iter().filter(|name| is_set(record, name)).map(ToString::to_string).collect()
            };
            let (first, second) = (used(first), used(second));
            (!first.is_empty() && !second.is_empty()).then(|| {
                let text = format!("these sets are mutually exclusive: ({}), ({})", quoted(&first), quoted(&second));
                (second[0].clone(), text)
            })
        }
        Check::Conditional { when, matches, then, must, error } => {
            let value = |name: &str| get(record, name).unwrap_or(&Value::Null);
            if unmet(matches, value(when)).is_some() {
                return None;
            }
            unmet(must, value(then)).map(|reason| {
                let failed = format!("{reason} (failed conditional validation given value of field '{when}')");
                (then.to_string(), error.as_ref().map_or(failed, |error| error.replacen("%s", when, 1)))
            })
        }
        Check::ConditionalAtLeastOneOf { when, cases } => {
            let value = get(record, when)?;
            let (_, then, error) = cases.iter().find(|(condition, _, _)| unmet(condition, value).is_none())?;
            (!then.iter().any(|name| is_set(record, name))).then(|| {
                let list = quoted(then);
                let text = format!("at least one of these fields must be non-empty: {list}");
                (String::new(), error.as_ref().map_or(text, |error| error.replacen("%s", &list, 1)))
            })
        }
        Check::Custom(rule) => rule(record).err(),
        Check::Hosted(rule) => (rule.test)(record).err(),
        _ => None,
    }
}

/// The fields that `check` names.
fn fields_of(check: &Check) -> Vec<&str> {
    match check {
        Check::AtLeastOneOf(fields)
        | Check::OnlyOneOf(fields)
        | Check::MutuallyExclusive(fields)
        | Check::MutuallyRequired(fields)
        | Check::Distinct(fields) => fields.iter().map(|field| &**field).collect(),
        Check::RequiredWhen { when, then, .. } | Check::Conditional { when, then, .. } => vec![when, then],
        Check::MutuallyExclusiveSets(first, second) => first.iter().chain(second).map(|field| &**field).collect(),
        Check::ConditionalAtLeastOneOf { when, cases } => {
            let others = cases.iter().flat_map(|(_, then, _)| then).map(|field| &**field);
            std::iter::once(&**when).chain(others).collect()
        }
        Check::Hosted(check) => check.fields.iter().map(|field| &**field).collect(),
        Check::Custom(_) => Vec::new(),
    }
}

/// As Kong lists names.
fn quoted<T: std::fmt::Display>(names: &[T]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    names.join(", ")
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

/// As Lua's `tostring` shows it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => show(other),
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
    fn one_value_as_kong_says_it() {
        check(&Rule::Eq(json!(1)), &[json!(1.0)], &[(json!(2), "value must be 1")]);
        check(&Rule::Eq(json!(null)), &[], &[(json!(2), "value must be null")]);
        check(&Rule::Ne(json!("a")), &[json!("b")], &[(json!("a"), "value must not be a")]);
        check(&Rule::LenEq(2), &[json!("ab"), json!([1, 2])], &[(json!("a"), "length must be 2")]);
        check(&Rule::IsTimestamp, &[json!(1)], &[(json!(0), "expected a valid timestamp")]);
        check(&Rule::Contains(json!("a")), &[json!(["b", "a"])], &[(json!([]), "expected to contain: a")]);
        check(
            &Rule::MutuallyExclusiveSubsets(vec![vec![json!("a"), json!("b")], vec![json!("c")]]),
            &[json!([]), json!(["a", "b", "x"]), json!(["c"])],
            &[(json!(["c", "a"]), "these sets are mutually exclusive: ('c'), ('a', 'b')")],
        );
        let hosted = |secret| {
            let test = std::sync::Arc::new(|value: &Value| Err(format!("not {value}")));
            let rule = gateward_model::schema::HostedRule { name: "match".into(), argument: Value::Null, test };
            broken(&[Rule::Hosted(rule)], &json!("hunter2"), secret).unwrap()
        };
        assert_eq!(hosted(false), "not \"hunter2\"");
        assert_eq!(hosted(true), "breaks the rule 'match'");
    }

    #[test]
    fn conditions() {
        let names = |names: &[&'static str]| names.iter().map(|name| (*name).into()).collect::<Vec<Text>>();
        let condition = |rules: Vec<Rule>, required| Condition { rules, required };
        let one = |check: &Check, record: Value| broken_check(check, &record, &[]);
        let check = Check::Conditional {
            when: "policy".into(),
            matches: condition(vec![Rule::Eq(json!("redis"))], false),
            then: "redis.host".into(),
            must: condition(Vec::new(), true),
            error: None,
        };
        assert_eq!(one(&check, json!({"policy": "local"})), None);
        assert_eq!(one(&check, json!({})), None);
        assert_eq!(one(&check, json!({"policy": "redis", "redis": {"host": "h"}})), None);
        let text = "required field missing (failed conditional validation given value of field 'policy')";
        assert_eq!(one(&check, json!({"policy": "redis"})), Some(("redis.host".into(), text.into())));
        let check = Check::Conditional {
            when: "a".into(),
            matches: condition(vec![Rule::Ne(Value::Null)], false),
            then: "b".into(),
            must: condition(vec![Rule::Eq(Value::Null)], false),
            error: Some("b must go when %s is there".into()),
        };
        assert_eq!(one(&check, json!({"a": 1})), None);
        assert_eq!(one(&check, json!({"b": 1})), None);
        assert_eq!(one(&check, json!({"a": 1, "b": 1})).unwrap().1, "b must go when a is there");
        let check = Check::ConditionalAtLeastOneOf {
            when: "a".into(),
            cases: vec![
                (condition(vec![Rule::Eq(json!(1))], false), names(&["b", "c"]), None),
                (condition(vec![Rule::Eq(json!(2))], false), names(&["d"]), Some("needs %s".into())),
            ],
        };
        for (record, expected) in [
            (json!({}), None),
            (json!({"a": 3}), None),
            (json!({"a": 1, "c": 1}), None),
            (json!({"a": 1}), Some("at least one of these fields must be non-empty: 'b', 'c'")),
            (json!({"a": 2}), Some("needs 'd'")),
        ] {
            assert_eq!(one(&check, record.clone()).map(|(_, text)| text).as_deref(), expected, "{record}");
        }
        let check = Check::Distinct(names(&["a", "b"]));
        assert_eq!(one(&check, json!({"a": 1, "b": 2})), None);
        assert_eq!(one(&check, json!({"a": 1, "b": 1})).unwrap().0, "b");
        let check = Check::MutuallyExclusiveSets(names(&["a", "b"]), names(&["c"]));
        assert_eq!(one(&check, json!({"a": 1, "b": 2})), None);
        let text = "these sets are mutually exclusive: ('b'), ('c')";
        assert_eq!(one(&check, json!({"b": 1, "c": 1})), Some(("c".into(), text.into())));
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
