//! The Lua plugins of a node: their files, what they are, and the instances made of them.

use crate::code::{Code, Served, Stamp, stamps};
use crate::facts::NodeFacts;
use crate::functions::{self, Untrusted};
use crate::instance::{Configured, Counts, Info, Instance, PluginTotals};
use crate::plugin::LuaPlugin;
use crate::schema::{self, PluginSchema};
use crate::socket::Network;
use crate::state::Phase;
use crate::templates::LuaTemplates;
use crate::vm::{self, Vm};
use gateward_model::schema::Schema;
use gateward_model::{PluginConfig, Snapshot};
use gateward_net::dns::Names;
use gateward_net::tls::Context;
use gateward_plugin::native::settings::{http, http_and_streams};
use gateward_plugin::{BuildError, Plugin, PluginEnv, PluginHost, RuntimeStatus, Templates, WorkerStart, WorkerState};
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Where plugins come from.
#[derive(Debug, Clone, Default)]
pub struct LuaOptions {
    /// Folders with plugins, the first before the later ones.
    pub folders: Vec<PathBuf>,
    /// Names of the plugins that may be used; `None`: all that are found.
    pub enabled: Option<Vec<String>>,
    /// What code in a configuration may do.
    pub untrusted: Untrusted,
    /// What plugins get to know about the node.
    pub facts: Arc<NodeFacts>,
}

/// Runs the Lua plugins of the configured folders.
pub struct LuaHost {
    options: LuaOptions,
    network: Option<Network>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    stamps: Vec<Stamp>,
    code: Option<Arc<Code>>,
    /// Every plugin that may be used, be it a broken one.
    plugins: BTreeMap<String, Result<Info, String>>,
    /// Of those, what their `schema.lua` says; `None`: there is none.
    schemas: BTreeMap<String, Result<Option<Arc<PluginSchema>>, String>>,
    instances: HashMap<u64, Weak<Instance>>,
    /// By plugin, since the start.
    counts: BTreeMap<String, Arc<Counts>>,
}

/// What became of the plugins' handlers and schemas.
type Inspected = (BTreeMap<String, Result<Info, String>>, BTreeMap<String, Result<Option<Arc<PluginSchema>>, String>>);

impl LuaHost {
    /// A host of the plugins in these folders.
    pub fn new(options: LuaOptions) -> Self {
        let host = Self { options, network: None, state: Arc::default() };
        host.refresh();
        host
    }

    /// Let plugins open connections: names are looked up by `names`, TLS is set up by `tls`.
    #[must_use]
    pub fn on_network(mut self, names: Arc<Names>, tls: Arc<Context>) -> Self {
        self.network = Some(Network { names, tls });
        self
    }

    /// What the plugin's schema says, if it has one that is right.
    fn plugin_schema(&self, name: &str) -> Option<Arc<PluginSchema>> {
        self.state().schemas.get(name)?.as_ref().ok()?.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Read the files again if any of them changed.
    fn look(&self, state: &mut State) -> Result<(), String> {
        let found = stamps(&self.options.folders)?;
        if state.code.is_some() && state.stamps == found {
            return Ok(());
        }
        let mut code = Code::read(&self.options.folders, &found)?;
        code.untrusted = self.options.untrusted.clone();
        code.facts = self.options.facts.clone();
        state.stamps = found;
        if state.code.as_ref().is_some_and(|known| known.id == code.id) {
            return Ok(());
        }
        let code = Arc::new(code);
        (state.plugins, state.schemas) = self.inspect(&code)?;
        state.code = Some(code);
        Ok(())
    }

    /// Whether the plugin may be used. Those the gateway brings may, unless none may.
    fn allows(&self, name: &str) -> bool {
        match &self.options.enabled {
            None => true,
            Some(names) if functions::NAMES.contains(&name) => !names.is_empty(),
            Some(names) => names.iter().any(|allowed| allowed == name),
        }
    }

    /// Load every plugin in a machine made for nothing else.
    fn inspect(&self, code: &Arc<Code>) -> Result<Inspected, String> {
        let vm = Vm::new(code)?;
        let mut inspected = Inspected::default();
        for name in code.plugins.iter().map(String::as_str).chain(functions::NAMES.iter().copied()) {
            if !self.allows(name) {
                continue;
            }
            let schema = vm
                .describe(code, name)
                .and_then(|described| described.map(|described| schema::of(code, name, &described)).transpose());
            inspected.0.insert(name.to_owned(), vm.inspect(name));
            inspected.1.insert(name.to_owned(), schema.map(|schema| schema.map(Arc::new)));
        }
        Ok(inspected)
    }

    pub(crate) fn instance(&self, entity: &PluginConfig) -> Result<Arc<Instance>, String> {
        let mut state = self.state();
        let State { code, plugins, schemas, instances, counts, .. } = &mut *state;
        let (Some(code), Some(found)) = (code, plugins.get(&entity.name)) else {
            return Err(format!("there is no Lua plugin '{}'", entity.name));
        };
        let info = found.clone()?;
        if let Some(Err(error)) = schemas.get(&entity.name) {
            return Err(error.clone());
        }
        let mut hasher = DefaultHasher::new();
        (code.id, entity.id, &entity.name, entity.config.to_string()).hash(&mut hasher);
        (entity.route, entity.service, entity.consumer, &entity.instance_name).hash(&mut hasher);
        let key = hasher.finish();
        if let Some(known) = instances.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let made = Arc::new(Instance {
            code: code.clone(),
            number: code.number(),
            entity: Arc::new(entity.clone()),
            info: info.narrowed(&entity.name, &entity.config),
            counts: counts.entry(entity.name.clone()).or_default().clone(),
        });
        instances.retain(|_, known| known.strong_count() > 0);
        instances.insert(key, Arc::downgrade(&made));
        Ok(made)
    }
}

/// How workers begin and end with one snapshot.
struct Start {
    code: Arc<Code>,
    configured: Vec<Configured>,
    snapshot: Arc<Snapshot>,
    served: Arc<Served>,
    network: Option<Network>,
}

impl WorkerStart for Start {
    fn start(&self) {
        vm::adopt(&self.code, &self.configured, (&self.snapshot, &self.served), self.network.as_ref());
    }

    fn stop(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(vm::stop_all())
    }
}

impl LuaHost {
    /// What was counted of every plugin that was ever configured.
    pub fn totals(&self) -> Vec<PluginTotals> {
        self.state().counts.iter().map(|(name, counts)| PluginTotals::of(name, counts)).collect()
    }

    /// Bytes that the machines of the sources in use take, one figure per worker.
    pub fn memory_bytes(&self) -> Vec<usize> {
        self.state().code.as_ref().map(|code| code.machines.memory_bytes()).unwrap_or_default()
    }

    /// The plugins that `snapshot` configures, in order of execution, with their instances.
    fn configured(&self, snapshot: &Snapshot) -> Vec<Configured> {
        let mut plugins: Vec<Configured> = Vec::new();
        for entity in snapshot.config.plugins.iter().filter(|entity| entity.enabled && self.has(&entity.name)) {
            let Ok(instance) = self.instance(entity) else { continue };
            match plugins.iter_mut().find(|plugin| plugin.name == entity.name) {
                Some(plugin) => plugin.instances.push(instance),
                None => plugins.push(Configured { name: entity.name.clone(), instances: vec![instance] }),
            }
        }
        plugins.sort_by_cached_key(|plugin| Reverse((plugin.instances[0].info.priority, plugin.name.clone())));
        plugins
    }
}

impl PluginHost for LuaHost {
    fn refresh(&self) -> u64 {
        let mut state = self.state();
        if let Err(error) = self.look(&mut state) {
            tracing::error!("{error}");
        }
        state.code.as_ref().map_or(0, |code| code.id)
    }

    fn has(&self, name: &str) -> bool {
        self.state().plugins.contains_key(name)
    }

    fn names(&self) -> Vec<String> {
        self.state().plugins.keys().cloned().collect()
    }

    fn priority(&self, name: &str) -> i32 {
        match self.state().plugins.get(name) {
            Some(Ok(info)) => info.priority,
            _ => 0,
        }
    }

    fn schema(&self, name: &str) -> Option<Arc<Schema>> {
        Some(self.plugin_schema(name)?.config.clone())
    }

    fn remark(&self, name: &str) -> Option<String> {
        let bare = matches!(self.state().schemas.get(name), Some(Ok(None)));
        bare.then(|| {
            format!(
                "plugin '{name}' has no schema.lua: its config is neither checked nor completed, and Kong refuses it"
            )
        })
    }

    fn default_protocols(&self, name: &str) -> Option<Vec<String>> {
        self.plugin_schema(name)?.default_protocols()
    }

    fn templates(&self) -> Option<Arc<dyn Templates>> {
        let state = self.state.clone();
        // Those of the sources that count then.
        let code = move || state.lock().unwrap_or_else(PoisonError::into_inner).code.clone();
        Some(Arc::new(LuaTemplates(code)))
    }

    fn check_scope(&self, entity: &PluginConfig) -> Result<(), String> {
        let of_streams = |info: &Info| info.has(Phase::Preread) || info.has(Phase::Log);
        match self.state().plugins.get(&entity.name) {
            Some(Ok(info)) if of_streams(info) => http_and_streams(entity)?,
            _ => http(entity)?,
        }
        self.plugin_schema(&entity.name).map_or(Ok(()), |schema| schema.check_scope(entity))
    }

    fn status(&self, name: &str, _: &Value) -> Option<RuntimeStatus> {
        let state = self.state();
        let (code, info) = (state.code.as_ref()?, state.plugins.get(name)?.as_ref().ok()?);
        let machines = code.machines.memory_bytes().len();
        Some(RuntimeStatus {
            kind: "lua",
            version: info.version.clone(),
            hash: code.hash(name),
            workers: vec![WorkerState::Running; machines],
        })
    }

    fn build(&self, entity: &PluginConfig, _: &Snapshot, _: &PluginEnv) -> Result<Box<dyn Plugin>, BuildError> {
        let instance = self.instance(entity);
        let instance = instance.map_err(|reason| BuildError { plugin: entity.name.clone(), id: entity.id, reason })?;
        Ok(Box::new(LuaPlugin::new(instance)))
    }

    fn worker_start(&self, snapshot: &Arc<Snapshot>, _: &PluginEnv) -> Vec<Box<dyn WorkerStart>> {
        let Some(code) = self.state().code.clone() else { return Vec::new() };
        let configured = self.configured(snapshot);
        // Nobody looks anything up who is not configured.
        let served = if configured.is_empty() { Served::default() } else { Served::new(&snapshot.config) };
        let (network, snapshot) = (self.network.clone(), snapshot.clone());
        vec![Box::new(Start { code, configured, snapshot, served: Arc::new(served), network })]
    }
}

#[cfg(test)]
mod tests;
