//! The update section (RFC 2136, 3.4): looked through as a whole, then applied entry by entry, each seeing what those before it did.

use gateward_zone::{
    Change, Name, Rcode, Rdata, Record, RecordSet, Rtype, Soa, ZoneView, is_newer, next_serial, with_serial,
};

use super::Refusal;
use super::draft::Draft;
use super::message::{Data, Entry};
use crate::wire::{CLASS_ANY, CLASS_IN, CLASS_NONE, is_meta};

/// WKS (RFC 1035, 3.4.2), which is replaced by address and protocol (RFC 2136, 3.4.2.2).
const WKS: Rtype = Rtype::WKS;
/// Octets of address and protocol in WKS data.
const WKS_KEY: usize = 5;

/// Looks through the update section before anything of it is done (RFC 2136, 3.4.1).
pub(super) fn scan(origin: &Name, entries: &[Entry], permits: &dyn Fn(&Name, Rtype) -> bool) -> Result<(), Refusal> {
    for entry in entries {
        if !entry.owner.is_in(origin) {
            return Err(Refusal::new(Rcode::NOTZONE, format!("{} is not in the zone {origin}", entry.owner)));
        }
        let of_name = entry.rtype == Rtype::ANY;
        let is_well_formed = match entry.class {
            CLASS_IN => !is_meta(entry.rtype) && matches!(entry.data, Data::Record(_)),
            CLASS_ANY => (of_name || !is_meta(entry.rtype)) && entry.ttl == 0 && entry.data == Data::Empty,
            CLASS_NONE => !is_meta(entry.rtype) && entry.ttl == 0 && matches!(entry.data, Data::Record(_)),
            _ => false,
        };
        if !is_well_formed {
            let reason =
                format!("the update {} {}: class, type, TTL or data do not go together", entry.owner, entry.rtype);
            return Err(Refusal::new(Rcode::FORMERR, reason));
        }
        if !of_name && !permits(&entry.owner, entry.rtype) {
            return Err(not_permitted(&entry.owner, entry.rtype));
        }
    }
    Ok(())
}

fn not_permitted(owner: &Name, rtype: Rtype) -> Refusal {
    Refusal::new(Rcode::REFUSED, format!("the policy does not permit to change {rtype} records of {owner}"))
}

/// Applies a section that was looked through. The serial is raised once if anything changed, unless the update brought a
/// higher one (RFC 2136, 3.6).
pub(super) fn changes(
    zone: &dyn ZoneView,
    entries: &[Entry],
    permits: &dyn Fn(&Name, Rtype) -> bool,
) -> Result<Vec<Change>, Refusal> {
    let mut draft = Draft::new(zone);
    for entry in entries {
        match (entry.class, &entry.data) {
            (CLASS_IN, Data::Record(rdata)) => add(&mut draft, entry, rdata),
            (CLASS_NONE, Data::Record(rdata)) => remove(&mut draft, entry, rdata),
            (CLASS_ANY, _) if entry.rtype == Rtype::ANY => remove_name(&mut draft, &entry.owner, permits)?,
            (CLASS_ANY, _) => remove_set(&mut draft, &entry.owner, entry.rtype),
            _ => {}
        }
    }
    let changes = draft.changes();
    if changes.is_empty() {
        return Ok(changes);
    }
    raise_serial(&mut draft, zone.serial())?;
    Ok(draft.changes())
}

/// RFC 2136, 3.4.2.2; for DNAME RFC 6672, 5.2.
fn add(draft: &mut Draft<'_>, entry: &Entry, rdata: &Rdata) {
    let Entry { owner, rtype, ttl, .. } = entry;
    let sets = draft.sets(owner);
    let has = |rtype: Rtype| sets.iter().any(|set| set.rtype == rtype);
    let clashes = match *rtype {
        Rtype::CNAME => sets.iter().any(|set| !stands_with_cname(set.rtype)),
        other => has(Rtype::CNAME) && !stands_with_cname(other),
    };
    if clashes {
        return;
    }
    let record = Record { owner: owner.clone(), rtype: *rtype, ttl: *ttl, rdata: rdata.clone() };
    match *rtype {
        Rtype::SOA => {
            let serial = |rdata: &Rdata| Soa::read(rdata).map(|soa| soa.serial).ok();
            let current = draft.set(owner, Rtype::SOA).and_then(|set| serial(set.data.first()?));
            // No SOA but at the apex, and none with a lower serial.
            if let (Some(current), Some(new)) = (current, serial(rdata))
                && (current == new || is_newer(new, current))
            {
                draft.replace(record);
            }
        }
        Rtype::CNAME | Rtype::DNAME => draft.replace(record),
        WKS => {
            let key = |rdata: &Rdata| rdata.as_wire().get(..WKS_KEY).map(<[u8]>::to_vec);
            if let Some(set) = draft.set(owner, WKS) {
                set.data.retain(|other| key(other) != key(rdata) || other == rdata);
            }
            draft.add(record);
        }
        _ => draft.add(record),
    }
}

/// What may stand beside a CNAME: itself, and records about it (RFC 4035, 2.5; RFC 3007, 3).
fn stands_with_cname(rtype: Rtype) -> bool {
    matches!(rtype, Rtype::CNAME | Rtype::RRSIG | Rtype::NSEC | Rtype::KEY | Rtype::SIG | Rtype::NXT)
}

/// RFC 2136, 3.4.2.4: not the SOA, and not the last NS record of the apex.
fn remove(draft: &mut Draft<'_>, entry: &Entry, rdata: &Rdata) {
    let Entry { owner, rtype, .. } = entry;
    let is_last = |set: &mut RecordSet| set.data.len() == 1;
    let is_apex_ns = *rtype == Rtype::NS && owner == draft.origin();
    if *rtype == Rtype::SOA || (is_apex_ns && draft.set(owner, Rtype::NS).is_some_and(is_last)) {
        return;
    }
    draft.remove(owner, *rtype, rdata);
}

/// RFC 2136, 3.4.2.3: sets, but SOA and NS of the apex stay.
fn remove_set(draft: &mut Draft<'_>, owner: &Name, rtype: Rtype) {
    if !is_kept(owner == draft.origin(), rtype) {
        draft.remove_set(owner, rtype);
    }
}

/// RFC 2136, 3.4.2.3: everything at a name, but SOA and NS of the apex stay. Each set that goes must be permitted.
fn remove_name(draft: &mut Draft<'_>, owner: &Name, permits: &dyn Fn(&Name, Rtype) -> bool) -> Result<(), Refusal> {
    let is_apex = owner == draft.origin();
    let sets = draft.sets(owner);
    let forbidden = sets.iter().map(|set| set.rtype).find(|rtype| !is_kept(is_apex, *rtype) && !permits(owner, *rtype));
    if let Some(rtype) = forbidden {
        return Err(not_permitted(owner, rtype));
    }
    sets.retain(|set| is_kept(is_apex, set.rtype));
    Ok(())
}

fn is_kept(is_apex: bool, rtype: Rtype) -> bool {
    is_apex && matches!(rtype, Rtype::SOA | Rtype::NS)
}

fn raise_serial(draft: &mut Draft<'_>, before: u32) -> Result<(), Refusal> {
    let origin = draft.origin().clone();
    let broken = || Refusal::new(Rcode::SERVFAIL, format!("the zone {origin} has no SOA record"));
    let rdata = draft.set(&origin, Rtype::SOA).and_then(|set| set.data.first_mut()).ok_or_else(broken)?;
    let serial = Soa::read(rdata).map_err(|_| broken())?.serial;
    if !is_newer(serial, before) {
        *rdata = with_serial(rdata, next_serial(before)).ok_or_else(broken)?;
    }
    Ok(())
}
