//! What plugins get from the node when they are made.

use crate::counter_store::{Redis, RedisStats};
use crate::counters::Counters;
use crate::exchange::Exchange;
use crate::record::RequestRecord;
use crate::stream::StreamRecord;
use gateward_model::{Directory, PluginConfig};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Services of the node that plugins use; one per process, shared by all generations.
#[derive(Clone)]
pub struct PluginEnv {
    /// Runtime for work off the request path (log delivery). Never a worker's runtime.
    pub background: tokio::runtime::Handle,
    /// Rate-limit counters of this node, shared by workers and kept across snapshots.
    pub counters: Arc<Counters>,
    /// How to send a log batch over HTTP.
    pub http: Arc<dyn HttpPost>,
    /// Counters shared with other nodes.
    pub redis: Arc<dyn Redis>,
    /// What plugins count over all instances and generations; for `/metrics`.
    pub stats: Arc<PluginStats>,
    /// Who evaluates Lua in settings, if anybody does.
    pub templates: Option<Arc<dyn Templates>>,
}

/// Evaluates Lua in the settings of native plugins: templates with expressions (`$(headers.a:upper())`), fields of log records.
pub trait Templates: Send + Sync {
    /// Make the templates of these texts.
    ///
    /// # Errors
    /// The first text that is none, and why.
    fn compile(&self, texts: &[String]) -> Result<Arc<dyn RequestTemplates>, (usize, String)>;

    /// Make fields of log records: their paths, names with dots between them, and the code that returns their values.
    ///
    /// # Errors
    /// The first code that is none, by its path, and why.
    fn record_fields(&self, fields: &[(String, String)]) -> Result<Arc<dyn RecordFields>, (String, String)>;
}

/// Fields that code adds to log records (Kong's `custom_fields_by_lua`).
pub trait RecordFields: Send + Sync {
    /// Add them to this record. One that fails is left out, which is logged.
    fn add(&self, record: &RequestRecord<'_>);

    /// Likewise of a stream.
    fn add_to_stream(&self, record: &StreamRecord<'_>);
}

/// Templates over a request.
pub trait RequestTemplates: Send + Sync {
    /// What each of them comes to for this request, in their order.
    ///
    /// # Errors
    /// One failed.
    fn render(&self, exchange: &mut Exchange) -> Result<Vec<String>, String>;
}

/// What plugins count since the process started. Counters only grow; read them with `Relaxed` loads.
#[derive(Debug, Default)]
pub struct PluginStats {
    /// Records that were not queued because a queue was full, or were pushed out of it by newer ones.
    pub log_entries_dropped: AtomicU64,
    /// Records that were queued but given up: retries ran out, a file could not be written, or the instance
    /// ended before they could be delivered.
    pub log_entries_failed: AtomicU64,
    /// Batches that were given up after `max_retry_time`.
    pub log_batches_failed: AtomicU64,
    /// Records that were delivered.
    pub log_entries_delivered: AtomicU64,
    /// Rate limits whose counters are in Redis.
    pub redis: RedisStats,
}

/// What one instance is made from.
pub struct BuildContext<'a> {
    /// The plugin entity; `entity.config` is validated with defaults filled.
    pub entity: &'a PluginConfig,
    /// Consumers and credentials of the same snapshot.
    pub directory: &'a Arc<Directory>,
    /// The node's services.
    pub env: &'a PluginEnv,
}

/// An HTTP request of a log plugin.
#[derive(Debug, Clone)]
pub struct PostRequest {
    /// `POST`, `PUT` or `PATCH`.
    pub method: String,
    /// Absolute URL.
    pub url: String,
    /// Fields besides Host and Content-Length.
    pub headers: Vec<(String, String)>,
    /// Content.
    pub body: Vec<u8>,
    /// Milliseconds for the whole exchange.
    pub timeout_ms: u64,
    /// Milliseconds an idle connection is kept.
    pub keepalive_ms: u64,
}

/// Sends requests for plugins off the request path. Implemented by the node.
pub trait HttpPost: Send + Sync + 'static {
    /// Send and return the status, or a text saying what failed.
    fn post(&self, request: PostRequest) -> Pin<Box<dyn Future<Output = Result<u16, String>> + Send + '_>>;
}
