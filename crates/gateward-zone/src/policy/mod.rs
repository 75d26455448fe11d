//! The policy of a zone: who may change what, and which changes nobody may make without saying so.
//!
//! The file is `ORIGIN.policy.yaml` beside the zone file; `read` describes its form. [`check()`] holds every kind of change against it:
//! files, API calls, updates, plans and leases alike. A zone without a policy has [`Policy::default`].

mod access;
mod change;
mod check;
mod read;
mod rules;
mod write;

use std::net::IpAddr;

use domain::base::iana::Rtype;
use domain::utils::base16;
use ipnet::IpNet;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::force::ForcePolicy;
use crate::name::Name;

pub use change::{check_policy, digest};
pub use check::{Refusal, Step, Verdict, check, check_actor};

/// What a zone's policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The team that answers for the zone; for people.
    pub owner: Option<String>,
    /// Who may change the zone by API, plan or lease; empty for everybody who reaches the control API.
    pub principals: Vec<String>,
    /// Parts of the zone that belong to others.
    pub subtrees: Vec<Subtree>,
    /// What TSIG keys may change by RFC 2136 updates. Without a grant a key may change nothing.
    pub keys: Vec<KeyGrant>,
    /// Who may copy the zone.
    pub transfers: Transfers,
    /// Servers that are told of changes and may copy the zone.
    pub secondaries: Vec<Secondary>,
    /// Whether the zone may not be deleted.
    pub protected: bool,
    /// Records that may not go, not even for others in their place.
    pub protected_names: Vec<NameRule>,
    /// Names that keep at least one record.
    pub never_empty: Vec<NameRule>,
    /// Most percent of the records that one change may remove without replacement.
    pub max_deleted_percent: u8,
    /// Most percent of the records that one change may remove, replace or give another TTL.
    pub max_changed_percent: u8,
    /// Zones with fewer records than this know no percentages.
    pub percent_floor: usize,
    /// Whether NS records at the apex, and the SOA but for its serial, stay as they are.
    pub lock_apex: bool,
    /// Bounds of TTLs.
    pub ttl: TtlBounds,
    /// Networks that A and AAAA records may point into; empty for all.
    pub addresses: Vec<IpNet>,
    /// Suffixes that CNAME and DNAME records may point into; empty for all.
    pub targets: Vec<Name>,
    /// Times without changes.
    pub freezes: Vec<Freeze>,
    /// Who may sign for a change against the rules.
    pub force: ForcePolicy,
    /// What the zone may cost its servers.
    pub limits: Limits,
}

/// What a zone may cost its servers; none is the server's own limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Answered queries per second and server.
    pub queries_per_second: Option<u32>,
    /// Accepted dynamic updates per second.
    pub updates_per_second: Option<u32>,
    /// Records in the zone.
    pub records: Option<u32>,
}

/// octoDNS's figures: 30 percent from ten records on.
impl Default for Policy {
    fn default() -> Self {
        Policy {
            owner: None,
            principals: Vec::new(),
            subtrees: Vec::new(),
            keys: Vec::new(),
            transfers: Transfers::default(),
            secondaries: Vec::new(),
            protected: false,
            protected_names: Vec::new(),
            never_empty: Vec::new(),
            max_deleted_percent: 30,
            max_changed_percent: 30,
            percent_floor: 10,
            lock_apex: true,
            ttl: TtlBounds::default(),
            addresses: Vec::new(),
            targets: Vec::new(),
            freezes: Vec::new(),
            force: ForcePolicy::default(),
            limits: Limits::default(),
        }
    }
}

/// A part of a zone that belongs to somebody else: only they may change what is in it. The nearest subtree above a name counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subtree {
    /// Its top.
    pub name: Name,
    /// The team that answers for it; for people.
    pub owner: Option<String>,
    /// Who may change it by API, plan or lease.
    pub principals: Vec<String>,
    /// The types that may be changed in it; empty for all.
    pub types: Vec<Rtype>,
}

/// What a TSIG key may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyGrant {
    /// The key's name.
    pub key: Name,
    /// The names that it may change: this one and those below.
    pub subtree: Name,
    /// Leftmost labels that it may change, in lower case (`_acme-challenge`); empty for all.
    pub labels: Vec<String>,
    /// Types that it may change; empty for all but NS, DS, DNAME and SOA.
    pub types: Vec<Rtype>,
}

/// Who may copy a zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Names of TSIG keys.
    pub keys: Vec<Name>,
    /// Networks that need no key.
    pub networks: Vec<IpNet>,
}

/// A server that is told of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secondary {
    /// Its address.
    pub address: IpAddr,
    /// Its port; 53 when the file names none.
    pub port: u16,
    /// The TSIG key that NOTIFY messages to it are signed with, and that it may copy the zone with.
    pub key: Option<Name>,
}

/// Records at a name: all, or those of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRule {
    /// The name.
    pub name: Name,
    /// The type; `None` for all.
    pub rtype: Option<Rtype>,
}

/// Bounds of TTLs; the SOA is free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TtlBounds {
    /// Least seconds.
    pub min: Option<u32>,
    /// Most seconds.
    pub max: Option<u32>,
    /// Whether the server moves a TTL into the bounds instead of refusing it.
    pub clamp: bool,
}

/// A time without changes, from `start` to before `end`, in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// Its first second.
    pub start: i64,
    /// The first second after it.
    pub end: i64,
    /// Why.
    pub reason: String,
    /// Kinds of change that go on; leases when the file does not say.
    pub except: Vec<ActorKind>,
}

/// Who changes a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// A principal: the API's caller, the plan's author, the file's name.
    pub name: String,
    /// The TSIG key of an update.
    pub key: Option<Name>,
    /// The way it comes in.
    pub kind: ActorKind,
}

/// The way a change comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorKind {
    /// A zone file that was edited. Who may write it decides who may change what; the other rules hold.
    File,
    /// A call of the control API.
    Api,
    /// An RFC 2136 update.
    Update,
    /// A plan that is applied.
    Plan,
    /// A runtime that registers itself.
    Lease,
    /// A lease that ended: the server takes its records out. Nobody has to stand behind that, because who registered them was asked then.
    Expiry,
}

impl ActorKind {
    /// The words of policies. The end of a lease is as good as the lease.
    const ALL: [(&str, ActorKind); 5] = [
        ("file", ActorKind::File),
        ("api", ActorKind::Api),
        ("update", ActorKind::Update),
        ("plan", ActorKind::Plan),
        ("lease", ActorKind::Lease),
    ];

    /// The word for it in policies and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let known = if self == ActorKind::Expiry { ActorKind::Lease } else { self };
        Self::ALL.iter().find(|(_, kind)| *kind == known).map_or("", |(word, _)| word)
    }
}

/// What tells one policy file from another: a tag over its octets, for conditions of requests (RFC 9110, 8.8.3).
#[must_use]
pub fn tag(file: &[u8]) -> String {
    base16::encode_string(&Sha256::digest(file)[..16]).to_ascii_lowercase()
}

impl Freeze {
    /// Whether changes of that kind go on.
    #[must_use]
    pub fn spares(&self, kind: ActorKind) -> bool {
        self.except.iter().any(|spared| spared.as_str() == kind.as_str())
    }
}

impl Policy {
    /// A TTL moved into the bounds, when the policy says so.
    #[must_use]
    pub fn clamp_ttl(&self, rtype: Rtype, ttl: u32) -> u32 {
        if !self.ttl.clamp || rtype == Rtype::SOA {
            return ttl;
        }
        ttl.min(self.ttl.max.unwrap_or(u32::MAX)).max(self.ttl.min.unwrap_or(0))
    }
}

impl NameRule {
    /// Whether a record at `name` of `rtype` is meant.
    #[must_use]
    pub fn covers(&self, name: &Name, rtype: Rtype) -> bool {
        self.name == *name && self.rtype.is_none_or(|wanted| wanted == rtype)
    }
}

/// `www.example.com. A`, or the name alone.
impl std::fmt::Display for NameRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.rtype {
            Some(rtype) => write!(f, "{} {rtype}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

#[cfg(test)]
mod tests;
