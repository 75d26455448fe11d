//! The closing record of a request: access log line, log plugins' payload.

use crate::Exchange;
use std::net::SocketAddr;

/// One attempt to reach a target.
#[derive(Debug, Clone)]
pub struct Try {
    /// Address dialled.
    pub address: SocketAddr,
    /// Unix milliseconds when the attempt started.
    pub started_at_ms: u64,
    /// Microseconds from the start of the attempt to a usable connection or its failure.
    pub connect_us: u64,
    /// Whether a pooled connection was used.
    pub keepalive: bool,
    /// What failed: `failed` or `timeout`, Kong's `state`; `None` when the try succeeded.
    pub failure: Option<&'static str>,
}

/// How an exchange ended, with its figures. Finished exactly once, on every path.
pub struct RequestRecord<'a> {
    /// Request and response as they were last.
    pub exchange: &'a Exchange,
    /// Attempts in order.
    pub tries: &'a [Try],
    /// Bytes received from the client for this request, head and body.
    pub request_bytes: u64,
    /// Bytes sent to the client for this response, head and body.
    pub response_bytes: u64,
    /// First byte of the request to last byte of the response; microseconds.
    pub request_us: u64,
    /// Time in the gateway before the upstream was asked (Kong's `kong` latency); microseconds.
    pub gateway_us: u64,
    /// From asking the upstream to its response head (Kong's `proxy` latency); microseconds. `None`: not asked.
    pub upstream_us: Option<u64>,
    /// Time to receive and relay the response body; microseconds.
    pub receive_us: u64,
    /// Status of the upstream's response.
    pub upstream_status: Option<u16>,
    /// Machine-readable reason when the exchange did not succeed, e.g. `connect_failure`, `client_gone`.
    pub error: Option<&'static str>,
}
