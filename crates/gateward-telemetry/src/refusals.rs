//! Refusals by reason: a short table of static strings, filled as reasons occur.

use crate::OVERFLOW_LABEL;
use crate::cells::Tally;
use std::sync::OnceLock;

/// Distinct reasons a worker tells apart; more would be a reason built from input, which is a bug.
const REASONS: usize = 128;

/// Counts by reason; written by one worker.
#[derive(Debug)]
pub(crate) struct Refusals {
    slots: [(OnceLock<&'static str>, Tally); REASONS],
    other: Tally,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { slots: std::array::from_fn(|_| Default::default()), other: Tally::default() }
    }
}

impl Refusals {
    pub(crate) fn count(&self, reason: &'static str) {
        let mut slots = self.slots.iter();
        match slots.find(|(name, _)| *name.get_or_init(|| reason) == reason) {
            Some((_, tally)) => tally.add(1),
            None => self.other.add(1),
        }
    }

    pub(crate) fn for_each(&self, mut each: impl FnMut(&'static str, u64)) {
        for (name, tally) in &self.slots {
            let Some(name) = name.get() else { break };
            each(name, tally.value());
        }
        if self.other.value() > 0 {
            each(OVERFLOW_LABEL, self.other.value());
        }
    }
}
