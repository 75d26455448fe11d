//! A host for Proxy-Wasm filters (ABI 0.1.0, 0.2.0, 0.2.1) on wasmtime.
//!
//! The crate does no IO of its own: it runs filters on whatever implements [`Stream`], queues the requests filters
//! want to send, and leaves it to the gateway to carry them. A [`Runtime`] compiles modules, a [`Filter`] is code with a
//! configuration that was seen to start, an [`Instance`] serves the streams of one worker.

mod abi;
mod about;
mod bridge;
mod cache;
mod call;
pub mod callout;
pub mod callout_stats;
mod config;
mod engine;
mod exports;
pub mod failure;
mod filter;
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod instance;
mod lend;
pub mod limits;
mod logging;
pub mod metrics;
mod module;
pub mod observe;
pub mod pairs;
pub mod plugin;
mod runtime;
pub mod shared;
mod stream;
pub mod trial;
mod types;
mod watch;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use cache::CacheError;
pub use config::{FilterConfig, Foreign, Services};
pub use failure::{BackOff, Failure, FailureKind, FailurePolicy};
pub use filter::{Filter, FilterError, identity};
pub use host::{ContextId, ROOT};
pub use instance::{Instance, Signals};
pub use limits::Limits;
pub use logging::{LogSink, Tracing};
pub use module::{Hash, ModuleError};
pub use runtime::{Module, Runtime, RuntimeError};
pub use stream::{Edit, LocalReply, Stream};
pub use types::{Abi, Action, DataBuffer, Direction, FieldMap, LogLevel, Peer, Phase, Status};
