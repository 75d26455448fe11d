//! `/upstreams/{upstream}/health`. This build checks no health, which is one of Kong's answers.

use crate::admin::kinds::{Entity, Kind};
use crate::control::Control;
use crate::server::{ApiRequest, ApiResponse};
use hyper::StatusCode;
use serde_json::{Value, json};
use std::net::SocketAddr;

const HEALTH: &str = "HEALTHCHECKS_OFF";

/// Targets of an upstream with their health, or that of the balancer with `balancer_health=1`.
pub(crate) fn of_upstream(control: &Control, upstream: &str, request: &ApiRequest) -> ApiResponse {
    let plan = control.node().plan();
    let config = &plan.snapshot.config;
    let Some(upstream) = Kind::at("upstreams").and_then(|kind| kind.find(config, upstream)) else {
        return ApiResponse::not_found();
    };
    let node_id = &control.identity.node_id;
    if request.flag("balancer_health") {
        let data = json!({ "id": upstream.id(), "name": upstream.key(), "health": HEALTH });
        return ApiResponse::json(StatusCode::OK, &json!({ "data": data, "next": null, "node_id": node_id }));
    }
    let targets = config.targets.iter().filter(|target| target.upstream == upstream.id());
    let data: Vec<Value> = targets
        .map(|target| {
            let mut shown = target.shown();
            shown["health"] = json!(HEALTH);
            shown["data"] = detail(&target.target, target.weight);
            shown
        })
        .collect();
    ApiResponse::json(StatusCode::OK, &json!({ "data": data, "next": null, "node_id": node_id }))
}

fn detail(target: &str, weight: u16) -> Value {
    let (host, port) = target.rsplit_once(':').unwrap_or((target, ""));
    // Names are resolved by the workers, each for itself; only addresses are known here.
    let addresses: Vec<Value> = target
        .parse::<SocketAddr>()
        .map(|address| json!({ "ip": address.ip(), "port": address.port(), "health": HEALTH, "weight": weight }))
        .into_iter()
        .collect();
    json!({
        "host": host,
        "port": port.parse::<u16>().ok(),
        "nodeWeight": weight,
        "weight": { "total": weight, "available": weight, "unavailable": 0 },
        "addresses": addresses,
    })
}
