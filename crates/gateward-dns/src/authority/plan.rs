//! What a change would make of a zone: a function of the version that is served and of what is asked for. No IO, no clock.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateward_zone::{
    Change, Name, Rdata, Record, RecordSet, Rtype, ZoneText, ZoneView, is_newer, lint_names, next_serial, with_serial,
};

use super::proposal::{Numbering, Refused};
use crate::store::{Zone, ZoneError};

/// The next version.
#[derive(Debug)]
pub(super) struct Planned {
    /// The zone.
    pub(super) next: Arc<Zone>,
    /// How it differs; empty when nothing does, and then `next` is the version that was there.
    pub(super) changes: Vec<Change>,
}

/// A zone that was not there before.
pub(super) fn create(origin: &Name, text: ZoneText) -> Result<Planned, Refused> {
    let changes = gateward_zone::diff::creation(&text);
    let zone = Zone::build(origin, text.into_records()).map_err(|error| refused(&error))?;
    Ok(Planned { next: Arc::new(zone), changes })
}

/// All records of a zone are replaced.
pub(super) fn replace(head: &Arc<Zone>, text: ZoneText, numbering: Numbering) -> Result<Planned, Refused> {
    let changes = gateward_zone::diff::diff(&**head, &text);
    let serial = text.serial();
    if changes.is_empty() {
        return Ok(Planned { next: head.clone(), changes });
    }
    let only_serial = changes.iter().all(|change| change.record().rtype == Rtype::SOA)
        && soa_but_serial(&text) == soa_but_serial(&**head);
    if only_serial && numbering == Numbering::Rising && !is_newer(serial, head.serial()) {
        return Ok(Planned { next: head.clone(), changes: Vec::new() });
    }
    let wanted = number(head.serial(), serial, numbering);
    let mut records = text.into_records();
    for record in records.iter_mut().filter(|record| record.rtype == Rtype::SOA) {
        record.rdata = with_serial(&record.rdata, wanted).unwrap_or_else(|| record.rdata.clone());
    }
    let next = Zone::build(head.origin(), records).map_err(|error| refused(&error))?;
    let changes = if wanted == serial { changes } else { gateward_zone::diff::diff(&**head, &next) };
    Ok(Planned { next: Arc::new(next), changes })
}

/// Some records of a zone change.
pub(super) fn change(head: &Arc<Zone>, changes: &[Change], numbering: Numbering) -> Result<Planned, Refused> {
    let mut steps = exact(&**head, changes);
    let moves_soa = steps.iter().any(|change| change.record().rtype == Rtype::SOA);
    let serial = if moves_soa {
        let between = head.with(&steps).map_err(|error| refused(&error))?;
        between.serial()
    } else {
        head.serial()
    };
    let wanted = number(head.serial(), serial, numbering);
    let mut next = None;
    if !moves_soa {
        steps.extend(renumbered(&**head, wanted));
    } else if wanted != serial {
        let between = head.with(&steps).map_err(|error| refused(&error))?;
        next = Some(between.with(&renumbered(&between, wanted)).map_err(|error| refused(&error))?);
    }
    let next = match next {
        Some(next) => next,
        None => head.with(&steps).map_err(|error| refused(&error))?,
    };
    let touched: BTreeSet<Name> =
        steps.iter().map(|change| change.record().owner.clone()).chain([head.origin().clone()]).collect();
    let changes = difference(&**head, &next, &touched);
    if changes.iter().all(|change| change.record().rtype == Rtype::SOA)
        && soa_but_serial(&**head) == soa_but_serial(&next)
        && (numbering == Numbering::Rising && !(moves_soa && is_newer(serial, head.serial())))
    {
        return Ok(Planned { next: head.clone(), changes: Vec::new() });
    }
    Ok(Planned { next: Arc::new(next), changes })
}

/// What lint says about the names that changes touch.
pub(super) fn lint_touched(next: &Zone, changes: &[Change]) -> Vec<gateward_zone::Problem> {
    let names = changes.iter().filter(|change| change.record().rtype != Rtype::SOA);
    lint_names(next, &names.map(|change| change.record().owner.clone()).collect())
}

/// The serial of a new version.
fn number(served: u32, stated: u32, numbering: Numbering) -> u32 {
    match numbering {
        Numbering::Rising if !is_newer(stated, served) => next_serial(served),
        _ => stated,
    }
}

/// The SOA as it is, and with another serial.
fn renumbered(zone: &dyn ZoneView, serial: u32) -> Vec<Change> {
    let Some(set) = zone.set(zone.origin(), Rtype::SOA) else { return Vec::new() };
    let record = |rdata: Rdata| Record { owner: zone.origin().clone(), rtype: Rtype::SOA, ttl: set.ttl, rdata };
    let Some(old) = set.data.first() else { return Vec::new() };
    match with_serial(old, serial) {
        Some(new) if new != *old => vec![Change::Remove(record(old.clone())), Change::Add(record(new))],
        _ => Vec::new(),
    }
}

fn soa_but_serial(zone: &dyn ZoneView) -> Option<(u32, Rdata)> {
    let set = zone.set(zone.origin(), Rtype::SOA)?;
    Some((set.ttl, with_serial(set.data.first()?, 0)?))
}

/// The changes with the data of records as they stand in the zone: names in data compare without regard to case (RFC 2136, 1.1.1).
fn exact(zone: &dyn ZoneView, changes: &[Change]) -> Vec<Change> {
    let stored = |record: &Record| {
        let set = zone.set(&record.owner, record.rtype)?;
        if set.data.contains(&record.rdata) {
            return None;
        }
        let wanted = gateward_zone::rdata::canonical(record.rtype, record.rdata.as_wire());
        let canonical = |rdata: &&Rdata| gateward_zone::rdata::canonical(record.rtype, rdata.as_wire()) == wanted;
        set.data.iter().find(canonical).cloned()
    };
    let exact = changes.iter().map(|change| {
        let mut change = change.clone();
        if let Some(rdata) = stored(change.record()) {
            match &mut change {
                Change::Add(record) | Change::Remove(record) => record.rdata = rdata,
            }
        }
        change
    });
    exact.collect()
}

/// How two versions differ at some names: what goes, then what comes.
fn difference(before: &dyn ZoneView, after: &dyn ZoneView, names: &BTreeSet<Name>) -> Vec<Change> {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for name in names {
        let (old, new) = (before.sets_at(name), after.sets_at(name));
        gone.extend(missing(name, &old, &new).map(Change::Remove));
        come.extend(missing(name, &new, &old).map(Change::Add));
    }
    gone.append(&mut come);
    gone
}

/// The records of `here` that are not `there`; all of a set whose TTL is another.
fn missing<'a>(
    owner: &'a Name,
    here: &'a [RecordSet],
    there: &'a [RecordSet],
) -> impl Iterator<Item = Record> + use<'a> {
    here.iter().flat_map(move |set| {
        let other = there.iter().find(|other| other.rtype == set.rtype && other.ttl == set.ttl);
        let absent = move |rdata: &&Rdata| other.is_none_or(|other| !other.data.contains(rdata));
        set.data.iter().filter(absent).map(move |rdata| Record {
            owner: owner.clone(),
            rtype: set.rtype,
            ttl: set.ttl,
            rdata: rdata.clone(),
        })
    })
}

/// An error of the store, as a rule that speaks against the change.
pub(super) fn refused(error: &ZoneError) -> Refused {
    let (rule, remedy) = match error {
        ZoneError::Soa(_) => ("soa", "give the zone exactly one SOA record at its apex"),
        ZoneError::OutOfZone(..) => ("out-of-zone", "send the record to the zone it belongs to"),
        ZoneError::Set(..) => ("record-set", "make the set of records smaller, or put its data right"),
        ZoneError::Missing(..) => ("missing-record", "read the zone again: somebody removed the record before"),
    };
    Refused::rule(rule, error.to_string(), remedy)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
