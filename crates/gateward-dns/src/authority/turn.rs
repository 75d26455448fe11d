//! A zone's turn: changes that waited are planned one on top of the other, stored together, and answered.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use gateward_zone::policy::Policy;
use gateward_zone::{Change, ZoneView};

use super::guard::{Allowed, Asked};
use super::line::{Job, Kind, Line, Reply, State};
use super::plan::{self, Planned};
use super::proposal::{Applied, Base, Door, Edit, Proposal, Refused};
use super::{Authority, Happened, guard, problem};
use crate::folder::Included;
use crate::store::Zone;

/// A change that was found good and waits for the others to be stored.
pub(super) struct Accepted {
    pub(super) reply: Option<Reply>,
    pub(super) proposal: ProposalHead,
    pub(super) from: Option<u32>,
    pub(super) next: Arc<Zone>,
    pub(super) applied: Applied,
    pub(super) allowed: Allowed,
}

/// What is left of a proposal when its edit is planned.
pub(super) struct ProposalHead {
    pub(super) actor: super::Actor,
    /// What the audit log calls it.
    pub(super) action: &'static str,
    pub(super) text: Option<Vec<u8>>,
    pub(super) includes: Vec<Included>,
    /// The serial that the text says.
    pub(super) stated: Option<u32>,
    pub(super) is_dry_run: bool,
}

impl Authority {
    /// Does what waits in a line.
    pub(super) fn turn(&self, line: &Arc<Line>) {
        let mut changes = Vec::new();
        for job in line.take() {
            match job {
                Job::Turn(work) => return work(self, line, &mut line.state()),
                Job::Change(proposal, reply) => changes.push((*proposal, reply)),
            }
        }
        self.make(line, &mut line.state(), changes);
    }

    /// Makes changes that wait together: all that are good share one sync.
    pub(super) fn make(&self, line: &Line, state: &mut State, changes: Vec<(Proposal, Reply)>) {
        let now = SystemTime::now();
        let mut accepted: Vec<Accepted> = Vec::new();
        let mut refused = Vec::new();
        for (proposal, reply) in changes {
            let head = accepted.last().map(|last| last.next.clone()).or_else(|| state.zone.clone());
            let actor = proposal.actor.clone();
            match self.consider(line, state, head.as_ref(), proposal, now) {
                Ok(mut good) if good.proposal.is_dry_run => {
                    good.applied.serial = head.map_or(good.applied.serial, |head| head.serial());
                    // Nobody may be waiting any more; here and below.
                    let _ = reply.send(Ok(good.applied));
                }
                Ok(mut good) => {
                    good.reply = Some(reply);
                    accepted.push(good);
                }
                Err(error) => refused.push((actor, reply, error)),
            }
        }
        if let Err(error) = self.commit(line, state, &mut accepted, now) {
            tracing::error!(zone = %line.origin, %error, "changes could not be stored; none of them was made");
            refused
                .extend(accepted.drain(..).filter_map(|good| Some((good.proposal.actor, good.reply?, error.clone()))));
        }
        self.audit.changes(line, &accepted, now);
        for good in accepted {
            self.counts.good(!good.applied.changes.is_empty());
            let _ = good.reply.map(|reply| reply.send(Ok(good.applied)));
        }
        for (actor, reply, error) in refused {
            self.note_refusal(line, &actor, &error, now);
            let _ = reply.send(Err(error));
        }
        if std::mem::take(&mut state.lacks_copy) {
            self.keep_good_or_say(state);
        }
        self.merge_if_long(line, state);
    }

    /// Whether a change may be made, and what it makes of `head`.
    fn consider(
        &self,
        line: &Line,
        state: &mut State,
        head: Option<&Arc<Zone>>,
        proposal: Proposal,
        now: SystemTime,
    ) -> Result<Accepted, Refused> {
        let Proposal { edit, base, numbering, actor, force, is_dry_run, text, includes, .. } = proposal;
        let serial = head.map(|head| head.serial());
        compare(line, serial, base)?;
        if head.is_none() {
            // Its policy may be waiting for it, and holds for its first version, too.
            self.take_policy(line, state, self.read_policy(&line.origin));
        }
        let stated = if let Edit::Replace(zone) = &edit { Some(zone.serial()) } else { None };
        let is_whole = stated.is_some();
        let action = if matches!(edit, Edit::Rollback(_)) { "rollback" } else { "write" };
        self.may_change(line, state, actor.door, is_whole)?;
        if actor.door == Door::File
            && let (Edit::Replace(zone), Some(head)) = (&edit, head)
            && !is_edited(line, state, head, zone)?
        {
            return Ok(unchanged(head, actor, is_dry_run));
        }
        let policy = line.info.load().policy.clone();
        let is_file = actor.door == Door::File;
        if !is_dry_run && !is_file && !actor.door.is_copy() {
            self.charge(state, &policy)?;
        }
        let clamp = |changes: Vec<Change>| guard::clamped(&policy, changes);
        let Planned { next, changes } = match (edit, head) {
            (Edit::Replace(zone), None) => plan::create(&line.origin, *zone)?,
            (_, None) => return Err(Refused::NoZone(line.origin.clone())),
            (Edit::Replace(zone), Some(head)) => plan::replace(head, *zone, numbering)?,
            (Edit::Changes(changes), Some(head)) => plan::change(head, &clamp(changes), numbering)?,
            (Edit::Decide(decide), Some(head)) => plan::change(head, &clamp(decide(&**head)?), numbering)?,
            // It is the first of its turn: the head is the version that is served.
            (Edit::Rollback(to), Some(head)) => {
                let back = self.way_back(line, state, to)?;
                plan::change(head, &without_soa_serial(back), numbering)?
            }
        };
        if is_file && !changes.is_empty() {
            // What the server itself wrote into it says nothing new, and is no change of anybody's.
            self.charge(state, &policy)?;
        }
        let mut warnings = Vec::new();
        if !actor.door.is_copy() && !changes.is_empty() {
            self.may_hold(&policy, &next)?;
            if !is_whole {
                warnings = plan::lint_touched(&next, &changes);
            }
        }
        let errors: Vec<_> = warnings.extract_if(.., |found| found.is_error()).collect();
        let asked = Asked { policy: &policy, zone: &line.origin, actor: &actor, force: force.as_deref(), now };
        let allowed = asked.write(head, &changes, errors)?;
        Ok(Accepted {
            reply: None,
            proposal: ProposalHead { actor, action, text, includes, stated, is_dry_run },
            from: serial,
            applied: Applied { serial: next.serial(), changes, is_new: head.is_none(), warnings },
            next,
            allowed,
        })
    }

    /// Whether the zone can be changed at all through that door.
    fn may_change(&self, line: &Line, state: &State, door: Door, is_whole: bool) -> Result<(), Refused> {
        let remedy = "send the change to the zone's primary; a catalog of this server changes with its zones";
        is_made_here(line, door, remedy)?;
        if !state.bad_policy.is_empty() && !door.is_copy() {
            return Err(Refused::Rules(state.bad_policy.clone()));
        }
        if !state.damaged.is_empty() && !is_whole {
            return Err(Refused::Rules(state.damaged.clone()));
        }
        Ok(())
    }

    /// Takes a change from what the zone may make of them.
    fn charge(&self, state: &mut State, policy: &Policy) -> Result<(), Refused> {
        let per_second = self.changes_per_second(policy);
        state.bucket.take(per_second, Instant::now()).map_err(|wait| Refused::Busy {
            per_second,
            retry_after_ms: std::time::Duration::from_secs_f64(wait).as_millis().try_into().unwrap_or(u64::MAX),
        })
    }

    /// The lesser of what the server and the zone's policy allow.
    fn changes_per_second(&self, policy: &Policy) -> u32 {
        match (self.options.max_changes_per_second, policy.limits.updates_per_second) {
            (server, None) => server,
            (0, Some(zone)) => zone,
            (server, Some(zone)) => server.min(zone),
        }
    }

    fn may_hold(&self, policy: &Policy, next: &Zone) -> Result<(), Refused> {
        let of_zone = policy.limits.records.and_then(|records| usize::try_from(records).ok());
        let allowed = of_zone.unwrap_or(usize::MAX).min(self.options.max_records);
        if next.record_count() <= allowed {
            return Ok(());
        }
        let message = format!("the zone would have {} records; {allowed} are allowed", next.record_count());
        let remedy = "remove records, or raise the limit: `limits.records` in the policy, --max-records of the server";
        Err(Refused::rule("max-records", message, remedy))
    }

    /// What a zone's writer tells after a change is served.
    pub(super) fn tell_changes(&self, line: &Line, accepted: &[Accepted]) {
        let Some(last) = accepted.iter().rfind(|good| !good.applied.changes.is_empty()) else { return };
        let serial = last.applied.serial;
        let is_new = accepted.iter().any(|good| good.applied.is_new);
        self.tell(&line.origin, if is_new { Happened::Added(serial) } else { Happened::Changed(serial) });
    }
}

/// Only their primaries, and the server for its own catalogs, decide about copies; `remedy` for everybody else.
pub(super) fn is_made_here(line: &Line, door: Door, remedy: &str) -> Result<(), Refused> {
    if door.is_copy() || line.info.load().kind == Kind::Primary {
        return Ok(());
    }
    let message = format!("{} is not made here: it is a copy, or a catalog that the server keeps", line.origin);
    Err(Refused::rule("copy", message, remedy))
}

pub(super) fn compare(line: &Line, served: Option<u32>, base: Base) -> Result<(), Refused> {
    match (base, served) {
        (Base::Any, _) | (Base::Absent, None) => Ok(()),
        (Base::Serial(wanted), Some(served)) if wanted == served => Ok(()),
        (Base::Serial(_), None) => Err(Refused::NoZone(line.origin.clone())),
        (Base::Serial(wanted), Some(served)) => Err(Refused::Base { served, wanted: Some(wanted) }),
        (Base::Absent, Some(served)) => Err(Refused::Base { served, wanted: None }),
    }
}

/// Whether a zone file says something new. It must not undo changes that came by other doors without saying so.
fn is_edited(line: &Line, state: &State, head: &Zone, zone: &gateward_zone::ZoneText) -> Result<bool, Refused> {
    if state.unmerged == 0 {
        return Ok(true);
    }
    if state.file_digest == Some(super::digest::of_zone(zone)) && state.file_serial == Some(zone.serial()) {
        return Ok(false);
    }
    if gateward_zone::is_newer(zone.serial(), head.serial()) {
        tracing::warn!(
            zone = %line.origin, file = zone.serial(), served = head.serial(), changes = state.unmerged,
            "the zone file was edited and has a higher serial than the zone: it counts, and what it lacks of the changes that came by other \
             ways goes; they can be brought back from the versions"
        );
        return Ok(true);
    }
    Err(Refused::Rules(vec![conflict(zone.serial(), head.serial(), state.unmerged)]))
}

/// Everything is as wanted.
fn unchanged(head: &Arc<Zone>, actor: super::Actor, is_dry_run: bool) -> Accepted {
    Accepted {
        reply: None,
        proposal: ProposalHead { actor, action: "write", text: None, includes: Vec::new(), stated: None, is_dry_run },
        from: Some(head.serial()),
        next: head.clone(),
        applied: Applied { serial: head.serial(), changes: Vec::new(), is_new: false, warnings: Vec::new() },
        allowed: Allowed::default(),
    }
}

/// A zone file was edited that does not have what was changed since it was written.
pub(super) fn conflict(file: u32, served: u32, steps: u64) -> gateward_zone::Problem {
    problem(
        "stale-file",
        format!(
            "the zone file (serial {file}) was edited, but does not have the {steps} change(s) that were acknowledged since it was \
             written; the zone has serial {served}"
        ),
        format!(
            "take the zone as it is served (GET /v1/zones/ORIGIN), make the edit there, and write it back; or give the file a serial above \
             {served} to drop these changes"
        ),
    )
}

/// What leads back, without going back to an old serial.
fn without_soa_serial(changes: Vec<Change>) -> Vec<Change> {
    let mut soa: Vec<Change> = Vec::new();
    let mut rest = Vec::with_capacity(changes.len());
    for change in changes {
        if change.record().rtype == gateward_zone::Rtype::SOA { soa.push(change) } else { rest.push(change) }
    }
    // The first that goes is the one that is served, the last that comes is the old one.
    let first = soa.iter().find(|change| matches!(change, Change::Remove(_))).cloned();
    let last = soa.iter().rfind(|change| matches!(change, Change::Add(_))).cloned();
    if let (Some(Change::Remove(served)), Some(Change::Add(mut old))) = (first, last) {
        let serial = gateward_zone::Soa::read(&served.rdata).map(|soa| soa.serial);
        if let Some(rdata) = serial.ok().and_then(|serial| gateward_zone::with_serial(&old.rdata, serial)) {
            old.rdata = rdata;
            rest.extend([Change::Remove(served), Change::Add(old)]);
        }
    }
    rest
}

/// Milliseconds since 1970.
pub(super) fn millis(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis().try_into().unwrap_or(u64::MAX)
}
