//! Fixed-window counters of this node: exact across workers, lock-free, bounded.
//!
//! One table per period, made when the period is first configured. A table is a fixed array of slots; a key lives
//! in one of the 32 slots that follow its hash, its run. Two words make a slot:
//!
//! ```text
//! key   = window number (32 bits) | fingerprint of the identifier (32 bits)
//! count = tag of the key (32 bits) | requests counted (32 bits)
//! ```
//!
//! A new key takes the first slot of its run that holds a window *two or more before its own*; when there is none,
//! the first that holds the window before its own, which late requests may still ask for. Both depend on the
//! words alone, never on a thread's idea of the time, and windows in a slot only grow. So every thread that looks
//! for one key comes to the same slot, whatever other claims run beside it, and the compare-and-swap that claims
//! the slot succeeds once: a key is never in two slots, and a limit holds exactly however many threads hammer it.
//! The count belongs to the key whose tag it carries; a fresh claim makes a stale count read as zero without a
//! second write that others would have to wait for.
//!
//! What is given up:
//! - When all slots of a probe run hold live keys, the slot the key's hash names is taken over and
//!   [`Counters::evictions`] goes up; the evicted identifier starts again from zero. All keys of a table expire
//!   at the same moment, so there is no "closest to expiry" to prefer. With 131,072 slots and runs of 32
//!   (measured by simulation) no key in 10^5 meets a full run with 50,000 live identifiers in a period, one or two
//!   in 10^6 with 65,000, one in 10^4 with 80,000 and one in 250 with 100,000.
//! - A request that is counted later than one whole window after it arrived may find its window's count gone and
//!   starts it anew.
//! - Two identifiers whose runs overlap share a counter when their fingerprints agree: odds of 1 in 2^32 for each
//!   such pair. The hash is keyed at random per process, so nobody can aim for it.
//! - Counters are not shared between nodes and not kept across a restart (Kong's policy `local`).

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Slots a key may live in: 32 x 16 bytes. Looking ends at the first free slot, nearly always in the first line.
const PROBES: usize = 32;

/// 2 MiB per period in use; 12 MiB with all six, the size of Kong's `kong_rate_limiting_counters`.
const DEFAULT_SLOTS: usize = 1 << 17;

/// How many kinds of window there are.
const PERIODS: usize = 6;

/// Rate-limit counters of the node, shared by all workers and configurations.
#[derive(Debug)]
pub struct Counters {
    tables: [OnceLock<Box<[Slot]>>; PERIODS],
    slots: usize,
    seed: RandomState,
    evictions: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    key: AtomicU64,
    count: AtomicU64,
}

/// One counter: a period's table, the window within it, whose.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Index of the period, shortest first, below 6.
    pub(crate) period: usize,
    /// Number of the window on the period's calendar, at least 1.
    pub(crate) window: u32,
    /// From [`Counters::hasher`].
    pub(crate) identity: u64,
}

impl Counters {
    /// Counters with room for about 65,000 live identifiers per period.
    pub fn new() -> Self {
        Self::with_slots(DEFAULT_SLOTS)
    }

    /// Counters with this many slots per period, rounded up to a power of two and at least 32; 16 bytes each.
    /// Use twice the number of identifiers expected to be live at once.
    pub fn with_slots(slots: usize) -> Self {
        Self {
            tables: [const { OnceLock::new() }; PERIODS],
            slots: slots.max(PROBES).next_power_of_two(),
            seed: RandomState::new(),
            evictions: AtomicU64::new(0),
        }
    }

    /// How many live counters were lost to others because the table was too full. While this stands still,
    /// limits are exact.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Make the table of a period now, so that no request has to.
    pub(crate) fn prepare(&self, period: usize) {
        self.table(period);
    }

    /// Hashes identifiers for [`Key::identity`]; keyed, so that callers cannot make two collide.
    pub(crate) fn hasher(&self) -> impl Hasher + use<> {
        self.seed.build_hasher()
    }

    /// Requests counted so far.
    pub(crate) fn usage(&self, key: Key) -> u32 {
        let place = Place::of(key);
        match self.find(&place) {
            Some(slot) => place.count_in(slot.count.load(Ordering::Acquire)),
            None => 0,
        }
    }

    /// Count one request unless `limit` are counted already. `Ok`: how many were counted before this one;
    /// `Err`: the limit is reached and nothing was counted.
    pub(crate) fn take(&self, key: Key, limit: u32) -> Result<u32, u32> {
        let place = Place::of(key);
        loop {
            let slot = self.claim(&place);
            loop {
                let seen = slot.count.load(Ordering::Acquire);
                // Read after the count: a key does not come back to a slot it lost, so the count just read is
                // the key's own, or stale from before the key came.
                if slot.key.load(Ordering::Acquire) != place.key {
                    break;
                }
                let used = place.count_in(seen);
                if used >= limit {
                    return Err(used);
                }
                let next = place.tag | u64::from(used + 1);
                if slot.count.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    return Ok(used);
                }
            }
        }
    }

    /// Whether anything was counted or begun here.
    pub(crate) fn is_known(&self, key: Key) -> bool {
        let place = Place::of(key);
        self.find(&place).is_some_and(|slot| place.owns(slot.count.load(Ordering::Acquire)))
    }

    /// Start a counter at `base`, unless it is known by now. Whether it was started.
    pub(crate) fn begin(&self, key: Key, base: u32) -> bool {
        let place = Place::of(key);
        loop {
            let slot = self.claim(&place);
            loop {
                let seen = slot.count.load(Ordering::Acquire);
                if slot.key.load(Ordering::Acquire) != place.key {
                    break;
                }
                if place.owns(seen) {
                    return false;
                }
                let next = place.tag | u64::from(base);
                if slot.count.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    return true;
                }
            }
        }
    }

    /// Add to a counter that is known; to one that is not, nothing.
    pub(crate) fn add(&self, key: Key, amount: u32) {
        let place = Place::of(key);
        let Some(slot) = self.find(&place) else { return };
        let _ = slot.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |seen| {
            place.owns(seen).then(|| place.tag | u64::from(place.count_in(seen).saturating_add(amount)))
        });
    }

    /// Undo one [`Counters::take`].
    pub(crate) fn give_back(&self, key: Key) {
        let place = Place::of(key);
        let Some(slot) = self.find(&place) else { return };
        let _ = slot.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |seen| {
            let used = place.count_in(seen);
            (used > 0).then(|| place.tag | u64::from(used - 1))
        });
    }

    fn table(&self, period: usize) -> &[Slot] {
        self.tables[period].get_or_init(|| (0..self.slots).map(|_| Slot::default()).collect())
    }

    fn find(&self, place: &Place) -> Option<&Slot> {
        for slot in run(self.table(place.period), place) {
            let seen = slot.key.load(Ordering::Acquire);
            if seen == place.key {
                return Some(slot);
            }
            // Free for this key now means free ever since: the key would have been put here.
            if place.age_of(seen) >= 2 {
                return None;
            }
        }
        None
    }

    /// The slot of the key, taken if the key had none.
    fn claim(&self, place: &Place) -> &Slot {
        let table = self.table(place.period);
        'again: loop {
            let mut second_choice = None;
            for slot in run(table, place) {
                let seen = slot.key.load(Ordering::Acquire);
                if seen == place.key {
                    return slot;
                }
                match place.age_of(seen) {
                    0 => {}
                    1 => second_choice = second_choice.or(Some((slot, seen))),
                    _ if slot.key.compare_exchange(seen, place.key, Ordering::AcqRel, Ordering::Acquire).is_ok() => {
                        return slot;
                    }
                    // The winner may have claimed it for this very key.
                    _ => continue 'again,
                }
            }
            if let Some((slot, seen)) = second_choice {
                if slot.key.compare_exchange(seen, place.key, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    return slot;
                }
                continue 'again;
            }
            let victim = &table[(place.start + place.victim) & (table.len() - 1)];
            let seen = victim.key.load(Ordering::Acquire);
            if seen == place.key {
                return victim;
            }
            if victim.key.compare_exchange(seen, place.key, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                self.evictions.fetch_add(1, Ordering::Relaxed);
                return victim;
            }
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

fn run<'t>(table: &'t [Slot], place: &Place) -> impl Iterator<Item = &'t Slot> + use<'t> {
    let (start, mask) = (place.start, table.len() - 1);
    (0..PROBES).map(move |step| &table[(start + step) & mask])
}

/// A [`Key`] in the terms of the table.
struct Place {
    period: usize,
    window: u32,
    key: u64,
    /// In the upper half, ready to be joined with a count.
    tag: u64,
    start: usize,
    victim: usize,
}

impl Place {
    fn of(key: Key) -> Self {
        // The window takes part, so that neighbours in one window are strangers in the next.
        let spread = mix(key.identity ^ mix(u64::from(key.window)));
        let fingerprint = key.identity >> 32;
        Self {
            period: key.period,
            window: key.window,
            key: (u64::from(key.window) << 32) | fingerprint,
            tag: ((fingerprint ^ u64::from(key.window)) << 32) ^ (spread & 0xffff_0000_0000_0000),
            start: spread as u32 as usize,
            victim: (spread >> 32) as usize % PROBES,
        }
    }

    /// How many windows the key in a slot is behind this one; 0 for the same window and later ones.
    fn age_of(&self, key_word: u64) -> u32 {
        self.window.saturating_sub((key_word >> 32) as u32)
    }

    /// Whether a count is this key's.
    fn owns(&self, count_word: u64) -> bool {
        count_word & 0xffff_ffff_0000_0000 == self.tag
    }

    fn count_in(&self, count_word: u64) -> u32 {
        if self.owns(count_word) { count_word as u32 } else { 0 }
    }
}

/// The finaliser of SplitMix64: every input bit reaches every output bit.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::sync::atomic::AtomicU32;

    fn key(counters: &Counters, period: usize, window: u32, name: u64) -> Key {
        let mut hasher = counters.hasher();
        hasher.write_u64(name);
        Key { period, window, identity: hasher.finish() }
    }

    #[test]
    fn threads_on_one_key_are_admitted_exactly_up_to_the_limit() {
        const LIMIT: u32 = 1_000;
        let counters = Counters::with_slots(64);
        for window in 1..=20 {
            let admitted = AtomicU32::new(0);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let key = key(&counters, 0, window, 7);
                        for _ in 0..400 {
                            if counters.take(key, LIMIT).is_ok() {
                                admitted.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    });
                }
            });
            assert_eq!(admitted.into_inner(), LIMIT, "window {window}");
            assert_eq!(counters.usage(key(&counters, 0, window, 7)), LIMIT);
        }
        assert_eq!(counters.evictions(), 0);
    }

    #[test]
    fn limits_are_exact_while_claims_of_new_windows_race_for_the_slots_of_old_ones() {
        const LIMIT: u32 = 5;
        const THREADS: usize = 4;
        const KEYS: u64 = 24;
        let counters = Counters::with_slots(64);
        let barrier = std::sync::Barrier::new(THREADS);
        let admitted = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for window in 1..=100 {
                        barrier.wait();
                        for name in (0..KEYS).cycle().take(KEYS as usize * LIMIT as usize) {
                            let taken = counters.take(key(&counters, 1, window, name), LIMIT).is_ok();
                            admitted.fetch_add(taken.into(), Ordering::Relaxed);
                        }
                        barrier.wait();
                        assert_eq!(admitted.load(Ordering::Relaxed), window * LIMIT * KEYS as u32, "window {window}");
                    }
                });
            }
        });
        assert_eq!(counters.evictions(), 0);
    }

    #[test]
    fn a_late_request_counts_in_its_own_window() {
        let counters = Counters::with_slots(64);
        assert_eq!(counters.take(key(&counters, 0, 10, 1), 1), Ok(0));
        assert_eq!(counters.take(key(&counters, 0, 11, 2), 1), Ok(0));
        assert_eq!(counters.take(key(&counters, 0, 10, 1), 1), Err(1));
        assert_eq!(counters.take(key(&counters, 0, 10, 2), 1), Ok(0));
        assert_eq!(counters.usage(key(&counters, 0, 11, 2)), 1);
    }

    #[test]
    fn a_full_run_evicts_and_counts_it() {
        let counters = Counters::with_slots(32);
        for name in 0..33 {
            assert_eq!(counters.take(key(&counters, 2, 9, name), 1), Ok(0));
        }
        assert_eq!(counters.evictions(), 1);
        // The next window finds every slot free again.
        for name in 0..32 {
            assert_eq!(counters.take(key(&counters, 2, 10, name), 1), Ok(0));
        }
        assert_eq!(counters.evictions(), 1);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let counters = Counters::with_slots(32);
        let key = key(&counters, 0, 1, 1);
        counters.give_back(key);
        assert_eq!(counters.take(key, 1), Ok(0));
        assert_eq!(counters.take(key, 1), Err(1));
        counters.give_back(key);
        assert_eq!(counters.take(key, 1), Ok(0));
    }

    #[test]
    fn a_counter_begins_once_and_grows_by_what_others_counted() {
        let counters = Counters::with_slots(32);
        let key = key(&counters, 0, 1, 1);
        counters.add(key, 5);
        assert!(!counters.is_known(key), "nothing is added to what is not known");
        assert!(counters.begin(key, 3));
        assert!(!counters.begin(key, 9), "it is known");
        assert_eq!(counters.take(key, 10), Ok(3));
        counters.add(key, 4);
        assert_eq!((counters.is_known(key), counters.usage(key)), (true, 8));
        counters.add(key, u32::MAX);
        assert_eq!(counters.take(key, u32::MAX), Err(u32::MAX));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec((0u32..3, 0usize..6, 0u64..20, 1u32..5, any::<bool>()), 1..200)) {
            let counters = Counters::with_slots(1024);
            let mut reference: HashMap<(usize, u32, u64), u32> = HashMap::new();
            let mut window = 1;
            for (advance, period, name, limit, back) in steps {
                window += u32::from(advance == 2);
                let key = key(&counters, period, window, name);
                let used = reference.entry((period, window, name)).or_default();
                prop_assert_eq!(counters.usage(key), *used);
                if back {
                    counters.give_back(key);
                    *used = used.saturating_sub(1);
                } else {
                    let expected = if *used >= limit { Err(*used) } else { Ok(*used) };
                    prop_assert_eq!(counters.take(key, limit), expected);
                    *used += u32::from(expected.is_ok());
                }
            }
            prop_assert_eq!(counters.evictions(), 0);
        }
    }
}
