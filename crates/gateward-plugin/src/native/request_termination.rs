//! request-termination: answer in place of the upstream, always or when a header or argument asks for it.
//!
//! `echo` answers with the request as the gateway understood it, for debugging a live system.

use crate::BuildError;
use crate::contract::{Definition, LocalBody, LocalResponse, Needs, Phases, Plugin, Step};
use crate::env::BuildContext;
use crate::exchange::Exchange;
use crate::native::settings;
use crate::query::{self, Argument};
use gateward_http::headers::is_valid_value;
use gateward_model::schema::{Check, Field, Rule, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

const JSON: &str = "application/json; charset=utf-8";

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "request-termination", priority: 2, schema, check_scope: settings::http, build }
}

fn schema() -> Schema {
    Schema::new([
        // Kong also takes 1xx, which a client would not take for the end of the exchange.
        ("status_code", Field::integer().default(503).between(200, 599).required()),
        ("message", Field::string()),
        ("content_type", Field::string().rule(Rule::Custom(check_content_type))),
        ("body", Field::string()),
        ("echo", Field::boolean().default(false).required()),
        ("trigger", settings::header_name()),
    ])
    .check(Check::Custom(check_combination))
}

fn check_content_type(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) if is_valid_value(text.as_bytes()) => Ok(()),
        _ => Err("a content type cannot contain control characters".to_owned()),
    }
}

fn check_combination(config: &Value) -> Result<(), (String, String)> {
    let present = |name: &str| config[name].as_str().is_some_and(|text| !text.is_empty());
    let at = |field: &str, text: &str| Err((field.to_owned(), text.to_owned()));
    if present("message") && (present("content_type") || present("body")) {
        return at("message", "message cannot be used with content_type or body: remove one");
    }
    if present("content_type") && !present("body") {
        return at("content_type", "content_type requires a body");
    }
    if config["echo"] == true && (present("content_type") || present("body")) {
        return at("echo", "echo cannot be used with content_type and body: remove one");
    }
    Ok(())
}

#[derive(Deserialize)]
struct Settings {
    status_code: u16,
    message: Option<String>,
    content_type: Option<String>,
    body: Option<String>,
    echo: bool,
    trigger: Option<String>,
}

struct RequestTermination {
    status: u16,
    message: Option<String>,
    echo: bool,
    trigger: Option<String>,
    /// The answer when it does not depend on the request.
    response: LocalResponse,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let settings: Settings = settings::read(context)?;
    let message = settings.message.or_else(|| default_message(settings.status_code).map(str::to_owned));
    let body = match (settings.body, &message) {
        (Some(body), _) => {
            let content_type = settings.content_type.unwrap_or_else(|| "text/plain; charset=utf-8".to_owned());
            LocalBody::Bytes(content_type, body.into_bytes())
        }
        (None, Some(message)) => {
            LocalBody::Bytes(JSON.to_owned(), json!({ "message": message }).to_string().into_bytes())
        }
        (None, None) => LocalBody::Empty,
    };
    Ok(Box::new(RequestTermination {
        status: settings.status_code,
        message,
        echo: settings.echo,
        trigger: settings.trigger,
        response: LocalResponse { status: settings.status_code, headers: Vec::new(), body },
    }))
}

fn default_message(status: u16) -> Option<&'static str> {
    Some(match status {
        401 => "Unauthorized",
        404 => "Not found",
        405 => "Method not allowed",
        500 => "An unexpected error occurred",
        502 => "Bad Gateway",
        503 => "Service unavailable",
        _ => return None,
    })
}

impl Plugin for RequestTermination {
    fn needs(&self) -> Needs {
        Needs { phases: Phases { access: true, ..Phases::default() }, request_body: self.echo, ..Needs::default() }
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        if self.trigger.as_deref().is_some_and(|trigger| !is_triggered(exchange, trigger)) {
            return Step::Next;
        }
        if !self.echo {
            return Step::Respond(self.response.clone());
        }
        let content = echo(exchange, self.message.as_deref()).to_string();
        let body = LocalBody::Bytes(JSON.to_owned(), content.into_bytes());
        Step::Respond(LocalResponse { status: self.status, headers: Vec::new(), body })
    }
}

fn is_triggered(exchange: &Exchange, trigger: &str) -> bool {
    let in_query = || exchange.request.query().is_some_and(|query| query::argument(query, trigger) != Argument::Absent);
    exchange.request.headers.contains(trigger) || in_query()
}

fn echo(exchange: &Exchange, message: Option<&str>) -> Value {
    let request = &exchange.request;
    let mut headers = Map::new();
    for (name, value) in request.headers.iter() {
        add(&mut headers, name.to_ascii_lowercase(), String::from_utf8_lossy(value).into());
    }
    json!({
        "message": message,
        "kong": { "worker_pid": std::process::id() },
        "request": {
            "scheme": exchange.client.scheme.as_str(),
            "host": host(&request.authority),
            "port": exchange.client.port,
            "headers": headers,
            "query": arguments(request.query().unwrap_or("")),
            "body": exchange.body.as_deref().and_then(|body| parsed(exchange, body)),
            "raw_body": exchange.body.as_deref().map(String::from_utf8_lossy),
            "method": request.method.as_str(),
            "path": exchange.path,
        },
        "matched_route": entity(exchange.route.as_deref()),
        "matched_service": entity(exchange.service.as_deref()),
    })
}

/// Host of an authority, without port.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn entity(entity: Option<&impl Serialize>) -> Value {
    entity.and_then(|entity| serde_json::to_value(entity).ok()).unwrap_or_default()
}

fn arguments(query: &str) -> Map<String, Value> {
    let mut arguments = Map::new();
    for (name, value) in query::pairs(query) {
        let value = value.map_or(Value::Bool(true), |value| query::decode(value).into());
        add(&mut arguments, query::decode(name).into_owned(), value);
    }
    arguments
}

/// A repeated name has a list of values.
fn add(all: &mut Map<String, Value>, name: String, value: Value) {
    match all.get_mut(&name) {
        None => {
            all.insert(name, value);
        }
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

fn parsed(exchange: &Exchange, body: &[u8]) -> Option<Value> {
    let content_type = exchange.request.headers.get_str("Content-Type")?.to_ascii_lowercase();
    if content_type.starts_with("application/json") {
        return serde_json::from_slice(body).ok();
    }
    let text = str::from_utf8(body).ok()?;
    content_type.starts_with("application/x-www-form-urlencoded").then(|| arguments(text).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing;

    fn check(config: Value, target: &str, headers: &[(&str, &str)], expected: &str) {
        let case = format!("{config} {target}");
        let plugin = testing::build(&definition(), config);
        let response = testing::access(plugin.as_ref(), &mut testing::request("GET", target, headers));
        assert_eq!(testing::summary(response.as_ref()), expected, "{case}");
    }

    #[test]
    fn answers_are_fixed() {
        let unavailable = r#"503 [application/json; charset=utf-8] {"message":"Service unavailable"}"#;
        check(json!({}), "/", &[], unavailable);
        let said = r#"404 [application/json; charset=utf-8] {"message":"say \"no\""}"#;
        check(json!({"status_code": 404, "message": "say \"no\""}), "/", &[], said);
        check(json!({"status_code": 204}), "/", &[], "204");
        check(json!({"status_code": 200, "body": "hi"}), "/", &[], "200 [text/plain; charset=utf-8] hi");
        check(json!({"body": "<p>", "content_type": "text/html"}), "/", &[], "503 [text/html] <p>");
    }

    #[test]
    fn a_trigger_is_a_header_or_an_argument() {
        let config = json!({"status_code": 418, "trigger": "X-Stop"});
        check(config.clone(), "/", &[], "next");
        check(config.clone(), "/?x-stop=1", &[], "next");
        check(config.clone(), "/?a&X-Stop", &[], "418");
        check(config, "/", &[("x-stop", "")], "418");
    }

    #[test]
    fn the_request_is_echoed() {
        let plugin = testing::build(&definition(), json!({"echo": true, "status_code": 404}));
        assert!(plugin.needs().request_body);
        let headers = [("Host", "a.example:8000"), ("X-A", "1"), ("x-a", "2"), ("Content-Type", "application/json")];
        let mut exchange = testing::request("POST", "/p?q&a=1&a=2&b=%20", &headers);
        exchange.client.port = 8000;
        exchange.body = Some(br#"{"k":1}"#.to_vec());
        let response = testing::access(plugin.as_ref(), &mut exchange).unwrap();
        let LocalBody::Bytes(kind, bytes) = response.body else { panic!("{response:?}") };
        assert_eq!((response.status, kind.as_str()), (404, JSON));
        let mut echoed: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(echoed["kong"]["worker_pid"].take(), std::process::id());
        let expected = json!({
            "message": "Not found",
            "kong": {"worker_pid": null},
            "request": {
                "scheme": "http", "host": "a.example", "port": 8000, "method": "POST", "path": "/p",
                "headers": {"host": "a.example:8000", "x-a": ["1", "2"], "content-type": "application/json"},
                "query": {"q": true, "a": ["1", "2"], "b": " "},
                "body": {"k": 1}, "raw_body": "{\"k\":1}",
            },
            "matched_route": null, "matched_service": null,
        });
        assert_eq!(echoed, expected);
    }

    #[test]
    fn combinations_are_checked() {
        for (config, good) in [
            (json!({}), true),
            (json!({"message": "a", "echo": true}), true),
            (json!({"body": "a", "content_type": "b", "trigger": "x-a"}), true),
            (json!({"message": "a", "body": "b"}), false),
            (json!({"message": "a", "content_type": "b"}), false),
            (json!({"content_type": "b"}), false),
            (json!({"body": "a", "content_type": "b\r\nx: y"}), false),
            (json!({"body": "a", "echo": true}), false),
            (json!({"trigger": "a b"}), false),
            (json!({"status_code": 600}), false),
        ] {
            assert_eq!(testing::problems(&schema(), config.clone()).is_empty(), good, "{config}");
        }
    }
}
