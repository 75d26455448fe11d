//! Levels that move to another group of name servers: what runtimes registered goes along, and the old servers have the zone
//! until nothing leads to them any more.

use std::collections::BTreeSet;

use gateward_zone::{Name, Record, next_serial};

use super::{Action, ZonePlan};
use crate::current::{Current, CurrentZone};
use crate::desired::DesiredZone;

/// Records that a note lists.
const MAX_LISTED: usize = 5;

/// The copy of a zone that is on its way from another control API.
pub(super) fn old_copy<'a>(current: &'a Current, zone: &DesiredZone) -> Option<(&'a str, &'a CurrentZone)> {
    let mut copies = current
        .zones
        .iter()
        .filter(|((control, origin), now)| now.ours && *origin == zone.origin && *control != zone.control);
    copies.next().map(|((control, _), now)| (control.as_str(), now))
}

/// What the zone holds at its new place: what is declared, what was registered at the old one, and a serial that rises.
pub(super) fn target(zone: &DesiredZone, old: &CurrentZone) -> BTreeSet<Record> {
    let mut target = zone.target(&old.records);
    target.remove(&zone.soa_record(old.serial));
    target.insert(zone.soa_record(next_serial(old.serial)));
    target
}

/// Whether plans make a zone at its new place, or lead there, so that its old servers are still asked.
pub(super) fn is_moving(origin: &Name, plans: &[ZonePlan]) -> bool {
    let text = origin.to_string();
    let leads_there = |plan: &ZonePlan| {
        let of_origin = |record: &str| {
            let mut words = record.split_ascii_whitespace();
            words.next() == Some(&text) && words.nth(2) == Some("NS")
        };
        plan.changes.iter().any(|change| of_origin(&change.record))
    };
    plans.iter().any(|plan| plan.origin == text && plan.action == Action::Create || leads_there(plan))
}

/// What somebody should know when a zone is made at its new place.
pub(super) fn moving_note(zone: &DesiredZone, from: &str, old: &CurrentZone) -> String {
    let registered = old.records.iter().filter(|record| zone.leaves_alone(record) && !zone.records.contains(record));
    let carried = match registered.count() {
        0 => String::new(),
        count => format!(
            "; {count} records that runtimes registered go along, but leases do not: register at {} from now on",
            zone.control
        ),
    };
    format!(
        "{} moves from {from} to {}{carried}; {from} keeps its copy, because caches remember the old servers for {} s: plan again \
         after that, and it goes",
        zone.origin, zone.control, zone.soa_ttl
    )
}

/// What would be lost when the old copy goes: what was registered there after the move.
pub(super) fn leaving_note(zone: &DesiredZone, from: &str, old: &CurrentZone, new: &CurrentZone) -> Option<String> {
    let same = |a: &Record, b: &Record| a.owner == b.owner && a.rtype == b.rtype && a.rdata == b.rdata;
    let is_there = |record: &Record| new.records.iter().any(|other| same(record, other));
    let only_here = |record: &&Record| zone.leaves_alone(record) && !is_there(record);
    let lost: Vec<String> =
        old.records.iter().filter(only_here).map(|record| format!("{} {}", record.owner, record.rtype)).collect();
    if lost.is_empty() {
        return None;
    }
    let more = if lost.len() > MAX_LISTED { format!(" and {} more", lost.len() - MAX_LISTED) } else { String::new() };
    let listed = lost.iter().take(MAX_LISTED).cloned().collect::<Vec<_>>().join(", ");
    Some(format!(
        "{from} still has {} for what runtimes registered there and not at {}: {listed}{more}; it is kept until they \
         register at the new place; what is not needed any more has to be removed at the old one",
        zone.origin, zone.control
    ))
}

/// What to do about protection of a copy that was left behind: the declaration speaks of the new place only.
pub(super) fn explain(plan: &mut ZonePlan) {
    let control = &plan.control;
    for broken in
        plan.needs.iter_mut().flat_map(|need| &mut need.rules).filter(|broken| broken.rule == "protected-zone")
    {
        broken.remedy = format!(
            "it moved away from {control}, where its old policy still holds: replace that there by one with `protected: false` \
             (PUT /v1/zones/ZONE/policy)"
        );
    }
}
