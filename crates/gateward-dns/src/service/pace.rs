//! How long a transfer may take: a while to begin with, longer the more of it has passed, and never longer than a bound. Who reads or
//! writes an octet now and then holds a place no longer than that.

use std::time::Duration;

use tokio::time::Instant;

/// How long a transfer may take however little passes.
const GRACE: Duration = Duration::from_mins(1);
/// How much must pass in a second, on average, after that.
const LEAST_BYTES_PER_SECOND: u64 = 8 << 10;
/// How long a transfer may take however much passes.
const MOST: Duration = Duration::from_hours(4);

/// The pace of one transfer.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    bytes: u64,
}

impl Pace {
    /// Of a transfer that began then.
    pub(super) fn since(start: Instant) -> Self {
        Pace { start, bytes: 0 }
    }

    /// So much has passed.
    pub(super) fn passed(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// When the next message must have passed.
    pub(super) fn deadline(&self) -> Instant {
        let earned = Duration::from_secs(self.bytes / LEAST_BYTES_PER_SECOND);
        self.start + GRACE.saturating_add(earned).min(MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_earned_by_what_passes_up_to_a_bound() {
        let start = Instant::now();
        let mut pace = Pace::since(start);
        for (bytes, seconds) in [(0, 60), (8_191, 60), (1, 61), (8_192 * 9, 70), (usize::MAX, 14_400)] {
            pace.passed(bytes);
            assert_eq!((pace.deadline() - start).as_secs(), seconds, "{bytes}");
        }
    }
}
