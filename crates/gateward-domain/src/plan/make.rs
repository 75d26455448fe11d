//! Making a plan: the difference between what is declared and what is served, zone by zone.

use std::collections::{BTreeMap, BTreeSet};

use gateward_zone::policy;
use gateward_zone::{Name, Record, Rtype, to_text};

use super::environments::environment_of;
use super::needs::{as_changes, needs, policy_of};
use super::radius::Counter;
use super::scope::Scope;
use super::{Action, FORMAT, KeyPlan, Op, Plan, PolicyPlan, RecordPlan, ZonePlan, moves};
use crate::current::{Current, CurrentZone};
use crate::declaration::{Declaration, same_policy};
use crate::desired::{Desired, DesiredZone};
use crate::error::Error;
use crate::text;

/// What the caller said about a plan.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only this environment: its zones, its delegation in the root, and the root itself if it is not there yet.
    pub environment: Option<String>,
    /// It may touch several environments.
    pub allow_cross_environment: bool,
    /// Zones that no declaration made may be taken over.
    pub adopt: bool,
}

/// The plan from `current` to what `declaration` asks for.
///
/// # Errors
/// It would touch several environments or take over zones without leave, or zones would be wrong.
pub fn make(declaration: &Declaration, current: &Current, options: &Options) -> Result<Plan, Error> {
    let desired = Desired::of(declaration);
    let scope = Scope::new(declaration, &desired, current, options)?;
    let maker = Maker { declaration, desired: &desired, current, scope };
    let changed = maker.changed()?;
    let mut total = Counter::default();
    changed.iter().for_each(|(_, counter)| total.add(counter));
    let mut zones: Vec<ZonePlan> = changed.into_iter().map(|(plan, _)| plan).collect();
    let mut notes = maker.notes(&zones);
    for (plan, counter) in maker.deleted(&zones, &mut notes) {
        total.add(&counter);
        zones.push(plan);
    }
    if total.environments.len() > 1 && !options.allow_cross_environment {
        return Err(Error::CrossEnvironment { environments: total.environments.into_iter().collect() });
    }
    if !options.adopt {
        maker.refuse_strangers(&zones)?;
    }
    Ok(Plan {
        format: FORMAT.to_owned(),
        root: declaration.root.to_string(),
        environment: options.environment.clone(),
        allow_cross_environment: options.allow_cross_environment,
        adopt: options.adopt,
        blast_radius: total.radius(zones.len()),
        keys: maker.keys(),
        notes,
        zones,
    })
}

struct Maker<'a> {
    declaration: &'a Declaration,
    desired: &'a Desired,
    current: &'a Current,
    scope: Scope<'a>,
}

impl Maker<'_> {
    /// Plans of the declared zones that differ.
    fn changed(&self) -> Result<Vec<(ZonePlan, Counter)>, Error> {
        let mut problems = Vec::new();
        let mut plans = Vec::new();
        for zone in &self.desired.zones {
            let target = self.target(zone);
            problems.extend(lint(zone, &target));
            plans.extend(self.zone(zone, &target));
        }
        if problems.is_empty() { Ok(plans) } else { Err(Error::Invalid { problems }) }
    }

    /// What a zone must hold.
    fn target(&self, zone: &DesiredZone) -> BTreeSet<Record> {
        match (self.now(zone), moves::old_copy(self.current, zone)) {
            (Some(now), _) => zone.target(&now.records),
            (None, Some((_, old))) => moves::target(zone, old),
            (None, None) => zone.target(&[]),
        }
    }

    /// The plan of a declared zone; `None` when nothing of it has to change.
    fn zone(&self, zone: &DesiredZone, target: &BTreeSet<Record>) -> Option<(ZonePlan, Counter)> {
        let now = self.now(zone);
        let is_wanted = self.scope.has_zone(&zone.origin);
        let records = now.map_or(&[][..], |now| &now.records);
        let changes = self.difference(zone, records, target);
        let from = now.and_then(|now| now.policy.clone());
        let differs = from.as_deref().is_none_or(|from| !same_policy(&zone.origin, from, &zone.policy));
        let base_policy = from.as_ref().map(|from| policy::tag(from.as_bytes()));
        let policy = (differs && is_wanted).then(|| PolicyPlan { from, to: zone.policy.clone() });
        let action = if now.is_some() { Action::Change } else { Action::Create };
        if changes.is_empty() && policy.is_none() || action == Action::Create && !is_wanted {
            return None;
        }
        let counter = self.count(Some(zone), &zone.origin, &changes);
        let mut plan = ZonePlan {
            origin: zone.origin.to_string(),
            level: Some(zone.level),
            environment: zone.environment.clone(),
            region: zone.region.clone(),
            owner: zone.owner.clone(),
            control: zone.control.clone(),
            action,
            base_serial: now.map(|now| now.serial),
            base_policy,
            records_now: records.len(),
            blast_radius: counter.radius(1),
            policy,
            needs: Vec::new(),
            changes: self.written(&zone.origin, &changes),
        };
        // A zone that is made has no policy yet that could speak against it.
        if let Some(now) = now {
            let text = plan.policy.as_ref().map(|policy| policy.to.as_str()).or(now.policy.as_deref());
            plan.needs = needs(&plan, &zone.origin, records, &as_changes(&changes), &policy_of(&zone.origin, text));
        }
        Some((plan, counter))
    }

    fn now(&self, zone: &DesiredZone) -> Option<&CurrentZone> {
        self.current.zones.get(&(zone.control.clone(), zone.origin.clone()))
    }

    /// Plans of zones that a declaration made and that are declared no more, or elsewhere; `changed` are the other plans.
    fn deleted(&self, changed: &[ZonePlan], notes: &mut Vec<String>) -> Vec<(ZonePlan, Counter)> {
        let mut plans = Vec::new();
        for ((control, origin), now) in &self.current.zones {
            let declared = self.desired.zone(origin);
            let is_at_home = declared.is_some_and(|zone| zone.control == *control);
            if is_at_home || !now.ours || !self.scope.has_zone(origin) {
                continue;
            }
            if let Some(zone) = declared {
                if moves::is_moving(origin, changed) {
                    notes.push(moves::moving_note(zone, control, now));
                    continue;
                }
                if let Some(note) = self.now(zone).and_then(|new| moves::leaving_note(zone, control, now, new)) {
                    notes.push(note);
                    continue;
                }
            }
            let (mut plan, counter) = self.deletion(control, origin, now);
            if declared.is_some() {
                moves::explain(&mut plan);
            }
            plans.push((plan, counter));
        }
        plans
    }

    fn deletion(&self, control: &str, origin: &Name, now: &CurrentZone) -> (ZonePlan, Counter) {
        let changes: Vec<(Op, &Record)> = now.records.iter().map(|record| (Op::Remove, record)).collect();
        let counter = self.count(None, origin, &changes);
        let mut plan = ZonePlan {
            origin: origin.to_string(),
            level: None,
            environment: environment_of(self.declaration, origin, true),
            region: None,
            owner: self.owner_of(origin),
            control: control.to_owned(),
            action: Action::Delete,
            base_serial: Some(now.serial),
            base_policy: now.policy.as_ref().map(|policy| policy::tag(policy.as_bytes())),
            records_now: now.records.len(),
            blast_radius: counter.radius(1),
            policy: None,
            needs: Vec::new(),
            changes: self.written(origin, &changes),
        };
        let policy = policy_of(origin, now.policy.as_deref());
        plan.needs = needs(&plan, origin, &now.records, &as_changes(&changes), &policy);
        (plan, counter)
    }

    /// What has to go and what has to come, those that go first.
    fn difference<'r>(
        &self,
        zone: &DesiredZone,
        now: &'r [Record],
        target: &'r BTreeSet<Record>,
    ) -> Vec<(Op, &'r Record)> {
        let current: BTreeSet<&Record> = now.iter().collect();
        let servers = self.scope.servers(&zone.origin, target);
        let is_wanted = |record: &Record| {
            let is_address = matches!(record.rtype, Rtype::A | Rtype::AAAA);
            self.scope.has_record(&zone.origin, &record.owner) || is_address && servers.contains(record.owner.as_wire())
        };
        let goes = current.iter().filter(|record| !target.contains(**record)).map(|record| (Op::Remove, *record));
        let comes = target.iter().filter(|record| !current.contains(record)).map(|record| (Op::Add, record));
        goes.chain(comes).filter(|(_, record)| is_wanted(record)).collect()
    }

    /// The changes as they stand in the document. What delegates elsewhere goes last, so that it is there as long as
    /// somebody may follow it.
    fn written(&self, origin: &Name, changes: &[(Op, &Record)]) -> Vec<RecordPlan> {
        let added: BTreeMap<(&Name, Rtype), u32> = changes
            .iter()
            .filter(|(op, _)| *op == Op::Add)
            .map(|(_, record)| ((&record.owner, record.rtype), record.ttl))
            .collect();
        let ns: BTreeSet<&[u8]> = changes
            .iter()
            .filter(|(op, record)| *op == Op::Remove && record.rtype == Rtype::NS)
            .map(|(_, record)| record.rdata.as_wire())
            .collect();
        let is_last = |op: Op, record: &Record| {
            let of_server = matches!(record.rtype, Rtype::A | Rtype::AAAA) && ns.contains(record.owner.as_wire());
            let same_ttl = added.get(&(&record.owner, record.rtype)).is_none_or(|ttl| *ttl == record.ttl);
            op == Op::Remove && (record.rtype == Rtype::NS || of_server) && same_ttl
        };
        changes
            .iter()
            .map(|(op, record)| RecordPlan {
                op: *op,
                record: to_text(record, &Name::root()),
                owner: self.owner_in(origin, &record.owner),
                last: is_last(*op, record),
            })
            .collect()
    }

    fn count(&self, zone: Option<&DesiredZone>, origin: &Name, changes: &[(Op, &Record)]) -> Counter {
        let mut counter = Counter::default();
        for (op, record) in changes {
            match op {
                Op::Add => counter.added += 1,
                Op::Remove => counter.removed += 1,
            }
            counter.names.insert(record.owner.clone());
            counter.owners.insert(self.owner_in(origin, &record.owner));
            let delegates = record.rtype == Rtype::NS && record.owner != *origin;
            counter.environments.extend(environment_of(self.declaration, &record.owner, delegates));
        }
        match zone {
            Some(zone) => counter.environments.extend(zone.environment.clone()),
            None => counter.environments.extend(environment_of(self.declaration, origin, true)),
        }
        let region = zone.and_then(|zone| zone.environment.as_ref().zip(zone.region.as_ref()));
        counter.regions.extend(region.map(|(environment, region)| format!("{environment}/{region}")));
        counter
    }

    fn owner_of(&self, name: &Name) -> String {
        self.declaration.zone_of(name).map_or_else(String::new, |zone| zone.owner_of(name).to_owned())
    }

    /// Whose `name` is, in a zone: a delegation belongs to the team it delegates to.
    fn owner_in(&self, origin: &Name, name: &Name) -> String {
        match self.declaration.zone_of(name) {
            Some(zone) if zone.origin.is_in(origin) => zone.owner_of(name).to_owned(),
            _ => self.owner_of(name),
        }
    }

    fn keys(&self) -> Vec<KeyPlan> {
        let nothing = BTreeSet::new();
        let mut wanted = BTreeSet::new();
        for zone in self.desired.zones.iter().filter(|zone| self.scope.has_zone(&zone.origin)) {
            let known = self.current.keys.get(&zone.control).unwrap_or(&nothing);
            wanted.extend(zone.keys.difference(known).map(|name| (zone.control.clone(), name.clone())));
        }
        wanted.into_iter().map(|(control, name)| KeyPlan { control, name }).collect()
    }

    fn notes(&self, plans: &[ZonePlan]) -> Vec<String> {
        let strangers = self.current.strangers.iter().map(|origin| {
            format!("{origin} is served but not declared; it was not made by a declaration and is left alone")
        });
        let above = self.scope.made_above().filter(|root| plans.iter().any(|plan| plan.origin == root.to_string()));
        let above = above.map(|root| {
            format!(
                "{root} is not there yet, and nothing would lead to the environment: it is made too, without the others"
            )
        });
        strangers.chain(above).collect()
    }

    /// A zone of the same name that somebody made by hand is not overwritten without a word.
    fn refuse_strangers(&self, plans: &[ZonePlan]) -> Result<(), Error> {
        let taken = |zone: &&DesiredZone| {
            let changes = plans.iter().any(|plan| plan.origin == zone.origin.to_string());
            changes && self.now(zone).is_some_and(|now| !now.ours)
        };
        let zones: Vec<Name> = self.desired.zones.iter().filter(taken).map(|zone| zone.origin.clone()).collect();
        if zones.is_empty() { Ok(()) } else { Err(Error::NotOurs { zones }) }
    }
}

/// What is wrong with a zone as it would be, so that it is known before anything is changed.
fn lint(zone: &DesiredZone, target: &BTreeSet<Record>) -> Vec<String> {
    let records: Vec<Record> = target.iter().cloned().collect();
    text::problems(&zone.origin, &records)
}
