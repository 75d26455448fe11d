//! What is counted about a filter, per callback, and added up over its instances.
//!
//! Each instance counts for itself: one thread writes, so a count costs a load and a store. What ended instances counted stays in
//! the filter's total. Reading the clock twice costs as much as a small callback, so only one in 64 is timed.

use crate::callout_stats::CalloutProtocol;
use crate::failure::FailureKind;
use crate::types::Phase;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const PHASES: usize = Phase::ALL.len();
const KINDS: usize = FailureKind::ALL.len();

/// One in this many callbacks of a kind is timed.
pub const TIMED_ONE_IN: u64 = 64;

/// Upper bounds of the time histogram, in nanoseconds; beyond the last there is one more bucket.
pub const TIME_BOUNDS_NS: [u64; TIME_BOUNDS] =
    [250, 500, 1000, 2500, 5000, 10_000, 25_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

const TIME_BOUNDS: usize = 11;

/// Counts of timed calls by bucket of [`TIME_BOUNDS_NS`].
pub type Times = [u64; TIME_BOUNDS + 1];

/// Counters of one instance.
#[derive(Debug)]
pub struct Counters {
    calls: [AtomicU64; PHASES],
    failures: [[AtomicU64; KINDS]; PHASES],
    times: [[AtomicU64; TIME_BOUNDS + 1]; PHASES],
    time_ns: [AtomicU64; PHASES],
    memory_bytes: AtomicU64,
    streams: AtomicU64,
    log_lines_dropped: AtomicU64,
    callouts_refused: [AtomicU64; CalloutProtocol::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            calls: std::array::from_fn(|_| zero()),
            failures: std::array::from_fn(|_| std::array::from_fn(|_| zero())),
            times: std::array::from_fn(|_| std::array::from_fn(|_| zero())),
            time_ns: std::array::from_fn(|_| zero()),
            memory_bytes: zero(),
            streams: zero(),
            log_lines_dropped: zero(),
            callouts_refused: std::array::from_fn(|_| zero()),
        }
    }
}

/// Counters added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls by [`Phase`].
    pub calls: [u64; PHASES],
    /// Failures by [`Phase`] and [`FailureKind`].
    pub failures: [[u64; KINDS]; PHASES],
    /// Timed calls by [`Phase`].
    pub times: [Times; PHASES],
    /// Nanoseconds of the timed calls by [`Phase`].
    pub time_ns: [u64; PHASES],
    /// Bytes of linear memory of the live instances.
    pub memory_bytes: u64,
    /// Streams under way.
    pub streams: u64,
    /// Log lines over the limit of one callback.
    pub log_lines_dropped: u64,
    /// Callouts refused at a limit, by [`CalloutProtocol`].
    pub callouts_refused: [u64; CalloutProtocol::ALL.len()],
    /// Instances alive.
    pub instances: u64,
    /// Instances ever made.
    pub instances_made: u64,
}

/// Adds one where only one thread writes.
fn bump(cell: &AtomicU64, by: u64) -> u64 {
    let value = cell.load(Ordering::Relaxed).wrapping_add(by);
    cell.store(value, Ordering::Relaxed);
    value
}

impl Totals {
    /// Failures of this kind in any phase.
    pub fn failed(&self, kind: FailureKind) -> u64 {
        self.failures.iter().map(|kinds| kinds[kind as usize]).sum()
    }
}

impl Counters {
    /// Count a call; whether it is one to time.
    pub(crate) fn call(&self, phase: Phase) -> bool {
        bump(&self.calls[phase as usize], 1) % TIMED_ONE_IN == 1
    }

    pub(crate) fn time(&self, phase: Phase, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = TIME_BOUNDS_NS.iter().position(|bound| ns <= *bound);
        bump(&self.times[phase as usize][bucket.unwrap_or(TIME_BOUNDS)], 1);
        bump(&self.time_ns[phase as usize], ns);
    }

    pub(crate) fn failure(&self, phase: Phase, kind: FailureKind) {
        bump(&self.failures[phase as usize][kind as usize], 1);
    }

    pub(crate) fn log_line_dropped(&self) {
        bump(&self.log_lines_dropped, 1);
    }

    pub(crate) fn callout_refused(&self, protocol: CalloutProtocol) {
        bump(&self.callouts_refused[protocol as usize], 1);
    }

    pub(crate) fn set_memory(&self, bytes: usize) {
        self.memory_bytes.store(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn set_streams(&self, streams: usize) {
        self.streams.store(streams as u64, Ordering::Relaxed);
    }

    fn add_to(&self, totals: &mut Totals, alive: bool) {
        let add = |total: &mut u64, cell: &AtomicU64| *total += cell.load(Ordering::Relaxed);
        for phase in 0..PHASES {
            add(&mut totals.calls[phase], &self.calls[phase]);
            add(&mut totals.time_ns[phase], &self.time_ns[phase]);
            for (total, cell) in totals.times[phase].iter_mut().zip(&self.times[phase]) {
                add(total, cell);
            }
            for (total, cell) in totals.failures[phase].iter_mut().zip(&self.failures[phase]) {
                add(total, cell);
            }
        }
        for (total, cell) in totals.callouts_refused.iter_mut().zip(&self.callouts_refused) {
            add(total, cell);
        }
        add(&mut totals.log_lines_dropped, &self.log_lines_dropped);
        if alive {
            add(&mut totals.memory_bytes, &self.memory_bytes);
            add(&mut totals.streams, &self.streams);
            totals.instances += 1;
        }
    }
}

/// The counters of a filter: those of its live instances, and what ended ones left.
#[derive(Debug, Default)]
pub struct Observed(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    live: Vec<Arc<Counters>>,
    ended: Totals,
}

impl Observed {
    /// Counters for a new instance.
    pub(crate) fn join(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.live.push(counters.clone());
        inner.ended.instances_made += 1;
        counters
    }

    /// The instance of these counters ended.
    pub(crate) fn leave(&self, counters: &Arc<Counters>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { live, ended } = &mut *inner;
        live.retain(|known| !Arc::ptr_eq(known, counters));
        counters.add_to(ended, false);
    }

    /// A failure outside of any instance.
    pub(crate) fn failure(&self, phase: Phase, kind: FailureKind) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.ended.failures[phase as usize][kind as usize] += 1;
    }

    /// Everything added up.
    pub fn totals(&self) -> Totals {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = inner.ended.clone();
        for counters in &inner.live {
            counters.add_to(&mut totals, true);
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_instances_counted_stays() {
        let observed = Observed::default();
        let (first, second) = (observed.join(), observed.join());
        assert!(first.call(Phase::Log));
        assert!(!first.call(Phase::Log));
        second.call(Phase::Log);
        first.set_memory(10);
        second.set_memory(5);
        first.failure(Phase::Log, FailureKind::Trap);
        observed.failure(Phase::Start, FailureKind::Trap);
        first.time(Phase::Log, Duration::from_nanos(600));
        first.time(Phase::Log, Duration::from_secs(1));
        observed.leave(&first);
        let totals = observed.totals();
        assert_eq!((totals.calls[Phase::Log as usize], totals.failed(FailureKind::Trap)), (3, 2));
        assert_eq!(totals.failures[Phase::Log as usize][FailureKind::Trap as usize], 1);
        assert_eq!((totals.memory_bytes, totals.instances, totals.instances_made), (5, 1, 2));
        assert_eq!((totals.times[Phase::Log as usize][2], totals.times[Phase::Log as usize][11]), (1, 1));
        assert_eq!(totals.time_ns[Phase::Log as usize], 1_000_000_600);
    }
}
