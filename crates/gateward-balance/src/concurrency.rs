//! How many requests to serve at the same time, and whom to turn away first.
//!
//! A server that takes more than it can do answers nobody in time. The limit is found by watching latency: while answers
//! come as fast as they usually do the limit grows by what a short queue needs, and when they get slower it shrinks in
//! proportion (the gradient of Netflix' concurrency-limits; the halving at most is the multiplicative decrease of AIMD).
//! What is usual is measured now and then with the limit halved, so that a standing queue does not become usual (Envoy's
//! adaptive concurrency does likewise). A fixed limit is the same without the watching.
//!
//! Under the limit everybody is served. Near it, requests of lower priority are turned away before those of higher:
//! each priority may fill a share of the limit, see [`Priority::share`]. Pure: one worker's state, time as numbers.

/// How much a request matters when not all can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// The first to be turned away.
    Low,
    /// What requests have unless something else is said.
    #[default]
    Normal,
    /// Turned away after the normal ones.
    High,
    /// The last to be turned away.
    Critical,
}

impl Priority {
    /// Every priority, the lowest first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// The priority of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.name() == name)
    }

    /// `low`, `normal`, `high` or `critical`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The part of the limit that requests of this priority find open.
    pub fn share(self) -> f64 {
        match self {
            Self::Low => 0.5,
            Self::Normal => 0.8,
            Self::High => 0.9,
            Self::Critical => 1.0,
        }
    }
}

/// Where the limit comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitRule {
    /// This many requests at the same time.
    Fixed(u32),
    /// As many as latency says, between these.
    Adaptive {
        /// Never fewer, or a slow start could not be left again.
        least: u32,
        /// Never more.
        most: u32,
    },
}

/// Answers from which a step is made.
const SAMPLE: u32 = 32;
/// Steps after which the usual latency is measured anew. Otherwise a queue that stands long enough becomes usual.
const MEASURE_EVERY: u32 = 64;
/// How much slower than usual is still usual.
const TOLERANCE: f64 = 1.5;
/// How far a step goes towards where it leads.
const SMOOTHING: f64 = 0.3;
/// How much of a better latency than the usual one is believed at a step.
const GOOD_NEWS: f64 = 1.0 / 16.0;
/// What an adaptive limit starts with.
const START: f64 = 64.0;

/// What is being done about the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Latency moves it.
    Watching { steps: u32 },
    /// It is halved, until no more are in flight than that.
    Emptying,
    /// It is halved, and answers now say what is usual without a queue.
    Measuring,
}

/// The limit of one worker and what it is found from.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit {
    rule: LimitRule,
    limit: f64,
    phase: Phase,
    in_flight: u32,
    /// The most at the same time since the last step.
    peak: u32,
    /// Mean latency without a queue; 0 before the first step.
    usual_us: f64,
    sum_us: f64,
    samples: u32,
}

impl ConcurrencyLimit {
    /// Nothing in flight.
    pub fn new(rule: LimitRule) -> Self {
        let limit = match rule {
            LimitRule::Fixed(limit) => f64::from(limit.max(1)),
            LimitRule::Adaptive { .. } => START.clamp(rule.least(), rule.most()),
        };
        let phase = Phase::Watching { steps: 0 };
        Self { rule, limit, phase, in_flight: 0, peak: 0, usual_us: 0.0, sum_us: 0.0, samples: 0 }
    }

    /// Requests that may be in flight now.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the rule's bounds")]
    pub fn limit(&self) -> u32 {
        match self.phase {
            Phase::Watching { .. } => self.limit as u32,
            Phase::Emptying | Phase::Measuring => (self.limit / 2.0).max(self.rule.least()) as u32,
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Take a request in; `false`: turn it away. At least one is always let in.
    pub fn admit(&mut self, priority: Priority) -> bool {
        let open = (f64::from(self.limit()) * priority.share()).max(1.0);
        if f64::from(self.in_flight) + 1.0 > open {
            return false;
        }
        self.in_flight += 1;
        self.peak = self.peak.max(self.in_flight);
        true
    }

    /// A request that was let in has ended; must follow [`Self::admit`] exactly once. `latency_us`: how long its answer
    /// took, `None` when there is none that says something about load.
    pub fn ended(&mut self, latency_us: Option<u64>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.phase == Phase::Emptying {
            if self.in_flight <= self.limit() {
                (self.phase, self.sum_us, self.samples) = (Phase::Measuring, 0.0, 0);
            }
            return;
        }
        let (LimitRule::Adaptive { .. }, Some(latency_us)) = (self.rule, latency_us) else { return };
        self.sum_us += latency_us as f64;
        self.samples += 1;
        if self.samples == SAMPLE {
            let recent_us = (self.sum_us / f64::from(SAMPLE)).max(1.0);
            (self.sum_us, self.samples) = (0.0, 0);
            self.step(recent_us);
        }
    }

    fn step(&mut self, recent_us: f64) {
        let peak = f64::from(std::mem::replace(&mut self.peak, self.in_flight));
        let Phase::Watching { steps } = self.phase else {
            self.usual_us = recent_us;
            self.phase = Phase::Watching { steps: 0 };
            return;
        };
        self.phase = if steps == MEASURE_EVERY { Phase::Emptying } else { Phase::Watching { steps: steps + 1 } };
        if self.usual_us == 0.0 {
            self.usual_us = recent_us;
        }
        self.usual_us += (recent_us - self.usual_us).min(0.0) * GOOD_NEWS;
        let gradient = (TOLERANCE * self.usual_us / recent_us).clamp(0.5, 1.0);
        if gradient >= 1.0 && peak < self.limit / 2.0 {
            // Nobody needs more, and nothing is known about more.
            return;
        }
        let towards = self.limit * gradient + self.limit.sqrt();
        self.limit = (self.limit + SMOOTHING * (towards - self.limit)).clamp(self.rule.least(), self.rule.most());
    }
}

impl LimitRule {
    fn least(self) -> f64 {
        match self {
            Self::Fixed(limit) => f64::from(limit.max(1)),
            Self::Adaptive { least, .. } => f64::from(least.max(1)),
        }
    }

    fn most(self) -> f64 {
        match self {
            Self::Fixed(_) => self.least(),
            Self::Adaptive { most, .. } => f64::from(most).max(self.least()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_lowest_are_turned_away_first() {
        let mut limit = ConcurrencyLimit::new(LimitRule::Fixed(10));
        let mut admitted = |priority| std::iter::from_fn(|| limit.admit(priority).then_some(())).count();
        assert_eq!(Priority::ALL.map(&mut admitted), [5, 3, 1, 1]);
        assert!(!limit.admit(Priority::Critical));
        limit.ended(None);
        assert!(!limit.admit(Priority::High) && limit.admit(Priority::Critical));
    }

    #[test]
    fn somebody_is_always_served() {
        let mut limit = ConcurrencyLimit::new(LimitRule::Fixed(1));
        assert!(limit.admit(Priority::Low) && !limit.admit(Priority::Critical));
        assert_eq!(Priority::parse("critical"), Some(Priority::Critical));
        assert_eq!(Priority::parse("urgent"), None);
    }

    /// A server with `places` that answers in 10 ms; more requests wait for their turn. Callers send all they may.
    fn settle(limit: &mut ConcurrencyLimit, places: f64, rounds: usize) -> u32 {
        for _ in 0..rounds {
            let admitted = std::iter::from_fn(|| limit.admit(Priority::Critical).then_some(())).count();
            let latency_us = 10_000.0 * (admitted as f64 / places).max(1.0);
            for _ in 0..admitted {
                limit.ended(Some(latency_us as u64));
            }
        }
        limit.limit()
    }

    #[test]
    fn the_limit_finds_what_the_server_can_do() {
        let mut limit = ConcurrencyLimit::new(LimitRule::Adaptive { least: 4, most: 10_000 });
        let found = settle(&mut limit, 200.0, 200);
        assert!((200..600).contains(&found), "{found}");
        let found = settle(&mut limit, 20.0, 100);
        assert!(found < 200, "a slower server is asked less: {found}");
        let found = settle(&mut limit, 200.0, 800);
        assert!(found >= 200, "and more when it is well again: {found}");
    }

    #[test]
    fn without_load_the_limit_stays() {
        let mut limit = ConcurrencyLimit::new(LimitRule::Adaptive { least: 4, most: 10_000 });
        let before = limit.limit();
        for _ in 0..10_000 {
            assert!(limit.admit(Priority::Low));
            limit.ended(Some(1_000));
        }
        assert_eq!(limit.limit(), before);
    }

    proptest! {
        #[test]
        fn it_never_leaves_its_bounds(
            events in prop::collection::vec((prop::bool::ANY, 0_u64..10_000_000), 1..2000),
            least in 0_u32..50,
            span in 0_u32..500,
        ) {
            let mut limit = ConcurrencyLimit::new(LimitRule::Adaptive { least, most: least + span });
            let mut in_flight = 0;
            for (begin, latency_us) in events {
                if begin {
                    in_flight += u32::from(limit.admit(Priority::Critical));
                } else if in_flight > 0 {
                    limit.ended(Some(latency_us));
                    in_flight -= 1;
                }
                prop_assert_eq!(limit.in_flight(), in_flight);
                prop_assert!(limit.limit() >= least.max(1) && limit.limit() <= (least + span).max(1));
            }
        }
    }
}
