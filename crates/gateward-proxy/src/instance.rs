//! A plugin made from its configuration, and the name of a chain of them.

use gateward_model::PluginConfig;
use gateward_plugin::{Needs, Plugin};
use std::sync::Arc;

/// Index into a plan's chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChainId(pub(crate) u32);

/// A plugin made from its configuration.
#[derive(Clone)]
pub(crate) struct Instance {
    pub(crate) plugin: Arc<dyn Plugin>,
    pub(crate) needs: Needs,
    pub(crate) entity: Arc<PluginConfig>,
}
