//! Everything that can keep a stream from being served: the word for it, nginx's status, and whether it is a refusal.
//!
//! There is nobody to answer: the connection is closed, as Kong closes it.

use crate::error::{ProxyError, Side};
use gateward_net::client_hello::Malformed;

/// Why a stream was not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamError {
    /// The client did not send its hello in time.
    HelloTimeout,
    /// The hello breaks its rules.
    Hello(Malformed),
    /// Not TLS where nothing else is served.
    NotTls,
    /// The client closed before it was known what it wants.
    ClientGone,
    /// The TLS handshake failed, which was counted by its reason.
    Handshake,
    /// No route matches.
    NoRoute,
    /// The route has no service.
    NoService,
    /// A plugin closed it, with this status.
    Closed(u16),
    /// There is no room for another session.
    Full,
    /// The upstream could not be reached, or only at a price that is not paid.
    Upstream(ProxyError),
}

impl StreamError {
    /// What ended the session, in metrics and records.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::HelloTimeout => "hello_timeout",
            Self::Hello(Malformed::TooLong) => "hello_too_long",
            Self::Hello(_) => "hello_malformed",
            Self::NotTls => "not_tls",
            Self::ClientGone => "client_gone",
            Self::Handshake => "tls_handshake",
            Self::NoRoute => "no_route",
            Self::NoService => "no_service",
            Self::Closed(403) => "forbidden",
            Self::Closed(_) => "closed_by_plugin",
            Self::Full => "sessions_full",
            Self::Upstream(error) => error.label(),
        }
    }

    /// The status nginx would log (ngx_stream_core_module, `$status`); 500 is Kong's for a stream without a route.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::HelloTimeout | Self::Hello(_) | Self::NotTls | Self::ClientGone | Self::Handshake => 400,
            Self::NoRoute | Self::NoService => 500,
            Self::Closed(status) => status,
            Self::Full | Self::Upstream(ProxyError::Limited(_)) => 503,
            Self::Upstream(ProxyError::PluginPanic) => 500,
            Self::Upstream(_) => 502,
        }
    }

    /// The reason under which it is counted as a refusal, where the gateway turned the client away.
    pub(crate) fn refusal(self) -> Option<&'static str> {
        match self {
            Self::HelloTimeout => Some("stream_hello_timeout"),
            Self::Hello(Malformed::TooLong) => Some("stream_hello_too_long"),
            Self::Hello(_) => Some("stream_hello_malformed"),
            Self::NotTls => Some("stream_not_tls"),
            Self::NoRoute => Some("stream_no_route"),
            Self::NoService => Some("stream_no_service"),
            Self::Closed(403) => Some("stream_forbidden"),
            Self::Closed(_) => Some("stream_closed_by_plugin"),
            Self::Full => Some("stream_sessions_full"),
            Self::Upstream(ProxyError::Limited(limit)) => Some(limit.label()),
            Self::ClientGone | Self::Handshake | Self::Upstream(_) => None,
        }
    }

    /// Whether it is worth a line in the log: something the operator can act on. Under overload a line for each would
    /// be load of its own.
    pub(crate) fn is_operators(self) -> bool {
        match self {
            Self::NoService => true,
            Self::Upstream(error) => error.side() != Side::Client && !matches!(error, ProxyError::Limited(_)),
            _ => false,
        }
    }
}

impl From<ProxyError> for StreamError {
    fn from(error: ProxyError) -> Self {
        Self::Upstream(error)
    }
}
