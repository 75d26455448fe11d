//! What one filter may use, and what happens beyond it.

use std::time::Duration;
use wasmtime::ResourceLimiter;

/// Bytes of one memory page.
pub const PAGE_BYTES: usize = 65_536;

/// Limits of one configured filter. Where a limit is of the instance, it is of one instance: there is one per worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Bytes of linear memory; growing beyond fails inside the guest.
    pub memory_bytes: usize,
    /// An instance whose memory has grown by this many bytes since its start, or by three quarters of what its limit left it
    /// then, is replaced once its streams have ended: memory of a guest never shrinks, so leaks would add up.
    pub recycle_bytes: usize,
    /// Processor time of one callback; beyond it the instance is stopped.
    pub callback: Duration,
    /// Processor time of start-up: `_initialize`, `proxy_on_vm_start` and `proxy_on_configure` each.
    pub start: Duration,
    /// Unanswered callouts of one stream; more are refused with `INTERNAL_FAILURE`.
    pub callouts_per_stream: u16,
    /// Unanswered callouts of one instance, likewise.
    pub callouts: u16,
    /// Longest wait for the answer to a callout; longer ones asked for are cut to it.
    pub callout_timeout: Duration,
    /// Bytes of the body of an answer to a callout; a longer one fails the callout.
    pub callout_body_bytes: usize,
    /// Bytes of one body that are held while a filter pauses; beyond it the request fails with 413 or 502.
    pub body_bytes: usize,
    /// Log lines of one callback; more are dropped and counted.
    pub log_lines: u16,
    /// Streams that answered `proxy_on_done` with false and are waited for; beyond it the oldest is ended.
    pub unfinished_streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 32 << 20,
            recycle_bytes: 24 << 20,
            callback: Duration::from_millis(50),
            start: Duration::from_secs(1),
            callouts_per_stream: 16,
            callouts: 1024,
            callout_timeout: Duration::from_secs(30),
            callout_body_bytes: 1 << 20,
            body_bytes: 1 << 20,
            log_lines: 64,
            unfinished_streams: 256,
        }
    }
}

impl Limits {
    /// Bytes of memory with which an instance that had `start_bytes` after its start is replaced. Always more than it had:
    /// its successor begins with as many.
    pub(crate) fn grown_from(&self, start_bytes: usize) -> usize {
        let room = self.memory_bytes.saturating_sub(start_bytes);
        start_bytes + self.recycle_bytes.min(room / 4 * 3).max(PAGE_BYTES)
    }
}

/// Bytes of one log line; the rest is cut off.
pub const LOG_LINE_BYTES: usize = 16 << 10;
/// Bytes of randomness per call of `random_get`, as in Envoy's host.
pub const RANDOM_BYTES: usize = 64 << 10;
/// Bytes of a property's path or value that a filter sets.
pub const PROPERTY_BYTES: usize = 64 << 10;
/// Properties that a filter sets on one stream.
pub const PROPERTIES: usize = 128;
/// Bytes of fields that a filter writes over the life of one stream; further changes are refused.
pub const WRITTEN_FIELD_BYTES: usize = 1 << 20;
/// Bytes a stream's body may grow to by what a filter writes into it.
pub const WRITTEN_BODY_BYTES: usize = 16 << 20;
/// Tables of one module and elements of each.
pub const TABLES: u32 = 4;
/// Elements of one table.
pub const TABLE_ELEMENTS: usize = 100_000;
/// Instances of one process, over all filters, workers and generations.
pub const INSTANCES: u32 = 1024;
/// Most a filter's memory limit can be set to.
pub const MAX_MEMORY_BYTES: usize = 1 << 30;
/// Stack of the guest.
pub const STACK_BYTES: usize = 512 << 10;

/// Meters the memory of one instance.
#[derive(Debug)]
pub(crate) struct Meter {
    limit_bytes: usize,
    /// What the instance has.
    pub(crate) memory_bytes: usize,
    /// Whether the guest was refused memory.
    pub(crate) refused: bool,
}

impl Meter {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, memory_bytes: 0, refused: false }
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.limit_bytes;
        if fits {
            self.memory_bytes = desired;
        } else {
            self.refused = true;
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    /// The filter and its bridge.
    fn instances(&self) -> usize {
        2
    }

    /// The filter's, and the bridge's.
    fn tables(&self) -> usize {
        TABLES as usize + 1
    }

    fn memories(&self) -> usize {
        1
    }
}
