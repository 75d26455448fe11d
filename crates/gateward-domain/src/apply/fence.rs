//! A plan is applied to what it was made from, or not at all: a delayed run must not undo what happened since.
//!
//! What an earlier run of the same plan did is no reason to stop. It shows by the actor of the versions since, or, where a
//! server keeps none, by the content.

use std::collections::BTreeSet;

use gateward_zone::policy::tag;
use gateward_zone::{Name, Record, Rtype, to_text};

use super::{Progress, record};
use crate::declaration::same_policy;
use crate::desired::without_serial;
use crate::error::{Error, StaleZone};
use crate::plan::{Action, Document, Op, ZonePlan};
use crate::provider::{Fleet, ServedZone, Version};

/// Changes that a message about a stale zone lists.
const MAX_LISTED: usize = 20;

/// How a run of this plan signs its changes: a word of the actor, after who runs it.
pub(super) fn actor(document: &Document) -> String {
    let digits = document.checksum.trim_start_matches("sha256:");
    format!("plan:{}", &digits[..digits.len().min(16)])
}

/// Where each zone of the plan is.
///
/// # Errors
/// [`Error::Stale`] with every zone that somebody else changed since.
pub(super) fn check(document: &Document, fleet: &Fleet<'_>) -> Result<Vec<Progress>, Error> {
    let (mut progress, mut stale) = (Vec::new(), Vec::new());
    for zone in &document.plan.zones {
        match zone_progress(zone, &actor(document), fleet)? {
            Ok(found) => progress.push(found),
            Err(zone) => stale.push(zone),
        }
    }
    if stale.is_empty() { Ok(progress) } else { Err(Error::Stale { zones: stale }) }
}

fn zone_progress(zone: &ZonePlan, actor: &str, fleet: &Fleet<'_>) -> Result<Result<Progress, StaleZone>, Error> {
    let origin = super::name_of(zone)?;
    let Some(served) = fleet.ask(&zone.control, |provider| provider.zone(&origin))? else {
        // Not there yet, or removed, and that is what the plan wants.
        let is_fine = zone.base_serial.is_none() || zone.action == Action::Delete;
        return Ok(if is_fine { Ok(Progress::default()) } else { Err(gone(zone)) });
    };
    let policy = fleet.ask(&zone.control, |provider| provider.policy(&origin))?;
    let other_policy = !is_planned_policy(zone, &origin, policy.as_deref());
    let serial = served.serial;
    if Some(serial) == zone.base_serial && !other_policy {
        return Ok(Ok(Progress { serial: Some(serial), policy, resumed: None }));
    }
    let versions = fleet.ask(&zone.control, |provider| provider.versions(&origin))?;
    let since = since(&versions, zone.base_serial);
    if !other_policy && is_continued(zone, &origin, &served, since, actor, fleet)? {
        return Ok(Ok(Progress { serial: Some(serial), policy, resumed: Some(served) }));
    }
    let mut actors: Vec<String> = since.iter().map(|version| version.actor.clone()).collect();
    actors.retain(|actor| !actor.is_empty());
    actors.dedup();
    Ok(Err(StaleZone {
        origin: zone.origin.clone(),
        planned: zone.base_serial,
        served: Some(serial),
        other_policy,
        changes: changes_since(zone, &origin, &served, fleet)?,
        actors,
    }))
}

fn gone(zone: &ZonePlan) -> StaleZone {
    StaleZone {
        origin: zone.origin.clone(),
        planned: zone.base_serial,
        served: None,
        other_policy: false,
        changes: Vec::new(),
        actors: Vec::new(),
    }
}

/// Whether a policy file is the one that the plan was made from, or the one that it brings.
fn is_planned_policy(zone: &ZonePlan, origin: &Name, policy: Option<&str>) -> bool {
    let is_base = policy.map(|policy| tag(policy.as_bytes())) == zone.base_policy;
    is_base || policy.zip(zone.policy.as_ref()).is_some_and(|(policy, plan)| same_policy(origin, policy, &plan.to))
}

/// Whether a zone that is not as it was is so by an earlier run of this plan.
fn is_continued(
    zone: &ZonePlan,
    origin: &Name,
    served: &ServedZone,
    since: &[Version],
    actor: &str,
    fleet: &Fleet<'_>,
) -> Result<bool, Error> {
    let ours = |version: &Version| version.actor.split(' ').any(|word| word == actor);
    let Some(base) = zone.base_serial else {
        // Servers keep no version of a creation: nobody else may have changed it since, and it must hold nothing else.
        let nobody_else = since.iter().all(|version| version.actor.is_empty() || ours(version));
        return Ok(nobody_else && content(&served.records).is_subset(&outcome(zone, &[])?));
    };
    if !since.is_empty() && since.iter().all(ours) {
        return Ok(true);
    }
    // Whoever did it: it is what the plan would make of it.
    let before = fleet.ask(&zone.control, |provider| provider.version(origin, base))?;
    let before = before.filter(|_| zone.action == Action::Change);
    before.map_or(Ok(false), |before| Ok(outcome(zone, &before)? == content(&served.records)))
}

/// What a plan makes of a zone.
fn outcome(zone: &ZonePlan, before: &[Record]) -> Result<BTreeSet<Record>, Error> {
    let mut outcome = content(before);
    for (op, wanted) in [(Op::Remove, false), (Op::Add, true)] {
        for plan in zone.changes.iter().filter(|plan| plan.op == op) {
            let record = plain(record(plan)?);
            if wanted {
                outcome.insert(record)
            } else {
                outcome.remove(&record)
            };
        }
    }
    Ok(outcome)
}

/// Records without what moves with every change.
fn content(records: &[Record]) -> BTreeSet<Record> {
    records.iter().cloned().map(plain).collect()
}

fn plain(record: Record) -> Record {
    match record.rtype {
        Rtype::SOA => Record { rdata: without_serial(&record.rdata), ..record },
        _ => record,
    }
}

/// The versions after `base`; nothing if the history does not reach that far back.
fn since(versions: &[Version], base: Option<u32>) -> &[Version] {
    match base {
        None => versions,
        Some(base) => match versions.iter().rposition(|version| version.serial == base) {
            Some(at) => &versions[at + 1..],
            None => &[],
        },
    }
}

fn changes_since(zone: &ZonePlan, origin: &Name, served: &ServedZone, fleet: &Fleet<'_>) -> Result<Vec<String>, Error> {
    let Some(base) = zone.base_serial else { return Ok(Vec::new()) };
    let Some(before) = fleet.ask(&zone.control, |provider| provider.version(origin, base))? else {
        return Ok(Vec::new());
    };
    let is_soa = |record: &&Record| record.rtype == Rtype::SOA;
    let only_in = |these: &[Record], those: &[Record], sign: char| -> Vec<String> {
        let different = these.iter().filter(|record| !is_soa(record) && !those.contains(record));
        different.map(|record| format!("{sign} {}", to_text(record, &Name::root()))).collect()
    };
    let mut changes = only_in(&before, &served.records, '-');
    changes.extend(only_in(&served.records, &before, '+'));
    if changes.len() > MAX_LISTED {
        let more = changes.len() - MAX_LISTED;
        changes.truncate(MAX_LISTED);
        changes.push(format!("and {more} more"));
    }
    Ok(changes)
}
