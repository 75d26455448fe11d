//! Leases: records that live as long as somebody renews them. VM groups and tasks register themselves with them.
//!
//! [`Table`] decides; this keeps the tables in files, asks the authority for the changes, and ends leases in time. A renewal is not
//! written to disk: after a restart every lease has its whole time again, because nobody could renew it meanwhile.
//!
//! Whoever registers or renews a lease must be somebody whom the zone's policy lets change these records. Its end needs nobody: the server takes out what was let
//! in. What somebody else took away comes back in the name of who registered it, as far as the policy still allows that.
//!
//! The file is written before the records change, and again when they have: whatever a crash leaves in a zone, some lease or the memory of one
//! answers for it, and takes it out in time.

mod file;
mod table;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateward_zone::{Name, Problem, Record};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::authority::{Actor, Authority, Door, Edit, Proposal, Refused};
use crate::folder::move_durably;

pub use table::{Held, Lease, Table};
use table::{Place, Wanted};

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
    /// It is not in the map any more: who waited for it looks there again.
    is_gone: bool,
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
    /// The leases that the folder of zones has files of. A file that cannot be read is put aside, and its zone begins without leases: the records
    /// that they held stay until somebody takes them out.
    #[must_use]
    pub fn open(authority: Arc<Authority>) -> Arc<Self> {
        let now_ms = now_ms();
        let mut zones = HashMap::new();
        for (origin, _) in authority.all() {
            let path = authority.folder().lease_file(&origin);
            let table = file::read(&path, now_ms).unwrap_or_else(|error| {
                let aside = path.with_extension("leases.broken");
                let moved = move_durably(&path, &aside).map_or_else(|error| error.to_string(), |_| aside.display().to_string());
                tracing::error!(
                    zone = %origin, %error, moved,
                    "the leases cannot be read and are put aside; what they registered stays in the zone until it is removed by hand, or \
                     registered again"
                );
                Table::default()
            });
            if !table.is_empty() {
                let leases = ZoneLeases { table, ..ZoneLeases::default() };
                zones.insert(origin, Arc::new(Mutex::new(leases)));
            }
        }
        Arc::new(Leases { authority, zones: StdMutex::new(zones) })
    }

    /// Registers or renews a lease; gives the time at which it ends, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`Refused`]: the zone does not take it, and the lease is as it was before.
    pub async fn put(&self, origin: &Name, id: &str, lease: Lease, actor: &str) -> Result<u64, Refused> {
        if self.authority.zone(origin).is_none() {
            return Err(Refused::NoZone(origin.clone()));
        }
        let mut zone = self.entry(origin).await;
        let put = self.put_into(&mut zone, origin, id, lease, actor).await;
        self.drop_if_empty(origin, &mut zone);
        put
    }

    async fn put_into(
        &self,
        zone: &mut ZoneLeases,
        origin: &Name,
        id: &str,
        lease: Lease,
        actor: &str,
    ) -> Result<u64, Refused> {
        let now_ms = now_ms();
        let ends_ms = now_ms + u64::from(lease.lease_seconds) * 1_000;
        if !zone.table.has(id) && zone.table.iter().count() >= table::MAX_LEASES {
            let message = format!("{origin} has {} leases already", table::MAX_LEASES);
            return Err(Refused::rule("max-leases", message, "end leases that are not needed"));
        }
        let held = zone.table.leases.get(id).map(|held| held.lease.clone());
        // Also where it changes nothing in the zone: its end would, and a renewal puts that off.
        let records: Vec<Record> = held.iter().chain([&lease]).flat_map(Lease::records).collect();
        self.authority.may_lease(origin, &Actor::new(Door::Lease, actor), &records)?;
        if zone.table.is_renewal(id, &lease, now_ms) {
            zone.table.put(id, lease, actor, now_ms);
            return Ok(ends_ms);
        }
        let places = held.iter().chain([&lease]).map(Lease::place).collect();
        let before = zone.table.clone();
        zone.table.put(id, lease, actor, now_ms);
        self.settle(origin, zone, before, places, actor, now_ms).await?;
        Ok(ends_ms)
    }

    /// Ends a lease; `None` when there was none.
    ///
    /// # Errors
    /// [`Refused`]: the zone keeps its data, and the lease is as it was before.
    pub async fn remove(&self, origin: &Name, id: &str, actor: &str) -> Result<Option<Ended>, Refused> {
        let Some(zone) = self.known().remove(origin) else { return Ok(None) };
        let mut zone = zone.lock_owned().await;
        let Some(lease) = zone.table.leases.get(id).map(|held| held.lease.clone()) else { return Ok(None) };
        self.authority.may_lease(origin, &Actor::new(Door::Lease, actor), &lease.records())?;
        let before = zone.table.clone();
        zone.table.remove(id);
        self.settle(origin, &mut zone, before, [lease.place()].into(), actor, now_ms()).await?;
        let is_kept = lease.data.iter().any(|rdata| zone.table.is_orphan(&lease.name, lease.rtype, rdata));
        self.drop_if_empty(origin, &mut zone);
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
            self.look_at_all().await;
        }
    }

    /// Ends the leases whose time has come.
    pub(crate) async fn look_at_all(&self) {
        for (origin, zone) in self.known() {
            let mut zone = zone.lock_owned().await;
            self.look(&origin, &mut zone).await;
        }
    }

    /// Ends the leases of a zone whose time has come.
    async fn look(&self, origin: &Name, zone: &mut ZoneLeases) {
        let now_ms = now_ms();
        if zone.is_gone {
            return;
        }
        if self.authority.info(origin).is_none() {
            // The zone was removed, and its leases with it.
            zone.table = Table::default();
            self.write_or_say(origin, &zone.table).await;
            self.drop_if_empty(origin, zone);
        } else if zone.due_ms <= now_ms && self.authority.zone(origin).is_some() {
            if let Err(error) = self.keep_up(origin, zone, now_ms).await {
                zone.due_ms = now_ms + RETRY_MS;
                tracing::warn!(zone = %origin, %error, "the zone does not follow its leases yet");
            }
            self.drop_if_empty(origin, zone);
        }
    }

    /// Brings the file to what the leases are, and the zone to what they want at these places. They are again what they were `before` when the zone
    /// does not take it.
    async fn settle(
        &self,
        origin: &Name,
        zone: &mut ZoneLeases,
        before: Table,
        places: BTreeSet<Place>,
        actor: &str,
        now_ms: u64,
    ) -> Result<(), Refused> {
        let settled = match self.write(origin, &zone.table).await {
            Err(error) => Err(Refused::failed(error)),
            Ok(()) => {
                let actor = Actor::new(Door::Lease, actor);
                self.change(origin, &zone.table, Wanted::At(places), actor, now_ms).await
            }
        };
        if let Err(error) = settled {
            zone.table = before;
            self.write_or_say(origin, &zone.table).await;
            return Err(error);
        }
        // What was to be looked at before that still is.
        let due_ms = zone.due_ms;
        self.forget_what_left(origin, zone, now_ms).await;
        zone.due_ms = zone.due_ms.min(due_ms);
        Ok(())
    }

    /// Brings the zone to what its leases want, without anybody asking: what is missing comes in the name of who registered it, and then what ended
    /// goes.
    async fn keep_up(&self, origin: &Name, zone: &mut ZoneLeases, now_ms: u64) -> Result<(), Refused> {
        self.write(origin, &zone.table).await.map_err(Refused::failed)?;
        let Some(served) = self.authority.zone(origin) else { return Err(Refused::NoZone(origin.clone())) };
        let mut kept_up = Ok(());
        for actor in zone.table.absent(&*served, now_ms) {
            let wanted = Wanted::Of(actor.clone());
            let come = self.change(origin, &zone.table, wanted, Actor::new(Door::Lease, actor), now_ms).await;
            kept_up = kept_up.and(come);
        }
        let ends = Actor::new(Door::Expiry, String::new());
        let gone = self.change(origin, &zone.table, Wanted::Ends, ends, now_ms).await;
        self.forget_what_left(origin, zone, now_ms).await;
        gone.and(kept_up)
    }

    /// Forgets what left the zone, and finds out when to look again.
    async fn forget_what_left(&self, origin: &Name, zone: &mut ZoneLeases, now_ms: u64) {
        if let Some(served) = self.authority.zone(origin) {
            zone.table.sweep(&*served, now_ms);
        }
        zone.due_ms = zone.table.next_end_ms(now_ms).unwrap_or(u64::MAX).min(now_ms + LOOK_MS);
        self.write_or_say(origin, &zone.table).await;
    }

    /// Asks the zone for what its leases want.
    async fn change(
        &self,
        origin: &Name,
        table: &Table,
        wanted: Wanted,
        actor: Actor,
        now_ms: u64,
    ) -> Result<(), Refused> {
        let Some(served) = self.authority.zone(origin) else { return Err(Refused::NoZone(origin.clone())) };
        if table.changes(&*served, now_ms, &wanted).is_empty() {
            return Ok(());
        }
        let table = table.clone();
        let edit = Edit::Decide(Box::new(move |served| Ok(table.changes(served, now_ms, &wanted))));
        self.authority.apply(Proposal::new(origin.clone(), edit, actor)).await.map(drop)
    }

    async fn write(&self, origin: &Name, table: &Table) -> io::Result<()> {
        let (path, text) = (self.authority.folder().lease_file(origin), file::text(table));
        tokio::task::spawn_blocking(move || file::write(&path, text)).await.map_err(io::Error::other).flatten()
    }

    /// As [`Self::write`], where the file holds more than there is: that goes when it is read.
    async fn write_or_say(&self, origin: &Name, table: &Table) {
        if let Err(error) = self.write(origin, table).await {
            tracing::warn!(zone = %origin, %error, "the file of leases is behind what they are");
        }
    }

    /// The leases of a zone, for one who will add some.
    async fn entry(&self, origin: &Name) -> OwnedMutexGuard<ZoneLeases> {
        loop {
            let zone = {
                let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
                zones.entry(origin.clone()).or_default().clone()
            };
            let zone = zone.lock_owned().await;
            if !zone.is_gone {
                return zone;
            }
        }
    }

    /// Takes a zone without leases out of the map.
    fn drop_if_empty(&self, origin: &Name, zone: &mut ZoneLeases) {
        if zone.table.is_empty() && !std::mem::replace(&mut zone.is_gone, true) {
            self.zones.lock().unwrap_or_else(PoisonError::into_inner).remove(origin);
        }
    }

    fn known(&self) -> HashMap<Name, Arc<Mutex<ZoneLeases>>> {
        self.zones.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Zones that have leases, or had some that are still served.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.known().len()
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
