//! Walks a schema over a parsed value: checks types and rules, fills defaults, resolves vault references.
//!
//! One walk serves entities and plugin configurations alike. It goes on after a problem, so that all problems
//! of a file are reported together, and it gives back what was right, so that one mistake does not cause
//! follow-up messages elsewhere. Null and absent mean the same. Absent fields without default stay absent in
//! the result (Kong writes null).

use crate::diagnostic::{EntityRef, Report};
use crate::rules;
use crate::vault::{Vaults, is_reference};
use gateward_model::schema::{Field, Kind, Schema, Shorthand};
use gateward_yaml::{Key, Node, Path, Tree, did_you_mean, quote};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashSet;

/// One walk over one entity.
pub(crate) struct Walk<'a> {
    pub(crate) report: &'a mut Report,
    pub(crate) vaults: &'a Vaults<'a>,
    pub(crate) entity: &'a EntityRef,
}

/// A record as far as it was right.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) fields: Map<String, Value>,
    /// Names of fields that had a problem.
    pub(crate) failed: Vec<String>,
}

/// The value was wrong and has been reported.
pub(crate) struct Failed;

type Walked = Result<Value, Failed>;

impl Walk<'_> {
    /// Walk `node` as a record of `schema`. Keys in `others` are read by somebody else.
    pub(crate) fn record(
        &mut self,
        schema: &Schema,
        node: &Node,
        entries: &[(Key, Node)],
        path: &Path<'_>,
        others: &[&str],
    ) -> Record {
        let mut record = Record::default();
        let entries = self.expand(schema, entries, path, &mut record.failed);
        self.unknown(schema, &entries, path, others, &mut record.failed);
        for (name, field) in &schema.fields {
            let given = entries.iter().find(|(key, node)| key.text == **name && !node.is_null());
            let at = Path::Key(path, name);
            let value = match given {
                Some((_, value)) => self.value(field, value, &at).map(Some),
                None if record.failed.iter().any(|failed| failed == name) => Ok(None),
                None => self.absent(field, node, &at),
            };
            match value {
                Ok(Some(value)) => {
                    record.fields.insert(name.to_string(), value);
                }
                Ok(None) => {}
                Err(Failed) => record.failed.push(name.to_string()),
            }
        }
        self.checks(schema, node, path, &mut record);
        self.transform(schema, node, path, &mut record);
        record
    }

    fn transform(&mut self, schema: &Schema, node: &Node, path: &Path<'_>, record: &mut Record) {
        for transform in &schema.transforms {
            if !record.failed.is_empty() {
                return;
            }
            match (transform.apply)(&Value::Object(record.fields.clone())) {
                Ok(Value::Object(fields)) => record.fields = fields,
                Ok(_) => {}
                Err(message) => {
                    self.report.error(node.position, path, message, Some(self.entity));
                    record.failed.push(String::new());
                }
            }
        }
    }

    fn checks(&mut self, schema: &Schema, node: &Node, path: &Path<'_>, record: &mut Record) {
        if schema.checks.is_empty() {
            return;
        }
        let value = Value::Object(std::mem::take(&mut record.fields));
        let mut failed = std::mem::take(&mut record.failed);
        for check in &schema.checks {
            let Some((field, message)) = rules::broken_check(check, &value, &failed) else { continue };
            let at = node.locate(&field);
            let text = if field.is_empty() { path.to_string() } else { join(path, &field) };
            self.report.error(at, &Path::Text(&text), message, Some(self.entity));
            failed.push(field);
        }
        record.failed = failed;
        if let Value::Object(fields) = value {
            record.fields = fields;
        }
    }

    /// Replace shorthands by what they stand for.
    fn expand<'n>(
        &mut self,
        schema: &Schema,
        entries: &'n [(Key, Node)],
        path: &Path<'_>,
        failed: &mut Vec<String>,
    ) -> Cow<'n, [(Key, Node)]> {
        let mut expanded = Cow::Borrowed(entries);
        for shorthand in &schema.shorthands {
            let Some((key, node)) = entries.iter().find(|(key, _)| key.text == *shorthand.name) else { continue };
            let owned = expanded.to_mut();
            owned.retain(|(key, _)| key.text != *shorthand.name);
            if node.is_null() {
                continue;
            }
            let at = Path::Key(path, &shorthand.name);
            if let Some(text) = &shorthand.deprecated {
                self.report.warning(key.position, &at, format!("deprecated: {text}"), Some(self.entity));
            }
            let pairs = match self.value(&shorthand.field, node, &at) {
                Ok(value) => (shorthand.expand)(&value),
                Err(Failed) => {
                    // What it stands for is unknown, so nothing it may stand for is reported as missing.
                    failed.extend(
                        schema.fields.iter().filter(|(_, field)| field.required).map(|(name, _)| name.to_string()),
                    );
                    continue;
                }
            };
            match pairs {
                Ok(pairs) => self.apply(shorthand, pairs, key, owned, path),
                Err(message) => {
                    self.report.error(node.position, &at, message, Some(self.entity));
                    failed.extend(
                        schema.fields.iter().filter(|(_, field)| field.required).map(|(name, _)| name.to_string()),
                    );
                }
            }
        }
        expanded
    }

    /// Put the values of a shorthand beside the explicit ones: it wins, unless it is deprecated.
    fn apply(
        &mut self,
        shorthand: &Shorthand,
        pairs: Vec<(String, Value)>,
        key: &Key,
        entries: &mut Vec<(Key, Node)>,
        path: &Path<'_>,
    ) {
        for (target, value) in pairs {
            let slot = slot(entries, &target, key);
            let Some(slot) = slot else { continue };
            let new = Node::from_json(key.position, &value);
            let explicit = (!slot.is_null()).then_some(&*slot);
            let differs = explicit.is_some_and(|explicit| !equal(explicit, &new));
            let at = explicit.map_or(key.position, |explicit| explicit.position);
            match (&shorthand.deprecated, explicit.is_some(), differs) {
                (None, _, _) => {
                    *slot = new;
                    if differs {
                        let message =
                            format!("ignored, because '{}' is given and sets this field; remove one", shorthand.name);
                        self.report.warning(at, &Path::Text(&join(path, &target)), message, Some(self.entity));
                    }
                }
                (Some(_), false, _) => *slot = new,
                (Some(_), true, true) => {
                    let message =
                        format!("differs from the deprecated '{}', which means the same; remove '{0}'", shorthand.name);
                    self.report.error(at, &Path::Text(&join(path, &target)), message, Some(self.entity));
                }
                (Some(_), true, false) => {}
            }
        }
    }

    fn unknown(
        &mut self,
        schema: &Schema,
        entries: &[(Key, Node)],
        path: &Path<'_>,
        others: &[&str],
        failed: &mut Vec<String>,
    ) {
        for (key, _) in entries {
            let name = key.text.as_str();
            if schema.field(name).is_some() || others.contains(&name) {
                continue;
            }
            let known = schema.fields.iter().map(|(name, _)| &**name);
            let known = known.chain(schema.shorthands.iter().map(|shorthand| &*shorthand.name));
            let known = known.chain(others.iter().copied());
            let hint = if self.report.is_full() { String::new() } else { did_you_mean(name, known) };
            let message = format!("unknown field{hint}");
            self.report.error(key.position, &Path::Key(path, name), message, Some(self.entity));
            failed.push(name.to_owned());
        }
    }

    fn absent(&mut self, field: &Field, parent: &Node, path: &Path<'_>) -> Result<Option<Value>, Failed> {
        if let Some(default) = &field.default {
            return Ok(Some(default.clone()));
        }
        match (&field.kind, field.required) {
            // Whether a reference may be absent depends on where the entity is nested; `resolve` knows.
            (_, false) | (Kind::Foreign(_), _) => Ok(None),
            (Kind::Record(schema), true) => {
                let record = self.record(schema, parent, &[], path, &[]);
                if record.failed.is_empty() { Ok(Some(Value::Object(record.fields))) } else { Err(Failed) }
            }
            (_, true) => {
                self.report.error(parent.position, path, "required field is missing".to_owned(), Some(self.entity));
                Err(Failed)
            }
        }
    }

    /// Walk one value that is not null.
    pub(crate) fn value(&mut self, field: &Field, node: &Node, path: &Path<'_>) -> Walked {
        let (value, secret) = match node.as_str() {
            Some(text) if field.referenceable && is_reference(text) => {
                (self.vault_value(&field.kind, text, node, path)?, true)
            }
            _ => (self.typed(field, node, path)?, field.secret),
        };
        if let Some(text) = &field.deprecated {
            self.report.warning(node.position, path, format!("deprecated: {text}"), Some(self.entity));
        }
        match rules::broken(&field.rules, &value, secret) {
            None => Ok(value),
            Some(message) => self.fail(node, path, field.error.as_ref().map_or(message, ToString::to_string)),
        }
    }

    fn vault_value(&mut self, kind: &Kind, reference: &str, node: &Node, path: &Path<'_>) -> Walked {
        let outcome = self.vaults.resolve(reference).and_then(|text| {
            from_text(kind, text).ok_or_else(|| format!("the vault reference does not lead to {}", expected(kind)))
        });
        outcome.or_else(|message| self.fail(node, path, message))
    }

    fn typed(&mut self, field: &Field, node: &Node, path: &Path<'_>) -> Walked {
        let value = match (&field.kind, &node.value) {
            (Kind::String, Tree::String { text, .. }) => {
                if is_reference(text) {
                    let message = "this field does not resolve vault references; the text is taken as it is";
                    self.report.warning(node.position, path, message.to_owned(), Some(self.entity));
                }
                Value::from(text.as_str())
            }
            (Kind::Boolean, Tree::Bool(value)) => Value::from(*value),
            (Kind::Boolean, Tree::String { text, plain: true }) if yaml11_boolean(text).is_some() => {
                Value::from(yaml11_boolean(text))
            }
            (Kind::Integer | Kind::Number, Tree::Int(value)) => Value::from(*value),
            (Kind::Integer, Tree::Float(value)) if whole(*value).is_some() => Value::from(whole(*value)),
            (Kind::Number, Tree::Float(value)) if value.is_finite() => Value::from(*value),
            (Kind::Array(element) | Kind::Set(element), Tree::Seq(items)) => {
                let unique = matches!(field.kind, Kind::Set(_));
                return self.list(element, items, unique, path);
            }
            // An empty Lua table is list and map alike; files written by Kong's tools say `{}` for `[]`.
            (Kind::Array(_) | Kind::Set(_), Tree::Map(entries)) if entries.is_empty() => Value::Array(Vec::new()),
            (Kind::Map(_, _) | Kind::Record(_), Tree::Seq(items)) if items.is_empty() => {
                let empty = Node { position: node.position, value: Tree::Map(Vec::new()) };
                return self.typed(field, &empty, path);
            }
            (Kind::Map(key, value), Tree::Map(entries)) => return self.map(key, value, entries, path),
            (Kind::Record(schema), Tree::Map(entries)) => {
                let record = self.record(schema, node, entries, path, &[]);
                return if record.failed.is_empty() { Ok(Value::Object(record.fields)) } else { Err(Failed) };
            }
            (Kind::Any, _) => return self.any(node, path),
            (Kind::Foreign(_), _) => return self.reference(node, path),
            _ => {
                let message = mismatch(field, node);
                return self.fail(node, path, message);
            }
        };
        Ok(value)
    }

    fn list(&mut self, element: &Field, items: &[Node], unique: bool, path: &Path<'_>) -> Walked {
        let mut values = Vec::with_capacity(items.len());
        let mut seen = HashSet::new();
        let mut failed = false;
        for (index, item) in items.iter().enumerate() {
            let at = Path::Index(path, index);
            let Ok(value) = self.value(element, item, &at) else {
                failed = true;
                continue;
            };
            if unique && !seen.insert(value.to_string()) {
                failed = self.fail(item, &at, "repeats an earlier element; remove one".to_owned()).is_err();
            }
            values.push(value);
        }
        if failed { Err(Failed) } else { Ok(Value::Array(values)) }
    }

    fn map(&mut self, key: &Field, value: &Field, entries: &[(Key, Node)], path: &Path<'_>) -> Walked {
        let mut fields = Map::new();
        let mut failed = false;
        for (name, node) in entries {
            let at = Path::Key(path, &name.text);
            failed |= self.value(key, &Node::text(name.position, name.text.as_str()), &at).is_err();
            if node.is_null() {
                continue;
            }
            match self.value(value, node, &at) {
                Ok(value) => {
                    fields.insert(name.text.clone(), value);
                }
                Err(Failed) => failed = true,
            }
        }
        if failed { Err(Failed) } else { Ok(Value::Object(fields)) }
    }

    fn any(&mut self, node: &Node, path: &Path<'_>) -> Walked {
        Ok(match &node.value {
            Tree::Null => Value::Null,
            Tree::Bool(value) => Value::from(*value),
            Tree::Int(value) => Value::from(*value),
            Tree::Float(value) if value.is_finite() => Value::from(*value),
            Tree::Float(_) => return self.fail(node, path, "not a finite number".to_owned()),
            Tree::String { text, .. } => Value::from(text.as_str()),
            Tree::Seq(items) => {
                let items = items.iter().enumerate().map(|(index, item)| self.any(item, &Path::Index(path, index)));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Tree::Map(entries) => {
                let fields = entries
                    .iter()
                    .map(|(key, value)| Ok((key.text.clone(), self.any(value, &Path::Key(path, &key.text))?)));
                Value::Object(fields.collect::<Result<_, _>>()?)
            }
        })
    }

    /// A reference to another entity: its name, `{id: ..}`, `{name: ..}`. Resolved later.
    fn reference(&mut self, node: &Node, path: &Path<'_>) -> Walked {
        let expected = "a name, an id, or a map with 'id' or 'name'";
        match &node.value {
            Tree::String { text, .. } => Ok(Value::from(text.as_str())),
            Tree::Map(_) => {
                let named = ["id", "name", "username"].iter().find_map(|key| node.get(key)?.as_str());
                match named {
                    Some(text) => Ok(Value::from(text)),
                    None => self.fail(node, path, format!("expected {expected}")),
                }
            }
            _ => self.fail(node, path, format!("expected {expected}; found {}", node.describe())),
        }
    }

    fn fail(&mut self, node: &Node, path: &Path<'_>, message: String) -> Walked {
        self.report.error(node.position, path, message, Some(self.entity));
        Err(Failed)
    }
}

/// The text a vault gave, as the field's kind.
fn from_text(kind: &Kind, text: String) -> Option<Value> {
    match kind {
        Kind::Integer => text.trim().parse::<i64>().ok().map(Value::from),
        Kind::Number => text.trim().parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from),
        Kind::Boolean => text.trim().parse::<bool>().ok().map(Value::from),
        Kind::String | Kind::Any => Some(Value::from(text)),
        _ => None,
    }
}

fn expected(kind: &Kind) -> &'static str {
    match kind {
        Kind::String => "a string",
        Kind::Number => "a number",
        Kind::Integer => "an integer",
        Kind::Boolean => "a boolean",
        Kind::Array(_) | Kind::Set(_) => "a list",
        Kind::Map(_, _) | Kind::Record(_) => "a map",
        Kind::Foreign(_) => "a reference",
        Kind::Any => "a value",
    }
}

fn mismatch(field: &Field, node: &Node) -> String {
    let found = match (&node.value, field.secret) {
        (Tree::Bool(value), false) => format!("the boolean {value}"),
        (Tree::Int(value), false) => format!("the integer {value}"),
        (Tree::Float(value), false) => format!("the number {value}"),
        (Tree::String { text, .. }, false) => format!("the string '{}'", quote(text)),
        _ => node.describe().to_owned(),
    };
    let hint = match (&field.kind, &node.value) {
        (Kind::String, Tree::Bool(_) | Tree::Int(_) | Tree::Float(_)) => "; put it in quotes",
        (Kind::Number | Kind::Integer | Kind::Boolean, Tree::String { plain: false, .. }) => {
            "; remove the quotes if it is one"
        }
        (Kind::Array(_) | Kind::Set(_), Tree::String { .. } | Tree::Int(_)) => "; write [ ] around a single element",
        _ => "",
    };
    format!("expected {}; found {found}{hint}", expected(&field.kind))
}

/// The booleans that YAML 1.1 (so Kong's parser) knows besides `true` and `false`.
pub(crate) fn yaml11_boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => Some(true),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => Some(false),
        _ => None,
    }
}

fn whole(value: f64) -> Option<i64> {
    // 2^53: beyond, a float does not tell neighbouring integers apart.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64)
}

/// The place for `path` (names joined by `.`) among `entries`, made when absent. `None` when something that is
/// not a map is in the way; the walk reports that.
fn slot<'e>(entries: &'e mut Vec<(Key, Node)>, path: &str, key: &Key) -> Option<&'e mut Node> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let index = entries.iter().position(|(key, _)| key.text == name).unwrap_or_else(|| {
        let node = Node { position: key.position, value: Tree::Null };
        entries.push((Key { text: name.to_owned(), position: key.position }, node));
        entries.len() - 1
    });
    let node = &mut entries[index].1;
    let Some(rest) = rest else { return Some(node) };
    if node.is_null() {
        node.value = Tree::Map(Vec::new());
    }
    match &mut node.value {
        Tree::Map(entries) => slot(entries, rest, key),
        _ => None,
    }
}

/// Whether two trees mean the same, wherever they stand.
fn equal(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Tree::String { text: a, .. }, Tree::String { text: b, .. }) => a == b,
        (Tree::Seq(a), Tree::Seq(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Tree::Map(a), Tree::Map(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, value)| b.iter().any(|(k, v)| k.text == key.text && equal(value, v)))
        }
        #[expect(clippy::cast_precision_loss, reason = "as Lua compares them")]
        (Tree::Int(a), Tree::Float(b)) | (Tree::Float(b), Tree::Int(a)) => *a as f64 == *b,
        (a, b) => a == b,
    }
}

/// `path` followed by a field path such as `a.b` or `a[1]`.
pub(crate) fn join(path: &Path<'_>, field: &str) -> String {
    let base = path.to_string();
    if base.is_empty() { field.to_owned() } else { format!("{base}.{field}") }
}
