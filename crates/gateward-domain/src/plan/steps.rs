//! The order in which a plan is applied: what is new is there before anything leads to it, and what goes is left only
//! when nothing leads to it any more.

use gateward_zone::Name;
use serde::{Deserialize, Serialize};

use super::{Action, Plan, RecordPlan, ZonePlan};

/// One call to a control API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Which zone of the plan.
    pub(crate) zone: usize,
    pub(crate) work: Work,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Make the zone.
    #[serde(rename = "create")]
    Create,
    /// Replace its policy.
    #[serde(rename = "policy")]
    Policy,
    /// Add records, and remove what nothing leads to.
    #[serde(rename = "change")]
    First,
    /// Remove delegations and name servers.
    #[serde(rename = "remove delegations")]
    Last,
    /// Remove the zone.
    #[serde(rename = "delete")]
    Delete,
}

impl Work {
    /// As in plans and accounts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Work::Create => "create",
            Work::Policy => "policy",
            Work::First => "change",
            Work::Last => "remove delegations",
            Work::Delete => "delete",
        }
    }
}

/// Whether a change of a zone is made in this step.
pub(crate) fn belongs(zone: &ZonePlan, change: &RecordPlan, work: Work) -> bool {
    match (zone.action, work) {
        (_, Work::Policy) => false,
        (Action::Create, work) => work == Work::Create,
        (Action::Change, Work::First) => !change.last,
        (Action::Change, Work::Last) => change.last,
        (Action::Change, _) => false,
        // It leads nowhere before it goes: no zone is removed while another leads to it.
        (Action::Delete, Work::Last) => is_delegation(zone, change),
        (Action::Delete, Work::Delete) => !is_delegation(zone, change),
        (Action::Delete, _) => false,
    }
}

/// The steps of a plan, in order: children before their parents, then removals the other way round.
pub(crate) fn steps(plan: &Plan) -> Vec<Step> {
    let depth = |zone: &ZonePlan| zone.origin.parse::<Name>().map_or(0, |origin| origin.label_count());
    let mut down: Vec<usize> = (0..plan.zones.len()).collect();
    down.sort_by_key(|index| depth(&plan.zones[*index]));
    let up = down.iter().rev();
    let mut steps = Vec::new();
    for index in up.clone() {
        let zone = &plan.zones[*index];
        let mut add = |work| steps.push(Step { zone: *index, work });
        match zone.action {
            Action::Create => {
                add(Work::Create);
                // A policy needs its zone; the zone's first records are the declaration's own.
                add(Work::Policy);
            }
            Action::Change => {
                if zone.policy.is_some() {
                    add(Work::Policy);
                }
                if zone.changes.iter().any(|change| !change.last) {
                    add(Work::First);
                }
            }
            Action::Delete => {}
        }
    }
    for index in &down {
        if leads_away(&plan.zones[*index]) {
            steps.push(Step { zone: *index, work: Work::Last });
        }
    }
    for index in up.filter(|index| plan.zones[**index].action == Action::Delete) {
        steps.push(Step { zone: *index, work: Work::Delete });
    }
    steps
}

/// Whether a zone loses delegations or name servers in the second round.
fn leads_away(zone: &ZonePlan) -> bool {
    zone.changes.iter().any(|change| belongs(zone, change, Work::Last))
}

/// Whether a change is about an NS record below the zone's apex.
fn is_delegation(zone: &ZonePlan, change: &RecordPlan) -> bool {
    let mut words = change.record.split_ascii_whitespace();
    let owner = words.next();
    owner != Some(&zone.origin) && words.nth(2) == Some("NS")
}
