//! The fixed counters and gauges of the gateway as enums, so that a count is an array index.
//!
//! Requests, their outcome and the client's bytes are not here: [`crate::WorkerMetrics::record`] counts them.

use crate::catalog::{self, Metric};

/// Things a worker counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Client connections accepted, whether or not they were served.
    ConnectionsAccepted,
    /// Client connections closed at once because a limit was reached.
    ConnectionsRefused,
    /// TLS handshakes with clients that succeeded.
    TlsHandshakes,
    /// Those of them that resumed a session.
    TlsResumptions,
    /// Client connections that ended, for whatever reason.
    ConnectionsClosed,
    /// Client connections cut because the client missed a deadline.
    ClientTimeouts,
    /// Client connections closed after a response because they were old enough.
    ConnectionsAged,
    /// Panics caught in plugins.
    PluginPanics,
    /// Upstream connections established.
    UpstreamConnects,
    /// Upstream connections that could not be established.
    UpstreamConnectFailures,
    /// Requests sent on a pooled upstream connection.
    UpstreamReuses,
    /// Pooled upstream connections found closed or expired.
    UpstreamIdleDiscarded,
    /// Further attempts after a failed one.
    UpstreamRetries,
    /// Further attempts that were not made because the upstream's retry budget was used up.
    UpstreamRetriesOverBudget,
    /// Attempts given up because their response head did not come in the time of a try.
    UpstreamTriesAbandoned,
    /// Second attempts started beside a slow first one.
    UpstreamHedges,
    /// Second attempts that answered first.
    UpstreamHedgesWon,
    /// Idle upstream connections closed to keep a pool within its size.
    UpstreamPoolEvictions,
    /// Bytes sent to upstreams.
    UpstreamBytesSent,
    /// Bytes received from upstreams.
    UpstreamBytesReceived,
    /// Bytes of streams received from clients.
    StreamBytesReceived,
    /// Bytes of streams sent to clients.
    StreamBytesSent,
    /// Datagrams that were not passed on.
    StreamDatagramsDropped,
}

impl Counter {
    /// Every counter, in order of its index.
    pub const ALL: [Self; 23] = [
        Self::ConnectionsAccepted,
        Self::ConnectionsRefused,
        Self::TlsHandshakes,
        Self::TlsResumptions,
        Self::ConnectionsClosed,
        Self::ClientTimeouts,
        Self::ConnectionsAged,
        Self::PluginPanics,
        Self::UpstreamConnects,
        Self::UpstreamConnectFailures,
        Self::UpstreamReuses,
        Self::UpstreamIdleDiscarded,
        Self::UpstreamRetries,
        Self::UpstreamRetriesOverBudget,
        Self::UpstreamTriesAbandoned,
        Self::UpstreamHedges,
        Self::UpstreamHedgesWon,
        Self::UpstreamPoolEvictions,
        Self::UpstreamBytesSent,
        Self::UpstreamBytesReceived,
        Self::StreamBytesReceived,
        Self::StreamBytesSent,
        Self::StreamDatagramsDropped,
    ];

    /// The metric that exports this counter.
    #[must_use]
    pub fn metric(self) -> &'static Metric {
        match self {
            Self::ConnectionsAccepted => &catalog::CONNECTIONS_ACCEPTED,
            Self::ConnectionsRefused => &catalog::CONNECTIONS_REFUSED,
            Self::TlsHandshakes => &catalog::TLS_HANDSHAKES,
            Self::TlsResumptions => &catalog::TLS_RESUMPTIONS,
            Self::ConnectionsClosed => &catalog::CONNECTIONS_CLOSED,
            Self::ClientTimeouts => &catalog::CLIENT_TIMEOUTS,
            Self::ConnectionsAged => &catalog::CONNECTIONS_AGED,
            Self::PluginPanics => &catalog::PLUGIN_PANICS,
            Self::UpstreamConnects => &catalog::UPSTREAM_CONNECTS,
            Self::UpstreamConnectFailures => &catalog::UPSTREAM_CONNECT_FAILURES,
            Self::UpstreamReuses => &catalog::UPSTREAM_REUSES,
            Self::UpstreamIdleDiscarded => &catalog::UPSTREAM_IDLE_DISCARDED,
            Self::UpstreamRetries => &catalog::UPSTREAM_RETRIES,
            Self::UpstreamRetriesOverBudget => &catalog::UPSTREAM_RETRIES_OVER_BUDGET,
            Self::UpstreamTriesAbandoned => &catalog::UPSTREAM_TRIES_ABANDONED,
            Self::UpstreamHedges => &catalog::UPSTREAM_HEDGES,
            Self::UpstreamHedgesWon => &catalog::UPSTREAM_HEDGES_WON,
            Self::UpstreamPoolEvictions => &catalog::UPSTREAM_POOL_EVICTIONS,
            Self::UpstreamBytesSent => &catalog::UPSTREAM_SENT_BYTES,
            Self::UpstreamBytesReceived => &catalog::UPSTREAM_RECEIVED_BYTES,
            Self::StreamBytesReceived => &catalog::STREAM_RECEIVED_BYTES,
            Self::StreamBytesSent => &catalog::STREAM_SENT_BYTES,
            Self::StreamDatagramsDropped => &catalog::STREAM_DATAGRAMS_DROPPED,
        }
    }
}

/// Levels a worker keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Gauge {
    /// Client connections open.
    ConnectionsActive,
    /// Requests between their first byte and the last byte of their response.
    RequestsInFlight,
    /// Upgraded connections open.
    TunnelsActive,
    /// Sessions of streams open.
    StreamsActive,
    /// Upstream connections in use by a request.
    UpstreamConnectionsActive,
    /// Upstream connections waiting in a pool.
    UpstreamConnectionsIdle,
    /// Requests that may be served at the same time, where there is a limit.
    ConcurrencyLimit,
}

impl Gauge {
    /// Every gauge, in order of its index.
    pub const ALL: [Self; 7] = [
        Self::ConnectionsActive,
        Self::RequestsInFlight,
        Self::TunnelsActive,
        Self::StreamsActive,
        Self::UpstreamConnectionsActive,
        Self::UpstreamConnectionsIdle,
        Self::ConcurrencyLimit,
    ];

    /// The metric that exports this gauge.
    #[must_use]
    pub fn metric(self) -> &'static Metric {
        match self {
            Self::ConnectionsActive => &catalog::CONNECTIONS_ACTIVE,
            Self::RequestsInFlight => &catalog::REQUESTS_IN_FLIGHT,
            Self::TunnelsActive => &catalog::TUNNELS_ACTIVE,
            Self::StreamsActive => &catalog::STREAMS_ACTIVE,
            Self::UpstreamConnectionsActive => &catalog::UPSTREAM_CONNECTIONS_ACTIVE,
            Self::ConcurrencyLimit => &catalog::CONCURRENCY_LIMIT,
            Self::UpstreamConnectionsIdle => &catalog::UPSTREAM_CONNECTIONS_IDLE,
        }
    }
}

/// Things the control side counts: what became of each configuration that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum ControlCounter {
    /// A configuration was compiled and is being served.
    ConfigReloadOk,
    /// A configuration was refused; the previous one is still served.
    ConfigReloadFailed,
    /// An earlier configuration was put back on purpose.
    ConfigRolledBack,
}

impl ControlCounter {
    /// Every control counter, in order of its index.
    pub const ALL: [Self; 3] = [Self::ConfigReloadOk, Self::ConfigReloadFailed, Self::ConfigRolledBack];

    /// Value of the `result` label of `gateward_config_reloads_total`.
    #[must_use]
    pub fn result(self) -> &'static str {
        match self {
            Self::ConfigReloadOk => "ok",
            Self::ConfigReloadFailed => "failed",
            Self::ConfigRolledBack => "rolled_back",
        }
    }
}
