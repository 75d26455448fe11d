//! Figures per (series, consumer), for the prometheus plugin's `per_consumer`.
//!
//! Consumers are not known when a configuration compiles (they may be created by the thousand), so these are
//! found by name: the worker keeps the index, readers see only the slots. A pair is allocated when it is first
//! seen; beyond the limit its requests count under the series' overflow consumer.

use crate::SeriesId;
use crate::cells::{Sparse, Tally};
use crate::codes::CodeTable;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// What is counted for a (service, route, consumer).
#[derive(Debug, Default)]
pub(crate) struct TrafficTally {
    pub(crate) codes: CodeTable,
    pub(crate) bytes_in: Tally,
    pub(crate) bytes_out: Tally,
}

/// One consumer's share of a series, on cache lines of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct ConsumerSlot {
    pub(crate) series: SeriesId,
    pub(crate) consumer: Arc<str>,
    pub(crate) traffic: TrafficTally,
}

/// Where each pair's slot is. Owned by the worker that writes them.
#[derive(Debug, Default)]
pub(crate) struct ConsumerIndex {
    slots: FxHashMap<SeriesId, FxHashMap<Arc<str>, usize>>,
    used: usize,
}

impl ConsumerIndex {
    /// The index of slots an earlier handle of the same worker filled.
    pub(crate) fn of(slots: &Sparse<ConsumerSlot>) -> Self {
        let mut index = Self::default();
        for (at, slot) in slots.iter() {
            index.insert(slot.series, Arc::clone(&slot.consumer), at);
        }
        index
    }

    fn insert(&mut self, series: SeriesId, consumer: Arc<str>, at: usize) {
        self.slots.entry(series).or_default().insert(consumer, at);
        self.used = self.used.max(at + 1);
    }

    /// The figures of a pair; `None` when it is new and `limit` pairs are taken.
    pub(crate) fn traffic<'a>(
        &mut self,
        slots: &'a Sparse<ConsumerSlot>,
        limit: usize,
        series: SeriesId,
        consumer: &str,
    ) -> Option<&'a TrafficTally> {
        let known = self.slots.get(&series).and_then(|consumers| consumers.get(consumer)).copied();
        let at = known.unwrap_or(self.used);
        if at >= limit {
            return None;
        }
        let create = || ConsumerSlot { series, consumer: consumer.into(), traffic: TrafficTally::default() };
        let slot = slots.entry_with(at, create)?;
        if known.is_none() {
            self.insert(series, Arc::clone(&slot.consumer), at);
        }
        Some(&slot.traffic)
    }
}
