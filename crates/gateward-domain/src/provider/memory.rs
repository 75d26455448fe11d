//! A provider without a server: for tests and for trying out what a plan would do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gateward_model::Secret;
use gateward_zone::{Change, Name, Record, Rtype, next_serial, with_serial};

use super::{Answer, By, Provider, ProviderError, Refusal, ServedZone, Version, ZoneSummary};
use crate::text;

/// Zones in memory, with every version.
#[derive(Debug, Default)]
pub struct MemoryProvider {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    zones: BTreeMap<Name, Vec<(Version, Vec<Record>)>>,
    policies: BTreeMap<Name, String>,
    keys: BTreeSet<String>,
    /// Zones that refuse every change.
    broken: BTreeSet<Name>,
    /// The token of each change that came with one.
    forced: Vec<String>,
    /// Every change that was made, as `create`, `change`, `delete`, `policy` and the zone.
    log: Vec<String>,
}

impl MemoryProvider {
    /// A provider without zones.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on the zone refuses changes, or takes them again.
    pub fn set_broken(&self, origin: &Name, broken: bool) {
        let zones = &mut self.state().broken;
        if broken {
            zones.insert(origin.clone())
        } else {
            zones.remove(origin)
        };
    }

    /// Changes of zones that came with a force token, in order: the zone and the token.
    #[must_use]
    pub fn forced(&self) -> Vec<String> {
        self.state().forced.clone()
    }

    /// What was done, in order: a word and the zone.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begin(&mut self, what: &str, origin: &Name, by: &By) -> Answer<()> {
        if self.broken.contains(origin) {
            let message = "the zone takes no changes".to_owned();
            return Err(ProviderError::Refused(vec![Refusal { message, rule: None, remedy: None, line: None }]));
        }
        self.log.push(format!("{what} {origin}"));
        self.forced.extend(by.force.as_ref().map(|token| format!("{what} {origin} {}", token.expose())));
        Ok(())
    }

    /// The records of a zone that must have this serial.
    fn at(&self, origin: &Name, serial: u32) -> Answer<&Vec<Record>> {
        match self.latest(origin) {
            None => Err(no_zone(origin)),
            Some((version, _)) if version.serial != serial => Err(ProviderError::Conflict),
            Some((_, records)) => Ok(records),
        }
    }

    fn latest(&self, origin: &Name) -> Option<&(Version, Vec<Record>)> {
        self.zones.get(origin).and_then(|versions| versions.last())
    }

    /// Stores a version with the serial after the last one, or with its own if it is the first.
    fn store(&mut self, origin: &Name, mut records: Vec<Record>, by: &By) -> u32 {
        let before = self.latest(origin).map(|(version, records)| (version.serial, records.clone()));
        let own = records.iter().find(|record| record.rtype == Rtype::SOA).and_then(crate::desired::serial_of);
        let serial = before.as_ref().map_or_else(|| own.unwrap_or(1), |(serial, _)| next_serial(*serial));
        for record in records.iter_mut().filter(|record| record.rtype == Rtype::SOA) {
            if let Some(rdata) = with_serial(&record.rdata, serial) {
                record.rdata = rdata;
            }
        }
        let old = before.map(|(_, records)| records).unwrap_or_default();
        let missing =
            |these: &[Record], those: &[Record]| these.iter().filter(|one| !those.contains(one)).count() as u64;
        let (added, removed) = (missing(&records, &old), missing(&old, &records));
        let version = Version { serial, time: String::new(), actor: by.actor.clone(), added, removed };
        self.zones.entry(origin.clone()).or_default().push((version, records));
        serial
    }
}

fn no_zone(origin: &Name) -> ProviderError {
    ProviderError::NotFound(format!("zone {origin}"))
}

impl Provider for MemoryProvider {
    fn zones(&self) -> Answer<Vec<ZoneSummary>> {
        let state = self.state();
        let summary = |(origin, versions): (&Name, &Vec<(Version, Vec<Record>)>)| {
            let (version, records) = versions.last()?;
            let records = records.len() as u64;
            Some(ZoneSummary { origin: origin.clone(), serial: version.serial, records, state: "serving".to_owned() })
        };
        Ok(state.zones.iter().filter_map(summary).collect())
    }

    fn zone(&self, origin: &Name) -> Answer<Option<ServedZone>> {
        let state = self.state();
        let latest = state.latest(origin);
        Ok(latest.map(|(version, records)| ServedZone { serial: version.serial, records: records.clone() }))
    }

    fn policy(&self, origin: &Name) -> Answer<Option<String>> {
        Ok(self.state().policies.get(origin).cloned())
    }

    fn create_zone(&self, origin: &Name, text: &str, by: &By) -> Answer<u32> {
        let mut state = self.state();
        if state.zones.contains_key(origin) {
            return Err(ProviderError::Conflict);
        }
        state.begin("create", origin, by)?;
        let records = text::records(origin, text.as_bytes()).map_err(ProviderError::Protocol)?;
        Ok(state.store(origin, records, by))
    }

    fn change(&self, origin: &Name, base: u32, changes: &[Change], by: &By) -> Answer<u32> {
        let mut state = self.state();
        let mut records = state.at(origin, base)?.clone();
        state.begin("change", origin, by)?;
        for change in changes {
            let record = change.record();
            records.retain(|other| other != record && !(record.rtype == Rtype::SOA && other.rtype == Rtype::SOA));
            if let Change::Add(record) = change {
                records.push(record.clone());
            }
        }
        Ok(state.store(origin, records, by))
    }

    fn delete_zone(&self, origin: &Name, base: u32, by: &By) -> Answer<()> {
        let mut state = self.state();
        state.at(origin, base)?;
        state.begin("delete", origin, by)?;
        state.zones.remove(origin);
        state.policies.remove(origin);
        Ok(())
    }

    fn put_policy(&self, origin: &Name, from: Option<&str>, text: &str, by: &By) -> Answer<()> {
        let mut state = self.state();
        if !state.zones.contains_key(origin) {
            return Err(no_zone(origin));
        }
        if state.policies.get(origin).map(String::as_str) != from {
            return Err(ProviderError::Conflict);
        }
        state.begin("policy", origin, by)?;
        state.policies.insert(origin.clone(), text.to_owned());
        Ok(())
    }

    fn keys(&self) -> Answer<Vec<String>> {
        Ok(self.state().keys.iter().cloned().collect())
    }

    fn put_key(&self, name: &str, _algorithm: &str, _secret: &Secret, _by: &By) -> Answer<()> {
        self.state().keys.insert(name.to_owned());
        Ok(())
    }

    fn versions(&self, origin: &Name) -> Answer<Vec<Version>> {
        let state = self.state();
        let versions = state.zones.get(origin).ok_or_else(|| no_zone(origin))?;
        Ok(match &versions[..] {
            // As the servers: there are steps, and the version before the first of them.
            [] | [_] => Vec::new(),
            [(first, _), rest @ ..] => {
                let first = Version { actor: String::new(), added: 0, removed: 0, ..first.clone() };
                std::iter::once(first).chain(rest.iter().map(|(version, _)| version.clone())).collect()
            }
        })
    }

    fn version(&self, origin: &Name, serial: u32) -> Answer<Option<Vec<Record>>> {
        let state = self.state();
        let versions = state.zones.get(origin).ok_or_else(|| no_zone(origin))?;
        let found = versions.iter().find(|(version, _)| version.serial == serial);
        Ok(found.map(|(_, records)| records.clone()))
    }

    fn rollback(&self, origin: &Name, base: u32, to: u32, by: &By) -> Answer<u32> {
        let records = self.version(origin, to)?.ok_or_else(|| ProviderError::NotFound(format!("version {to}")))?;
        let mut state = self.state();
        state.at(origin, base)?;
        state.begin("rollback", origin, by)?;
        Ok(state.store(origin, records, by))
    }
}
