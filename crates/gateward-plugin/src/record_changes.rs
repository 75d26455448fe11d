//! What plugins change in the record of a request or stream before it is logged (`kong.log.set_serialize_value`).

use serde::Serialize;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::io;

/// Bytes of names and values that one record takes.
pub const CHANGES_MAX: usize = 1 << 20;
/// Levels of a value and of the path to it: whoever writes or reads a record goes down them one within the other.
const CHANGE_DEPTH: usize = 100;

/// When a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeMode {
    /// In any case.
    Set,
    /// When the field is not there.
    Add,
    /// When it is there.
    Replace,
}

/// The changes of one record, in their order. They are made while the request is borrowed by those who log it.
#[derive(Debug, Default)]
pub struct RecordChanges(RefCell<Changes>);

#[derive(Debug, Default)]
struct Changes {
    list: Vec<Change>,
    bytes: usize,
}

#[derive(Debug)]
struct Change {
    /// Names with dots between them.
    path: String,
    /// `None`: the field goes.
    value: Option<Value>,
    mode: ChangeMode,
}

impl RecordChanges {
    /// Change the field at `path`, names with dots between them; without a value it goes.
    ///
    /// # Errors
    /// All changes together are longer than [`CHANGES_MAX`], or this one is nested deeper than a record may be.
    pub fn push(&self, path: String, value: Option<Value>, mode: ChangeMode) -> Result<(), String> {
        if path.split('.').count() + value.as_ref().map_or(0, levels) > CHANGE_DEPTH {
            return Err(format!("a field of a record is nested deeper than {CHANGE_DEPTH} levels"));
        }
        let mut changes = self.0.borrow_mut();
        let bytes = path.len() + value.as_ref().map_or(0, |value| value.to_string().len()) + size_of::<Change>();
        if changes.bytes + bytes > CHANGES_MAX {
            return Err(format!("the values set in this record are longer than {CHANGES_MAX} bytes"));
        }
        changes.bytes += bytes;
        changes.list.push(Change { path, value, mode });
        Ok(())
    }

    /// Forget them.
    pub fn clear(&mut self) {
        let changes = self.0.get_mut();
        changes.list.clear();
        changes.bytes = 0;
    }

    fn is_empty(&self) -> bool {
        self.0.borrow().list.is_empty()
    }

    fn apply(&self, record: &mut Value) {
        for change in &self.0.borrow().list {
            change.apply(record);
        }
    }
}

impl Change {
    fn apply(&self, record: &mut Value) {
        let (path, last) = self.path.rsplit_once('.').unwrap_or(("", &self.path));
        let mut at = record;
        for name in path.split('.').filter(|name| !name.is_empty()) {
            if self.mode == ChangeMode::Replace && !at.get(name).is_some_and(Value::is_object) {
                return;
            }
            at = fields_of(at).entry(name).or_insert(Value::Null);
        }
        let fields = fields_of(at);
        let there = fields.get(last).is_some_and(|value| !value.is_null());
        match (self.mode, &self.value) {
            (ChangeMode::Add, _) if there => {}
            (ChangeMode::Replace, _) if !there => {}
            (_, None) => drop(fields.remove(last)),
            (_, Some(value)) => drop(fields.insert(last.to_owned(), value.clone())),
        }
    }
}

/// How deep `value` is nested.
fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(levels).max().unwrap_or_default(),
        _ => 0,
    }
}

/// The fields of `value`, which becomes an object if it is none.
fn fields_of(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("it was made an object"),
    }
}

/// Append `record` with its changes as JSON.
pub(crate) fn write(record: &impl Serialize, changes: &RecordChanges, out: &mut String) {
    let start = out.len();
    let written = if changes.is_empty() {
        serde_json::to_writer(Text(out), record)
    } else {
        serde_json::to_value(record).and_then(|mut record| {
            changes.apply(&mut record);
            serde_json::to_writer(Text(out), &record)
        })
    };
    if written.is_err() {
        // Nothing in a record fails to serialize, and text does not refuse text.
        out.truncate(start);
        out.push_str("{}");
    }
}

/// Lets the serializer append to text.
struct Text<'a>(&'a mut String);

impl io::Write for Text<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The serializer cuts text at escapes only, never within a character.
        self.0.push_str(str::from_utf8(bytes).map_err(io::Error::other)?);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_set_added_replaced_and_removed() {
        let mut record = json!({ "a": { "b": 1 }, "text": "x", "ip": "::1" });
        let changes = RecordChanges::default();
        for (path, value, mode) in [
            ("a.b", Some(json!(2)), ChangeMode::Add),
            ("a.c", Some(json!(3)), ChangeMode::Add),
            ("a.none.d", Some(json!(4)), ChangeMode::Replace),
            ("other", Some(json!(4)), ChangeMode::Replace),
            ("text.inner", Some(json!({ "x": [1] })), ChangeMode::Set),
            ("ip", None, ChangeMode::Set),
            ("..deep..er.", Some(json!(null)), ChangeMode::Set),
        ] {
            changes.push(path.to_owned(), value, mode).unwrap();
        }
        changes.apply(&mut record);
        let expected =
            json!({ "a": { "b": 1, "c": 3 }, "text": { "inner": { "x": [1] } }, "deep": { "er": { "": null } } });
        assert_eq!(record, expected);
        let mut out = "before ".to_owned();
        write(&json!({ "a": { "b": 1 }, "ip": "::1", "text": 1 }), &changes, &mut out);
        assert_eq!(serde_json::from_str::<Value>(out.strip_prefix("before ").unwrap()).unwrap(), expected);
    }

    #[test]
    fn they_are_bounded() {
        let mut changes = RecordChanges::default();
        let long = || Some(Value::String("x".repeat(CHANGES_MAX / 2)));
        changes.push("a".to_owned(), long(), ChangeMode::Set).unwrap();
        assert!(changes.push("b".to_owned(), long(), ChangeMode::Set).unwrap_err().contains("1048576 bytes"));
        changes.clear();
        assert!(changes.is_empty());
        changes.push("b".to_owned(), long(), ChangeMode::Set).unwrap();
    }

    #[test]
    fn they_are_not_nested_without_end() {
        let changes = RecordChanges::default();
        let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        let path = |names: usize| vec!["a"; names].join(".");
        changes.push(path(50), Some(deep(50)), ChangeMode::Set).unwrap();
        for (names, levels) in [(51, 50), (500_000, 0), (1, 100)] {
            let refused = changes.push(path(names), Some(deep(levels)), ChangeMode::Set);
            assert!(refused.unwrap_err().contains("deeper than 100 levels"), "{names} {levels}");
        }
        let mut out = String::new();
        write(&json!({}), &changes, &mut out);
        assert!(serde_json::from_str::<Value>(&out).is_ok(), "what is taken can be read again");
    }
}
