//! Whether a target may be chosen, as all workers of a node see it.
//!
//! One [`TargetHealth`] per target, shared by reference. Reading it is one load of a byte that seldom changes; a
//! success of a target that is well writes nothing. Counting follows Kong's health checks (lua-resty-healthcheck):
//! failures are counted by kind, each kind against its own limit, a success forgets failures and the other way
//! round, and reaching a limit turns the target. What has no limit changes nothing at all: where successes have none,
//! failures add up however many successes come in between.

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

    /// Whether any failures count.
    pub fn any_failures(&self) -> bool {
        Self { successes: 0, ..*self }.any()
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
    /// For outlier detection: attempts, those that failed, failures in a row, and those of a gateway's kind.
    pub(crate) attempts: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) failures_in_a_row: AtomicU32,
    pub(crate) gateway_failures_in_a_row: AtomicU32,
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

    /// Count `outcome` against `limits`; what it changed. The clock is read only for that.
    pub fn report(&self, outcome: Outcome, limits: &HealthLimits, clock: impl FnOnce() -> u64) -> Option<Turned> {
        let (counter, limit) = match outcome {
            Outcome::Success => (&self.successes, limits.successes),
            Outcome::HttpFailure => (&self.http_failures, limits.http_failures),
            Outcome::TcpFailure => (&self.tcp_failures, limits.tcp_failures),
            Outcome::Timeout => (&self.timeouts, limits.timeouts),
        };
        if limit == 0 {
            return None;
        }
        let success = outcome == Outcome::Success;
        if success {
            self.forget_failures();
        } else {
            forget(&self.successes);
        }
        if self.is_healthy() == success || counter.fetch_add(1, Relaxed) + 1 < limit {
            return None;
        }
        self.set(success, clock())
    }

    /// Make it healthy or not, whatever was counted; what that changed.
    pub fn set(&self, healthy: bool, now_us: u64) -> Option<Turned> {
        self.forget_failures();
        forget(&self.successes);
        self.mark(UNHEALTHY, !healthy, now_us)
    }

    /// End its ejection before its time; what that changed.
    pub fn let_back(&self, now_us: u64) -> Option<Turned> {
        self.eject(false, now_us)
    }

    /// Take it out as an outlier, or let it back; what that changed.
    pub(crate) fn eject(&self, out: bool, now_us: u64) -> Option<Turned> {
        self.forget_rows();
        self.mark(EJECTED, out, now_us)
    }

    /// Count failures in a row anew.
    pub(crate) fn forget_rows(&self) {
        forget(&self.failures_in_a_row);
        forget(&self.gateway_failures_in_a_row);
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
pub(crate) fn forget(counter: &AtomicU32) {
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
                assert_eq!(target.report(outcome, &LIMITS, || 1), None);
                assert!(target.is_available());
            }
            assert_eq!(target.report(outcome, &LIMITS, || 1), Some(Turned::Unhealthy));
            assert!(!target.is_available());
            assert_eq!(target.report(outcome, &LIMITS, || 1), None, "it cannot become more unhealthy");
        }
    }

    #[test]
    fn successes_in_a_row_bring_it_back_and_a_success_forgets_failures() {
        let target = TargetHealth::default();
        target.report(Outcome::TcpFailure, &LIMITS, || 1);
        target.report(Outcome::Success, &LIMITS, || 1);
        assert_eq!(target.report(Outcome::TcpFailure, &LIMITS, || 1), None);
        assert_eq!(target.report(Outcome::TcpFailure, &LIMITS, || 1), Some(Turned::Unhealthy));
        target.report(Outcome::Success, &LIMITS, || 5);
        target.report(Outcome::HttpFailure, &LIMITS, || 5);
        assert_eq!(target.report(Outcome::Success, &LIMITS, || 5), None, "not in a row");
        assert_eq!(target.report(Outcome::Success, &LIMITS, || 7), Some(Turned::Healthy));
        assert_eq!(target.since_us(), 7);
    }

    #[test]
    fn what_does_not_count_changes_nothing() {
        let target = TargetHealth::default();
        for _ in 0..100 {
            assert_eq!(target.report(Outcome::HttpFailure, &HealthLimits::default(), || 1), None);
        }
        assert!(target.is_available());
        assert_eq!(target.set(false, 1), Some(Turned::Unhealthy));
        assert_eq!(target.report(Outcome::Success, &HealthLimits::default(), || 1), None);
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

    #[test]
    fn successes_without_a_limit_forget_nothing() {
        let target = TargetHealth::default();
        let limits = HealthLimits { successes: 0, http_failures: 3, ..HealthLimits::default() };
        for _ in 0..2 {
            assert_eq!(target.report(Outcome::HttpFailure, &limits, || 1), None);
            assert_eq!(target.report(Outcome::Success, &limits, || 1), None);
        }
        assert_eq!(target.report(Outcome::HttpFailure, &limits, || 1), Some(Turned::Unhealthy));
    }

    /// lua-resty-healthcheck's own states, two of them on the way to the others.
    #[derive(Clone, Copy, PartialEq, Default)]
    enum State {
        #[default]
        Healthy,
        MostlyHealthy,
        MostlyUnhealthy,
        Unhealthy,
    }

    #[derive(Default)]
    struct Reference {
        state: State,
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
            let reported = if kind == 0 { State::Healthy } else { State::Unhealthy };
            if limit == 0 || self.state == reported {
                return;
            }
            self.counts[kind] += 1;
            let other = if kind == 0 { 1..4 } else { 0..1 };
            self.counts[other].fill(0);
            self.state = match self.state {
                _ if self.counts[kind] >= limit => reported,
                State::Healthy if kind != 0 => State::MostlyHealthy,
                State::Unhealthy if kind == 0 => State::MostlyUnhealthy,
                state => state,
            };
        }

        fn set(&mut self, healthy: bool) {
            self.state = if healthy { State::Healthy } else { State::Unhealthy };
            self.counts = [0; 4];
        }
    }

    proptest! {
        #[test]
        fn it_follows_the_rules(
            limits in (0..4_u32, 0..4_u32, 0..4_u32, 0..4_u32),
            events in proptest::collection::vec(0..40_usize, 0..80),
        ) {
            let limits = HealthLimits {
                successes: limits.0, http_failures: limits.1, tcp_failures: limits.2, timeouts: limits.3,
            };
            let (target, mut reference) = (TargetHealth::default(), Reference::default());
            for event in events {
                if event >= 38 {
                    target.set(event == 38, 1);
                    reference.set(event == 38);
                } else {
                    let all = [Outcome::Success, Outcome::HttpFailure, Outcome::TcpFailure, Outcome::Timeout];
                    target.report(all[event % 4], &limits, || 1);
                    reference.report(all[event % 4], &limits);
                }
                let healthy = matches!(reference.state, State::Healthy | State::MostlyHealthy);
                prop_assert_eq!(target.is_healthy(), healthy);
            }
        }
    }
}
