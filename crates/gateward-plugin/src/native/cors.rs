//! cors: answers preflights and marks responses for the Fetch standard's CORS protocol.
//!
//! What `origins` means is settled when the plugin is made: everybody, one fixed origin, or a list in which an
//! entry with characters beyond those of an origin is a regular expression.

use crate::BuildError;
use crate::contract::{Definition, LocalResponse, Needs, Phases, Plugin, Step};
use crate::env::BuildContext;
use crate::exchange::Exchange;
use crate::native::settings;
use gateward_http::{Headers, Method, Name};
use gateward_model::schema::{Field, Rule, Schema};
use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;

const ORIGIN: Name<'static> = Name::new("Origin");
const REQUEST_METHOD: Name<'static> = Name::new("Access-Control-Request-Method");
const REQUEST_HEADERS: Name<'static> = Name::new("Access-Control-Request-Headers");
const REQUEST_PRIVATE_NETWORK: Name<'static> = Name::new("Access-Control-Request-Private-Network");
const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";

const METHODS: [&str; 9] = ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT"];

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "cors", priority: 2000, schema, check_scope: settings::http_without_consumer, build }
}

fn schema() -> Schema {
    let texts = || Field::array(Field::string());
    Schema::new([
        ("origins", Field::array(Field::string().rule(Rule::Custom(check_origin)))),
        ("headers", texts()),
        ("exposed_headers", texts()),
        ("methods", Field::array(Field::string().one_of(&METHODS)).default(json!(METHODS))),
        ("max_age", Field::number()),
        ("credentials", Field::boolean().default(false).required()),
        ("private_network", Field::boolean().default(false).required()),
        ("preflight_continue", Field::boolean().default(false).required()),
        ("allow_origin_absent", Field::boolean().default(true).required()),
    ])
}

fn check_origin(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or("");
    if text == "*" || Pattern::parse(text).is_ok() { Ok(()) } else { Err(format!("{value} is not a valid regex")) }
}

#[derive(Deserialize)]
struct Settings {
    origins: Option<Vec<String>>,
    headers: Option<Vec<String>>,
    exposed_headers: Option<Vec<String>>,
    methods: Option<Vec<String>>,
    max_age: Option<f64>,
    credentials: bool,
    private_network: bool,
    preflight_continue: bool,
    allow_origin_absent: bool,
}

struct Cors {
    origins: Origins,
    /// Value of `Access-Control-Allow-Headers`; `None` repeats what the client asks for.
    allow_headers: Option<String>,
    exposed_headers: Option<String>,
    allow_methods: String,
    max_age: Option<String>,
    credentials: bool,
    private_network: bool,
    preflight_continue: bool,
    allow_origin_absent: bool,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let settings: Settings = settings::read(context)?;
    let list = |values: Option<Vec<String>>| values.filter(|values| !values.is_empty()).map(|values| values.join(","));
    let origins = Origins::new(settings.origins.unwrap_or_default())
        .map_err(|error| settings::refuse(context, format!("config.origins: {error}")))?;
    Ok(Box::new(Cors {
        origins,
        allow_headers: list(settings.headers),
        exposed_headers: list(settings.exposed_headers),
        allow_methods: settings.methods.map_or_else(|| METHODS.join(","), |methods| methods.join(",")),
        max_age: settings.max_age.map(|seconds| seconds.to_string()),
        credentials: settings.credentials,
        private_network: settings.private_network,
        preflight_continue: settings.preflight_continue,
        allow_origin_absent: settings.allow_origin_absent,
    }))
}

/// Marks an exchange whose response is not to be touched: a preflight, answered here or by the upstream.
struct Preflight;

impl Plugin for Cors {
    fn needs(&self) -> Needs {
        Needs { phases: Phases { access: true, header_filter: true, ..Phases::default() }, ..Needs::default() }
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let headers = &exchange.request.headers;
        let is_preflight = exchange.request.method == Method::Options && headers.contains(REQUEST_METHOD);
        let Some(origin) = headers.get(ORIGIN).filter(|_| is_preflight) else {
            return Step::Next;
        };
        if self.preflight_continue {
            exchange.put(Preflight);
            return Step::Next;
        }
        let mut answer = Headers::default();
        self.write_preflight(headers, &String::from_utf8_lossy(origin), &mut answer);
        exchange.put(Preflight);
        let field =
            |(name, value): (&str, &[u8])| (Cow::Owned(name.to_owned()), String::from_utf8_lossy(value).into_owned());
        Step::Respond(LocalResponse { headers: answer.iter().map(field).collect(), ..LocalResponse::empty(200) })
    }

    fn header_filter(&self, exchange: &mut Exchange) {
        if exchange.kept::<Preflight>().is_some() {
            return;
        }
        let origin = exchange.request.headers.get(ORIGIN).map(String::from_utf8_lossy);
        if origin.is_none() && !self.allow_origin_absent {
            return;
        }
        let answer = &mut exchange.response.headers;
        self.write_origin(origin.as_deref(), answer);
        if let Some(names) = &self.exposed_headers {
            answer.set("Access-Control-Expose-Headers", names);
        }
    }
}

impl Cors {
    fn write_preflight(&self, request: &Headers, origin: &str, answer: &mut Headers) {
        self.write_origin(Some(origin), answer);
        match (&self.allow_headers, request.get(REQUEST_HEADERS)) {
            (Some(names), _) => {
                answer.set("Access-Control-Allow-Headers", names);
            }
            (None, Some(asked)) => {
                answer.set("Access-Control-Allow-Headers", asked);
            }
            (None, None) => {}
        }
        answer.set("Access-Control-Allow-Methods", &self.allow_methods);
        if let Some(seconds) = &self.max_age {
            answer.set("Access-Control-Max-Age", seconds);
        }
        if self.private_network && request.get(REQUEST_PRIVATE_NETWORK) == Some(b"true") {
            answer.set("Access-Control-Allow-Private-Network", "true");
        }
    }

    /// Who may read the response, and whether with credentials. `*` does not go with credentials, so that the
    /// origin is named then (Fetch, "CORS protocol and credentials").
    fn write_origin(&self, origin: Option<&str>, answer: &mut Headers) {
        match (&self.origins, origin) {
            (Origins::All { listed }, origin) => {
                let named = origin.filter(|_| self.credentials);
                // With one answer for everybody caches need not tell origins apart.
                if *listed || named.is_some() {
                    answer.add("Vary", "Origin");
                }
                answer.set(ALLOW_ORIGIN, named.unwrap_or("*"));
                if named.is_some() {
                    answer.set("Access-Control-Allow-Credentials", "true");
                }
                return;
            }
            (Origins::One(fixed), _) => {
                answer.add("Vary", "Origin");
                answer.set(ALLOW_ORIGIN, fixed);
            }
            (Origins::Some(patterns), origin) => {
                answer.add("Vary", "Origin");
                let origin = origin.map(Normalised::new);
                match origin.filter(|origin| patterns.iter().any(|pattern| pattern.matches(origin))) {
                    Some(origin) => answer.set(ALLOW_ORIGIN, origin.text.as_ref()),
                    None => answer.remove(ALLOW_ORIGIN) > 0,
                };
            }
        }
        if self.credentials {
            answer.set("Access-Control-Allow-Credentials", "true");
        }
    }
}

/// Whose pages may read responses.
enum Origins {
    /// Everybody's; `listed`: `*` is one of several entries.
    All { listed: bool },
    /// This origin's, which is told whoever asks.
    One(String),
    /// Those that match one of these.
    Some(Vec<Pattern>),
}

impl Origins {
    fn new(entries: Vec<String>) -> Result<Self, regex::Error> {
        if entries.is_empty() || entries.iter().any(|entry| entry == "*") {
            return Ok(Self::All { listed: entries.len() > 1 });
        }
        match <[String; 1]>::try_from(entries) {
            Ok([entry]) if is_plain(&entry) => Ok(Self::One(entry)),
            Ok([entry]) => Ok(Self::Some(vec![Pattern::parse(&entry)?])),
            Err(entries) => {
                let patterns: Result<_, _> = entries.iter().map(|entry| Pattern::parse(entry)).collect();
                Ok(Self::Some(patterns?))
            }
        }
    }
}

/// Whether an entry has only characters of origins; any other makes it a regular expression.
fn is_plain(entry: &str) -> bool {
    !entry.is_empty() && entry.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:/-".contains(&byte))
}

/// One entry of several.
enum Pattern {
    /// The origin, normalised.
    Exact(String),
    /// Matches the whole host.
    Host(Regex),
    /// Matches the whole origin: the entry has a colon.
    Origin(Regex),
}

impl Pattern {
    fn parse(entry: &str) -> Result<Self, regex::Error> {
        if is_plain(entry) {
            return Ok(Self::Exact(Normalised::new(entry).text.into_owned()));
        }
        let anchored = Regex::new(&format!("^(?:{entry})$"))?;
        Ok(if entry.contains(':') { Self::Origin(anchored) } else { Self::Host(anchored) })
    }

    fn matches(&self, origin: &Normalised<'_>) -> bool {
        match self {
            Self::Exact(text) => origin.text == text.as_str(),
            Self::Host(regex) => regex.is_match(origin.host),
            Self::Origin(regex) => regex.is_match(&origin.text),
        }
    }
}

/// An origin without what does not tell it apart: path, user, default port.
struct Normalised<'a> {
    text: Cow<'a, str>,
    host: &'a str,
}

impl<'a> Normalised<'a> {
    fn new(origin: &'a str) -> Self {
        let Some((scheme, rest)) = origin.split_once("://") else {
            return Self { text: origin.into(), host: origin };
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
        let host_port = authority.rsplit('@').next().unwrap_or("");
        let (host, port) = match host_port.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
            _ => (host_port, ""),
        };
        if host.is_empty() {
            return Self { text: origin.into(), host: origin };
        }
        let is_default = port.is_empty() || matches!((scheme, port), ("http", "80") | ("https", "443"));
        let plain = if is_default { host } else { host_port };
        let text = if rest == plain { origin.into() } else { format!("{scheme}://{plain}").into() };
        Self { text, host }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing;

    fn lines(fields: &[(Cow<'static, str>, String)]) -> Vec<String> {
        fields.iter().map(|(name, value)| format!("{}: {value}", name.trim_start_matches("Access-Control-"))).collect()
    }

    fn check_preflight(config: Value, headers: &[(&str, &str)], expected: &[&str]) {
        let case = format!("{config} {headers:?}");
        let mut all = vec![("Access-Control-Request-Method", "GET")];
        all.extend_from_slice(headers);
        let mut exchange = testing::request("OPTIONS", "/", &all);
        let plugin = testing::build(&definition(), config);
        let response = testing::access(plugin.as_ref(), &mut exchange).expect("a preflight's answer");
        assert_eq!((response.status, &response.body), (200, &crate::LocalBody::Empty));
        assert_eq!(lines(&response.headers), expected, "{case}");
        plugin.header_filter(&mut exchange);
        assert!(exchange.response.headers.is_empty());
    }

    fn check_response(config: Value, origin: Option<&str>, expected: &[&str]) {
        let case = format!("{config} {origin:?}");
        let headers: Vec<_> = origin.iter().map(|origin| ("Origin", *origin)).collect();
        let mut exchange = testing::request("GET", "/", &headers);
        let plugin = testing::build(&definition(), config);
        assert_eq!(testing::access(plugin.as_ref(), &mut exchange), None);
        exchange.response.headers.add(ALLOW_ORIGIN, "http://upstream.example");
        exchange.response.headers.add("Vary", "Accept");
        plugin.header_filter(&mut exchange);
        let lines = testing::lines(&exchange.response.headers);
        let lines: Vec<_> = lines.iter().map(|line| line.trim_start_matches("Access-Control-")).collect();
        assert_eq!(lines, expected, "{case}");
    }

    const ALL_METHODS: &str = "Allow-Methods: GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT";

    #[test]
    fn preflights_are_answered() {
        let origin = ("Origin", "https://a.example");
        check_preflight(json!({}), &[origin], &["Allow-Origin: *", ALL_METHODS]);
        let asked = ("Access-Control-Request-Headers", "x-a, x-b");
        let repeated = ["Allow-Origin: *", "Allow-Headers: x-a, x-b", ALL_METHODS];
        check_preflight(json!({}), &[origin, asked], &repeated);
        let config = json!({
            "origins": ["https://b.example"], "headers": ["A", "B"], "methods": ["GET", "PUT"], "max_age": 3600,
            "credentials": true, "private_network": true, "exposed_headers": ["C"],
        });
        let private = ("Access-Control-Request-Private-Network", "true");
        let expected = [
            "Vary: Origin",
            "Allow-Origin: https://b.example",
            "Allow-Credentials: true",
            "Allow-Headers: A,B",
            "Allow-Methods: GET,PUT",
            "Max-Age: 3600",
        ];
        check_preflight(config.clone(), &[origin, asked], &expected);
        let expected: Vec<&str> = expected.into_iter().chain(["Allow-Private-Network: true"]).collect();
        check_preflight(config, &[origin, private], &expected);
        let named = ["Vary: Origin", "Allow-Origin: https://a.example", "Allow-Credentials: true", ALL_METHODS];
        check_preflight(json!({"credentials": true}), &[origin], &named);
    }

    #[test]
    fn other_requests_are_no_preflights() {
        for (method, headers) in [
            ("OPTIONS", vec![("Origin", "https://a")]),
            ("OPTIONS", vec![("Access-Control-Request-Method", "GET")]),
            ("GET", vec![("Origin", "https://a"), ("Access-Control-Request-Method", "GET")]),
        ] {
            let plugin = testing::build(&definition(), json!({}));
            let mut exchange = testing::request(method, "/", &headers);
            assert_eq!(testing::access(plugin.as_ref(), &mut exchange), None);
            plugin.header_filter(&mut exchange);
            assert_eq!(testing::lines(&exchange.response.headers), ["Access-Control-Allow-Origin: *"]);
        }
    }

    #[test]
    fn preflights_can_go_upstream() {
        let plugin = testing::build(&definition(), json!({"preflight_continue": true}));
        let headers = [("Origin", "https://a"), ("Access-Control-Request-Method", "GET")];
        let mut exchange = testing::request("OPTIONS", "/", &headers);
        assert_eq!(testing::access(plugin.as_ref(), &mut exchange), None);
        plugin.header_filter(&mut exchange);
        assert!(exchange.response.headers.is_empty());
    }

    #[test]
    fn responses_are_marked() {
        let origin = Some("https://a.example");
        check_response(json!({}), origin, &["Allow-Origin: *", "Vary: Accept"]);
        check_response(json!({}), None, &["Allow-Origin: *", "Vary: Accept"]);
        check_response(json!({"credentials": true}), None, &["Allow-Origin: *", "Vary: Accept"]);
        let named = ["Allow-Origin: https://a.example", "Vary: Accept", "Vary: Origin", "Allow-Credentials: true"];
        check_response(json!({"credentials": true}), origin, &named);
        let untouched = ["Allow-Origin: http://upstream.example", "Vary: Accept"];
        check_response(json!({"allow_origin_absent": false}), None, &untouched);
        let exposed = ["Allow-Origin: *", "Vary: Accept", "Expose-Headers: A,B"];
        check_response(json!({"exposed_headers": ["A", "B"]}), origin, &exposed);
        let listed = ["Allow-Origin: *", "Vary: Accept", "Vary: Origin"];
        check_response(json!({"origins": ["https://b.example", "*"]}), origin, &listed);
        let fixed = ["Allow-Origin: https://b.example", "Vary: Accept", "Vary: Origin"];
        check_response(json!({"origins": ["https://b.example"]}), origin, &fixed);
        check_response(json!({"origins": ["https://b.example", "c"]}), origin, &["Vary: Accept", "Vary: Origin"]);
        check_response(json!({"origins": ["https://b.example", "c"]}), None, &["Vary: Accept", "Vary: Origin"]);
    }

    #[test]
    fn origins_match_as_kong_matches_them() {
        for (entry, origin, allowed) in [
            ("https://a.example", "https://a.example", Some("https://a.example")),
            ("https://a.example", "https://a.example:443", Some("https://a.example")),
            ("http://a.example:80", "http://a.example", Some("http://a.example")),
            ("https://a.example/path", "https://a.example", Some("https://a.example")),
            ("https://a.example", "http://a.example", None),
            ("https://a.example", "https://a.example:8443", None),
            ("https://a.example", "https://xa.example", None),
            ("a.example", "https://a.example", None),
            (r"(.*\.)?a\.example", "https://b.a.example:81", Some("https://b.a.example:81")),
            (r"(.*\.)?a\.example", "https://ba.example.org", None),
            (r"^https://.*\.a\.example$", "https://b.a.example", Some("https://b.a.example")),
            (r"https://.*\.a\.example", "https://b.a.example.evil", None),
            (r"https://.*\.a\.example", "https://b.a.example:8443", None),
            (r"https://.*\.a\.example(:[0-9]+)?", "https://b.a.example:8443", Some("https://b.a.example:8443")),
            ("https://x$|https://y", "https://y", Some("https://y")),
            ("nu[l]+", "null", Some("null")),
            ("(.*)", "", Some("")),
        ] {
            let expected = allowed.map(|allowed| format!("Allow-Origin: {allowed}"));
            let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            expected.extend(["Vary: Accept", "Vary: Origin"]);
            check_response(json!({"origins": [entry, "https://other.example"]}), Some(origin), &expected);
        }
        let expected = ["Allow-Origin: https://b.a.example", "Vary: Accept", "Vary: Origin"];
        check_response(json!({"origins": [r".*\.a\.example"]}), Some("https://b.a.example"), &expected);
    }

    #[test]
    fn settings_are_checked() {
        for (config, good) in [
            (json!({"origins": ["*", "a.b", "(a|b)"]}), true),
            (json!({"origins": ["("]}), false),
            (json!({"methods": ["GET"]}), true),
            (json!({"methods": ["get"]}), false),
        ] {
            assert_eq!(testing::problems(&schema(), config.clone()).is_empty(), good, "{config}");
        }
    }
}
