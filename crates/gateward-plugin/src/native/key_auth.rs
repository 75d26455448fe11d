//! key-auth: the caller is who owns the API key in a header, the query or the body.
//!
//! The look-up works on the request's own bytes: on the way to an accepted key nothing is allocated unless the
//! key is escaped, sits in the body or has to be hidden.

use crate::BuildError;
use crate::contract::{Definition, LocalResponse, Needs, Phases, Plugin, Step};
use crate::env::BuildContext;
use crate::exchange::{Credential, Exchange};
use crate::native::authentication::{self, Fallback};
use crate::native::settings;
use crate::query::{self, Argument};
use gateward_http::{Headers, Method, Name};
use gateward_model::schema::{Field, Schema};
use gateward_model::{Consumer, Directory, EntityId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::sync::Arc;

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "key-auth", priority: 1250, schema, check_scope: settings::http_without_consumer, build }
}

fn schema() -> Schema {
    Schema::new([
        ("key_names", Field::array(settings::header_name()).default(json!(["apikey"])).required()),
        ("hide_credentials", Field::boolean().default(false).required()),
        ("anonymous", Field::string()),
        ("key_in_header", Field::boolean().default(true).required()),
        ("key_in_query", Field::boolean().default(true).required()),
        ("key_in_body", Field::boolean().default(false).required()),
        ("run_on_preflight", Field::boolean().default(true).required()),
        ("realm", Field::string()),
    ])
}

#[derive(Deserialize)]
struct Settings {
    key_names: Vec<String>,
    hide_credentials: bool,
    anonymous: Option<String>,
    key_in_header: bool,
    key_in_query: bool,
    key_in_body: bool,
    run_on_preflight: bool,
    realm: Option<String>,
}

struct KeyAuth {
    settings: Settings,
    fallback: Fallback,
    /// Value of `WWW-Authenticate` in refusals.
    challenge: String,
    directory: Arc<Directory>,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let settings: Settings = settings::read(context)?;
    let fallback = Fallback::new(context, settings.anonymous.as_deref())?;
    let challenge = settings.realm.as_ref().map_or("Key".to_owned(), |realm| format!("Key realm=\"{realm}\""));
    Ok(Box::new(KeyAuth { settings, fallback, challenge, directory: context.directory.clone() }))
}

/// Why a request has no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Missing,
    Repeated,
    Unknown,
}

impl Refusal {
    fn message(self) -> &'static str {
        match self {
            Self::Missing => "No API key found in request",
            Self::Repeated => "Duplicate API key found",
            Self::Unknown => "Unauthorized",
        }
    }
}

impl Plugin for KeyAuth {
    fn needs(&self) -> Needs {
        let phases = Phases { access: true, ..Phases::default() };
        Needs { phases, request_body: self.settings.key_in_body, ..Needs::default() }
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        if !self.settings.run_on_preflight && exchange.request.method == Method::Options {
            return Step::Next;
        }
        if self.fallback.is_settled(exchange) {
            return Step::Next;
        }
        match self.authenticate(exchange) {
            Ok((consumer, id)) => {
                authentication::identify(exchange, consumer, Some(Credential { id, identifier: None }));
                Step::Next
            }
            Err(refusal) => self.fallback.failed(exchange, || {
                LocalResponse::message(401, refusal.message()).header("WWW-Authenticate", self.challenge.clone())
            }),
        }
    }
}

impl KeyAuth {
    fn authenticate(&self, exchange: &mut Exchange) -> Result<(Arc<Consumer>, EntityId), Refusal> {
        let mut body = ParsedBody::Unread;
        let (name, key) = self.find(exchange, &mut body)?;
        let owner = if key.is_empty() { Err(Refusal::Missing) } else { self.owner(&key) };
        if self.settings.hide_credentials {
            self.hide(exchange, body, name);
        }
        owner
    }

    fn owner(&self, key: &str) -> Result<(Arc<Consumer>, EntityId), Refusal> {
        let (credential, consumer) = self.directory.key(key).ok_or(Refusal::Unknown)?;
        Ok((consumer.clone(), credential.id))
    }

    /// The first key in the order of the names, and for each name header before query before body.
    fn find<'e>(&self, exchange: &'e Exchange, body: &mut ParsedBody) -> Result<(&str, Cow<'e, str>), Refusal> {
        let query = if self.settings.key_in_query { exchange.request.query() } else { None };
        for name in &self.settings.key_names {
            let mut found = Argument::Absent;
            if self.settings.key_in_header {
                found = in_headers(&exchange.request.headers, name);
            }
            if let (Argument::Absent, Some(query)) = (&found, query) {
                found = query::argument(query, name);
            }
            if found == Argument::Absent && self.settings.key_in_body {
                found = body.read(exchange).argument(name);
            }
            match found {
                Argument::Once(key) => return Ok((name, key)),
                Argument::Repeated => return Err(Refusal::Repeated),
                Argument::Absent | Argument::Bare => {}
            }
        }
        Err(Refusal::Missing)
    }

    /// Takes the key away from what goes upstream: everywhere, not only where it was found.
    fn hide(&self, exchange: &mut Exchange, mut body: ParsedBody, name: &str) {
        exchange.request.headers.remove(name);
        if let Some(rest) = exchange.upstream.query.as_deref().and_then(|query| query::without(query, name)) {
            exchange.upstream.query = Some(rest).filter(|rest| !rest.is_empty());
        }
        if self.settings.key_in_body {
            body.read(exchange);
            if let Some(rest) = body.without(name) {
                exchange.body = Some(rest);
            }
        }
    }
}

fn in_headers<'e>(headers: &'e Headers, name: &str) -> Argument<'e> {
    let name = Name::new(name);
    let Some(value) = headers.get(name) else {
        return Argument::Absent;
    };
    if headers.count(name) > 1 {
        return Argument::Repeated;
    }
    // Keys of a configuration are text: one that is no UTF-8 here finds nobody.
    Argument::Once(String::from_utf8_lossy(value))
}

/// The buffered body by its content type, parsed when first asked for.
enum ParsedBody {
    Unread,
    Form(String),
    Json(Map<String, Value>),
    /// Absent, malformed, or of a type that carries no arguments.
    Other,
}

impl ParsedBody {
    fn read(&mut self, exchange: &Exchange) -> &Self {
        if matches!(self, Self::Unread) {
            *self = Self::parse(exchange);
        }
        self
    }

    fn parse(exchange: &Exchange) -> Self {
        let Some(bytes) = &exchange.body else { return Self::Other };
        let content_type = exchange.request.headers.get_str("Content-Type").unwrap_or("");
        let media_type = content_type.split(';').next().unwrap_or("").trim();
        if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return str::from_utf8(bytes).map_or(Self::Other, |text| Self::Form(text.to_owned()));
        }
        if media_type.eq_ignore_ascii_case("application/json") {
            return serde_json::from_slice(bytes).map_or(Self::Other, Self::Json);
        }
        Self::Other
    }

    fn argument(&self, name: &str) -> Argument<'static> {
        match self {
            Self::Unread | Self::Other => Argument::Absent,
            Self::Form(text) => match query::argument(text, name) {
                Argument::Once(value) => Argument::Once(value.into_owned().into()),
                Argument::Absent => Argument::Absent,
                Argument::Bare => Argument::Bare,
                Argument::Repeated => Argument::Repeated,
            },
            Self::Json(members) => match members.get(name) {
                None | Some(Value::Null) => Argument::Absent,
                Some(Value::String(text)) => Argument::Once(text.clone().into()),
                Some(Value::Array(_) | Value::Object(_)) => Argument::Repeated,
                Some(Value::Bool(_) | Value::Number(_)) => Argument::Bare,
            },
        }
    }

    /// The body without `name`; `None` when it does not have it.
    fn without(self, name: &str) -> Option<Vec<u8>> {
        match self {
            Self::Unread | Self::Other => None,
            Self::Form(text) => query::without(&text, name).map(String::into_bytes),
            Self::Json(mut members) => {
                members.remove(name)?;
                serde_json::to_vec(&members).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing;
    use gateward_model::{Config, KeyAuthCredential, Secret};

    fn entities() -> Config {
        let ann = Arc::new(testing::consumer("ann", Some("ann"), None));
        let guest = Arc::new(testing::consumer("guest", Some("guest"), None));
        let key = KeyAuthCredential {
            id: EntityId::derived("keyauth_credentials", "k"),
            consumer: ann.id,
            key: Secret::new("s3 cret"),
            ttl: None,
            tags: None,
            created_at: 0,
        };
        Config { consumers: vec![ann, guest], keyauth_credentials: vec![Arc::new(key)], ..Config::default() }
    }

    /// Runs the plugin; what came of it and who the caller is: `next ann`, `401 Unauthorized -`.
    fn run(config: Value, exchange: &mut Exchange) -> String {
        let plugin = testing::build_with(&definition(), config, &entities(), &testing::environment());
        let response = testing::access(plugin.as_ref(), exchange);
        let caller = exchange.auth.consumer.as_ref().and_then(|consumer| consumer.username.as_deref());
        format!("{} {}", testing::summary(response.as_ref()), caller.unwrap_or("-"))
    }

    fn check(config: Value, target: &str, headers: &[(&str, &str)], expected: &str) {
        let case = format!("{config} {target} {headers:?}");
        let mut exchange = testing::request("GET", target, headers);
        assert_eq!(run(config, &mut exchange), expected, "{case}");
    }

    const MISSING: &str = "401 No API key found in request -";
    const REPEATED: &str = "401 Duplicate API key found -";

    #[test]
    fn keys_are_found_in_header_and_query() {
        check(json!({}), "/", &[], MISSING);
        check(json!({}), "/", &[("ApiKey", "s3 cret")], "next ann");
        check(json!({}), "/?a&apikey=s3+cret", &[], "next ann");
        check(json!({}), "/?%61pikey=s3%20cret", &[], "next ann");
        check(json!({}), "/", &[("apikey", "wrong")], "401 Unauthorized -");
        check(json!({}), "/", &[("apikey", "")], MISSING);
        check(json!({}), "/?apikey", &[], MISSING);
        check(json!({}), "/", &[("apikey", "s3 cret"), ("apikey", "s3 cret")], REPEATED);
        check(json!({}), "/?apikey=s3+cret&apikey=b", &[], REPEATED);
        check(json!({}), "/?apikey=s3+cret", &[("apikey", "wrong")], "401 Unauthorized -");
        check(json!({"key_in_header": false}), "/?apikey=s3+cret", &[("apikey", "wrong")], "next ann");
        check(json!({"key_in_query": false}), "/?apikey=s3+cret", &[], MISSING);
        check(json!({"key_names": ["x-a", "x-b"]}), "/?x-a", &[("X-B", "s3 cret")], "next ann");
        check(json!({}), "/", &[("apikey", "\u{fffd}")], "401 Unauthorized -");
    }

    #[test]
    fn refusals_carry_a_challenge() {
        for (config, challenge) in [(json!({}), "Key"), (json!({"realm": "hall"}), "Key realm=\"hall\"")] {
            let plugin = testing::build(&definition(), config);
            let response = testing::access(plugin.as_ref(), &mut testing::request("GET", "/", &[])).unwrap();
            assert_eq!(response.headers, [("WWW-Authenticate".into(), challenge.to_owned())]);
        }
    }

    #[test]
    fn preflights_pass_when_told_so() {
        for (run_on_preflight, expected) in [(true, MISSING), (false, "next -")] {
            let mut exchange = testing::request("OPTIONS", "/", &[]);
            assert_eq!(run(json!({"run_on_preflight": run_on_preflight}), &mut exchange), expected);
        }
    }

    #[test]
    fn anonymous_makes_it_one_of_several_ways_in() {
        let guest = EntityId::derived("consumers", "guest").to_string();
        check(json!({"anonymous": "guest"}), "/", &[], "next guest");
        check(json!({"anonymous": guest}), "/", &[("apikey", "wrong")], "next guest");
        check(json!({"anonymous": "guest"}), "/", &[("apikey", "s3 cret")], "next ann");
        check(json!({"anonymous": ""}), "/", &[], MISSING);

        let mut exchange = testing::request("GET", "/", &[]);
        let other = Arc::new(testing::consumer("other", Some("other"), None));
        let credential = Credential { id: EntityId::default(), identifier: None };
        authentication::identify(&mut exchange, other, Some(credential));
        assert_eq!(run(json!({"anonymous": "guest"}), &mut exchange), "next other");
        assert_eq!(run(json!({}), &mut exchange), "401 No API key found in request other");
    }

    #[test]
    fn an_unknown_anonymous_consumer_is_refused_when_built() {
        let definition = definition();
        let entity = testing::entity(&definition, json!({"anonymous": "nobody"}));
        let directory = Arc::new(Directory::default());
        let env = testing::environment();
        let context = BuildContext { entity: &entity, directory: &directory, env: &env };
        let error = (definition.build)(&context).err().unwrap().to_string();
        assert!(error.contains("'nobody', which does not exist"), "{error}");
    }

    #[test]
    fn hidden_keys_do_not_go_upstream() {
        for (hide, target, header, query) in [
            (false, "/?apikey=s3+cret&b=%20", true, Some("apikey=s3+cret&b=%20")),
            (true, "/?apikey=s3+cret&b=%20", false, Some("b=%20")),
            (true, "/?apikey=s3+cret", false, None),
            (true, "/?b", false, Some("b")),
        ] {
            let mut exchange = testing::request("GET", target, &[("apikey", "s3 cret")]);
            assert_eq!(run(json!({"hide_credentials": hide}), &mut exchange), "next ann");
            assert_eq!(exchange.request.headers.contains("apikey"), header, "{target}");
            assert_eq!(exchange.upstream.query.as_deref(), query, "{target}");
        }
    }

    fn check_body(content_type: &str, body: &str, expected: &str, upstream: &str) {
        let mut exchange = testing::request("POST", "/", &[("Content-Type", content_type)]);
        exchange.body = Some(body.as_bytes().to_vec());
        let config = json!({"key_in_body": true, "hide_credentials": true});
        assert_eq!(run(config, &mut exchange), expected, "{content_type} {body}");
        assert_eq!(exchange.body.as_deref(), Some(upstream.as_bytes()), "{content_type} {body}");
    }

    #[test]
    fn keys_are_found_in_the_body() {
        const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
        const JSON: &str = "Application/JSON";
        check_body(FORM, "b=1&apikey=s3+cret&c", "next ann", "b=1&c");
        check_body(FORM, "apikey=a&apikey=b", REPEATED, "apikey=a&apikey=b");
        check_body(FORM, "apikey", MISSING, "apikey");
        check_body(JSON, r#"{"apikey":"s3 cret","b":1}"#, "next ann", r#"{"b":1}"#);
        check_body(JSON, r#"{"apikey":["s3 cret"]}"#, REPEATED, r#"{"apikey":["s3 cret"]}"#);
        check_body(JSON, r#"{"apikey":7}"#, MISSING, r#"{"apikey":7}"#);
        check_body(JSON, r#"["apikey"]"#, MISSING, r#"["apikey"]"#);
        check_body(JSON, "{", MISSING, "{");
        check_body("text/plain", "apikey=s3+cret", MISSING, "apikey=s3+cret");
        let plugin = testing::build(&definition(), json!({"key_in_body": true}));
        assert!(plugin.needs().request_body);
        assert!(!testing::build(&definition(), json!({})).needs().request_body);
    }
}
