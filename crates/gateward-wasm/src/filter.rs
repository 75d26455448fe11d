//! A configured filter: code and configuration that were seen to start, shared by all workers.

use crate::callout::Upstreams;
use crate::config::{FilterConfig, Setup};
use crate::failure::{Failure, FailureKind};
use crate::instance::Instance;
use crate::limits::{INSTANCES, MAX_MEMORY_BYTES, PAGE_BYTES};
use crate::module::{Code, Hash};
use crate::observe::{Observed, Totals};
use crate::runtime::{Module, Runtime};
use crate::shared::{Listener, Space};
use crate::types::{Abi, Phase};
use std::hash::{DefaultHasher, Hash as _, Hasher};
use std::sync::Arc;

/// A filter that can be instantiated. Dropping the last reference frees its code and what only it shared.
pub struct Filter {
    code: Arc<Code>,
    setup: Setup,
    space: Arc<Space>,
    observed: Arc<Observed>,
    /// Keeps the engine's ticker going.
    runtime: Arc<Runtime>,
}

/// Why a filter is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A limit makes no sense.
    #[error("filter '{filter}': {reason}")]
    Limit {
        /// Its name.
        filter: String,
        /// What is wrong.
        reason: String,
    },
    /// It does not start, or does not take its configuration.
    #[error("filter '{filter}' does not start: {failure}")]
    Start {
        /// Its name.
        filter: String,
        /// How it failed.
        failure: Failure,
    },
}

impl Filter {
    /// The filter of `module` and `config`, after an instance made for nothing else was seen to start with it.
    /// Takes as long as the filter takes to start; call it off the request path.
    ///
    /// # Errors
    /// It does not start, or a limit makes no sense.
    pub fn new(
        runtime: &Arc<Runtime>,
        module: &Module,
        config: FilterConfig,
        upstreams: Arc<dyn Upstreams>,
    ) -> Result<Arc<Self>, FilterError> {
        let memory = config.limits.memory_bytes;
        if !(PAGE_BYTES..=MAX_MEMORY_BYTES).contains(&memory) {
            let reason = format!("a memory limit of {memory} bytes; allowed are {PAGE_BYTES} to {MAX_MEMORY_BYTES}");
            return Err(FilterError::Limit { filter: config.name, reason });
        }
        let space = runtime.services().shared.space(&config.vm_id);
        let filter = Arc::new(Self {
            code: module.0.clone(),
            setup: Setup { config: Arc::new(config), services: runtime.services().clone(), upstreams },
            space,
            observed: Arc::default(),
            runtime: runtime.clone(),
        });
        match filter.prepare(Box::new(|| ())) {
            Ok(mut canary) => canary.shut_down(),
            Err(failure) => return Err(FilterError::Start { filter: filter.setup.config.name.clone(), failure }),
        }
        Ok(filter)
    }

    /// A new instance, started and configured. `wake` is called, from any thread, when a queue of the instance's has an
    /// item for [`Instance::queues_ready`].
    ///
    /// # Errors
    /// It failed to start, or there are too many instances.
    pub fn instantiate(self: &Arc<Self>, wake: Box<dyn Fn() + Send + Sync>) -> Result<Instance, Failure> {
        self.prepare(wake).inspect(Instance::listen)
    }

    /// Likewise one that is told of its queues only from [`Instance::listen`] on.
    pub(crate) fn prepare(self: &Arc<Self>, wake: Box<dyn Fn() + Send + Sync>) -> Result<Instance, Failure> {
        let made = Instance::start(
            &self.code,
            self.setup.clone(),
            self.space.clone(),
            Listener::new(wake),
            self.observed.clone(),
        );
        made.inspect_err(|failure| {
            if failure.kind != FailureKind::Start {
                self.observed.failure(Phase::Start, FailureKind::Start);
            }
        })
    }

    /// Whether there is room for more instances than are needed at once: half of what there can be is left to others.
    pub(crate) fn has_room(&self) -> bool {
        self.runtime.instances() < INSTANCES as usize / 2
    }

    /// Its configuration.
    pub fn config(&self) -> &FilterConfig {
        &self.setup.config
    }

    /// What identifies its code.
    pub fn hash(&self) -> Hash {
        self.code.hash
    }

    /// The version of the ABI it announces.
    pub fn abi(&self) -> Abi {
        self.code.abi
    }

    /// Whether the module has this export.
    pub fn exports(&self, name: &str) -> bool {
        self.code.pre.module().get_export(name).is_some()
    }

    /// A number over everything an instance is made from; equal ones can take each other's place.
    pub fn identity(&self) -> u64 {
        identity(&self.code.hash, &self.setup.config)
    }

    /// What its instances counted.
    pub fn totals(&self) -> Totals {
        self.observed.totals()
    }
}

/// [`Filter::identity`] of code and configuration that are not a filter yet.
pub fn identity(code: &Hash, config: &FilterConfig) -> u64 {
    let mut hasher = DefaultHasher::new();
    code.hash(&mut hasher);
    config.hash(&mut hasher);
    hasher.finish()
}
