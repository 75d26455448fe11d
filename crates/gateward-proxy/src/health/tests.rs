//! Health by the rules, without a network: reports go in, states come out.

use super::*;
use crate::Settings;
use crate::testing::plan;
use gateward_telemetry::{Limits, Telemetry};

/// A registry and its upstream `u` with these fields and targets.
fn follow(registry: &HealthRegistry, fields: &str, targets: &[(&str, u16)], generation: u64) -> Arc<UpstreamHealth> {
    let telemetry = Telemetry::new(1, Limits::default());
    let targets: Vec<String> =
        targets.iter().map(|(target, weight)| format!("{{target: '{target}', weight: {weight}}}")).collect();
    let config =
        format!("_format_version: '3.0'\nupstreams:\n- {{name: u, {fields}, targets: [{}]}}\n", targets.join(", "));
    // Compiling a plan gives its plugins a place in the background.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    let plan = plan(&config, generation, &Settings::default(), &telemetry);
    registry.follow(&plan);
    registry.upstream(plan.upstreams[0].entity.id).expect("it is followed")
}

const PASSIVE: &str = "healthchecks: {passive: {unhealthy: {http_failures: 2, tcp_failures: 1, timeouts: 3}}}";

fn report(upstream: &UpstreamHealth, name: &str, attempt: Attempt) {
    upstream.report(&upstream.health_of(name, 0).unwrap(), name, attempt);
}

fn turns(registry: &HealthRegistry, turned: Turned, reason: Reason) -> u64 {
    registry.turns().find(|(side, why, _)| (*side, *why) == (turned, reason)).unwrap().2
}

#[test]
fn requests_tell_by_status_failure_and_timeout() {
    let registry = HealthRegistry::new(None);
    let upstream = follow(&registry, PASSIVE, &[("10.0.0.1:1", 1), ("10.0.0.2:1", 1), ("10.0.0.3:1", 1)], 1);
    for attempt in [Attempt::Status(503), Attempt::Status(404), Attempt::Status(500)] {
        assert_eq!(upstream.state("10.0.0.1:1"), Some(TargetState::Healthy));
        report(&upstream, "10.0.0.1:1", attempt);
    }
    report(&upstream, "10.0.0.2:1", Attempt::Broken);
    for _ in 0..3 {
        assert_eq!(upstream.state("10.0.0.3:1"), Some(TargetState::Healthy));
        report(&upstream, "10.0.0.3:1", Attempt::Late);
    }
    assert_eq!(
        ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(|name| upstream.state(name)),
        [Some(TargetState::Unhealthy); 3]
    );
    assert_eq!(turns(&registry, Turned::Unhealthy, Reason::Passive), 3);
    assert_eq!(upstream.is_available(), Some(false));
}

#[test]
fn nothing_is_counted_where_nothing_is_configured() {
    let registry = HealthRegistry::new(None);
    let upstream = follow(&registry, "slots: 10", &[("10.0.0.1:1", 1)], 1);
    for _ in 0..1_000 {
        report(&upstream, "10.0.0.1:1", Attempt::Broken);
    }
    assert_eq!(upstream.state("10.0.0.1:1"), Some(TargetState::Off));
    assert_eq!(upstream.is_available(), None);
    assert!(upstream.set("10.0.0.1:1", None, false) && !upstream.set("10.0.0.9:1", None, false));
    assert_eq!(upstream.state("10.0.0.1:1"), Some(TargetState::Unhealthy), "an operator's word counts all the same");
}

#[test]
fn what_is_known_survives_every_change_of_the_configuration() {
    let registry = HealthRegistry::new(None);
    let first = follow(&registry, PASSIVE, &[("10.0.0.1:1", 1), ("10.0.0.2:1", 1)], 1);
    report(&first, "10.0.0.1:1", Attempt::Broken);
    // A target more, another weight, another order, other checks; then back again.
    let more = follow(&registry, PASSIVE, &[("10.0.0.3:1", 1), ("10.0.0.2:1", 7), ("10.0.0.1:1", 9)], 2);
    let all = |upstream: &UpstreamHealth| ["10.0.0.1:1", "10.0.0.2:1"].map(|name| upstream.state(name));
    assert_eq!(all(&more), [Some(TargetState::Unhealthy), Some(TargetState::Healthy)]);
    let other = follow(
        &registry,
        "healthchecks: {passive: {unhealthy: {timeouts: 9}}}",
        &[("10.0.0.2:1", 7), ("10.0.0.1:1", 9)],
        3,
    );
    assert_eq!(all(&other), [Some(TargetState::Unhealthy), Some(TargetState::Healthy)]);
    // A request that began under the first configuration reports to the same target.
    report(&first, "10.0.0.2:1", Attempt::Broken);
    assert_eq!(other.state("10.0.0.2:1"), Some(TargetState::Unhealthy));
    // Nothing changed: not even the record does, so that checks go on.
    let again = follow(
        &registry,
        "healthchecks: {passive: {unhealthy: {timeouts: 9}}}",
        &[("10.0.0.2:1", 7), ("10.0.0.1:1", 9)],
        4,
    );
    assert!(Arc::ptr_eq(&other, &again));
    // A target that was gone is new when it comes back.
    follow(&registry, PASSIVE, &[("10.0.0.2:1", 1)], 5);
    let back = follow(&registry, PASSIVE, &[("10.0.0.2:1", 1), ("10.0.0.1:1", 1)], 6);
    assert_eq!(back.state("10.0.0.1:1"), Some(TargetState::Healthy));
}

#[test]
fn at_the_threshold_or_below_the_upstream_is_unavailable() {
    let registry = HealthRegistry::new(None);
    let fields = "healthchecks: {threshold: 50, passive: {unhealthy: {tcp_failures: 1}}}";
    let upstream =
        follow(&registry, fields, &[("10.0.0.1:1", 40), ("10.0.0.2:1", 40), ("10.0.0.3:1", 10), ("10.0.0.4:1", 10)], 1);
    report(&upstream, "10.0.0.1:1", Attempt::Broken);
    assert_eq!((upstream.is_short(), upstream.is_available()), (false, Some(true)));
    report(&upstream, "10.0.0.3:1", Attempt::Broken);
    assert_eq!((upstream.is_short(), upstream.is_available()), (true, Some(false)), "50 % are left");
    upstream.set("10.0.0.3:1", None, true);
    assert_eq!((upstream.is_short(), upstream.is_available()), (false, Some(true)));
}

#[test]
fn what_is_learnt_under_an_earlier_configuration_counts_for_the_threshold_now() {
    let registry = HealthRegistry::new(None);
    let fields = "healthchecks: {threshold: 40, passive: {unhealthy: {tcp_failures: 1}}}";
    let first = follow(&registry, fields, &[("10.0.0.1:1", 50), ("10.0.0.2:1", 50)], 1);
    let second = follow(&registry, fields, &[("10.0.0.1:1", 50), ("10.0.0.2:1", 50), ("10.0.0.3:1", 50)], 2);
    report(&first, "10.0.0.1:1", Attempt::Broken);
    assert_eq!((first.is_short(), second.is_short()), (false, false), "of three, two are left");
    report(&first, "10.0.0.2:1", Attempt::Broken);
    assert_eq!((first.is_short(), second.is_short()), (true, true));
    let third = follow(&registry, fields, &[("10.0.0.1:1", 50), ("10.0.0.2:1", 50), ("10.0.0.3:1", 500)], 3);
    assert_eq!((third.is_short(), second.is_short()), (false, false), "weights are those of today");
}

/// Kong#7652, #7835, #10003: changing targets made all of them healthy.
#[test]
fn neither_adding_nor_removing_nor_updating_makes_anybody_healthy() {
    let registry = HealthRegistry::new(None);
    let first = follow(&registry, PASSIVE, &[("10.0.0.1:1", 1), ("10.0.0.2:1", 1), ("10.0.0.3:1", 1)], 1);
    report(&first, "10.0.0.1:1", Attempt::Broken);
    report(&first, "10.0.0.2:1", Attempt::Broken);
    for (generation, targets) in [
        vec![("10.0.0.1:1", 1), ("10.0.0.3:1", 1)],
        vec![("10.0.0.1:1", 1), ("10.0.0.3:1", 1), ("10.0.0.4:1", 1)],
        vec![("10.0.0.1:1", 2), ("10.0.0.3:1", 1)],
    ]
    .iter()
    .enumerate()
    {
        for fields in [PASSIVE.to_owned(), format!("{PASSIVE}, slots: 77"), format!("{PASSIVE}, algorithm: latency")] {
            let now = follow(&registry, &fields, targets, generation as u64 + 2);
            assert_eq!(now.state("10.0.0.1:1"), Some(TargetState::Unhealthy), "{fields}");
            assert_eq!(now.state("10.0.0.3:1"), Some(TargetState::Healthy));
        }
    }
    assert_eq!(turns(&registry, Turned::Healthy, Reason::Configuration), 0);
}

/// Kong#7473, #3499: a target stayed out until a restart, because what had taken it out was gone.
#[test]
fn switching_checks_off_brings_back_whom_they_took_out() {
    let registry = HealthRegistry::new(None);
    let first = follow(&registry, PASSIVE, &[("10.0.0.1:1", 1), ("10.0.0.2:1", 1)], 1);
    report(&first, "10.0.0.1:1", Attempt::Broken);
    let off = follow(&registry, "slots: 10", &[("10.0.0.1:1", 1), ("10.0.0.2:1", 1)], 2);
    assert_eq!(off.state("10.0.0.1:1"), Some(TargetState::Off));
    assert_eq!(turns(&registry, Turned::Healthy, Reason::Configuration), 1);
    // An operator's word was not theirs, and stays.
    off.set("10.0.0.2:1", None, false);
    let still = follow(&registry, "slots: 11", &[("10.0.0.1:1", 1), ("10.0.0.2:1", 1)], 3);
    assert_eq!(still.state("10.0.0.2:1"), Some(TargetState::Unhealthy));
}

#[test]
fn switching_detection_off_lets_everybody_back() {
    let registry = HealthRegistry::new(None);
    let fields = "resilience: {outlier_detection: {consecutive_failures: 1, max_ejection_percent: 50}}";
    let first = follow(&registry, fields, &[("10.0.0.1:1", 1), ("10.0.0.2:1", 1)], 1);
    report(&first, "10.0.0.1:1", Attempt::Broken);
    assert_eq!(first.state("10.0.0.1:1"), Some(TargetState::Unhealthy));
    assert!(first.next_return().is_some());
    // Another rule keeps it out, for as long as was said.
    let other = fields.replace("50", "60");
    let second = follow(&registry, &other, &[("10.0.0.2:1", 1), ("10.0.0.1:1", 1)], 2);
    assert_eq!((second.state("10.0.0.1:1"), second.next_return()), (Some(TargetState::Unhealthy), first.next_return()));
    let off = follow(&registry, PASSIVE, &[("10.0.0.1:1", 1), ("10.0.0.2:1", 1)], 3);
    assert_eq!(off.state("10.0.0.1:1"), Some(TargetState::Healthy));
}

#[test]
fn an_ejection_does_not_count_against_the_threshold_but_yields_to_an_operator() {
    let registry = HealthRegistry::new(None);
    let fields = "healthchecks: {threshold: 60, passive: {unhealthy: {http_failures: 9}}}, \
        resilience: {outlier_detection: {consecutive_failures: 1, max_ejection_percent: 50}}";
    let upstream = follow(&registry, fields, &[("10.0.0.1:1", 1), ("10.0.0.2:1", 1)], 1);
    report(&upstream, "10.0.0.1:1", Attempt::Status(500));
    assert_eq!(upstream.state("10.0.0.1:1"), Some(TargetState::Unhealthy));
    assert_eq!(upstream.is_available(), Some(true));
    upstream.set("10.0.0.1:1", None, true);
    assert_eq!(upstream.state("10.0.0.1:1"), Some(TargetState::Healthy));
}

#[test]
fn statuses_do_not_count_where_only_connections_do() {
    let registry = HealthRegistry::new(None);
    let fields = "healthchecks: {passive: {type: tcp, unhealthy: {http_failures: 1, tcp_failures: 1}}}";
    let upstream = follow(&registry, fields, &[("10.0.0.1:1", 1)], 1);
    report(&upstream, "10.0.0.1:1", Attempt::Status(500));
    assert_eq!(upstream.state("10.0.0.1:1"), Some(TargetState::Healthy));
}

#[test]
fn failures_in_a_row_eject_a_bounded_share() {
    let registry = HealthRegistry::new(None);
    let fields =
        "resilience: {outlier_detection: {consecutive_failures: 2, base_ejection_time: 0.1, max_ejection_percent: 50}}";
    let upstream = follow(&registry, fields, &[("10.0.0.1:1", 1), ("10.0.0.2:1", 1)], 1);
    for attempt in [Attempt::Status(502), Attempt::Status(200), Attempt::Late] {
        report(&upstream, "10.0.0.1:1", attempt);
    }
    assert_eq!(upstream.state("10.0.0.1:1"), Some(TargetState::Healthy));
    report(&upstream, "10.0.0.1:1", Attempt::Broken);
    assert_eq!(upstream.state("10.0.0.1:1"), Some(TargetState::Unhealthy));
    for _ in 0..9 {
        report(&upstream, "10.0.0.2:1", Attempt::Broken);
    }
    assert_eq!(upstream.state("10.0.0.2:1"), Some(TargetState::Healthy), "the last one stays");
    assert_eq!(turns(&registry, Turned::Unhealthy, Reason::Outlier), 1);
}
