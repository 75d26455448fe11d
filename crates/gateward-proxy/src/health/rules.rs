//! The health rules of an upstream, taken out of its entity: Kong's `healthchecks`, and what Gateward adds.

use crate::plan::UpstreamPlan;
use gateward_balance::{HealthLimits, OutlierRules, SlowStart};
use gateward_net::tls::Client;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Everything that decides when a target of one upstream is used.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rules {
    /// Percent of the weight that must be available for the upstream to be; 0: any.
    pub(crate) threshold: f64,
    /// Checks that the gateway makes itself; `None`: none.
    pub(crate) active: Option<Active>,
    /// What requests tell; `None`: nothing.
    pub(crate) passive: Option<Judgement>,
    pub(crate) outlier: Option<Outlier>,
    pub(crate) slow_start: Option<SlowStart>,
}

/// Outlier detection, and how often rates are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outlier {
    pub(crate) rules: OutlierRules,
    pub(crate) interval: Duration,
}

/// Which statuses say what, and how many of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judgement {
    pub(crate) limits: HealthLimits,
    /// Statuses count; not where only connections do (`type: tcp`).
    pub(crate) by_status: bool,
    pub(crate) healthy: Vec<u16>,
    pub(crate) unhealthy: Vec<u16>,
}

/// How a target is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A connection is enough.
    Tcp,
    /// A GET, judged by its status.
    Http,
    /// A call of gRPC's health service.
    Grpc,
}

/// How a target is asked over TLS.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CheckTls {
    pub(crate) client: Arc<Client>,
    /// Server name, if it is not the host that is asked for.
    pub(crate) name: Option<String>,
}

/// Active checks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Active {
    pub(crate) judgement: Judgement,
    pub(crate) probe: Probe,
    /// Over TLS.
    pub(crate) tls: Option<CheckTls>,
    pub(crate) timeout: Duration,
    /// Targets asked at the same time.
    pub(crate) concurrency: usize,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    /// `Host` to send instead of the target's.
    pub(crate) host_header: Option<String>,
    /// How often healthy and unhealthy targets are asked; `None`: never.
    pub(crate) healthy_every: Option<Duration>,
    pub(crate) unhealthy_every: Option<Duration>,
}

impl Rules {
    /// The rules of `upstream`, whose fields have been validated and have their defaults.
    pub(crate) fn of(upstream: &UpstreamPlan) -> Self {
        let checks = &upstream.entity.healthchecks.0;
        let resilience = upstream.entity.resilience.as_ref();
        let passive = judgement(&checks["passive"]);
        Self {
            threshold: checks["threshold"].as_f64().unwrap_or(0.0),
            active: active(&checks["active"], upstream),
            passive: passive.limits.any().then_some(passive),
            outlier: resilience.and_then(|rules| rules.outlier_detection).map(outlier),
            slow_start: resilience.and_then(|rules| rules.slow_start).map(|slow| SlowStart {
                window_us: micros(slow.window),
                aggression: slow.aggression,
                min_weight_percent: slow.min_weight_percent,
            }),
        }
    }

    /// Whether anything could make a target unhealthy: Kong says `HEALTHCHECKS_OFF` otherwise
    /// (kong/runloop/balancer/healthcheckers.lua, `is_upstream_using_healthcheck`).
    pub(crate) fn is_checked(&self) -> bool {
        let passive = self.passive.as_ref().is_some_and(|passive| passive.limits.any_failures());
        self.active.is_some() || passive || self.outlier.is_some()
    }
}

fn active(checks: &Value, upstream: &UpstreamPlan) -> Option<Active> {
    let every = |kind: &str| checks[kind]["interval"].as_f64().filter(|seconds| *seconds > 0.0).map(seconds);
    let (healthy_every, unhealthy_every) = (every("healthy"), every("unhealthy"));
    healthy_every.or(unhealthy_every)?;
    let mut headers = Vec::new();
    for (name, values) in checks["headers"].as_object().into_iter().flatten() {
        for value in values.as_array().into_iter().flatten().filter_map(Value::as_str) {
            headers.push((name.clone(), value.to_owned()));
        }
    }
    Some(Active {
        judgement: judgement(checks),
        probe: match checks["type"].as_str() {
            Some("tcp") => Probe::Tcp,
            Some("grpc" | "grpcs") => Probe::Grpc,
            _ => Probe::Http,
        },
        tls: upstream
            .check_tls
            .clone()
            .map(|client| CheckTls { client, name: checks["https_sni"].as_str().map(str::to_owned) }),
        timeout: seconds(checks["timeout"].as_f64().unwrap_or(1.0).max(0.001)),
        concurrency: checks["concurrency"].as_u64().unwrap_or(10).clamp(1, 1_000) as usize,
        path: checks["http_path"].as_str().unwrap_or("/").to_owned(),
        headers,
        host_header: upstream.entity.host_header.clone(),
        healthy_every,
        unhealthy_every,
    })
}

fn judgement(checks: &Value) -> Judgement {
    let count = |kind: &str, name: &str| checks[kind][name].as_u64().unwrap_or(0) as u32;
    let statuses = |kind: &str| {
        let list = checks[kind]["http_statuses"].as_array();
        list.into_iter().flatten().filter_map(|status| u16::try_from(status.as_u64()?).ok()).collect()
    };
    Judgement {
        limits: HealthLimits {
            successes: count("healthy", "successes"),
            http_failures: count("unhealthy", "http_failures"),
            tcp_failures: count("unhealthy", "tcp_failures"),
            timeouts: count("unhealthy", "timeouts"),
        },
        by_status: checks["type"] != "tcp",
        healthy: statuses("healthy"),
        unhealthy: statuses("unhealthy"),
    }
}

fn outlier(fields: gateward_model::OutlierDetection) -> Outlier {
    Outlier {
        rules: OutlierRules {
            consecutive_failures: fields.consecutive_failures,
            consecutive_gateway_failures: fields.consecutive_gateway_failures,
            stdev_factor: fields.success_rate_stdev_factor,
            minimum_hosts: fields.minimum_hosts as usize,
            request_volume: u64::from(fields.request_volume),
            base_ejection_us: micros(fields.base_ejection_time),
            max_ejection_us: micros(fields.max_ejection_time),
            max_ejection_percent: fields.max_ejection_percent,
        },
        interval: seconds(fields.interval),
    }
}

fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value.clamp(0.0, 1e9))
}

fn micros(value: f64) -> u64 {
    seconds(value).as_micros() as u64
}
