//! Requests of one series by (status code, source).
//!
//! Most routes answer with a handful of codes, so a dozen slots are inline; a second, larger table is allocated
//! for the others, and what even that cannot hold is counted as "other": an upstream that answers with every
//! number from 100 to 999 must not grow the gateway.

use crate::cells::Tally;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

const SMALL: usize = 12;
const LARGE: usize = 64;
/// Set in a key when the upstream produced the response; status codes are below it.
const FROM_SERVICE: u16 = 1 << 15;

/// Counts by (status, whether the upstream answered).
#[derive(Debug, Default)]
pub(crate) struct CodeTable {
    small: Slots<SMALL>,
    large: OnceLock<Box<Slots<LARGE>>>,
    other: Tally,
}

impl CodeTable {
    /// Counts one response. A status no HTTP response can have (0, or above 999) counts as "other".
    #[inline]
    pub(crate) fn count(&self, status: u16, from_service: bool) {
        if status == 0 || status > 999 {
            return self.other.add(1);
        }
        let key = status | if from_service { FROM_SERVICE } else { 0 };
        match self.small.slot(key) {
            Some(tally) => tally.add(1),
            None => self.count_rare(key),
        }
    }

    #[cold]
    fn count_rare(&self, key: u16) {
        let large = self.large.get_or_init(Box::default);
        large.slot(key).unwrap_or(&self.other).add(1);
    }

    /// Calls `each` with (status, from the service, count); status `None` stands for "other".
    pub(crate) fn for_each(&self, mut each: impl FnMut(Option<u16>, bool, u64)) {
        let mut report = |key: u16, n| each(Some(key & !FROM_SERVICE), key & FROM_SERVICE != 0, n);
        self.small.for_each(&mut report);
        if let Some(large) = self.large.get() {
            large.for_each(&mut report);
        }
        if self.other.value() > 0 {
            each(None, false, self.other.value());
        }
    }
}

/// An open-addressed table of `N` counters; key 0 is an empty slot.
#[derive(Debug)]
struct Slots<const N: usize> {
    keys: [AtomicU16; N],
    tallies: [Tally; N],
}

impl<const N: usize> Default for Slots<N> {
    fn default() -> Self {
        Self { keys: [const { AtomicU16::new(0) }; N], tallies: [const { Tally::new() }; N] }
    }
}

impl<const N: usize> Slots<N> {
    /// The counter of `key`, claimed if there is room.
    #[inline]
    fn slot(&self, key: u16) -> Option<&Tally> {
        // Services' and the gateway's codes start apart: 200 and 200-from-service differ only in the top bit.
        let start = usize::from(key ^ (key >> 13)) % N;
        for step in 0..N {
            let at = (start + step) % N;
            match self.keys[at].load(Relaxed) {
                0 => self.keys[at].store(key, Relaxed),
                taken if taken == key => {}
                _ => continue,
            }
            return Some(&self.tallies[at]);
        }
        None
    }

    fn for_each(&self, each: &mut impl FnMut(u16, u64)) {
        for (key, tally) in self.keys.iter().zip(&self.tallies) {
            let (key, count) = (key.load(Relaxed), tally.value());
            if key != 0 && count > 0 {
                each(key, count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn contents(table: &CodeTable) -> BTreeMap<(Option<u16>, bool), u64> {
        let mut all = BTreeMap::new();
        table.for_each(|status, service, n| *all.entry((status, service)).or_default() += n);
        all
    }

    #[test]
    fn codes_and_sources_are_counted_apart() {
        let table = CodeTable::default();
        for (status, service) in [(200, true), (200, true), (200, false), (404, true)] {
            table.count(status, service);
        }
        let expected = [((Some(200), true), 2), ((Some(200), false), 1), ((Some(404), true), 1)];
        assert_eq!(contents(&table), BTreeMap::from(expected));
    }

    #[test]
    fn an_upstream_with_every_code_is_bounded_and_loses_nothing() {
        let table = CodeTable::default();
        for _ in 0..3 {
            (0..1200).for_each(|status| table.count(status, true));
        }
        let all = contents(&table);
        assert_eq!(all.len(), SMALL + LARGE + 1);
        assert_eq!(all.values().sum::<u64>(), 3 * 1200);
        assert_eq!(all[&(Some(1), true)], 3);
    }
}
