//! What the zones of a declaration must hold: a pure function of the declaration.

mod zones;

use std::collections::{BTreeMap, BTreeSet};

use gateward_zone::{Name, Rdata, Record, Rtype, Soa, with_serial};

use crate::declaration::{Declaration, Level};

/// First label of the name whose TXT record says that a zone comes from a declaration.
pub(crate) const MARK: &[u8] = b"_gateward";

/// What must be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The zones: the root first, parents before their children.
    pub zones: Vec<DesiredZone>,
}

/// What one zone must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredZone {
    /// Its apex.
    pub origin: Name,
    /// Where it stands.
    pub level: Level,
    /// The environment it is in.
    pub environment: Option<String>,
    /// The region it is in.
    pub region: Option<String>,
    /// The team that answers for it.
    pub owner: String,
    /// The control API of its primary server.
    pub control: String,
    /// SOA data; the serial in it is zero.
    pub soa: Soa,
    /// TTL of the SOA record.
    pub soa_ttl: u32,
    /// The records that are declared or follow from the hierarchy, the SOA left out.
    pub records: BTreeSet<Record>,
    /// Its policy file (YAML).
    pub policy: String,
    /// The keys that its policy names, which the control API must know.
    pub keys: BTreeSet<String>,
    /// Where runtimes write, which plans leave alone.
    pub left_alone: Vec<LeftAlone>,
}

/// Records that plans do not touch unless they are declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftAlone {
    /// This name and everything below it.
    pub subtree: Name,
    /// Only these types; none for all that do not decide about delegation.
    pub types: Option<Vec<Rtype>>,
}

impl Desired {
    /// What `declaration` asks for.
    #[must_use]
    pub fn of(declaration: &Declaration) -> Self {
        Desired { zones: declaration.zones.iter().map(|zone| zones::zone(declaration, zone)).collect() }
    }

    /// The zone with this apex.
    #[must_use]
    pub fn zone(&self, origin: &Name) -> Option<&DesiredZone> {
        self.zones.iter().find(|zone| zone.origin == *origin)
    }
}

impl DesiredZone {
    /// Everything the zone must hold when `current` is what it holds: the declared records, a SOA with the current
    /// serial, and of the current ones those that runtimes registered.
    #[must_use]
    pub fn target(&self, current: &[Record]) -> BTreeSet<Record> {
        let serial = current.iter().find(|record| record.rtype == Rtype::SOA).and_then(serial_of).unwrap_or(1);
        let mut target = self.records.clone();
        let ttls: BTreeMap<(&Name, Rtype), u32> =
            self.records.iter().map(|record| ((&record.owner, record.rtype), record.ttl)).collect();
        for record in current.iter().filter(|record| self.leaves_alone(record)) {
            // A set has one TTL: where the declaration has a part in it, it is the declaration's.
            let ttl = ttls.get(&(&record.owner, record.rtype)).copied().unwrap_or(record.ttl);
            target.insert(Record { ttl, ..record.clone() });
        }
        target.insert(self.soa_record(serial));
        target
    }

    /// The SOA record with this serial.
    #[must_use]
    pub fn soa_record(&self, serial: u32) -> Record {
        let soa = Soa { serial, ..self.soa.clone() };
        Record { owner: self.origin.clone(), rtype: Rtype::SOA, ttl: self.soa_ttl, rdata: soa.to_rdata() }
    }

    /// Whether plans keep `record` although it is not declared.
    #[must_use]
    pub fn leaves_alone(&self, record: &Record) -> bool {
        use crate::declaration::STRUCTURAL;
        let typed = |types: &Option<Vec<Rtype>>| match types {
            Some(types) => types.contains(&record.rtype),
            None => !STRUCTURAL.contains(&record.rtype),
        };
        self.left_alone.iter().any(|alone| typed(&alone.types) && record.owner.is_in(&alone.subtree))
    }
}

/// The serial in a SOA record.
pub(crate) fn serial_of(record: &Record) -> Option<u32> {
    Soa::read(&record.rdata).ok().map(|soa| soa.serial)
}

/// SOA data without its serial, to see whether the rest differs.
pub(crate) fn without_serial(rdata: &Rdata) -> Rdata {
    with_serial(rdata, 0).unwrap_or_else(|| rdata.clone())
}

/// Whether these records are of a zone that a declaration of `root` made.
pub(crate) fn is_marked(origin: &Name, root: &Name, records: &[Record]) -> bool {
    let Ok(mark) = origin.child(MARK) else { return false };
    let ours = zones::mark_of_root(root);
    let found = records.iter().filter(|record| record.rtype == Rtype::TXT && record.owner == mark);
    found.into_iter().any(|record| contains(&text_of(&record.rdata), ours.as_bytes()))
}

/// The character strings of a TXT record as one.
fn text_of(rdata: &Rdata) -> Vec<u8> {
    let (mut rest, mut text) = (rdata.as_wire(), Vec::new());
    while let Some((len, tail)) = rest.split_first() {
        let (part, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        text.extend_from_slice(part);
        rest = tail;
    }
    text
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
