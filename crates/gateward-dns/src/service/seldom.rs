//! Log lines about what strangers send: whoever forges messages must not write the log.

use std::sync::atomic::{AtomicU64, Ordering};

/// Lets one line through in a second.
#[derive(Default)]
pub(super) struct Seldom {
    second: AtomicU64,
    left_out: AtomicU64,
}

impl Seldom {
    /// Whether a line is written at `now` (seconds): then how many were left out since the last one.
    pub(super) fn line(&self, now: u64) -> Option<u64> {
        if self.second.swap(now, Ordering::Relaxed) == now {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let seldom = Seldom::default();
        assert_eq!([7, 7, 7, 8, 8, 9].map(|now| seldom.line(now)), [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
