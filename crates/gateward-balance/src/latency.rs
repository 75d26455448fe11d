//! Peak EWMA: how slow a target is, quick to believe bad news and slow to forget it.
//!
//! The estimate jumps to any observation above it and otherwise moves towards observations by
//! `1 - exp(-elapsed / DECAY)`; while nothing is observed it decays towards zero, so that a target that was slow
//! once is tried again. The shape is Finagle's `PeakEwma`; the 10 s are those of Kong's `latency` algorithm.

/// Time in which an estimate without observations falls to 1/e, in microseconds.
pub(crate) const DECAY_US: f64 = 10_000_000.0;

/// No estimate falls below this, so that the number of requests in flight always counts.
const FLOOR_US: f64 = 1.0;

/// How much one observation moves the upstream's typical latency.
const TYPICAL_SHARE: f64 = 1.0 / 16.0;

/// The estimate for one target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PeakEwma {
    /// `None` until the first observation; the upstream's typical latency stands in.
    value_us: Option<f64>,
    /// When `value_us` was last brought up to date; for a target without observations, when it was added.
    stamp_us: u64,
}

impl PeakEwma {
    pub(crate) fn new(now_us: u64) -> Self {
        Self { value_us: None, stamp_us: now_us }
    }

    /// The estimate at `now_us`, in microseconds. A target nobody has measured counts as typical, and decays
    /// like the others: it is soon tried, but not flooded before its first answer.
    pub(crate) fn at(&self, now_us: u64, typical_us: f64) -> f64 {
        let value_us = self.value_us.unwrap_or(typical_us);
        (value_us * self.decay(now_us)).max(FLOOR_US)
    }

    pub(crate) fn observe(&mut self, latency_us: u64, now_us: u64) {
        let observed_us = latency_us as f64;
        let decay = self.decay(now_us);
        self.value_us = Some(match self.value_us {
            Some(value_us) if value_us > observed_us => value_us * decay + observed_us * (1.0 - decay),
            _ => observed_us,
        });
        self.stamp_us = self.stamp_us.max(now_us);
    }

    /// A request ended without a latency: the estimate starts to decay anew. A target that only fails must not
    /// grow more attractive while it does.
    pub(crate) fn hold(&mut self, now_us: u64) {
        self.stamp_us = self.stamp_us.max(now_us);
    }

    fn decay(&self, now_us: u64) -> f64 {
        let elapsed_us = now_us.saturating_sub(self.stamp_us) as f64;
        (-elapsed_us / DECAY_US).exp()
    }
}

/// The latency of the upstream as a whole, which stands in for targets not yet measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Typical {
    value_us: Option<f64>,
}

impl Typical {
    pub(crate) fn observe(&mut self, latency_us: u64) {
        let observed_us = latency_us as f64;
        let before_us = self.value_us.unwrap_or(observed_us);
        self.value_us = Some(before_us + (observed_us - before_us) * TYPICAL_SHARE);
    }

    pub(crate) fn value_us(&self) -> f64 {
        self.value_us.unwrap_or(FLOOR_US)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_at_once_and_falls_slowly() {
        let mut estimate = PeakEwma::new(0);
        estimate.observe(1_000, 0);
        estimate.observe(50_000, 1);
        assert_eq!(estimate.at(1, 0.0), 50_000.0);
        estimate.observe(1_000, 1_000_001);
        let after_us = estimate.at(1_000_001, 0.0);
        assert!((45_000.0..46_000.0).contains(&after_us), "{after_us}");
    }

    #[test]
    fn decays_to_the_floor_and_survives_a_clock_that_steps_back() {
        let mut estimate = PeakEwma::new(0);
        estimate.observe(10_000, 5_000_000);
        assert_eq!(estimate.at(0, 0.0), 10_000.0);
        let later_us = estimate.at(15_000_000, 0.0);
        assert!((3_600.0..3_700.0).contains(&later_us), "{later_us}");
        assert_eq!(estimate.at(u64::MAX, 0.0), FLOOR_US);
    }

    #[test]
    fn a_failure_does_not_make_a_target_look_faster() {
        let mut estimate = PeakEwma::new(0);
        estimate.observe(10_000, 0);
        estimate.hold(20_000_000);
        assert_eq!(estimate.at(20_000_000, 0.0), 10_000.0);
    }
}
