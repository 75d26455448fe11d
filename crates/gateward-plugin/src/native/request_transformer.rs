//! `request-transformer`: changes method, path, headers, query and body on the way to the upstream.
//!
//! Settings and rules are those of Kong 3.9 (kong/plugins/request-transformer). Steps: path, method, headers,
//! body, query; within a step remove, rename, replace, add, append. Values are templates (see
//! [`crate::native::template`]) that see the request as it was before this plugin changed it. Bodies are edited
//! when they are a JSON object or a form; others, `multipart/form-data` among them, go through unchanged.
//!
//! The body is buffered only when it is edited, or when `http_method` turns the request into GET, HEAD or TRACE
//! and a form body has to move into the query.
//!
//! Departures from Kong: what is not edited keeps its order and bytes; renaming what is not there does nothing;
//! a rendered path without a leading `/` gets one (Kong fails the request).

use crate::native::edits::{self, Arguments, Edits, Fields, JsonFields, push_escaped};
use crate::native::settings;
use crate::native::template::{Template, Values};
use crate::{
    BuildContext, BuildError, Captures, Definition, Exchange, LocalResponse, Needs, Phases, Plugin, RequestTemplates,
    Step, Templates,
};
use gateward_http::{Headers, Method};
use gateward_model::schema::{Field, HostedRule, Rule, Schema, Test};
use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::Arc;

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "request-transformer", priority: 801, schema, check_scope: settings::http, build }
}

fn schema() -> Schema {
    schema_of(&Rule::Custom(check_template), Rule::Custom(check_uri))
}

/// The schema where `templates` evaluates what is more than look-ups.
pub fn schema_with(templates: Arc<dyn Templates>) -> Schema {
    let evaluates = move |text: &str| match Template::parse(text) {
        Ok(_) => Ok(()),
        Err(_) => templates.compile(&[text.to_owned()]).map(drop).map_err(|(_, reason)| reason),
    };
    let in_uri = evaluates.clone();
    let hosted = |test: Arc<Test>| Rule::Hosted(HostedRule { name: "template".into(), argument: Value::Null, test });
    let entry = hosted(Arc::new(move |value| {
        evaluates(edits::entry(value.as_str().unwrap_or_default()).1.unwrap_or_default())
    }));
    let uri = hosted(Arc::new(move |value| {
        let text = value.as_str().unwrap_or_default();
        in_uri(text)?;
        starts_as_path(text.split("$(").next().unwrap_or_default(), value)
    }));
    schema_of(&entry, uri)
}

/// With a rule for the entries that hold templates, and one for the path.
fn schema_of(entry: &Rule, uri: Rule) -> Schema {
    let list = |element: Field| Field::array(element).default(json!([]));
    let name = || list(Field::string());
    let value = || list(Field::string().rule(Rule::Custom(edits::check_entry)).rule(entry.clone()));
    let header = || list(Field::string().rule(Rule::Custom(edits::check_header_entry)).rule(entry.clone()));
    let valued = || [("body", value()), ("headers", header()), ("querystring", value())];
    let uri = Field::string().rule(uri);
    let replace = valued().into_iter().chain([("uri", uri)]);
    Schema::new([
        ("http_method", Field::string().rule(Rule::Match("^[A-Z]+$".into()))),
        (
            "remove",
            Field::record(Schema::new([("body", name()), ("headers", name()), ("querystring", name())])).required(),
        ),
        ("rename", Field::record(Schema::new(valued())).required()),
        ("replace", Field::record(Schema::new(replace)).required()),
        ("add", Field::record(Schema::new(valued())).required()),
        ("append", Field::record(Schema::new(valued())).required()),
    ])
}

fn check_template(value: &Value) -> Result<(), String> {
    let (_, text) = edits::entry(value.as_str().unwrap_or_default());
    Template::parse(text.unwrap_or_default()).map(drop)
}

fn check_uri(value: &Value) -> Result<(), String> {
    let template = Template::parse(value.as_str().unwrap_or_default())?;
    starts_as_path(template.prefix(), value)
}

fn starts_as_path(prefix: &str, value: &Value) -> Result<(), String> {
    match prefix {
        "" => Ok(()),
        prefix if prefix.starts_with('/') => Ok(()),
        _ => Err(format!("{value} is not a path: it must start with '/'")),
    }
}

#[derive(Deserialize)]
struct Settings {
    http_method: Option<String>,
    remove: Lists,
    rename: Lists,
    replace: Lists,
    add: Lists,
    append: Lists,
}

#[derive(Deserialize)]
struct Lists {
    body: Vec<String>,
    headers: Vec<String>,
    querystring: Vec<String>,
    uri: Option<String>,
}

struct RequestTransformer {
    method: Option<Method>,
    uri: Option<Template>,
    headers: Edits<Template>,
    query: Edits<Template>,
    body: Edits<Template>,
    /// Whether any template looks at the request, so that it must be kept as it was.
    looks_up: bool,
    /// Renders what is more than look-ups.
    expressions: Option<Arc<dyn RequestTemplates>>,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let settings: Settings = settings::read(context)?;
    RequestTransformer::new(&settings, context.env.templates.as_deref())
        .map(|plugin| Box::new(plugin) as Box<dyn Plugin>)
        .map_err(|reason| settings::refuse(context, reason))
}

impl RequestTransformer {
    fn new(settings: &Settings, templates: Option<&dyn Templates>) -> Result<Self, String> {
        let mut expressions = Vec::new();
        let method = settings.http_method.as_deref();
        let method =
            method.map(|text| Method::parse(text).ok_or_else(|| format!("http_method '{text}' is not a method")));
        let uri = settings.replace.uri.as_deref().filter(|uri| !uri.is_empty());
        let uri = uri.map(|uri| Template::with_expressions(uri, &mut expressions));
        let headers = compile(settings, &mut expressions, |lists| &lists.headers);
        let query = compile(settings, &mut expressions, |lists| &lists.querystring);
        let body = compile(settings, &mut expressions, |lists| &lists.body);
        let looks_up = {
            let mut templates = headers.values().chain(query.values()).chain(body.values()).chain(&uri);
            templates.any(|template| !template.is_constant())
        };
        let expressions = match (expressions.as_slice(), templates) {
            ([], _) => None,
            // Says what is served instead.
            ([text, ..], None) => return Err(Template::parse(text).err().unwrap_or_default()),
            (texts, Some(templates)) => Some(templates.compile(texts).map_err(|(_, reason)| reason)?),
        };
        Ok(Self { method: method.transpose()?, uri, headers, query, body, looks_up, expressions })
    }

    fn moves_form_to_query(&self) -> bool {
        matches!(self.method, Some(Method::Get | Method::Head | Method::Trace))
    }

    fn edit_body(&self, exchange: &mut Exchange, values: &Values<'_>) {
        let body = exchange.body.as_deref().unwrap_or_default();
        let edited = match content(&exchange.request.headers) {
            Content::Json => {
                let Some(mut fields) = JsonFields::parse(body) else { return };
                self.body.apply(
                    &mut fields,
                    |name| name.render(values),
                    |value| Value::String(value.render(values).into_owned()),
                );
                fields.changed()
            }
            Content::Form => {
                let Ok(text) = str::from_utf8(body) else { return };
                let mut arguments = Arguments::parse(text);
                self.body.apply(&mut arguments, |name| name.render(values), |value| value.render(values));
                arguments.changed().map(String::into_bytes)
            }
            Content::Other => return,
        };
        if edited.is_some() {
            exchange.body = edited;
        }
    }

    fn edit_query(&self, exchange: &mut Exchange, values: &Values<'_>) {
        let mut arguments = Arguments::parse(exchange.upstream.query.as_deref().unwrap_or_default());
        if self.moves_form_to_query()
            && let Content::Form = content(&exchange.request.headers)
            && let Some(Ok(form)) = exchange.body.as_deref().map(str::from_utf8)
        {
            arguments.extend(Arguments::parse(form));
        }
        self.query.apply(&mut arguments, |name| name.render(values), |value| value.render(values));
        if let Some(query) = arguments.changed() {
            exchange.upstream.query = Some(query).filter(|query| !query.is_empty());
        }
    }
}

impl Plugin for RequestTransformer {
    fn needs(&self) -> Needs {
        let request_body = !self.body.is_empty() || self.moves_form_to_query();
        Needs { phases: Phases { access: true, ..Phases::default() }, request_body, ..Needs::default() }
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let rendered = match self.expressions.as_ref().map(|expressions| expressions.render(exchange)).transpose() {
            Ok(rendered) => rendered.unwrap_or_default(),
            Err(reason) => {
                tracing::error!(plugin = "request-transformer", "a template failed: {reason}");
                return Step::Respond(LocalResponse::message(500, "An unexpected error occurred"));
            }
        };
        let before = if self.looks_up { Before::of(exchange) } else { Before::default() };
        let values = Values {
            headers: &before.headers,
            query: before.query.as_deref(),
            captures: &before.captures,
            rendered: &rendered,
        };
        if let Some(uri) = &self.uri {
            exchange.upstream.path = escape_path(&uri.render(&values));
        }
        if let Some(method) = &self.method {
            exchange.upstream.method = Some(method.clone());
        }
        if !self.headers.is_empty() {
            let mut headers =
                RequestHeaders { headers: &mut exchange.request.headers, host: &mut exchange.upstream.host };
            self.headers.apply(&mut headers, |name| name.render(&values), |value| value.render(&values));
        }
        if !self.body.is_empty() {
            self.edit_body(exchange, &values);
        }
        if !self.query.is_empty() || self.moves_form_to_query() {
            self.edit_query(exchange, &values);
        }
        Step::Next
    }
}

/// The request as templates see it.
#[derive(Default)]
struct Before {
    headers: Headers,
    query: Option<String>,
    captures: Captures,
}

impl Before {
    fn of(exchange: &Exchange) -> Self {
        Self {
            headers: exchange.request.headers.clone(),
            query: exchange.upstream.query.clone(),
            captures: exchange.captures.clone(),
        }
    }
}

/// Request headers with Kong's exception: `Host` can be replaced and nothing else.
struct RequestHeaders<'a> {
    headers: &'a mut Headers,
    host: &'a mut Option<String>,
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host")
}

impl Fields for RequestHeaders<'_> {
    type Value<'v> = Cow<'v, str>;

    fn remove(&mut self, name: &str) {
        if !is_host(name) {
            Fields::remove(self.headers, name);
        }
    }

    fn rename(&mut self, old: &str, new: &str) {
        if !is_host(old) && !is_host(new) {
            self.headers.rename(old, new);
        }
    }

    fn replace(&mut self, name: &str, value: Option<Cow<'_, str>>) {
        if !is_host(name) {
            return self.headers.replace(name, value);
        }
        let fits = |host: &Cow<'_, str>| !host.is_empty() && gateward_http::headers::is_valid_value(host.as_bytes());
        if let Some(host) = value.filter(fits) {
            *self.host = Some(host.into_owned());
        }
    }

    fn add(&mut self, name: &str, value: Cow<'_, str>) {
        if !is_host(name) {
            Fields::add(self.headers, name, value);
        }
    }

    fn append(&mut self, name: &str, value: Cow<'_, str>) {
        if !is_host(name) {
            self.headers.append(name, value);
        }
    }
}

enum Content {
    Json,
    Form,
    Other,
}

fn content(headers: &Headers) -> Content {
    let kind = headers.get_str("content-type").unwrap_or_default().to_ascii_lowercase();
    if kind.contains("application/json") {
        Content::Json
    } else if kind.contains("application/x-www-form-urlencoded") {
        Content::Form
    } else {
        Content::Other
    }
}

fn compile(
    settings: &Settings,
    expressions: &mut Vec<String>,
    pick: impl Fn(&Lists) -> &Vec<String>,
) -> Edits<Template> {
    let mut optional = |lists: &Lists| -> Vec<(String, Option<Template>)> {
        let entries = pick(lists).iter().map(|text| {
            let (name, value) = edits::entry(text);
            (name.to_owned(), value.map(|value| Template::with_expressions(value, expressions)))
        });
        entries.collect()
    };
    let valued = |entries: Vec<(String, Option<Template>)>| {
        entries.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    };
    Edits {
        remove: pick(&settings.remove).iter().map(|text| edits::entry(text).0.to_owned()).collect(),
        rename: valued(optional(&settings.rename)),
        replace: optional(&settings.replace),
        add: valued(optional(&settings.add)),
        append: valued(optional(&settings.append)),
    }
}

/// A rendered path as it can stand in a request line: a leading slash, everything outside of RFC 3986's path
/// characters escaped, escapes that are there kept.
fn escape_path(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut escaped = String::with_capacity(bytes.len() + 1);
    if !path.starts_with('/') {
        escaped.push('/');
    }
    for (index, byte) in bytes.iter().copied().enumerate() {
        let is_escape = byte == b'%'
            && bytes.get(index + 1..index + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        if is_escape || byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            push_escaped(&mut escaped, byte);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing::{access, build, entity, environment, lines, problems, request};

    fn transform(config: Value, exchange: &mut Exchange) {
        let plugin = build(&definition(), config);
        assert!(access(&*plugin, exchange).is_none());
    }

    #[test]
    fn headers_change_in_kongs_order_and_templates_see_the_original() {
        let mut exchange = request("GET", "/?q=7", &[("Host", "a"), ("X-Old", "1"), ("X-Gone", "2"), ("X-Keep", "3")]);
        let config = json!({
            "remove": { "headers": ["x-gone"] },
            "rename": { "headers": ["x-old:X-New"] },
            "replace": { "headers": ["x-keep:$(headers.x-gone)", "x-new:n", "x-none:n"] },
            "add": { "headers": ["x-new:a", "x-add:$(query_params.q)-$(headers.missing or 'd')"] },
            "append": { "headers": ["x-add:more"] },
        });
        transform(config, &mut exchange);
        let expected = ["Host: a", "X-Keep: 2", "X-New: n", "x-add: 7-d", "x-add: more"];
        assert_eq!(lines(&exchange.request.headers), expected);
    }

    #[test]
    fn host_can_be_replaced_and_nothing_else() {
        let mut exchange = request("GET", "/", &[("Host", "a")]);
        let config = json!({ "remove": { "headers": ["host"] }, "add": { "headers": ["host:b"] }, "append": { "headers": ["Host:c"] } });
        transform(config, &mut exchange);
        assert_eq!(
            (lines(&exchange.request.headers), exchange.upstream.host.as_deref()),
            (vec!["Host: a".to_owned()], None)
        );
        transform(json!({ "replace": { "headers": ["Host:$(headers.host).example"] } }), &mut exchange);
        assert_eq!(exchange.upstream.host.as_deref(), Some("a.example"));
    }

    #[test]
    fn a_value_from_the_request_cannot_add_header_lines() {
        let mut exchange = request("GET", "/?q=a%0d%0ax-evil:%201", &[("X-A", "1")]);
        let config = json!({
            "replace": { "headers": ["x-a:$(query_params.q)", "host:$(query_params.q)"] },
            "add": { "headers": ["x-b:$(query_params.q)"] },
        });
        transform(config, &mut exchange);
        assert_eq!(lines(&exchange.request.headers), ["X-A: 1"]);
        assert_eq!(exchange.upstream.host, None);
    }

    #[test]
    fn path_and_method_change() {
        for (uri, expected) in [
            ("/fixed", "/fixed"),
            ("/u/$(uri_captures.id)/$(query_params.q)", "/u/7/a%20b%3Fc"),
            ("$(uri_captures['id'])", "/7"),
            ("/%41/100%", "/%41/100%25"),
        ] {
            let mut exchange = request("POST", "/?q=a+b?c", &[]);
            exchange.captures.named.push(("id".to_owned(), "7".to_owned()));
            transform(json!({ "http_method": "PUT", "replace": { "uri": uri } }), &mut exchange);
            assert_eq!(exchange.upstream.path, expected);
            assert_eq!(exchange.upstream.method, Some(Method::Put));
        }
    }

    #[test]
    fn the_query_changes() {
        for (config, expected) in [
            (json!({ "remove": { "querystring": ["a", "b"] } }), None),
            (json!({ "remove": { "querystring": ["x"] } }), Some("a=1&b=%20")),
            (
                json!({ "rename": { "querystring": ["a:c"] }, "append": { "querystring": ["b:$(query_params.a)"] } }),
                Some("c=1&b=%20&b=1"),
            ),
            (
                json!({ "replace": { "querystring": ["a:2"] }, "add": { "querystring": ["a:3", "d:4"] } }),
                Some("a=2&b=%20&d=4"),
            ),
        ] {
            let mut exchange = request("GET", "/?a=1&b=%20", &[]);
            transform(config.clone(), &mut exchange);
            assert_eq!(exchange.upstream.query.as_deref(), expected, "{config}");
        }
    }

    #[test]
    fn bodies_change_by_their_type() {
        const MULTIPART: &str = "multipart/form-data; boundary=x";
        let config = json!({
            "remove": { "body": ["a"] }, "rename": { "body": ["b:c"] }, "add": { "body": ["n:$(headers.x-n)"] },
            "append": { "body": ["c:z"] },
        });
        for (kind, body, expected) in [
            ("application/json", r#"{"a":1,"b":"y"}"#, r#"{"c":["y","z"],"n":"5"}"#),
            ("application/json; charset=utf-8", "", r#"{"c":["z"],"n":"5"}"#),
            ("application/json", "[1]", "[1]"),
            ("application/json", "{", "{"),
            ("application/x-www-form-urlencoded", "a=1&b=y", "c=y&n=5&c=z"),
            (MULTIPART, "--x--", "--x--"),
            ("text/plain", "a=1", "a=1"),
        ] {
            let mut exchange = request("POST", "/", &[("Content-Type", kind), ("X-N", "5")]);
            exchange.body = Some(body.as_bytes().to_vec());
            transform(config.clone(), &mut exchange);
            assert_eq!(
                exchange.body.as_deref().map(String::from_utf8_lossy).as_deref(),
                Some(expected),
                "{kind} {body}"
            );
        }
    }

    #[test]
    fn a_form_moves_into_the_query_of_a_get() {
        let mut exchange = request("POST", "/?a=1", &[("Content-Type", "application/x-www-form-urlencoded")]);
        exchange.body = Some(b"b=2&a=3".to_vec());
        transform(json!({ "http_method": "GET" }), &mut exchange);
        assert_eq!(exchange.upstream.query.as_deref(), Some("a=1&b=2&a=3"));
    }

    #[test]
    fn bodies_are_buffered_only_when_needed() {
        for (config, expected) in [
            (json!({}), false),
            (json!({ "add": { "headers": ["a:b"] }, "http_method": "POST" }), false),
            (json!({ "http_method": "GET" }), true),
            (json!({ "remove": { "body": ["a"] } }), true),
        ] {
            assert_eq!(build(&definition(), config.clone()).needs().request_body, expected, "{config}");
        }
    }

    #[test]
    fn settings_are_checked() {
        for (config, expected) in [
            (json!({ "add": { "headers": ["a"] } }), "write NAME:VALUE"),
            (json!({ "add": { "headers": ["a b:c"] } }), "not a header name"),
            (json!({ "add": { "querystring": ["a:$(1 + 1)"] } }), "Lua expressions"),
            (json!({ "replace": { "uri": "x$(headers.a)" } }), "must start with '/'"),
            (json!({ "replace": { "uri": "/$(os.exit())" } }), "Lua expressions"),
        ] {
            let found = problems(&schema(), config.clone());
            assert!(found.iter().any(|text| text.contains(expected)), "{config}: {found:?}");
        }
        assert_eq!(problems(&schema(), json!({ "replace": { "uri": "$(headers.a)" } })), [""; 0]);
        let entity = entity(&definition(), json!({ "add": { "body": ["a:$(f())"] } }));
        let (env, directory) = (environment(), Arc::default());
        let refusal = super::build(&BuildContext { entity: &entity, directory: &directory, env: &env }).err().unwrap();
        assert!(refusal.to_string().contains("Lua expressions in templates are not served"), "{refusal}");
    }
}
