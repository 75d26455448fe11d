//! Applying a plan: only to what it was made from, step by step, and with an account of what happened to each zone.
//!
//! A zone whose step fails stops there; what depends on it is left out, the rest goes on. Applying the same plan again
//! continues: what this plan did already is told apart from what others did by the actor in the versions' history.

mod account;
mod fence;

use gateward_model::Secret;
use gateward_zone::{Change, Name, Record, Rtype, parse_record, with_serial};

use crate::declaration::{Declaration, SecretSource};
use crate::desired::without_serial;
use crate::error::Error;
use crate::plan::{Action, Document, Op, RecordPlan, Step, Work, ZonePlan, is_delegation, steps};
use crate::provider::{By, Fleet, ServedZone};

pub use account::{Account, KeyAccount, State, StepAccount, ZoneAccount};

/// Where secrets come from, and where those go that are made.
pub trait Secrets {
    /// The secret (base64) of a key.
    ///
    /// # Errors
    /// A text for the user; without the secret.
    fn secret(&self, key: &str, source: &SecretSource) -> Result<Secret, String>;
}

/// Applies a plan.
///
/// # Errors
/// [`Error::Stale`] and others that mean that nothing was done. What happened once it began is in the account.
pub fn apply(
    document: &Document,
    declaration: &Declaration,
    fleet: &Fleet<'_>,
    secrets: &dyn Secrets,
    by: &By,
) -> Result<Account, Error> {
    let plan = &document.plan;
    if plan.root != declaration.root.to_string() {
        let reason = format!("it is for {}, and the declaration is of {}", plan.root, declaration.root);
        return Err(Error::BadPlan { reason });
    }
    let environments = &plan.blast_radius.environments;
    if environments.len() > 1 && !plan.allow_cross_environment {
        return Err(Error::CrossEnvironment { environments: environments.clone() });
    }
    let by = By { actor: format!("{} {}", by.actor, fence::actor(document)).trim_start().to_owned(), ..by.clone() };
    let progress = fence::check(document, fleet)?;
    let mut run = Run { document, fleet, by, account: Account::new(document), progress };
    run.keys(declaration, secrets);
    for step in steps(plan) {
        run.step(step);
    }
    Ok(run.account)
}

/// What is known of a zone while a plan is applied.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// The serial it has; none while it is not there.
    serial: Option<u32>,
    /// Its records, when it is not what the plan was made from: an earlier run got this far.
    resumed: Option<ServedZone>,
}

struct Run<'a> {
    document: &'a Document,
    fleet: &'a Fleet<'a>,
    by: By,
    account: Account,
    progress: Vec<Progress>,
}

/// Why a step was not done.
enum Failure {
    /// It was tried.
    Failed(Error),
    /// It was not, and why.
    Skipped(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Failed(error)
    }
}

impl Run<'_> {
    fn keys(&mut self, declaration: &Declaration, secrets: &dyn Secrets) {
        for key in &self.document.plan.keys {
            let done = self.key(&key.control, &key.name, declaration, secrets);
            let state = match done {
                Ok(()) => State::Done,
                Err(error) => State::Failed(error.to_string()),
            };
            self.account.keys.push(KeyAccount { control: key.control.clone(), name: key.name.clone(), state });
        }
    }

    fn key(&self, control: &str, name: &str, declaration: &Declaration, secrets: &dyn Secrets) -> Result<(), Error> {
        let missing = |reason: String| Error::Secret { key: name.to_owned(), reason };
        let key = declaration.keys.get(name).ok_or_else(|| missing("the declaration has no such key".to_owned()))?;
        // An earlier run may have made it: another secret would lock out who got that one.
        if self.fleet.ask(control, |provider| provider.keys())?.iter().any(|known| known == name) {
            return Ok(());
        }
        let secret = secrets.secret(name, &key.secret).map_err(missing)?;
        self.fleet.ask(control, |provider| provider.put_key(name, key.algorithm.as_str(), &secret, &self.by))
    }

    fn step(&mut self, step: Step) {
        let zone = &self.document.plan.zones[step.zone];
        let result = match self.account.zones[step.zone].broken() {
            Some(_) => Err(Failure::Skipped("an earlier step of this zone was not done".to_owned())),
            None => self.work(step, zone),
        };
        let state = match result {
            Ok(Some(withheld)) => State::Partly(withheld),
            Ok(None) => State::Done,
            Err(Failure::Failed(error)) => State::Failed(error.to_string()),
            Err(Failure::Skipped(reason)) => State::Skipped(reason),
        };
        let serial = self.progress[step.zone].serial;
        self.account.zones[step.zone].note(step.work, state, serial);
    }

    /// Does a step; gives what of it was held back.
    fn work(&mut self, step: Step, zone: &ZonePlan) -> Result<Option<String>, Failure> {
        let origin = name_of(zone)?;
        match step.work {
            Work::Create => self.create(step.zone, zone, &origin),
            Work::Policy => self.policy(zone, &origin).map(|()| None),
            Work::First => {
                let wanted: Vec<&RecordPlan> = zone.changes.iter().filter(|change| !change.last).collect();
                self.change(step.zone, zone, &origin, &wanted)
            }
            Work::Last => {
                let goes_too = zone.action == Action::Delete;
                let wanted = zone.changes.iter().filter(|change| match goes_too {
                    true => is_delegation(zone, change),
                    false => change.last,
                });
                self.change(step.zone, zone, &origin, &wanted.collect::<Vec<_>>())
            }
            Work::Delete => self.delete(step.zone, zone, &origin).map(|()| None),
        }
    }

    fn create(&mut self, index: usize, zone: &ZonePlan, origin: &Name) -> Result<Option<String>, Failure> {
        if self.progress[index].serial.is_some() {
            // An earlier run made it, perhaps without what would have led nowhere.
            return self.change(index, zone, origin, &zone.changes.iter().collect::<Vec<_>>());
        }
        let (changes, withheld) = self.ready(origin, &zone.changes.iter().collect::<Vec<_>>())?;
        let records: Vec<Record> = changes.iter().map(|change| change.record().clone()).collect();
        let text = crate::text::zone_file(origin, &records);
        let serial = self.fleet.ask(&zone.control, |provider| provider.create_zone(origin, &text, &self.by))?;
        self.progress[index].serial = Some(serial);
        Ok(withheld)
    }

    fn policy(&self, zone: &ZonePlan, origin: &Name) -> Result<(), Failure> {
        let Some(policy) = &zone.policy else { return Ok(()) };
        Ok(self.fleet.ask(&zone.control, |provider| provider.put_policy(origin, &policy.to, &self.by))?)
    }

    fn change(
        &mut self,
        index: usize,
        zone: &ZonePlan,
        origin: &Name,
        wanted: &[&RecordPlan],
    ) -> Result<Option<String>, Failure> {
        let base = self.progress[index].serial.ok_or_else(|| Failure::Skipped("the zone is not there".to_owned()))?;
        let (mut changes, withheld) = self.ready(origin, wanted)?;
        if let Some(resumed) = &self.progress[index].resumed {
            changes.retain(|change| !is_in_effect(change, &resumed.records));
        }
        if !changes.is_empty() {
            let changes: Vec<Change> = changes.into_iter().map(|change| at_serial(change, base)).collect();
            let serial = self.fleet.ask(&zone.control, |provider| provider.change(origin, base, &changes, &self.by))?;
            self.progress[index].serial = Some(serial);
        }
        Ok(withheld)
    }

    /// The changes that can be made, and those that would lead to a zone that could not be.
    fn ready(&self, origin: &Name, wanted: &[&RecordPlan]) -> Result<(Vec<Change>, Option<String>), Failure> {
        let (mut changes, mut withheld) = (Vec::new(), Vec::new());
        for plan in wanted {
            let record = record(plan)?;
            match self.unmade(&record.owner, origin) {
                Some(child) => withheld.push(format!("{} ({child} is not there)", plan.record)),
                None => changes.push(if plan.op == Op::Add { Change::Add(record) } else { Change::Remove(record) }),
            }
        }
        Ok((changes, (!withheld.is_empty()).then(|| withheld.join(", "))))
    }

    /// The new zone below `parent` that holds `name` and that could not be made.
    fn unmade(&self, name: &Name, parent: &Name) -> Option<String> {
        let zones = self.document.plan.zones.iter().zip(&self.account.zones);
        let mut failed = zones.filter(|(zone, account)| {
            let below = |origin: &Name| origin != parent && origin.is_in(parent) && name.is_in(origin);
            zone.action == Action::Create
                && account.broken().is_some()
                && zone.origin.parse::<Name>().is_ok_and(|origin| below(&origin))
        });
        failed.next().map(|(zone, _)| zone.origin.clone())
    }

    fn delete(&mut self, index: usize, zone: &ZonePlan, origin: &Name) -> Result<(), Failure> {
        if self.progress[index].serial.is_none() {
            return Ok(());
        }
        // A zone stays as long as something may lead to it.
        let plans = self.document.plan.zones.iter().zip(&self.account.zones);
        let mut above = plans.filter(|(other, account)| {
            account.broken().is_some()
                && other.origin.parse::<Name>().is_ok_and(|other| other != *origin && origin.is_in(&other))
        });
        if let Some((other, _)) = above.next() {
            return Err(Failure::Skipped(format!("{} may still lead to it", other.origin)));
        }
        self.fleet.ask(&zone.control, |provider| provider.delete_zone(origin, &self.by))?;
        self.progress[index].serial = None;
        Ok(())
    }
}

fn name_of(zone: &ZonePlan) -> Result<Name, Error> {
    zone.origin.parse().map_err(|error| Error::BadPlan { reason: format!("'{}' is no zone: {error}", zone.origin) })
}

fn record(plan: &RecordPlan) -> Result<Record, Error> {
    parse_record(&plan.record, &Name::root(), None)
        .map_err(|problem| Error::BadPlan { reason: format!("'{}': {}", plan.record, problem.message) })
}

/// Whether a change has happened already. Of a SOA record the serial does not count: it moves with every change.
fn is_in_effect(change: &Change, records: &[Record]) -> bool {
    let same = |a: &Record, b: &Record| match a.rtype {
        Rtype::SOA => {
            Record { rdata: without_serial(&a.rdata), ..a.clone() }
                == Record { rdata: without_serial(&b.rdata), ..b.clone() }
        }
        _ => a == b,
    };
    let there = records.iter().any(|record| same(record, change.record()));
    matches!(change, Change::Add(_)) == there
}

/// A SOA record of a change, with the serial that the zone has now.
fn at_serial(change: Change, serial: u32) -> Change {
    let moved = |record: Record| match with_serial(&record.rdata, serial) {
        Some(rdata) if record.rtype == Rtype::SOA => Record { rdata, ..record },
        _ => record,
    };
    match change {
        Change::Add(record) => Change::Add(moved(record)),
        Change::Remove(record) => Change::Remove(moved(record)),
    }
}
