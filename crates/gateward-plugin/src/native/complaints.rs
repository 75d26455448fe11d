//! Messages about what keeps failing: one in a while, so that a failing peer does not fill the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// At most one message in this time.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets one message through per [`INTERVAL`].
pub(crate) struct Complaints {
    since: Instant,
    /// Milliseconds after `since` before which nothing may be said.
    not_before_ms: AtomicU64,
}

impl Complaints {
    /// Nothing said yet.
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), not_before_ms: AtomicU64::new(0) }
    }

    /// Whether something may be said now; saying it is counted.
    pub(crate) fn may_complain(&self) -> bool {
        let now_ms = self.since.elapsed().as_millis() as u64;
        let not_before_ms = self.not_before_ms.load(Ordering::Relaxed);
        let next_ms = now_ms + INTERVAL.as_millis() as u64;
        now_ms >= not_before_ms
            && self.not_before_ms.compare_exchange(not_before_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
