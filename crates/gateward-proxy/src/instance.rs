//! A plugin made from its configuration, calls into it, and the name of a chain of plugins.

use gateward_model::PluginConfig;
use gateward_plugin::{Needs, Plugin, Soon};
use gateward_telemetry::{Counter, WorkerMetrics};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

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

/// A plugin panicked.
pub(crate) struct Panicked;

/// Call into a plugin. What it half did to the exchange when it panicked is harmless: the request ends, and the
/// exchange is reset before the next.
pub(crate) fn fenced<'i, T>(
    metrics: &WorkerMetrics,
    instance: &'i Instance,
    call: impl FnOnce(&'i dyn Plugin) -> T,
) -> Result<T, Panicked> {
    fence(metrics, || call(&*instance.plugin)).inspect_err(|_| {
        tracing::error!(plugin = instance.entity.name, id = %instance.entity.id, "plugin panicked; the request got a 500, or the stream was closed");
    })
}

/// Likewise into something that a plugin left for later. Who calls says in the log whose it was.
pub(crate) fn fence<T>(metrics: &WorkerMetrics, call: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
        metrics.count(Counter::PluginPanics);
        Panicked
    })
}

/// What a plugin says, waiting for it when it asks to.
pub(crate) async fn heard<'i, T>(
    metrics: &WorkerMetrics,
    instance: &'i Instance,
    call: impl FnOnce(&'i dyn Plugin) -> Soon<'i, T>,
) -> Result<T, Panicked> {
    let mut waiting = match fenced(metrics, instance, call)? {
        Soon::Now(said) => return Ok(said),
        Soon::Later(waiting) => waiting,
    };
    poll_fn(|context| match fenced(metrics, instance, |_| waiting.as_mut().poll(context)) {
        Ok(poll) => poll.map(Ok),
        Err(panicked) => Poll::Ready(Err(panicked)),
    })
    .await
}
