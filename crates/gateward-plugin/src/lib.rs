//! The plugin contract, and the native plugins (one file each) with Kong's names, settings and order.
//!
//! A plugin is compiled once per configured instance and shared by all workers; what belongs to one request
//! lives in the [`Exchange`]. The contract knows phases, suspension for I/O, local responses, buffered bodies
//! and per-request context, so that Lua and Wasm hosts implement the same trait as the native plugins.

#[doc(hidden)]
pub mod fuzzing;

mod attempt;
pub mod cases;
pub mod client_tls;
pub mod context;
mod contract;
pub mod counter_store;
pub mod counters;
pub mod env;
pub mod exchange;
pub mod handshake;
mod host;
pub mod native;
pub mod origin;
pub mod query;
pub mod record;
mod record_changes;
pub mod registry;
pub mod stream;
pub mod upstream_tls;

pub use attempt::Try;
pub use client_tls::{ClientCertificate, ClientTls};
pub use context::Context;
pub use contract::{
    AfterBody, BodyRead, BuildError, Definition, Flow, LocalBody, LocalResponse, Needs, Outcome, Phases, Plugin, Soon,
    Step,
};
pub use counter_store::{Addition, Answer, Ask, CounterStore, Limited, Redis, RedisSettings, StoreError};
pub use env::{BuildContext, HttpPost, PluginEnv, PluginStats, PostRequest, RecordFields, RequestTemplates, Templates};
pub use exchange::{
    Authentication, BeforeRetry, Captures, Client, Credential, Detour, Exchange, MetricGroups, ResponseState, Scheme,
    Source, UpstreamRequest,
};
pub use handshake::{Admission, Handshake};
pub use host::{Hosts, NoHost, PluginHost, RuntimeStatus, WorkerStart, WorkerState};
pub use origin::ProxyOrigin;
pub use record::RequestRecord;
pub use record_changes::{CHANGES_MAX, ChangeMode, RecordChanges};
pub use registry::{NativePlugins, definition, definitions};
pub use stream::{Preread, StreamExchange, StreamRecord};
pub use upstream_tls::{TlsAuthorities, TlsIdentity};
