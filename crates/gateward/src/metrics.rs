//! `/metrics`: what the node's parts count, gathered into one exposition.

use crate::control::{Control, VERSION};
use gateward_model::Config;
use gateward_net::dns::Names;
use gateward_plugin::counter_store::{Decision, RedisStats};
use gateward_plugin::{PluginStats, StoreError};
use gateward_proxy::{HealthRegistry, TargetState, Turned};
use gateward_telemetry::catalog;
use gateward_telemetry::{ExtraMetric, NodeInfo, process, prometheus};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// States of a target, as Kong names them.
const TARGET_STATES: [&str; 4] = ["healthchecks_off", "healthy", "unhealthy", "dns_error"];

/// The text of a scrape. Reads a few small files: call it off the workers.
pub(crate) fn exposition(control: &Control) -> String {
    let node = control.node();
    let plan = node.plan();
    let mut extra = process::metrics();
    extra.extend(node.access_log.iter().flat_map(gateward_telemetry::AccessLog::metrics));
    let env = &control.reloader.compiler().env;
    extra.extend(plugin_metrics(&env.stats, env.counters.evictions()));
    extra.extend(redis_metrics(&env.stats.redis));
    extra.extend(control.reloader.compiler().filters.iter().flat_map(|host| crate::filters::metrics(host)));
    extra.extend(control.reloader.compiler().lua.iter().flat_map(|host| crate::hosts::lua_metrics(host)));
    extra.extend(target_health(&plan.snapshot.config, &node.health));
    extra.push(health_turns(&node.health));
    extra.extend(names(&node.names));
    let info = NodeInfo {
        version: VERSION.to_owned(),
        hostname: control.identity.hostname.clone(),
        node_id: control.identity.node_id.clone(),
        configuration_hash: plan.snapshot.hash.clone(),
        generation: plan.snapshot.generation,
        extra,
    };
    let mut out = String::with_capacity(64 << 10);
    prometheus::render(&node.telemetry.snapshot(), &info, &mut out);
    out
}

fn plugin_metrics(stats: &PluginStats, evictions: u64) -> impl Iterator<Item = ExtraMetric> {
    let counters = [
        (&catalog::LOG_ENTRIES_DELIVERED, stats.log_entries_delivered.load(Relaxed)),
        (&catalog::LOG_ENTRIES_DROPPED, stats.log_entries_dropped.load(Relaxed)),
        (&catalog::LOG_ENTRIES_FAILED, stats.log_entries_failed.load(Relaxed)),
        (&catalog::LOG_BATCHES_FAILED, stats.log_batches_failed.load(Relaxed)),
        (&catalog::RATE_LIMIT_EVICTIONS, evictions),
    ];
    counters.into_iter().map(|(metric, value)| ExtraMetric::of(metric).sample(&[], value as f64))
}

fn redis_metrics(stats: &RedisStats) -> [ExtraMetric; 5] {
    let labelled = |metric, label, labels: &[&str], values: &[AtomicU64]| {
        labels.iter().zip(values).fold(ExtraMetric::of(metric), |metric, (value, count)| {
            metric.sample(&[(label, value)], count.load(Relaxed) as f64)
        })
    };
    let single = |metric, value: f64| ExtraMetric::of(metric).sample(&[], value);
    [
        labelled(&catalog::RATE_LIMIT_REDIS_DECISIONS, "outcome", &Decision::OUTCOMES, &stats.decisions),
        labelled(&catalog::REDIS_ERRORS, "reason", &StoreError::REASONS, &stats.errors),
        single(&catalog::RATE_LIMIT_REDIS_UNCOUNTED, stats.uncounted.load(Relaxed) as f64),
        single(&catalog::REDIS_ANSWERS, stats.answers.load(Relaxed) as f64),
        single(&catalog::REDIS_ANSWER_SECONDS, stats.answers_us.load(Relaxed) as f64 / 1e6),
    ]
}

/// Kong's gauge of target states, when a prometheus plugin asks for it.
fn target_health(config: &Config, health: &HealthRegistry) -> Option<ExtraMetric> {
    let asked = config.plugins.iter().any(|plugin| {
        plugin.name == "prometheus"
            && plugin.enabled
            && plugin.config.get("upstream_health_metrics") == Some(&Value::Bool(true))
    });
    if !asked || config.targets.is_empty() {
        return None;
    }
    let names: HashMap<_, _> = config.upstreams.iter().map(|upstream| (upstream.id, upstream.name.as_str())).collect();
    let mut metric = ExtraMetric::of(&catalog::KONG_UPSTREAM_TARGET_HEALTH);
    for target in &config.targets {
        let upstream = names.get(&target.upstream).copied().unwrap_or_default();
        let known = health.upstream(target.upstream);
        // A series for each address a name leads to, as in Kong.
        let mut states: Vec<(String, TargetState)> = known
            .iter()
            .flat_map(|upstream| upstream.addresses(&target.target))
            .map(|it| (it.address.to_string(), it.state))
            .collect();
        if states.is_empty() {
            let state = known.and_then(|upstream| upstream.state(&target.target)).unwrap_or(TargetState::Off);
            states.push((String::new(), state));
        }
        for (address, now) in states {
            let now = match now {
                TargetState::Off => "healthchecks_off",
                TargetState::Healthy => "healthy",
                TargetState::Unhealthy => "unhealthy",
                TargetState::Unresolved => "dns_error",
            };
            for state in TARGET_STATES {
                let labels = [
                    ("upstream", upstream),
                    ("target", target.target.as_str()),
                    ("address", address.as_str()),
                    ("state", state),
                    ("subsystem", "http"),
                ];
                metric = metric.sample(&labels, if state == now { 1.0 } else { 0.0 });
            }
        }
    }
    Some(metric)
}

fn health_turns(health: &HealthRegistry) -> ExtraMetric {
    let mut metric = ExtraMetric::of(&catalog::TARGET_HEALTH_TURNS);
    for (turned, reason, count) in health.turns() {
        let to = match turned {
            Turned::Healthy => "healthy",
            Turned::Unhealthy => "unhealthy",
        };
        metric = metric.sample(&[("to", to), ("reason", reason.label())], count as f64);
    }
    metric
}

/// Name resolution: look-ups by outcome, and names by what is known of them.
fn names(names: &Names) -> [ExtraMetric; 2] {
    let stats = names.stats();
    let outcomes = [
        ("found", &stats.found),
        ("not_found", &stats.not_found),
        ("failed", &stats.failed),
        ("failed_stale", &stats.stale),
        ("refused", &stats.refused),
    ];
    let look_ups = outcomes.into_iter().fold(ExtraMetric::of(&catalog::DNS_LOOKUPS), |metric, (outcome, count)| {
        metric.sample(&[("outcome", outcome)], count.load(Relaxed) as f64)
    });
    let counts = names.counts();
    let states =
        [("fresh", counts.fresh), ("stale", counts.stale), ("failed", counts.failed), ("pending", counts.pending)];
    let known = states.into_iter().fold(ExtraMetric::of(&catalog::DNS_NAMES), |metric, (state, count)| {
        metric.sample(&[("state", state)], count as f64)
    });
    [look_ups, known]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing;

    #[tokio::test]
    async fn one_scrape_holds_everything() {
        let control = testing::control(
            "_format_version: '3.0'\nupstreams:\n- name: pool\n  targets:\n  - target: 127.0.0.1:9\n  - target: a.example\n\
             plugins:\n- name: prometheus\n  config:\n    upstream_health_metrics: true\n",
        );
        let text = exposition(&control);
        for line in [
            "gateward_config_generation 1",
            "kong_datastore_reachable 1",
            "gateward_log_entries_dropped_total 0",
            "gateward_rate_limit_evictions_total 0",
            "gateward_rate_limit_redis_decisions_total{outcome=\"unchecked\"} 0",
            "gateward_redis_errors_total{reason=\"timeout\"} 0",
            "gateward_redis_answer_seconds_total 0",
            "kong_nginx_metric_errors_total 0",
            "kong_upstream_target_health{upstream=\"pool\",target=\"127.0.0.1:9\",address=\"127.0.0.1:9\",state=\"healthchecks_off\",subsystem=\"http\"} 1",
            "kong_upstream_target_health{upstream=\"pool\",target=\"a.example:8000\",address=\"\",state=\"healthy\",subsystem=\"http\"} 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes "));
    }
}
