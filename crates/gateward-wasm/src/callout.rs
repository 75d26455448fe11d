//! Requests that filters send, and what comes back. This crate queues and checks them; the gateway carries them.

use std::time::Duration;

/// Identifies a callout within one instance.
pub type Token = u32;

/// Fields in order, names in small letters.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Something a filter wants sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callout {
    /// What the filter knows it by.
    pub token: Token,
    /// The context that asked for it: the instance's own, or a stream's.
    pub context: u32,
    /// What it is.
    pub kind: CalloutKind,
}

/// Kinds of callouts, and what can be done to one under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalloutKind {
    /// A request over HTTP.
    Http(HttpCall),
    /// A call over gRPC: one message there, one back, or a stream of messages.
    Grpc(GrpcCall),
    /// A message on a gRPC stream; `end`: the last one.
    GrpcSend {
        /// The message, unframed.
        message: Vec<u8>,
        /// Whether the filter's side of the stream ends.
        end: bool,
    },
    /// The filter's side of a gRPC stream ends.
    GrpcClose,
    /// Nothing is wanted of it any more.
    Cancel,
}

/// A request over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCall {
    /// Name of an upstream or service, or `host[:port]`.
    pub upstream: String,
    /// With `:method`, `:path` and `:authority`.
    pub headers: Fields,
    /// Content.
    pub body: Vec<u8>,
    /// Fields after the content.
    pub trailers: Fields,
    /// For the whole exchange.
    pub timeout: Duration,
}

/// A call over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcCall {
    /// Name of an upstream or service, or `host[:port]`.
    pub upstream: String,
    /// Full name of the service.
    pub service: String,
    /// Name of the method.
    pub method: String,
    /// Metadata to send first.
    pub metadata: Fields,
    /// The one message of a unary call; `None` opens a stream.
    pub message: Option<Vec<u8>>,
    /// For the whole call; a stream has none.
    pub timeout: Option<Duration>,
}

/// The answer to an [`HttpCall`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpReply {
    /// With `:status`; empty when the call failed.
    pub headers: Fields,
    /// Content.
    pub body: Vec<u8>,
    /// Fields after the content.
    pub trailers: Fields,
    /// What `proxy_get_status` says.
    pub status: CalloutStatus,
}

impl HttpReply {
    /// What a filter gets for a call that failed or took too long: no headers, and why.
    pub fn failure(reason: impl Into<String>) -> Self {
        Self { status: CalloutStatus { code: 14, message: reason.into() }, ..Self::default() }
    }
}

/// A code and a text: of gRPC, or why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CalloutStatus {
    /// gRPC status code, or 0.
    pub code: u32,
    /// For people.
    pub message: String,
}

/// Something that happened to a [`GrpcCall`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrpcEvent {
    /// The peer's first metadata.
    Initial(Fields),
    /// A message, unframed.
    Message(Vec<u8>),
    /// The peer's last metadata.
    Trailing(Fields),
    /// The end of the call.
    Close(CalloutStatus),
}

/// Which upstreams a filter may call.
pub trait Upstreams: Send + Sync + 'static {
    /// Whether a callout to `upstream` can be carried.
    fn knows(&self, upstream: &str) -> bool;
}

/// No upstream at all.
#[derive(Debug, Default)]
pub struct NoUpstreams;

impl Upstreams for NoUpstreams {
    fn knows(&self, _upstream: &str) -> bool {
        false
    }
}
