//! Follows primaries: a task per secondary zone around its [`Secondary`].

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use gateward_zone::{Name, Soa};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

use super::dial::{fetch, random, serial_at};
use super::keeper::{Content, Keeper};
use super::transfers::soa_of;
use crate::catalog::{self, Member, Source, Step};
use crate::secondary::{Action, Primary, Secondary};
use crate::server::Shared;
use crate::store::Zone;
use crate::transfer::{Limits, Received, onto};
use crate::tsig::Key;

/// Zones that ask or transfer at once; the next ones wait.
const MOST_AT_ONCE: usize = 32;
/// Notices of a zone that wait to be looked at; more say nothing new.
const NOTICES: usize = 4;

/// A secondary zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The zone.
    pub zone: Name,
    /// Where it is transferred from, tried in this order.
    pub primaries: Vec<Primary>,
    /// Whether it is a catalog whose members are followed too, from the same primaries.
    pub is_catalog: bool,
}

/// The secondary zones of a server.
pub struct Followers {
    zones: Mutex<HashMap<Name, Entry>>,
    /// Members of catalogs, and which ones.
    members: Mutex<BTreeMap<Name, Source>>,
    shared: Arc<Shared>,
    keeper: Arc<dyn Keeper>,
    limits: Limits,
    places: Arc<Semaphore>,
}

struct Entry {
    followed: Followed,
    notices: mpsc::Sender<Option<SocketAddr>>,
    task: AbortHandle,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followers {
    /// No zones yet.
    #[must_use]
    pub fn new(shared: Arc<Shared>, keeper: Arc<dyn Keeper>, limits: Limits) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(MOST_AT_ONCE));
        Arc::new(Followers { zones: Mutex::default(), members: Mutex::default(), shared, keeper, limits, places })
    }

    /// Follows a zone from now on; called again, with the primaries that it has now. Called within a tokio runtime.
    pub fn follow(self: &Arc<Self>, followed: &Followed) {
        let zone = followed.zone.clone();
        let mut zones = self.zones();
        if zones.get(&zone).is_some_and(|entry| entry.followed == *followed) {
            return;
        }
        let served = self.served(&zone);
        let soa = served.as_ref().and_then(|served| read_soa(served));
        let now = Instant::now();
        let confirmed = self.keeper.unconfirmed_for(&zone).and_then(|age| now.checked_sub(age));
        let seed = (0..4).fold(0, |seed, _| seed << 16 | u64::from(random()));
        let machine = Secondary::new(followed.primaries.clone(), soa, confirmed, seed, now);
        let (notices, receiver) = mpsc::channel(NOTICES);
        let follower =
            Follower { followed: followed.clone(), all: Arc::downgrade(self), keeper: Arc::clone(&self.keeper) };
        let task = tokio::spawn(follower.run(machine, receiver)).abort_handle();
        zones.insert(zone, Entry { followed: followed.clone(), notices, task });
        drop(zones);
        self.keeper.following(&followed.zone, followed.is_catalog);
        if let Some(served) = served.filter(|_| followed.is_catalog) {
            tokio::spawn(Arc::clone(self).read_catalog(followed.clone(), served));
        }
    }

    /// Follows the members of a catalog's new version, and no others of it.
    async fn read_catalog(self: Arc<Self>, followed: Followed, version: Arc<Zone>) {
        let catalog = &followed.zone;
        let members = match catalog::members(&*version) {
            Ok(members) => members,
            Err(error) => {
                tracing::error!(%catalog, %error, "the catalog is broken; its members stay as they were");
                return;
            }
        };
        let known = self.members.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let map = self.shared.zones.map();
        let own = members.keys().filter(|zone| !known.contains_key(*zone) && map.slot(zone).is_some());
        let sources = own.map(|zone| (zone.clone(), Source::Own)).chain(known.clone()).collect();
        for step in catalog::steps(catalog, &members, &sources) {
            self.take_step(&followed, step).await;
        }
    }

    async fn take_step(self: &Arc<Self>, followed: &Followed, step: Step) {
        let catalog = &followed.zone;
        match step {
            Step::Add(member) => {
                tracing::info!(%catalog, zone = %member.zone, "the catalog has a new member");
                self.join(followed, member);
            }
            Step::Remove(zone) => {
                tracing::info!(%catalog, %zone, "the catalog lists a zone no more");
                self.leave(&zone).await;
            }
            Step::Reset(member) => {
                self.leave(&member.zone).await;
                self.join(followed, member);
            }
            Step::Change(member) => self.remember(catalog, member),
            Step::TakeOver { member, from, keeps_data } => {
                tracing::info!(%catalog, zone = %member.zone, %from, "the catalog takes a zone over");
                if !keeps_data {
                    self.leave(&member.zone).await;
                }
                self.join(followed, member);
            }
            Step::Clash { zone, .. } => {
                tracing::warn!(%catalog, %zone, "the catalog lists a zone that is here from elsewhere; that one stays");
            }
        }
    }

    fn join(self: &Arc<Self>, followed: &Followed, member: Member) {
        let zone = member.zone.clone();
        self.remember(&followed.zone, member);
        if self.shared.zones.map().slot(&zone).is_none() {
            self.keeper.joined(&zone);
        }
        self.follow(&Followed { zone, primaries: followed.primaries.clone(), is_catalog: false });
    }

    fn remember(&self, catalog: &Name, member: Member) {
        let Member { zone, id, groups, coo } = member;
        let source = Source::Catalog { catalog: catalog.clone(), id, groups, coo };
        self.members.lock().unwrap_or_else(PoisonError::into_inner).insert(zone, source);
    }

    async fn leave(&self, zone: &Name) {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).remove(zone);
        self.unfollow(zone);
        self.keeper.left(zone).await;
    }

    fn served(&self, zone: &Name) -> Option<Arc<Zone>> {
        self.shared.zones.map().slot(zone).and_then(|slot| slot.zone())
    }

    /// Follows a zone no more; tells whether it was.
    pub fn unfollow(&self, zone: &Name) -> bool {
        self.zones().remove(zone).is_some()
    }

    /// The primaries of a zone, and the keys that are shared with them; `None` for zones that are not followed.
    #[must_use]
    pub fn primaries(&self, zone: &Name) -> Option<Vec<(SocketAddr, Option<Name>)>> {
        let zones = self.zones();
        let primaries = &zones.get(zone)?.followed.primaries;
        Some(primaries.iter().map(|primary| (primary.address, primary.key.clone())).collect())
    }

    /// A zone is to be checked now.
    pub fn notified(&self, zone: &Name, from: Option<SocketAddr>) {
        if let Some(entry) = self.zones().get(zone) {
            // A full queue means that the zone is going to be checked anyway.
            let _ = entry.notices.try_send(from);
        }
    }

    fn zones(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Entry>> {
        self.zones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_soa(zone: &Zone) -> Option<Soa> {
    Soa::read(&soa_of(zone)?.rdata).ok()
}

/// One zone's task.
struct Follower {
    followed: Followed,
    /// Whoever drops the followers ends the tasks.
    all: Weak<Followers>,
    keeper: Arc<dyn Keeper>,
}

impl Follower {
    async fn run(self, mut machine: Secondary, mut notices: mpsc::Receiver<Option<SocketAddr>>) {
        loop {
            while let Some(action) = machine.poll(Instant::now()) {
                let Some(all) = self.all.upgrade() else { return };
                self.act(&all, &mut machine, action).await;
            }
            let deadline = machine.deadline().map(tokio::time::Instant::from_std);
            let wait = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {}
                notice = notices.recv() => match notice {
                    Some(from) => machine.notified(from, Instant::now()),
                    None => return,
                },
            }
        }
    }

    async fn act(&self, all: &Arc<Followers>, machine: &mut Secondary, action: Action) {
        let zone = &self.followed.zone;
        if action == Action::Expire {
            tracing::error!(%zone, "the zone expired: no primary confirmed it for as long as its SOA record allows");
            return self.keeper.expired(zone);
        }
        let Ok(_place) = all.places.acquire().await else { return };
        let (primary, outcome) = match action {
            Action::Ask(primary) => {
                let outcome = self.ask(&primary).await.map(|serial| {
                    if machine.serial() == Some(serial) && !machine.is_expired() {
                        self.keeper.confirmed(zone);
                    }
                    machine.soa(serial, Instant::now());
                });
                (primary, outcome)
            }
            Action::Transfer { primary, incremental } => {
                let outcome = self.transfer(all, &primary, incremental).await.map(|soa| {
                    tracing::info!(%zone, primary = %primary.address, serial = soa.serial, incremental, "transferred in");
                    machine.transferred(soa, Instant::now());
                    self.keeper.confirmed(zone);
                });
                (primary, outcome)
            }
            Action::Expire => return,
        };
        if let Err(error) = outcome {
            tracing::warn!(%zone, primary = %primary.address, error, "a primary does not deliver the zone");
            machine.failed(Instant::now());
        }
    }

    fn key(&self, primary: &Primary) -> Result<Option<Arc<Key>>, String> {
        let Some(name) = &primary.key else { return Ok(None) };
        let key = self.keeper.keys().find(name).cloned();
        key.map(Some).ok_or_else(|| format!("the key {name} is not known here"))
    }

    async fn ask(&self, primary: &Primary) -> Result<u32, String> {
        serial_at(primary.address, &self.followed.zone, self.key(primary)?.as_ref()).await
    }

    /// Transfers and serves; the SOA of what is served then.
    async fn transfer(&self, all: &Arc<Followers>, primary: &Primary, incremental: bool) -> Result<Soa, String> {
        let key = self.key(primary)?;
        let zone = &self.followed.zone;
        let served = all.served(zone).filter(|_| incremental);
        let have = served.as_ref().and_then(|served| soa_of(served));
        let received = fetch(primary.address, zone, have.as_ref(), key.as_ref(), all.limits).await?;
        let content = match (received, &served) {
            (Received::Zone(records), _) => Content::Whole(records),
            (Received::Differences(differences), Some(served)) => {
                Content::Changes(onto(&**served, &differences).map_err(|error| error.to_string())?)
            }
            (Received::Current, Some(served)) => return read_soa(served).ok_or_else(|| "no SOA record".to_owned()),
            _ => return Err("an incremental answer to a request for the whole zone".to_owned()),
        };
        self.keeper.replace(zone, content, primary.address).await?;
        self.keeper.following(zone, self.followed.is_catalog);
        let version = all.served(zone).ok_or_else(|| "what was transferred is not served".to_owned())?;
        if self.followed.is_catalog {
            Arc::clone(all).read_catalog(self.followed.clone(), Arc::clone(&version)).await;
        }
        read_soa(&version).ok_or_else(|| "no SOA record".to_owned())
    }
}
