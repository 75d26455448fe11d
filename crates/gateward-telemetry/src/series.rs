//! Which (service, route) pairs have figures of their own.
//!
//! Ids are given out when a configuration compiles and never change or go away, so counters survive reloads
//! and a request carries a plain index. Names, not entity ids, are the identity: they are the labels.

use crate::OVERFLOW_LABEL;
use rustc_hash::FxHashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Index of a (service, route) pair in every worker's slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeriesId(pub(crate) u32);

impl SeriesId {
    /// For requests that matched no route; labels are empty.
    pub const NONE: Self = Self(0);
    /// For routes beyond the limit on series.
    pub(crate) const OVERFLOW: Self = Self(1);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Ids that stand for no pair.
pub(crate) const RESERVED: usize = 2;

/// Labels of a series.
pub(crate) type Names = (Arc<str>, Arc<str>);

/// Every pair that was ever asked for. Locked by configuration compiles and scrapes only.
pub(crate) struct SeriesTable {
    limit: usize,
    inner: Mutex<Inner>,
}

struct Inner {
    /// service -> route -> id; two levels so that a look-up borrows its key.
    ids: FxHashMap<Arc<str>, FxHashMap<Arc<str>, SeriesId>>,
    names: Vec<Names>,
}

impl SeriesTable {
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.min(u32::MAX as usize - RESERVED);
        let overflow: Arc<str> = OVERFLOW_LABEL.into();
        let names = vec![("".into(), "".into()), (Arc::clone(&overflow), overflow)];
        Self { limit, inner: Mutex::new(Inner { ids: FxHashMap::default(), names }) }
    }

    pub(crate) fn id(&self, service: &str, route: &str) -> SeriesId {
        if service.is_empty() && route.is_empty() {
            return SeriesId::NONE;
        }
        let mut inner = self.lock();
        if let Some(id) = inner.ids.get(service).and_then(|routes| routes.get(route)) {
            return *id;
        }
        if inner.names.len() - RESERVED >= self.limit {
            return SeriesId::OVERFLOW;
        }
        let id = SeriesId(u32::try_from(inner.names.len()).expect("the limit is below u32::MAX"));
        let known = inner.ids.get_key_value(service).map(|(name, _)| Arc::clone(name));
        let names: Names = (known.unwrap_or_else(|| service.into()), route.into());
        inner.ids.entry(Arc::clone(&names.0)).or_default().insert(Arc::clone(&names.1), id);
        inner.names.push(names);
        id
    }

    /// Labels by id.
    pub(crate) fn names(&self) -> Vec<Names> {
        self.lock().names.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is complete or absent whatever panicked, so a poisoned table is still right.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_idempotent_and_capped() {
        let table = SeriesTable::new(2);
        let first = table.id("s", "a");
        assert_eq!(table.id("s", "a"), first);
        let second = table.id("s", "b");
        assert_ne!(first, second);
        assert_eq!(table.id("t", "a"), SeriesId::OVERFLOW);
        assert_eq!(table.id("s", "b"), second, "known pairs stay known when the table is full");
        assert_eq!(table.id("", ""), SeriesId::NONE);
        assert_eq!(&*table.names()[second.index()].1, "b");
        assert_eq!(&*table.names()[SeriesId::OVERFLOW.index()].0, OVERFLOW_LABEL);
    }
}
