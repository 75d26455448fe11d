//! The closing record of a request: access log line, log plugins' payload.
//!
//! The JSON is that of Kong's `kong.log.serialize` (kong/pdk/log.lua, version 3.9): field names, units and
//! which fields are left out when they do not apply. It is written in one pass, straight from the exchange.
//! Differences: `tries` is always a list; `error` says why an exchange failed; headers that carry API keys are
//! redacted besides `Authorization` and `Proxy-Authorization`. Query strings are logged as they came, so keys
//! belong into headers.

use crate::client_tls::TlsView;
use crate::origin::ProxyOrigin;
use crate::query;
use crate::record_changes;
use crate::{Exchange, Try};
use gateward_http::{Headers, Name};
use gateward_model::{Consumer, EntityId, Route, Service};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::net::IpAddr;

/// The id of Kong's only workspace in db-less mode.
const WORKSPACE: &str = "0dc6f45b-8f8d-40d2-a504-473544ee190b";

/// What stands in the place of a secret.
const REDACTED: &str = "REDACTED";

/// Request headers whose values are secrets: Kong's two, and the usual names of API keys.
const SECRET_HEADERS: [Name<'static>; 8] = [
    Name::new("authorization"),
    Name::new("proxy-authorization"),
    Name::new("apikey"),
    Name::new("api-key"),
    Name::new("api_key"),
    Name::new("x-api-key"),
    Name::new("x-apikey"),
    Name::new("x-auth-token"),
];

/// What `correlation-id` puts into an exchange for the record to show.
pub(crate) struct CorrelationId(pub(crate) String);

/// How an exchange ended, with its figures. Finished exactly once, on every path.
pub struct RequestRecord<'a> {
    /// Request and response as they were last.
    pub exchange: &'a Exchange,
    /// Attempts in order.
    pub tries: &'a [Try],
    /// Bytes received from the client for this request, head and body.
    pub request_bytes: u64,
    /// Bytes sent to the client for this response, head and body.
    pub response_bytes: u64,
    /// Of these, what came after the head, chunks' own bytes included.
    pub response_body_bytes: u64,
    /// First byte of the request to last byte of the response; microseconds.
    pub request_us: u64,
    /// Time in the gateway before the upstream was asked (Kong's `kong` latency); microseconds.
    pub gateway_us: u64,
    /// From asking the upstream to its response head (Kong's `proxy` latency); microseconds. `None`: not asked.
    pub upstream_us: Option<u64>,
    /// Time to receive and relay the response body; microseconds.
    pub receive_us: u64,
    /// Status of the upstream's response.
    pub upstream_status: Option<u16>,
    /// Machine-readable reason when the exchange did not succeed, e.g. `connect_failure`, `client_gone`.
    pub error: Option<&'static str>,
}

impl<'a> RequestRecord<'a> {
    /// Of an exchange that asked nobody and took no time.
    pub fn of(exchange: &'a Exchange) -> Self {
        Self {
            exchange,
            tries: &[],
            request_bytes: 0,
            response_bytes: 0,
            response_body_bytes: 0,
            request_us: 0,
            gateway_us: 0,
            upstream_us: None,
            receive_us: 0,
            upstream_status: None,
            error: None,
        }
    }
}

impl RequestRecord<'_> {
    /// Kong's log record. Parses what [`Self::write_json`] writes: for tests and tools, not for every request.
    pub fn to_json(&self) -> serde_json::Value {
        let mut text = String::new();
        self.write_json(&mut text);
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Append Kong's log record as one line of JSON, without the line's end.
    pub fn write_json(&self, out: &mut String) {
        record_changes::write(&self.view(), &self.exchange.changes, out);
    }

    fn view(&self) -> RecordView<'_> {
        let exchange = self.exchange;
        let consumer = exchange.auth.consumer.as_deref();
        RecordView {
            request: RequestView {
                id: &exchange.id,
                uri: &exchange.request.target,
                url: url(exchange),
                querystring: QueryView(exchange.request.query().unwrap_or_default()),
                method: exchange.request.method.as_str(),
                headers: HeadersView { headers: &exchange.request.headers, redact: true },
                size: self.request_bytes,
                tls: exchange.client.tls.as_deref().map(TlsView::from),
            },
            upstream_uri: upstream_uri(exchange),
            upstream_status: self.upstream_status.map_or_else(String::new, |status| status.to_string()),
            response: ResponseView {
                status: exchange.response.status,
                headers: HeadersView { headers: &exchange.response.headers, redact: false },
                size: self.response_bytes,
            },
            latencies: Latencies {
                kong: self.gateway_us / 1000,
                proxy: self.upstream_us.map_or(-1, |us| (us / 1000).cast_signed()),
                request: self.request_us / 1000,
                receive: self.receive_us / 1000,
            },
            tries: TriesView(self.tries),
            authenticated_entity: exchange.auth.credential.as_ref().map(|credential| AuthenticatedView {
                id: credential.id,
                consumer_id: consumer.map(|consumer| consumer.id),
            }),
            route: exchange.route.as_deref().map(route_view),
            service: exchange.service.as_deref().map(service_view),
            consumer: consumer.map(consumer_view),
            client_ip: exchange.client.ip,
            proxy_protocol: exchange.client.origin.as_deref(),
            started_at: exchange.started_at_ms,
            source: exchange.response.source.side(),
            correlation_id: exchange.kept::<CorrelationId>().map(|id| id.0.as_str()),
            error: self.error,
            workspace: WORKSPACE,
            workspace_name: "default",
        }
    }
}

/// A route as Kong writes it down, without what is not set.
pub fn route_json(route: &Route) -> serde_json::Value {
    serde_json::to_value(route_view(route)).unwrap_or_default()
}

/// Likewise a service.
pub fn service_json(service: &Service) -> serde_json::Value {
    serde_json::to_value(service_view(service)).unwrap_or_default()
}

/// Likewise a consumer.
pub fn consumer_json(consumer: &Consumer) -> serde_json::Value {
    serde_json::to_value(consumer_view(consumer)).unwrap_or_default()
}

fn url(exchange: &Exchange) -> String {
    let authority = exchange.request.authority.as_str();
    // The last colon outside of an IPv6 address's brackets starts the port.
    let host = match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    };
    let (scheme, port) = (exchange.client.scheme.as_str(), exchange.client.port);
    format!("{scheme}://{host}:{port}{}", exchange.request.target)
}

/// Empty when no upstream was chosen.
fn upstream_uri(exchange: &Exchange) -> Cow<'_, str> {
    let upstream = &exchange.upstream;
    match &upstream.query {
        _ if exchange.service.is_none() => Cow::Borrowed(""),
        Some(query) => Cow::Owned(format!("{}?{query}", upstream.path)),
        None => Cow::Borrowed(&upstream.path),
    }
}

#[derive(Serialize)]
struct RecordView<'a> {
    request: RequestView<'a>,
    upstream_uri: Cow<'a, str>,
    upstream_status: String,
    response: ResponseView<'a>,
    latencies: Latencies,
    tries: TriesView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authenticated_entity: Option<AuthenticatedView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<RouteView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<ConsumerView<'a>>,
    client_ip: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_protocol: Option<&'a ProxyOrigin>,
    started_at: u64,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    workspace: &'static str,
    workspace_name: &'static str,
}

#[derive(Serialize)]
struct RequestView<'a> {
    id: &'a str,
    uri: &'a str,
    url: String,
    querystring: QueryView<'a>,
    method: &'a str,
    headers: HeadersView<'a>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsView<'a>>,
}

#[derive(Serialize)]
struct ResponseView<'a> {
    status: u16,
    headers: HeadersView<'a>,
    size: u64,
}

/// Milliseconds.
#[derive(Serialize)]
struct Latencies {
    kong: u64,
    /// -1 when no upstream was asked.
    proxy: i64,
    request: u64,
    receive: u64,
}

#[derive(Serialize)]
struct AuthenticatedView {
    id: EntityId,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_id: Option<EntityId>,
}

/// Values of one name: a text, `true` for an argument without value, a list when repeated.
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T: Serialize> Serialize for OneOrMore<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(value) => value.serialize(serializer),
            Self::More(values) => values.serialize(serializer),
        }
    }
}

fn one_or_more<T>(mut values: Vec<T>) -> Option<OneOrMore<T>> {
    if values.len() > 1 { Some(OneOrMore::More(values)) } else { values.pop().map(OneOrMore::One) }
}

struct HeadersView<'a> {
    headers: &'a Headers,
    redact: bool,
}

impl Serialize for HeadersView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut lower = String::new();
        for (index, (name, value)) in self.headers.iter().enumerate() {
            let repeated = self.headers.count(name) > 1;
            if repeated && self.headers.iter().take(index).any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
                continue;
            }
            lower.clear();
            lower.push_str(name);
            lower.make_ascii_lowercase();
            if self.redact && SECRET_HEADERS.iter().any(|secret| secret.as_str() == lower) {
                map.serialize_entry(&lower, REDACTED)?;
            } else if repeated {
                let values: Vec<_> = self.headers.get_all(name).map(String::from_utf8_lossy).collect();
                map.serialize_entry(&lower, &values)?;
            } else {
                map.serialize_entry(&lower, &String::from_utf8_lossy(value))?;
            }
        }
        map.end()
    }
}

struct QueryView<'a>(&'a str);

#[derive(Serialize)]
#[serde(untagged)]
enum ArgumentView<'a> {
    Bare(bool),
    Value(Cow<'a, str>),
}

impl Serialize for QueryView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        // Stable, so that values stay in order within a name; sorted, so that the cost is not quadratic.
        let mut pairs: Vec<_> = query::pairs(self.0).map(|(name, value)| (query::decode(name), value)).collect();
        pairs.sort_by(|left, right| left.0.cmp(&right.0));
        for group in pairs.chunk_by(|left, right| left.0 == right.0) {
            let values = group.iter().map(|(_, value)| match value {
                Some(raw) => ArgumentView::Value(query::decode(raw)),
                None => ArgumentView::Bare(true),
            });
            let values = values.collect();
            if let (Some((name, _)), Some(values)) = (group.first(), one_or_more(values)) {
                map.serialize_entry(name, &values)?;
            }
        }
        map.end()
    }
}

pub(crate) struct TriesView<'a>(pub(crate) &'a [Try]);

#[derive(Serialize)]
struct TryView {
    ip: IpAddr,
    port: u16,
    balancer_start: u64,
    balancer_start_ns: u64,
    balancer_latency: u64,
    balancer_latency_ns: u64,
    keepalive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

impl Serialize for TriesView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|attempt| TryView {
            ip: attempt.address.ip(),
            port: attempt.address.port(),
            balancer_start: attempt.started_at_ms,
            balancer_start_ns: attempt.started_at_ms.saturating_mul(1_000_000),
            balancer_latency: attempt.connect_us / 1000,
            balancer_latency_ns: attempt.connect_us.saturating_mul(1000),
            keepalive: attempt.keepalive,
            state: attempt.failure,
            code: attempt.code(),
        }))
    }
}

#[derive(Serialize)]
struct Reference {
    id: EntityId,
}

/// An entity as Kong shows it in log records: absent fields left out, the workspace named, references as objects.
#[derive(Serialize)]
pub(crate) struct RouteView<'a> {
    id: EntityId,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    protocols: &'a [gateward_model::Protocol],
    #[serde(skip_serializing_if = "Option::is_none")]
    methods: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hosts: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paths: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<&'a std::collections::BTreeMap<String, Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snis: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<&'a [gateward_model::entity::CidrPort]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destinations: Option<&'a [gateward_model::entity::CidrPort]>,
    regex_priority: u32,
    strip_path: bool,
    preserve_host: bool,
    path_handling: gateward_model::PathHandling,
    https_redirect_status_code: u16,
    request_buffering: bool,
    response_buffering: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expression: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a [String]>,
    created_at: u64,
    updated_at: u64,
    ws_id: &'static str,
}

pub(crate) fn route_view(route: &Route) -> RouteView<'_> {
    RouteView {
        id: route.id,
        name: route.name.as_deref(),
        protocols: &route.protocols,
        methods: route.methods.as_deref(),
        hosts: route.hosts.as_deref(),
        paths: route.paths.as_deref(),
        headers: route.headers.as_ref(),
        snis: route.snis.as_deref(),
        sources: route.sources.as_deref(),
        destinations: route.destinations.as_deref(),
        regex_priority: route.regex_priority,
        strip_path: route.strip_path,
        preserve_host: route.preserve_host,
        path_handling: route.path_handling,
        https_redirect_status_code: route.https_redirect_status_code,
        request_buffering: route.request_buffering,
        response_buffering: route.response_buffering,
        expression: route.expression.as_deref(),
        priority: route.priority,
        service: route.service.map(|id| Reference { id }),
        tags: route.tags.as_deref(),
        created_at: route.created_at,
        updated_at: route.updated_at,
        ws_id: WORKSPACE,
    }
}

#[derive(Serialize)]
pub(crate) struct ServiceView<'a> {
    id: EntityId,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    protocol: gateward_model::Protocol,
    host: &'a str,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    retries: u16,
    connect_timeout: u32,
    write_timeout: u32,
    read_timeout: u32,
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a [String]>,
    created_at: u64,
    updated_at: u64,
    ws_id: &'static str,
}

pub(crate) fn service_view(service: &Service) -> ServiceView<'_> {
    ServiceView {
        id: service.id,
        name: service.name.as_deref(),
        protocol: service.protocol,
        host: &service.host,
        port: service.port,
        path: service.path.as_deref(),
        retries: service.retries,
        connect_timeout: service.connect_timeout,
        write_timeout: service.write_timeout,
        read_timeout: service.read_timeout,
        enabled: service.enabled,
        tags: service.tags.as_deref(),
        created_at: service.created_at,
        updated_at: service.updated_at,
        ws_id: WORKSPACE,
    }
}

#[derive(Serialize)]
struct ConsumerView<'a> {
    id: EntityId,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a [String]>,
    created_at: u64,
    updated_at: u64,
    ws_id: &'static str,
}

fn consumer_view(consumer: &Consumer) -> ConsumerView<'_> {
    ConsumerView {
        id: consumer.id,
        username: consumer.username.as_deref(),
        custom_id: consumer.custom_id.as_deref(),
        tags: consumer.tags.as_deref(),
        created_at: consumer.created_at,
        updated_at: consumer.updated_at,
        ws_id: WORKSPACE,
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A record of an exchange that ended without asking an upstream.
    pub(crate) fn record(exchange: &Exchange) -> RequestRecord<'_> {
        RequestRecord {
            request_bytes: 100,
            response_bytes: 200,
            request_us: 5_900,
            gateway_us: 1_200,
            receive_us: 300,
            ..RequestRecord::of(exchange)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::record;
    use super::*;
    use crate::native::testing::request;
    use crate::{Credential, Source};
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn a_request_without_a_route_has_the_basic_fields() {
        let mut exchange =
            request("GET", "/x?a=1&b&a=%32&c=", &[("Host", "Example.com:80"), ("X-Multi", "1"), ("x-multi", "2")]);
        exchange.client.ip = [10, 1, 2, 3].into();
        exchange.client.port = 8000;
        exchange.started_at_ms = 1_700_000_000_123;
        exchange.response.status = 404;
        exchange.response.headers.add("Content-Type", "text/plain");
        exchange.response.headers.add("Set-Cookie", "a");
        exchange.response.headers.add("Set-Cookie", "b");
        let expected = json!({
            "request": {
                "id": "0123456789abcdef0123456789abcdef",
                "uri": "/x?a=1&b&a=%32&c=",
                "url": "http://Example.com:8000/x?a=1&b&a=%32&c=",
                "querystring": { "a": ["1", "2"], "b": true, "c": "" },
                "method": "GET",
                "headers": { "host": "Example.com:80", "x-multi": ["1", "2"] },
                "size": 100,
            },
            "upstream_uri": "",
            "upstream_status": "",
            "response": { "status": 404, "headers": { "content-type": "text/plain", "set-cookie": ["a", "b"] }, "size": 200 },
            "latencies": { "kong": 1, "proxy": -1, "request": 5, "receive": 0 },
            "tries": [],
            "client_ip": "10.1.2.3",
            "started_at": 1_700_000_000_123_u64,
            "source": "kong",
            "workspace": WORKSPACE,
            "workspace_name": "default",
        });
        assert_eq!(record(&exchange).to_json(), expected);
    }

    #[test]
    fn a_proxied_request_names_everything_that_took_part() {
        let route: Route = serde_json::from_value(json!({
            "id": EntityId::derived("routes", "r"), "name": "r", "protocols": ["http", "https"], "methods": null, "hosts": null,
            "paths": ["/x"], "headers": null, "snis": null, "sources": null, "destinations": null, "regex_priority": 0,
            "strip_path": true, "preserve_host": false, "path_handling": "v0", "https_redirect_status_code": 426,
            "request_buffering": true, "response_buffering": true, "expression": null, "priority": null,
            "service": EntityId::derived("services", "s"), "tags": null, "created_at": 1, "updated_at": 2,
        }))
        .unwrap();
        let service: Service = serde_json::from_value(json!({
            "id": EntityId::derived("services", "s"), "name": "s", "protocol": "http", "host": "h", "port": 80, "path": null,
            "retries": 5, "connect_timeout": 60000, "write_timeout": 60000, "read_timeout": 60000, "client_certificate": null,
            "tls_verify": null, "tls_verify_depth": null, "ca_certificates": null, "enabled": true, "tags": ["t"],
            "created_at": 1, "updated_at": 2,
        }))
        .unwrap();
        let consumer: Consumer = serde_json::from_value(json!({
            "id": EntityId::derived("consumers", "c"), "username": "ann", "custom_id": null, "tags": null,
            "created_at": 1, "updated_at": 2,
        }))
        .unwrap();
        let mut exchange = request("POST", "/x", &[("Host", "[::1]:8000")]);
        exchange.route = Some(Arc::new(route));
        exchange.service = Some(Arc::new(service));
        exchange.auth.consumer = Some(Arc::new(consumer));
        exchange.auth.credential = Some(Credential { id: EntityId::derived("keys", "k"), identifier: None });
        exchange.upstream.query = Some("y=1".to_owned());
        exchange.response.source = Source::Service;
        let record = RequestRecord {
            upstream_us: Some(9_999),
            upstream_status: Some(201),
            error: Some("client_gone"),
            ..record(&exchange)
        };
        let found = record.to_json();
        let text = |pointer: &str| found.pointer(pointer).cloned().unwrap_or_default();
        for (pointer, expected) in [
            ("/request/url", json!("http://[::1]:0/x")),
            ("/upstream_uri", json!("/x?y=1")),
            ("/upstream_status", json!("201")),
            ("/latencies/proxy", json!(9)),
            ("/source", json!("upstream")),
            ("/error", json!("client_gone")),
            ("/route/service/id", json!(EntityId::derived("services", "s"))),
            ("/route/ws_id", json!(WORKSPACE)),
            ("/route/hosts", json!(null)),
            ("/service/tags", json!(["t"])),
            ("/consumer/username", json!("ann")),
            ("/authenticated_entity/consumer_id", json!(EntityId::derived("consumers", "c"))),
        ] {
            assert_eq!(text(pointer), expected, "{pointer}");
        }
        assert!(found["route"].get("hosts").is_none(), "absent fields are left out");
    }

    #[test]
    fn each_try_has_its_target_times_and_code() {
        let exchange = request("GET", "/", &[]);
        let attempt = |failure: Option<&'static str>| Try {
            address: ([10, 0, 0, 1], 8080).into(),
            started_at_ms: 7,
            connect_us: 2_500,
            keepalive: failure.is_none(),
            failure,
            status: None,
        };
        let unwelcome = Try { status: Some(503), ..attempt(Some("failed")) };
        let tries =
            [attempt(Some("failed")), attempt(None), attempt(Some("timeout")), unwelcome, attempt(Some("cancelled"))];
        let found = RequestRecord { tries: &tries, ..record(&exchange) }.to_json();
        let first = json!({
            "ip": "10.0.0.1", "port": 8080, "balancer_start": 7, "balancer_start_ns": 7_000_000, "balancer_latency": 2,
            "balancer_latency_ns": 2_500_000, "keepalive": false, "state": "failed", "code": 502,
        });
        assert_eq!(found["tries"][0], first);
        assert_eq!(found["tries"][1].get("state"), None);
        let codes: Vec<_> = (1..5).map(|index| found["tries"][index]["code"].as_u64()).collect();
        assert_eq!(codes, [None, Some(504), Some(503), None]);
    }

    #[test]
    fn a_correlation_id_shows_where_there_is_one() {
        let mut exchange = request("GET", "/", &[]);
        assert_eq!(record(&exchange).to_json().get("correlation_id"), None);
        exchange.put(CorrelationId("theirs".to_owned()));
        assert_eq!(record(&exchange).to_json()["correlation_id"], "theirs");
    }

    #[test]
    fn secrets_do_not_show_and_any_bytes_make_a_line_of_json() {
        let mut exchange = request("GET", "/%ff?%ff=\"", &[]);
        for name in ["Authorization", "PROXY-Authorization", "apikey", "X-API-Key"] {
            exchange.request.headers.add(name, "hunter2");
            exchange.request.headers.add(name, "hunter2");
        }
        exchange.request.headers.add("x-bytes", [b'"', b'\\', b'\t', 0xff, 0xc3, 0xa9]);
        exchange.response.headers.add("x-back", "quote\"");
        let mut line = "before ".to_owned();
        record(&exchange).write_json(&mut line);
        assert!(line.starts_with("before {") && !line.contains('\n') && !line.contains("hunter2"), "{line}");
        let found = record(&exchange).to_json();
        assert_eq!(found["request"]["headers"]["authorization"], REDACTED);
        assert_eq!(found["request"]["headers"]["x-api-key"], REDACTED);
        assert_eq!(found["request"]["headers"]["x-bytes"], "\"\\\t\u{fffd}\u{e9}");
    }
}
