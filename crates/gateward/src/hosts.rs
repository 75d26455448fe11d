//! Plugins in other languages: the hosts they run in, as one.

use crate::callouts::Callouts;
use crate::control::Identity;
use crate::filters;
use crate::settings::{Options, WasmOptions};
use crate::statistics::statistics;
use anyhow::{Result, ensure};
use gateward_lua::{LuaHost, LuaOptions, NodeFacts, TIME_BOUNDS_NS};
use gateward_net::dns::Names;
use gateward_net::tls::Context;
use gateward_plugin::{Hosts, PluginHost};
use gateward_telemetry::{ExtraMetric, Telemetry, catalog};
use gateward_wasm::plugin::WasmHost;
use serde_json::json;
use std::sync::Arc;

/// The hosts of a process.
pub(crate) struct PluginHosts {
    /// All of them; Lua before Wasm.
    pub(crate) all: Arc<dyn PluginHost>,
    /// Of Lua plugins.
    pub(crate) lua: Arc<LuaHost>,
    /// Of Wasm filters, if they are switched on.
    pub(crate) wasm: Option<Arc<WasmHost>>,
}

/// What connections of plugins stand on.
pub(crate) struct Network {
    pub(crate) names: Arc<Names>,
    pub(crate) tls: Arc<Context>,
}

/// What Lua plugins get to know about this node: `kong.node`, `kong.configuration`, whom `kong.ip` trusts.
pub(crate) fn facts(identity: &Identity, options: &Options, telemetry: &Arc<Telemetry>) -> NodeFacts {
    let telemetry = telemetry.clone();
    let trusted = options.data_plane.trusted.clone();
    let configuration = json!({
        "database": "off",
        "log_level": options.log_level.name,
        "node_id": identity.node_id,
        "nginx_worker_processes": options.workers,
        "plugins": options.lua.enabled,
        "port_maps": [],
        "real_ip_recursive": options.data_plane.real_ip_recursive,
        "role": "traditional",
        "router_flavor": options.data_plane.flavor,
        "trusted_ips": trusted.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    NodeFacts {
        node_id: identity.node_id.clone(),
        hostname: identity.hostname.clone(),
        trusted,
        configuration: configuration.as_object().cloned().unwrap_or_default(),
        statistics: Some(Arc::new(move || statistics(&telemetry))),
    }
}

/// Set up what the options ask for, for this many workers.
///
/// # Errors
/// A folder cannot be read, or a plugin that was named is not there.
pub(crate) fn set_up(
    lua: &LuaOptions,
    wasm: &WasmOptions,
    callouts: &Arc<Callouts>,
    network: Network,
    workers: usize,
) -> Result<PluginHosts> {
    let wasm = filters::host(wasm, callouts, workers)?;
    let lua_host = Arc::new(LuaHost::new(lua.clone()).on_network(network.names, network.tls));
    let mut hosts: Vec<Arc<dyn PluginHost>> = vec![lua_host.clone()];
    let known = |name: &&String| !hosts.iter().any(|host| host.has(name));
    let missing: Vec<&str> = lua.enabled.iter().flatten().filter(known).map(String::as_str).collect();
    ensure!(
        missing.is_empty(),
        "--plugins names {}, which no folder of --plugins-dir or --lua-package-path has: looked for kong/plugins/NAME/handler.lua",
        missing.join(", ")
    );
    hosts.extend(wasm.clone().map(|host| host as Arc<dyn PluginHost>));
    Ok(PluginHosts { all: Arc::new(Hosts::new(hosts)), lua: lua_host, wasm })
}

/// What Lua plugins counted, how long they ran, and what their machines use.
pub(crate) fn lua_metrics(host: &LuaHost) -> Vec<ExtraMetric> {
    let mut calls = ExtraMetric::of(&catalog::LUA_CALLS);
    let mut errors = ExtraMetric::of(&catalog::LUA_ERRORS);
    let mut stopped = ExtraMetric::of(&catalog::LUA_STOPPED);
    let mut time = ExtraMetric::of(&catalog::LUA_TIME);
    for plugin in host.totals() {
        for (phase, called, failed) in &plugin.phases {
            let labels = [("plugin", plugin.name.as_str()), ("phase", *phase)];
            calls = calls.sample(&labels, *called as f64);
            errors = errors.sample(&labels, *failed as f64);
        }
        for (phase, [times @ .., beyond], ns) in plugin.times {
            let labels = [("plugin", plugin.name.as_str()), ("phase", phase)];
            let buckets = TIME_BOUNDS_NS.iter().map(|bound| *bound as f64 / 1e9).zip(times).collect();
            time = time.histogram(&labels, buckets, beyond, ns as f64 / 1e9);
        }
        stopped = stopped.sample(&[("plugin", &plugin.name)], plugin.stopped as f64);
    }
    let machines = host.memory_bytes().into_iter().enumerate();
    let memory = machines.fold(ExtraMetric::of(&catalog::LUA_MEMORY), |memory, (number, bytes)| {
        memory.sample(&[("machine", &number.to_string())], bytes as f64)
    });
    let mut metrics = vec![calls, errors, stopped, memory];
    // Of a histogram there is nothing to show before there is one.
    metrics.extend(Some(time).filter(|time| !time.histograms.is_empty()));
    metrics
}
