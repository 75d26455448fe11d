//! Hosts of plugins in other languages: plugins that are known by name only while the process runs.

use crate::contract::{BuildError, Plugin};
use crate::env::PluginEnv;
use gateward_model::{PluginConfig, Snapshot};

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

    /// Make the plugin that `entity` names; `snapshot` is what it will serve.
    ///
    /// # Errors
    /// There is no such plugin, or it does not take its configuration.
    fn build(&self, entity: &PluginConfig, snapshot: &Snapshot, env: &PluginEnv)
    -> Result<Box<dyn Plugin>, BuildError>;
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
                "there is no Wasm filter '{}': switch filters on with --wasm on and name their folder with --wasm-filters-path",
                entity.name
            ),
        })
    }
}
