//! Gateward's own record on upstreams: how requests are protected from targets that fail, and targets from requests.
//!
//! Kong's format has no field for it. The record and each of its parts are optional; a part that is absent is off.

use serde::{Deserialize, Serialize};

/// `resilience` of an upstream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Resilience {
    /// Bounds on what goes on at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How much of the traffic may be repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
    /// Milliseconds after which a try without a response head is given up for another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<u32>,
    /// A second try beside a slow first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedging: Option<Hedging>,
    /// Statuses of answers that are tried again like a failed connection, for idempotent methods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_on_statuses: Option<Vec<u16>>,
    /// Taking out targets that do worse than the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// A small share for new and returning targets first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,
}

/// When a target is taken out, and for how long. Times are in seconds, as in Kong's health checks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OutlierDetection {
    /// Failures in a row (5xx answers, broken connections, timeouts) that take a target out; 0: they do not.
    pub consecutive_failures: u32,
    /// Failures in a row to answer at all (502, 503, 504, broken connections, timeouts) that take a target out; 0:
    /// they do not by themselves.
    pub consecutive_gateway_failures: u32,
    /// Standard deviations below the mean success rate that take a target out; 0: rates are not compared.
    pub success_rate_stdev_factor: f64,
    /// Targets with enough requests that rates need to be compared.
    pub minimum_hosts: u32,
    /// Requests of an interval that make a target's rate count.
    pub request_volume: u32,
    /// Seconds between two comparisons.
    pub interval: f64,
    /// Seconds out, times how often it was taken out of late.
    pub base_ejection_time: f64,
    /// Seconds out, at most.
    pub max_ejection_time: f64,
    /// Percent of the targets that may be out at a time; one always may, the last never.
    pub max_ejection_percent: u32,
}

/// How the share of a new or returning target grows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SlowStart {
    /// Seconds until it has its full share.
    pub window: f64,
    /// 1: evenly; more: faster at the beginning; less: slower.
    pub aggression: f64,
    /// Least percent of its weight.
    pub min_weight_percent: f64,
}

/// Bounds per upstream and node; 0: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitBreaker {
    /// Connections open to its targets, idle ones included.
    pub max_connections: u32,
    /// Requests that wait for a connection or a place among `max_requests`; 0: none waits.
    pub max_pending: u32,
    /// Requests under way to its targets, every try by itself.
    pub max_requests: u32,
}

/// How many repeats are allowed: a share of the requests of the last ten seconds, or a few per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RetryBudget {
    /// Percent of recent requests, 0 to 100.
    pub percent: f64,
    /// Allowed in every second however few requests there are.
    pub min_per_second: u32,
}

/// When a second try starts; at least one of the two is set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Hedging {
    /// Milliseconds; with `percentile`, only until enough latencies are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u32>,
    /// Percentile of the upstream's recent latencies, 50 to 99.9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentile: Option<f64>,
}
