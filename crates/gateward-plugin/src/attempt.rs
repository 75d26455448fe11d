//! One attempt to reach an upstream, as plugins and records see it.

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
    /// What failed: `failed` or `timeout`, Kong's `state`, or `cancelled` for one that lost against a hedge; `None` when the try succeeded.
    pub failure: Option<&'static str>,
    /// Status of an answer that was not taken, which is why the try failed.
    pub status: Option<u16>,
}

impl Try {
    /// Kong's `code`, nginx's for what failed: 502, 504 for a time-out, or the status that was not taken; `None` when nothing did.
    pub fn code(&self) -> Option<u16> {
        match self.failure? {
            "timeout" => Some(504),
            "failed" => Some(self.status.unwrap_or(502)),
            _ => None,
        }
    }
}
