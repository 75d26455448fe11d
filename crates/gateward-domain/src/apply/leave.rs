//! Leave for every step that servers would refuse, before the first step is made: what is refused half-way leaves a domain
//! half changed.

use gateward_zone::policy::{ActorKind, Freeze, Policy};
use gateward_zone::{Name, diff};

use super::{Progress, remaining};
use crate::error::{Error, MissingLeave};
use crate::force::Tokens;
use crate::plan::{Broken, Document, Need, Work, ZonePlan, needs};

/// Whether there is a token for each step that needs one; `now` is in seconds since 1970.
///
/// # Errors
/// [`Error::NeedsLeave`] with the steps that have none.
pub(super) fn check(document: &Document, progress: &[Progress], tokens: &Tokens, now: i64) -> Result<(), Error> {
    let mut steps = Vec::new();
    for (zone, progress) in document.plan.zones.iter().zip(progress) {
        let origin = super::name_of(zone)?;
        let mut needs: Vec<Need> = of_policy(zone, &origin, progress, now).into_iter().collect();
        for work in [Work::First, Work::Last, Work::Delete] {
            needs.extend(need(zone, &origin, progress, work, now)?);
        }
        let missing = |need| MissingLeave { origin: zone.origin.clone(), need };
        steps.extend(needs.into_iter().filter(|need| !is_given(&origin, need, tokens)).map(missing));
    }
    if steps.is_empty() { Ok(()) } else { Err(Error::NeedsLeave { steps }) }
}

/// What replacing the policy still needs.
fn of_policy(zone: &ZonePlan, origin: &Name, progress: &Progress, now: i64) -> Option<Need> {
    let to = &zone.policy.as_ref()?.to;
    // A zone that is not there has none that speaks against it.
    let from = progress.serial.and(progress.policy.as_deref());
    needs::of_policy(origin, from, to, now)
}

/// What a step of records still needs.
fn need(zone: &ZonePlan, origin: &Name, progress: &Progress, work: Work, now: i64) -> Result<Option<Need>, Error> {
    let changes = remaining(zone, progress, work)?;
    if changes.is_empty() || progress.serial.is_none() {
        return Ok(None);
    }
    let planned = zone.needs.iter().find(|need| need.step == work.as_str());
    let mut rules = planned.map(|need| need.rules.clone()).unwrap_or_default();
    let policy = policy(zone, origin, progress);
    rules.extend(frozen(origin, &policy, now));
    let (step, changes) = (work.as_str().to_owned(), diff::digest(origin, &changes));
    let need = Need { step, changes, rules, signers: needs::signers(&policy) };
    Ok(Some(need).filter(|need| !need.rules.is_empty()))
}

/// The policy that holds when a zone's records change: the new one, which goes first.
fn policy(zone: &ZonePlan, origin: &Name, progress: &Progress) -> Policy {
    needs::policy_of(origin, zone.policy.as_ref().map(|policy| policy.to.as_str()).or(progress.policy.as_deref()))
}

fn frozen(origin: &Name, policy: &Policy, now: i64) -> Option<Broken> {
    let holds =
        |freeze: &&Freeze| (freeze.start..freeze.end).contains(&now) && !freeze.except.contains(&ActorKind::Api);
    let freeze = policy.freezes.iter().find(holds)?;
    let reason = if freeze.reason.is_empty() { String::new() } else { format!(" ({})", freeze.reason) };
    Some(Broken {
        rule: "freeze".to_owned(),
        message: format!("changes of {origin} are frozen{reason} for {} s more", freeze.end - now),
        remedy: "wait until then".to_owned(),
    })
}

fn is_given(origin: &Name, need: &Need, tokens: &Tokens) -> bool {
    let found = tokens.find(origin, &need.changes);
    found.is_some_and(|(claims, _)| need.rules.iter().all(|broken| claims.rules.contains(&broken.rule)))
}
