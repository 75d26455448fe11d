//! What a filter is configured with, and what the process gives to all of them.

use crate::callout::Upstreams;
use crate::failure::FailurePolicy;
use crate::limits::Limits;
use crate::logging::LogSink;
use crate::metrics::Metrics;
use crate::shared::Shared;
use crate::types::Status;
use std::sync::Arc;

/// One configured filter.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FilterConfig {
    /// Name of the filter, for logs and metrics, and its `plugin_name`.
    pub name: String,
    /// Chooses among several filters in one module (`plugin_root_id`).
    pub root_id: String,
    /// Filters with the same one share data and queues.
    pub vm_id: String,
    /// What `proxy_on_vm_start` can read.
    pub vm_configuration: Vec<u8>,
    /// What `proxy_on_configure` can read.
    pub configuration: Vec<u8>,
    /// Environment variables; those of the process are never shown.
    pub environment: Vec<(String, String)>,
    /// What it may use.
    pub limits: Limits,
    /// What becomes of requests when it fails.
    pub failure: FailurePolicy,
}

impl FilterConfig {
    /// A filter of this name without configuration, with default limits.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            root_id: name.clone(),
            vm_id: name.clone(),
            name,
            vm_configuration: Vec::new(),
            configuration: Vec::new(),
            environment: Vec::new(),
            limits: Limits::default(),
            failure: FailurePolicy::default(),
        }
    }
}

impl std::fmt::Debug for FilterConfig {
    /// Without configuration and environment, which may hold secrets.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = out.debug_struct("FilterConfig");
        out.field("name", &self.name).field("root_id", &self.root_id).field("vm_id", &self.vm_id);
        out.field("limits", &self.limits).field("failure", &self.failure).finish_non_exhaustive()
    }
}

/// A function of the host that filters call by name (`proxy_call_foreign_function`).
pub type Foreign = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, Status> + Send + Sync>;

/// What filters share and reach outside of their streams.
pub struct Services {
    /// Data and queues.
    pub shared: Shared,
    /// Metrics.
    pub metrics: Metrics,
    /// Where log lines go.
    pub log: Arc<dyn LogSink>,
    /// Functions by name.
    pub foreign: Vec<(String, Foreign)>,
}

impl Services {
    /// Services of a process, with this log.
    pub fn new(log: Arc<dyn LogSink>) -> Self {
        Self { shared: Shared::default(), metrics: Metrics::default(), log, foreign: Vec::new() }
    }
}

/// What an instance is made from, besides its module.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) config: Arc<FilterConfig>,
    pub(crate) services: Arc<Services>,
    pub(crate) upstreams: Arc<dyn Upstreams>,
}
