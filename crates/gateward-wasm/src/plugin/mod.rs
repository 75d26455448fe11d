//! Filters as plugins of the gateway: found in a folder, made from the configuration, run in the phases of an exchange.

mod bodies;
mod carry;
mod known;
mod meta;
mod pause;
mod properties;
mod run;
#[cfg(test)]
mod testing;
mod under_way;
mod view;
mod worker;

pub use carry::{Carried, Carrier, Destination, NoCarrier};

use crate::callout::Upstreams;
use crate::callout_stats::CalloutStats;
use crate::config::FilterConfig;
use crate::filter::{Filter, identity};
use crate::module::Hash;
use crate::runtime::{Module, Runtime};
use gateward_model::{PluginConfig, Snapshot};
use gateward_plugin::{BuildError, Plugin, PluginEnv, PluginHost, RuntimeStatus, WorkerState};
use known::{Known, Names};
use meta::Meta;
use run::FilterPlugin;
use rustc_hash::FxHashMap;
use serde_json::Value;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use worker::{Settings, Shared};

/// Files looked at in the folder; more are left out, with a warning.
const FILES: usize = 256;

/// Makes plugins from the filters of one folder.
pub struct WasmHost {
    runtime: Arc<Runtime>,
    folder: PathBuf,
    carrier: Arc<dyn Carrier>,
    workers: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By name of the filter.
    files: BTreeMap<String, Entry>,
    /// Filters in use by what they were made from, so that one that did not change goes on in the next snapshot.
    shared: FxHashMap<u64, Weak<Shared>>,
    /// What filters of a name counted of their callouts, those that are gone too.
    callouts: BTreeMap<String, Arc<CalloutStats>>,
}

/// A filter's files.
struct Entry {
    stamps: [Option<Stamp>; 2],
    /// Over the contents of both.
    digest: u64,
    found: Result<(Module, Meta), String>,
}

/// What a configured filter is made from.
struct Recipe {
    module: Module,
    config: FilterConfig,
    hosts: Vec<String>,
    settings: Settings,
}

/// How a file looks from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    bytes: u64,
    inode: u64,
}

/// What an operator sees of a filter.
#[derive(Debug, Clone, serde::Serialize)]
pub struct FilterStatus {
    /// Its name.
    pub name: String,
    /// SHA-256 of the module that is loaded from its file; `None`: the file is refused.
    pub hash: Option<String>,
    /// The version that its author gave it.
    pub version: Option<String>,
    /// Languages, compilers and SDKs that made it, each with its version.
    pub built_with: Vec<String>,
    /// Version of the ABI.
    pub abi: Option<&'static str>,
    /// Why the file is refused.
    pub error: Option<String>,
    /// Configured filters in use, with those whose last requests are under way.
    pub configured: Vec<ConfiguredStatus>,
}

/// What an operator sees of a configured filter.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ConfiguredStatus {
    /// SHA-256 of its module.
    pub hash: String,
    /// Live instances, one per worker that used it.
    pub instances: u64,
    /// Instances ever made.
    pub instances_made: u64,
    /// Bytes of memory of the live instances.
    pub memory_bytes: u64,
    /// Streams under way.
    pub streams: u64,
    /// Calls by callback, of those that were called.
    pub calls: BTreeMap<&'static str, u64>,
    /// Failures by kind.
    pub failures: BTreeMap<&'static str, u64>,
    /// State on each worker that used it.
    pub workers: Vec<WorkerState>,
}

impl WasmHost {
    /// A host of the filters in `folder`, whose callouts go through `carrier`.
    pub fn new(runtime: Arc<Runtime>, folder: PathBuf, carrier: Arc<dyn Carrier>) -> Self {
        Self { runtime, folder, carrier, workers: 0, state: Mutex::default() }
    }

    /// Start instances for this many workers with each filter. Without, each is started when it is first needed, on the thread
    /// that needs it.
    #[must_use]
    pub fn for_workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// What all filters share.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Every filter of the folder, and what is in use of it.
    pub fn status(&self) -> Vec<FilterStatus> {
        let state = self.state();
        let shared: Vec<_> = state.shared.values().filter_map(Weak::upgrade).collect();
        let status = |(name, entry): (&String, &Entry)| {
            let configured = shared.iter().filter(|shared| shared.filter.config().name == *name);
            let found = entry.found.as_ref().ok();
            let module = found.map(|(module, _)| module);
            FilterStatus {
                name: name.clone(),
                hash: module.map(|module| module.hash().to_string()),
                version: found.and_then(|(module, meta)| version(module, meta)),
                built_with: module.map(|module| module.built_with().to_vec()).unwrap_or_default(),
                abi: module.map(|module| module.abi().as_str()),
                error: entry.found.as_ref().err().cloned(),
                configured: configured.map(|shared| shared.status()).collect(),
            }
        };
        state.files.iter().map(status).collect()
    }

    /// Filters in use, for metrics.
    pub fn filters(&self) -> Vec<Arc<Filter>> {
        self.state().shared.values().filter_map(Weak::upgrade).map(|shared| shared.filter.clone()).collect()
    }

    /// What was counted of callouts, by filter name.
    pub fn callouts(&self) -> BTreeMap<String, Arc<CalloutStats>> {
        self.state().callouts.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names and paths of the modules in the folder.
    fn modules(&self) -> io::Result<BTreeMap<String, PathBuf>> {
        let mut modules = BTreeMap::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str());
            if let (Some(name), true) = (name, path.extension().is_some_and(|end| end == "wasm")) {
                modules.insert(name.to_owned(), path);
            }
        }
        Ok(modules)
    }

    /// How the files of a filter looked when they were read.
    fn stamps(&self, name: &str) -> Option<[Option<Stamp>; 2]> {
        self.state().files.get(name).map(|entry| entry.stamps)
    }

    fn read(&self, path: &Path) -> Entry {
        let meta_path = path.with_extension("meta.json");
        let stamps = Stamp::of_both(path);
        let mut hasher = DefaultHasher::new();
        let found = (|| {
            let wasm = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Hash::of(&wasm).hash(&mut hasher);
            let meta = match std::fs::read(&meta_path) {
                Ok(text) => {
                    text.hash(&mut hasher);
                    Meta::parse(&text).map_err(|error| format!("{}: {error}", meta_path.display()))?
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Meta::default(),
                Err(error) => return Err(format!("{}: {error}", meta_path.display())),
            };
            let module = self.runtime.load(&wasm).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok((module, meta))
        })();
        Entry { stamps, digest: hasher.finish(), found }
    }

    /// The filter in use that was made from the same, or a new one. Making one takes as long as its instances take to start, so
    /// it is done while nothing is locked.
    fn shared(&self, entity: &PluginConfig, snapshot: &Snapshot, env: &PluginEnv) -> Result<Arc<Shared>, String> {
        let recipe = self.recipe(entity)?;
        let key = recipe.key();
        let in_use = self.state().in_use(key);
        if let Some(shared) = in_use {
            shared.known.follow(Names::of(&snapshot.config));
            return Ok(shared);
        }
        let made = self.make(recipe, Names::of(&snapshot.config), env)?;
        let mut state = self.state();
        // Somebody may have made the same meanwhile.
        if let Some(shared) = state.in_use(key) {
            drop(state);
            shared.known.follow(Names::of(&snapshot.config));
            return Ok(shared);
        }
        state.shared.retain(|_, shared| shared.strong_count() > 0);
        state.shared.insert(key, Arc::downgrade(&made));
        Ok(made)
    }

    /// What `entity` is to be made from.
    fn recipe(&self, entity: &PluginConfig) -> Result<Recipe, String> {
        let state = self.state();
        let Some(entry) = state.files.get(&entity.name) else {
            return Err(format!("there is no Wasm filter '{}' in {}", entity.name, self.folder.display()));
        };
        let (module, meta) = entry.found.as_ref().map_err(Clone::clone)?;
        Ok(Recipe {
            config: meta.filter_config(&entity.name, configuration(&entity.config)),
            hosts: meta.hosts().to_vec(),
            settings: Settings { request_body: meta.shows_request_body(), version: version(module, meta) },
            module: module.clone(),
        })
    }

    fn make(&self, recipe: Recipe, names: Names, env: &PluginEnv) -> Result<Arc<Shared>, String> {
        let Recipe { module, config, hosts, settings } = recipe;
        let name = config.name.clone();
        let known = Arc::new(Known::new(names, &hosts));
        let upstreams: Arc<dyn Upstreams> = known.clone();
        let filter = Filter::new(&self.runtime, &module, config, upstreams).map_err(|error| error.to_string())?;
        let (carrier, background) = (self.carrier.clone(), env.background.clone());
        let callouts = self.state().callouts.entry(name).or_default().clone();
        let made = Shared::new(filter, known, carrier, background, callouts, settings);
        made.prepare(self.workers);
        Ok(made)
    }
}

impl State {
    /// The filter in use with this key.
    fn in_use(&self, key: u64) -> Option<Arc<Shared>> {
        self.shared.get(&key).and_then(Weak::upgrade)
    }
}

impl Recipe {
    /// Over everything in it.
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (identity(&self.module.hash(), &self.config), &self.hosts, &self.settings).hash(&mut hasher);
        hasher.finish()
    }
}

impl PluginHost for WasmHost {
    fn refresh(&self) -> u64 {
        let modules = self.modules().unwrap_or_else(|error| {
            tracing::warn!(folder = %self.folder.display(), %error, "the folder of Wasm filters cannot be read");
            BTreeMap::new()
        });
        if modules.len() > FILES {
            tracing::warn!(folder = %self.folder.display(), "more than {FILES} Wasm filters; the last ones are left out");
        }
        let modules: BTreeMap<_, _> = modules.into_iter().take(FILES).collect();
        let changed = |(name, path): &(&String, &PathBuf)| self.stamps(name) != Some(Stamp::of_both(path));
        // What is read is compiled, while nothing is locked.
        let read: Vec<_> = modules.iter().filter(changed).map(|(name, path)| (name.clone(), self.read(path))).collect();
        let mut state = self.state();
        state.files.retain(|name, _| modules.contains_key(name));
        state.files.extend(read);
        let mut hasher = DefaultHasher::new();
        for (name, entry) in &state.files {
            (name, entry.digest).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn has(&self, name: &str) -> bool {
        self.state().files.contains_key(name)
    }

    fn names(&self) -> Vec<String> {
        self.state().files.keys().cloned().collect()
    }

    /// Of several with the same name and configuration the newest is the one that is served: one that was refused is gone,
    /// older ones end with their last requests.
    fn status(&self, name: &str, config: &Value) -> Option<RuntimeStatus> {
        let configuration = configuration(config);
        let state = self.state();
        let made = state.shared.values().filter_map(Weak::upgrade).filter(|shared| {
            let config = shared.filter.config();
            config.name == name && config.configuration == configuration
        });
        let newest = made.max_by_key(|shared| shared.serial)?;
        Some(RuntimeStatus {
            kind: "proxy-wasm",
            version: newest.settings.version.clone(),
            hash: newest.filter.hash().to_string(),
            workers: newest.workers(),
        })
    }

    fn build(
        &self,
        entity: &PluginConfig,
        snapshot: &Snapshot,
        env: &PluginEnv,
    ) -> Result<Box<dyn Plugin>, BuildError> {
        let made = self.shared(entity, snapshot, env);
        let made = made.map_err(|reason| BuildError { plugin: entity.name.clone(), id: entity.id, reason })?;
        Ok(Box::new(FilterPlugin::new(made)))
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Some(Self { modified, bytes: metadata.len(), inode: metadata.ino() })
    }

    /// Of the module at this path, and of what stands beside it.
    fn of_both(path: &Path) -> [Option<Self>; 2] {
        [Self::of(path), Self::of(&path.with_extension("meta.json"))]
    }
}

/// What stands in the file beside the module, or else in the module.
fn version(module: &Module, meta: &Meta) -> Option<String> {
    meta.version().or_else(|| module.version()).map(str::to_owned)
}

/// What a filter reads as its configuration: text as it is, anything else as JSON.
fn configuration(config: &Value) -> Vec<u8> {
    match config {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_passed_as_it_is_and_everything_else_as_json() {
        for (config, expected) in
            [(json!("a: b"), "a: b"), (json!({"a": 1}), "{\"a\":1}"), (json!(null), ""), (json!([1]), "[1]")]
        {
            assert_eq!(configuration(&config), expected.as_bytes());
        }
    }
}
