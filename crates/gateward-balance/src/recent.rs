//! Recent latencies, for percentiles: a histogram that halves itself every so often.
//!
//! Buckets are a sixteenth of their value wide, which is exact enough to say when an answer is late. Halving keeps old
//! observations from outvoting new ones, at the price of a pass over the buckets per [`HALVE_AFTER`] observations.

/// Observations after which all counts are halved.
const HALVE_AFTER: u32 = 1024;
/// Observations below which no percentile is given.
const ENOUGH: u32 = 64;

const PRECISION_BITS: u32 = 4;
/// Values up to 2^32 microseconds, over an hour; longer ones count as that.
const BUCKETS: usize = ((32 - PRECISION_BITS as usize) + 1) << PRECISION_BITS;

/// Latencies of an upstream as one worker sees them.
#[derive(Debug, Clone)]
pub struct RecentLatencies {
    counts: Box<[u32]>,
    total: u32,
    since_halved: u32,
}

impl Default for RecentLatencies {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into(), total: 0, since_halved: 0 }
    }
}

impl RecentLatencies {
    /// Count a latency in microseconds.
    pub fn observe(&mut self, latency_us: u64) {
        self.counts[bucket(latency_us)] += 1;
        self.total += 1;
        self.since_halved += 1;
        if self.since_halved == HALVE_AFTER {
            self.since_halved = 0;
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// The latency that `percent` of the recent ones did not exceed, in microseconds (at most a sixteenth too much);
    /// `None` while too few are known.
    pub fn percentile_us(&self, percent: f64) -> Option<u64> {
        if self.total < ENOUGH {
            return None;
        }
        let rank = (percent / 100.0 * f64::from(self.total)).ceil().max(1.0);
        let mut seen = 0.0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += f64::from(*count);
            if seen >= rank {
                return Some(upper(index));
            }
        }
        Some(upper(BUCKETS - 1))
    }
}

/// Values below 16 by themselves; above, sixteen buckets per power of two.
fn bucket(value: u64) -> usize {
    let value = value.min(u64::from(u32::MAX));
    if value < 1 << PRECISION_BITS {
        return value as usize;
    }
    let shift = value.ilog2() - PRECISION_BITS;
    (((shift as usize) + 1) << PRECISION_BITS) + ((value >> shift) as usize & ((1 << PRECISION_BITS) - 1))
}

/// The greatest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let (power, step) = (bucket >> PRECISION_BITS, (bucket & ((1 << PRECISION_BITS) - 1)) as u64);
    if power == 0 {
        return step;
    }
    (((1 << PRECISION_BITS) + step + 1) << (power - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_said_before_enough_is_known() {
        let mut recent = RecentLatencies::default();
        (1..ENOUGH).for_each(|_| recent.observe(100));
        assert_eq!(recent.percentile_us(99.0), None);
        recent.observe(100);
        assert!((100..=106).contains(&recent.percentile_us(99.0).unwrap()));
    }

    #[test]
    fn what_was_long_ago_is_outvoted() {
        let mut recent = RecentLatencies::default();
        (0..5_000).for_each(|_| recent.observe(1_000_000));
        (0..10 * HALVE_AFTER).for_each(|_| recent.observe(1_000));
        assert!(recent.percentile_us(99.0).unwrap() < 1_100);
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_list(mut list in prop::collection::vec(0_u64..10_000_000, 64..1000), percent in 50.0_f64..99.9) {
            let mut recent = RecentLatencies::default();
            list.iter().for_each(|latency| recent.observe(*latency));
            list.sort_unstable();
            let rank = (percent / 100.0 * list.len() as f64).ceil() as usize;
            let (exact, found) = (list[rank.max(1) - 1], recent.percentile_us(percent).unwrap());
            prop_assert!(found >= exact && found as f64 <= exact as f64 * 17.0 / 16.0 + 1.0, "{} for {}", found, exact);
        }

        #[test]
        fn every_value_lies_in_its_bucket(value in 0_u64..=u64::from(u32::MAX)) {
            let index = bucket(value);
            prop_assert!(index < BUCKETS && value <= upper(index) && (index == 0 || value > upper(index - 1)));
        }
    }
}
