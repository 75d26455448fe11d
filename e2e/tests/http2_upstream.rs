//! https services that may choose HTTP/2, with nginx as one that does: requests and answers of all shapes, connections,
//! and health checks over TLS.

use gateward_e2e::{Authority, Metrics, Nginx, curl, has_tool, indented, large};
use gateward_testkit::{Gateway, RawResponse, eventually, http};
use std::collections::BTreeSet;
use std::time::Duration;

const CA_ID: &str = "2a1f4c3e-52f4-4f0c-8c52-6c6f1b1b6a01";
const PATIENCE: Duration = Duration::from_secs(15);

fn config(port: u16, authority: &Authority, fields: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- {{name: s, url: 'https://localhost:{port}', tls_verify: true, ca_certificates: [{CA_ID}]{fields}, routes: [{{name: r, paths: [/]}}]}}\nca_certificates:\n- id: {CA_ID}\n  cert: |\n{}",
        indented(authority.pem())
    )
}

fn start() -> Option<(Gateway, Nginx)> {
    if !has_tool("nginx") {
        return None;
    }
    let authority = Authority::new();
    let nginx = Nginx::start_http2(&authority, "localhost");
    let gateway = Gateway::builder(&config(nginx.port(), &authority, ", http2: true")).workers(1).start();
    Some((gateway, nginx))
}

/// A field of what nginx said.
fn said(response: &RawResponse, name: &str) -> String {
    let text = response.text();
    let field = text.split('|').find_map(|part| part.strip_prefix(&format!("{name}=")));
    field.unwrap_or_else(|| panic!("{}: no {name} in {text}", response.status)).to_owned()
}

#[test]
fn requests_of_all_shapes_are_served_over_one_connection() {
    let Some((gateway, nginx)) = start() else { return };
    let mut connections = BTreeSet::new();
    for (line, body) in [("GET /a?b=c", ""), ("POST /up", "hello"), ("DELETE /x", ""), ("OPTIONS /y", "")] {
        let response = http(gateway.proxy(), line, &[("Host", "public.test")], body.as_bytes());
        assert_eq!(said(&response, "proto"), "h2");
        assert_eq!(said(&response, "request"), format!("{line} HTTP/2.0"));
        assert_eq!(said(&response, "host"), format!("localhost:{}", nginx.port()));
        assert_eq!(said(&response, "length"), if body.is_empty() { String::new() } else { body.len().to_string() });
        connections.insert(said(&response, "connection"));
    }
    assert_eq!(connections.len(), 1);
    let head = http(gateway.proxy(), "HEAD /large", &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("3000000")));
    let response = http(gateway.proxy(), "GET /large", &[], b"");
    assert!(response.body == large(), "{} bytes", response.body.len());
    let tag = response.header("etag").expect("nginx sends one");
    let unchanged = http(gateway.proxy(), "GET /large", &[("If-None-Match", tag)], b"");
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    let part = http(gateway.proxy(), "GET /large", &[("Range", "bytes=5-9")], b"");
    assert_eq!((part.status, part.body), (206, vec![5, 6, 7, 8, 9]));
    let upload = http(gateway.proxy(), "POST /up", &[], &[b'x'; 900_000]);
    assert_eq!(said(&upload, "length"), "900000");
    let metrics = Metrics::scrape(&gateway);
    assert_eq!(metrics.sum("gateward_upstream_connects_total", &[]), 1.0);
    gateway.assert_no_errors();
}

#[test]
fn http2_on_both_sides() {
    let Some((gateway, _nginx)) = start() else { return };
    if !has_tool("curl") {
        return;
    }
    let url = format!("http://{}/large", gateway.proxy());
    let out = curl(&["--http2-prior-knowledge", &url]);
    assert!(out.stdout == large(), "{} bytes", out.stdout.len());
    gateway.assert_no_errors();
}

#[test]
fn many_requests_share_few_connections() {
    let Some((gateway, _nginx)) = start() else { return };
    let address = gateway.proxy();
    let clients: Vec<_> = (0..40)
        .map(|_| {
            std::thread::spawn(move || {
                let ask = |_| said(&http(address, "GET /x", &[], b""), "connection");
                (0..10).map(ask).collect::<BTreeSet<_>>()
            })
        })
        .collect();
    let connections: BTreeSet<_> = clients.into_iter().flat_map(|client| client.join().expect("answers")).collect();
    assert!(connections.len() <= 2, "{connections:?}");
    gateway.assert_no_errors();
}

#[test]
fn without_the_field_it_is_http1_as_in_kong() {
    if !has_tool("nginx") {
        return;
    }
    let authority = Authority::new();
    let nginx = Nginx::start_http2(&authority, "localhost");
    for (fields, proto) in [("", "http/1.1"), (", http2: false", "http/1.1"), (", http2: true", "h2")] {
        let gateway = Gateway::start(&config(nginx.port(), &authority, fields));
        assert_eq!(said(&http(gateway.proxy(), "GET /", &[], b""), "proto"), proto);
    }
    // One that does not speak it.
    let old = Nginx::start(&authority, "localhost");
    let gateway = Gateway::start(&config(old.port(), &authority, ", http2: true"));
    for _ in 0..3 {
        assert_eq!(said(&http(gateway.proxy(), "GET /", &[], b""), "proto"), "http/1.1");
    }
    // And one that speaks nothing else is no reason to believe it.
    let stranger = Authority::new();
    let gateway = Gateway::start(&config(nginx.port(), &stranger, ", http2: true"));
    assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 502);
}

#[test]
fn an_origin_that_restarts_costs_nothing() {
    let Some((gateway, nginx)) = start() else { return };
    let reload = || {
        let dir = nginx.dir().display().to_string();
        let conf = format!("{dir}/nginx.conf");
        let reloaded = std::process::Command::new("nginx").args(["-p", &dir, "-c", &conf, "-s", "reload"]).status();
        assert!(reloaded.is_ok_and(|status| status.success()));
    };
    let mut connections = BTreeSet::new();
    for index in 0..300 {
        if index % 100 == 50 {
            reload();
        }
        // Idempotent ones alone: of a connection that just closes nothing is known of others.
        connections.insert(said(&http(gateway.proxy(), "GET /", &[], b""), "connection"));
    }
    assert!(!connections.is_empty());
    gateway.assert_no_errors();
}

/// States of the targets, in their order.
fn shown(gateway: &Gateway) -> Vec<String> {
    let health = http(gateway.admin(), "GET /upstreams/pool/health", &[], b"").json();
    let targets = health["data"].as_array().expect("a list").iter();
    targets.map(|target| target["health"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn https_checks_verify_as_the_upstream_says() {
    if !has_tool("nginx") {
        return;
    }
    let authority = Authority::new();
    let (right, misnamed) = (Nginx::start(&authority, "inner.test"), Nginx::start(&authority, "other.test"));
    let config = |fields: &str| {
        format!(
            "_format_version: '3.0'\nupstreams:\n- {{name: pool{fields}, healthy: {{interval: 0.1, http_statuses: [200], successes: 1}}, unhealthy: {{interval: 0.1, tcp_failures: 1, http_failures: 1, timeouts: 1}}}}}}, targets: [{{target: '127.0.0.1:{}'}}, {{target: '127.0.0.1:{}'}}]}}\nservices:\n- {{name: s, protocol: https, host: pool, routes: [{{name: r, paths: [/]}}]}}\n",
            right.port(),
            misnamed.port()
        )
    };
    let active = "healthchecks: {active: {type: https, timeout: 5, http_path: /health";
    for (fields, authority, states) in [
        // The name that is asked for in TLS: its own field, or the host.
        (format!(", {active}, https_sni: inner.test"), true, ["HEALTHY", "UNHEALTHY"]),
        (format!(", host_header: other.test, {active}"), true, ["UNHEALTHY", "HEALTHY"]),
        (format!(", {active}"), true, ["UNHEALTHY", "UNHEALTHY"]),
        (format!(", {active}, https_sni: inner.test"), false, ["UNHEALTHY", "UNHEALTHY"]),
        (format!(", {active}, https_verify_certificate: false"), false, ["HEALTHY", "HEALTHY"]),
    ] {
        let ca = if authority { right.dir().join("ca.pem").display().to_string() } else { "system".to_owned() };
        let gateway = Gateway::builder(&config(&fields)).env("KONG_LUA_SSL_TRUSTED_CERTIFICATE", ca).start();
        let checked = || {
            let metrics = Metrics::scrape(&gateway);
            metrics.sum("gateward_target_health_transitions_total", &["to=\"unhealthy\"", "reason=\"active\""])
        };
        let failing = states.iter().filter(|state| **state == "UNHEALTHY").count();
        eventually(PATIENCE, || checked() >= failing as f64 && shown(&gateway) == states);
        gateway.stop();
    }
}
