//! The words in which the steps of a request tell each other what came of them.

use crate::error::ProxyError;
use gateward_plugin::LocalResponse;

/// What becomes of a connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// It waits for the next request.
    KeepAlive,
    /// It ends; what the client still sends is read for a moment.
    Close,
    /// It turned out to speak HTTP/2.
    Http2,
    /// It ends at once: the client is gone or must notice that the response is cut off.
    Abort,
}

/// What the plugins decided.
pub(crate) enum Verdict {
    Proxy,
    Respond(LocalResponse),
    Fail(ProxyError),
}

/// A response of the gateway's own.
pub(crate) enum Local {
    /// A plugin's.
    Plugin(LocalResponse),
    /// About an error.
    Error(ProxyError),
}

/// How an exchange ended.
pub(crate) struct Ended {
    pub(crate) after: After,
    pub(crate) error: Option<ProxyError>,
    /// Bytes sent to the client.
    pub(crate) sent_bytes: u64,
}

/// What the head of a response must say about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    KeepAlive,
    Close,
}
