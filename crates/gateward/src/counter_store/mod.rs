//! Counters in Redis, as the plugins ask for them: one connection per server and settings, on the control runtime.
//!
//! A [`Store`] keeps its connection open and makes it anew with growing pauses; questions of all workers are
//! pipelined on it. Stores are shared by everybody who names the same settings and end with the last of them, so a
//! reload neither closes nor opens a connection. The protocol is the crate `redis`'; the stream, with TLS or without, is
//! gateward-net's.

mod commands;
mod link;
mod store;

use gateward_net::tls;
use gateward_plugin::{CounterStore, PluginStats, Redis, RedisSettings};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use store::Store;
use tokio::runtime::Handle;

/// The stores of a node.
pub(crate) struct Stores {
    runtime: Handle,
    tls: Arc<tls::Context>,
    stats: Arc<PluginStats>,
    /// Looked at when a configuration is built, never by a request.
    known: Mutex<HashMap<RedisSettings, Weak<Store>>>,
}

impl Stores {
    /// With connections on `runtime`.
    pub(crate) fn new(runtime: Handle, tls: Arc<tls::Context>, stats: Arc<PluginStats>) -> Self {
        Self { runtime, tls, stats, known: Mutex::default() }
    }
}

impl Redis for Stores {
    fn store(&self, settings: &RedisSettings) -> Result<Arc<dyn CounterStore>, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = known.get(settings).and_then(Weak::upgrade) {
            return Ok(store);
        }
        known.retain(|_, store| store.strong_count() > 0);
        let tls = settings.ssl.then(|| {
            let options = tls::ClientOptions { verify: Some(settings.ssl_verify), ..tls::ClientOptions::default() };
            self.tls.client(options).map_err(|error| error.to_string())
        });
        let store = Store::open(&self.runtime, settings.clone(), tls.transpose()?, self.stats.clone());
        known.insert(settings.clone(), Arc::downgrade(&store));
        Ok(store)
    }
}

/// A stand-in that never connects: for checking configurations.
pub(crate) struct NoStores;

impl Redis for NoStores {
    fn store(&self, _: &RedisSettings) -> Result<Arc<dyn CounterStore>, String> {
        Ok(Arc::new(Self))
    }
}

impl CounterStore for NoStores {
    fn ask(&self, _: gateward_plugin::Ask) -> gateward_plugin::Answer<'_> {
        let nothing = "configurations are only checked here".to_owned();
        Box::pin(std::future::ready(Err(gateward_plugin::StoreError::Unavailable(nothing))))
    }
}
