//! Balancing: which target of an upstream serves the next request.
//!
//! A [`Balancer`] is the state of one upstream on one worker. It is pure: health comes in as a closure, time as
//! a number of microseconds from any fixed origin, randomness from a seed. Nothing here locks, because a worker
//! is one thread; nothing here allocates per pick.
//!
//! | algorithm | choice | cost of a pick |
//! |---|---|---|
//! | round-robin | smooth weighted order, exact over each cycle | O(log of distinct weights) |
//! | least-connections | smallest `(in flight + 1) / weight` | O(n) up to 64 targets, then two random choices |
//! | consistent-hashing | slot table filled by weighted rendezvous hashing | O(1) once a slot is warm |
//! | latency | smallest `peak EWMA * (in flight + 1) / weight` | as least-connections |
//!
//! The algorithms' names and the meaning of weights (0 to 65535, 0 disables) and slots are Kong's (upstream and
//! target entities). [`TargetHealth`] is what all workers know of a target's health.
//!
//! Beside the choice of a target stand the other decisions that are functions of counts and latencies: whether a failed
//! request may be repeated ([`RetryBudget`]), when an answer is late ([`RecentLatencies`]), how many requests to serve at
//! the same time ([`ConcurrencyLimit`]).
//!
//! What this crate does not do: checking health, DNS, reading the hash input from a request.
//!
//! ```
//! use gateward_balance::{Algorithm, Balancer, TargetSpec};
//! let targets = [
//!     TargetSpec { name: "10.0.0.1:8000".into(), weight: 100 },
//!     TargetSpec { name: "10.0.0.2:8000".into(), weight: 0 },
//! ];
//! let mut balancer = Balancer::new(Algorithm::RoundRobin, &targets, 1);
//! let ticket = balancer.pick(None, &[], |_| true, 0).expect("the first target is enabled");
//! assert_eq!(ticket.index(), 0);
//! balancer.started(ticket, 0);
//! balancer.finished(ticket, Some(1_500), 1_500);
//! ```

#![forbid(unsafe_code)]

mod balancer;
mod budget;
mod concurrency;
mod hash;
mod health;
mod latency;
pub mod outlier;
mod random;
mod recent;
mod schedule;
mod slots;
mod slow_start;

pub use balancer::{Algorithm, Balancer, SCAN_MAX_TARGETS, TargetSpec, Ticket};
pub use budget::{BudgetRules, RetryBudget};
pub use concurrency::{ConcurrencyLimit, LimitRule, Priority};
pub use hash::hash_bytes;
pub use health::{HealthLimits, Outcome, TargetHealth, Turned};
pub use outlier::{Ejection, OutlierRules, Sign};
pub use recent::RecentLatencies;
pub use slow_start::SlowStart;
