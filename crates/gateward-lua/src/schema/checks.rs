//! Kong's entity checks.

use super::Problem;
use super::attributes;
use super::build::{Built, function_id};
use super::hosted::{Host, below_config};
use gateward_model::schema::{Check, Condition, HostedCheck, Text};
use serde_json::{Map, Value};
use std::sync::Arc;

/// What one entry of `entity_checks` comes to.
#[derive(Default)]
pub(super) struct Checks {
    /// Over the record (for a whole schema: its `config`).
    pub(super) of_config: Vec<Check>,
    /// Over the whole entity.
    pub(super) of_entity: Vec<Check>,
}

/// One entry: a table with one name. `top`: fields are those of the entity that holds `config`.
pub(super) fn check(entry: &Value, top: bool, host: &Host) -> Built<Checks> {
    let Some((name, argument)) =
        entry.as_object().filter(|entry| entry.len() == 1).and_then(|entry| entry.iter().next())
    else {
        return Err(Problem::new("each entity check must be a table with one name"));
    };
    let reader = Reader { argument, top, host };
    reader.read(name).map_err(|problem| problem.within(name))
}

struct Reader<'a> {
    argument: &'a Value,
    top: bool,
    host: &'a Host,
}

impl Reader<'_> {
    fn read(&self, name: &str) -> Built<Checks> {
        let argument = self.argument;
        match name {
            "at_least_one_of" => self.list(argument, Check::AtLeastOneOf),
            "only_one_of" => self.list(argument, Check::OnlyOneOf),
            "mutually_exclusive" => self.list(argument, Check::MutuallyExclusive),
            "mutually_required" => self.list(argument, Check::MutuallyRequired),
            "distinct" => self.list(argument, Check::Distinct),
            "mutually_exclusive_sets" => {
                let (first, second) = (names(&argument["set1"])?, names(&argument["set2"])?);
                let all: Vec<String> = first.iter().chain(&second).cloned().collect();
                let length = first.len();
                Ok(self.place(&all, |fields| {
                    let (first, second) = fields.split_at(length);
                    Check::MutuallyExclusiveSets(first.to_vec(), second.to_vec())
                }))
            }
            "conditional" => self.conditional(),
            "conditional_at_least_one_of" => self.conditional_at_least_one_of(),
            "custom_entity_check" => self.custom(),
            other => Err(Problem::new(format!(
                "there is no entity check '{other}'; there are at_least_one_of, only_one_of, distinct, conditional, \
                 conditional_at_least_one_of, custom_entity_check, mutually_required, mutually_exclusive, \
                 mutually_exclusive_sets"
            ))),
        }
    }

    fn list(&self, argument: &Value, make: impl Fn(Vec<Text>) -> Check) -> Built<Checks> {
        Ok(self.place(&names(argument)?, make))
    }

    /// A check over `config` where only that is looked at, over the entity where not.
    fn place(&self, paths: &[String], make: impl Fn(Vec<Text>) -> Check) -> Checks {
        let below = !self.top || paths.iter().all(|path| path.starts_with("config."));
        let text = |path: &String| {
            let path = if below { below_config(path, self.top) } else { path.as_str() };
            Text::from(path.to_owned())
        };
        let check = make(paths.iter().map(text).collect());
        if below {
            Checks { of_config: vec![check], ..Checks::default() }
        } else {
            Checks { of_entity: vec![check], ..Checks::default() }
        }
    }

    fn conditional(&self) -> Built<Checks> {
        let when = self.text("if_field")?;
        let then = self.text("then_field")?;
        let matches = self.condition("if_match")?;
        let must = self.condition("then_match")?;
        let error = self.argument.get("then_err").and_then(Value::as_str).map(|text| Text::from(text.to_owned()));
        Ok(self.place(&[when, then], |fields| Check::Conditional {
            when: fields[0].clone(),
            matches: matches.clone(),
            then: fields[1].clone(),
            must: must.clone(),
            error: error.clone(),
        }))
    }

    fn conditional_at_least_one_of(&self) -> Built<Checks> {
        let mut paths = vec![self.text("if_field")?];
        let mut cases = Vec::new();
        let written = [
            ("if_match", "then_at_least_one_of", "then_err"),
            ("else_match", "else_then_at_least_one_of", "else_then_err"),
        ];
        for (matches, then, error) in written {
            if matches == "else_match" && self.argument.get(matches).is_none() {
                continue;
            }
            let then = names(&self.argument[then]).map_err(|problem| problem.within(then))?;
            let error = self.argument.get(error).and_then(Value::as_str).map(|text| Text::from(text.to_owned()));
            cases.push((self.condition(matches)?, then.len(), error));
            paths.extend(then);
        }
        Ok(self.place(&paths, |fields| {
            let mut rest = fields[1..].iter();
            let cases = cases.iter().map(|(condition, count, error)| {
                (condition.clone(), rest.by_ref().take(*count).cloned().collect(), error.clone())
            });
            Check::ConditionalAtLeastOneOf { when: fields[0].clone(), cases: cases.collect() }
        }))
    }

    fn custom(&self) -> Built<Checks> {
        let sources = names(&self.argument["field_sources"]).map_err(|problem| problem.within("field_sources"))?;
        let id = self.argument.get("fn").and_then(function_id);
        let id = id.ok_or_else(|| Problem::new("`fn` must be a function"))?;
        let below = !self.top || sources.iter().all(|path| path == "config" || path.starts_with("config."));
        let test = self.host.check(id, &sources, self.top && below);
        let text = |path: &String| below_config(path, self.top && below).to_owned();
        let fields = sources.iter().map(text).filter(|path| !path.is_empty()).map(Text::from).collect();
        let check = Check::Hosted(HostedCheck { fields, test: Arc::clone(&test) });
        Ok(if below {
            Checks { of_config: vec![check], ..Checks::default() }
        } else {
            Checks { of_entity: vec![check], ..Checks::default() }
        })
    }

    fn text(&self, name: &str) -> Built<String> {
        let text = self.argument.get(name).and_then(Value::as_str);
        text.map(str::to_owned).ok_or_else(|| Problem::new(format!("`{name}` must be the name of a field")))
    }

    fn condition(&self, name: &str) -> Built<Condition> {
        let none = Map::new();
        let attributes = match self.argument.get(name) {
            Some(Value::Object(attributes)) => attributes,
            Some(Value::Array(items)) if items.is_empty() => &none,
            _ => return Err(Problem::new(format!("`{name}` must be a table of attributes"))),
        };
        attributes::check_names(attributes).map_err(|problem| problem.within(name))?;
        let rules = attributes::rules("", attributes, self.host).map_err(|problem| problem.within(name))?;
        Ok(Condition { rules, required: attributes.get("required") == Some(&Value::Bool(true)) })
    }
}

/// A list of field names.
fn names(value: &Value) -> Built<Vec<String>> {
    let wrong = || Problem::new("must be a list of field names");
    match value {
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect(),
        Value::Object(fields) if fields.is_empty() => Ok(Vec::new()),
        _ => Err(wrong()),
    }
}
