//! The order in which a plan is applied: what is new is there before anything leads to it, and what goes is left only
//! when nothing leads to it any more.

use gateward_zone::Name;

use super::{Action, Plan, RecordPlan, ZonePlan};

/// One call to a control API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Which zone of the plan.
    pub(crate) zone: usize,
    pub(crate) work: Work,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Make the zone.
    Create,
    /// Replace its policy.
    Policy,
    /// Add records, and remove what nothing leads to.
    First,
    /// Remove delegations and name servers.
    Last,
    /// Remove the zone.
    Delete,
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

/// Whether a zone loses delegations in the second round. One that goes itself loses them before: no zone is removed while
/// another leads to it.
fn leads_away(zone: &ZonePlan) -> bool {
    match zone.action {
        Action::Create => false,
        Action::Change => zone.changes.iter().any(|change| change.last),
        Action::Delete => zone.changes.iter().any(|change| is_delegation(zone, change)),
    }
}

/// Whether a change is about an NS record below the zone's apex.
pub(crate) fn is_delegation(zone: &ZonePlan, change: &RecordPlan) -> bool {
    let mut words = change.record.split_ascii_whitespace();
    let owner = words.next();
    owner != Some(&zone.origin) && words.nth(2) == Some("NS")
}
