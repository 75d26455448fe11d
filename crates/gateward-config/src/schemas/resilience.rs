//! The `resilience` record of upstreams: Gateward's own, Kong has no such field. What each part does is in
//! docs/guide/resilience.md.

use gateward_model::schema::{Check, Field, Schema};

/// Longest time of a single try or of the wait before another; milliseconds.
const MOST_MS: u32 = 3_600_000;

pub(super) fn resilience() -> Schema {
    let bound = || Field::integer().between(0, 1_000_000).default(0);
    let circuit_breaker =
        Schema::new([("max_connections", bound()), ("max_pending", bound()), ("max_requests", bound())]);
    let retry_budget = Schema::new([
        ("percent", Field::number().between(0, 100).default(20)),
        ("min_per_second", Field::integer().between(0, 100_000).default(10)),
    ]);
    let hedging = Schema::new([
        ("delay_ms", Field::integer().between(1, MOST_MS)),
        ("percentile", Field::number().between(50, 99.9)),
    ])
    .check(Check::AtLeastOneOf(vec!["delay_ms".into(), "percentile".into()]));
    let seconds = |least: f64, default: f64| Field::number().between(least, 86_400).default(default);
    let outlier_detection = Schema::new([
        ("consecutive_failures", Field::integer().between(0, 1_000).default(5)),
        ("consecutive_gateway_failures", Field::integer().between(0, 1_000).default(0)),
        ("success_rate_stdev_factor", Field::number().between(0, 10).default(0)),
        ("minimum_hosts", Field::integer().between(2, 10_000).default(5)),
        ("request_volume", Field::integer().between(1, 1_000_000).default(100)),
        ("interval", seconds(0.1, 10.0)),
        ("base_ejection_time", seconds(0.1, 30.0)),
        ("max_ejection_time", seconds(0.1, 300.0)),
        ("max_ejection_percent", Field::integer().between(1, 100).default(10)),
    ]);
    let slow_start = Schema::new([
        ("window", seconds(0.1, 30.0)),
        ("aggression", Field::number().between(0.1, 10).default(1)),
        ("min_weight_percent", Field::number().between(0, 100).default(10)),
    ]);
    Schema::new([
        ("circuit_breaker", Field::record(circuit_breaker)),
        ("retry_budget", Field::record(retry_budget)),
        ("per_try_timeout", Field::integer().between(1, MOST_MS)),
        ("hedging", Field::record(hedging)),
        ("outlier_detection", Field::record(outlier_detection)),
        ("slow_start", Field::record(slow_start)),
        ("retry_on_statuses", Field::set(Field::integer().between(500, 599))),
    ])
}
