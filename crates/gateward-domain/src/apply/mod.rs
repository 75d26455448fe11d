//! Applying a plan: only to what it was made from, step by step, and with an account of what happened to each zone.
//!
//! Nothing is begun that guardrails would stop half-way. A zone whose step fails stops there; what depends on it is left out,
//! the rest goes on. Applying the same plan again continues with what is not done yet.

mod account;
mod fence;
mod leave;

use std::time::{SystemTime, UNIX_EPOCH};

use gateward_model::Secret;
use gateward_zone::{Change, Name, Record, Rtype, parse_record, with_serial};

use crate::declaration::{Declaration, SecretSource, same_policy};
use crate::desired::without_serial;
use crate::error::Error;
use crate::force::Author;
use crate::plan::{Action, Document, Op, RecordPlan, Step, Work, ZonePlan, belongs, crossed, steps};
use crate::provider::{Fleet, ServedZone};

pub use account::{Account, KeyAccount, State, StepAccount, ZoneAccount};

/// Where secrets come from, and where those go that are made.
pub trait Secrets {
    /// The secret (base64) of a key.
    ///
    /// # Errors
    /// A text for the user; without the secret.
    fn secret(&self, key: &str, source: &SecretSource) -> Result<Secret, String>;
}

/// Applies a plan; `now` is the time by which freezes are judged.
///
/// # Errors
/// [`Error::Stale`], [`Error::NeedsLeave`] and others that mean that nothing was done. What happened once it began is in the
/// account.
pub fn apply(
    document: &Document,
    declaration: &Declaration,
    fleet: &Fleet<'_>,
    secrets: &dyn Secrets,
    author: &Author,
    now: SystemTime,
) -> Result<Account, Error> {
    let plan = &document.plan;
    if plan.root != declaration.root.to_string() {
        let reason = format!("it is for {}, and the declaration is of {}", plan.root, declaration.root);
        return Err(Error::BadPlan { reason });
    }
    let environments = crossed(declaration, plan);
    if environments.len() > 1 && !plan.allow_cross_environment {
        return Err(Error::CrossEnvironment { environments: environments.into_iter().collect() });
    }
    let progress = fence::check(document, fleet)?;
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let tokens = leave::check(document, &progress, &author.tokens, i64::try_from(seconds).unwrap_or(i64::MAX))?;
    let actor = format!("{} {}", author.actor, fence::actor(document)).trim_start().to_owned();
    let author = Author { actor, tokens };
    let mut run = Run { document, fleet, author, account: Account::new(document), progress, held: Vec::new() };
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
    /// Its policy file when the run began.
    policy: Option<String>,
    /// Its records, when it is not what the plan was made from: an earlier run got this far.
    resumed: Option<ServedZone>,
}

struct Run<'a> {
    document: &'a Document,
    fleet: &'a Fleet<'a>,
    author: Author,
    account: Account,
    progress: Vec<Progress>,
    /// Zones with names in them whose changes were held back.
    held: Vec<(Name, Name)>,
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
        self.fleet.ask(control, |provider| {
            provider.put_key(name, key.algorithm.as_str(), &secret, &self.author.without_leave())
        })
    }

    fn step(&mut self, step: Step) {
        let zone = &self.document.plan.zones[step.zone];
        let result = match self.account.zones[step.zone].broken() {
            Some(StepAccount { state: State::Skipped(reason), .. }) => Err(Failure::Skipped(reason.clone())),
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
            Work::Policy => self.policy(step.zone, zone, &origin).map(|()| None),
            Work::First => self.change(step, zone, &origin),
            Work::Last => {
                self.must_be_left(&origin)?;
                self.change(step, zone, &origin)
            }
            Work::Delete => self.delete(step.zone, zone, &origin).map(|()| None),
        }
    }

    fn create(&mut self, index: usize, zone: &ZonePlan, origin: &Name) -> Result<Option<String>, Failure> {
        if self.progress[index].serial.is_some() {
            // An earlier run made it, perhaps without what would have led nowhere.
            return self.change(Step { zone: index, work: Work::Create }, zone, origin);
        }
        let (changes, withheld) = self.ready(origin, &zone.changes.iter().collect::<Vec<_>>())?;
        let records: Vec<Record> = changes.iter().map(|change| change.record().clone()).collect();
        let text = crate::text::zone_file(origin, &records);
        let by = self.author.by(origin, &changes);
        let serial = self.fleet.ask(&zone.control, |provider| provider.create_zone(origin, &text, &by))?;
        self.progress[index].serial = Some(serial);
        Ok(withheld)
    }

    /// Replaces the policy, if it still is the one that the plan was made from.
    fn policy(&mut self, index: usize, zone: &ZonePlan, origin: &Name) -> Result<(), Failure> {
        let Some(policy) = &zone.policy else { return Ok(()) };
        let from = match self.progress[index].policy.take() {
            Some(from) => Some(from),
            // The file of a zone that was here before may have stayed.
            None if zone.action == Action::Create => {
                self.fleet.ask(&zone.control, |provider| provider.policy(origin))?
            }
            None => None,
        };
        if from.as_deref().is_some_and(|from| same_policy(origin, from, &policy.to)) {
            return Ok(());
        }
        let by = self.author.by_policy(origin, &policy.to);
        let put =
            self.fleet.ask(&zone.control, |provider| provider.put_policy(origin, from.as_deref(), &policy.to, &by));
        Ok(put?)
    }

    fn change(&mut self, step: Step, zone: &ZonePlan, origin: &Name) -> Result<Option<String>, Failure> {
        let absent = || Failure::Skipped("the zone is not there".to_owned());
        let base = self.progress[step.zone].serial.ok_or_else(absent)?;
        let wanted: Vec<&RecordPlan> = zone.changes.iter().filter(|change| belongs(zone, change, step.work)).collect();
        let (mut changes, withheld) = self.ready(origin, &wanted)?;
        changes.retain(|change| !self.progress[step.zone].has(change));
        if !changes.is_empty() {
            let by = self.author.by(origin, &changes);
            let changes: Vec<Change> = changes.into_iter().map(|change| at_serial(change, base)).collect();
            let serial = self.fleet.ask(&zone.control, |provider| provider.change(origin, base, &changes, &by))?;
            self.progress[step.zone].serial = Some(serial);
        }
        Ok(withheld)
    }

    /// The changes that can be made; those that would lead to a zone that is not as it should be are held back.
    fn ready(&mut self, origin: &Name, wanted: &[&RecordPlan]) -> Result<(Vec<Change>, Option<String>), Failure> {
        let (mut changes, mut withheld) = (Vec::new(), Vec::new());
        for plan in wanted {
            let change = change_of(plan)?;
            match self.unready(&change.record().owner, origin) {
                Some(reason) => {
                    withheld.push(format!("{} ({reason})", plan.record));
                    self.held.push((origin.clone(), change.record().owner.clone()));
                }
                None => changes.push(change),
            }
        }
        Ok((changes, (!withheld.is_empty()).then(|| withheld.join(", "))))
    }

    /// Why nothing about `name` is published in `parent`: it is in a zone below, and a step of that zone was not done.
    fn unready(&self, name: &Name, parent: &Name) -> Option<String> {
        let zones = self.document.plan.zones.iter().zip(&self.account.zones);
        let below = |origin: &Name| origin != parent && origin.is_in(parent) && name.is_in(origin);
        let mut failed = zones.filter_map(|(zone, account)| {
            let is_below =
                zone.action != Action::Delete && zone.origin.parse::<Name>().is_ok_and(|origin| below(&origin));
            account.broken().filter(|_| is_below).map(|step| (&zone.origin, step.step))
        });
        failed.next().map(|(origin, step)| format!("'{step}' of {origin} was not done"))
    }

    /// A zone keeps its name servers, and stays, as long as something may lead there.
    fn must_be_left(&self, origin: &Name) -> Result<(), Failure> {
        let plans = self.document.plan.zones.iter().zip(&self.account.zones);
        let mut above = plans.filter(|(other, account)| {
            account.broken().is_some()
                && other.origin.parse::<Name>().is_ok_and(|other| other != *origin && origin.is_in(&other))
        });
        if let Some((other, _)) = above.next() {
            return Err(Failure::Skipped(format!("{} may still lead to it", other.origin)));
        }
        let leads_here = |(above, name): &(Name, Name)| above != origin && origin.is_in(above) && name.is_in(origin);
        if self.held.iter().any(leads_here) {
            return Err(Failure::Skipped("changes of its delegation were held back".to_owned()));
        }
        Ok(())
    }

    fn delete(&mut self, index: usize, zone: &ZonePlan, origin: &Name) -> Result<(), Failure> {
        let Some(base) = self.progress[index].serial else { return Ok(()) };
        self.must_be_left(origin)?;
        let by = self.author.by(origin, &remaining(zone, &self.progress[index], Work::Delete)?);
        self.fleet.ask(&zone.control, |provider| provider.delete_zone(origin, base, &by))?;
        self.progress[index].serial = None;
        Ok(())
    }
}

impl Progress {
    /// Whether an earlier run made a change.
    fn has(&self, change: &Change) -> bool {
        self.resumed.as_ref().is_some_and(|resumed| is_in_effect(change, &resumed.records))
    }
}

/// The changes of a step that are not made yet.
fn remaining(zone: &ZonePlan, progress: &Progress, work: Work) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    for plan in zone.changes.iter().filter(|change| belongs(zone, change, work)) {
        let change = change_of(plan)?;
        if !progress.has(&change) {
            changes.push(change);
        }
    }
    Ok(changes)
}

fn name_of(zone: &ZonePlan) -> Result<Name, Error> {
    zone.origin.parse().map_err(|error| Error::BadPlan { reason: format!("'{}' is no zone: {error}", zone.origin) })
}

fn record(plan: &RecordPlan) -> Result<Record, Error> {
    parse_record(&plan.record, &Name::root(), None)
        .map_err(|problem| Error::BadPlan { reason: format!("'{}': {}", plan.record, problem.message) })
}

fn change_of(plan: &RecordPlan) -> Result<Change, Error> {
    let record = record(plan)?;
    Ok(if plan.op == Op::Add { Change::Add(record) } else { Change::Remove(record) })
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
