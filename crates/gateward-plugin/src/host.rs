//! Hosts of plugins in other languages: plugins that are known by name only while the process runs.

use crate::contract::{BuildError, Plugin};
use crate::env::{PluginEnv, Templates};
use crate::native;
use gateward_model::schema::Schema;
use gateward_model::{PluginConfig, Snapshot};
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// What an operator sees of a plugin that a host runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RuntimeStatus {
    /// What runs it: `proxy-wasm`.
    pub kind: &'static str,
    /// The version that its author gave it.
    pub version: Option<String>,
    /// SHA-256 of its code.
    pub hash: String,
    /// Its state on each worker that used it.
    pub workers: Vec<WorkerState>,
}

/// The state of a plugin on one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Not used yet, or being replaced because its memory has grown.
    Idle,
    /// In use.
    Running,
    /// It failed, which no request has found yet.
    Failed,
    /// It failed, and is started again after a pause.
    Waiting,
}

/// What a worker does for a host, on its thread and within its `LocalSet`. It must not block.
pub trait WorkerStart: Send + Sync {
    /// Before the first request with a new plan.
    fn start(&self);

    /// After the last request, when the worker ends: until what plugins hold back is delivered, or given up.
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()>>>;
}

/// Makes plugins that are not part of this program. Implemented by a plugin host, given to the node by the binary.
pub trait PluginHost: Send + Sync + 'static {
    /// Look again at what is there. The number changes with it, so that a node can tell whether a configuration it serves
    /// already would come to something else now. Called off the request path, before a configuration is loaded.
    fn refresh(&self) -> u64 {
        0
    }

    /// Whether there is a plugin of this name, be it a broken one.
    fn has(&self, name: &str) -> bool {
        let _ = name;
        false
    }

    /// Every name.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    /// Kong's PRIORITY of this plugin: higher runs first, among native plugins as well.
    fn priority(&self, name: &str) -> i32 {
        let _ = name;
        0
    }

    /// The schema of the plugin's `config`; `None`: any value, checked by [`PluginHost::build`].
    fn schema(&self, name: &str) -> Option<Arc<Schema>> {
        let _ = name;
        None
    }

    /// What whoever uses the plugin should know, as a warning.
    fn remark(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }

    /// The protocols of an entity that names none, where they are not those of HTTP.
    fn default_protocols(&self, name: &str) -> Option<Vec<String>> {
        let _ = name;
        None
    }

    /// Who evaluates the templates of native plugins where these are more than look-ups.
    fn templates(&self) -> Option<Arc<dyn Templates>> {
        None
    }

    /// Whether the entity may have the scope and protocols it has; the error is a text for the user.
    ///
    /// # Errors
    /// It may not.
    fn check_scope(&self, entity: &PluginConfig) -> Result<(), String> {
        native::settings::http_without_consumer(entity)
    }

    /// What runs now as the plugin `name` with this configuration; `None`: nothing of this host's.
    fn status(&self, name: &str, config: &Value) -> Option<RuntimeStatus> {
        let _ = (name, config);
        None
    }

    /// Make the plugin that `entity` names; `snapshot` is what it will serve.
    ///
    /// # Errors
    /// There is no such plugin, or it does not take its configuration.
    fn build(&self, entity: &PluginConfig, snapshot: &Snapshot, env: &PluginEnv)
    -> Result<Box<dyn Plugin>, BuildError>;

    /// What every worker does before it serves `snapshot`, whose plugins were made just now.
    fn worker_start(&self, snapshot: &Arc<Snapshot>, env: &PluginEnv) -> Vec<Box<dyn WorkerStart>> {
        let _ = (snapshot, env);
        Vec::new()
    }
}

/// Several hosts as one. Of plugins with the same name the one of the first host counts.
pub struct Hosts(Vec<Arc<dyn PluginHost>>);

impl Hosts {
    /// Of these, in this order.
    pub fn new(hosts: Vec<Arc<dyn PluginHost>>) -> Self {
        Self(hosts)
    }

    fn of(&self, name: &str) -> Option<&dyn PluginHost> {
        self.0.iter().find(|host| host.has(name)).map(|host| &**host)
    }
}

impl PluginHost for Hosts {
    fn refresh(&self) -> u64 {
        self.0.iter().fold(0, |mixed: u64, host| mixed.rotate_left(17) ^ host.refresh())
    }

    fn has(&self, name: &str) -> bool {
        self.of(name).is_some()
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().flat_map(|host| host.names()).collect()
    }

    fn priority(&self, name: &str) -> i32 {
        self.of(name).map_or(0, |host| host.priority(name))
    }

    fn schema(&self, name: &str) -> Option<Arc<Schema>> {
        self.of(name)?.schema(name)
    }

    fn remark(&self, name: &str) -> Option<String> {
        self.of(name)?.remark(name)
    }

    fn default_protocols(&self, name: &str) -> Option<Vec<String>> {
        self.of(name)?.default_protocols(name)
    }

    fn templates(&self) -> Option<Arc<dyn Templates>> {
        self.0.iter().find_map(|host| host.templates())
    }

    fn check_scope(&self, entity: &PluginConfig) -> Result<(), String> {
        self.of(&entity.name).map_or(Ok(()), |host| host.check_scope(entity))
    }

    fn status(&self, name: &str, config: &Value) -> Option<RuntimeStatus> {
        self.0.iter().find_map(|host| host.status(name, config))
    }

    fn build(
        &self,
        entity: &PluginConfig,
        snapshot: &Snapshot,
        env: &PluginEnv,
    ) -> Result<Box<dyn Plugin>, BuildError> {
        self.of(&entity.name).unwrap_or(&NoHost).build(entity, snapshot, env)
    }

    fn worker_start(&self, snapshot: &Arc<Snapshot>, env: &PluginEnv) -> Vec<Box<dyn WorkerStart>> {
        self.0.iter().flat_map(|host| host.worker_start(snapshot, env)).collect()
    }
}

/// No plugins in other languages.
#[derive(Debug, Default)]
pub struct NoHost;

impl PluginHost for NoHost {
    fn build(&self, entity: &PluginConfig, _: &Snapshot, _: &PluginEnv) -> Result<Box<dyn Plugin>, BuildError> {
        Err(BuildError {
            plugin: entity.name.clone(),
            id: entity.id,
            reason: format!(
                "there is no plugin '{}': Lua plugins are looked for in --plugins-dir, Wasm filters, with --wasm on, in --wasm-filters-path",
                entity.name
            ),
        })
    }
}
