//! How often a zone may change: a bucket that fills by itself.

use std::time::Instant;

/// Changes that a zone may make in one go after it was quiet, in seconds' worth of its rate.
const BURST_SECONDS: f64 = 2.0;

/// What is left of a rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(now: Instant) -> Self {
        Bucket { left: f64::INFINITY, at: now }
    }

    /// Takes one of `per_second`; 0 is no limit. Otherwise tells how many seconds to wait.
    pub(super) fn take(&mut self, per_second: u32, now: Instant) -> Result<(), f64> {
        if per_second == 0 {
            return Ok(());
        }
        let rate = f64::from(per_second);
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + elapsed * rate).min(rate * BURST_SECONDS);
        if self.left < 1.0 {
            return Err((1.0 - self.left) / rate);
        }
        self.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_holds_over_time_and_allows_bursts() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let taken = |bucket: &mut Bucket, now| (0..1_000).take_while(|_| bucket.take(10, now).is_ok()).count();
        assert_eq!(taken(&mut bucket, start), 20);
        assert!(bucket.take(10, start).is_err_and(|wait| wait <= 0.1));
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(500)), 5);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(60)), 20);
        assert!((0..1_000).all(|_| bucket.take(0, start).is_ok()));
    }
}
