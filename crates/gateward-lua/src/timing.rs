//! How long handlers run in the machine, without what they wait for.
//!
//! Reading the clock twice costs as much as a small handler, so only one call in 64 is timed.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One in this many calls of a plugin in a phase is timed on each worker, the first among them.
pub(crate) const TIMED_ONE_IN: u64 = 64;

/// Upper bounds of the time histogram, in nanoseconds; beyond the last there is one more bucket. Those of Wasm filters.
pub const TIME_BOUNDS_NS: [u64; TIME_BOUNDS] =
    [250, 500, 1000, 2500, 5000, 10_000, 25_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

const TIME_BOUNDS: usize = 11;

/// Counts of timed calls by bucket of [`TIME_BOUNDS_NS`].
pub type Times = [u64; TIME_BOUNDS + 1];

/// Timed calls of one plugin in one phase.
#[derive(Debug, Default)]
pub(crate) struct Timing {
    times: [AtomicU64; TIME_BOUNDS + 1],
    ns: AtomicU64,
}

impl Timing {
    fn took(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = TIME_BOUNDS_NS.iter().position(|bound| ns <= *bound).unwrap_or(TIME_BOUNDS);
        self.times[bucket].fetch_add(1, Ordering::Relaxed);
        self.ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Counts by bucket, and nanoseconds of all.
    pub(crate) fn read(&self) -> (Times, u64) {
        (std::array::from_fn(|bucket| self.times[bucket].load(Ordering::Relaxed)), self.ns.load(Ordering::Relaxed))
    }
}

/// A call that is timed. Dropped, it is counted.
#[derive(Debug)]
pub(crate) struct Timed {
    timing: Arc<Timing>,
    spent: Cell<Duration>,
}

impl Timed {
    pub(crate) fn new(timing: Arc<Timing>) -> Self {
        Self { timing, spent: Cell::default() }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        // Nothing of it ran.
        if !self.spent.get().is_zero() {
            self.timing.took(self.spent.get());
        }
    }
}

/// Run a part of a call, which is `timed` or not.
pub(crate) fn during<R>(timed: Option<&Timed>, call: impl FnOnce() -> R) -> R {
    let Some(timed) = timed else { return call() };
    let began = Instant::now();
    let result = call();
    timed.spent.set(timed.spent.get() + began.elapsed());
    result
}
