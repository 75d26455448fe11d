//! Prerequisites (RFC 2136, 3.2): conditions on names and sets of records, checked in their order; the first that fails answers.

use std::collections::{BTreeMap, BTreeSet};

use gateward_zone::rdata::canonical;
use gateward_zone::{Name, Rcode, Rtype, ZoneView};

use super::Refusal;
use super::message::{Data, Entry};
use crate::wire::{CLASS_ANY, CLASS_IN, CLASS_NONE, is_meta};

/// Checks all prerequisites.
pub(super) fn check(zone: &dyn ZoneView, prerequisites: &[Entry]) -> Result<(), Refusal> {
    let mut wanted: BTreeMap<(&Name, Rtype), BTreeSet<Vec<u8>>> = BTreeMap::new();
    for entry in prerequisites {
        if entry.ttl != 0 {
            return Err(malformed(entry, "must have a TTL of 0"));
        }
        if !entry.owner.is_in(zone.origin()) {
            let reason = format!("{} is not in the zone {}", entry.owner, zone.origin());
            return Err(Refusal::new(Rcode::NOTZONE, reason));
        }
        match (entry.class, &entry.data) {
            (CLASS_ANY | CLASS_NONE, Data::Empty) => check_presence(zone, entry)?,
            (CLASS_ANY | CLASS_NONE, _) => return Err(malformed(entry, "must not have data")),
            (CLASS_IN, Data::Record(rdata)) if !is_meta(entry.rtype) => {
                let data = canonical(entry.rtype, rdata.as_wire()).into_owned();
                wanted.entry((&entry.owner, entry.rtype)).or_default().insert(data);
            }
            (CLASS_IN, _) => return Err(malformed(entry, "does not have the data of its type")),
            _ => return Err(malformed(entry, "has a class that prerequisites do not have")),
        }
    }
    // Sets are compared as a whole (RFC 2136, 3.2.3).
    for ((owner, rtype), data) in wanted {
        let served = zone.set(owner, rtype).map(|set| set.data).unwrap_or_default();
        let served: BTreeSet<Vec<u8>> =
            served.iter().map(|rdata| canonical(rtype, rdata.as_wire()).into_owned()).collect();
        if served != data {
            let reason = format!("the {rtype} records of {owner} are not those of the prerequisite");
            return Err(Refusal::new(Rcode::NXRRSET, reason));
        }
    }
    Ok(())
}

/// A name in use or not, a set there or not (RFC 2136, 2.4.1 and 2.4.3 to 2.4.5). A name that only has names below it is not in use.
fn check_presence(zone: &dyn ZoneView, entry: &Entry) -> Result<(), Refusal> {
    let Entry { owner, rtype, .. } = entry;
    let must_be_there = entry.class == CLASS_ANY;
    let of_name = *rtype == Rtype::ANY;
    if !of_name && is_meta(*rtype) {
        return Err(malformed(entry, "has a type that no record has"));
    }
    let is_there = if of_name { !zone.sets_at(owner).is_empty() } else { zone.set(owner, *rtype).is_some() };
    if is_there == must_be_there {
        return Ok(());
    }
    Err(match (of_name, is_there) {
        (true, false) => Refusal::new(Rcode::NXDOMAIN, format!("{owner} has no records")),
        (true, true) => Refusal::new(Rcode::YXDOMAIN, format!("{owner} has records")),
        (false, false) => Refusal::new(Rcode::NXRRSET, format!("{owner} has no {rtype} records")),
        (false, true) => Refusal::new(Rcode::YXRRSET, format!("{owner} has {rtype} records")),
    })
}

fn malformed(entry: &Entry, what: &str) -> Refusal {
    Refusal::new(Rcode::FORMERR, format!("the prerequisite {} {} {what}", entry.owner, entry.rtype))
}
