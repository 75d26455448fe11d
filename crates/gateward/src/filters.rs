//! Wasm filters of the node: the host they run in, what they may call, and what operators see of them.

use crate::callouts::{ByNode, Callouts};
use crate::settings::WasmOptions;
use anyhow::{Context, Result};
use gateward_telemetry::{ExtraMetric, catalog};
use gateward_wasm::callout_stats::{CALLOUT_BOUNDS_MS, CalloutOutcome, CalloutProtocol};
use gateward_wasm::observe::{TIME_BOUNDS_NS, Times, Totals};
use gateward_wasm::plugin::{Carrier, WasmHost};
use gateward_wasm::{FailureKind, Phase, Runtime, Services, Tracing};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The host of the filters in the configured folder, which call out through `callouts` and serve this many workers; `None`: filters are switched off.
///
/// # Errors
/// The folder or the cache cannot be used, or the engine does not start.
pub(crate) fn host(options: &WasmOptions, callouts: &Arc<Callouts>, workers: usize) -> Result<Option<Arc<WasmHost>>> {
    if !options.enabled {
        return Ok(None);
    }
    let folder =
        options.filters_path.clone().context("--wasm on needs --wasm-filters-path: the folder of the filters")?;
    std::fs::read_dir(&folder).with_context(|| format!("cannot read --wasm-filters-path {}", folder.display()))?;
    let services = Services::new(Arc::new(Tracing));
    let runtime = Runtime::new(services, options.cache_path.as_deref()).context("Wasm filters cannot be run")?;
    let carrier: Arc<dyn Carrier> = Arc::new(ByNode(callouts.clone()));
    Ok(Some(Arc::new(WasmHost::new(runtime, folder, carrier).for_workers(workers))))
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
            let labels = [("filter", name), ("phase", phase.as_str())];
            if called > 0 {
                let ns: u64 = totals.iter().map(|totals| totals.time_ns[index]).sum();
                calls = calls.sample(&labels, called as f64);
                let [times @ .., beyond] = timed(totals, index);
                let buckets = TIME_BOUNDS_NS.iter().map(|bound| *bound as f64 / 1e9).zip(times).collect();
                time = time.histogram(&labels, buckets, beyond, ns as f64 / 1e9);
            }
            for (number, kind) in FailureKind::ALL.iter().enumerate() {
                let failed: u64 = totals.iter().map(|totals| totals.failures[index][number]).sum();
                // A series has to be there before its first failure, or no alert sees it rise.
                if failed > 0 || (called > 0 && *kind != FailureKind::Dead) {
                    failures = failures.sample(&[labels[0], labels[1], ("kind", kind.as_str())], failed as f64);
                }
            }
        }
        let sum = |of: fn(&Totals) -> u64| totals.iter().map(of).sum::<u64>() as f64;
        memory = memory.sample(&[("filter", name)], sum(|totals| totals.memory_bytes));
        instances = instances.sample(&[("filter", name)], sum(|totals| totals.instances));
    }
    let refused = |name: &str, protocol: CalloutProtocol| -> u64 {
        let totals = by_name.get(name).into_iter().flatten();
        totals.map(|totals| totals.callouts_refused[protocol as usize]).sum()
    };
    let [callouts, under_way, callout_seconds] = callout_metrics(host, refused);
    let mut own = ExtraMetric::of(&catalog::WASM_OWN);
    for metric in host.runtime().services().metrics.all() {
        own = own.sample(&[("name", &metric.name)], metric.value() as f64);
    }
    let mut metrics = vec![calls, failures, memory, instances, callouts, under_way, own];
    // Of a histogram there is nothing to show before there is one.
    metrics.extend([time, callout_seconds].into_iter().filter(|metric| !metric.histograms.is_empty()));
    metrics
}

/// Callouts by filter: how they ended, how many have not, and how long they took.
fn callout_metrics(host: &WasmHost, refused: impl Fn(&str, CalloutProtocol) -> u64) -> [ExtraMetric; 3] {
    let mut ended = ExtraMetric::of(&catalog::WASM_CALLOUTS);
    let mut under_way = ExtraMetric::of(&catalog::WASM_CALLOUTS_UNDER_WAY);
    let mut seconds = ExtraMetric::of(&catalog::WASM_CALLOUT_SECONDS);
    for (name, stats) in host.callouts() {
        for protocol in CalloutProtocol::ALL {
            let labels = [("filter", name.as_str()), ("protocol", protocol.label())];
            let [filter, of] = labels;
            for outcome in CalloutOutcome::ALL {
                ended =
                    ended.sample(&[filter, of, ("outcome", outcome.label())], stats.ended(protocol, outcome) as f64);
            }
            ended = ended.sample(&[filter, of, ("outcome", "refused")], refused(&name, protocol) as f64);
            under_way = under_way.sample(&labels, stats.under_way(protocol) as f64);
            if protocol != CalloutProtocol::GrpcStream {
                let [times @ .., beyond] = stats.times(protocol);
                let buckets = CALLOUT_BOUNDS_MS.iter().map(|bound| *bound as f64 / 1e3).zip(times).collect();
                seconds = seconds.histogram(&labels, buckets, beyond, stats.time_us(protocol) as f64 / 1e6);
            }
        }
    }
    [ended, under_way, seconds]
}

/// Timed calls of one phase by their time.
fn timed(totals: &[Totals], phase: usize) -> Times {
    let mut sum = Times::default();
    for totals in totals {
        for (sum, count) in sum.iter_mut().zip(totals.times[phase]) {
            *sum += count;
        }
    }
    sum
}
