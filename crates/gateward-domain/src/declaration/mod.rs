//! `domain.yaml`: one root, its environments, regions and services, who owns and who writes what.
//!
//! [`Declaration::read`] turns the text into resolved values: inherited settings are filled in, names are whole names, and
//! what contradicts itself was refused with its line. What follows from it for DNS is `desired`'s affair.

mod conflicts;
mod keys;
mod levels;
mod policy;
mod problem;
mod reader;
mod records;
mod servers;
mod settings;
mod writers;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use gateward_zone::policy::Policy;
use gateward_zone::{Name, Record, Rtype};

pub use keys::{Algorithm, Key, SecretSource};
pub(crate) use policy::{is_same as same_policy, text as policy_text};
pub use problem::Problem;
pub(crate) use records::text;
pub use settings::{Force, Freeze, Guardrails, Limits, Settings, Soa};

pub(crate) use writers::STRUCTURAL;

/// A declaration with everything inherited filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The name under which everything stands.
    pub root: Name,
    /// Groups of name servers; each is a failure domain of its own.
    pub groups: BTreeMap<String, Group>,
    /// TSIG keys by name.
    pub keys: BTreeMap<String, Key>,
    /// The zones: the root first, parents before their children.
    pub zones: Vec<Zone>,
}

/// Name servers that serve the same zones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `http://HOST:PORT` of the primary's control API.
    pub control: String,
    /// Where the token for the control API comes from, if it wants one.
    pub token: Option<SecretSource>,
    /// The key that signs transfers to the secondaries.
    pub transfer_key: Option<String>,
    /// The servers; the first is the primary, the others get their zones from it.
    pub servers: Vec<Server>,
}

/// A name server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name, as in NS records.
    pub name: Name,
    /// Its addresses, published where its name is ours.
    pub addresses: Vec<IpAddr>,
    /// Where to ask it instead of port 53 of its addresses.
    pub query: Option<SocketAddr>,
}

/// Where a zone stands in the hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The domain itself.
    Root,
    /// `prod`, `dev`.
    Environment,
    /// `us-east-1`.
    Region,
    /// A service with a zone of its own.
    Service,
}

impl Level {
    /// As in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Root => "root",
            Level::Environment => "environment",
            Level::Region => "region",
            Level::Service => "service",
        }
    }
}

/// A zone to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Its apex.
    pub origin: Name,
    /// Where it stands.
    pub level: Level,
    /// The environment it is in; none for the root.
    pub environment: Option<String>,
    /// The region it is in.
    pub region: Option<String>,
    /// The team that answers for it.
    pub owner: String,
    /// The group of name servers that serves it.
    pub group: String,
    /// Times, limits and guardrails.
    pub settings: Settings,
    /// Who may write what by itself.
    pub grants: Vec<Grant>,
    /// Subtrees that plans leave alone.
    pub unmanaged: Vec<Name>,
    /// The records that are declared here, those of the services included.
    pub records: Vec<Record>,
    /// The services whose names are in this zone.
    pub services: Vec<Service>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name; this and everything below it is its own.
    pub name: Name,
    /// The team that answers for it.
    pub owner: String,
    /// What runs it, and so who registers its addresses.
    pub runtime: Runtime,
    /// Where it was declared.
    pub line: u32,
}

/// What runs a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// external-dns registers it.
    Kubernetes,
    /// An agent on the machines registers it, with leases.
    Vm,
    /// An agent beside the tasks registers it, with leases.
    Ecs,
    /// Its records are in the declaration.
    Static,
}

impl Runtime {
    /// As in the declaration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Runtime::Kubernetes => "kubernetes",
            Runtime::Vm => "vm",
            Runtime::Ecs => "ecs",
            Runtime::Static => "static",
        }
    }
}

/// What a key may write with dynamic updates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The key's name.
    pub key: String,
    /// This name and everything below it.
    pub subtree: Name,
    /// Types of records.
    pub types: Vec<Rtype>,
}

impl Declaration {
    /// Reads a declaration.
    ///
    /// # Errors
    /// Every mistake of the file, in its order.
    pub fn read(text: &[u8]) -> Result<Self, Vec<Problem>> {
        let node = gateward_yaml::parse_yaml(text).map_err(|error| {
            let gateward_yaml::Position { line, column } = error.position;
            vec![Problem { line, column, path: String::new(), message: error.message }]
        })?;
        let mut report = reader::Report::default();
        let declaration = levels::read(&node, &mut report);
        if let Some(declaration) = &declaration {
            policies(declaration, &node, &mut report);
        }
        let problems = report.into_sorted();
        match declaration {
            Some(declaration) if problems.is_empty() => Ok(declaration),
            _ => Err(problems),
        }
    }

    /// The zone with this apex.
    #[must_use]
    pub fn zone(&self, origin: &Name) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.origin == *origin)
    }

    /// The zone that holds `name`: the one with the longest apex above it.
    #[must_use]
    pub fn zone_of(&self, name: &Name) -> Option<&Zone> {
        self.zones.iter().filter(|zone| name.is_in(&zone.origin)).max_by_key(|zone| zone.origin.label_count())
    }

    /// The zone above a zone; none for the root.
    #[must_use]
    pub fn parent_of(&self, zone: &Zone) -> Option<&Zone> {
        self.zone_of(&zone.origin.parent()?)
    }

    /// The zones directly below a zone.
    pub fn children_of<'a>(&'a self, zone: &'a Zone) -> impl Iterator<Item = &'a Zone> {
        self.zones.iter().filter(|child| self.parent_of(child).is_some_and(|parent| parent.origin == zone.origin))
    }

    /// The servers of a zone.
    #[must_use]
    pub fn servers_of(&self, zone: &Zone) -> &[Server] {
        self.groups.get(&zone.group).map_or(&[], |group| &group.servers)
    }
}

/// Policies follow from settings and writers; what only their reader knows to be wrong is reported too.
fn policies(declaration: &Declaration, node: &gateward_yaml::Node, report: &mut reader::Report) {
    for zone in &declaration.zones {
        let text = policy_text(declaration, zone);
        for problem in Policy::from_yaml(text.as_bytes(), &zone.origin, "").err().unwrap_or_default() {
            let message = format!("the policy of {} would be wrong: {}", zone.origin, problem.message);
            report.add(node.position, &gateward_yaml::Path::Text(""), message);
        }
    }
}

impl Zone {
    /// The team that answers for `name`: its service's, or the zone's.
    #[must_use]
    pub fn owner_of(&self, name: &Name) -> &str {
        self.service_of(name).map_or(&self.owner, |service| &service.owner)
    }

    /// The service that `name` belongs to.
    #[must_use]
    pub fn service_of(&self, name: &Name) -> Option<&Service> {
        self.services.iter().find(|service| name.is_in(&service.name))
    }
}
