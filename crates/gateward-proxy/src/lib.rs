//! The data plane: HTTP, and streams of any protocol.
//!
//! `request.rs` reads like the life of a request: head, route, plugins, upstream, response, record. Everything else
//! is a leaf it calls, or the state a worker keeps between requests. Configuration arrives as a compiled
//! [`Plan`], swapped whole; the request path never waits for the control side. `stream` serves what is not HTTP.

#[doc(hidden)]
pub mod fuzzing;

mod accept;
mod announce;
mod answer;
mod arrival;
mod body;
mod callee;
mod chain;
mod channel;
mod client;
mod connection;
mod course;
mod detour;
mod error;
mod families;
mod filters;
mod flow;
mod forward;
mod forwarded;
mod grpc;
mod h2_client;
mod h2_server;
mod hashing;
mod head;
mod health;
mod hedge;
mod hello;
mod http2;
mod instance;
mod leaving;
mod linger;
mod matching;
mod node;
mod outcome;
mod own;
mod phases;
mod pieces;
mod plan;
mod protection;
mod pump;
mod record;
mod relay;
mod repeat;
mod reply;
mod request;
mod retry;
mod screening;
mod secure;
mod server_name;
mod session;
mod settings;
mod shed;
mod stream;
#[cfg(test)]
mod testing;
mod tls_plan;
mod tries;
mod tunnel;
mod upgrade;
mod upstream;
mod upstreams;
mod worker;

pub use accept::{WorkerSockets, run_worker};
pub use callee::{Callee, CalleeError, CalleeName, Callees};
pub use error::{Limit, ProxyError, Side};
pub use gateward_balance::Turned;
pub use health::active::check_health;
pub use health::{HealthRegistry, Reason, TargetAddress, TargetState, UpstreamHealth};
pub use node::Node;
pub use plan::{CompileError, Plan};
pub use settings::{HeaderTokens, Limits, RealIp, Settings, Underscores};
pub use tls_plan::TlsPlanError;
