//! Making a plan: the difference between what is declared and what is served, zone by zone.

use std::collections::{BTreeMap, BTreeSet};

use gateward_zone::policy::Policy;
use gateward_zone::{Name, Record, Rtype, to_text};

use super::radius::Counter;
use super::{Action, FORMAT, KeyPlan, Op, Plan, PolicyPlan, RecordPlan, ZonePlan};
use crate::current::{Current, CurrentZone};
use crate::declaration::{Declaration, same_policy};
use crate::desired::{Desired, DesiredZone};
use crate::error::Error;
use crate::text;

/// What the caller said about a plan.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only this environment: its zones, and its delegation in the root.
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
    let maker = Maker { declaration, desired: &desired, current, only: environment(declaration, options)? };
    let mut zones = Vec::new();
    let mut total = Counter::default();
    for (plan, counter) in maker.changed()?.into_iter().chain(maker.deleted()) {
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
        blast_radius: total.radius(zones.len()),
        keys: maker.keys(),
        notes: maker.notes(&zones),
        zones,
    })
}

/// The apex of the environment that a plan is narrowed to.
fn environment(declaration: &Declaration, options: &Options) -> Result<Option<Name>, Error> {
    let Some(name) = &options.environment else { return Ok(None) };
    let apex = declaration.root.child(name.as_bytes()).ok();
    if let Some(apex) = apex.filter(|apex| declaration.zone(apex).is_some_and(|zone| zone.environment.is_some())) {
        return Ok(Some(apex));
    }
    let mut known: Vec<String> = declaration.zones.iter().filter_map(|zone| zone.environment.clone()).collect();
    known.dedup();
    Err(Error::NoEnvironment { name: name.clone(), known })
}

struct Maker<'a> {
    declaration: &'a Declaration,
    desired: &'a Desired,
    current: &'a Current,
    /// Only names in this subtree.
    only: Option<Name>,
}

impl Maker<'_> {
    fn is_wanted(&self, name: &Name) -> bool {
        self.only.as_ref().is_none_or(|only| name.is_in(only))
    }

    /// Plans of the declared zones that differ.
    fn changed(&self) -> Result<Vec<(ZonePlan, Counter)>, Error> {
        let mut problems = Vec::new();
        let mut plans = Vec::new();
        for zone in &self.desired.zones {
            let now = self.now(zone);
            let records = now.map_or(&[][..], |now| &now.records);
            let target = zone.target(records);
            problems.extend(lint(zone, &target));
            let changes = self.difference(zone, records, &target);
            let from = now.and_then(|now| now.policy.clone());
            let differs = from.as_deref().is_none_or(|from| !same_policy(&zone.origin, from, &zone.policy));
            let policy =
                (differs && self.is_wanted(&zone.origin)).then(|| PolicyPlan { from, to: zone.policy.clone() });
            let action = if now.is_some() { Action::Change } else { Action::Create };
            if changes.is_empty() && policy.is_none() || action == Action::Create && !self.is_wanted(&zone.origin) {
                continue;
            }
            let counter = self.count(Some(zone), &zone.origin, &changes);
            plans.push((
                ZonePlan {
                    origin: zone.origin.to_string(),
                    level: Some(zone.level),
                    environment: zone.environment.clone(),
                    region: zone.region.clone(),
                    owner: zone.owner.clone(),
                    control: zone.control.clone(),
                    action,
                    base_serial: now.map(|now| now.serial),
                    records_now: records.len(),
                    blast_radius: counter.radius(1),
                    policy,
                    changes: self.written(&zone.origin, &changes),
                },
                counter,
            ));
        }
        if problems.is_empty() { Ok(plans) } else { Err(Error::Invalid { problems }) }
    }

    fn now(&self, zone: &DesiredZone) -> Option<&CurrentZone> {
        self.current.zones.get(&(zone.control.clone(), zone.origin.clone()))
    }

    /// Plans of zones that a declaration made and that are declared no more, or elsewhere.
    fn deleted(&self) -> Vec<(ZonePlan, Counter)> {
        let mut plans = Vec::new();
        for ((control, origin), now) in &self.current.zones {
            let declared = self.desired.zone(origin).is_some_and(|zone| zone.control == *control);
            if declared || !now.ours || !self.is_wanted(origin) {
                continue;
            }
            let changes: Vec<(Op, &Record)> = now.records.iter().map(|record| (Op::Remove, record)).collect();
            let counter = self.count(None, origin, &changes);
            plans.push((
                ZonePlan {
                    origin: origin.to_string(),
                    level: None,
                    environment: self.environment_of(origin, true),
                    region: None,
                    owner: self.owner_of(origin),
                    control: control.clone(),
                    action: Action::Delete,
                    base_serial: Some(now.serial),
                    records_now: now.records.len(),
                    blast_radius: counter.radius(1),
                    policy: None,
                    changes: self.written(origin, &changes),
                },
                counter,
            ));
        }
        plans
    }

    /// What has to go and what has to come, those that go first.
    fn difference<'r>(
        &self,
        zone: &DesiredZone,
        now: &'r [Record],
        target: &'r BTreeSet<Record>,
    ) -> Vec<(Op, &'r Record)> {
        let current: BTreeSet<&Record> = now.iter().collect();
        let goes = current.iter().filter(|record| !target.contains(**record)).map(|record| (Op::Remove, *record));
        let comes = target.iter().filter(|record| !current.contains(record)).map(|record| (Op::Add, record));
        goes.chain(comes).filter(|(_, record)| self.is_wanted(&record.owner) || self.is_wanted(&zone.origin)).collect()
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
            counter.environments.extend(self.environment_of(&record.owner, delegates));
        }
        match zone {
            Some(zone) => counter.environments.extend(zone.environment.clone()),
            None => counter.environments.extend(self.environment_of(origin, true)),
        }
        let region = zone.and_then(|zone| zone.environment.as_ref().zip(zone.region.as_ref()));
        counter.regions.extend(region.map(|(environment, region)| format!("{environment}/{region}")));
        counter
    }

    /// The environment that `name` is in: a declared one, or, for what was delegated, one that was.
    fn environment_of(&self, name: &Name, delegated: bool) -> Option<String> {
        let root = &self.declaration.root;
        let depth = name.label_count().checked_sub(root.label_count() + 1)?;
        let label = name.labels().nth(depth)?;
        let apex = root.child(label).ok()?;
        let declared = self.declaration.zone(&apex).and_then(|zone| zone.environment.clone());
        declared.or_else(|| delegated.then(|| String::from_utf8_lossy(label).into_owned()))
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
        for zone in self.desired.zones.iter().filter(|zone| self.is_wanted(&zone.origin)) {
            let known = self.current.keys.get(&zone.control).unwrap_or(&nothing);
            wanted.extend(zone.keys.difference(known).map(|name| (zone.control.clone(), name.clone())));
        }
        wanted.into_iter().map(|(control, name)| KeyPlan { control, name }).collect()
    }

    fn notes(&self, plans: &[ZonePlan]) -> Vec<String> {
        let strangers = self.current.strangers.iter().map(|origin| {
            format!("{origin} is served but not declared; it was not made by a declaration and is left alone")
        });
        let deleted = plans.iter().filter(|plan| plan.action == Action::Delete);
        let moved =
            deleted.clone().filter(|plan| plans.iter().any(|other| other.origin == plan.origin && other != *plan));
        let moved = moved.map(|plan| {
            format!(
                "{} leaves {}; caches may ask its old servers until the TTL of its NS records is over",
                plan.origin, plan.control
            )
        });
        let protected = deleted
            .filter(|plan| self.is_protected(plan))
            .map(|plan| format!("{} is protected against deletion; applying this needs --force-token", plan.origin));
        strangers.chain(moved).chain(protected).collect()
    }

    fn is_protected(&self, plan: &ZonePlan) -> bool {
        let Ok(origin) = plan.origin.parse::<Name>() else { return false };
        let zone = self.current.zones.get(&(plan.control.clone(), origin.clone()));
        let policy = zone.and_then(|zone| zone.policy.as_deref());
        let read = policy.and_then(|text| Policy::from_yaml(text.as_bytes(), &origin, "").ok());
        read.is_some_and(|policy| policy.protected)
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
