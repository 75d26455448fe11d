//! A plan is applied to what it was made from, or not at all: a delayed run must not undo what happened since.

use gateward_zone::{Name, Record, to_text};

use super::Progress;
use crate::error::{Error, StaleZone};
use crate::plan::{Action, Document, ZonePlan};
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
    let served = fleet.ask(&zone.control, |provider| provider.zone(&origin))?;
    let serial = served.as_ref().map(|served| served.serial);
    if serial == zone.base_serial {
        return Ok(Ok(Progress { serial, resumed: None }));
    }
    let Some(served) = served else {
        // Removed, and that is what the plan wanted.
        let gone = zone.action == Action::Delete;
        let stale = StaleZone {
            origin: zone.origin.clone(),
            planned: zone.base_serial,
            served: None,
            changes: Vec::new(),
            actors: Vec::new(),
        };
        return Ok(if gone { Ok(Progress::default()) } else { Err(stale) });
    };
    let versions = fleet.ask(&zone.control, |provider| provider.versions(&origin))?;
    let since = since(&versions, zone.base_serial);
    let ours = |version: &Version| version.actor.split(' ').any(|word| word == actor);
    if !since.is_empty() && since.iter().all(ours) {
        return Ok(Ok(Progress { serial, resumed: Some(served) }));
    }
    let mut actors: Vec<String> = since.iter().map(|version| version.actor.clone()).collect();
    actors.dedup();
    Ok(Err(StaleZone {
        origin: zone.origin.clone(),
        planned: zone.base_serial,
        served: serial,
        changes: changes_since(zone, &origin, &served, fleet)?,
        actors,
    }))
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
    let is_soa = |record: &&Record| record.rtype == gateward_zone::Rtype::SOA;
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
