//! What happens to requests and instances when a filter fails.
//!
//! Time comes in as an argument, in milliseconds of any clock that only goes forward.

/// What becomes of a request whose filter failed, or cannot run because it failed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FailurePolicy {
    /// It goes on without the filter.
    Open,
    /// It ends with a 503.
    #[default]
    Closed,
}

/// Why a filter failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// It trapped: a panic, a bad access, a division by zero.
    Trap,
    /// It used more processor time than a callback may.
    Timeout,
    /// It ran out of its memory.
    Memory,
    /// It ran out of its stack.
    Stack,
    /// It ended itself with `proc_exit`.
    Exit,
    /// It refused to start.
    Start,
    /// The instance failed earlier.
    Dead,
}

impl FailureKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Trap, Self::Timeout, Self::Memory, Self::Stack, Self::Exit, Self::Start, Self::Dead];

    /// The word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::Exit => "exit",
            Self::Start => "start",
            Self::Dead => "dead",
        }
    }
}

/// A failed call into a filter. The instance is dead afterwards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {text}", kind.as_str())]
pub struct Failure {
    /// Why.
    pub kind: FailureKind,
    /// For people, with the guest's stack where there is one.
    pub text: String,
}

/// First pause before a new instance is made.
pub const FIRST_PAUSE_MS: u64 = 100;
/// Longest pause.
pub const LONGEST_PAUSE_MS: u64 = 60_000;
/// After a callback that took too long, the pause is at least this many times what it may take: the instances of a filter
/// that loops hold their worker up no more than this part of the time.
pub const PAUSE_PER_TIMEOUT: u32 = 20;
/// An instance that lives this long is taken for healthy: the next failure starts with the first pause again.
pub const HEALTHY_MS: u64 = 30_000;

/// When a failed filter may be started again: pauses double from failure to failure.
#[derive(Debug, Clone, Copy, Default)]
pub struct BackOff {
    failures: u32,
    started_ms: u64,
    retry_ms: u64,
}

impl BackOff {
    /// An instance was started.
    pub fn started(&mut self, now_ms: u64) {
        self.started_ms = now_ms;
    }

    /// It failed, or could not be started. `least_ms`: the shortest pause. `spread`: any number; it shortens the pause by up
    /// to a quarter, but not below that, so that workers do not start again all at once.
    pub fn failed(&mut self, now_ms: u64, least_ms: u64, spread: u64) {
        if self.failures > 0 && now_ms.saturating_sub(self.started_ms) >= HEALTHY_MS && self.started_ms >= self.retry_ms
        {
            self.failures = 0;
        }
        let pause = (FIRST_PAUSE_MS << self.failures.min(16)).min(LONGEST_PAUSE_MS);
        self.failures = self.failures.saturating_add(1);
        self.retry_ms = now_ms + (pause - spread % (pause / 4)).max(least_ms.min(LONGEST_PAUSE_MS));
    }

    /// Whether an instance may be started now.
    pub fn may_start(&self, now_ms: u64) -> bool {
        now_ms >= self.retry_ms
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut back_off = BackOff::default();
        let mut now = 1000;
        let mut pauses = Vec::new();
        assert!(back_off.may_start(now));
        for _ in 0..12 {
            back_off.started(now);
            back_off.failed(now, 0, 0);
            let pause = (0..).find(|pause| back_off.may_start(now + pause)).unwrap();
            pauses.push(pause);
            now += pause;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
    }

    #[test]
    fn a_long_life_is_forgiven() {
        let mut back_off = BackOff::default();
        for now in [0, 100, 300] {
            back_off.started(now);
            back_off.failed(now, 0, 0);
        }
        assert_eq!(back_off.failures(), 3);
        back_off.started(1000);
        back_off.failed(1000 + HEALTHY_MS, 0, 0);
        assert_eq!(back_off.failures(), 1);
    }

    #[test]
    fn the_spread_only_shortens_a_little() {
        for spread in [0, 1, 24, 25, u64::MAX] {
            let mut back_off = BackOff::default();
            back_off.failed(0, 0, spread);
            assert!(!back_off.may_start(75) && back_off.may_start(100), "{spread}");
        }
    }

    #[test]
    fn a_pause_is_as_long_as_is_asked_for_within_bounds() {
        for (least, expected) in [(50, 100), (1000, 1000), (u64::MAX, LONGEST_PAUSE_MS)] {
            let mut back_off = BackOff::default();
            back_off.failed(0, least, 0);
            assert!(!back_off.may_start(expected - 1) && back_off.may_start(expected), "{least}");
        }
    }

    #[test]
    fn kinds_are_listed_in_the_order_of_their_numbers() {
        for (index, kind) in FailureKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
        }
    }
}
