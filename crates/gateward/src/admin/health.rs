//! `/upstreams/{upstream}/health`, and setting the health of a target by hand.

use crate::admin::kinds::{Entity, Kind};
use crate::control::Control;
use gateward_api::{ApiRequest, ApiResponse};
use gateward_model::{EntityId, Target};
use gateward_proxy::{TargetAddress, TargetState};
use hyper::StatusCode;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// A state as Kong's Admin API writes it.
fn shown(state: TargetState) -> &'static str {
    match state {
        TargetState::Off => "HEALTHCHECKS_OFF",
        TargetState::Healthy => "HEALTHY",
        TargetState::Unhealthy => "UNHEALTHY",
        TargetState::Unresolved => "DNS_ERROR",
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
    let targets: Vec<Resolved<'_>> = config
        .targets
        .iter()
        .filter(|target| target.upstream == upstream.id())
        .map(|target| Resolved {
            target,
            state: health.as_ref().and_then(|health| health.state(&target.target)).unwrap_or(TargetState::Off),
            addresses: health.iter().flat_map(|health| health.addresses(&target.target)).collect(),
        })
        .collect();
    if request.flag("balancer_health") {
        let available = health.and_then(|health| health.is_available());
        let data = of_balancer(upstream.id(), upstream.key(), available, &targets);
        return ApiResponse::json(StatusCode::OK, &json!({ "data": data, "next": null, "node_id": node_id }));
    }
    let data: Vec<Value> = targets
        .into_iter()
        .map(|resolved| {
            let mut entity = resolved.target.shown();
            entity["health"] = json!(shown(resolved.state));
            entity["data"] = detail(&resolved);
            entity
        })
        .collect();
    ApiResponse::json(StatusCode::OK, &json!({ "data": data, "next": null, "node_id": node_id }))
}

/// A target, and what stands behind it now.
struct Resolved<'a> {
    target: &'a Target,
    state: TargetState,
    addresses: Vec<TargetAddress>,
}

impl Resolved<'_> {
    /// Weight of all addresses, and of those that may not be chosen.
    fn weights(&self) -> (u64, u64) {
        let sum = |counted: &dyn Fn(&TargetAddress) -> bool| -> u64 {
            self.addresses.iter().filter(|address| counted(address)).map(|address| u64::from(address.weight)).sum()
        };
        (sum(&|_| true), sum(&|address| address.state == TargetState::Unhealthy))
    }
}

/// The upstream as a whole (kong/runloop/balancer/healthcheckers.lua, `get_balancer_health`).
fn of_balancer(id: EntityId, name: Option<&str>, available: Option<bool>, targets: &[Resolved<'_>]) -> Value {
    let mut data = json!({ "id": id, "name": name, "health": shown(TargetState::Off) });
    if let Some(healthy) = available {
        data["health"] = json!(shown(if healthy { TargetState::Healthy } else { TargetState::Unhealthy }));
        let add = |(total, out): (u64, u64), target: &Resolved<'_>| {
            let (more, more_out) = target.weights();
            (total + more, out + more_out)
        };
        let (total, unavailable) = targets.iter().fold((0, 0), add);
        data["details"] = json!({
            "healthy": healthy,
            "weight": { "total": total, "available": total - unavailable, "unavailable": unavailable },
            "hosts": targets.iter().map(detail).collect::<Vec<_>>(),
        });
    }
    data
}

fn detail(resolved: &Resolved<'_>) -> Value {
    let name = resolved.target.target.as_str();
    let (host, port) = name.rsplit_once(':').unwrap_or((name, ""));
    let (total, unavailable) = resolved.weights();
    let address = |it: &TargetAddress| json!({ "ip": it.address.ip(), "port": it.address.port(), "health": shown(it.state), "weight": it.weight });
    json!({
        "host": host,
        "port": port.parse::<u16>().ok(),
        "nodeWeight": resolved.target.weight,
        "weight": { "total": total, "available": total - unavailable, "unavailable": unavailable },
        "addresses": resolved.addresses.iter().map(address).collect::<Vec<_>>(),
    })
}

/// Make a target healthy or unhealthy by hand, with all its addresses or one:
/// `PUT /upstreams/{upstream}/targets/{target}[/{address}]/{health}`.
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
    let Some(target) = find(&config.targets, upstream.id(), target) else { return ApiResponse::not_found() };
    // An address without a port has the target's.
    let port = target.target.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
    let address = match address.map(|text| text.parse().or_else(|_| text.parse().map(|ip: IpAddr| (ip, port).into()))) {
        None => None,
        Some(Ok(address)) => Some(address),
        Some(Err(_)) => return ApiResponse::not_found(),
    };
    if health.set(&target.target, address, healthy) {
        ApiResponse::empty(StatusCode::NO_CONTENT)
    } else {
        ApiResponse::not_found()
    }
}

/// The target with this id or `host:port` (8000 where no port is given, as in Kong).
fn find<'a>(targets: &'a [Arc<Target>], upstream: EntityId, key: &str) -> Option<&'a Arc<Target>> {
    let with_port = format!("{key}:8000");
    let named = |target: &&Arc<Target>| {
        let is = |name: &str| target.target == name;
        target.upstream == upstream && (is(key) || is(&with_port) || target.id.to_string() == key)
    };
    targets.iter().find(named)
}
