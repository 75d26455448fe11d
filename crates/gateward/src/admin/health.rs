//! `/upstreams/{upstream}/health`, and setting the health of a target by hand.

use crate::admin::kinds::{Entity, Kind};
use crate::control::Control;
use crate::server::{ApiRequest, ApiResponse};
use gateward_model::{EntityId, Target};
use gateward_proxy::TargetState;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;

/// A state as Kong's Admin API writes it.
fn shown(state: TargetState) -> &'static str {
    match state {
        TargetState::Off => "HEALTHCHECKS_OFF",
        TargetState::Healthy => "HEALTHY",
        TargetState::Unhealthy => "UNHEALTHY",
    }
}

/// Targets of an upstream with their health, or that of the balancer with `balancer_health=1`.
pub(crate) fn of_upstream(control: &Control, upstream: &str, request: &ApiRequest) -> ApiResponse {
    let plan = control.node().plan();
    let config = &plan.snapshot.config;
    let Some(upstream) = Kind::at("upstreams").and_then(|kind| kind.find(config, upstream)) else {
        return ApiResponse::not_found();
    };
    let node_id = &control.identity.node_id;
    let health = control.node().health.upstream(upstream.id());
    let targets: Vec<(&Arc<Target>, TargetState)> = config
        .targets
        .iter()
        .filter(|target| target.upstream == upstream.id())
        .map(|target| {
            (target, health.as_ref().and_then(|health| health.state(&target.target)).unwrap_or(TargetState::Off))
        })
        .collect();
    if request.flag("balancer_health") {
        let available = health.and_then(|health| health.is_available());
        let data = of_balancer(upstream.id(), upstream.key(), available, &targets);
        return ApiResponse::json(StatusCode::OK, &json!({ "data": data, "next": null, "node_id": node_id }));
    }
    let data: Vec<Value> = targets
        .into_iter()
        .map(|(target, state)| {
            let mut entity = target.shown();
            entity["health"] = json!(shown(state));
            entity["data"] = detail(target, state);
            entity
        })
        .collect();
    ApiResponse::json(StatusCode::OK, &json!({ "data": data, "next": null, "node_id": node_id }))
}

/// The upstream as a whole (kong/runloop/balancer/healthcheckers.lua, `get_balancer_health`).
fn of_balancer(
    id: EntityId,
    name: Option<&str>,
    available: Option<bool>,
    targets: &[(&Arc<Target>, TargetState)],
) -> Value {
    let mut data = json!({ "id": id, "name": name, "health": shown(TargetState::Off) });
    if let Some(healthy) = available {
        data["health"] = json!(shown(if healthy { TargetState::Healthy } else { TargetState::Unhealthy }));
        let sum = |counted: &dyn Fn(TargetState) -> bool| -> u64 {
            let counted = targets.iter().filter(|(_, state)| counted(*state));
            counted.map(|(target, _)| u64::from(target.weight)).sum()
        };
        let (total, unavailable) = (sum(&|_| true), sum(&|state| state == TargetState::Unhealthy));
        data["details"] = json!({
            "healthy": healthy,
            "weight": { "total": total, "available": total - unavailable, "unavailable": unavailable },
            "hosts": targets.iter().map(|(target, state)| detail(target, *state)).collect::<Vec<_>>(),
        });
    }
    data
}

fn detail(target: &Target, state: TargetState) -> Value {
    let (name, weight) = (target.target.as_str(), target.weight);
    let (host, port) = name.rsplit_once(':').unwrap_or((name, ""));
    let available = if state == TargetState::Unhealthy { 0 } else { weight };
    // Names are resolved by the workers, each for itself; only addresses are known here.
    let addresses: Vec<Value> = name
        .parse::<SocketAddr>()
        .map(|address| json!({ "ip": address.ip(), "port": address.port(), "health": shown(state), "weight": weight }))
        .into_iter()
        .collect();
    json!({
        "host": host,
        "port": port.parse::<u16>().ok(),
        "nodeWeight": weight,
        "weight": { "total": weight, "available": available, "unavailable": weight - available },
        "addresses": addresses,
    })
}

/// Make a target healthy or unhealthy by hand: `PUT /upstreams/{upstream}/targets/{target}[/{address}]/{health}`.
/// It stays so until checks find otherwise or it is set again.
pub(crate) fn set(
    control: &Control,
    upstream: &str,
    target: &str,
    address: Option<&str>,
    healthy: bool,
) -> ApiResponse {
    let plan = control.node().plan();
    let config = &plan.snapshot.config;
    let Some(upstream) = Kind::at("upstreams").and_then(|kind| kind.find(config, upstream)) else {
        return ApiResponse::not_found();
    };
    let Some(health) = control.node().health.upstream(upstream.id()) else { return ApiResponse::not_found() };
    match find(&config.targets, upstream.id(), target, address) {
        Some(target) if health.set(&target.target, healthy) => ApiResponse::empty(StatusCode::NO_CONTENT),
        _ => ApiResponse::not_found(),
    }
}

/// The target with this id or `host:port` (8000 where no port is given, as in Kong). `address` must be the target's
/// own: a target is healthy or not as a whole.
fn find<'a>(
    targets: &'a [Arc<Target>],
    upstream: EntityId,
    key: &str,
    address: Option<&str>,
) -> Option<&'a Arc<Target>> {
    let with_port = format!("{key}:8000");
    let named = |target: &&Arc<Target>| {
        let is = |name: &str| target.target == name;
        target.upstream == upstream && (is(key) || is(&with_port) || target.id.to_string() == key)
    };
    let own_address = |target: &&Arc<Target>| address.is_none_or(|address| target.target == address);
    targets.iter().find(named).filter(own_address)
}
