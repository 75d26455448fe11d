//! Leave for every step that servers would refuse, before the first step is made: what is refused half-way leaves a domain
//! half changed.

use gateward_zone::force::verify_force;
use gateward_zone::policy::{self, Actor, ActorKind, Policy, Step};
use gateward_zone::{Change, Name, diff};

use super::{Progress, remaining};
use crate::error::{Error, MissingLeave};
use crate::force::Tokens;
use crate::plan::{Broken, Document, Need, Work, ZonePlan, needs};

/// The tokens for a run in which each step that needs one has one that counts; `now` is in seconds since 1970.
///
/// # Errors
/// [`Error::NeedsLeave`] with the steps that have none.
pub(super) fn check(document: &Document, progress: &[Progress], tokens: &Tokens, now: i64) -> Result<Tokens, Error> {
    let (mut chosen, mut missing) = (Vec::new(), Vec::new());
    for (zone, progress) in document.plan.zones.iter().zip(progress) {
        let origin = super::name_of(zone)?;
        let mut needs: Vec<(Need, Policy)> = of_policy(zone, &origin, progress, now).into_iter().collect();
        for work in [Work::First, Work::Last, Work::Delete] {
            needs.extend(need(zone, &origin, progress, work, now)?);
        }
        for (need, policy) in needs {
            let mut signed = tokens.for_changes(&origin, &need.changes);
            let token = signed.find(|(_, token)| lifts(token.expose(), &policy, &origin, &need, now)).cloned();
            drop(signed);
            match token {
                Some(token) => chosen.push(token),
                None => missing.push(MissingLeave { origin: zone.origin.clone(), need }),
            }
        }
    }
    if missing.is_empty() { Ok(tokens.with_first(chosen)) } else { Err(Error::NeedsLeave { steps: missing }) }
}

/// What replacing the policy still needs, by the policy that decides about it.
fn of_policy(zone: &ZonePlan, origin: &Name, progress: &Progress, now: i64) -> Option<(Need, Policy)> {
    let to = &zone.policy.as_ref()?.to;
    // A zone that is not there has none that speaks against it.
    let from = progress.serial.and(progress.policy.as_deref());
    needs::of_policy(origin, from, to, now).map(|need| (need, needs::policy_of(origin, from)))
}

/// What a step of records still needs, likewise.
fn need(
    zone: &ZonePlan,
    origin: &Name,
    progress: &Progress,
    work: Work,
    now: i64,
) -> Result<Option<(Need, Policy)>, Error> {
    let changes = remaining(zone, progress, work)?;
    if changes.is_empty() || progress.serial.is_none() {
        return Ok(None);
    }
    let planned = zone.needs.iter().find(|need| need.step == work.as_str());
    let mut rules = planned.map(|need| need.rules.clone()).unwrap_or_default();
    let policy = new_policy(zone, origin, progress);
    rules.extend(frozen(origin, &policy, &changes, now));
    let (step, changes) = (work.as_str().to_owned(), diff::digest(origin, &changes));
    let need = Need { step, changes, rules, signers: needs::signers(&policy) };
    Ok(Some((need, policy)).filter(|(need, _)| !need.rules.is_empty()))
}

/// The policy that holds when a zone's records change: the new one, which goes first.
fn new_policy(zone: &ZonePlan, origin: &Name, progress: &Progress) -> Policy {
    needs::policy_of(origin, zone.policy.as_ref().map(|policy| policy.to.as_str()).or(progress.policy.as_deref()))
}

/// Whether a freeze holds, by the servers' own rule.
fn frozen(origin: &Name, policy: &Policy, changes: &[Change], now: i64) -> Option<Broken> {
    let freezes = Policy { freezes: policy.freezes.clone(), ..Policy::default() };
    let actor = Actor { name: String::new(), key: None, kind: ActorKind::Api };
    let verdict = policy::check(&freezes, origin, None, Step::Write(changes), &actor, now, None);
    let freeze = verdict.refusals.into_iter().find(|refusal| refusal.rule == "freeze")?;
    Some(Broken { rule: freeze.rule.to_owned(), message: freeze.message, remedy: "wait until then".to_owned() })
}

/// Whether servers would take a token for what is needed.
fn lifts(token: &str, policy: &Policy, origin: &Name, need: &Need, now: i64) -> bool {
    let verified = verify_force(token, &policy.force, origin, &need.changes, now);
    verified.is_ok_and(|force| need.rules.iter().all(|broken| force.allows(origin, &broken.rule)))
}
