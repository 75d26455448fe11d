//! What plugins get to know about the node they run on.

use ipnet::IpNet;
use serde_json::{Map, Value};
use std::fmt::{Debug, Formatter};
use std::sync::Arc;

/// Facts about a node; the same as long as its process runs.
#[derive(Clone, Default)]
pub struct NodeFacts {
    /// Its UUID.
    pub node_id: String,
    /// The machine's name.
    pub hostname: String,
    /// Networks whose `X-Forwarded-*` are believed.
    pub trusted: Vec<IpNet>,
    /// `kong.configuration`, by Kong's names.
    pub configuration: Map<String, Value>,
    /// What `kong.nginx.get_statistics` gives: connections and requests by Kong's names, as they are then.
    pub statistics: Option<Statistics>,
}

/// Gives figures as they are when it is asked.
pub type Statistics = Arc<dyn Fn() -> Value + Send + Sync>;

impl Debug for NodeFacts {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("NodeFacts").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}
