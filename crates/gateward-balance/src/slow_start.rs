//! Slow start: a target that is new, or back, gets its share little by little.
//!
//! A cold target (empty caches, a just-in-time compiler, few connections) that gets its full share at once is slow
//! at best and fails at worst.

/// How a share grows; `resilience.slow_start` of an upstream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// Microseconds until the full share.
    pub window_us: u64,
    /// 1: evenly; more: faster at the beginning; less: slower.
    pub aggression: f64,
    /// Least percent of the weight.
    pub min_weight_percent: f64,
}

impl SlowStart {
    /// Whether a target that got its traffic `elapsed_us` ago has its full share.
    pub fn is_over(&self, elapsed_us: u64) -> bool {
        elapsed_us >= self.window_us
    }

    /// The weight at that moment; at least 1 for a weight that is not 0.
    pub fn weight(&self, full: u16, elapsed_us: u64) -> u16 {
        if full == 0 || self.is_over(elapsed_us) {
            return full;
        }
        let passed = elapsed_us as f64 / self.window_us as f64;
        let share = passed.powf(1.0 / self.aggression.max(f64::EPSILON)).max(self.min_weight_percent / 100.0);
        (f64::from(full) * share.min(1.0)).round().max(1.0) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVEN: SlowStart = SlowStart { window_us: 1_000, aggression: 1.0, min_weight_percent: 10.0 };

    #[test]
    fn the_share_grows_from_the_least_to_all() {
        let at = [0, 50, 100, 500, 999, 1_000, 5_000].map(|elapsed| EVEN.weight(200, elapsed));
        assert_eq!(at, [20, 20, 20, 100, 200, 200, 200]);
        assert!(!EVEN.is_over(999) && EVEN.is_over(1_000));
    }

    #[test]
    fn aggression_bends_the_curve_and_weights_stay_usable() {
        let eager = SlowStart { aggression: 2.0, ..EVEN };
        assert_eq!(eager.weight(100, 250), 50);
        let shy = SlowStart { aggression: 0.5, ..EVEN };
        assert_eq!(shy.weight(100, 500), 25);
        assert_eq!(EVEN.weight(1, 0), 1);
        assert_eq!(EVEN.weight(0, 500), 0, "a disabled target stays so");
    }

    proptest! {
        #[test]
        fn the_share_only_grows(
            full in 0..=u16::MAX, aggression in 0.1..10.0_f64, min_weight_percent in 0.0..100.0_f64,
            mut moments in prop::collection::vec(0..1_500_u64, 1..20),
        ) {
            let slow = SlowStart { window_us: 1_000, aggression, min_weight_percent };
            moments.sort_unstable();
            let shares: Vec<u16> = moments.iter().map(|moment| slow.weight(full, *moment)).collect();
            prop_assert!(shares.is_sorted() && shares.iter().all(|share| *share <= full && (*share > 0) == (full > 0)));
            let least = (f64::from(full) * min_weight_percent / 100.0).floor();
            prop_assert!(shares.iter().all(|share| f64::from(*share) >= least));
        }
    }
}
