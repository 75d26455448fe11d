//! The Admin API without sockets: one table of requests and answers per subject.

use super::*;
use crate::control::testing;
use serde_json::Value;

const CONFIG: &str = r#"
_format_version: "3.0"
services:
- name: orders
  url: http://127.0.0.1:9
  tags: [a, b]
  routes:
  - name: one
    paths: [/one]
    plugins:
    - name: key-auth
  - name: two
    paths: [/two]
- name: bills
  url: http://pool
  tags: [b]
upstreams:
- name: pool
  targets:
  - target: 127.0.0.1:9
  - target: a.example
consumers:
- username: ann
  keyauth_credentials:
  - key: secret-key
  acls:
  - group: admins
"#;

async fn send(control: &Control, method: &str, target: &str) -> (u16, Value) {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let response = handle(control, ApiRequest::new(method, target)).await;
    let body = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
    (response.status.as_u16(), body)
}

/// Each path with the names (or keys) in its list.
#[tokio::test]
async fn lists() {
    let control = testing::control(CONFIG);
    for (target, field, expected) in [
        ("/services", "name", &["orders", "bills"][..]),
        ("/services?tags=a,b", "name", &["orders"]),
        ("/services?tags=a/b", "name", &["orders", "bills"]),
        ("/services?size=1", "name", &["orders"]),
        ("/services?size=1&offset=1", "name", &["bills"]),
        ("/services/orders/routes", "name", &["one", "two"]),
        ("/services/bills/routes", "name", &[]),
        ("/routes/one/plugins", "name", &["key-auth"]),
        ("/routes/two/plugins", "name", &[]),
        ("/plugins", "name", &["key-auth"]),
        ("/upstreams/pool/targets", "target", &["127.0.0.1:9", "a.example:8000"]),
        ("/upstreams/pool/targets/all", "target", &["127.0.0.1:9", "a.example:8000"]),
        ("/upstreams/pool/health", "health", &["HEALTHCHECKS_OFF", "DNS_ERROR"]),
        ("/consumers/ann/key-auth", "key", &["secret-key"]),
        ("/consumers/ann/acls", "group", &["admins"]),
        ("/consumers/ann/plugins", "name", &[]),
        ("/key-auths", "key", &["secret-key"]),
        ("/certificates", "id", &[]),
        ("/keys", "id", &[]),
    ] {
        let (status, body) = send(&control, "GET", target).await;
        let found: Vec<&str> = body["data"]
            .as_array()
            .unwrap_or_else(|| panic!("{target}: {body}"))
            .iter()
            .filter_map(|it| it[field].as_str())
            .collect();
        assert_eq!((status, found.as_slice()), (200, expected), "{target}");
    }
    let (_, body) = send(&control, "GET", "/services?size=1").await;
    assert_eq!((body["next"].as_str(), body["offset"].as_str()), (Some("/services?offset=1&size=1"), Some("1")));
    assert_eq!(send(&control, "GET", "/services?size=0").await.0, 400);
    assert_eq!(send(&control, "GET", "/services?offset=x").await.0, 400);
}

/// Each path with a JSON pointer and what is there.
#[tokio::test]
async fn items() {
    let control = testing::control(CONFIG);
    let (_, service) = send(&control, "GET", "/services/orders").await;
    let id = service["id"].as_str().unwrap().to_owned();
    for (target, pointer, expected) in [
        ("/services/orders".to_owned(), "/port", Value::from(9)),
        (format!("/services/{id}"), "/name", "orders".into()),
        ("/routes/one".into(), "/service/id", id.clone().into()),
        ("/routes/one/service".into(), "/name", "orders".into()),
        (format!("/services/{id}/routes/two"), "/paths/0", "/two".into()),
        ("/consumers/ann".into(), "/custom_id", Value::Null),
        ("/upstreams/pool".into(), "/algorithm", "round-robin".into()),
        ("/upstreams/pool/health?balancer_health=1".into(), "/data/health", "HEALTHCHECKS_OFF".into()),
        ("/".into(), "/configuration/database", "off".into()),
        ("/".into(), "/plugins/enabled_in_cluster/0", "key-auth".into()),
        ("/status".into(), "/database/reachable", true.into()),
        ("/plugins/enabled".into(), "/enabled_plugins/0", "acl".into()),
        ("/schemas/services".into(), "/fields/0/id/type", "string".into()),
        ("/schemas/plugins/key-auth".into(), "/fields/0/config/type", "record".into()),
        ("/debug/node/log-level".into(), "/message", "log level: notice".into()),
    ] {
        let (status, body) = send(&control, "GET", &target).await;
        assert_eq!((status, body.pointer(pointer)), (200, Some(&expected)), "{target} {body}");
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_may_not_be_written() {
    let control = testing::control(CONFIG);
    for (method, target, status, message) in [
        ("GET", "/nothing", 404, "Not found"),
        ("GET", "/services/none", 404, "Not found"),
        ("GET", "/services/orders/targets", 404, "Not found"),
        ("GET", "/services/bills/routes/one", 404, "Not found"),
        ("GET", "/services/orders/routes/one/x", 404, "Not found"),
        ("GET", "/schemas/none", 404, "No entity named 'none'"),
        ("GET", "/schemas/plugins/none", 404, "No plugin named 'none'"),
        ("POST", "/services", 405, "cannot create 'services' entities when not using a database"),
        ("PUT", "/routes/x", 405, "cannot create or update 'routes' entities when not using a database"),
        ("PATCH", "/routes/one", 405, "cannot update 'routes' entities when not using a database"),
        (
            "DELETE",
            "/consumers/ann/key-auth/x",
            405,
            "cannot delete 'keyauth_credentials' entities when not using a database",
        ),
        ("POST", "/nothing", 404, "Not found"),
        ("DELETE", "/config", 405, "Method not allowed"),
        ("POST", "/status", 405, "Method not allowed"),
        ("POST", "/", 405, "Method not allowed"),
        (
            "PUT",
            "/debug/node/log-level/loud",
            400,
            "'loud' is not a log level; use one of debug, info, notice, warn, error, crit, alert, emerg",
        ),
        ("PUT", "/debug/node/log-level/debug", 200, "log level changed"),
        ("GET", "/debug/nothing", 404, "Not found"),
    ] {
        let (found, body) = send(&control, method, target).await;
        assert_eq!((found, body["message"].as_str()), (status, Some(message)), "{method} {target} {body}");
    }
    assert_eq!(control.log.level(), "debug");
    assert_eq!(send(&control, "OPTIONS", "/services").await.0, 204);
}

async fn post(control: &Control, target: &str, text: &str) -> (u16, Value) {
    let mut request = ApiRequest::new(Method::POST, target);
    request.body = text.to_owned().into();
    let response = handle(control, request).await;
    (response.status.as_u16(), serde_json::from_slice(&response.body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn the_configuration_is_replaced_whole_and_survives_a_round_trip() {
    let control = testing::control("");
    let (status, body) = post(&control, "/config", CONFIG).await;
    assert_eq!(status, 201);
    assert_eq!(body["services"].as_object().unwrap().len(), 2);
    assert_eq!(control.node().plan().snapshot.generation, 1);
    assert_eq!(post(&control, "/config?check_hash=1", CONFIG).await.0, 304);
    assert_eq!(post(&control, "/config", CONFIG).await.0, 201);
    assert_eq!(control.node().plan().snapshot.generation, 1);

    let (_, exported) = send(&control, "GET", "/config").await;
    let before = control.node().plan().snapshot.config.clone();
    assert_eq!(post(&control, "/config", exported["config"].as_str().unwrap()).await.0, 201);
    let plan = control.node().plan();
    assert_eq!((plan.snapshot.generation, plan.snapshot.config == before), (2, true));
}

#[tokio::test]
async fn a_refused_configuration_is_explained() {
    let control = testing::control(CONFIG);
    let wrong = "_format_version: '3.0'\nservices:\n- name: a\n  host: b\n- name: c\n  host: d\n  port: 99999\n  retris: 1\n  tags: [x, y]\n";
    let (status, body) = post(&control, "/config", wrong).await;
    assert_eq!((status, body["code"].as_u64()), (400, Some(14)));
    assert!(body["message"].as_str().unwrap().starts_with("declarative config is invalid: {"), "{body}");
    assert!(body["fields"]["services"][0].is_null() && body["fields"]["services"][1]["port"].is_string(), "{body}");
    assert!(body["diagnostics"].as_array().unwrap().iter().all(|it| it["line"].as_u64() > Some(2)));

    let (_, body) = post(&control, "/config?flatten_errors=1", wrong).await;
    let flattened = &body["flattened_errors"][0];
    assert_eq!((flattened["entity_type"].as_str(), flattened["entity_name"].as_str()), (Some("service"), Some("c")));
    assert_eq!(flattened["errors"].as_array().unwrap().len(), 2, "{body}");
    assert_eq!(flattened["entity_tags"], serde_json::json!(["x", "y"]));
    assert_eq!(body["fields"], serde_json::json!({}));
    assert_eq!(control.node().plan().snapshot.generation, 1);
    assert_eq!(post(&control, "/config", "").await.0, 400);
}
