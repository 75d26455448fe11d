//! A zone with some names changed: what later entries of an update see, and at the end the difference to the zone it began with.

use std::collections::{BTreeMap, HashSet};

use gateward_zone::rdata::canonical;
use gateward_zone::{Change, Name, Rdata, Record, RecordSet, Rtype, ZoneView};

/// The names that were looked at, as they are now.
pub(super) struct Draft<'a> {
    zone: &'a dyn ZoneView,
    names: BTreeMap<Name, Vec<RecordSet>>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(zone: &'a dyn ZoneView) -> Self {
        Draft { zone, names: BTreeMap::new() }
    }

    pub(super) fn origin(&self) -> &Name {
        self.zone.origin()
    }

    /// The sets at a name.
    pub(super) fn sets(&mut self, name: &Name) -> &mut Vec<RecordSet> {
        self.names.entry(name.clone()).or_insert_with(|| self.zone.sets_at(name))
    }

    pub(super) fn set(&mut self, name: &Name, rtype: Rtype) -> Option<&mut RecordSet> {
        self.sets(name).iter_mut().find(|set| set.rtype == rtype)
    }

    /// Adds a record to its set. The set's TTL becomes the record's (RFC 2181, 5.2).
    pub(super) fn add(&mut self, record: Record) {
        let Record { owner, rtype, ttl, rdata } = record;
        let Some(set) = self.set(&owner, rtype) else {
            self.sets(&owner).push(RecordSet { rtype, ttl, data: vec![rdata] });
            return;
        };
        set.ttl = ttl;
        if position(set, &rdata).is_none() {
            set.data.push(rdata);
        }
    }

    /// Makes a record the only one of its type, unless its data is there already.
    pub(super) fn replace(&mut self, record: Record) {
        match self.set(&record.owner, record.rtype) {
            Some(set) if position(set, &record.rdata).is_none() => {
                set.ttl = record.ttl;
                set.data = vec![record.rdata];
            }
            _ => self.add(record),
        }
    }

    pub(super) fn remove_set(&mut self, name: &Name, rtype: Rtype) {
        self.sets(name).retain(|set| set.rtype != rtype);
    }

    /// Removes a record by its data, whatever its TTL.
    pub(super) fn remove(&mut self, name: &Name, rtype: Rtype, rdata: &Rdata) {
        let Some(set) = self.set(name, rtype) else { return };
        if let Some(at) = position(set, rdata) {
            set.data.remove(at);
            if set.data.is_empty() {
                self.remove_set(name, rtype);
            }
        }
    }

    /// What is different from the zone: what goes, then what comes, the SOA first in both.
    pub(super) fn changes(&self) -> Vec<Change> {
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for (owner, now) in &self.names {
            let before = self.zone.sets_at(owner);
            for set in &before {
                let other = now.iter().find(|other| other.rtype == set.rtype);
                removed.extend(only_here(owner, set, other).map(Change::Remove));
            }
            for set in now {
                let other = before.iter().find(|other| other.rtype == set.rtype);
                added.extend(only_here(owner, set, other).map(Change::Add));
            }
        }
        for changes in [&mut removed, &mut added] {
            changes.sort_by_key(|change| change.record().rtype != Rtype::SOA);
        }
        removed.append(&mut added);
        removed
    }
}

/// Where a set has this data; names in it compare without regard to case (RFC 2136, 1.1.1).
pub(super) fn position(set: &RecordSet, rdata: &Rdata) -> Option<usize> {
    let wanted = canonical(set.rtype, rdata.as_wire());
    set.data.iter().position(|rdata| canonical(set.rtype, rdata.as_wire()) == wanted)
}

/// The records of `set` that `other` does not have. A set with another TTL has none of them.
fn only_here<'a>(owner: &'a Name, set: &'a RecordSet, other: Option<&'a RecordSet>) -> impl Iterator<Item = Record> {
    let there: HashSet<&Rdata> =
        other.filter(|other| other.ttl == set.ttl).into_iter().flat_map(|other| &other.data).collect();
    set.data.iter().filter(move |rdata| !there.contains(rdata)).map(|rdata| Record {
        owner: owner.clone(),
        rtype: set.rtype,
        ttl: set.ttl,
        rdata: rdata.clone(),
    })
}
