//! A whole configuration as one immutable value.

use crate::entity::*;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every entity, in file order (order breaks ties between routes of equal priority).
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[expect(missing_docs, reason = "one list per entity of the format")]
pub struct Config {
    pub services: Vec<Arc<Service>>,
    pub routes: Vec<Arc<Route>>,
    pub upstreams: Vec<Arc<Upstream>>,
    pub targets: Vec<Arc<Target>>,
    pub consumers: Vec<Arc<Consumer>>,
    pub keyauth_credentials: Vec<Arc<KeyAuthCredential>>,
    pub basicauth_credentials: Vec<Arc<BasicAuthCredential>>,
    pub acls: Vec<Arc<AclGroup>>,
    pub plugins: Vec<Arc<PluginConfig>>,
    pub certificates: Vec<Arc<Certificate>>,
    pub snis: Vec<Arc<Sni>>,
    pub ca_certificates: Vec<Arc<CaCertificate>>,
    pub vaults: Vec<Arc<Vault>>,
    /// Entities carried but not served by this build, by entity name.
    pub others: BTreeMap<String, Vec<Arc<GenericEntity>>>,
}

/// One generation of configuration. Generations only go up on a node.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// 0 is the empty configuration a node starts with.
    pub generation: u64,
    /// MD5 of the text in hex, as Kong reports it; 32 zeros for the empty configuration.
    pub hash: String,
    /// The entities.
    pub config: Config,
}

impl Snapshot {
    /// The configuration before any was loaded.
    pub fn empty() -> Self {
        Self { generation: 0, hash: "0".repeat(32), config: Config::default() }
    }
}
