//! Leases: records that live as long as somebody renews them. VM groups and tasks register themselves with them.
//!
//! [`Table`] decides; this keeps the tables in files, asks the authority for the changes, and ends leases in time. A renewal is not
//! written to disk: after a restart every lease has its whole time again, because nobody could renew it meanwhile.

mod file;
mod table;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateward_zone::{Name, Problem};
use tokio::sync::Mutex;

use crate::authority::{Actor, Authority, Door, Edit, Proposal, Refused};

pub use table::{Held, Lease, Table};

/// How often leases are looked at.
const TICK: Duration = Duration::from_secs(1);
/// After a refusal the zone's leases are left alone for this long.
const RETRY_MS: u64 = 30_000;
/// Longest time without a look: records that somebody else took away come back.
const LOOK_MS: u64 = 60_000;
/// Shortest and longest time without renewal, in seconds.
pub const LEASE_SECONDS: std::ops::RangeInclusive<u32> = 5..=86_400;
/// Longest name of a lease.
pub const MAX_ID: usize = 128;

/// The leases of all zones.
pub struct Leases {
    authority: Arc<Authority>,
    zones: StdMutex<HashMap<Name, Arc<Mutex<ZoneLeases>>>>,
}

/// A zone's leases.
#[derive(Default)]
struct ZoneLeases {
    table: Table,
    /// When to look at them again.
    due_ms: u64,
}

/// What came of ending a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its data is served no more.
    Gone,
    /// Its data was the last at its name, and is served until another lease takes its place.
    Kept,
}

impl Leases {
    /// The leases that the folder of zones has files of.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn open(authority: Arc<Authority>) -> io::Result<Arc<Self>> {
        let now_ms = now_ms();
        let mut zones = HashMap::new();
        for (origin, _) in authority.all() {
            let table = file::read(&authority.folder().lease_file(&origin), now_ms)?;
            if !table.is_empty() {
                let leases = ZoneLeases { table, due_ms: 0 };
                zones.insert(origin, Arc::new(Mutex::new(leases)));
            }
        }
        Ok(Arc::new(Leases { authority, zones: StdMutex::new(zones) }))
    }

    /// Registers or renews a lease; gives the time at which it ends, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`Refused`]: the zone does not take it, and the lease is as it was before.
    pub async fn put(&self, origin: &Name, id: &str, lease: Lease, actor: &str) -> Result<u64, Refused> {
        if self.authority.zone(origin).is_none() {
            return Err(Refused::NoZone(origin.clone()));
        }
        let zone = self.zone(origin);
        let mut zone = zone.lock().await;
        let now_ms = now_ms();
        let before = zone.table.clone_if_new(id, &lease);
        if before.is_some() && !zone.table.has(id) && zone.table.iter().count() >= table::MAX_LEASES {
            let message = format!("{origin} has {} leases already", table::MAX_LEASES);
            return Err(Refused::rule("max-leases", message, "end leases that are not needed"));
        }
        let seconds = u64::from(lease.lease_seconds);
        if !zone.table.put(id, lease, actor, now_ms) {
            return Ok(now_ms + seconds * 1_000);
        }
        match self.settle(origin, &mut zone, actor, now_ms).await {
            Ok(()) => Ok(now_ms + seconds * 1_000),
            Err(error) => {
                if let Some(before) = before {
                    zone.table = before;
                }
                Err(error)
            }
        }
    }

    /// Ends a lease; `None` when there was none.
    ///
    /// # Errors
    /// [`Refused`]: the zone keeps its data, and the lease is as it was before.
    pub async fn remove(&self, origin: &Name, id: &str, actor: &str) -> Result<Option<Ended>, Refused> {
        let zone = self.zone(origin);
        let mut zone = zone.lock().await;
        let before = zone.table.clone();
        if !zone.table.remove(id) {
            return Ok(None);
        }
        if let Err(error) = self.settle(origin, &mut zone, actor, now_ms()).await {
            zone.table = before;
            return Err(error);
        }
        let Some(Held { lease, .. }) = before.leases.get(id) else { return Ok(Some(Ended::Gone)) };
        let is_kept = lease.data.iter().any(|rdata| zone.table.is_orphan(&lease.name, lease.rtype, rdata));
        Ok(Some(if is_kept { Ended::Kept } else { Ended::Gone }))
    }

    /// The leases of a zone.
    pub async fn list(&self, origin: &Name) -> Vec<(String, Held)> {
        let zone = self.known().remove(origin);
        let Some(zone) = zone else { return Vec::new() };
        let zone = zone.lock().await;
        zone.table.iter().map(|(id, held)| (id.to_owned(), held.clone())).collect()
    }

    /// Ends leases in time, for ever.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for (origin, zone) in self.known() {
                let mut zone = zone.lock().await;
                let now_ms = now_ms();
                if zone.due_ms > now_ms || self.authority.zone(&origin).is_none() {
                    continue;
                }
                if let Err(error) = self.settle(&origin, &mut zone, "expiry", now_ms).await {
                    zone.due_ms = now_ms + RETRY_MS;
                    tracing::warn!(zone = %origin, %error, "leases that ended cannot be taken out of the zone yet");
                }
            }
        }
    }

    /// Brings the zone to what its leases want, and the file to what they are.
    async fn settle(&self, origin: &Name, zone: &mut ZoneLeases, actor: &str, now_ms: u64) -> Result<(), Refused> {
        let Some(served) = self.authority.zone(origin) else { return Err(Refused::NoZone(origin.clone())) };
        if !zone.table.changes(&*served, now_ms).is_empty() {
            let table = zone.table.clone();
            let edit = Edit::Decide(Box::new(move |served| Ok(table.changes(served, now_ms))));
            self.authority.apply(Proposal::new(origin.clone(), edit, Actor::new(Door::Lease, actor))).await?;
        }
        if let Some(served) = self.authority.zone(origin) {
            zone.table.sweep(&*served, now_ms);
        }
        zone.due_ms = zone.table.next_end_ms(now_ms).unwrap_or(u64::MAX).min(now_ms + LOOK_MS);
        let text = file::text(&zone.table);
        let path = self.authority.folder().lease_file(origin);
        let written = tokio::task::spawn_blocking(move || file::write(&path, text)).await;
        written.map_err(io::Error::other).flatten().map_err(|error| Refused::Failed(error.to_string()))
    }

    fn zone(&self, origin: &Name) -> Arc<Mutex<ZoneLeases>> {
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        zones.entry(origin.clone()).or_default().clone()
    }

    fn known(&self) -> HashMap<Name, Arc<Mutex<ZoneLeases>>> {
        self.zones.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why a lease is none.
#[must_use]
pub fn check(lease: &Lease, id: &str, origin: &Name) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |message: String, remedy: &str| problems.push(crate::authority::problem("lease", message, remedy));
    if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
        add(format!("the id of a lease has 1 to {MAX_ID} characters"), "use the name of the machine or task");
    }
    if !lease.name.is_in(origin) {
        add(format!("{} is not in the zone {origin}", lease.name), "register it in the zone it belongs to");
    }
    if lease.data.is_empty() || lease.data.len() > 64 {
        add("a lease has 1 to 64 records".to_owned(), "give the addresses in \"data\"");
    }
    if !LEASE_SECONDS.contains(&lease.lease_seconds) {
        let (least, most) = (LEASE_SECONDS.start(), LEASE_SECONDS.end());
        add(format!("lease_seconds is {least} to {most}"), "renew at a third of that time");
    }
    problems
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_millis().try_into().unwrap_or(u64::MAX)
}
