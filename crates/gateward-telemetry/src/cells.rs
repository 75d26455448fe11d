//! Building blocks of a slab: a counter with one writer, and a sparse array that grows under its readers.
//!
//! A read-modify-write instruction costs several nanoseconds even without contention. Each cell here has one
//! writing thread, so a relaxed load and store are exact, and readers see a value that was true a moment ago.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// A monotonic counter written by one thread and read by any.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `n`; wraps at 2^64.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A level written by one thread and read by any.
#[derive(Debug, Default)]
pub(crate) struct Level(AtomicI64);

impl Level {
    #[inline]
    pub(crate) fn add(&self, n: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

const PAGE: usize = 256;

type Page<T> = Box<[OnceLock<Box<T>>]>;

/// A fixed-capacity array whose pages and entries are allocated on first use and never move.
#[derive(Debug)]
pub(crate) struct Sparse<T> {
    pages: Box<[OnceLock<Page<T>>]>,
}

impl<T: Default> Sparse<T> {
    /// The entry at `index`, created empty on first use; `None` beyond the capacity.
    #[inline]
    pub(crate) fn entry(&self, index: usize) -> Option<&T> {
        self.entry_with(index, T::default)
    }
}

impl<T> Sparse<T> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { pages: empty(capacity.div_ceil(PAGE)) }
    }

    /// The entry at `index`, created by `create` on first use; `None` beyond the capacity.
    #[inline]
    pub(crate) fn entry_with(&self, index: usize, create: impl FnOnce() -> T) -> Option<&T> {
        let page = self.pages.get(index / PAGE)?.get_or_init(|| empty(PAGE));
        Some(page.get(index % PAGE)?.get_or_init(|| Box::new(create())))
    }

    /// Entries that exist, with their index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let pages = self.pages.iter().enumerate();
        pages.filter_map(|(number, page)| Some((number, page.get()?))).flat_map(|(number, page)| {
            let entries = page.iter().enumerate();
            entries.filter_map(move |(at, entry)| Some((number * PAGE + at, entry.get()?.as_ref())))
        })
    }
}

fn empty<T>(length: usize) -> Box<[OnceLock<T>]> {
    std::iter::repeat_with(OnceLock::new).take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_allocates_only_what_is_touched_and_refuses_what_is_beyond() {
        let sparse = Sparse::<Tally>::with_capacity(1000);
        sparse.entry(999).expect("within capacity").add(2);
        sparse.entry(3).expect("within capacity").add(1);
        assert!(sparse.entry(1024).is_none());
        let seen: Vec<_> = sparse.iter().map(|(index, tally)| (index, tally.value())).collect();
        assert_eq!(seen, [(3, 1), (999, 2)]);
        assert_eq!(sparse.pages.iter().filter(|page| page.get().is_some()).count(), 2);
    }
}
