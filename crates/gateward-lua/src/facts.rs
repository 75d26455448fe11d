//! What plugins get to know about the node they run on.

use ipnet::IpNet;
use serde_json::{Map, Value};

/// Facts about a node; the same as long as its process runs.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// Its UUID.
    pub node_id: String,
    /// The machine's name.
    pub hostname: String,
    /// Networks whose `X-Forwarded-*` are believed.
    pub trusted: Vec<IpNet>,
    /// `kong.configuration`, by Kong's names.
    pub configuration: Map<String, Value>,
}
