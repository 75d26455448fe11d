//! The process's Wasm runtime: one engine, one linker, one ticker, and the code that was loaded.

use crate::abi;
use crate::about::About;
use crate::bridge::{self, Bridge};
use crate::cache::{Cache, CacheError};
use crate::config::Services;
use crate::engine::engine;
use crate::module::{self, Code, Hash, MODULE_BYTES, ModuleError};
use crate::types::Abi;
use crate::watch::Ticker;
use rustc_hash::FxHashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use wasmtime::Engine;

/// Everything filters of one process share. Make one when the first filter is configured: it starts a thread.
pub struct Runtime {
    engine: Engine,
    bridge: Arc<Bridge>,
    cache: Option<Cache>,
    services: Arc<Services>,
    codes: Mutex<FxHashMap<Hash, Weak<Code>>>,
    living: Arc<AtomicUsize>,
    pooled: bool,
    _ticker: Ticker,
}

/// Why there is no runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The machine cannot run compiled code.
    #[error("the Wasm engine does not start: {0}")]
    Engine(String),
    /// The cache folder cannot be used.
    #[error("the cache of compiled modules: {0}")]
    Cache(#[from] CacheError),
    /// The thread that stops runaway filters did not start.
    #[error("cannot start the thread that stops filters which run too long: {0}")]
    Ticker(std::io::Error),
}

/// A filter's code, compiled and checked.
#[derive(Debug, Clone)]
pub struct Module(pub(crate) Arc<Code>);

impl Module {
    /// What identifies the code.
    pub fn hash(&self) -> Hash {
        self.0.hash
    }

    /// The version of the ABI it announces.
    pub fn abi(&self) -> Abi {
        self.0.abi
    }

    /// The version it says it has, in a custom section.
    pub fn version(&self) -> Option<&str> {
        self.0.about.version.as_deref()
    }

    /// Languages, compilers and SDKs that made it, as it says, each with its version.
    pub fn built_with(&self) -> &[String] {
        &self.0.about.built_with
    }

    /// Size of the Wasm file in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }
}

impl Runtime {
    /// A runtime that keeps compiled modules in `cache`.
    ///
    /// # Errors
    /// The engine does not start, or the folder cannot be used.
    pub fn new(services: Services, cache: Option<&Path>) -> Result<Arc<Self>, RuntimeError> {
        let failed = |error: wasmtime::Error| RuntimeError::Engine(format!("{error:#}"));
        let (engine, pooled) = engine().map_err(failed)?;
        let linker = abi::linker(&engine).map_err(failed)?;
        let cache = cache.map(|folder| Cache::open(folder, &engine)).transpose()?;
        let module = compiled(&engine, cache.as_ref(), bridge::MODULE, &Hash::of(bridge::MODULE)).map_err(failed)?;
        let bridge = Arc::new(Bridge::new(&engine, linker, &module).map_err(failed)?);
        let ticker = Ticker::start(&engine).map_err(RuntimeError::Ticker)?;
        Ok(Arc::new(Self {
            bridge,
            cache,
            services: Arc::new(services),
            codes: Mutex::default(),
            living: Arc::default(),
            pooled,
            _ticker: ticker,
            engine,
        }))
    }

    /// The module in `wasm`: compiled, or taken from memory or the cache folder if it was before. Compiling takes a
    /// millisecond per kilobyte; call it off the request path.
    ///
    /// # Errors
    /// It is no filter that can run here.
    pub fn load(&self, wasm: &[u8]) -> Result<Module, ModuleError> {
        if wasm.len() > MODULE_BYTES {
            return Err(ModuleError::TooLarge { most: MODULE_BYTES });
        }
        let hash = Hash::of(wasm);
        if let Some(code) = self.codes().get(&hash).and_then(Weak::upgrade) {
            return Ok(Module(code));
        }
        let compiled = compiled(&self.engine, self.cache.as_ref(), wasm, &hash);
        let compiled = compiled.map_err(|error| ModuleError::Invalid(format!("{error:#}")))?;
        let abi = module::check(&compiled)?;
        let linked = self.bridge.linker().instantiate_pre(&compiled);
        let pre = linked.map_err(|error| ModuleError::Import(format!("{error:#}")))?;
        let code = Arc::new(Code {
            hash,
            abi,
            about: About::of(wasm),
            bytes: wasm.len(),
            pre,
            bridge: self.bridge.clone(),
            living: self.living.clone(),
        });
        let mut codes = self.codes();
        codes.retain(|_, code| code.strong_count() > 0);
        codes.insert(hash, Arc::downgrade(&code));
        Ok(Module(code))
    }

    fn codes(&self) -> std::sync::MutexGuard<'_, FxHashMap<Hash, Weak<Code>>> {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many modules are in use.
    pub fn modules(&self) -> usize {
        self.codes().values().filter(|code| code.strong_count() > 0).count()
    }

    /// How many instances there are.
    pub fn instances(&self) -> usize {
        self.living.load(Ordering::Relaxed)
    }

    /// What all filters share.
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Whether instances come from a pool.
    pub fn is_pooled(&self) -> bool {
        self.pooled
    }
}

/// The module in `wasm`, from the cache if it is there.
fn compiled(engine: &Engine, cache: Option<&Cache>, wasm: &[u8], hash: &Hash) -> wasmtime::Result<wasmtime::Module> {
    if let Some(module) = cache.and_then(|cache| cache.load(engine, hash)) {
        return Ok(module);
    }
    let module = wasmtime::Module::from_binary(engine, wasm)?;
    if let Some(cache) = cache {
        cache.store(hash, &module);
    }
    Ok(module)
}
