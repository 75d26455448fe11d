//! The keeper of a server with a folder of zones: everything goes through its [`Authority`].

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use gateward_zone::policy::KeyGrant;
use gateward_zone::{Name, Rcode, Rtype, ZoneText};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::follow::Followers;
use super::herald::Herald;
use super::keeper::{Content, Keeper, Later, MakeChange, Permits, Requester};
use super::{Service, producer};
use crate::authority::{Actor, Authority, Door, Edit, Event, Numbering, Proposal, Refused};
use crate::journal::Delta;
use crate::server::Shared;
use crate::server::slow::Slow;
use crate::sources::Provenance;
use crate::transfer::{Difference, Limits};
use crate::tsig::Keys;
use crate::update::Refusal;

/// How exact the kept times of confirmations are: a busy zone does not touch the disk each time.
const CONFIRMED_EVERY: Duration = Duration::from_mins(1);

/// Where the TSIG keys are, as they are now.
pub type KeySource = Arc<dyn Fn() -> Arc<Keys> + Send + Sync>;

/// Keeps zones through an authority.
pub struct AuthorityKeeper {
    authority: Arc<Authority>,
    keys: KeySource,
    /// When confirmations were last written down.
    confirmed: Mutex<HashMap<Name, Instant>>,
}

impl AuthorityKeeper {
    /// A keeper.
    #[must_use]
    pub fn new(authority: Arc<Authority>, keys: KeySource) -> Self {
        AuthorityKeeper { authority, keys, confirmed: Mutex::default() }
    }
}

/// All that a server over an authority says to other servers. Ends when it is dropped.
pub struct Exchange {
    /// What the workers hand messages to.
    pub service: Arc<dyn Slow>,
    /// The zones that are copied from elsewhere.
    pub followers: Arc<Followers>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Exchange {
    /// Begins to tell secondaries. Called within a tokio runtime, with the zones loaded.
    #[must_use]
    pub fn start(shared: &Arc<Shared>, authority: &Arc<Authority>, keys: KeySource, limits: Limits) -> Self {
        let keeper: Arc<dyn Keeper> = Arc::new(AuthorityKeeper::new(Arc::clone(authority), keys));
        let followers = Followers::new(Arc::clone(shared), Arc::clone(&keeper), limits);
        let service = Service::new(Arc::clone(shared), Arc::clone(&keeper), Arc::clone(&followers));
        let herald = Arc::new(Herald::default());
        let told = Arc::clone(&herald).run(Arc::clone(shared), keeper);
        let tell = tokio::spawn(async move {
            if let Err(error) = told.await {
                tracing::error!(%error, "secondaries are not told of changes");
            }
        });
        let announce = tokio::spawn(announce(Arc::downgrade(authority), authority.subscribe(), herald));
        Exchange { service: Arc::new(service), followers, tasks: vec![tell, announce] }
    }

    /// Keeps a catalog of the authority's own zones from now on.
    pub fn produce(&mut self, authority: &Arc<Authority>, catalog: Name) {
        self.tasks.push(tokio::spawn(producer::produce(Arc::downgrade(authority), authority.subscribe(), catalog)));
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Announces what happens to an authority's zones: all of them at the start, then each that changes. It does not keep the authority, and
/// ends with it.
async fn announce(authority: Weak<Authority>, mut events: Receiver<Event>, herald: Arc<Herald>) {
    let all = || {
        let authority = authority.upgrade()?;
        let told = authority.all().into_iter().filter(|(_, info)| !info.policy.secondaries.is_empty());
        told.for_each(|(origin, _)| herald.changed(&origin));
        Some(())
    };
    let mut going_on = all();
    while going_on.is_some() {
        going_on = match events.recv().await {
            Ok(Event { origin, .. }) => {
                herald.changed(&origin);
                Some(())
            }
            Err(RecvError::Lagged(_)) => all(),
            Err(RecvError::Closed) => None,
        };
    }
}

impl Keeper for AuthorityKeeper {
    fn keys(&self) -> Arc<Keys> {
        (self.keys)()
    }

    fn may_update(&self, zone: &Name, key: &Name) -> Option<Permits> {
        let policy = self.authority.policy(zone);
        let grants: Vec<KeyGrant> = policy.keys.iter().filter(|grant| grant.key == *key).cloned().collect();
        if grants.is_empty() {
            return None;
        }
        Some(Box::new(move |name, rtype| grants.iter().any(|grant| grant.covers(name, rtype))))
    }

    fn ttl(&self, zone: &Name, rtype: Rtype, ttl: u32) -> u32 {
        self.authority.policy(zone).clamp_ttl(rtype, ttl)
    }

    fn may_transfer(&self, zone: &Name, client: IpAddr, key: Option<&Name>) -> bool {
        let policy = self.authority.policy(zone);
        let client = client.to_canonical();
        let by_key = |key: &Name| {
            policy.transfers.keys.contains(key)
                || policy.secondaries.iter().any(|secondary| secondary.key.as_ref() == Some(key))
        };
        let known = policy.secondaries.iter().filter(|secondary| secondary.key.is_none());
        key.is_some_and(by_key)
            || policy.transfers.networks.iter().any(|network| network.contains(&client))
            || known.into_iter().any(|secondary| secondary.address.to_canonical() == client)
    }

    fn secondaries(&self, zone: &Name) -> Vec<(SocketAddr, Option<Name>)> {
        let policy = self.authority.policy(zone);
        let told = policy.secondaries.iter();
        told.map(|secondary| (SocketAddr::new(secondary.address, secondary.port), secondary.key.clone())).collect()
    }

    fn history(&self, zone: &Name, from: u32) -> Later<Vec<Difference>> {
        let (authority, zone) = (Arc::clone(&self.authority), zone.clone());
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || {
                let deltas: Vec<Delta> = authority.differences(&zone, from)?;
                deltas.iter().map(|delta| Difference::from_changes(&zone, &delta.changes)).collect()
            });
            read.await.ok().flatten().unwrap_or_default()
        })
    }

    fn update(&self, zone: &Name, make: MakeChange, requester: Requester) -> Later<Result<(), Refusal>> {
        let decide = move |served: &dyn gateward_zone::ZoneView| {
            make(served).map_err(|Refusal { rcode, reason }| Refused::Update { rcode, reason })
        };
        let actor = Actor::new(Door::Update, requester.key.to_string());
        let proposal = Proposal::new(zone.clone(), Edit::Decide(Box::new(decide)), actor);
        let authority = Arc::clone(&self.authority);
        Box::pin(async move { authority.apply(proposal).await.map(drop).map_err(|refused| refusal(&refused)) })
    }

    fn replace(&self, zone: &Name, content: Content, primary: SocketAddr) -> Later<Result<(), String>> {
        let edit = match content {
            Content::Whole(records) => Edit::Replace(Box::new(ZoneText::from_records(zone.clone(), records))),
            Content::Changes(changes) => Edit::Changes(changes),
        };
        let actor = Actor::new(Door::Transfer, primary.to_string());
        let proposal = Proposal { numbering: Numbering::AsIs, ..Proposal::new(zone.clone(), edit, actor) };
        let authority = Arc::clone(&self.authority);
        Box::pin(async move { authority.apply(proposal).await.map(drop).map_err(|refused| refused.to_string()) })
    }

    fn following(&self, zone: &Name, provenance: Provenance) -> Later<Result<(), String>> {
        let (authority, zone) = (Arc::clone(&self.authority), zone.clone());
        Box::pin(async move { authority.copy(&zone, provenance).await.map_err(|refused| refused.to_string()) })
    }

    fn sources(&self) -> BTreeMap<Name, Arc<Provenance>> {
        self.authority.sources().all()
    }

    fn may_leave(&self, catalog: &Name, members: usize, leaving: usize) -> Result<(), String> {
        let policy = self.authority.policy(catalog);
        let most = usize::from(policy.max_deleted_percent);
        let is_small = members < policy.percent_floor.max(1);
        let is_emptied = leaving == members && members > 1;
        if most >= 100 || !is_emptied && (is_small || leaving * 100 <= most * members) {
            return Ok(());
        }
        Err(format!(
            "{leaving} of {members} zones would go or begin anew at once; if that is meant, set `max_deleted_percent: 100` in the policy of {catalog} here, and take it back afterwards"
        ))
    }

    fn confirmed(&self, zone: &Name) {
        let now = Instant::now();
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        if confirmed.get(zone).is_some_and(|last| now.duration_since(*last) < CONFIRMED_EVERY) {
            return;
        }
        confirmed.insert(zone.clone(), now);
        drop(confirmed);
        let path = self.authority.folder().confirmed_file(zone);
        tokio::task::spawn_blocking(move || {
            let touched = File::create(&path).and_then(|file| file.set_modified(SystemTime::now()));
            if let Err(error) = touched {
                tracing::warn!(file = %path.display(), %error, "when the zone was last confirmed cannot be written down");
            }
        });
    }

    fn expired(&self, zone: &Name) {
        self.authority.expire(zone);
    }

    fn joined(&self, zone: &Name) {
        self.authority.expire(zone);
    }

    fn left(&self, zone: &Name) -> Later<Result<(), String>> {
        let (authority, zone) = (Arc::clone(&self.authority), zone.clone());
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).remove(&zone);
        Box::pin(async move {
            let actor = Actor::new(Door::Catalog, String::new());
            authority.drop_copy(&zone, actor).await.map_err(|refused| refused.to_string())
        })
    }

    fn unconfirmed_for(&self, zone: &Name) -> Option<Duration> {
        let modified = std::fs::metadata(self.authority.folder().confirmed_file(zone)).and_then(|file| file.modified());
        modified.ok()?.elapsed().ok()
    }
}

/// What an update is answered with.
fn refusal(refused: &Refused) -> Refusal {
    let rcode = match refused {
        Refused::Update { rcode, reason } => return Refusal::new(*rcode, reason.clone()),
        Refused::NoZone(_) => Rcode::NOTAUTH,
        Refused::Rules(_) => Rcode::REFUSED,
        // Worth another try.
        Refused::Base { .. }
        | Refused::PolicyBase
        | Refused::NoVersion(_)
        | Refused::Busy { .. }
        | Refused::Failed(_) => Rcode::SERVFAIL,
    };
    Refusal::new(rcode, refused.to_string())
}
