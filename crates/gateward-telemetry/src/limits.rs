//! Every bound of this crate in one place.

use std::time::Duration;

/// Bounds on what telemetry may hold. Each has a default that suits a large gateway.
#[derive(Debug, Clone)]
pub struct Limits {
    /// (service, route) pairs with figures of their own; later pairs share the `__overflow__` series.
    pub series: usize,
    /// (series, consumer) pairs per worker with figures of their own; later ones count under `__overflow__`.
    pub consumers: usize,
    /// Lines waiting for the access log's writer; further lines are dropped and counted.
    pub access_log_lines: usize,
    /// Bytes waiting for the access log's writer; further lines are dropped and counted.
    pub access_log_bytes: usize,
    /// Bytes of one access log line; a longer one is dropped and counted.
    pub access_log_line_bytes: usize,
    /// How long dropping an access log waits for queued lines to be written.
    pub access_log_drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            series: 200_000,
            consumers: 10_000,
            access_log_lines: 65_536,
            access_log_bytes: 64 << 20,
            access_log_line_bytes: 256 << 10,
            access_log_drain: Duration::from_secs(5),
        }
    }
}
