//! What the Admin API says about the node itself, its plugins and schemas.

use crate::admin::kinds::KINDS;
use crate::control::{Control, VERSION};
use crate::settings::LogLevel;
use gateward_api::ApiResponse;
use gateward_config::schema_to_json;
use gateward_model::schema::{Field, PluginSchemas, Schema};
use gateward_plugin::definitions;
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// `GET /`.
pub(crate) fn root(control: &Control) -> ApiResponse {
    let plan = control.node().plan();
    let used: BTreeSet<&str> = plan.snapshot.config.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    let available: Map<String, Value> = definitions()
        .iter()
        .map(|plugin| (plugin.name.to_owned(), json!({ "version": VERSION, "priority": plugin.priority })))
        .collect();
    ApiResponse::json(
        StatusCode::OK,
        &json!({
            "tagline": "Welcome to gateward",
            "version": VERSION,
            "edition": "gateward",
            "hostname": control.identity.hostname,
            "node_id": control.identity.node_id,
            "pids": { "master": std::process::id() },
            "plugins": { "available_on_server": available, "enabled_in_cluster": used },
            "configuration": configuration(control),
            "timers": { "running": 0, "pending": 0 },
        }),
    )
}

/// Settings under Kong's names.
fn configuration(control: &Control) -> Value {
    let settings = &control.options.data_plane;
    let addresses = control.addresses.get().cloned().unwrap_or_default();
    let streams = [addresses.stream, addresses.datagrams].concat();
    let trusted: Vec<String> = settings.trusted.iter().map(ToString::to_string).collect();
    json!({
        "database": "off",
        "role": "traditional",
        "router_flavor": settings.flavor,
        "proxy_listen": addresses.proxy,
        "stream_listen": streams,
        "admin_listen": addresses.admin,
        "status_listen": addresses.status,
        "nginx_worker_processes": control.options.workers,
        "log_level": control.log.level(),
        "trusted_ips": trusted,
        "real_ip_header": settings.real_ip.as_str(),
        "real_ip_recursive": settings.real_ip_recursive,
        "upstream_keepalive_pool_size": settings.pool.size,
        "upstream_keepalive_max_requests": settings.pool.max_requests,
        "upstream_keepalive_idle_timeout": settings.pool.idle_timeout_ms / 1000,
        "client_max_body_size": settings.limits.body_bytes,
        "allow_debug_header": settings.allow_debug_header,
    })
}

/// `GET /endpoints`.
pub(crate) fn endpoints() -> ApiResponse {
    let fixed = [
        "/",
        "/config",
        "/debug/node/log-level",
        "/endpoints",
        "/metrics",
        "/plugins/enabled",
        "/plugins/filters",
        "/schemas/{entity}",
        "/schemas/plugins/{plugin}",
        "/status",
        "/status/ready",
        "/upstreams/{upstream}/health",
        "/upstreams/{upstream}/targets/{target}/healthy",
        "/upstreams/{upstream}/targets/{target}/unhealthy",
        "/upstreams/{upstream}/targets/{target}/{address}/healthy",
        "/upstreams/{upstream}/targets/{target}/{address}/unhealthy",
    ];
    let mut paths: Vec<String> = fixed.into_iter().map(str::to_owned).collect();
    for kind in KINDS {
        paths.extend([format!("/{}", kind.path), format!("/{}/{{{}}}", kind.path, kind.name)]);
    }
    paths.sort_unstable();
    ApiResponse::json(StatusCode::OK, &json!({ "data": paths }))
}

/// `GET /plugins/enabled`.
pub(crate) fn enabled_plugins(control: &Control) -> ApiResponse {
    let names = control.reloader.compiler().plugins.plugin_names();
    ApiResponse::json(StatusCode::OK, &json!({ "enabled_plugins": names }))
}

/// `GET /plugins/filters`: the Wasm filters there are, what is in use of them, and in what state.
pub(crate) fn filters(control: &Control) -> ApiResponse {
    let filters = control.reloader.compiler().filters.as_ref().map(|host| host.status()).unwrap_or_default();
    ApiResponse::json(StatusCode::OK, &json!({ "data": filters }))
}

/// `GET /schemas/{entity}`.
pub(crate) fn entity_schema(kind: &str) -> ApiResponse {
    match gateward_config::entity_schema(kind) {
        Some(schema) => ApiResponse::json(StatusCode::OK, &schema_to_json(schema)),
        None => ApiResponse::message(StatusCode::NOT_FOUND, &format!("No entity named '{kind}'")),
    }
}

/// `GET /schemas/plugins/{name}`.
pub(crate) fn plugin_schema(control: &Control, name: &str) -> ApiResponse {
    match control.reloader.compiler().plugins.config_schema(name) {
        Some(schema) => {
            let record = Schema::new([("config", Field::record(Schema::clone(&schema)).required())]);
            ApiResponse::json(StatusCode::OK, &schema_to_json(&record))
        }
        None => ApiResponse::message(StatusCode::NOT_FOUND, &format!("No plugin named '{name}'")),
    }
}

/// `GET /debug/node/log-level`.
pub(crate) fn log_level(control: &Control) -> ApiResponse {
    ApiResponse::message(StatusCode::OK, &format!("log level: {}", control.log.level()))
}

/// `PUT /debug/node/log-level/{level}`.
pub(crate) fn set_log_level(control: &Control, level: &str) -> ApiResponse {
    match LogLevel::parse(level) {
        Ok(level) => {
            control.log.set(level);
            tracing::info!(level = level.name, "log level changed");
            ApiResponse::message(StatusCode::OK, "log level changed")
        }
        Err(error) => ApiResponse::message(StatusCode::BAD_REQUEST, &error),
    }
}
