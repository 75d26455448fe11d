//! Guardrails that a plan breaks, known before anything is done: what a server would refuse half-way is said when the plan is
//! made, with the way around it.
//!
//! Policies are held against each step by the code that the servers run. Freezes are left out, because a plan has no time
//! in it: they are looked at when it is applied.

use gateward_zone::policy::{self, ActorKind, Policy, Refusal};
use gateward_zone::{Change, Name, Record, diff};

use super::steps::{Work, belongs};
use super::{Op, PolicyPlan, ZonePlan};
use crate::need::{Broken, Need};
use crate::text;

/// What the steps of a zone's plan need, from the zone as it is; `changes` are those of the plan, in its order.
pub(super) fn needs(plan: &ZonePlan, origin: &Name, now: &[Record], changes: &[Change], policy: &Policy) -> Vec<Need> {
    let mut records = now.to_vec();
    // No freeze holds then.
    let policy_need = |policy: &PolicyPlan| of_policy(origin, policy.from.as_deref(), &policy.to, i64::MAX);
    let mut needs: Vec<Need> = plan.policy.as_ref().and_then(policy_need).into_iter().collect();
    for work in [Work::First, Work::Last, Work::Delete] {
        let mine: Vec<Change> = plan
            .changes
            .iter()
            .zip(changes)
            .filter(|(one, _)| belongs(plan, one, work))
            .map(|(_, it)| it.clone())
            .collect();
        if mine.is_empty() {
            continue;
        }
        let rules = broken(origin, &records, work, &mine, policy);
        if !rules.is_empty() {
            let (step, changes) = (work.as_str().to_owned(), diff::digest(origin, &mine));
            needs.push(Need { step, changes, rules, signers: signers(policy) });
        }
        records = after(&records, &mine);
    }
    needs
}

/// What replacing a policy file needs, by the policy as it is; nothing where there is none yet. Freezes count that hold at `now`, in seconds
/// since 1970; who asks is the server's to judge.
pub(crate) fn of_policy(origin: &Name, from: Option<&str>, to: &str, now: i64) -> Option<Need> {
    let (old, new) = (policy_of(origin, from), policy_of(origin, Some(to)));
    let digest = policy::digest(origin, to.as_bytes());
    let actor = policy::Actor { name: String::new(), key: None, kind: ActorKind::Api };
    let verdict = policy::check_policy(&old, origin, &new, &digest, &actor, now, None);
    let others = verdict.refusals.into_iter().filter(|refusal| refusal.rule != "owner");
    let rules: Vec<Broken> = others.map(|refusal| told(refusal, Work::Policy)).collect();
    let need = Need { step: Work::Policy.as_str().to_owned(), changes: digest, rules, signers: signers(&old) };
    Some(need).filter(|need| !need.rules.is_empty())
}

/// Who may sign leave to break rules of a policy.
pub(crate) fn signers(policy: &Policy) -> Vec<String> {
    if policy.force.is_possible() { policy.force.keys.keys().cloned().collect() } else { Vec::new() }
}

/// The policy in this file; one that cannot be read forbids nothing that could be foreseen.
pub(crate) fn policy_of(origin: &Name, text: Option<&str>) -> Policy {
    text.and_then(|text| Policy::from_yaml(text.as_bytes(), origin, "").ok()).unwrap_or_default()
}

/// The rules that a step breaks for whoever asks.
fn broken(origin: &Name, records: &[Record], work: Work, changes: &[Change], policy: &Policy) -> Vec<Broken> {
    // A zone that cannot be read back is the server's to judge.
    let Some(before) = text::view(origin, records) else { return Vec::new() };
    let step = if work == Work::Delete { policy::Step::Delete } else { policy::Step::Write(changes) };
    let actor = policy::Actor { name: String::new(), key: None, kind: ActorKind::Api };
    let anybody = Policy { principals: Vec::new(), subtrees: Vec::new(), ..policy.clone() };
    let verdict = policy::check(&anybody, origin, Some(&before), step, &actor, i64::MIN, None);
    verdict.refusals.into_iter().map(|refusal| told(refusal, work)).collect()
}

fn after(records: &[Record], changes: &[Change]) -> Vec<Record> {
    let gone = |record: &&Record| !changes.iter().any(|change| matches!(change, Change::Remove(one) if one == *record));
    let mut after: Vec<Record> = records.iter().filter(gone).cloned().collect();
    after.extend(
        changes.iter().filter_map(|change| if let Change::Add(record) = change { Some(record.clone()) } else { None }),
    );
    after
}

/// A refusal in terms of the declaration, from which policies follow.
fn told(refusal: Refusal, work: Work) -> Broken {
    let in_guardrails = |what: &str| format!("change `{what}` in the `guardrails` of its level");
    let remedy = match refusal.rule {
        "protected-zone" => {
            "declare it once more with `guardrails: { deletion_protection: false }`, apply that, and remove it then".to_owned()
        }
        "apex-lock" => {
            "if the new name servers are meant, set `guardrails: { lock_apex: false }` at this level in the same plan, and take \
             that away in the next one"
                .to_owned()
        }
        "max-deleted" => format!("make it in smaller steps, or {}", in_guardrails("max_deleted_percent")),
        "max-changed" => format!("make it in smaller steps, or {}", in_guardrails("max_changed_percent")),
        "protected-names" => in_guardrails("protected_names"),
        "never-empty" => in_guardrails("never_empty"),
        "ttl" => in_guardrails("min_ttl` or `max_ttl"),
        "addresses" => in_guardrails("allowed_addresses"),
        "policy" if work == Work::Delete => "keep the zone".to_owned(),
        "policy" => "keep the guardrails at least as strict as they are".to_owned(),
        _ => refusal.remedy,
    };
    let is_about_the_end = matches!(refusal.rule, "protected-zone" | "policy");
    let first = if work == Work::Delete && !is_about_the_end { ", and apply that before it goes" } else { "" };
    Broken { rule: refusal.rule.to_owned(), message: refusal.message, remedy: format!("{remedy}{first}") }
}

/// The changes of a plan as changes of a zone.
pub(super) fn as_changes(changes: &[(Op, &Record)]) -> Vec<Change> {
    let change = |(op, record): &(Op, &Record)| match op {
        Op::Add => Change::Add((*record).clone()),
        Op::Remove => Change::Remove((*record).clone()),
    };
    changes.iter().map(change).collect()
}
