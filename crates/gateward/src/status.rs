//! The status port: `/status`, `/status/ready`, `/metrics`. The Admin API answers the same paths.

use crate::control::{Control, VERSION};
use crate::metrics;
use crate::statistics::statistics;
use gateward_api::{ApiRequest, ApiResponse};
use gateward_net::Stage;
use gateward_telemetry::{process, prometheus};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

/// Answer a request to the status port.
pub(crate) fn handle(control: &Control, request: &ApiRequest) -> ApiResponse {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let answer = match path.as_slice() {
        ["status"] => status,
        ["status", "ready"] => ready,
        ["metrics"] => scrape,
        _ => return ApiResponse::not_found(),
    };
    if request.method != Method::GET {
        return ApiResponse::method_not_allowed();
    }
    answer(control)
}

/// `/status`, in Kong's shape with a part of our own.
pub(crate) fn status(control: &Control) -> ApiResponse {
    ApiResponse::json(StatusCode::OK, &figures(control))
}

/// `/metrics`.
pub(crate) fn scrape(control: &Control) -> ApiResponse {
    ApiResponse::bytes(StatusCode::OK, prometheus::CONTENT_TYPE, metrics::exposition(control).into_bytes())
}

/// `/status/ready`.
pub(crate) fn ready(control: &Control) -> ApiResponse {
    match why_not_ready(control) {
        None => ApiResponse::message(StatusCode::OK, "ready"),
        Some(reason) => ApiResponse::message(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

fn why_not_ready(control: &Control) -> Option<&'static str> {
    if control.node().drain.stage() != Stage::Running && !is_followed(control) {
        return Some("shutting down");
    }
    // Workers take a plan at their next request, so the one being swapped in is in all of them.
    (control.node().plan().snapshot.generation == 0)
        .then_some("no configuration available (empty configuration present)")
}

/// Whether this address is another process's already. It is ready, so a prober whose connection is still with this
/// process must not be told otherwise.
fn is_followed(control: &Control) -> bool {
    let handover = control.node().drain.handover();
    let addresses = control.addresses.get().map_or(&[][..], |addresses| &addresses.status);
    addresses.iter().any(|address| address.parse().is_ok_and(|address| handover.has(address)))
}

fn figures(control: &Control) -> Value {
    let node = control.node();
    let plan = node.plan();
    let live = node.telemetry.live();
    json!({
        "configuration_hash": plan.snapshot.hash,
        "database": { "reachable": true },
        "memory": {
            "lua_shared_dicts": {},
            "workers_lua_vms": [],
            "resident_bytes": process::resident_bytes(),
        },
        "server": statistics(&node.telemetry),
        "gateward": {
            "version": VERSION,
            "node_id": control.identity.node_id,
            "stage": stage_name(node.drain.stage()),
            "started_at": control.identity.started_at,
            "workers": control.options.workers,
            "generation": plan.snapshot.generation,
            "success_ratio": live.success_ratio(),
            "last_reload": control.reloader.last(),
        },
    })
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Running => "running",
        Stage::Draining => "draining",
        Stage::Closing => "closing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Addresses, testing};

    fn get(control: &Control, target: &str) -> (u16, String) {
        let response = handle(control, &ApiRequest::new(Method::GET, target));
        (response.status.as_u16(), String::from_utf8(response.body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_follows_configuration_and_shutdown() {
        let control = testing::control("");
        assert_eq!(get(&control, "/status/ready").0, 503);
        control.addresses.set(Addresses::default()).unwrap();
        assert!(get(&control, "/status/ready").1.contains("no configuration"));
        let text = b"_format_version: '3.0'\n".to_vec();
        control.reloader.apply(text, gateward_config::Format::Yaml, "test").await.unwrap();
        assert_eq!(get(&control, "/status/ready").0, 200);
        control.node().drain.advance(Stage::Draining);
        assert_eq!(get(&control, "/status/ready"), (503, r#"{"message":"shutting down"}"#.to_owned()));
    }

    #[tokio::test]
    async fn an_address_handed_over_stays_ready() {
        let check = async |status: &str, expected| {
            let control = testing::control("_format_version: '3.0'\n");
            let addresses = Addresses { status: vec!["127.0.0.1:7".to_owned()], ..Addresses::default() };
            control.addresses.set(addresses).unwrap();
            control.node().drain.handover().give(&[status.parse().unwrap()]);
            control.node().drain.advance(Stage::Draining);
            assert_eq!(get(&control, "/status/ready").0, expected);
        };
        check("127.0.0.1:7", 200).await;
        check("127.0.0.1:8", 503).await;
    }

    #[tokio::test]
    async fn status_tells_of_a_refused_configuration() {
        let control = testing::control("_format_version: '3.0'\n");
        let _ = control.reloader.apply(b"nonsense: 1\n".to_vec(), gateward_config::Format::Yaml, "test").await;
        let (status, body) = get(&control, "/status");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, 200);
        assert_eq!(body["gateward"]["generation"], 1);
        assert_eq!(body["gateward"]["last_reload"]["success"], false);
        assert!(body["gateward"]["last_reload"]["diagnostics"][0]["line"].is_u64());
        assert_eq!(body["configuration_hash"].as_str().unwrap().len(), 32);
        assert_eq!(body["server"]["total_requests"], 0);
    }

    #[tokio::test]
    async fn other_paths_and_methods() {
        let control = testing::control("");
        assert_eq!(get(&control, "/services").0, 404);
        assert_eq!(handle(&control, &ApiRequest::new(Method::POST, "/status")).status, 405);
    }
}
