//! Plugins that tell what happened: metrics, and logs to a file and over HTTP.

use gateward_e2e::{Metrics, one_route, with_plugins};
use gateward_testkit::{Backend, Gateway, Next, eventually, http};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn prometheus() {
    let backend = Backend::echo();
    let config = with_plugins(
        &one_route(&backend.url()),
        &[
            "{name: prometheus, config: {per_consumer: true, status_code_metrics: true, latency_metrics: true, bandwidth_metrics: true, upstream_health_metrics: true}}",
            "{name: key-auth}",
        ],
    ) + "consumers:\n- {username: alice, keyauth_credentials: [{key: k}]}\n";
    let gateway = Gateway::start(&config);
    for _ in 0..5 {
        assert_eq!(http(gateway.proxy(), "GET /", &[("apikey", "k")], b"").status, 200);
    }
    assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 401);
    let of_route = ["service=\"origin\"", "route=\"all\""];
    eventually(PATIENCE, || Metrics::scrape(&gateway).sum("kong_http_requests_total", &of_route) == 6.0);
    let metrics = Metrics::scrape(&gateway);
    let sum = |name: &str, labels: &[&str]| metrics.sum(name, &[&of_route[..], labels].concat());
    assert_eq!(sum("kong_http_requests_total", &["code=\"200\"", "source=\"service\"", "consumer=\"alice\""]), 5.0);
    assert_eq!(sum("kong_http_requests_total", &["code=\"401\"", "source=\"kong\""]), 1.0, "{}", metrics.text());
    assert_eq!(sum("kong_request_latency_ms_count", &[]), 6.0);
    assert_eq!(sum("kong_upstream_latency_ms_count", &[]), 5.0);
    assert!(sum("kong_bandwidth_bytes", &["direction=\"ingress\""]) > 100.0);
    assert!(sum("kong_bandwidth_bytes", &["direction=\"egress\""]) > 100.0);
    for name in
        ["kong_node_info", "kong_nginx_connections_total", "kong_nginx_requests_total", "kong_datastore_reachable"]
    {
        assert!(metrics.has(name), "{name}");
    }
    gateway.stop();
}

#[test]
fn file_log() {
    let backend = Backend::echo();
    let dir = std::env::temp_dir().join(format!("gateward-file-log-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("directories can be made");
    let file = dir.join("log.json");
    let plugin = format!("{{name: file-log, config: {{path: {}}}}}", file.display());
    let gateway = Gateway::start(&with_plugins(&one_route(&backend.url()), &[&plugin]));
    for index in 0..20 {
        http(gateway.proxy(), &format!("GET /{index}?a=b"), &[("Authorization", "Basic c2VjcmV0")], b"");
    }
    http(gateway.proxy(), "POST /nowhere", &[], b"body");
    let mut text = String::new();
    eventually(PATIENCE, || {
        text = std::fs::read_to_string(&file).unwrap_or_default();
        text.lines().count() == 21
    });
    let records: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect();
    let record = &records[0];
    assert_eq!(record["request"]["method"], "GET", "{record}");
    assert_eq!(record["request"]["uri"], "/0?a=b", "{record}");
    assert_eq!(record["request"]["querystring"]["a"], "b", "{record}");
    assert_eq!(record["response"]["status"], 200, "{record}");
    assert_eq!((record["service"]["name"].as_str(), record["route"]["name"].as_str()), (Some("origin"), Some("all")));
    assert_eq!(record["client_ip"], "127.0.0.1");
    assert_eq!(record["tries"][0]["port"], backend.addr().port(), "{record}");
    for latency in ["request", "kong", "proxy"] {
        assert!(record["latencies"][latency].is_number(), "{latency}: {record}");
    }
    assert!(!text.contains("c2VjcmV0"), "credentials are not logged");
    gateway.stop();
    std::fs::remove_dir_all(&dir).expect("the directory can be removed");
}

#[test]
fn http_log_tries_again() {
    let backend = Backend::echo();
    let failures = Arc::new(AtomicUsize::new(2));
    let sink = Backend::scripted(move |_, stream| {
        let fails = failures.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let response: &[u8] = if fails {
            b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        };
        let _ = stream.write_all(response);
        Next::KeepAlive
    });
    let plugin = format!(
        "{{name: http-log, config: {{http_endpoint: '{}/logs?x=y', headers: {{X-Token: t}}, queue: {{initial_retry_delay: 0.05}}}}}}",
        sink.url()
    );
    let gateway = Gateway::start(&with_plugins(&one_route(&backend.url()), &[&plugin]));
    for index in 0..3 {
        assert_eq!(http(gateway.proxy(), &format!("GET /{index}"), &[], b"").status, 200);
    }
    let delivered = || {
        let mut uris: Vec<String> = sink
            .requests()
            .iter()
            .filter_map(|request| serde_json::from_slice::<serde_json::Value>(&request.body).ok())
            .filter_map(|record| Some(record["request"]["uri"].as_str()?.to_owned()))
            .collect();
        uris.sort();
        uris.dedup();
        uris
    };
    eventually(PATIENCE, || sink.request_count() >= 5 && delivered().len() == 3);
    assert_eq!(delivered(), ["/0", "/1", "/2"]);
    let request = &sink.requests()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/logs?x=y"));
    assert_eq!((request.header("content-type"), request.header("x-token")), (Some("application/json"), Some("t")));
    gateway.stop();
}

#[test]
fn http_log_sends_batches_and_ends_with_the_gateway() {
    let backend = Backend::echo();
    let sink = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let plugin = format!(
        "{{name: http-log, config: {{http_endpoint: '{}', queue: {{max_batch_size: 50, max_coalescing_delay: 2}}}}}}",
        sink.url()
    );
    let gateway = Gateway::start(&with_plugins(&one_route(&backend.url()), &[&plugin]));
    for _ in 0..20 {
        http(gateway.proxy(), "GET /", &[], b"");
    }
    // What is queued is delivered before the process ends.
    gateway.stop();
    let records: usize = sink
        .requests()
        .iter()
        .filter_map(|request| serde_json::from_slice::<Vec<serde_json::Value>>(&request.body).ok())
        .map(|batch| batch.len())
        .sum();
    assert_eq!(records, 20);
    assert!(sink.request_count() < 20, "batches, not single records: {}", sink.request_count());
}

#[test]
fn a_dead_sink_costs_no_request() {
    let backend = Backend::echo();
    let plugin =
        "{name: http-log, config: {http_endpoint: 'http://127.0.0.1:9/', queue: {max_entries: 10, max_retry_time: 1}}}";
    let mut gateway = Gateway::start(&with_plugins(&one_route(&backend.url()), &[plugin]));
    gateway.expect_error("http-log");
    for _ in 0..100 {
        assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 200);
    }
    gateway.stop();
}

#[test]
fn access_log() {
    let backend = Backend::echo();
    let dir = std::env::temp_dir().join(format!("gateward-access-log-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("directories can be made");
    let file = dir.join("access.log");
    let gateway =
        Gateway::builder(&one_route(&backend.url())).workers(1).arg(format!("--access-log={}", file.display())).start();
    http(gateway.proxy(), "GET /a", &[], b"");
    gateward_e2e::exchange(gateway.proxy(), "GET", b"GET / HTTP/1.1\r\nbroken\r\n\r\n");
    gateway.stop();
    let text = std::fs::read_to_string(&file).expect("the log was written");
    let statuses: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("every line is JSON"))
        .filter_map(|record| record["response"]["status"].as_u64())
        .collect();
    assert_eq!(statuses, [200, 400]);
    std::fs::remove_dir_all(&dir).expect("the directory can be removed");
}
