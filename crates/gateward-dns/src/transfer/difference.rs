//! The difference between two versions of a zone, as a transfer carries it.

use std::collections::BTreeSet;

use gateward_zone::rdata::canonical;
use gateward_zone::{Change, Name, Record, Rtype, Soa, ZoneView};

/// What changes from one version to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The SOA record of the old version.
    pub from: Record,
    /// The SOA record of the new version.
    pub to: Record,
    /// Records that go, without the SOA.
    pub removed: Vec<Record>,
    /// Records that come, without the SOA.
    pub added: Vec<Record>,
}

/// A difference removes a record that the zone does not have, or does not begin at the zone's version: it was made for another zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotThere {
    /// The record is missing.
    #[error("the difference removes a {1} record of {0} that is not there")]
    Record(Name, Rtype),
    /// The serial is another one.
    #[error("the difference begins at serial {from}, the zone is at {zone}")]
    Serial {
        /// Where the difference begins.
        from: u32,
        /// Where the zone is.
        zone: u32,
    },
}

pub(super) fn serial(soa: &Record) -> u32 {
    Soa::read(&soa.rdata).map_or(0, |soa| soa.serial)
}

impl Difference {
    /// A difference from changes made in order; `None` unless the zone's SOA record goes and comes among them.
    #[must_use]
    pub fn from_changes(origin: &Name, changes: &[Change]) -> Option<Self> {
        let is_soa = |record: &Record| record.rtype == Rtype::SOA && record.owner == *origin;
        let (mut from, mut to) = (None, None);
        let mut net = Net::default();
        for change in changes {
            match change {
                Change::Remove(record) if is_soa(record) => from = from.or_else(|| Some(record.clone())),
                Change::Add(record) if is_soa(record) => to = Some(record.clone()),
                Change::Remove(record) => net.remove(record),
                Change::Add(record) => net.add(record),
            }
        }
        Some(net.difference(from?, to?))
    }

    /// The same as changes: the old SOA and what goes, then the new SOA and what comes.
    #[must_use]
    pub fn into_changes(self) -> Vec<Change> {
        let removed = std::iter::once(self.from).chain(self.removed).map(Change::Remove);
        let added = std::iter::once(self.to).chain(self.added).map(Change::Add);
        removed.chain(added).collect()
    }

    /// How many records a transfer of it has.
    #[must_use]
    pub fn record_count(&self) -> usize {
        self.removed.len() + self.added.len() + 4
    }

    /// The version it begins with.
    #[must_use]
    pub fn from_serial(&self) -> u32 {
        serial(&self.from)
    }

    /// The version it ends with.
    #[must_use]
    pub fn to_serial(&self) -> u32 {
        serial(&self.to)
    }
}

/// What remains of changes made one after the other.
#[derive(Default)]
struct Net {
    removed: BTreeSet<Record>,
    added: BTreeSet<Record>,
}

impl Net {
    fn remove(&mut self, record: &Record) {
        if !self.added.remove(record) {
            self.removed.insert(record.clone());
        }
    }

    fn add(&mut self, record: &Record) {
        if !self.removed.remove(record) {
            self.added.insert(record.clone());
        }
    }

    fn difference(self, from: Record, to: Record) -> Difference {
        Difference { from, to, removed: self.removed.into_iter().collect(), added: self.added.into_iter().collect() }
    }
}

/// One difference that does what `differences` do one after the other (RFC 1995, 5); `None` when there are none.
#[must_use]
pub fn condense<'a>(differences: impl IntoIterator<Item = &'a Difference>) -> Option<Difference> {
    let mut net = Net::default();
    let mut ends: Option<(&Record, &Record)> = None;
    for difference in differences {
        difference.removed.iter().for_each(|record| net.remove(record));
        difference.added.iter().for_each(|record| net.add(record));
        ends = Some((ends.map_or(&difference.from, |(from, _)| from), &difference.to));
    }
    ends.map(|(from, to)| net.difference(from.clone(), to.clone()))
}

/// The changes that received differences make to a zone, each record in the spelling in which the zone has it.
///
/// # Errors
/// [`NotThere`]: they do not fit the zone, which must be transferred as a whole.
pub fn onto(zone: &dyn ZoneView, differences: &[Difference]) -> Result<Vec<Change>, NotThere> {
    let Some(mut difference) = condense(differences) else { return Ok(Vec::new()) };
    if difference.from_serial() != zone.serial() {
        return Err(NotThere::Serial { from: difference.from_serial(), zone: zone.serial() });
    }
    for record in std::iter::once(&mut difference.from).chain(&mut difference.removed) {
        let missing = || NotThere::Record(record.owner.clone(), record.rtype);
        let set = zone.set(&record.owner, record.rtype).ok_or_else(missing)?;
        let wanted = canonical(record.rtype, record.rdata.as_wire());
        let same = set.data.iter().find(|rdata| canonical(record.rtype, rdata.as_wire()) == wanted);
        record.rdata = same.cloned().ok_or_else(missing)?;
    }
    Ok(difference.into_changes())
}
