//! A configured plugin, and what is counted of it.

use crate::code::Code;
use crate::functions;
use crate::state::Phase;
use crate::timing::{TIMED_ONE_IN, Timed, Times, Timing};
use gateward_model::PluginConfig;
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

/// What a handler is, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Info {
    /// Kong's PRIORITY.
    pub(crate) priority: i32,
    /// Its VERSION, if it says one.
    pub(crate) version: Option<String>,
    /// The phases it has functions for, as bits of [`Phase`].
    pub(crate) phases: u32,
}

impl Info {
    pub(crate) fn has(&self, phase: Phase) -> bool {
        self.phases & phase as u32 != 0
    }
}

impl Info {
    /// Of `plugin` with this configuration: code in a configuration takes part in the phases it is given for.
    pub(crate) fn narrowed(self, plugin: &str, config: &Value) -> Self {
        if !functions::NAMES.contains(&plugin) {
            return self;
        }
        let used = |phase: &&Phase| config[phase.as_str()].as_array().is_some_and(|chunks| !chunks.is_empty());
        let phases = Phase::ALL.iter().filter(used).fold(0, |phases, phase| phases | *phase as u32);
        Self { phases: self.phases & phases, ..self }
    }
}

/// One plugin with one configuration.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) code: Arc<Code>,
    /// Unique among the instances of the code.
    pub(crate) number: u32,
    pub(crate) entity: Arc<PluginConfig>,
    pub(crate) info: Info,
    /// Shared by all instances of the plugin, so that they only grow.
    pub(crate) counts: Arc<Counts>,
}

/// A plugin and all its instances in one snapshot.
#[derive(Debug)]
pub(crate) struct Configured {
    pub(crate) name: String,
    /// At least one.
    pub(crate) instances: Vec<Arc<Instance>>,
}

/// Counted of a plugin by all workers. Read with `Relaxed` loads.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// One for each machine that runs the plugin, and of machines that are gone.
    calls: Mutex<Vec<Arc<Calls>>>,
    /// Calls that ended with an error, by phase.
    errors: [AtomicU64; Phase::ALL.len()],
    /// Calls that ran too long.
    stopped: AtomicU64,
    timings: [Arc<Timing>; Phase::ALL.len()],
}

/// The calls of one machine, by phase in the order of [`Phase::ALL`]. Only the machine writes, so that workers do not take a
/// cache line from each other with every request.
#[derive(Debug, Default)]
pub(crate) struct Calls([AtomicU64; Phase::ALL.len()]);

impl Calls {
    /// Count a call; how many there were before.
    fn one_more(&self, phase: Phase) -> u64 {
        let count = &self.0[phase.index()];
        let before = count.load(Ordering::Relaxed);
        count.store(before + 1, Ordering::Relaxed);
        before
    }
}

impl Counts {
    /// Where a machine counts its calls: in a place of its own, or of a machine that is gone.
    pub(crate) fn join(&self) -> Arc<Calls> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = calls.iter().find(|calls| Arc::strong_count(calls) == 1) {
            // What the machine counted before it let go of it.
            fence(Ordering::Acquire);
            return free.clone();
        }
        let own = Arc::<Calls>::default();
        calls.push(own.clone());
        own
    }

    /// Count a call in a machine's place; what times it, if it is one to time.
    pub(crate) fn called(&self, calls: &Calls, phase: Phase) -> Option<Timed> {
        let before = calls.one_more(phase);
        before.is_multiple_of(TIMED_ONE_IN).then(|| Timed::new(self.timings[phase.index()].clone()))
    }

    pub(crate) fn failed(&self, phase: Phase) {
        self.errors[phase.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn was_stopped(&self) {
        self.stopped.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls in a phase.
    pub(crate) fn calls(&self, phase: Phase) -> u64 {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().map(|calls| calls.0[phase.index()].load(Ordering::Relaxed)).sum()
    }

    /// Of those, how many ended with an error.
    pub(crate) fn errors(&self, phase: Phase) -> u64 {
        self.errors[phase.index()].load(Ordering::Relaxed)
    }

    /// Calls that ran too long.
    pub(crate) fn stopped(&self) -> u64 {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// What was counted of one plugin, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginTotals {
    /// The plugin.
    pub name: String,
    /// By phase: its name, calls, and calls that ended with an error; phases without calls are left out.
    pub phases: Vec<(&'static str, u64, u64)>,
    /// Calls that were stopped because they ran too long.
    pub stopped: u64,
    /// Timed calls by phase: its name, counts by bucket, and nanoseconds of all; phases without any are left out.
    pub times: Vec<(&'static str, Times, u64)>,
}

impl PluginTotals {
    pub(crate) fn of(name: &str, counts: &Counts) -> Self {
        let phases = Phase::ALL.map(|phase| (phase.as_str(), counts.calls(phase), counts.errors(phase)));
        let times = Phase::ALL.iter().zip(&counts.timings).map(|(phase, timing)| {
            let (times, ns) = timing.read();
            (phase.as_str(), times, ns)
        });
        Self {
            name: name.to_owned(),
            phases: phases.into_iter().filter(|(_, calls, _)| *calls > 0).collect(),
            stopped: counts.stopped(),
            times: times.filter(|(_, times, _)| times.iter().any(|count| *count > 0)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing;
    use std::time::{Duration, Instant};

    /// 60 us.
    fn spend() {
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(60) {}
    }

    #[test]
    fn one_call_in_many_is_timed_and_its_parts_are_added_up() {
        let counts = Counts::default();
        let calls = counts.join();
        for _ in 0..TIMED_ONE_IN + 1 {
            let timed = counts.called(&calls, Phase::Access);
            for _ in 0..2 {
                timing::during(timed.as_ref(), spend);
            }
        }
        assert!(counts.called(&calls, Phase::Log).is_some(), "the first one");
        let (times, ns) = counts.timings[Phase::Access.index()].read();
        assert_eq!(times.iter().sum::<u64>(), 2);
        assert_eq!(times[..7].iter().sum::<u64>(), 0, "each took at least 120 us: {times:?}");
        assert!(ns >= 240_000, "{ns}");
        assert_eq!(counts.timings[Phase::Log.index()].read().0.iter().sum::<u64>(), 0, "it never ran");
    }

    #[test]
    fn machines_count_apart_and_what_those_that_are_gone_counted_stays() {
        let counts = Counts::default();
        let (one, other) = (counts.join(), counts.join());
        counts.called(&one, Phase::Access);
        counts.called(&other, Phase::Access);
        assert_eq!((one.0[Phase::Access.index()].load(Ordering::Relaxed), counts.calls(Phase::Access)), (1, 2));
        drop(one);
        let next = counts.join();
        counts.called(&next, Phase::Access);
        assert_eq!((counts.calls(Phase::Access), counts.calls(Phase::Log)), (3, 0));
        assert_eq!(counts.calls.lock().unwrap().len(), 2, "a place is used again");
    }
}
