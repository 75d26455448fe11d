//! Everything that can end an exchange other than a response of the upstream: whose fault, which status, which
//! text. Kong's texts are kept, because clients match on them.

use gateward_balance::Priority;
use gateward_http::{ChunkedError, HeadError};

/// Who is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client sent something wrong, too slowly, or went away.
    Client,
    /// The gateway could not do its work.
    Gateway,
    /// The upstream could not be reached or broke the protocol.
    Upstream,
}

/// Why an exchange did not end with a response of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The request head breaks a rule.
    #[error("malformed request head: {0}")]
    Head(HeadError),
    /// The request head did not arrive in time.
    #[error("request head timed out")]
    HeadTimeout,
    /// The request body breaks the chunked coding.
    #[error("malformed request body: {0}")]
    Body(ChunkedError),
    /// The request body did not arrive in time, or too slowly.
    #[error("request body timed out")]
    BodyTimeout,
    /// The request body is longer than allowed.
    #[error("request body too large")]
    BodyTooLarge,
    /// The client closed or reset its connection.
    #[error("client closed the connection")]
    ClientGone,
    /// The path of the target cannot be normalised.
    #[error("malformed path")]
    Path,
    /// A field name has an underscore, and the operator refuses those.
    #[error("field name with an underscore")]
    Underscore,
    /// CONNECT or TRACE.
    #[error("method not allowed")]
    Method,
    /// The request went through this gateway too often.
    #[error("loop detected")]
    Loop,
    /// No route matches.
    #[error("no route matched")]
    NoRoute,
    /// The route has no service.
    #[error("no service for the route")]
    NoService,
    /// No target of the upstream can be used.
    #[error("no target available")]
    NoTarget,
    /// The name of the service or target has no address.
    #[error("name resolution failed")]
    NameResolution,
    /// No connection could be made.
    #[error("upstream refused the connection")]
    Connect,
    /// The upstream takes no more requests: all connections there may be are full.
    #[error("upstream is full")]
    UpstreamFull,
    /// The TLS handshake with the upstream failed, e.g. its certificate cannot be verified.
    #[error("TLS handshake with the upstream failed")]
    UpstreamTls,
    /// The upstream does not speak HTTP/2 over TLS, which is all that its service is asked in.
    #[error("upstream does not speak HTTP/2 over TLS")]
    UpstreamNoHttp2,
    /// No connection could be made in time.
    #[error("connecting to the upstream timed out")]
    ConnectTimeout,
    /// The upstream did not take the request or did not answer in time.
    #[error("upstream timed out")]
    UpstreamTimeout,
    /// The upstream closed its connection before or within its response head.
    #[error("upstream closed the connection")]
    UpstreamClosed,
    /// The time a gRPC client gave the call is over.
    #[error("the call's deadline passed")]
    Deadline,
    /// The upstream's response head breaks the protocol.
    #[error("malformed upstream response: {0}")]
    UpstreamHead(HeadError),
    /// The upstream's response body breaks the protocol or ended early, after the head was sent on.
    #[error("upstream response body broken")]
    UpstreamBody,
    /// A plugin panicked.
    #[error("plugin panicked")]
    PluginPanic,
    /// A plugin broke the exchange off.
    #[error("a plugin broke the exchange off")]
    Reset,
    /// A plugin answered while the request was on its way to the upstream. Only between a try and who sends the answer.
    #[error("a plugin answered instead of the upstream")]
    Answered,
    /// A bound on what goes on at the same time is reached.
    #[error("limit reached: {}", .0.label())]
    Limited(Limit),
}

/// Bounds on what goes on at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `circuit_breaker.max_requests` of the upstream.
    Requests,
    /// `circuit_breaker.max_connections` of the upstream.
    Connections,
    /// `circuit_breaker.max_pending` of the upstream.
    Pending,
    /// A request waited for a place in vain, for as long as connecting may take.
    PendingTimeout,
    /// The worker's concurrency limit, for requests of this priority.
    Concurrency(Priority),
}

impl Limit {
    /// Machine-readable reason for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Requests => "breaker_max_requests",
            Self::Connections => "breaker_max_connections",
            Self::Pending => "breaker_max_pending",
            Self::PendingTimeout => "breaker_pending_timeout",
            Self::Concurrency(Priority::Low) => "shed_low",
            Self::Concurrency(Priority::Normal) => "shed_normal",
            Self::Concurrency(Priority::High) => "shed_high",
            Self::Concurrency(Priority::Critical) => "shed_critical",
        }
    }
}

impl ProxyError {
    /// Status to answer with. 0: nobody is left to answer.
    pub fn status(self) -> u16 {
        match self {
            Self::Head(error) => error.status(),
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::Body(error) => error.status(),
            Self::Path | Self::Underscore => 400,
            Self::BodyTooLarge => 413,
            Self::ClientGone => 0,
            Self::Method => 405,
            Self::Loop => 508,
            Self::NoRoute => 404,
            Self::NoService | Self::NoTarget | Self::NameResolution | Self::UpstreamFull | Self::Limited(_) => 503,
            Self::Connect
            | Self::UpstreamTls
            | Self::UpstreamNoHttp2
            | Self::UpstreamClosed
            | Self::UpstreamHead(_)
            | Self::UpstreamBody => 502,
            Self::ConnectTimeout | Self::UpstreamTimeout | Self::Deadline => 504,
            Self::PluginPanic | Self::Answered => 500,
            // What nginx logs for a connection that is closed without an answer.
            Self::Reset => 444,
        }
    }

    /// The text of the answer (kong/error_handlers.lua, kong/runloop/handler.lua).
    pub fn message(self) -> &'static str {
        match self {
            Self::NoRoute => "no Route matched with those values",
            Self::NoService => "no Service found with those values",
            Self::NoTarget => "failure to get a peer from the ring-balancer",
            Self::NameResolution => "name resolution failed",
            Self::UpstreamNoHttp2 => "the upstream server does not speak HTTP/2 over TLS",
            _ => status_message(self.status()),
        }
    }

    /// Machine-readable reason for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Head(error) => error.label(),
            Self::HeadTimeout => "head_timeout",
            Self::Body(error) => error.label(),
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::ClientGone => "client_gone",
            Self::Path => "malformed_path",
            Self::Underscore => "underscore",
            Self::Method => "method_refused",
            Self::Loop => "loop",
            Self::NoRoute => "no_route",
            Self::NoService => "no_service",
            Self::NoTarget => "no_target",
            Self::NameResolution => "name_resolution",
            Self::Connect => "connect_failure",
            Self::UpstreamFull => "upstream_full",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamNoHttp2 => "upstream_no_http2",
            Self::ConnectTimeout => "connect_timeout",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Deadline => "grpc_deadline",
            Self::UpstreamClosed => "upstream_closed",
            Self::UpstreamHead(_) => "upstream_malformed_head",
            Self::UpstreamBody => "upstream_broken_body",
            Self::PluginPanic => "plugin_panic",
            Self::Reset => "plugin_reset",
            Self::Answered => "plugin_answer",
            Self::Limited(limit) => limit.label(),
        }
    }

    /// Who is to blame.
    pub fn side(self) -> Side {
        match self {
            Self::Head(_)
            | Self::HeadTimeout
            | Self::Body(_)
            | Self::BodyTimeout
            | Self::BodyTooLarge
            | Self::ClientGone
            | Self::Path
            | Self::Underscore
            | Self::Method
            | Self::Loop
            | Self::NoRoute => Side::Client,
            Self::NoService
            | Self::PluginPanic
            | Self::Reset
            | Self::Answered
            | Self::Limited(Limit::Concurrency(_)) => Side::Gateway,
            Self::NoTarget
            | Self::NameResolution
            | Self::Connect
            | Self::UpstreamFull
            | Self::UpstreamTls
            | Self::UpstreamNoHttp2
            | Self::ConnectTimeout
            | Self::UpstreamTimeout
            | Self::Deadline
            | Self::UpstreamClosed
            | Self::UpstreamHead(_)
            | Self::UpstreamBody
            | Self::Limited(_) => Side::Upstream,
        }
    }

    /// Whether the client's connection must end after the answer: what follows on it cannot be trusted.
    pub fn closes(self) -> bool {
        matches!(
            self,
            Self::Head(_)
                | Self::HeadTimeout
                | Self::Body(_)
                | Self::BodyTimeout
                | Self::BodyTooLarge
                | Self::ClientGone
                | Self::Path
                | Self::Underscore
                | Self::Method
                | Self::UpstreamBody
        )
    }
}

/// Kong's text for a status the gateway answers itself (kong/error_handlers.lua).
pub(crate) fn status_message(status: u16) -> &'static str {
    match status {
        400 => "Bad request",
        404 => "Not found",
        405 => "Method not allowed",
        408 => "Request timeout",
        411 => "Length required",
        412 => "Precondition failed",
        413 => "Payload too large",
        414 => "URI too long",
        417 => "Expectation failed",
        426 => "Please use HTTPS protocol",
        431 | 494 => "Request header or cookie too large",
        500 => "An unexpected error occurred",
        501 => "Not implemented",
        502 => "An invalid response was received from the upstream server",
        503 => "The upstream server is currently unavailable",
        504 => "The upstream server is timing out",
        505 => "HTTP version not supported",
        508 => "Loop detected",
        _ => "An unexpected error occurred",
    }
}
