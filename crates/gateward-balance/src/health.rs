//! Whether a target may be chosen, as all workers of a node see it.
//!
//! One [`TargetHealth`] per target, shared by reference. Reading it is one load of a byte that seldom changes; a
//! success of a target that is well writes nothing. Counting follows Kong's health checks (lua-resty-healthcheck):
//! failures are counted by kind, each kind against its own limit, a success forgets failures and the other way
//! round, and reaching a limit turns the target.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Active or passive checks found the target unhealthy, or an operator said so.
const UNHEALTHY: u8 = 1;
/// Taken out for a while because it does worse than the others.
const EJECTED: u8 = 2;

/// How an attempt at a target went, for its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with a status that counts as healthy.
    Success,
    /// An answer with a status that counts as unhealthy.
    HttpFailure,
    /// No connection, or it broke.
    TcpFailure,
    /// No answer in time.
    Timeout,
}

/// How many outcomes of a kind turn a target; 0: that kind does not count. Kong's `successes`, `http_failures`,
/// `tcp_failures` and `timeouts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HealthLimits {
    /// Successes in a row that make it healthy.
    pub successes: u32,
    /// Answers with unhealthy statuses.
    pub http_failures: u32,
    /// Failures of connections.
    pub tcp_failures: u32,
    /// Timeouts.
    pub timeouts: u32,
}

impl HealthLimits {
    /// Whether anything counts.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// A target changed sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// It is used again.
    Healthy,
    /// It is not used any more.
    Unhealthy,
}

/// Health of one target.
#[derive(Debug, Default)]
pub struct TargetHealth {
    barred: AtomicU8,
    successes: AtomicU32,
    http_failures: AtomicU32,
    tcp_failures: AtomicU32,
    timeouts: AtomicU32,
    /// For outlier detection: attempts, those that failed, and failures in a row.
    pub(crate) attempts: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) failures_in_a_row: AtomicU32,
    /// Clock reading when it was last given traffic anew; 0: it always had it.
    since_us: AtomicU64,
}

impl TargetHealth {
    /// A target that appears beside others at work at `now_us`: its share may begin small.
    pub fn newcomer(now_us: u64) -> Self {
        Self { since_us: AtomicU64::new(now_us), ..Self::default() }
    }

    /// Whether it may be chosen.
    pub fn is_available(&self) -> bool {
        self.barred.load(Relaxed) == 0
    }

    /// Whether checks or an operator found it healthy; an ejected target may be.
    pub fn is_healthy(&self) -> bool {
        self.barred.load(Relaxed) & UNHEALTHY == 0
    }

    /// Whether it is ejected as an outlier.
    pub fn is_ejected(&self) -> bool {
        self.barred.load(Relaxed) & EJECTED != 0
    }

    /// When it was last given traffic anew, on the clock of [`Self::newcomer`]; 0: it always had it.
    pub fn since_us(&self) -> u64 {
        self.since_us.load(Relaxed)
    }

    /// Count `outcome` against `limits`; what it changed.
    pub fn report(&self, outcome: Outcome, limits: &HealthLimits, now_us: u64) -> Option<Turned> {
        let healthy = self.is_healthy();
        let (counter, limit) = match outcome {
            Outcome::Success => (&self.successes, limits.successes),
            Outcome::HttpFailure => (&self.http_failures, limits.http_failures),
            Outcome::TcpFailure => (&self.tcp_failures, limits.tcp_failures),
            Outcome::Timeout => (&self.timeouts, limits.timeouts),
        };
        if outcome == Outcome::Success {
            self.forget_failures();
            if healthy || limit == 0 {
                return None;
            }
        } else {
            forget(&self.successes);
            if !healthy || limit == 0 {
                return None;
            }
        }
        if counter.fetch_add(1, Relaxed) + 1 < limit {
            return None;
        }
        self.set(outcome == Outcome::Success, now_us)
    }

    /// Make it healthy or not, whatever was counted; what that changed.
    pub fn set(&self, healthy: bool, now_us: u64) -> Option<Turned> {
        self.forget_failures();
        forget(&self.successes);
        self.mark(UNHEALTHY, !healthy, now_us)
    }

    /// Take it out as an outlier, or let it back; what that changed.
    pub(crate) fn eject(&self, out: bool, now_us: u64) -> Option<Turned> {
        forget(&self.failures_in_a_row);
        self.mark(EJECTED, out, now_us)
    }

    fn mark(&self, bit: u8, on: bool, now_us: u64) -> Option<Turned> {
        let before = if on { self.barred.fetch_or(bit, Relaxed) } else { self.barred.fetch_and(!bit, Relaxed) };
        if (before & bit != 0) == on {
            return None;
        }
        if !on && before == bit {
            self.since_us.store(now_us.max(1), Relaxed);
        }
        Some(if on { Turned::Unhealthy } else { Turned::Healthy })
    }

    fn forget_failures(&self) {
        for counter in [&self.http_failures, &self.tcp_failures, &self.timeouts] {
            forget(counter);
        }
    }
}

/// Set to 0, without taking the cache line from others when it is.
fn forget(counter: &AtomicU32) {
    if counter.load(Relaxed) != 0 {
        counter.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HealthLimits = HealthLimits { successes: 2, http_failures: 3, tcp_failures: 2, timeouts: 1 };

    #[test]
    fn each_kind_of_failure_has_its_own_limit() {
        for (outcome, needed) in [(Outcome::HttpFailure, 3), (Outcome::TcpFailure, 2), (Outcome::Timeout, 1)] {
            let target = TargetHealth::default();
            for _ in 1..needed {
                assert_eq!(target.report(outcome, &LIMITS, 1), None);
                assert!(target.is_available());
            }
            assert_eq!(target.report(outcome, &LIMITS, 1), Some(Turned::Unhealthy));
            assert!(!target.is_available());
            assert_eq!(target.report(outcome, &LIMITS, 1), None, "it cannot become more unhealthy");
        }
    }

    #[test]
    fn successes_in_a_row_bring_it_back_and_a_success_forgets_failures() {
        let target = TargetHealth::default();
        target.report(Outcome::TcpFailure, &LIMITS, 1);
        target.report(Outcome::Success, &LIMITS, 1);
        assert_eq!(target.report(Outcome::TcpFailure, &LIMITS, 1), None);
        assert_eq!(target.report(Outcome::TcpFailure, &LIMITS, 1), Some(Turned::Unhealthy));
        target.report(Outcome::Success, &LIMITS, 5);
        target.report(Outcome::HttpFailure, &LIMITS, 5);
        assert_eq!(target.report(Outcome::Success, &LIMITS, 5), None, "not in a row");
        assert_eq!(target.report(Outcome::Success, &LIMITS, 7), Some(Turned::Healthy));
        assert_eq!(target.since_us(), 7);
    }

    #[test]
    fn what_does_not_count_changes_nothing() {
        let target = TargetHealth::default();
        for _ in 0..100 {
            assert_eq!(target.report(Outcome::HttpFailure, &HealthLimits::default(), 1), None);
        }
        assert!(target.is_available());
        assert_eq!(target.set(false, 1), Some(Turned::Unhealthy));
        assert_eq!(target.report(Outcome::Success, &HealthLimits::default(), 1), None);
        assert!(!target.is_available());
        assert_eq!(target.set(true, 1), Some(Turned::Healthy));
    }

    #[test]
    fn a_target_is_used_only_when_neither_reason_stands_against_it() {
        let target = TargetHealth::default();
        target.set(false, 1);
        target.eject(true, 1);
        target.set(true, 2);
        assert!(!target.is_available() && target.is_healthy() && target.is_ejected());
        target.eject(false, 3);
        assert!(target.is_available());
        assert_eq!(target.since_us(), 3);
    }

    /// The rules of lua-resty-healthcheck, with plain counters.
    #[derive(Default)]
    struct Reference {
        unhealthy: bool,
        counts: [u32; 4],
    }

    impl Reference {
        fn report(&mut self, outcome: Outcome, limits: &HealthLimits) {
            let (kind, limit) = match outcome {
                Outcome::Success => (0, limits.successes),
                Outcome::HttpFailure => (1, limits.http_failures),
                Outcome::TcpFailure => (2, limits.tcp_failures),
                Outcome::Timeout => (3, limits.timeouts),
            };
            if kind == 0 {
                self.counts[1..].fill(0);
            } else {
                self.counts[0] = 0;
            }
            if limit == 0 || self.unhealthy != (kind == 0) {
                return;
            }
            self.counts[kind] += 1;
            if self.counts[kind] >= limit {
                self.unhealthy = kind != 0;
                self.counts = [0; 4];
            }
        }
    }

    proptest! {
        #[test]
        fn it_follows_the_rules(
            limits in (0..4_u32, 0..4_u32, 0..4_u32, 0..4_u32),
            outcomes in proptest::collection::vec(0..4_usize, 0..60),
        ) {
            let limits = HealthLimits {
                successes: limits.0, http_failures: limits.1, tcp_failures: limits.2, timeouts: limits.3,
            };
            let (target, mut reference) = (TargetHealth::default(), Reference::default());
            for outcome in outcomes {
                let outcome =
                    [Outcome::Success, Outcome::HttpFailure, Outcome::TcpFailure, Outcome::Timeout][outcome];
                target.report(outcome, &limits, 1);
                reference.report(outcome, &limits);
                prop_assert_eq!(target.is_healthy(), !reference.unhealthy);
            }
        }
    }
}
