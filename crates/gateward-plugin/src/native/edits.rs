//! What both transformers do: remove, rename, replace, add and append named values, in this order.
//!
//! [`Edits`] is the configuration, [`Fields`] what it is applied to: headers, arguments of a query or form, the
//! top level of a JSON object. The rules are Kong's:
//! - an entry is `name:value`; more colons after the first are part of neither, an entry of `add`, `append` or
//!   `rename` without a value does nothing;
//! - replace only what is there, add only what is not, append whether or not it is there.

use crate::query;
use gateward_http::Headers;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Edits of one kind of field; `T` is a value as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edits<T> {
    /// Names.
    pub remove: Vec<String>,
    /// Old name and new.
    pub rename: Vec<(String, T)>,
    /// Name and value; without a value: see [`Fields::replace`].
    pub replace: Vec<(String, Option<T>)>,
    /// Name and value.
    pub add: Vec<(String, T)>,
    /// Name and value.
    pub append: Vec<(String, T)>,
}

impl<T> Default for Edits<T> {
    fn default() -> Self {
        Self { remove: vec![], rename: vec![], replace: vec![], add: vec![], append: vec![] }
    }
}

/// Named values that can be edited.
pub trait Fields {
    /// A value.
    type Value<'v>;
    /// Take every value of `name` away.
    fn remove(&mut self, name: &str);
    /// Give the values of `old` the name `new`, in the place of what `new` had. Nothing when there is no `old`.
    fn rename(&mut self, old: &str, new: &str);
    /// Make this the only value of `name` if there is one. `None`: Kong removes an argument or body field, and
    /// leaves a header alone.
    fn replace(&mut self, name: &str, value: Option<Self::Value<'_>>);
    /// Add the value if there is none.
    fn add(&mut self, name: &str, value: Self::Value<'_>);
    /// Add the value beside what there is.
    fn append(&mut self, name: &str, value: Self::Value<'_>);
}

impl<T> Edits<T> {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.replace.is_empty() && self.values().next().is_none()
    }

    /// Every configured value.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        let replace = self.replace.iter().filter_map(|(_, value)| value.as_ref());
        let others = self.rename.iter().chain(&self.add).chain(&self.append).map(|(_, value)| value);
        others.chain(replace)
    }

    /// Do it. `text` makes a new name of a configured value, `value` a value.
    pub fn apply<'t, F: Fields>(
        &'t self,
        fields: &mut F,
        text: impl Fn(&'t T) -> Cow<'t, str>,
        value: impl Fn(&'t T) -> F::Value<'t>,
    ) {
        self.remove.iter().for_each(|name| fields.remove(name));
        for (old, new) in &self.rename {
            let new = text(new);
            if !new.is_empty() && *old != new {
                fields.rename(old, &new);
            }
        }
        self.replace.iter().for_each(|(name, configured)| fields.replace(name, configured.as_ref().map(&value)));
        self.add.iter().for_each(|(name, configured)| fields.add(name, value(configured)));
        self.append.iter().for_each(|(name, configured)| fields.append(name, value(configured)));
    }
}

/// An entry `name:value`: the name, and the value unless it is empty.
pub fn entry(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((name, rest)) => (name, Some(rest.trim_start_matches(':')).filter(|value| !value.is_empty())),
        None => (text, None),
    }
}

/// A schema rule: an entry needs a name and a colon.
pub fn check_entry(value: &Value) -> Result<(), String> {
    match value.as_str().map(|text| (text, text.split_once(':'))) {
        Some((_, Some((name, _)))) if !name.is_empty() => Ok(()),
        _ => Err(format!("{value} has no value: write NAME:VALUE")),
    }
}

/// A schema rule: like [`check_entry`], and the name must be a header name.
pub fn check_header_entry(value: &Value) -> Result<(), String> {
    check_entry(value)?;
    let (name, _) = entry(value.as_str().unwrap_or_default());
    if gateward_http::headers::is_valid_name(name.as_bytes()) {
        Ok(())
    } else {
        Err(format!("'{name}' is not a header name"))
    }
}

impl Fields for Headers {
    type Value<'v> = Cow<'v, str>;

    fn remove(&mut self, name: &str) {
        Self::remove(self, name);
    }

    fn rename(&mut self, old: &str, new: &str) {
        if old.eq_ignore_ascii_case(new) || !gateward_http::headers::is_valid_name(new.as_bytes()) {
            return;
        }
        let values: Vec<Vec<u8>> = self.get_all(old).map(<[u8]>::to_vec).collect();
        if !values.is_empty() {
            Self::remove(self, old);
            Self::remove(self, new);
            values.iter().for_each(|value| {
                Self::add(self, new, value);
            });
        }
    }

    // A value that would break the framing is refused by `Headers`, and the field stays as it was.
    fn replace(&mut self, name: &str, value: Option<Cow<'_, str>>) {
        if let Some(value) = value
            && self.contains(name)
        {
            self.set(name, value.as_bytes());
        }
    }

    fn add(&mut self, name: &str, value: Cow<'_, str>) {
        if !self.contains(name) {
            Self::add(self, name, value.as_bytes());
        }
    }

    fn append(&mut self, name: &str, value: Cow<'_, str>) {
        Self::add(self, name, value.as_bytes());
    }
}

/// The arguments of a query or a form body. What is not edited keeps its bytes and its place.
#[derive(Debug)]
pub struct Arguments {
    /// Decoded name, and the argument as it is written.
    list: Vec<(String, String)>,
    changed: bool,
}

impl Arguments {
    /// The arguments of `text`, `name=value&...`.
    pub fn parse(text: &str) -> Self {
        let written =
            |name: &str, value: Option<&str>| value.map_or_else(|| name.to_owned(), |value| format!("{name}={value}"));
        let list = query::pairs(text).map(|(name, value)| (query::decode(name).into_owned(), written(name, value)));
        Self { list: list.collect(), changed: false }
    }

    /// The edited text; `None` when nothing changed.
    pub fn changed(&self) -> Option<String> {
        self.changed.then(|| self.list.iter().map(|(_, written)| written.as_str()).collect::<Vec<_>>().join("&"))
    }

    /// Put every argument of `other` at the end.
    pub fn extend(&mut self, other: Self) {
        self.changed |= !other.list.is_empty();
        self.list.extend(other.list);
    }

    fn contains(&self, name: &str) -> bool {
        self.list.iter().any(|(known, _)| known == name)
    }

    fn push(&mut self, name: &str, value: &str) {
        self.list.push((name.to_owned(), format!("{}={}", escape(name), escape(value))));
        self.changed = true;
    }
}

impl Fields for Arguments {
    type Value<'v> = Cow<'v, str>;

    fn remove(&mut self, name: &str) {
        let before = self.list.len();
        self.list.retain(|(known, _)| known != name);
        self.changed |= self.list.len() != before;
    }

    fn rename(&mut self, old: &str, new: &str) {
        if old == new || !self.contains(old) {
            return;
        }
        self.remove(new);
        for (name, written) in self.list.iter_mut().filter(|(name, _)| name == old) {
            let value = written.find('=').map_or("", |equals| &written[equals..]);
            *written = format!("{}{value}", escape(new));
            new.clone_into(name);
        }
        self.changed = true;
    }

    fn replace(&mut self, name: &str, value: Option<Cow<'_, str>>) {
        let Some(place) = self.list.iter().position(|(known, _)| known == name) else { return };
        let Some(value) = value else { return self.remove(name) };
        let mut index = 0;
        self.list.retain(|(known, _)| {
            index += 1;
            index <= place + 1 || known != name
        });
        self.list[place].1 = format!("{}={}", escape(name), escape(&value));
        self.changed = true;
    }

    fn add(&mut self, name: &str, value: Cow<'_, str>) {
        if !self.contains(name) {
            self.push(name, &value);
        }
    }

    fn append(&mut self, name: &str, value: Cow<'_, str>) {
        self.push(name, &value);
    }
}

/// Everything but unreserved characters (RFC 3986 section 2.3) as `%XX`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            push_escaped(&mut escaped, byte);
        }
    }
    escaped
}

/// `byte` as `%XX`.
pub(super) fn push_escaped(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// The top level of a JSON object.
#[derive(Debug)]
pub struct JsonFields {
    map: Map<String, Value>,
    changed: bool,
}

impl JsonFields {
    /// The object in `body`, an empty one when there is no content; `None` when it is anything else.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let map = if body.is_empty() { Map::new() } else { serde_json::from_slice(body).ok()? };
        Some(Self { map, changed: false })
    }

    /// The edited object as text; `None` when nothing changed.
    pub fn changed(&self) -> Option<Vec<u8>> {
        // A map with text keys always serializes.
        if self.changed { serde_json::to_vec(&self.map).ok() } else { None }
    }

    fn set(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
        self.changed = true;
    }

    /// Lua takes `false` for absent here; `null` is there.
    fn is_there(&self, name: &str) -> bool {
        !matches!(self.map.get(name), None | Some(Value::Bool(false)))
    }
}

impl Fields for JsonFields {
    type Value<'v> = Value;

    fn remove(&mut self, name: &str) {
        self.changed |= self.map.remove(name).is_some();
    }

    fn rename(&mut self, old: &str, new: &str) {
        if old != new
            && let Some(value) = self.map.remove(old)
        {
            self.set(new, value);
        }
    }

    fn replace(&mut self, name: &str, value: Option<Value>) {
        match value {
            _ if !self.is_there(name) => {}
            Some(value) => self.set(name, value),
            None => self.remove(name),
        }
    }

    fn add(&mut self, name: &str, value: Value) {
        if !self.is_there(name) {
            self.set(name, value);
        }
    }

    /// Text and value become a list, a list grows, an object stays as it is; anything else gives way to a list.
    fn append(&mut self, name: &str, value: Value) {
        let appended = match self.map.remove(name) {
            Some(text @ Value::String(_)) => Value::Array(vec![text, value]),
            Some(Value::Array(mut values)) => {
                values.push(value);
                Value::Array(values)
            }
            Some(object @ Value::Object(_)) => object,
            _ => Value::Array(vec![value]),
        };
        self.set(name, appended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edits(kind: &str, entries: &[&str]) -> Edits<String> {
        let mut edits = Edits::default();
        let named = |text: &&str| {
            let (name, value) = entry(text);
            (name.to_owned(), value.map(str::to_owned))
        };
        let valued = || entries.iter().map(named).filter_map(|(name, value)| Some((name, value?))).collect();
        match kind {
            "remove" => edits.remove = entries.iter().map(|text| (*text).to_owned()).collect(),
            "rename" => edits.rename = valued(),
            "replace" => edits.replace = entries.iter().map(named).collect(),
            "add" => edits.add = valued(),
            "append" => edits.append = valued(),
            _ => panic!("{kind}"),
        }
        edits
    }

    #[test]
    fn entries_split_at_the_first_colons() {
        for (text, expected) in [
            ("a:b", ("a", Some("b"))),
            ("a:b:c", ("a", Some("b:c"))),
            ("a::b", ("a", Some("b"))),
            ("a:", ("a", None)),
            ("a", ("a", None)),
        ] {
            assert_eq!(entry(text), expected, "{text}");
        }
        assert!(
            check_entry(&"a".into()).is_err()
                && check_entry(&":a".into()).is_err()
                && check_entry(&"a:".into()).is_ok()
        );
        assert!(check_header_entry(&"a b:c".into()).is_err() && check_header_entry(&"a-b:c".into()).is_ok());
    }

    #[test]
    fn headers_are_edited() {
        for (kind, entries, expected) in [
            ("remove", &["A"][..], "b=2"),
            ("remove", &["x"], "a=1 A=3 b=2"),
            ("rename", &["a:c"], "b=2 c=1 c=3"),
            ("rename", &["a:B"], "B=1 B=3"),
            ("rename", &["a:A"], "a=1 A=3 b=2"),
            ("rename", &["x:b"], "a=1 A=3 b=2"),
            ("replace", &["a:9", "x:9", "b:"], "a=9 b=2"),
            ("replace", &["a:9\r\nx: y"], "a=1 A=3 b=2"),
            ("add", &["a:9", "x:9"], "a=1 A=3 b=2 x=9"),
            ("append", &["b:9", "x:9"], "a=1 A=3 b=2 b=9 x=9"),
        ] {
            let mut headers = Headers::default();
            for (name, value) in [("a", "1"), ("A", "3"), ("b", "2")] {
                Headers::add(&mut headers, name, value);
            }
            let edits = edits(kind, entries);
            edits.apply(&mut headers, |text| text.into(), |text| text.into());
            let found: Vec<String> =
                headers.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
            assert_eq!(found.join(" "), expected, "{kind} {entries:?}");
        }
    }

    #[test]
    fn arguments_are_edited_and_others_keep_their_bytes() {
        for (kind, entries, expected) in [
            ("remove", &["a"][..], Some("b+=%20&c")),
            ("remove", &["b "], Some("a=1&c&%61=2")),
            ("remove", &["x"], None),
            ("rename", &["a:ä"], Some("%C3%A4=1&b+=%20&c&%C3%A4=2")),
            ("rename", &["c:a"], Some("b+=%20&a")),
            ("rename", &["x:a"], None),
            ("replace", &["a:9 9", "x:1"], Some("a=9%209&b+=%20&c")),
            ("replace", &["a:"], Some("b+=%20&c")),
            ("add", &["a:9"], None),
            ("add", &["x&:=9"], Some("a=1&b+=%20&c&%61=2&x%26=%3D9")),
            ("append", &["a:9"], Some("a=1&b+=%20&c&%61=2&a=9")),
        ] {
            let mut arguments = Arguments::parse("a=1&b+=%20&c&%61=2");
            let edits = edits(kind, entries);
            edits.apply(&mut arguments, |text| text.into(), |text| text.into());
            assert_eq!(arguments.changed().as_deref(), expected, "{kind} {entries:?}");
        }
    }

    #[test]
    fn json_objects_are_edited_at_the_top_level() {
        const BODY: &str = r#"{"f":false,"l":[1],"n":null,"o":{"l":1},"s":"t","x":1}"#;
        for (kind, entries, expected) in [
            ("remove", &["s", "o", "y"][..], Some(r#"{"f":false,"l":[1],"n":null,"x":1}"#)),
            ("remove", &["y", "o.l"], None),
            ("rename", &["s:x"], Some(r#"{"f":false,"l":[1],"n":null,"o":{"l":1},"x":"t"}"#)),
            ("replace", &["f:1", "y:1"], None),
            ("replace", &["n:1", "s:"], Some(r#"{"f":false,"l":[1],"n":"1","o":{"l":1},"x":1}"#)),
            ("add", &["f:1", "n:1", "y:1"], Some(r#"{"f":"1","l":[1],"n":null,"o":{"l":1},"s":"t","x":1,"y":"1"}"#)),
            (
                "append",
                &["s:1", "l:1", "x:1"],
                Some(r#"{"f":false,"l":[1,"1"],"n":null,"o":{"l":1},"s":["t","1"],"x":["1"]}"#),
            ),
        ] {
            let mut fields = JsonFields::parse(BODY.as_bytes()).unwrap();
            let edits = edits(kind, entries);
            edits.apply(&mut fields, |text| text.into(), |text| text.as_str().into());
            let found = fields.changed().map(|body| String::from_utf8(body).unwrap());
            assert_eq!(found.as_deref(), expected, "{kind} {entries:?}");
        }
        assert!(
            JsonFields::parse(b"[1]").is_none()
                && JsonFields::parse(b"{").is_none()
                && JsonFields::parse(b"").is_some()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_arguments_survive_any_edit(text in ".{0,40}", name in "[a-z%=& ]{1,3}", value in ".{0,5}") {
            let mut arguments = Arguments::parse(&text);
            Fields::append(&mut arguments, &name, value.as_str().into());
            let edited = arguments.changed().unwrap();
            let last = query::pairs(&edited).last().unwrap();
            prop_assert_eq!((query::decode(last.0), query::decode(last.1.unwrap())), (name.as_str().into(), value.as_str().into()));
            Fields::remove(&mut arguments, &name);
            let edited = arguments.changed().unwrap();
            prop_assert_eq!(query::argument(&edited, &name), query::Argument::Absent);
        }
    }
}
