//! Follows primaries: a task per secondary zone around its [`Secondary`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use gateward_zone::{Name, Soa};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::dial::{fetch, random, serial_at};
use super::keeper::{Content, Keeper};
use super::places::Places;
use super::transfers::soa_of;
use crate::catalog::{self, Member, Source, Step};
use crate::secondary::{Action, Primary, Secondary};
use crate::server::Shared;
use crate::sources::{Provenance, Role};
use crate::store::Zone;
use crate::transfer::{Limits, Received, onto};
use crate::tsig::Key;

/// New members of a catalog that are remembered at once.
const JOINING: usize = 32;
/// Notices of a zone that wait to be looked at; more say nothing new.
const NOTICES: usize = 4;
/// Wait before another try to remember a zone as a copy.
const REMEMBER_RETRY: Duration = Duration::from_mins(1);

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
    /// Catalogs that list other zones than are followed, because that was held back or could not be done.
    behind: Mutex<BTreeSet<Name>>,
    shared: Arc<Shared>,
    keeper: Arc<dyn Keeper>,
    limits: Limits,
    places: Places<SocketAddr>,
}

struct Entry {
    followed: Followed,
    role: Role,
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
        let places = Places::into_here();
        Arc::new(Followers { zones: Mutex::default(), behind: Mutex::default(), shared, keeper, limits, places })
    }

    /// Follows a zone from now on; called again, with the primaries that it has now. Members that a catalog had before go on at once. A zone
    /// without primaries is served until it expires. Called within a tokio runtime.
    pub fn follow(self: &Arc<Self>, followed: &Followed) {
        let role = if followed.is_catalog { Role::Catalog } else { Role::Secondary };
        if !self.begin(followed, role) || !followed.is_catalog {
            return;
        }
        for (zone, provenance) in self.keeper.sources() {
            if provenance.is_member_of(&followed.zone) && !self.is_asked_for(&zone, &followed.zone) {
                let member = Followed { zone, primaries: followed.primaries.clone(), is_catalog: false };
                self.begin(&member, provenance.role.clone());
            }
        }
    }

    /// Whether a zone is followed for another reason than that `catalog` lists it.
    fn is_asked_for(&self, zone: &Name, catalog: &Name) -> bool {
        let is_member = |role: &Role| matches!(role, Role::Member { catalog: of, .. } if of == catalog);
        self.zones().get(zone).is_some_and(|entry| !is_member(&entry.role))
    }

    /// Starts a zone's task, unless it has one that does the same.
    fn begin(self: &Arc<Self>, followed: &Followed, role: Role) -> bool {
        let zone = followed.zone.clone();
        let mut zones = self.zones();
        if zones.get(&zone).is_some_and(|entry| entry.followed == *followed && entry.role == role) {
            return false;
        }
        let served = self.served(&zone);
        if self.shared.zones.map().slot(&zone).is_none() {
            self.keeper.joined(&zone);
        }
        let soa = served.as_ref().and_then(|served| read_soa(served));
        let now = Instant::now();
        let confirmed = self.keeper.unconfirmed_for(&zone).map(|age| now.checked_sub(age).unwrap_or(now));
        let seed = (0..4).fold(0, |seed, _| seed << 16 | u64::from(random()));
        let mut machine = Secondary::new(followed.primaries.clone(), soa, confirmed, seed, now);
        if machine.expire(now) {
            // Before it is asked for: it was over while the server was away.
            self.keeper.expired(&zone);
        }
        let (notices, receiver) = mpsc::channel(NOTICES);
        let (all, keeper) = (Arc::downgrade(self), Arc::clone(&self.keeper));
        let follower = Follower { followed: followed.clone(), role: role.clone(), all, keeper };
        let task = tokio::spawn(follower.run(machine, receiver)).abort_handle();
        zones.insert(zone, Entry { followed: followed.clone(), role, notices, task });
        true
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
        let known = self.keeper.sources();
        let had = known.values().filter(|provenance| provenance.is_member_of(catalog)).count();
        let map = self.shared.zones.map();
        let own = members.keys().filter(|zone| !known.contains_key(*zone) && map.slot(zone).is_some());
        let mut sources: BTreeMap<Name, Source> = own.map(|zone| (zone.clone(), Source::Own)).collect();
        sources.extend(known.iter().map(|(zone, provenance)| (zone.clone(), provenance.source())));
        let mut steps = catalog::steps(catalog, &members, &sources);
        let leaves = |step: &Step| matches!(step, Step::Remove(_) | Step::Reset(_));
        let leaving = steps.iter().filter(|step| leaves(step)).count();
        let mut is_behind = false;
        if leaving > 0
            && let Err(reason) = self.keeper.may_leave(catalog, had, leaving)
        {
            tracing::error!(%catalog, reason, "the catalog may be mistaken: no zone is taken away");
            steps.retain(|step| !leaves(step));
            is_behind = true;
        }
        is_behind |= !self.take_steps(&followed, steps).await;
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        if is_behind {
            behind.insert(catalog.clone())
        } else {
            behind.remove(catalog)
        };
    }

    /// Takes all steps; new members, of which there may be many, some at a time. Whether all could be taken.
    async fn take_steps(self: &Arc<Self>, followed: &Followed, steps: Vec<Step>) -> bool {
        let mut joining = JoinSet::new();
        let mut is_done = true;
        for step in steps {
            if let Step::Add(member) = step {
                tracing::info!(catalog = %followed.zone, zone = %member.zone, "the catalog has a new member");
                if joining.len() >= JOINING {
                    is_done &= joining.join_next().await.is_some_and(|joined| joined.unwrap_or(false));
                }
                joining.spawn(Arc::clone(self).join(followed.clone(), member));
            } else {
                is_done &= self.take_step(followed, step).await;
            }
        }
        while let Some(joined) = joining.join_next().await {
            is_done &= joined.unwrap_or(false);
        }
        is_done
    }

    async fn take_step(self: &Arc<Self>, followed: &Followed, step: Step) -> bool {
        let catalog = &followed.zone;
        match step {
            Step::Remove(zone) => {
                tracing::info!(%catalog, %zone, "the catalog lists a zone no more");
                self.leave(&zone).await
            }
            Step::Reset(member) => {
                tracing::info!(%catalog, zone = %member.zone, "a zone of the catalog begins anew");
                self.leave(&member.zone).await && Arc::clone(self).join(followed.clone(), member).await
            }
            Step::Add(member) | Step::Change(member) => Arc::clone(self).join(followed.clone(), member).await,
            Step::TakeOver { member, from, keeps_data } => {
                tracing::info!(%catalog, zone = %member.zone, %from, "the catalog takes a zone over");
                (keeps_data || self.leave(&member.zone).await) && Arc::clone(self).join(followed.clone(), member).await
            }
            Step::Clash { zone, .. } => {
                tracing::warn!(%catalog, %zone, "the catalog lists a zone that is here from elsewhere; that one stays");
                true
            }
        }
    }

    /// Follows a member; not before it is remembered whose it is.
    async fn join(self: Arc<Self>, followed: Followed, member: Member) -> bool {
        let Member { zone, id, groups, coo } = member;
        let role = Role::Member { catalog: followed.zone, id, groups, coo };
        let provenance = Provenance { role: role.clone(), primaries: followed.primaries.clone() };
        if let Err(error) = self.keeper.following(&zone, provenance).await {
            tracing::error!(%zone, error, "a zone of the catalog cannot be followed");
            return false;
        }
        self.begin(&Followed { zone, primaries: followed.primaries, is_catalog: false }, role);
        true
    }

    /// Whether a zone is not served any more. One that could not be taken away is followed on, so that it still expires.
    async fn leave(self: &Arc<Self>, zone: &Name) -> bool {
        let entry = self.zones().remove(zone);
        let Err(error) = self.keeper.left(zone).await else { return true };
        tracing::error!(%zone, error, "a zone that its catalog lists no more is still served");
        if let Some(entry) = entry {
            self.begin(&entry.followed, entry.role.clone());
        }
        false
    }

    /// Whether a catalog has to be looked at again though it did not change.
    fn is_behind(&self, catalog: &Name) -> bool {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).contains(catalog)
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
    role: Role,
    /// Whoever drops the followers ends the tasks.
    all: Weak<Followers>,
    keeper: Arc<dyn Keeper>,
}

/// What came of asking or fetching.
enum Outcome {
    /// The primary has this serial.
    Serial(u32),
    /// The zone is served as the primary has it.
    Transferred(Soa),
    /// The primary has nothing newer than what was served when it was asked.
    Current(Soa),
}

impl Follower {
    async fn run(self, mut machine: Secondary, mut notices: mpsc::Receiver<Option<SocketAddr>>) {
        self.remember().await;
        // A catalog that was here before may list what could not be followed then.
        if let Some(all) = self.all.upgrade() {
            self.read_catalog(&all).await;
        }
        loop {
            while let Some(action) = machine.poll(Instant::now()) {
                let Some(all) = self.all.upgrade() else { return };
                if action == Action::Expire {
                    self.expire();
                } else if !self.act(&all, &mut machine, action, &mut notices).await {
                    return;
                }
            }
            tokio::select! {
                () = until(machine.deadline()) => {}
                notice = notices.recv() => match notice {
                    Some(from) => machine.notified(from, Instant::now()),
                    None => return,
                },
            }
        }
    }

    /// What is not remembered as a copy must not be served as one: after a restart it would pass for a zone of the server's own.
    async fn remember(&self) {
        let Followed { zone, primaries, .. } = &self.followed;
        if primaries.is_empty() {
            return;
        }
        let provenance = Provenance { role: self.role.clone(), primaries: primaries.clone() };
        while let Err(error) = self.keeper.following(zone, provenance.clone()).await {
            tracing::error!(%zone, error, "the zone cannot be followed");
            tokio::time::sleep(REMEMBER_RETRY).await;
        }
    }

    fn expire(&self) {
        let zone = &self.followed.zone;
        tracing::error!(%zone, "the zone expired: no primary confirmed it for as long as its SOA record allows");
        self.keeper.expired(zone);
    }

    /// Does something, however long it takes: meanwhile notices are heard, and the zone expires when its time is over. False: it is the end.
    async fn act(
        &self,
        all: &Arc<Followers>,
        machine: &mut Secondary,
        action: Action,
        notices: &mut mpsc::Receiver<Option<SocketAddr>>,
    ) -> bool {
        let (Action::Ask(primary) | Action::Transfer { primary, .. }) = &action else { return true };
        let mut work = std::pin::pin!(self.work(all, &action));
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                () = until(machine.expires()) => if machine.expire(Instant::now()) {
                    self.expire();
                },
                notice = notices.recv() => match notice {
                    Some(from) => machine.notified(from, Instant::now()),
                    None => return false,
                },
            }
        };
        match outcome {
            Ok(outcome) => self.take(all, machine, outcome).await,
            Err(error) => {
                let zone = &self.followed.zone;
                tracing::warn!(%zone, primary = %primary.address, error, "a primary does not deliver the zone");
                machine.failed(Instant::now());
            }
        }
        true
    }

    async fn work(&self, all: &Arc<Followers>, action: &Action) -> Result<Outcome, String> {
        let (Action::Ask(primary) | Action::Transfer { primary, .. }) = action else {
            return Err("there is nothing to fetch".to_owned());
        };
        let _place = all.places.enter(primary.address).await.ok_or("the server ends")?;
        if let Action::Transfer { incremental, .. } = action {
            return self.transfer(all, primary, *incremental).await;
        }
        let key = self.key(primary)?;
        serial_at(primary.address, &self.followed.zone, key.as_ref()).await.map(Outcome::Serial)
    }

    async fn take(&self, all: &Arc<Followers>, machine: &mut Secondary, outcome: Outcome) {
        let zone = &self.followed.zone;
        let now = Instant::now();
        match outcome {
            Outcome::Serial(serial) => {
                let is_confirmed = machine.serial() == Some(serial) && !machine.is_expired();
                machine.soa(serial, now);
                if is_confirmed {
                    self.keeper.confirmed(zone);
                    if all.is_behind(zone) {
                        self.read_catalog(all).await;
                    }
                }
            }
            // It expired meanwhile, and is served no more.
            Outcome::Current(_) if machine.is_expired() => machine.failed(now),
            Outcome::Transferred(soa) | Outcome::Current(soa) => {
                machine.transferred(soa, now);
                self.keeper.confirmed(zone);
                self.read_catalog(all).await;
            }
        }
    }

    async fn read_catalog(&self, all: &Arc<Followers>) {
        if let Some(version) = all.served(&self.followed.zone).filter(|_| self.followed.is_catalog) {
            Arc::clone(all).read_catalog(self.followed.clone(), version).await;
        }
    }

    fn key(&self, primary: &Primary) -> Result<Option<Arc<Key>>, String> {
        let Some(name) = &primary.key else { return Ok(None) };
        let key = self.keeper.keys().find(name).cloned();
        key.map(Some).ok_or_else(|| format!("the key {name} is not known here"))
    }

    /// Transfers and serves.
    async fn transfer(&self, all: &Followers, primary: &Primary, incremental: bool) -> Result<Outcome, String> {
        let key = self.key(primary)?;
        let zone = &self.followed.zone;
        let served = all.served(zone).filter(|_| incremental);
        let have = served.as_ref().and_then(|served| soa_of(served));
        let no_soa = || "no SOA record".to_owned();
        let received = fetch(primary.address, zone, have.as_ref(), key.as_ref(), all.limits).await?;
        let content = match (received, &served) {
            (Received::Zone(records), _) => Content::Whole(records),
            (Received::Differences(differences), Some(served)) => {
                Content::Changes(onto(&**served, &differences).map_err(|error| error.to_string())?)
            }
            (Received::Current, Some(served)) => return read_soa(served).map(Outcome::Current).ok_or_else(no_soa),
            _ => return Err("an incremental answer to a request for the whole zone".to_owned()),
        };
        self.keeper.replace(zone, content, primary.address).await?;
        let version = all.served(zone).ok_or_else(|| "what was transferred is not served".to_owned())?;
        let soa = read_soa(&version).ok_or_else(no_soa)?;
        tracing::info!(%zone, primary = %primary.address, serial = soa.serial, incremental, "transferred in");
        Ok(Outcome::Transferred(soa))
    }
}

/// Never, if there is no deadline.
pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
