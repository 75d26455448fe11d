//! A retry budget: how much of the traffic may be repeats.
//!
//! Retries help while few requests fail and harm while many do: every failure then becomes several requests to targets
//! that cannot even serve the first ones. So they are limited to a share of the requests of the last ten seconds (the
//! idea and the window are Finagle's `RetryBudget`), with a small number per second that is always allowed, or an
//! upstream with little traffic could never retry.
//!
//! One budget serves all workers of a node. It takes no lock: each second of the window is one atomic word. Between
//! looking at the window and taking from it another worker may take as well, so a budget can be exceeded by at most one
//! retry per worker.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Seconds that count as recent.
const WINDOW_S: u64 = 10;

const FIELD_BITS: u32 = 24;
const FIELD_MAX: u64 = (1 << FIELD_BITS) - 1;

/// What may be repeated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetRules {
    /// Percent of the requests of the window.
    pub percent: f64,
    /// Allowed in every second in any case.
    pub min_per_second: u32,
}

/// Requests and retries of the last seconds.
#[derive(Debug, Default)]
pub struct RetryBudget {
    seconds: [AtomicU64; WINDOW_S as usize],
}

/// One second: 16 bits of its number, 24 bits of requests, 24 bits of retries; both stop at their greatest value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Second {
    stamp: u64,
    requests: u64,
    retries: u64,
}

impl Second {
    fn unpack(word: u64) -> Self {
        Self { stamp: word >> (2 * FIELD_BITS), requests: (word >> FIELD_BITS) & FIELD_MAX, retries: word & FIELD_MAX }
    }

    fn pack(self) -> u64 {
        (self.stamp << (2 * FIELD_BITS)) | (self.requests.min(FIELD_MAX) << FIELD_BITS) | self.retries.min(FIELD_MAX)
    }
}

impl RetryBudget {
    /// A budget without history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Count a request (not a repeat). `now_s`: seconds since any fixed origin, the same for all calls.
    pub fn deposit(&self, now_s: u64) {
        self.change(now_s, |second| second.requests += 1);
    }

    /// Take one repeat, if the rules allow it.
    pub fn withdraw(&self, rules: BudgetRules, now_s: u64) -> bool {
        let (mut requests, mut retries, mut this_second) = (0, 0, 0);
        for back in 0..WINDOW_S.min(now_s + 1) {
            let second = self.at(now_s - back);
            requests += second.requests;
            retries += second.retries;
            if back == 0 {
                this_second = second.retries;
            }
        }
        let share = rules.percent / 100.0 * requests as f64;
        let allowed = this_second < u64::from(rules.min_per_second) || (retries + 1) as f64 <= share;
        if allowed {
            self.change(now_s, |second| second.retries += 1);
        }
        allowed
    }

    fn at(&self, second: u64) -> Second {
        let found = Second::unpack(self.seconds[(second % WINDOW_S) as usize].load(Relaxed));
        match found.stamp == stamp(second) {
            true => found,
            false => Second { stamp: stamp(second), requests: 0, retries: 0 },
        }
    }

    fn change(&self, now_s: u64, change: impl Fn(&mut Second)) {
        let word = &self.seconds[(now_s % WINDOW_S) as usize];
        // Fails never: the closure always gives a value.
        let _ = word.fetch_update(Relaxed, Relaxed, |word| {
            let mut second = Second::unpack(word);
            if second.stamp != stamp(now_s) {
                second = Second { stamp: stamp(now_s), requests: 0, retries: 0 };
            }
            change(&mut second);
            Some(second.pack())
        });
    }
}

/// The number of a second as it is stored; never 0, which is what an unused word says.
fn stamp(second: u64) -> u64 {
    second % 0xFFFF + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take(budget: &RetryBudget, percent: f64, min_per_second: u32, now_s: u64) -> bool {
        budget.withdraw(BudgetRules { percent, min_per_second }, now_s)
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_repeated() {
        let budget = RetryBudget::new();
        (0..100).for_each(|_| budget.deposit(5));
        assert_eq!((0..50).filter(|_| take(&budget, 20.0, 0, 5)).count(), 20);
        assert!(take(&budget, 21.0, 0, 14), "the second of the requests still counts");
        assert!(!take(&budget, 100.0, 0, 15), "now it does not");
    }

    #[test]
    fn a_few_per_second_are_always_allowed() {
        let budget = RetryBudget::new();
        for now in [0, 1, 1_000_000] {
            assert_eq!((0..9).filter(|_| take(&budget, 20.0, 3, now)).count(), 3);
        }
        assert!(!take(&budget, 0.0, 0, 7));
    }

    proptest! {
        /// Against a plain list of what happened.
        #[test]
        fn it_agrees_with_a_list(
            events in prop::collection::vec((0_u64..4, prop::bool::weighted(0.7)), 1..300),
            percent in 0_u32..=100,
            min_per_second in 0_u32..4,
        ) {
            let budget = RetryBudget::new();
            let (mut requests, mut retries) = (Vec::new(), Vec::new());
            let mut now = 0;
            for (pass, is_request) in events {
                now += pass;
                if is_request {
                    budget.deposit(now);
                    requests.push(now);
                    continue;
                }
                let recent = |list: &[u64]| list.iter().filter(|at| now - **at < WINDOW_S).count() as f64;
                let this_second = retries.iter().filter(|at| **at == now).count();
                let share = f64::from(percent) / 100.0 * recent(&requests);
                let expected = this_second < min_per_second as usize || recent(&retries) + 1.0 <= share;
                prop_assert_eq!(take(&budget, f64::from(percent), min_per_second, now), expected);
                if expected {
                    retries.push(now);
                }
            }
        }
    }
}
