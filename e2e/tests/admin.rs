//! The Admin API and the status port: Kong's shapes, read-only, and a metrics page that parses.

use gateward_e2e::{Metrics, with_plugins};
use gateward_testkit::{Backend, Gateway, RawResponse, http};

fn config(backend: &Backend) -> String {
    let base = format!(
        "_format_version: '3.0'\n\
         services:\n\
         - {{name: s1, url: '{0}', tags: [blue], routes: [{{name: r1, paths: [/a]}}, {{name: r2, paths: [/b]}}]}}\n\
         - {{name: s2, host: pool, tags: [green], routes: [{{name: r3, paths: [/c]}}]}}\n\
         upstreams:\n\
         - {{name: pool, targets: [{{target: '{1}', weight: 50}}]}}\n\
         consumers:\n\
         - {{username: alice, custom_id: a1, keyauth_credentials: [{{key: secret}}], acls: [{{group: g}}]}}\n",
        backend.url(),
        backend.addr()
    );
    with_plugins(&base, &["{name: key-auth, route: r1}", "{name: prometheus}"])
}

fn start() -> (Gateway, Backend) {
    let backend = Backend::echo();
    (Gateway::start(&config(&backend)), backend)
}

#[track_caller]
fn admin(gateway: &Gateway, request: &str) -> RawResponse {
    http(gateway.admin(), request, &[("Content-Type", "application/json")], b"")
}

#[test]
fn lists_and_items_have_kongs_shape() {
    let (gateway, _backend) = start();
    for (path, count) in [
        ("/services", 2),
        ("/routes", 3),
        ("/services/s1/routes", 2),
        ("/upstreams", 1),
        ("/upstreams/pool/targets", 1),
        ("/upstreams/pool/health", 1),
        ("/consumers", 1),
        ("/consumers/alice/key-auth", 1),
        ("/consumers/alice/acls", 1),
        ("/plugins", 2),
        ("/routes/r1/plugins", 1),
        ("/certificates", 0),
        ("/services?tags=blue", 1),
        ("/services?tags=red", 0),
    ] {
        let response = admin(&gateway, &format!("GET {path}"));
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        let json = response.json();
        assert_eq!(json["data"].as_array().map(Vec::len), Some(count), "{path}: {json}");
        assert!(json.get("next").is_some_and(serde_json::Value::is_null), "{path}: {json}");
    }
    let by_name = admin(&gateway, "GET /services/s1").json();
    let id = by_name["id"].as_str().expect("entities have ids");
    assert_eq!(admin(&gateway, &format!("GET /services/{id}")).json(), by_name);
    for (field, value) in [("protocol", "http"), ("host", "127.0.0.1")] {
        assert_eq!(by_name[field], value, "{by_name}");
    }
    for (field, value) in [("retries", 5), ("connect_timeout", 60_000), ("read_timeout", 60_000)] {
        assert_eq!(by_name[field], value, "{by_name}");
    }
    assert_eq!(admin(&gateway, "GET /routes/r1").json()["service"]["id"], by_name["id"]);
    assert_eq!(admin(&gateway, "GET /routes/r1/service").json()["id"], by_name["id"]);
    for path in ["/services/none", "/nothing", "/services/s1/nothing"] {
        let response = admin(&gateway, &format!("GET {path}"));
        assert_eq!((response.status, response.json()["message"].as_str()), (404, Some("Not found")), "{path}");
    }
    gateway.stop();
}

#[test]
fn pages_end_and_continue() {
    let (gateway, _backend) = start();
    let mut path = "/routes?size=1".to_owned();
    let mut names = Vec::new();
    for _ in 0..10 {
        let page = admin(&gateway, &format!("GET {path}")).json();
        names.extend(
            page["data"].as_array().into_iter().flatten().filter_map(|route| Some(route["name"].as_str()?.to_owned())),
        );
        let Some(next) = page["next"].as_str() else { break };
        path = next.to_owned();
    }
    names.sort();
    assert_eq!(names, ["r1", "r2", "r3"]);
    gateway.stop();
}

#[test]
fn writes_are_refused() {
    let (gateway, _backend) = start();
    for request in [
        "POST /services",
        "PUT /services/s1",
        "PATCH /services/s1",
        "DELETE /services/s1",
        "POST /services/s1/routes",
        "DELETE /consumers/alice",
    ] {
        assert_eq!(admin(&gateway, request).status, 405, "{request}");
    }
    assert_eq!(admin(&gateway, "GET /services/s1").status, 200);
    gateway.stop();
}

#[test]
fn the_export_can_be_loaded_again() {
    let (gateway, _backend) = start();
    let exported = admin(&gateway, "GET /config").json();
    let text = exported["config"].as_str().expect("the export is text").to_owned();
    let body = serde_json::json!({ "config": text }).to_string();
    let posted = http(gateway.admin(), "POST /config", &[("Content-Type", "application/json")], body.as_bytes());
    assert_eq!(posted.status, 201, "{}", posted.text());
    let again = admin(&gateway, "GET /config").json();
    assert_eq!(again["config"].as_str(), Some(text.as_str()));
    assert_eq!(http(gateway.proxy(), "GET /a", &[("apikey", "secret")], b"").status, 200);
    gateway.stop();
}

#[test]
fn root_status_and_schemas() {
    let (gateway, _backend) = start();
    let root = admin(&gateway, "GET /").json();
    for field in ["version", "tagline", "hostname", "node_id", "plugins", "configuration"] {
        assert!(root.get(field).is_some(), "{field}: {root}");
    }
    for addr in [gateway.admin(), gateway.status()] {
        let status = http(addr, "GET /status", &[], b"");
        let json = status.json();
        assert_eq!(status.status, 200);
        assert_eq!(json["configuration_hash"].as_str().map(str::len), Some(32), "{json}");
        assert!(json["server"]["total_requests"].is_u64(), "{json}");
        assert_eq!(json["database"]["reachable"], true, "{json}");
    }
    assert_eq!(admin(&gateway, "GET /schemas/services").status, 200);
    let schema = admin(&gateway, "GET /schemas/plugins/key-auth").json();
    assert!(schema["fields"].is_array(), "{schema}");
    assert_eq!(admin(&gateway, "GET /schemas/plugins/none").status, 404);
    gateway.stop();
}

#[test]
fn readiness_needs_a_configuration() {
    let gateway = Gateway::start("_format_version: '3.0'\n");
    assert_eq!(http(gateway.status(), "GET /status/ready", &[], b"").status, 200, "an empty file is a configuration");
    assert_eq!(http(gateway.status(), "POST /status", &[], b"").status, 405);
    assert_eq!(http(gateway.status(), "GET /services", &[], b"").status, 404, "the status port shows no entities");
    gateway.stop();
}

#[test]
fn metrics_parse_and_hold_together() {
    let (gateway, _backend) = start();
    for path in ["/a", "/b", "/c", "/none"] {
        http(gateway.proxy(), &format!("GET {path}"), &[], b"");
    }
    gateward_testkit::eventually(std::time::Duration::from_secs(5), || {
        Metrics::scrape(&gateway).sum("gateward_requests_total", &[]) == 4.0
    });
    let metrics = Metrics::scrape(&gateway);
    for name in [
        "gateward_requests_in_flight",
        "gateward_request_duration_seconds_bucket",
        "gateward_connections_active",
        "gateward_upstream_connects_total",
        "gateward_config_generation",
        "gateward_build_info",
        "process_resident_memory_bytes",
        "process_open_fds",
        "kong_node_info",
    ] {
        assert!(metrics.has(name), "{name} is missing:\n{}", metrics.text());
    }
    assert_eq!(metrics.sum("gateward_request_duration_seconds_count", &[]), 4.0);
    assert_eq!(metrics.sum("gateward_request_duration_seconds_bucket", &["le=\"+Inf\""]), 4.0);
    assert_eq!(metrics.sum("gateward_requests_in_flight", &[]), 0.0);
    let response = http(gateway.status(), "GET /metrics", &[], b"");
    assert!(
        response.header("content-type").is_some_and(|value| value.starts_with("text/plain")),
        "{:?}",
        response.headers
    );
    gateway.stop();
}
