//! Latency histograms in microseconds, log-linear in decimal.
//!
//! Up to 10 us every microsecond is a bucket; from there to 100 s each decade holds 32: steps of 1 from 10 to 20,
//! of 2.5 to 50 and of 5 to 100, scaled by the decade. No bucket is wider than 12.5 % of its values, so a
//! quantile is within 6 %. Decimal steps make every boundary anybody exports (Kong's buckets, ours) a boundary
//! here, so exported counts are exact, which binary log-linear buckets would not give.
//!
//! A histogram's 32-bucket blocks are allocated when a value first falls into them: a route's latencies touch
//! two or three of eight.

use crate::cells::Tally;
use std::sync::OnceLock;

/// Buckets of a histogram, the last one for values above [`MAX_US`].
pub const BUCKETS: usize = EDGE_COUNT + 1;
/// Highest value told apart; microseconds.
pub const MAX_US: u64 = 100_000_000;

const LINEAR: usize = 10;
const DECADES: usize = 7;
const PER_DECADE: usize = 32;
const EDGE_COUNT: usize = LINEAR + DECADES * PER_DECADE;

/// Upper bound of each bucket, inclusive.
static EDGES: [u64; EDGE_COUNT] = edges();

/// The bucket of the lowest value of each cell. Cells split every power of two into 32, which is finer than the
/// buckets, so a value's bucket is its cell's or the next.
static FIRST: [u8; CELLS] = first_buckets();
const CELLS: usize = cell(MAX_US) + 1;

const BLOCK: usize = 32;
const BLOCKS: usize = BUCKETS.div_ceil(BLOCK);

const fn edges() -> [u64; EDGE_COUNT] {
    let mut edges = [0; EDGE_COUNT];
    let mut at = 0;
    while at < LINEAR {
        edges[at] = at as u64 + 1;
        at += 1;
    }
    let mut decade = 10;
    while decade < MAX_US {
        // In hundredths of the decade, so that steps of 2.5 stay whole; values are whole, so rounding down is exact.
        let mut hundredths = 100;
        while hundredths < 1000 {
            hundredths += match hundredths {
                0..200 => 10,
                200..500 => 25,
                _ => 50,
            };
            edges[at] = hundredths * decade / 100;
            at += 1;
        }
        decade *= 10;
    }
    assert!(at == EDGE_COUNT && edges[EDGE_COUNT - 1] == MAX_US);
    edges
}

/// Index of the cell a value falls into.
#[inline]
const fn cell(us: u64) -> usize {
    if us < 64 {
        return us as usize;
    }
    let shift = us.ilog2() - 5;
    ((shift as usize) << 5) + (us >> shift) as usize
}

const fn first_buckets() -> [u8; CELLS] {
    let edges = edges();
    let mut first = [0; CELLS];
    let mut at = 0;
    let mut bucket = 0;
    while at < CELLS {
        let lowest = if at < 64 { at as u64 } else { (32 + (at as u64 & 31)) << (at / 32 - 1) };
        while edges[bucket] < lowest {
            bucket += 1;
        }
        first[at] = bucket as u8;
        at += 1;
    }
    first
}

/// The bucket that counts a value.
#[inline]
#[must_use]
pub fn bucket_of(us: u64) -> usize {
    if us > MAX_US {
        return EDGE_COUNT;
    }
    let bucket = usize::from(FIRST[cell(us)]);
    bucket + usize::from(us > EDGES[bucket])
}

/// Some buckets, on cache lines of their own: blocks of several workers may be neighbours in memory.
#[derive(Debug)]
#[repr(align(64))]
struct Block([Tally; BLOCK]);

impl Block {
    fn empty() -> Box<Self> {
        Box::new(Self([const { Tally::new() }; BLOCK]))
    }
}

/// A histogram written by one worker and read by any thread.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    blocks: [OnceLock<Box<Block>>; BLOCKS],
    sum_us: Tally,
}

impl Histogram {
    /// Counts one value. Allocates at most [`BLOCKS`] times in the histogram's life.
    #[inline]
    pub(crate) fn record(&self, us: u64) {
        let bucket = bucket_of(us);
        let block = self.blocks[bucket / BLOCK].get_or_init(Block::empty);
        block.0[bucket % BLOCK].add(1);
        self.sum_us.add(us);
    }

    /// Adds this histogram to `total`.
    pub(crate) fn add_to(&self, total: &mut HistogramSnapshot) {
        for (number, block) in self.blocks.iter().enumerate() {
            for (at, tally) in block.get().into_iter().flat_map(|block| block.0.iter()).enumerate() {
                total.add(number * BLOCK + at, tally.value());
            }
        }
        total.sum_us = total.sum_us.wrapping_add(self.sum_us.value());
    }
}

/// A merged copy of histograms; empty ends are not stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Bucket number of the first stored count.
    first: usize,
    counts: Vec<u64>,
    sum_us: u64,
}

impl HistogramSnapshot {
    fn add(&mut self, bucket: usize, n: u64) {
        if n == 0 {
            return;
        }
        if self.counts.is_empty() {
            self.first = bucket;
        } else if bucket < self.first {
            self.counts.splice(0..0, std::iter::repeat_n(0, self.first - bucket));
            self.first = bucket;
        }
        let at = bucket - self.first;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += n;
    }

    /// Values counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of the values; microseconds. Read a moment apart from the counts.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Occupied buckets in ascending order: inclusive upper bound in microseconds (`None`: unbounded) and count.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        self.counts.iter().enumerate().map(|(at, n)| (EDGES.get(self.first + at).copied(), *n)).filter(|(_, n)| *n > 0)
    }

    /// How many values are at most each of `bounds_us` (ascending; microseconds). Exact where a bound has at most
    /// two significant digits, or is a multiple of 2.5 in a decade below 50; otherwise values of the bucket the
    /// bound lies in are left out.
    pub fn cumulative<'a>(&'a self, bounds_us: &'a [u64]) -> impl Iterator<Item = u64> + 'a {
        let mut buckets = self.buckets().peekable();
        let mut total = 0;
        bounds_us.iter().map(move |bound| {
            while let Some((_, n)) = buckets.next_if(|(edge, _)| edge.is_some_and(|edge| edge <= *bound)) {
                total += n;
            }
            total
        })
    }

    /// The value below which the share `quantile` (0 to 1) of the values lies, within 6 %; microseconds. `None` when
    /// empty. Values above [`MAX_US`] are reported as [`MAX_US`], and 0 as 1.
    #[must_use]
    pub fn quantile_us(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        let rank = ((quantile.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        for (at, n) in self.counts.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return Some(middle_us(self.first + at));
            }
        }
        None
    }
}

/// The value with the smallest relative error for a whole bucket: the harmonic mean of its ends.
fn middle_us(bucket: usize) -> f64 {
    let Some(high) = EDGES.get(bucket) else { return MAX_US as f64 };
    // The lowest bucket holds 0 too, which no relative error suits.
    let low = bucket.checked_sub(1).map_or(1, |below| EDGES[below] + 1);
    2.0 * low as f64 * *high as f64 / (low + high) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> HistogramSnapshot {
        let (histogram, mut snapshot) = (Histogram::default(), HistogramSnapshot::default());
        values.into_iter().for_each(|us| histogram.record(us));
        histogram.add_to(&mut snapshot);
        snapshot
    }

    #[test]
    fn every_edge_is_the_last_value_of_its_bucket() {
        assert!(EDGES.is_sorted_by(|a, b| a < b));
        for (bucket, edge) in EDGES.iter().enumerate() {
            assert_eq!(bucket_of(*edge), bucket, "{edge}");
            assert_eq!(bucket_of(*edge + 1), bucket + 1, "{edge} + 1");
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, EDGE_COUNT));
    }

    #[test]
    fn the_table_agrees_with_a_search() {
        let mut us = 0_u64;
        while us < 2 * MAX_US {
            assert_eq!(bucket_of(us), EDGES.partition_point(|edge| *edge < us), "{us}");
            us += 1 + us / 5000;
        }
    }

    #[test]
    fn quantiles_are_within_six_percent() {
        for us in (1..200_000).step_by(7).chain([999_999, 59_999_999, 60_000_001]) {
            let reported = histogram([us]).quantile_us(0.5).expect("one value");
            let error = (reported - us as f64).abs() / us as f64;
            assert!(error <= 0.06, "{us} us reported as {reported}");
        }
        assert_eq!(histogram([]).quantile_us(0.5), None);
        assert_eq!(histogram([0]).quantile_us(1.0), Some(1.0));
    }

    #[test]
    fn cumulative_counts_are_inclusive_and_exact_at_decimal_bounds() {
        let snapshot = histogram([999, 1000, 1001, 2500, 2501, 7000, 200_000_000]);
        let cumulative: Vec<_> = snapshot.cumulative(&[50, 1000, 2500, 7000, 10_000, MAX_US]).collect();
        assert_eq!(cumulative, [0, 2, 4, 6, 6, 6]);
        assert_eq!(snapshot.count(), 7);
    }
}
