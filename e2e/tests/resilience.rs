//! `examples/resilience`: what each protection is worth, asserted.
//!
//! The load fails by count, so the bounds are narrow where a protection is off; only a machine that stalls for seconds
//! could add failures of its own.

use gateward_e2e::resilience;

#[track_caller]
fn between(table: &resilience::Table, row: &str, least: f64, most: f64) {
    let success = table.row(row).success();
    assert!((least..=most).contains(&success), "{row}: {success:.2} % is not within {least} and {most}\n{table}");
}

#[test]
fn load_each_protection_adds_to_the_success_rate() {
    let table = resilience::mixed_faults();
    println!("{table}");
    between(&table, "no protections", 96.2, 96.4);
    between(&table, "Kong's retries alone", 97.5, 98.5);
    between(&table, "all protections", 99.99, 100.0);
    between(&table, "all but retries", 96.3, 97.5);
    between(&table, "all but retry_on_statuses", 98.5, 99.8);
    // Either is enough for a single slow target; hedging answers sooner.
    between(&table, "all but per_try_timeout", 99.9, 100.0);
    between(&table, "all but hedging", 99.9, 100.0);
    between(&table, "all but per_try_timeout and hedging", 97.5, 99.5);
    between(&table, "all but outlier_detection", 99.9, 100.0);
    between(&table, "all but retry_budget and circuit_breaker", 99.9, 100.0);
    let repeats = table.row("all protections").repeats;
    assert!(repeats < table.row("all protections").requests / 5, "{table}");
}

#[test]
fn load_a_budget_keeps_retries_from_making_an_outage_worse() {
    let table = resilience::total_outage();
    println!("{table}");
    let (without, with) = (table.row("without retry_budget"), table.row("with retry_budget"));
    assert_eq!((without.ok, with.ok), (0, 0), "{table}");
    assert_eq!(without.repeats, 5 * without.requests, "{table}");
    assert!(with.repeats < without.repeats / 5 && with.over_budget > 0, "{table}");
}
