//! One version of a zone: never changed, shared by reference; a change makes the next version and shares what it leaves alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateward_zone::{Change, Name, Record, RecordSet, Rtype, ZoneView};

use super::read;
use super::render::{RenderError, Rendered, render};
use super::shard::{self, Draft, Node, Set, Shard, ShardBuilder};
use crate::hash;

/// Names per shard when a zone is built.
const NAMES_PER_SHARD: usize = 32;
/// Names per shard, on average, from which on a zone is built anew.
const MAX_NAMES_PER_SHARD: usize = 128;
/// Shards in a group: a changed zone copies the list of groups and one group's list.
const GROUP: usize = 128;

/// Why records do not make a zone, or a change does not fit one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// There is no SOA record at the apex, or more than one.
    #[error("{0} must have exactly one SOA record")]
    Soa(Name),
    /// A record whose owner is not in the zone.
    #[error("{0} is not in the zone {1}")]
    OutOfZone(Name, Name),
    /// A set of records that no message can hold, or malformed data.
    #[error("{0} {1}: {2}")]
    Set(Name, Rtype, RenderError),
    /// A record to be removed is not there.
    #[error("{0} has no such {1} record to remove")]
    Missing(Name, Rtype),
}

/// A version of a zone.
pub struct Zone {
    origin: Name,
    origin_hash: u64,
    serial: u32,
    records: usize,
    names: usize,
    shard_mask: u64,
    groups: Box<[Arc<[Shard]>]>,
    /// The SOA record as negative answers carry it: its TTL is the lesser of the record's and its MINIMUM (RFC 2308, 3).
    negative: Rendered,
}

impl Zone {
    /// Builds a zone from all its records.
    ///
    /// # Errors
    /// [`ZoneError`] when the SOA is missing or double, a record lies outside or cannot be rendered.
    pub fn build(origin: &Name, mut records: Vec<Record>) -> Result<Zone, ZoneError> {
        // A stable sort keeps the order in which a set's records were written.
        records.sort_by(|a, b| a.owner.cmp(&b.owner).then(a.rtype.to_int().cmp(&b.rtype.to_int())));
        let names = records.chunk_by(|a, b| a.owner == b.owner).count();
        let shards = (names / NAMES_PER_SHARD).next_power_of_two();
        let mut filler = Filler {
            origin,
            shards: (0..shards).map(|_| ShardBuilder::default()).collect(),
            open: Vec::new(),
            records: 0,
            names: 0,
        };
        let mut soa = None;
        let mut records = records.into_iter().peekable();
        while let Some(first) = records.next() {
            let owner = first.owner.clone();
            let mut sets: Vec<RecordSet> = Vec::new();
            add(&mut sets, first);
            while let Some(next) = records.next_if(|next| next.owner == owner) {
                add(&mut sets, next);
            }
            if owner == *origin {
                soa = sets.iter().find(|set| set.rtype == Rtype::SOA).cloned();
            }
            filler.name(&owner, &Draft { sets, ..Draft::default() })?;
        }
        filler.close_to(None);
        let soa = soa.filter(|set| set.data.len() == 1).ok_or_else(|| ZoneError::Soa(origin.clone()))?;
        let mut zone = Zone {
            origin: origin.clone(),
            origin_hash: hash::name(origin.as_wire()),
            serial: 0,
            records: filler.records,
            names: filler.names,
            shard_mask: filler.shards.len() as u64 - 1,
            groups: group(&filler.shards.into_iter().map(ShardBuilder::finish).collect::<Vec<_>>()),
            negative: Rendered::default(),
        };
        zone.adopt_soa(&soa)?;
        Ok(zone)
    }

    /// Takes serial and negative answer from the apex's SOA.
    fn adopt_soa(&mut self, set: &RecordSet) -> Result<(), ZoneError> {
        let broken = |error| ZoneError::Set(self.origin.clone(), Rtype::SOA, error);
        let data = set.data.first().ok_or_else(|| ZoneError::Soa(self.origin.clone()))?.as_wire();
        // Two names, then serial, refresh, retry, expire, minimum (RFC 1035, 3.3.13).
        let numbers = data.len().checked_sub(20).map(|at| &data[at..]).ok_or_else(|| broken(RenderError::BadData))?;
        let number =
            |index: usize| u32::from_be_bytes(numbers[index * 4..index * 4 + 4].try_into().expect("four octets"));
        self.negative = render(&self.origin, &self.origin, set, set.ttl.min(number(4))).map_err(broken)?;
        self.serial = number(0);
        Ok(())
    }

    /// The next version: `changes` made one after the other. Sets are found by type and data; an added record's TTL becomes the
    /// TTL of its set. Names that nothing stands at or below any more are gone.
    ///
    /// # Errors
    /// [`ZoneError`]; this version stays as it is.
    pub fn with(&self, changes: &[Change]) -> Result<Zone, ZoneError> {
        let mut edit = Edit { zone: self, drafts: BTreeMap::new() };
        let mut records = self.records;
        for change in changes {
            let record = change.record();
            if !record.owner.is_in(&self.origin) {
                return Err(ZoneError::OutOfZone(record.owner.clone(), self.origin.clone()));
            }
            let draft = edit.draft(&record.owner);
            match change {
                Change::Add(record) => records += usize::from(add(&mut draft.sets, record.clone())),
                Change::Remove(record) => {
                    remove(&mut draft.sets, record)
                        .ok_or_else(|| ZoneError::Missing(record.owner.clone(), record.rtype))?;
                    records -= 1;
                }
            }
        }
        let names = edit.settle();
        let drafts = edit.drafts;
        if names > MAX_NAMES_PER_SHARD * self.shard_count() {
            return self.rebuilt(&drafts);
        }
        let mut next = Zone {
            origin: self.origin.clone(),
            origin_hash: self.origin_hash,
            serial: self.serial,
            records,
            names,
            shard_mask: self.shard_mask,
            groups: self.groups.clone(),
            negative: Rendered::default(),
        };
        next.replace(&drafts)?;
        let soa = next
            .set(&self.origin, Rtype::SOA)
            .filter(|set| set.data.len() == 1)
            .ok_or_else(|| ZoneError::Soa(self.origin.clone()))?;
        next.adopt_soa(&soa)?;
        Ok(next)
    }

    /// Packs the shards that hold a changed name again.
    fn replace(&mut self, drafts: &BTreeMap<Name, Draft>) -> Result<(), ZoneError> {
        let mut touched: BTreeMap<u64, Vec<(u64, &Name, &Draft)>> = BTreeMap::new();
        for (name, draft) in drafts {
            let hash = hash::name(name.as_wire());
            touched.entry(hash & self.shard_mask).or_default().push((hash, name, draft));
        }
        for (index, changed) in touched {
            let (outer, inner) = split(index);
            let mut builder = ShardBuilder::default();
            for node in shard::nodes(&self.groups[outer][inner]) {
                if changed.iter().all(|(_, name, _)| name.as_wire() != node.name()) {
                    builder.copy(hash::name(node.name()), &node);
                }
            }
            for (hash, name, draft) in changed.iter().filter(|(_, _, draft)| draft.exists()) {
                builder.push(*hash, &pack(name, &self.origin, draft)?);
            }
            let mut group = self.groups[outer].to_vec();
            group[inner] = builder.finish();
            self.groups[outer] = group.into();
        }
        Ok(())
    }

    /// The next version with more shards.
    fn rebuilt(&self, drafts: &BTreeMap<Name, Draft>) -> Result<Zone, ZoneError> {
        let mut records = Vec::with_capacity(self.records);
        self.for_each_record(&mut |record| {
            if !drafts.contains_key(&record.owner) {
                records.push(record);
            }
        });
        for (owner, draft) in drafts {
            for set in &draft.sets {
                records.extend(set.data.iter().map(|rdata| Record {
                    owner: owner.clone(),
                    rtype: set.rtype,
                    ttl: set.ttl,
                    rdata: rdata.clone(),
                }));
            }
        }
        Zone::build(&self.origin, records)
    }

    fn shard_count(&self) -> usize {
        usize::try_from(self.shard_mask).expect("shards are counted in memory") + 1
    }

    /// The node of a name, by its hash and lower-case wire format.
    #[inline]
    pub(crate) fn node(&self, hash: u64, name: &[u8]) -> Option<Node<'_>> {
        let (outer, inner) = split(hash & self.shard_mask);
        shard::find(&self.groups[outer][inner], hash, name)
    }

    /// The apex.
    #[inline]
    pub(crate) fn apex(&self) -> Node<'_> {
        self.node(self.origin_hash, self.origin.as_wire()).expect("a zone has a SOA record at its apex")
    }

    /// The SOA record for negative answers.
    pub(crate) fn negative(&self) -> &Rendered {
        &self.negative
    }

    fn all_nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.groups.iter().flat_map(|group| group.iter()).flat_map(|shard| shard::nodes(shard))
    }

    /// Every record, made one at a time: the SOA, the apex's others, then by name in no particular order.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let is_soa = |set: &Set<'_>| set.rtype() == Rtype::SOA;
        let apex = self.apex().sets().filter(is_soa).chain(self.apex().sets().filter(move |set| !is_soa(set)));
        let others = self.all_nodes().filter(|node| node.name() != self.origin.as_wire()).flat_map(|node| node.sets());
        apex.chain(others).flat_map(|set| {
            let (owner, _) = Name::from_wire(set.owner).expect("names in the store are well-formed");
            let RecordSet { rtype, ttl, data } = read::record_set(&set);
            data.into_iter().map(move |rdata| Record { owner: owner.clone(), rtype, ttl, rdata })
        })
    }

    /// How many names exist, those without records included.
    #[must_use]
    pub fn name_count(&self) -> usize {
        self.names
    }
}

impl std::fmt::Debug for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({} records)", self.origin, self.serial, self.records)
    }
}

impl ZoneView for Zone {
    fn origin(&self) -> &Name {
        &self.origin
    }

    fn serial(&self) -> u32 {
        self.serial
    }

    fn record_count(&self) -> usize {
        self.records
    }

    fn sets_at(&self, name: &Name) -> Vec<RecordSet> {
        let wire = name.as_wire();
        self.node(hash::name(wire), wire)
            .map(|node| node.sets().map(|set| read::record_set(&set)).collect())
            .unwrap_or_default()
    }

    fn for_each_record(&self, visit: &mut dyn FnMut(Record)) {
        self.records().for_each(visit);
    }
}

/// Group and place of a shard.
#[inline]
fn split(index: u64) -> (usize, usize) {
    let index = usize::try_from(index).expect("shards are counted in memory");
    (index / GROUP, index % GROUP)
}

fn group(shards: &[Shard]) -> Box<[Arc<[Shard]>]> {
    shards.chunks(GROUP).map(Arc::from).collect()
}

fn pack(name: &Name, origin: &Name, draft: &Draft) -> Result<Vec<u8>, ZoneError> {
    draft.pack(name, origin).map_err(|error| {
        let worst = draft.sets.iter().find(|set| render(name, origin, set, set.ttl).is_err());
        ZoneError::Set(name.clone(), worst.map_or(Rtype::ANY, |set| set.rtype), error)
    })
}

/// Adds a record to its set; `false` when its data was there already (its TTL is taken all the same).
fn add(sets: &mut Vec<RecordSet>, record: Record) -> bool {
    let at = sets.partition_point(|set| set.rtype.to_int() < record.rtype.to_int());
    match sets.get_mut(at).filter(|set| set.rtype == record.rtype) {
        None => sets.insert(at, RecordSet { rtype: record.rtype, ttl: record.ttl, data: vec![record.rdata] }),
        Some(set) => {
            set.ttl = record.ttl;
            if set.data.contains(&record.rdata) {
                return false;
            }
            set.data.push(record.rdata);
        }
    }
    true
}

fn remove(sets: &mut Vec<RecordSet>, record: &Record) -> Option<()> {
    let at = sets.iter().position(|set| set.rtype == record.rtype)?;
    let data = &mut sets[at].data;
    let place = data.iter().position(|rdata| *rdata == record.rdata)?;
    data.remove(place);
    if data.is_empty() {
        sets.remove(at);
    }
    Some(())
}

/// Puts names, in canonical order, into shards; counts what stands below each and adds names that exist only because
/// something stands below them.
struct Filler<'a> {
    origin: &'a Name,
    shards: Vec<ShardBuilder>,
    /// The names from the apex down to the last one, with where they are and what is below them so far.
    open: Vec<Open>,
    records: usize,
    names: usize,
}

struct Open {
    name: Name,
    shard: usize,
    at: usize,
    children: u32,
    wild: bool,
}

impl Filler<'_> {
    fn name(&mut self, name: &Name, draft: &Draft) -> Result<(), ZoneError> {
        if !name.is_in(self.origin) {
            return Err(ZoneError::OutOfZone(name.clone(), self.origin.clone()));
        }
        self.close_to(Some(name));
        // Names between the one that is open and this one have nothing of their own.
        let mut missing = Vec::new();
        let mut above = name.parent();
        while let Some(parent) = above.filter(|_| name != self.origin) {
            if self.open.last().is_some_and(|open| open.name == parent) {
                break;
            }
            above = (parent != *self.origin).then(|| parent.parent()).flatten();
            missing.push(parent);
        }
        for parent in missing.iter().rev() {
            self.push(parent, &Draft::default())?;
        }
        self.push(name, draft)
    }

    fn push(&mut self, name: &Name, draft: &Draft) -> Result<(), ZoneError> {
        if let Some(parent) = self.open.last_mut() {
            parent.children += 1;
            parent.wild |= name.is_wildcard();
        }
        let hash = hash::name(name.as_wire());
        let shard = usize::try_from(hash & (self.shards.len() as u64 - 1)).expect("shards are counted in memory");
        let at = self.shards[shard].push(hash, &pack(name, self.origin, draft)?);
        self.records += draft.sets.iter().map(|set| set.data.len()).sum::<usize>();
        self.names += 1;
        self.open.push(Open { name: name.clone(), shard, at, children: 0, wild: false });
        Ok(())
    }

    /// Finishes the open names that `next` is not below; all of them without one.
    fn close_to(&mut self, next: Option<&Name>) {
        while let Some(open) = self.open.pop_if(|open| next.is_none_or(|next| !next.is_in(&open.name))) {
            self.shards[open.shard].set_family(open.at, open.children, open.wild);
        }
    }
}

/// Names as they will be after some changes.
struct Edit<'a> {
    zone: &'a Zone,
    drafts: BTreeMap<Name, Draft>,
}

impl Edit<'_> {
    fn draft(&mut self, name: &Name) -> &mut Draft {
        let zone = self.zone;
        self.drafts.entry(name.clone()).or_insert_with(|| zone.draft(name))
    }

    /// Lets names appear and vanish with what stands at and below them; returns how many names there are then.
    fn settle(&mut self) -> usize {
        let mut names = self.zone.names;
        // From the deepest names up, because a name that comes or goes changes the one above it.
        let mut open: BTreeSet<(usize, Name)> =
            self.drafts.keys().map(|name| (name.label_count(), name.clone())).collect();
        while let Some((_, name)) = open.pop_last() {
            let before = self.zone.node(hash::name(name.as_wire()), name.as_wire()).is_some();
            let after = self.drafts.get(&name).is_some_and(Draft::exists);
            if before == after {
                continue;
            }
            names = if after { names + 1 } else { names - 1 };
            let Some(parent) = name.parent().filter(|_| name != self.zone.origin) else { continue };
            let draft = self.draft(&parent);
            draft.children = if after { draft.children + 1 } else { draft.children - 1 };
            if name.is_wildcard() {
                draft.wild = after;
            }
            open.insert((parent.label_count(), parent));
        }
        names
    }
}

impl Zone {
    fn draft(&self, name: &Name) -> Draft {
        self.node(hash::name(name.as_wire()), name.as_wire()).map_or_else(Draft::default, |node| Draft {
            children: node.children(),
            wild: node.flags() & shard::WILD != 0,
            sets: node.sets().map(|set| read::record_set(&set)).collect(),
        })
    }
}
