//! Who keeps the zones: what the service asks of the side that has policies, a journal and a disk.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use gateward_zone::{Change, Name, Record, Rtype, ZoneView};

use crate::sources::Provenance;
use crate::transfer::Difference;
use crate::tsig::Keys;
use crate::update::Refusal;

/// What comes later.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Makes changes for the version that is served.
pub type MakeChange = Box<dyn FnOnce(&dyn ZoneView) -> Result<Vec<Change>, Refusal> + Send>;

/// Whether records of a type at a name may be changed.
pub type Permits = Box<dyn Fn(&Name, Rtype) -> bool + Send>;

/// Who asks for an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requester {
    /// The key it is signed with.
    pub key: Name,
    /// From where.
    pub client: SocketAddr,
}

/// What a transfer brought for a secondary zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All its records.
    Whole(Vec<Record>),
    /// Changes of the version that is there.
    Changes(Vec<Change>),
}

/// Keeps zones. Calls that return at once are made on the control runtime and must not wait for a disk.
pub trait Keeper: Send + Sync + 'static {
    /// The TSIG keys.
    fn keys(&self) -> Arc<Keys>;

    /// What a key may change in a zone; `None`: nothing at all, or not a zone that takes updates.
    fn may_update(&self, zone: &Name, key: &Name) -> Option<Permits>;

    /// The TTL that a record gets which an update adds with `ttl`.
    fn ttl(&self, zone: &Name, rtype: Rtype, ttl: u32) -> u32;

    /// Whether somebody may copy a zone.
    fn may_transfer(&self, zone: &Name, client: IpAddr, key: Option<&Name>) -> bool;

    /// Who is told of a zone's changes, and the key to sign it with.
    fn secondaries(&self, zone: &Name) -> Vec<(SocketAddr, Option<Name>)>;

    /// The differences that led from the version with serial `from` to the one that is served, oldest first; none when they are not kept.
    fn history(&self, zone: &Name, from: u32) -> Later<Vec<Difference>>;

    /// Changes a zone: `make` is called with the version that is served while nobody else changes the zone. What it makes goes through
    /// the guardrails, is durable and is served when this ends well. An error changes nothing; its reason goes to whoever asked.
    fn update(&self, zone: &Name, make: MakeChange, requester: Requester) -> Later<Result<(), Refusal>>;

    /// Serves what a transfer brought from a primary.
    fn replace(&self, zone: &Name, content: Content, primary: SocketAddr) -> Later<Result<(), String>>;

    /// A zone comes from there from now on, and nobody else may change it. Remembered for good when this ends well; an error says why the zone
    /// cannot be followed.
    fn following(&self, zone: &Name, provenance: Provenance) -> Later<Result<(), String>>;

    /// Where zones come from, as far as it is remembered.
    fn sources(&self) -> BTreeMap<Name, Arc<Provenance>>;

    /// Whether a catalog of `members` may let `leaving` of them go at once; an error says why not, and what to do.
    fn may_leave(&self, catalog: &Name, members: usize, leaving: usize) -> Result<(), String>;

    /// A primary said that the served version of a secondary zone is the newest; remembered for how long it may be served after a restart.
    fn confirmed(&self, zone: &Name);

    /// A secondary zone was not confirmed for as long as its SOA record allows: it must be answered with SERVFAIL until the next transfer.
    fn expired(&self, zone: &Name);

    /// A zone is going to be transferred for the first time: until then it is answered with SERVFAIL.
    fn joined(&self, zone: &Name);

    /// A catalog lists a zone no more: it is not served any more, and what is kept of it is forgotten; or why it is served still.
    fn left(&self, zone: &Name) -> Later<Result<(), String>>;

    /// For how long a kept secondary zone has been without confirmation; `None` when it is not known.
    fn unconfirmed_for(&self, zone: &Name) -> Option<Duration>;
}
