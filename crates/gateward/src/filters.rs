//! Wasm filters of the node: the host they run in, what they may call, and what operators see of them.

use crate::egress::Egress;
use crate::settings::WasmOptions;
use anyhow::{Context, Result};
use gateward_telemetry::{ExtraMetric, catalog};
use gateward_wasm::callout::{HttpCall, HttpReply};
use gateward_wasm::plugin::{Carrier, Destination, WasmHost};
use gateward_wasm::{FailureKind, Phase, Runtime, Services, Tracing};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

/// The host of the filters in the configured folder; `None`: filters are switched off.
///
/// # Errors
/// The folder or the cache cannot be used, or the engine does not start.
pub(crate) fn host(options: &WasmOptions, egress: &Arc<Egress>) -> Result<Option<Arc<WasmHost>>> {
    if !options.enabled {
        return Ok(None);
    }
    let folder =
        options.filters_path.clone().context("--wasm on needs --wasm-filters-path: the folder of the filters")?;
    std::fs::read_dir(&folder).with_context(|| format!("cannot read --wasm-filters-path {}", folder.display()))?;
    let services = Services::new(Arc::new(Tracing));
    let runtime = Runtime::new(services, options.cache_path.as_deref()).context("Wasm filters cannot be run")?;
    let carrier: Arc<dyn Carrier> = Arc::new(Carried(egress.clone()));
    Ok(Some(Arc::new(WasmHost::new(runtime, folder, carrier))))
}

/// Carries callouts over the node's own connections.
struct Carried(Arc<Egress>);

impl Carrier for Carried {
    fn http(
        &self,
        destination: Destination,
        call: HttpCall,
        most: usize,
    ) -> Pin<Box<dyn Future<Output = HttpReply> + Send>> {
        let egress = self.0.clone();
        Box::pin(async move {
            let reply = egress.call(&destination.host, destination.port, call, most).await;
            reply.unwrap_or_else(HttpReply::failure)
        })
    }
}

/// What filters counted, and the metrics they define.
pub(crate) fn metrics(host: &WasmHost) -> Vec<ExtraMetric> {
    let mut calls = ExtraMetric::of(&catalog::WASM_CALLS);
    let mut failures = ExtraMetric::of(&catalog::WASM_FAILURES);
    let mut memory = ExtraMetric::of(&catalog::WASM_MEMORY);
    let mut instances = ExtraMetric::of(&catalog::WASM_INSTANCES);
    let mut time = ExtraMetric::of(&catalog::WASM_TIME);
    let mut by_name = BTreeMap::new();
    for filter in host.filters() {
        by_name.entry(filter.config().name.clone()).or_insert_with(Vec::new).push(filter.totals());
    }
    for (name, totals) in &by_name {
        let name = name.as_str();
        for (index, phase) in Phase::ALL.iter().enumerate() {
            let called: u64 = totals.iter().map(|totals| totals.calls[index]).sum();
            if called > 0 {
                let us: u64 = totals.iter().map(|totals| totals.time_us[index]).sum();
                calls = calls.sample(&[("filter", name), ("phase", phase.as_str())], called as f64);
                time = time.sample(&[("filter", name), ("phase", phase.as_str())], us as f64 / 1e6);
            }
        }
        for (index, kind) in FailureKind::ALL.iter().enumerate() {
            let failed: u64 = totals.iter().map(|totals| totals.failures[index]).sum();
            failures = failures.sample(&[("filter", name), ("kind", kind.as_str())], failed as f64);
        }
        let sum = |of: fn(&gateward_wasm::observe::Totals) -> u64| totals.iter().map(of).sum::<u64>() as f64;
        memory = memory.sample(&[("filter", name)], sum(|totals| totals.memory_bytes));
        instances = instances.sample(&[("filter", name)], sum(|totals| totals.instances));
    }
    let mut own = ExtraMetric::of(&catalog::WASM_OWN);
    for metric in host.runtime().services().metrics.all() {
        own = own.sample(&[("name", &metric.name)], metric.value() as f64);
    }
    vec![calls, time, failures, memory, instances, own]
}
