//! Which zones are served: found by the longest suffix of a name, replaced as a whole, one zone at a time.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use gateward_zone::{Name, ZoneView};

use super::zone::Zone;
use crate::hash;

/// Zones per shard of the map when it is built.
const ZONES_PER_SHARD: usize = 16;

/// What is served for an origin.
pub struct Slot {
    origin: Name,
    hash: u64,
    /// A small number for as long as the slot exists, by which workers keep what they count per zone.
    id: u32,
    zone: ArcSwapOption<Zone>,
    limit_qps: std::sync::atomic::AtomicU32,
}

impl Slot {
    /// The origin.
    #[must_use]
    pub fn origin(&self) -> &Name {
        &self.origin
    }

    /// The slot's number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The version that is served; `None` when the server is asked for the zone but has nothing valid (RFC 1035, 4.3.5: expired).
    #[must_use]
    pub fn zone(&self) -> Option<Arc<Zone>> {
        self.zone.load_full()
    }

    #[inline]
    pub(crate) fn current(&self) -> arc_swap::Guard<Option<Arc<Zone>>> {
        self.zone.load()
    }

    /// Queries per second that the server answers for this zone; 0 is no limit.
    #[inline]
    #[must_use]
    pub fn limit_qps(&self) -> u32 {
        self.limit_qps.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Limits the queries per second that the server answers for this zone, over UDP and over streams; 0 lifts the limit.
    pub fn set_limit_qps(&self, limit: u32) {
        self.limit_qps.store(limit, std::sync::atomic::Ordering::Relaxed);
    }
}

/// An immutable index of slots.
#[derive(Clone, Default)]
pub struct ZoneMap {
    shards: Box<[Arc<[Arc<Slot>]>]>,
    /// How many zones have origins of each number of labels.
    depths: Vec<u32>,
    count: usize,
}

impl ZoneMap {
    fn shard(&self, hash: u64) -> usize {
        usize::try_from(hash & (self.shards.len() as u64 - 1)).expect("shards are counted in memory")
    }

    /// The slot of exactly this origin (lower-case wire).
    #[inline]
    #[must_use]
    pub(crate) fn get(&self, hash: u64, origin: &[u8]) -> Option<&Arc<Slot>> {
        if self.shards.is_empty() {
            return None;
        }
        self.shards[self.shard(hash)].iter().find(|slot| slot.hash == hash && slot.origin.as_wire() == origin)
    }

    /// Whether any origin has `labels` labels: what saves most of the look-ups of long names.
    #[inline]
    pub(crate) fn has_depth(&self, labels: usize) -> bool {
        self.depths.get(labels).is_some_and(|count| *count > 0)
    }

    /// Most labels of any origin.
    #[inline]
    pub(crate) fn max_depth(&self) -> usize {
        self.depths.len().saturating_sub(1)
    }

    /// All slots, in no order.
    pub fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// The slot of an origin.
    #[must_use]
    pub fn slot(&self, origin: &Name) -> Option<&Arc<Slot>> {
        self.get(hash::name(origin.as_wire()), origin.as_wire())
    }

    /// The slot of the zone that `name` is in: the longest origin that is a suffix of it.
    #[must_use]
    pub fn closest(&self, name: &Name) -> Option<&Arc<Slot>> {
        let mut above = Some(name.clone());
        while let Some(name) = above {
            if let Some(slot) = self.slot(&name) {
                return Some(slot);
            }
            above = name.parent();
        }
        None
    }

    /// How many zones there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no zone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn from_slots(slots: Vec<Arc<Slot>>) -> ZoneMap {
        let shards = (slots.len() / ZONES_PER_SHARD).next_power_of_two();
        let mut map = ZoneMap { shards: vec![Arc::from([]); shards].into(), depths: Vec::new(), count: 0 };
        let mut lists = vec![Vec::new(); shards];
        for slot in slots {
            map.count_depth(&slot.origin);
            lists[map.shard(slot.hash)].push(slot);
        }
        map.shards = lists.into_iter().map(Arc::from).collect();
        map
    }

    fn count_depth(&mut self, origin: &Name) {
        let labels = origin.label_count();
        if self.depths.len() <= labels {
            self.depths.resize(labels + 1, 0);
        }
        self.depths[labels] += 1;
        self.count += 1;
    }

    fn with(&self, slot: Arc<Slot>) -> ZoneMap {
        if self.shards.is_empty() || self.count >= self.shards.len() * ZONES_PER_SHARD * 2 {
            return ZoneMap::from_slots(self.slots().cloned().chain([slot]).collect());
        }
        let mut next = self.clone();
        next.count_depth(&slot.origin);
        let at = next.shard(slot.hash);
        next.shards[at] = next.shards[at].iter().cloned().chain([slot]).collect();
        next
    }

    fn without(&self, slot: &Slot) -> ZoneMap {
        let mut next = self.clone();
        let at = next.shard(slot.hash);
        next.shards[at] = next.shards[at].iter().filter(|other| other.id != slot.id).cloned().collect();
        let labels = slot.origin.label_count();
        next.depths[labels] -= 1;
        while next.depths.last() == Some(&0) {
            next.depths.pop();
        }
        next.count -= 1;
        next
    }
}

/// The zones of a server: readers take a [`ZoneMap`], writers put zones in one at a time.
#[derive(Default)]
pub struct Zones {
    map: ArcSwap<ZoneMap>,
    writing: std::sync::Mutex<Writer>,
}

#[derive(Default)]
struct Writer {
    /// Numbers that were given back.
    free: Vec<u32>,
    next: u32,
    /// Versions that were replaced and that a query may still look at: they are let go of here, not on a worker.
    retired: Vec<Arc<Zone>>,
}

impl Writer {
    fn id(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn retire(&mut self, zone: Option<Arc<Zone>>) {
        self.retired.extend(zone);
        self.retired.retain(|zone| Arc::strong_count(zone) > 1);
    }
}

impl Zones {
    /// No zones.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The index as it is now; for writers and tests. Workers keep an [`arc_swap::Cache`] of it.
    #[must_use]
    pub fn map(&self) -> Arc<ZoneMap> {
        self.map.load_full()
    }

    /// What workers cache.
    pub(crate) fn shared(&self) -> &ArcSwap<ZoneMap> {
        &self.map
    }

    /// Serves `zone` from the next query on; replaces the version that was served for its origin, if any.
    pub fn put(&self, zone: Arc<Zone>) {
        self.put_all(vec![zone]);
    }

    /// Serves many zones from the next query on.
    pub fn put_all(&self, zones: Vec<Arc<Zone>>) {
        let mut writer = self.writer();
        let map = self.map.load_full();
        let mut added = Vec::new();
        for zone in zones {
            match map.slot(zone.origin()) {
                Some(slot) => writer.retire(slot.zone.swap(Some(zone))),
                None => added.push(new_slot(&mut writer, zone.origin().clone(), Some(zone))),
            }
        }
        self.add_slots(&map, added);
    }

    /// The server is responsible for `origin` but has no valid version: queries get SERVFAIL.
    pub fn put_empty(&self, origin: &Name) {
        let mut writer = self.writer();
        let map = self.map.load_full();
        match map.slot(origin) {
            Some(slot) => writer.retire(slot.zone.swap(None)),
            None => {
                let slot = new_slot(&mut writer, origin.clone(), None);
                self.add_slots(&map, vec![slot]);
            }
        }
    }

    /// Serves `origin` no more. `false` if it was not served.
    pub fn remove(&self, origin: &Name) -> bool {
        let mut writer = self.writer();
        let map = self.map.load_full();
        let Some(slot) = map.slot(origin) else { return false };
        self.map.store(Arc::new(map.without(slot)));
        writer.free.push(slot.id);
        writer.retire(slot.zone.load_full());
        true
    }

    fn add_slots(&self, map: &ZoneMap, mut added: Vec<Arc<Slot>>) {
        match added.len() {
            0 => {}
            1 => self.map.store(Arc::new(map.with(added.remove(0)))),
            _ => self.map.store(Arc::new(ZoneMap::from_slots(map.slots().cloned().chain(added).collect()))),
        }
    }

    fn writer(&self) -> std::sync::MutexGuard<'_, Writer> {
        self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn new_slot(writer: &mut Writer, origin: Name, zone: Option<Arc<Zone>>) -> Arc<Slot> {
    Arc::new(Slot {
        hash: hash::name(origin.as_wire()),
        origin,
        id: writer.id(),
        zone: ArcSwapOption::from(zone),
        limit_qps: 0.into(),
    })
}
