//! `http-log`: sends the record of every request or stream to an HTTP endpoint, singly or in batches.
//!
//! Settings are those of Kong 3.9 (kong/plugins/http-log); an https endpoint is always verified (Kong: never). With
//! `queue.max_batch_size` 1 the body is one record, beyond that always a JSON array. A status below 400 is success; anything else is tried again until
//! `queue.max_retry_time` is over. Without `queue.max_bytes` at most 64 MiB wait (Kong: no bound); without a
//! `queue.concurrency_limit` (-1) at most 16 batches are under way.

use crate::native::log_queue::{Limits, LogQueue, Sink};
use crate::native::record_fields::{self, CustomFields};
use crate::native::settings;
use crate::{
    BuildContext, BuildError, Definition, HttpPost, Needs, Phases, Plugin, PostRequest, RequestRecord, StreamRecord,
    Templates,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use gateward_model::schema::{Check, Field, Rule, Schema, Shorthand};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const DEFAULT_MAX_BYTES: usize = 64 << 20;
const UNLIMITED_CONCURRENCY: usize = 16;

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "http-log", priority: 12, schema, check_scope: |_| Ok(()), build }
}

fn schema() -> Schema {
    schema_of(record_fields::refused())
}

/// The schema where `templates` evaluates `custom_fields_by_lua`.
pub(crate) fn schema_with(templates: Arc<dyn Templates>) -> Schema {
    schema_of(record_fields::evaluated(templates))
}

fn schema_of(custom_fields: Field) -> Schema {
    let header = settings::header_name().rule(Rule::Custom(check_header));
    let content_types = ["application/json", "application/json; charset=utf-8"];
    Schema::new([
        ("http_endpoint", Field::string().required().referenceable().rule(Rule::Custom(check_endpoint))),
        ("method", Field::string().default("POST").one_of(&["POST", "PUT", "PATCH"])),
        ("content_type", Field::string().default("application/json").one_of(&content_types)),
        ("timeout", Field::number().default(10_000).between(1, 2_147_483_646)),
        ("keepalive", Field::number().default(60_000).between(0, 2_147_483_646)),
        ("headers", Field::map(header, Field::string().referenceable())),
        ("queue", Field::record(queue_schema()).required()),
        ("custom_fields_by_lua", custom_fields),
    ])
    .check(Check::Custom(check_authorization))
    .shorthand(deprecated("retry_count", Field::integer(), "use queue.max_retry_time instead", |_| Ok(vec![])))
    .shorthand(deprecated("queue_size", Field::integer(), "use queue.max_batch_size instead", |value| {
        Ok(vec![("queue.max_batch_size".to_owned(), value.clone())])
    }))
    .shorthand(deprecated("flush_timeout", Field::number(), "use queue.max_coalescing_delay instead", |value| {
        Ok(vec![("queue.max_coalescing_delay".to_owned(), value.clone())])
    }))
}

/// Kong's `typedefs.queue`.
fn queue_schema() -> Schema {
    Schema::new([
        ("name", Field::string()),
        ("max_batch_size", Field::integer().default(1).between(1, 1_000_000)),
        ("max_coalescing_delay", Field::number().default(1).between(0, 3600)),
        ("max_entries", Field::integer().default(10_000).between(1, 1_000_000)),
        ("max_bytes", Field::integer().rule(Rule::Gt(0.0))),
        ("max_retry_time", Field::number().default(60).between(0, 1_000_000)),
        ("initial_retry_delay", Field::number().default(0.01).between(0.001, 1_000_000)),
        ("max_retry_delay", Field::number().default(60).between(0.001, 1_000_000)),
        ("concurrency_limit", Field::integer().default(1).rule(Rule::OneOf(vec![json!(1), json!(-1)]))),
    ])
}

type Expand = fn(&Value) -> Result<Vec<(String, Value)>, String>;

fn deprecated(name: &'static str, field: Field, hint: &'static str, expand: Expand) -> Shorthand {
    Shorthand { name: name.into(), field, expand: Arc::new(expand), deprecated: Some(hint.into()) }
}

fn check_header(value: &Value) -> Result<(), String> {
    let name = value.as_str().unwrap_or_default();
    let reserved = ["host", "content-length", "content-type", "transfer-encoding"];
    match reserved.iter().find(|reserved| name.eq_ignore_ascii_case(reserved)) {
        Some(_) => Err(format!("cannot contain the header '{name}': it is set by the plugin")),
        None => Ok(()),
    }
}

fn check_endpoint(value: &Value) -> Result<(), String> {
    Endpoint::parse(value.as_str().unwrap_or_default()).map(drop)
}

fn check_authorization(config: &Value) -> Result<(), (String, String)> {
    let user = config["http_endpoint"].as_str().and_then(|url| Endpoint::parse(url).ok()?.authorization);
    let named = |headers: &serde_json::Map<String, Value>| {
        headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"))
    };
    if user.is_some() && config["headers"].as_object().is_some_and(named) {
        let text = "an 'Authorization' header and a user in http_endpoint exclude each other: remove one";
        return Err(("headers".to_owned(), text.to_owned()));
    }
    Ok(())
}

/// `http_endpoint`, taken apart as far as needed.
struct Endpoint {
    /// Without the user.
    url: String,
    /// Value of `Authorization`, from the URL's user and password.
    authorization: Option<String>,
}

impl Endpoint {
    fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("not an absolute URL: write http://HOST:PORT/PATH")?;
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err(format!("scheme '{scheme}' is not supported: use http or https"));
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        let bad = |byte: u8| byte <= b' ' || byte >= 0x7f;
        if host.is_empty() || host.starts_with(':') || url.bytes().any(bad) {
            return Err("not a URL with a host: write http://HOST:PORT/PATH".to_owned());
        }
        let path = path.split('#').next().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            url: format!("{scheme}://{host}{slash}{path}"),
            authorization: user.map(|user| format!("Basic {}", BASE64.encode(user))),
        })
    }
}

#[derive(Deserialize)]
struct Settings {
    http_endpoint: String,
    method: String,
    content_type: String,
    timeout: f64,
    keepalive: f64,
    headers: Option<BTreeMap<String, String>>,
    queue: Queue,
    custom_fields_by_lua: record_fields::Settings,
}

#[derive(Deserialize)]
struct Queue {
    max_batch_size: usize,
    max_coalescing_delay: f64,
    max_entries: usize,
    max_bytes: Option<usize>,
    max_retry_time: f64,
    initial_retry_delay: f64,
    max_retry_delay: f64,
    concurrency_limit: i64,
}

impl Queue {
    fn limits(&self) -> Limits {
        let seconds = |value: f64| Duration::try_from_secs_f64(value).unwrap_or(Duration::ZERO);
        Limits {
            max_entries: self.max_entries,
            max_bytes: self.max_bytes.unwrap_or(DEFAULT_MAX_BYTES),
            max_batch_size: self.max_batch_size,
            max_coalescing_delay: seconds(self.max_coalescing_delay),
            max_retry_time: seconds(self.max_retry_time),
            initial_retry_delay: seconds(self.initial_retry_delay),
            max_retry_delay: seconds(self.max_retry_delay),
            concurrency: if self.concurrency_limit == 1 { 1 } else { UNLIMITED_CONCURRENCY },
        }
    }
}

struct HttpLog {
    custom_fields: CustomFields,
    queue: LogQueue,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let settings: Settings = settings::read(context)?;
    let endpoint = Endpoint::parse(&settings.http_endpoint)
        .map_err(|reason| settings::refuse(context, format!("http_endpoint: {reason}")))?;
    let custom_fields = CustomFields::of(context, settings.custom_fields_by_lua)?;
    let mut headers: Vec<(String, String)> = settings.headers.unwrap_or_default().into_iter().collect();
    headers.push(("Content-Type".to_owned(), settings.content_type));
    headers.extend(endpoint.authorization.map(|value| ("Authorization".to_owned(), value)));
    let sink = Poster {
        http: context.env.http.clone(),
        request: PostRequest {
            method: settings.method,
            url: endpoint.url,
            headers,
            body: Vec::new(),
            timeout_ms: settings.timeout as u64,
            keepalive_ms: settings.keepalive as u64,
        },
        as_array: settings.queue.max_batch_size > 1,
    };
    let queue = LogQueue::start(format!("http-log {}", context.entity.id), settings.queue.limits(), sink, context.env);
    Ok(Box::new(HttpLog { custom_fields, queue }))
}

impl Plugin for HttpLog {
    fn needs(&self) -> Needs {
        Needs { phases: Phases { log: true, log_stream: true, ..Phases::default() }, ..Needs::default() }
    }

    fn log(&self, record: &RequestRecord<'_>) {
        self.custom_fields.add(record);
        let mut entry = String::with_capacity(2048);
        record.write_json(&mut entry);
        self.queue.push(entry);
    }

    fn log_stream(&self, record: &StreamRecord<'_>) {
        self.custom_fields.add_to_stream(record);
        let mut entry = String::with_capacity(2048);
        record.write_json(&mut entry);
        self.queue.push(entry);
    }
}

struct Poster {
    http: Arc<dyn HttpPost>,
    /// Everything but the body.
    request: PostRequest,
    as_array: bool,
}

impl Sink for Poster {
    async fn deliver(&self, batch: &[String]) -> Result<(), String> {
        let body = if self.as_array { format!("[{}]", batch.join(",")) } else { batch.concat() };
        let request = PostRequest { body: body.into_bytes(), ..self.request.clone() };
        match self.http.post(request).await {
            Ok(status) if status < 400 => Ok(()),
            Ok(status) => Err(format!("{} answered status {status}", self.request.url)),
            Err(error) => Err(format!("request to {} failed: {error}", self.request.url)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing::{Posts, build_with, entity, environment, environment_with, problems, request};
    use crate::record::testing::record;
    use gateward_model::Config;
    use tokio::runtime::Handle;
    use tokio::time::sleep;

    fn start(config: Value, answers: Vec<Result<u16, String>>) -> (Box<dyn Plugin>, Arc<Posts>) {
        let posts = Arc::new(Posts::default());
        *posts.answers.lock().unwrap() = answers;
        let mut env = environment_with(posts.clone());
        env.background = Handle::current();
        (build_with(&definition(), config, &Config::default(), &env), posts)
    }

    fn log(plugin: &dyn Plugin, count: usize) {
        let exchange = request("GET", "/logged", &[]);
        (0..count).for_each(|_| plugin.log(&record(&exchange)));
    }

    fn bodies(posts: &Posts) -> Vec<Value> {
        posts.sent.lock().unwrap().iter().map(|sent| serde_json::from_slice(&sent.body).unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_posted_with_the_configured_request() {
        let config = json!({
            "http_endpoint": "http://ann:secret@logs.example:9000?x=1#y", "method": "PUT", "timeout": 1500,
            "headers": { "X-Token": "t" },
        });
        let (plugin, posts) = start(config, vec![]);
        log(&*plugin, 2);
        sleep(Duration::from_millis(1)).await;
        let sent = posts.sent.lock().unwrap().clone();
        assert_eq!(sent.len(), 2);
        assert_eq!((sent[0].method.as_str(), sent[0].url.as_str()), ("PUT", "http://logs.example:9000/?x=1"));
        assert_eq!((sent[0].timeout_ms, sent[0].keepalive_ms), (1500, 60_000));
        let headers: Vec<String> = sent[0].headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(headers, ["X-Token: t", "Content-Type: application/json", "Authorization: Basic YW5uOnNlY3JldA=="]);
        assert_eq!(serde_json::from_slice::<Value>(&sent[0].body).unwrap()["request"]["uri"], "/logged");
    }

    #[tokio::test(start_paused = true)]
    async fn batches_are_arrays_even_of_one() {
        let config = json!({ "http_endpoint": "http://logs", "queue_size": 3, "flush_timeout": 2 });
        let (plugin, posts) = start(config, vec![]);
        log(&*plugin, 4);
        sleep(Duration::from_millis(1900)).await;
        assert_eq!(posts.sent.lock().unwrap().len(), 1);
        sleep(Duration::from_millis(200)).await;
        let lengths: Vec<usize> = bodies(&posts).iter().map(|body| body.as_array().unwrap().len()).collect();
        assert_eq!(lengths, [3, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again() {
        let answers = vec![Err("connection refused".to_owned()), Ok(500), Ok(404), Ok(302)];
        let (plugin, posts) = start(json!({ "http_endpoint": "http://logs" }), answers);
        log(&*plugin, 1);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(posts.sent.lock().unwrap().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_instance_still_delivers_what_it_holds() {
        let config =
            json!({ "http_endpoint": "http://logs", "queue": { "max_batch_size": 100, "max_coalescing_delay": 60 } });
        let (plugin, posts) = start(config, vec![Ok(503)]);
        log(&*plugin, 5);
        drop(plugin);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(bodies(&posts).last().unwrap().as_array().unwrap().len(), 5);
    }

    #[test]
    fn settings_are_checked() {
        for (config, expected) in [
            (json!({}), "required"),
            (json!({ "http_endpoint": "logs:80" }), "not an absolute URL"),
            (json!({ "http_endpoint": "http:///x" }), "not a URL with a host"),
            (json!({ "http_endpoint": "http://a b" }), "not a URL with a host"),
            (json!({ "http_endpoint": "ftp://a" }), "scheme 'ftp'"),
            (json!({ "http_endpoint": "http://u:p@a", "headers": { "authorization": "x" } }), "exclude each other"),
            (json!({ "http_endpoint": "http://a", "method": "GET" }), "not one of"),
            (json!({ "http_endpoint": "http://a", "queue": { "concurrency_limit": 2 } }), "not one of"),
        ] {
            let found = problems(&schema(), config.clone());
            assert!(found.iter().any(|text| text.contains(expected)), "{config}: {found:?}");
        }
        assert_eq!(problems(&schema(), json!({ "http_endpoint": "http://a", "retry_count": 3 })), [""; 0]);
        assert_eq!(problems(&schema(), json!({ "http_endpoint": "HTTPS://a:8443/logs" })), [""; 0]);
        assert!(check_header(&json!("Host")).is_err() && check_header(&json!("X-Host")).is_ok());
        // What a vault reference turned out to be is seen only here.
        let entity = entity(&definition(), json!({ "http_endpoint": "logs:80" }));
        let (env, directory) = (environment(), Arc::default());
        let refusal = build(&BuildContext { entity: &entity, directory: &directory, env: &env }).err().unwrap();
        assert!(refusal.to_string().contains("http_endpoint: not an absolute URL"), "{refusal}");
    }
}
