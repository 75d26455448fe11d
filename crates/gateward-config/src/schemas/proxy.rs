//! Services, routes, upstreams and targets.

use super::resilience::resilience;
use super::{entity, name, port, protocol, text, updated_at};
use crate::names;
use gateward_model::schema::{Check, Field, Kind, Rule, Schema, Shorthand};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) fn services() -> Schema {
    let timeout = || Field::integer().between(1, i32::MAX - 1).default(60_000);
    entity(vec![
        updated_at(),
        ("name", name()),
        ("retries", Field::integer().between(0, 32767).default(5)),
        ("protocol", protocol().default("http")),
        ("host", Field::string().rule(Rule::Custom(names::service_host)).required()),
        ("port", port().default(80)),
        ("path", Field::string().rule(Rule::Custom(names::path))),
        ("connect_timeout", timeout()),
        ("write_timeout", timeout()),
        ("read_timeout", timeout()),
        ("client_certificate", Field::foreign("certificates")),
        ("tls_verify", Field::boolean()),
        ("tls_verify_depth", Field::integer().between(0, 64)),
        ("ca_certificates", Field::array(Field::string().rule(Rule::IsUuid))),
        // Gateward's own.
        ("proxy_protocol", Field::string().one_of(&["v1", "v2"])),
        ("http2", Field::boolean()),
        ("enabled", Field::boolean().default(true)),
    ])
    .shorthand(Shorthand { name: "url".into(), field: text(), expand: Arc::new(expand_url), deprecated: None })
}

/// `scheme://host[:port][/path]` sets protocol, host, port and path.
fn expand_url(value: &Value) -> Result<Vec<(String, Value)>, String> {
    let wrong = || "not a URL; expected protocol://host[:port][/path]".to_owned();
    let (scheme, rest) = value.as_str().unwrap_or_default().split_once("://").ok_or_else(wrong)?;
    let (authority, path) = match rest.find('/') {
        Some(slash) => (&rest[..slash], Value::from(&rest[slash..])),
        None => (rest, Value::Null),
    };
    if authority.contains(['@', '?', '#']) {
        return Err(wrong());
    }
    let parsed = names::host_port(authority).ok_or_else(wrong)?;
    let default = if scheme == "https" { 443 } else { 80 };
    // A service's host is written without the brackets of a URL.
    let host = parsed.host.to_string().trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(vec![
        ("protocol".to_owned(), Value::from(scheme)),
        ("host".to_owned(), Value::from(host)),
        ("port".to_owned(), Value::from(parsed.port.unwrap_or(default))),
        ("path".to_owned(), path),
    ])
}

pub(crate) fn routes() -> Schema {
    let address = || {
        let ip = Field::string().rule(Rule::Custom(names::ip_or_cidr));
        let record = Schema::new([("ip", ip), ("port", port())]);
        Field::set(Field::record(record.check(Check::AtLeastOneOf(vec!["ip".into(), "port".into()]))))
    };
    let headers = Field::map(
        Field::string().rule(Rule::Custom(route_header)),
        Field::array(Field::string()).rule(Rule::LenMin(1)),
    );
    let redirect =
        Field::new(Kind::Integer).rule(Rule::OneOf(vec![json!(426), json!(301), json!(302), json!(307), json!(308)]));
    entity(vec![
        updated_at(),
        ("name", name()),
        ("protocols", Field::set(protocol()).rule(Rule::LenMin(1)).default(json!(["http", "https"]))),
        ("methods", Field::set(Field::string().rule(Rule::Custom(names::method)))),
        ("hosts", Field::array(text())),
        ("paths", Field::array(Field::string())),
        ("headers", headers),
        ("snis", Field::set(Field::string().rule(Rule::Custom(names::sni)))),
        ("sources", address()),
        ("destinations", address()),
        // The router orders by 32 bits of it.
        ("regex_priority", Field::integer().between(0, u32::MAX).default(0)),
        ("strip_path", Field::boolean().default(true)),
        ("preserve_host", Field::boolean().default(false)),
        ("path_handling", Field::string().one_of(&["v0", "v1"]).default("v0")),
        ("https_redirect_status_code", redirect.default(426)),
        ("request_buffering", Field::boolean().default(true)),
        ("response_buffering", Field::boolean().default(true)),
        ("expression", text()),
        ("priority", Field::integer().rule(Rule::Between(0.0, 70_368_744_177_663.0))),
        ("service", Field::foreign("services")),
    ])
}

fn route_header(value: &Value) -> Result<(), String> {
    if value.as_str().is_some_and(|name| name.eq_ignore_ascii_case("host")) {
        return Err("the host cannot be matched as a header; use 'hosts'".to_owned());
    }
    names::header_name(value)
}

pub(crate) fn upstreams() -> Schema {
    let hash = || {
        let inputs = ["none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture"];
        Field::string().one_of(&inputs).default("none")
    };
    let header = || Field::string().rule(Rule::Custom(names::header_name));
    let algorithms = ["consistent-hashing", "least-connections", "round-robin", "latency"];
    let when = |when: &'static str, equals: &'static str, then: &'static str| Check::RequiredWhen {
        when: when.into(),
        equals: equals.into(),
        then: then.into(),
    };
    entity(vec![
        updated_at(),
        ("name", Field::string().rule(Rule::Custom(names::upstream_name)).required()),
        ("algorithm", Field::string().one_of(&algorithms).default("round-robin")),
        ("hash_on", hash()),
        ("hash_fallback", hash()),
        ("hash_on_header", header()),
        ("hash_fallback_header", header()),
        ("hash_on_cookie", Field::string().rule(Rule::Custom(names::cookie_name))),
        ("hash_on_cookie_path", Field::string().rule(Rule::Custom(names::path)).default("/")),
        ("hash_on_query_arg", text()),
        ("hash_fallback_query_arg", text()),
        ("hash_on_uri_capture", text()),
        ("hash_fallback_uri_capture", text()),
        ("slots", Field::integer().between(10, 65536).default(10_000)),
        ("healthchecks", Field::record(healthchecks()).required()),
        ("host_header", Field::string().rule(Rule::Custom(host_header))),
        ("client_certificate", Field::foreign("certificates")),
        ("use_srv_name", Field::boolean().default(false)),
        ("resilience", Field::record(resilience())),
    ])
    .check(when("hash_on", "header", "hash_on_header"))
    .check(when("hash_on", "cookie", "hash_on_cookie"))
    .check(when("hash_on", "query_arg", "hash_on_query_arg"))
    .check(when("hash_on", "uri_capture", "hash_on_uri_capture"))
    .check(when("hash_fallback", "header", "hash_fallback_header"))
    .check(when("hash_fallback", "cookie", "hash_on_cookie"))
    .check(when("hash_fallback", "query_arg", "hash_fallback_query_arg"))
    .check(when("hash_fallback", "uri_capture", "hash_fallback_uri_capture"))
    .check(Check::Custom(check_fallback))
}

fn host_header(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) if names::host_port(text).is_none() => Err("not a valid host".to_owned()),
        _ => Ok(()),
    }
}

/// A fallback that could never be reached, or never differ from what failed, is a mistake.
fn check_fallback(upstream: &Value) -> Result<(), (String, String)> {
    let text = |name: &str| upstream[name].as_str();
    let (on, fallback) = (text("hash_on").unwrap_or("none"), text("hash_fallback").unwrap_or("none"));
    let wrong = |field: &str, message: String| Err((field.to_owned(), message));
    match (on, fallback) {
        (_, "none") => Ok(()),
        ("none", _) => wrong("hash_fallback", "must be 'none' when 'hash_on' is 'none'".to_owned()),
        ("cookie" | "path", _) => {
            wrong("hash_fallback", format!("must be 'none' when 'hash_on' is '{on}', which always has a value"))
        }
        ("header", "header") if same_header(text("hash_on_header"), text("hash_fallback_header")) => {
            wrong("hash_fallback_header", "must differ from 'hash_on_header'".to_owned())
        }
        ("query_arg", "query_arg") if text("hash_on_query_arg") == text("hash_fallback_query_arg") => {
            wrong("hash_fallback_query_arg", "must differ from 'hash_on_query_arg'".to_owned())
        }
        ("uri_capture", "uri_capture") if text("hash_on_uri_capture") == text("hash_fallback_uri_capture") => {
            wrong("hash_fallback_uri_capture", "must differ from 'hash_on_uri_capture'".to_owned())
        }
        ("consumer", "consumer") | ("ip", "ip") => wrong("hash_fallback", "must differ from 'hash_on'".to_owned()),
        _ => Ok(()),
    }
}

fn same_header(a: Option<&str>, b: Option<&str>) -> bool {
    a.zip(b).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
}

fn healthchecks() -> Schema {
    let check_type = || Field::string().one_of(&["tcp", "http", "https", "grpc", "grpcs"]).default("http");
    let seconds = |default: u32| Field::number().between(0, 65535).default(default);
    let count = || Field::integer().between(0, 255).default(0);
    let statuses = |default: Value| Field::array(Field::integer().between(100, 999)).default(default);
    let headers = Field::map(Field::string().rule(Rule::Custom(names::header_name)), Field::array(Field::string()));
    let record = |schema| Field::record(schema).required();
    let active = Schema::new([
        ("type", check_type()),
        ("timeout", seconds(1)),
        ("concurrency", Field::integer().rule(Rule::Between(1.0, 2_147_483_648.0)).default(10)),
        ("http_path", Field::string().rule(Rule::Custom(names::path)).default("/")),
        ("https_verify_certificate", Field::boolean().default(true)),
        ("https_sni", Field::string().rule(Rule::Custom(names::sni))),
        ("headers", headers),
        (
            "healthy",
            record(Schema::new([
                ("interval", seconds(0)),
                ("http_statuses", statuses(json!([200, 302]))),
                ("successes", count()),
            ])),
        ),
        (
            "unhealthy",
            record(Schema::new([
                ("interval", seconds(0)),
                ("http_statuses", statuses(json!([429, 404, 500, 501, 502, 503, 504, 505]))),
                ("tcp_failures", count()),
                ("timeouts", count()),
                ("http_failures", count()),
            ])),
        ),
    ]);
    let good = json!([200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308]);
    let passive = Schema::new([
        ("type", check_type()),
        ("healthy", record(Schema::new([("http_statuses", statuses(good)), ("successes", count())]))),
        (
            "unhealthy",
            record(Schema::new([
                ("http_statuses", statuses(json!([429, 500, 503]))),
                ("tcp_failures", count()),
                ("timeouts", count()),
                ("http_failures", count()),
            ])),
        ),
    ]);
    Schema::new([
        ("threshold", Field::number().between(0, 100).default(0)),
        ("active", record(active)),
        ("passive", record(passive)),
    ])
}

pub(crate) fn targets() -> Schema {
    entity(vec![
        updated_at(),
        ("target", Field::string().rule(Rule::Custom(names::target)).required()),
        ("weight", Field::integer().between(0, 65535).default(100)),
        ("upstream", Field::foreign("upstreams").required()),
    ])
}
