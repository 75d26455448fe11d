//! Routes compiled to an index; find(request head).
//!
//! [`Router::compile`] turns the routes of a configuration into *matchers* (one per route and path length, as
//! Kong splits them), sorts these by priority, and files each under its hosts and path prefixes. [`Router::find`]
//! visits only the places a request's host and path lead to, so its cost does not grow with the number of
//! routes. The order of the answer is that of trying every matcher from the highest priority down: the index
//! decides which matchers are looked at, never which one wins.
//!
//! No IO, no clock, no allocation per look-up on the plain path. What happens to a request that matched
//! (redirects to https, missing services) is the proxy's matter.

mod compile;
mod expression;
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod index;
mod literal;
mod matcher;
mod operand;
mod priority;
mod stream;
mod tree;
mod upstream_path;

use gateward_model::{EntityId, Route, Service};
use regex::Regex;
use std::net::SocketAddr;
use std::sync::Arc;

pub use index::Router;
pub use stream::{StreamInput, StreamProtocol, StreamRouter};
pub use upstream_path::upstream_path;

/// How the client speaks to the gateway.
///
/// Rules see it as Kong's `net.protocol`, where gRPC is `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP in the clear.
    Http,
    /// HTTP over TLS.
    Https,
    /// gRPC in the clear.
    Grpc,
    /// gRPC over TLS.
    Grpcs,
    /// No HTTP at all.
    Stream(StreamProtocol),
}

impl Scheme {
    /// Whether the client's connection is encrypted.
    pub fn is_tls(self) -> bool {
        use StreamProtocol::{Tls, TlsPassthrough};
        matches!(self, Self::Https | Self::Grpcs | Self::Stream(Tls | TlsPassthrough))
    }

    /// The value of `net.protocol`.
    pub fn net_protocol(self) -> &'static str {
        match self {
            Self::Stream(protocol) => protocol.as_str(),
            _ if self.is_tls() => "https",
            _ => "http",
        }
    }
}

/// What routes are selected by: the head of a request and the addresses of its connection.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The method as sent.
    pub method: &'a str,
    /// The authority's host as sent, without port, in any case; empty when there is none. A dot at the end is
    /// ignored.
    pub host: &'a str,
    /// The port the authority names.
    pub port: Option<u16>,
    /// The port the connection came in on; stands for `port` where that is absent, as in Kong (`net.dst.port`).
    pub local_port: u16,
    /// The normalised path.
    pub path: &'a str,
    /// The query without its `?`, as sent.
    pub query: Option<&'a str>,
    /// The header section.
    pub headers: &'a gateward_http::Headers,
    /// How the client speaks to the gateway.
    pub scheme: Scheme,
    /// The server name of the TLS handshake.
    pub sni: Option<&'a str>,
    /// The VPC endpoint that a trusted PROXY header named (`net.src.vpce_id`, Gateward's own field).
    pub vpce_id: Option<&'a str>,
    /// The client's address (after trusted proxies, if any).
    pub src: SocketAddr,
    /// The address the connection came in on.
    pub dst: SocketAddr,
}

impl Input<'_> {
    /// Kong's `net.dst.port`: the authority's port, else the listener's.
    pub(crate) fn destination_port(&self) -> u16 {
        self.port.unwrap_or(self.local_port)
    }
}

/// A route that can be found, with the service its requests go to.
#[derive(Debug, Clone)]
pub struct RouteEntry {
    /// The route as configured.
    pub route: Arc<Route>,
    /// Its service; `None` for a route without one (plugins run, then 503).
    pub service: Option<Arc<Service>>,
}

/// The route of a request.
#[derive(Debug, Clone, Copy)]
pub struct Found<'r> {
    /// Position in [`Router::routes`].
    pub index: usize,
    /// What of the path the route's rule matched.
    pub path: PathMatch<'r>,
}

/// What of the path a rule matched: the text `strip_path` removes.
#[derive(Debug, Clone, Copy)]
pub enum PathMatch<'r> {
    /// The rule does not look at the path.
    None,
    /// The first so many bytes.
    Prefix(usize),
    /// The first match (group 0) of this expression, which matches the path; its groups are the URI captures.
    /// It starts at the front of the path unless the pattern has an alternative outside of groups (`~/a|b`: the
    /// anchor Kong sets binds to the first) or comes from an expression; Kong strips as many bytes as it is long.
    Regex(&'r Regex),
}

/// A route that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route {}: {message}", name.as_deref().map_or_else(|| route.to_string(), |name| format!("`{name}` ({route})")))]
pub struct CompileError {
    /// The route's id.
    pub route: EntityId,
    /// The route's name.
    pub name: Option<String>,
    /// What is wrong, where in the route, and what to do.
    pub message: String,
}
