//! What tests of plugins share: instances from JSON, exchanges by hand, phases run to their end.
//!
//! Defaults come from the plugin's own schema by the loader's rules, reduced to what plugin schemas use; whether
//! a file is valid is the loader's business and tested there. Custom rules of a schema are run here, too, so
//! that a plugin can test its own.

use crate::counters::Counters;
use crate::env::{HttpPost, PostRequest};
use crate::{
    Addition, Answer, Ask, BuildContext, CounterStore, Definition, Exchange, Limited, LocalBody, LocalResponse, Plugin,
    PluginEnv, Redis, RedisSettings, Step, StoreError,
};
use gateward_http::Method;
use gateward_model::schema::{Check, Field, Kind, Rule, Schema};
use gateward_model::{Config, Consumer, Directory, EntityId, PluginConfig, Protocol};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};

/// `config` as the loader would hand it to a plugin: shorthands expanded, defaults filled, fields without value absent.
/// Panics when a field is unknown.
pub(crate) fn with_defaults(schema: &Schema, config: Value) -> Value {
    let Value::Object(mut given) = config else { panic!("config must be an object: {config}") };
    for shorthand in &schema.shorthands {
        let Some(value) = given.remove(shorthand.name.as_ref()) else { continue };
        for (path, value) in (shorthand.expand)(&value).expect("shorthand expands") {
            if shorthand.deprecated.is_none() || at(&given, &path).is_none_or(Value::is_null) {
                set_at(&mut given, &path, value);
            }
        }
    }
    let mut filled = Map::new();
    for (name, field) in &schema.fields {
        let value = field_value(field, given.remove(name.as_ref()));
        if !value.is_null() {
            filled.insert(name.to_string(), value);
        }
    }
    assert!(given.is_empty(), "unknown fields: {given:?}");
    Value::Object(filled)
}

fn field_value(field: &Field, given: Option<Value>) -> Value {
    let value = given.filter(|value| !value.is_null()).or_else(|| field.default.clone());
    match (&field.kind, value) {
        (Kind::Record(schema), Some(value)) => with_defaults(schema, value),
        (Kind::Record(schema), None) if field.required => with_defaults(schema, Value::Object(Map::new())),
        (Kind::Array(element) | Kind::Set(element), Some(Value::Array(values))) => {
            values.into_iter().map(|value| field_value(element, Some(value))).collect()
        }
        (_, value) => value.unwrap_or(Value::Null),
    }
}

fn at<'a>(record: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.');
    let first = record.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

fn set_at(record: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            record.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = record.entry(first).or_insert_with(|| Value::Object(Map::new()));
            set_at(inner.as_object_mut().expect("a record"), rest, value);
        }
    }
}

/// What the schema's rules say against `config` (before defaults), one text per broken rule. Only the kinds of
/// rules the loader's own tests cannot know are run: those in code, `OneOf` and `IsRegex`, and checks in code.
pub(crate) fn problems(schema: &Schema, config: Value) -> Vec<String> {
    let filled = with_defaults(schema, config);
    let mut found = Vec::new();
    for (name, field) in &schema.fields {
        field_problems(field, &filled[name.as_ref()], &mut found);
    }
    for check in &schema.checks {
        let set = |name: &str| {
            let value = filled.pointer(&format!("/{}", name.replace('.', "/"))).unwrap_or(&Value::Null);
            !value.is_null() && value.as_array().is_none_or(|values| !values.is_empty())
        };
        match check {
            Check::AtLeastOneOf(names) if !names.iter().any(|name| set(name)) => {
                found.push(format!("one of {names:?}"));
            }
            Check::OnlyOneOf(names) if names.iter().filter(|name| set(name)).count() != 1 => {
                found.push(format!("exactly one of {names:?}"));
            }
            Check::MutuallyExclusive(names) if names.iter().filter(|name| set(name)).count() > 1 => {
                found.push(format!("at most one of {names:?}"));
            }
            Check::Custom(check) => found.extend(check(&filled).err().map(|(path, text)| format!("{path}: {text}"))),
            _ => {}
        }
    }
    found
}

fn field_problems(field: &Field, value: &Value, found: &mut Vec<String>) {
    if value.is_null() {
        if field.required {
            found.push("required".to_owned());
        }
        return;
    }
    match (&field.kind, value) {
        (Kind::Record(schema), value) => {
            for (name, field) in &schema.fields {
                field_problems(field, &value[name.as_ref()], found);
            }
        }
        (Kind::Array(element) | Kind::Set(element), Value::Array(values)) => {
            values.iter().for_each(|value| field_problems(element, value, found));
        }
        _ => {}
    }
    for rule in &field.rules {
        match rule {
            Rule::OneOf(values) if !values.contains(value) => found.push(format!("not one of {values:?}: {value}")),
            Rule::Between(low, high) if value.as_f64().is_none_or(|number| number < *low || number > *high) => {
                found.push(format!("not between {low} and {high}: {value}"));
            }
            Rule::IsRegex => {
                found.extend(regex::Regex::new(value.as_str().unwrap_or("(")).err().map(|error| error.to_string()));
            }
            Rule::Custom(check) => found.extend(check(value).err()),
            _ => {}
        }
    }
}

/// An entity of `definition` without scope; `config` before defaults.
pub(crate) fn entity(definition: &Definition, config: Value) -> PluginConfig {
    PluginConfig {
        protocols: vec![Protocol::Http, Protocol::Https, Protocol::Grpc, Protocol::Grpcs],
        ..PluginConfig::new(
            EntityId::derived("plugins", definition.name),
            definition.name,
            with_defaults(&(definition.schema)(), config),
        )
    }
}

/// An instance of `definition` over `config` (before defaults) and an empty directory.
pub(crate) fn build(definition: &Definition, config: Value) -> Box<dyn Plugin> {
    build_with(definition, config, &Config::default(), &environment())
}

/// An instance of `definition` over `config` (before defaults), the consumers of `entities` and `env`.
pub(crate) fn build_with(
    definition: &Definition,
    config: Value,
    entities: &Config,
    env: &PluginEnv,
) -> Box<dyn Plugin> {
    let directory = Arc::new(Directory::new(entities));
    let entity = entity(definition, config);
    (definition.build)(&BuildContext { entity: &entity, directory: &directory, env }).expect("instance builds")
}

/// A consumer whose id is derived from `key`.
pub(crate) fn consumer(key: &str, username: Option<&str>, custom_id: Option<&str>) -> Consumer {
    Consumer {
        id: EntityId::derived("consumers", key),
        username: username.map(str::to_owned),
        custom_id: custom_id.map(str::to_owned),
        tags: None,
        created_at: 0,
        updated_at: 0,
    }
}

/// Services of a node: a runtime shared by all tests, fresh counters, and an HTTP sender that keeps nothing.
pub(crate) fn environment() -> PluginEnv {
    environment_with(Arc::new(Posts::default()))
}

/// Services of a node with this HTTP sender.
pub(crate) fn environment_with(http: Arc<dyn HttpPost>) -> PluginEnv {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
    });
    PluginEnv {
        background: RUNTIME.handle().clone(),
        counters: Arc::new(Counters::default()),
        http,
        redis: Arc::new(Memory::default()),
        stats: Arc::default(),
        templates: None,
    }
}

/// An HTTP sender that remembers requests and answers statuses from a list, 200 when it is empty.
#[derive(Default)]
pub(crate) struct Posts {
    pub(crate) sent: Mutex<Vec<PostRequest>>,
    pub(crate) answers: Mutex<Vec<Result<u16, String>>>,
}

impl HttpPost for Posts {
    fn post(&self, request: PostRequest) -> Pin<Box<dyn Future<Output = Result<u16, String>> + Send + '_>> {
        self.sent.lock().unwrap().push(request);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.is_empty() { Ok(200) } else { answers.remove(0) };
        Box::pin(async move { answer })
    }
}

/// Counters in memory in the place of Redis; one store whatever the settings.
#[derive(Default, Clone)]
pub(crate) struct Memory {
    pub(crate) counters: Arc<Mutex<BTreeMap<String, u64>>>,
    /// What was asked.
    pub(crate) asked: Arc<Mutex<Vec<Ask>>>,
    /// Answered to everything, when there is one.
    pub(crate) failure: Arc<Mutex<Option<StoreError>>>,
}

impl Redis for Memory {
    fn store(&self, _: &RedisSettings) -> Result<Arc<dyn CounterStore>, String> {
        Ok(Arc::new(self.clone()))
    }
}

impl CounterStore for Memory {
    fn ask(&self, ask: Ask) -> Answer<'_> {
        let text = |key: &Vec<u8>| String::from_utf8_lossy(key).into_owned();
        let mut counters = self.counters.lock().unwrap();
        self.asked.lock().unwrap().push(ask.clone());
        if let Some(failure) = self.failure.lock().unwrap().clone() {
            return Box::pin(std::future::ready(Err(failure)));
        }
        let figures: Vec<u64> = match &ask {
            Ask::Read(keys) => keys.iter().map(|key| counters.get(&text(key)).copied().unwrap_or(0)).collect(),
            Ask::Add(additions) => {
                let add = |addition: &Addition| {
                    let counter = counters.entry(text(&addition.key)).or_default();
                    *counter += addition.amount;
                    *counter
                };
                additions.iter().map(add).collect()
            }
            Ask::Take(limited) => {
                let used = |counter: &Limited| counters.get(&text(&counter.key)).copied().unwrap_or(0);
                let figures: Vec<u64> = limited.iter().map(used).collect();
                if figures.iter().zip(limited).all(|(used, counter)| *used < u64::from(counter.limit)) {
                    limited.iter().for_each(|counter| *counters.entry(text(&counter.key)).or_default() += 1);
                }
                figures
            }
        };
        Box::pin(std::future::ready(Ok(figures)))
    }
}

/// An exchange as it stands before `access`: head parsed, upstream request set to the same path and query.
pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Exchange {
    let mut exchange = Exchange::new();
    exchange.id = "0123456789abcdef0123456789abcdef".to_owned();
    exchange.request.method = Method::parse(method).expect("a method");
    exchange.request.target = target.to_owned();
    for (name, value) in headers {
        assert!(exchange.request.headers.add(name, value), "{name}: {value}");
        if name.eq_ignore_ascii_case("host") {
            exchange.request.authority = (*value).to_owned();
        }
    }
    exchange.path = exchange.request.raw_path().to_owned();
    exchange.upstream.path = exchange.path.clone();
    exchange.upstream.query = exchange.request.query().map(str::to_owned);
    exchange
}

/// Runs the access phase to its end: the local response, `None` when the request goes on.
pub(crate) fn access(plugin: &dyn Plugin, exchange: &mut Exchange) -> Option<LocalResponse> {
    finish(plugin.access(exchange))
}

/// Runs a phase to its end: the local response, `None` when the request goes on.
pub(crate) fn finish(step: Step<'_>) -> Option<LocalResponse> {
    let step = match step {
        Step::Wait(future) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(future).into()
        }
        step => step,
    };
    match step {
        Step::Next => None,
        Step::Respond(response) => Some(response),
        Step::Wait(_) | Step::Body(_) => panic!("a native plugin says beforehand that it needs the body"),
    }
}

/// A response as one line for tables of cases: `next`, `401`, or `401 message`.
pub(crate) fn summary(response: Option<&LocalResponse>) -> String {
    match response {
        None => "next".to_owned(),
        Some(LocalResponse { status, body: LocalBody::Empty, .. }) => status.to_string(),
        Some(LocalResponse { status, body: LocalBody::Message(message), .. }) => format!("{status} {message}"),
        Some(LocalResponse { status, body: LocalBody::Bytes(kind, bytes), .. }) => {
            format!("{status} [{kind}] {}", String::from_utf8_lossy(bytes))
        }
    }
}

/// Every field as `name: value`, in order.
pub(crate) fn lines(headers: &gateward_http::Headers) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect()
}
