//! The one place that says whether a change may happen.

use serde::{Serialize, Serializer};

use super::{Actor, Policy, access, change, rules};
use crate::diff::Summary;
use crate::force::VerifiedForce;
use crate::name::Name;
use crate::problem::{Problem, Severity};
use crate::record::Record;
use crate::view::{Change, ZoneView};

/// What is to happen to a zone.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// These changes, from the version before; for a new zone every record as [`Change::Add`].
    Write(&'a [Change]),
    /// The zone goes.
    Delete,
}

/// A rule that a change breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The rule's name; what a force token must list.
    pub rule: &'static str,
    /// The names that it is about.
    #[serde(serialize_with = "as_texts")]
    pub names: Vec<Name>,
    /// What is wrong.
    pub message: String,
    /// How to proceed.
    pub remedy: String,
}

fn as_texts<S: Serializer>(names: &[Name], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(ToString::to_string))
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let Refusal { rule, message, remedy, .. } = refusal;
        Problem { file: "".into(), line: 0, rule, severity: Severity::Error, message, remedy: Some(remedy) }
    }
}

/// What the rules say to a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it may not happen; empty when it may.
    pub refusals: Vec<Refusal>,
    /// Rules that it breaks with a force token's leave; they belong into the audit log.
    pub overridden: Vec<Refusal>,
}

impl Verdict {
    /// Whether the change may happen.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.refusals.is_empty()
    }
}

/// What the rules look at.
pub(super) struct Case<'a> {
    pub(super) policy: &'a Policy,
    pub(super) zone: &'a Name,
    pub(super) before: Option<&'a dyn ZoneView>,
    pub(super) step: Step<'a>,
    pub(super) actor: &'a Actor,
    /// Seconds since 1970.
    pub(super) now: i64,
    pub(super) summary: Summary,
}

impl<'a> Case<'a> {
    pub(super) fn changes(&self) -> &'a [Change] {
        match self.step {
            Step::Write(changes) => changes,
            Step::Delete => &[],
        }
    }

    /// What may be done about a refusal, with the way around that a token opens.
    pub(super) fn refusal(&self, rule: &'static str, names: Vec<Name>, message: String, remedy: &str) -> Refusal {
        let force = match (rule, self.policy.force.is_possible()) {
            (access::KEY_RULE, _) => String::new(),
            (_, true) => format!("; or send a force token for the rule `{rule}`"),
            (_, false) => "; the policy names too few people who could sign a force token".to_owned(),
        };
        Refusal { rule, names, message, remedy: format!("{remedy}{force}") }
    }
}

/// Whether somebody may change these records at all, whatever the change: who may not is told what speaks against it.
#[must_use]
pub fn check_actor(policy: &Policy, zone: &Name, records: &[Record], actor: &Actor) -> Vec<Refusal> {
    let changes: Vec<Change> = records.iter().cloned().map(Change::Add).collect();
    let (step, summary) = (Step::Write(&changes), Summary::of(0, &changes));
    let case = Case { policy, zone, before: None, step, actor, now: 0, summary };
    let mut found = Vec::new();
    access::keys(&case, &mut found);
    access::principals(&case, &mut found);
    found
}

/// Holds a change against the policy of the zone. `before` is the version that is served, `None` for a new zone; `now` is in seconds since
/// 1970. A token that was verified for this change overrides the rules that it lists, except what keys may do.
///
/// The changes are those that have an effect, as [`crate::diff::diff`] finds them: nothing is removed that is not there. TTLs have gone through
/// [`Policy::clamp_ttl`].
#[must_use]
pub fn check(
    policy: &Policy,
    zone: &Name,
    before: Option<&dyn ZoneView>,
    step: Step<'_>,
    actor: &Actor,
    now: i64,
    force: Option<&VerifiedForce>,
) -> Verdict {
    let changes = if let Step::Write(changes) = step { changes } else { &[] };
    let summary = Summary::of(before.map_or(0, ZoneView::record_count), changes);
    let case = Case { policy, zone, before, step, actor, now, summary };
    let mut found = Vec::new();
    access::keys(&case, &mut found);
    access::principals(&case, &mut found);
    rules::freeze(&case, &mut found);
    rules::zone_deletion(&case, &mut found);
    change::zone_deletion(&case, &mut found);
    rules::protected_names(&case, &mut found);
    rules::never_empty(&case, &mut found);
    rules::shares(&case, &mut found);
    rules::apex(&case, &mut found);
    rules::ttl(&case, &mut found);
    rules::addresses(&case, &mut found);
    rules::targets(&case, &mut found);
    let forced = |refusal: &Refusal| {
        refusal.rule != access::KEY_RULE && force.is_some_and(|force| force.allows(zone, refusal.rule))
    };
    let (overridden, refusals) = found.into_iter().partition(forced);
    Verdict { refusals, overridden }
}
