//! `response-transformer`: changes headers and JSON bodies on the way back to the client.
//!
//! Settings and rules are those of Kong 3.9 (kong/plugins/response-transformer): remove, rename, replace, add,
//! append. Headers change on every response, whoever made it. A body is buffered only when JSON edits are
//! configured, and edited when its `Content-Type` is `application/json` and it is an object without content
//! coding; others go through unchanged, and so do bodies the gateway itself answers (Kong edits these, too).
//! Values are plain text, typed by `json_types`.

use crate::native::edits::{self, Edits, JsonFields};
use crate::native::settings;
use crate::{BuildContext, BuildError, Definition, Exchange, Needs, Phases, Plugin, Step};
use gateward_model::schema::{Field, Rule, Schema};
use serde::Deserialize;
use serde_json::{Value, json};

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "response-transformer", priority: 800, schema, check_scope: settings::http, build }
}

fn schema() -> Schema {
    let list = |element: Field| Field::array(element).default(json!([]));
    let name = || list(Field::string());
    let value = || list(Field::string().rule(Rule::Custom(edits::check_entry)));
    let header = || list(Field::string().rule(Rule::Custom(edits::check_header_entry)));
    let types = || list(Field::string().one_of(&["boolean", "number", "string"]));
    let typed =
        || Field::record(Schema::new([("json", value()), ("json_types", types()), ("headers", header())])).required();
    Schema::new([
        ("remove", Field::record(Schema::new([("json", name()), ("headers", name())])).required()),
        ("rename", Field::record(Schema::new([("json", value()), ("headers", header())])).required()),
        ("replace", typed()),
        ("add", typed()),
        ("append", typed()),
    ])
}

#[derive(Deserialize)]
struct Settings {
    remove: Lists,
    rename: Lists,
    replace: Lists,
    add: Lists,
    append: Lists,
}

#[derive(Deserialize)]
struct Lists {
    json: Vec<String>,
    #[serde(default)]
    json_types: Vec<String>,
    headers: Vec<String>,
}

struct ResponseTransformer {
    headers: Edits<String>,
    json: Edits<Value>,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let settings: Settings = settings::read(context)?;
    Ok(Box::new(ResponseTransformer { headers: header_edits(&settings), json: json_edits(&settings) }))
}

impl Plugin for ResponseTransformer {
    fn needs(&self) -> Needs {
        let edits_body = !self.json.is_empty();
        let phases = Phases { response: edits_body, header_filter: true, ..Phases::default() };
        Needs { phases, response_body: edits_body, ..Needs::default() }
    }

    fn response<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let response = &mut exchange.response;
        let Some(body) = response.body.as_deref().filter(|body| !body.is_empty()) else { return Step::Next };
        if !is_json(response.headers.get_str("content-type").unwrap_or_default()) {
            return Step::Next;
        }
        let Some(mut fields) = JsonFields::parse(body) else { return Step::Next };
        self.json.apply(&mut fields, |name| name.as_str().unwrap_or_default().into(), Value::clone);
        if let Some(edited) = fields.changed() {
            if response.headers.contains("content-length") {
                response.headers.set("Content-Length", itoa::Buffer::new().format(edited.len()));
            }
            response.body = Some(edited);
        }
        Step::Next
    }

    fn header_filter(&self, exchange: &mut Exchange) {
        self.headers.apply(&mut exchange.response.headers, |text| text.into(), |text| text.into());
    }
}

/// Whether a list of media types names `application/json`.
fn is_json(content_type: &str) -> bool {
    let media_type =
        |item: &str| item.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json");
    content_type.split(',').any(media_type)
}

fn header_edits(settings: &Settings) -> Edits<String> {
    let optional = |lists: &Lists| -> Vec<(String, Option<String>)> {
        let entries = lists.headers.iter().map(|text| edits::entry(text));
        entries.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).collect()
    };
    let valued = |lists: &Lists| optional(lists).into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    Edits {
        remove: settings.remove.headers.iter().map(|text| edits::entry(text).0.to_owned()).collect(),
        rename: valued(&settings.rename),
        replace: optional(&settings.replace),
        add: valued(&settings.add),
        append: valued(&settings.append),
    }
}

fn json_edits(settings: &Settings) -> Edits<Value> {
    let valued = |lists: &Lists| -> Vec<(String, Value)> {
        let entries = lists.json.iter().enumerate().filter_map(|(index, text)| {
            let (name, value) = edits::entry(text);
            let kind = lists.json_types.get(index).map(String::as_str);
            Some((name.to_owned(), typed(value?, kind)?))
        });
        entries.collect()
    };
    let replace = valued(&settings.replace).into_iter().map(|(name, value)| (name, Some(value)));
    Edits {
        remove: settings.remove.json.iter().map(|text| edits::entry(text).0.to_owned()).collect(),
        rename: valued(&settings.rename),
        replace: replace.collect(),
        add: valued(&settings.add),
        append: valued(&settings.append),
    }
}

/// A configured text as a value of its type; `None` when it is no number, which makes the edit do nothing.
fn typed(text: &str, kind: Option<&str>) -> Option<Value> {
    match kind {
        Some("boolean") => Some(Value::Bool(text == "true")),
        Some("number") => {
            let number = text.trim();
            let whole = number.parse::<i64>().ok().map(Value::from);
            whole.or_else(|| number.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number))
        }
        _ => Some(Value::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing::{build, finish, lines, problems, request};

    #[test]
    fn headers_change_in_kongs_order() {
        let plugin = build(
            &definition(),
            json!({
                "remove": { "headers": ["x-gone:ignored", "Set-Cookie"] },
                "rename": { "headers": ["x-old:X-New"] },
                "replace": { "headers": ["x-new:n", "x-none:n", "x-keep:"] },
                "add": { "headers": ["x-keep:a", "x-add:http://a:80"] },
                "append": { "headers": ["x-add:more"] },
            }),
        );
        let mut exchange = request("GET", "/", &[]);
        for (name, value) in
            [("X-Old", "1"), ("X-Gone", "2"), ("Set-Cookie", "a"), ("set-cookie", "b"), ("X-Keep", "3")]
        {
            exchange.response.headers.add(name, value);
        }
        assert!(plugin.needs().phases.header_filter && !plugin.needs().response_body);
        plugin.header_filter(&mut exchange);
        assert_eq!(lines(&exchange.response.headers), ["X-Keep: 3", "X-New: n", "x-add: http://a:80", "x-add: more"]);
    }

    #[test]
    fn json_bodies_change_with_types() {
        let plugin = build(
            &definition(),
            json!({
                "remove": { "json": ["gone"] },
                "rename": { "json": ["old:new"] },
                "replace": { "json": ["flag:true", "none:1"], "json_types": ["boolean"] },
                "add": { "json": ["n:42", "f:-1.5", "bad:x", "s:1"], "json_types": ["number", "number", "number"] },
                "append": { "json": ["list:2"], "json_types": ["number"] },
            }),
        );
        assert!(plugin.needs().phases.response && plugin.needs().response_body);
        const BODY: &str = r#"{"flag":0,"gone":1,"list":[1],"old":null}"#;
        const EDITED: &str = r#"{"f":-1.5,"flag":true,"list":[1,2],"n":42,"new":null,"s":"1"}"#;
        for (kind, body, expected) in [
            ("application/json", BODY, EDITED),
            ("Application/JSON; charset=utf-8", BODY, EDITED),
            ("text/plain", BODY, BODY),
            ("application/json-patch+json", BODY, BODY),
            ("application/json", "[1]", "[1]"),
            ("application/json", "\u{1f}gzip", "\u{1f}gzip"),
            ("application/json", "", ""),
        ] {
            let mut exchange = request("GET", "/", &[]);
            exchange.response.headers.add("Content-Type", kind);
            exchange.response.headers.add("Content-Length", body.len().to_string());
            exchange.response.body = Some(body.as_bytes().to_vec());
            assert!(finish(plugin.response(&mut exchange)).is_none());
            assert_eq!(
                exchange.response.body.as_deref().map(String::from_utf8_lossy).as_deref(),
                Some(expected),
                "{kind}"
            );
            assert_eq!(exchange.response.headers.get_str("content-length"), Some(expected.len().to_string().as_str()));
        }
    }

    #[test]
    fn settings_are_checked() {
        for (config, expected) in [
            (json!({ "add": { "headers": ["a"] } }), "write NAME:VALUE"),
            (json!({ "rename": { "headers": ["é:b"] } }), "not a header name"),
            (json!({ "add": { "json": ["a:1"], "json_types": ["int"] } }), "not one of"),
        ] {
            let found = problems(&schema(), config.clone());
            assert!(found.iter().any(|text| text.contains(expected)), "{config}: {found:?}");
        }
        assert_eq!(problems(&schema(), json!({ "remove": { "headers": ["a"] } })), [""; 0]);
    }
}
