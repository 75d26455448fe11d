//! Guardrails: a change held against the policy of its zone.

use std::sync::Arc;
use std::time::SystemTime;

use gateward_zone::force::{ForceError, VerifiedForce, verify_force};
use gateward_zone::policy::{self, ActorKind, Policy, Refusal, Step, Verdict};
use gateward_zone::{Change, Name, Problem, Record, ZoneView};

use super::proposal::{Actor, Door, Refused};
use super::turn::millis;
use super::{Authority, problem};
use crate::store::Zone;

/// A change that may be made.
#[derive(Default)]
pub(super) struct Allowed {
    /// Rules that it breaks with a force token's leave.
    pub(super) overridden: Vec<Refusal>,
    /// The token.
    pub(super) force: Option<VerifiedForce>,
}

/// Who asks, when, and with which token.
pub(super) struct Asked<'a> {
    pub(super) policy: &'a Policy,
    pub(super) zone: &'a Name,
    pub(super) actor: &'a Actor,
    pub(super) force: Option<&'a str>,
    pub(super) now: SystemTime,
}

impl Authority {
    /// Whether somebody may hold these records by a lease. It may be for what is there already, which changes nothing that could be refused.
    ///
    /// # Errors
    /// [`Refused`]: the policy lets others change them.
    pub(crate) fn may_lease(&self, origin: &Name, actor: &Actor, records: &[Record]) -> Result<(), Refused> {
        let line = self.must_know(origin)?;
        let found = policy::check_actor(&line.info.load().policy, origin, records, &principal(actor));
        if found.is_empty() {
            return Ok(());
        }
        let refused = Refused::Rules(found.into_iter().map(Problem::from).collect());
        self.note_refusal(&line, actor, &refused, SystemTime::now());
        Err(refused)
    }
}

impl Asked<'_> {
    /// Whether changes may be made; `errors` are what else speaks against them.
    ///
    /// # Errors
    /// Everything that speaks against it.
    pub(super) fn write(
        &self,
        before: Option<&Arc<Zone>>,
        changes: &[Change],
        errors: Vec<Problem>,
    ) -> Result<Allowed, Refused> {
        if self.actor.door.is_copy() || changes.is_empty() && errors.is_empty() {
            return Ok(Allowed::default());
        }
        let before = before.map(|zone| &**zone as &dyn ZoneView);
        self.decide(before, Step::Write(changes), changes, errors)
    }

    /// Whether the zone may go.
    ///
    /// # Errors
    /// Everything that speaks against it.
    pub(super) fn remove(&self, zone: &Zone, relatives: Vec<Problem>) -> Result<Allowed, Refused> {
        if self.actor.door.is_copy() {
            return Ok(Allowed::default());
        }
        self.decide(Some(zone), Step::Delete, &gateward_zone::diff::removal(zone), relatives)
    }

    /// Whether the policy may be replaced by `new`, whose text is `text`. It is the old one that says so.
    ///
    /// # Errors
    /// Everything that speaks against it.
    pub(super) fn replace_policy(&self, new: &Policy, text: &[u8]) -> Result<Allowed, Refused> {
        let mut errors = Vec::new();
        let digest = policy::digest(self.zone, text);
        let force = self.force(&digest, &mut errors);
        let actor = principal(self.actor);
        let verdict =
            policy::check_policy(self.policy, self.zone, new, &digest, &actor, self.seconds(), force.as_ref());
        Asked::settle(verdict, force, errors)
    }

    fn decide(
        &self,
        before: Option<&dyn ZoneView>,
        step: Step<'_>,
        changes: &[Change],
        mut errors: Vec<Problem>,
    ) -> Result<Allowed, Refused> {
        let force = self.force(&gateward_zone::diff::digest(self.zone, changes), &mut errors);
        let actor = principal(self.actor);
        let verdict = policy::check(self.policy, self.zone, before, step, &actor, self.seconds(), force.as_ref());
        Asked::settle(verdict, force, errors)
    }

    fn seconds(&self) -> i64 {
        i64::try_from(millis(self.now) / 1_000).unwrap_or(i64::MAX)
    }

    /// The token, if one came that is good for what the digest stands for.
    fn force(&self, digest: &str, errors: &mut Vec<Problem>) -> Option<VerifiedForce> {
        let verified = verify_force(self.force?, &self.policy.force, self.zone, digest, self.seconds());
        let say = |error: &ForceError| {
            errors.push(problem("force-token", error.to_string(), "ask for a token for exactly this change"));
        };
        verified.inspect_err(say).ok()
    }

    fn settle(verdict: Verdict, force: Option<VerifiedForce>, mut errors: Vec<Problem>) -> Result<Allowed, Refused> {
        errors.extend(verdict.refusals.into_iter().map(Problem::from));
        if errors.is_empty() {
            return Ok(Allowed { overridden: verdict.overridden, force });
        }
        Err(Refused::Rules(errors))
    }
}

/// The changes with TTLs moved into the policy's bounds, where it wants that.
pub(super) fn clamped(policy: &Policy, mut changes: Vec<Change>) -> Vec<Change> {
    for change in &mut changes {
        if let Change::Add(record) = change {
            record.ttl = policy.clamp_ttl(record.rtype, record.ttl);
        }
    }
    changes
}

/// Begins the word by which a run of a plan signs, behind the name of who runs it.
const PLAN: &str = "plan:";

/// Who asks, as policies know people.
pub(super) fn principal(actor: &Actor) -> policy::Actor {
    let (kind, key) = match actor.door {
        Door::File => (ActorKind::File, None),
        Door::Lease => (ActorKind::Lease, None),
        Door::Expiry => (ActorKind::Expiry, None),
        // Names of keys are domain names.
        Door::Update => (ActorKind::Update, actor.name.parse::<Name>().ok()),
        Door::Api | Door::Webhook | Door::Transfer | Door::Catalog => (ActorKind::Api, None),
    };
    let person = actor.name.rsplit_once(' ').filter(|(_, word)| actor.door == Door::Api && word.starts_with(PLAN));
    let name = person.map_or(&*actor.name, |(person, _)| person).to_owned();
    policy::Actor { name, key, kind }
}
