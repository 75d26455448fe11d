//! The Admin API, in the shape Kong has without a database: entities can be read, the configuration replaced whole.
//!
//! Handlers are functions of the node's state and a request. There is no access control, as in Kong: the port
//! belongs on loopback.

mod config;
mod entities;
mod health;
mod kinds;
mod node;

use crate::control::Control;
use crate::status;
use gateward_api::{ApiRequest, ApiResponse};
use hyper::header::ALLOW;
use hyper::{Method, StatusCode};

/// Answer a request to the Admin API.
pub(crate) async fn handle(control: &Control, request: ApiRequest) -> ApiResponse {
    if request.method == Method::OPTIONS {
        return ApiResponse::empty(StatusCode::NO_CONTENT).header(ALLOW, "GET, HEAD, OPTIONS, POST, PUT");
    }
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let reading = request.method == Method::GET;
    let writing = matches!(request.method, Method::PUT | Method::POST);
    match path.as_slice() {
        ["config"] if request.method == Method::POST => config::replace(control, &request).await,
        ["config"] if reading => config::export(control),
        ["debug", "node", "log-level", level] if request.method == Method::PUT => node::set_log_level(control, level),
        ["debug", "node", "log-level"] if reading => node::log_level(control),
        [] if reading => node::root(control),
        ["status"] if reading => status::status(control),
        ["status", "ready"] if reading => status::ready(control),
        ["metrics"] if reading => status::scrape(control),
        ["endpoints"] if reading => node::endpoints(),
        ["plugins", "enabled"] if reading => node::enabled_plugins(control),
        ["plugins", "filters"] if reading => node::filters(control),
        ["schemas", "plugins", name] if reading => node::plugin_schema(control, name),
        ["schemas", kind] if reading => node::entity_schema(kind),
        ["upstreams", upstream, "health"] if reading => health::of_upstream(control, upstream, &request),
        ["upstreams", upstream, "targets", target, state @ ("healthy" | "unhealthy")] if writing => {
            health::set(control, upstream, target, None, *state == "healthy")
        }
        ["upstreams", upstream, "targets", target, address, state @ ("healthy" | "unhealthy")] if writing => {
            health::set(control, upstream, target, Some(address), *state == "healthy")
        }
        ["upstreams", upstream, "targets", "all"] if reading => {
            entities::read(control, &["upstreams", upstream, "targets"], &request)
        }
        ["config" | "status" | "metrics" | "endpoints" | "debug" | "schemas", ..]
        | []
        | ["plugins", "enabled" | "filters"] => known_without_method(&path, reading),
        path if reading => entities::read(control, path, &request),
        path => entities::refuse_write(path, &request.method),
    }
}

/// A path of ours that is not an entity's: it has no such method, or does not exist.
fn known_without_method(path: &[&str], reading: bool) -> ApiResponse {
    let exists = match path {
        ["schemas", ..] => path.len() > 1,
        ["debug", rest @ ..] => matches!(rest, ["node", "log-level"] | ["node", "log-level", _]),
        ["config" | "status" | "metrics" | "endpoints"] | ["status", "ready"] => true,
        _ => path.len() != 1 || !reading,
    };
    if exists && (!reading || path.first() == Some(&"debug")) {
        ApiResponse::method_not_allowed()
    } else {
        ApiResponse::not_found()
    }
}

#[cfg(test)]
mod tests;
