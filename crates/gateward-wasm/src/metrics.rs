//! Metrics that filters define, kept for the whole process and exported with the gateway's own.
//!
//! A metric is found by name once, when it is defined; afterwards an instance reaches its cell by index. Cells are
//! atomics shared by the workers. Histograms count in buckets of powers of two.

use crate::types::Status;
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Metrics of all filters together; defining more is refused with `INTERNAL_FAILURE`.
pub const METRICS: usize = 4096;
/// Bytes of a metric's name, likewise.
pub const NAME_BYTES: usize = 1024;
/// Buckets of a histogram: values up to 2^0, 2^1, ... 2^38 and beyond.
pub const BUCKETS: usize = 40;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of the specification")]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    pub(crate) fn from_guest(number: u32) -> Result<Self, Status> {
        match number {
            0 => Ok(Self::Counter),
            1 => Ok(Self::Gauge),
            2 => Ok(Self::Histogram),
            _ => Err(Status::BadArgument),
        }
    }
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// As the filter named it.
    pub name: Box<str>,
    /// Counter, gauge or histogram.
    pub kind: MetricKind,
    /// The value of a counter or gauge; of a histogram the sum.
    value: AtomicI64,
    buckets: Box<[AtomicU64]>,
}

type ByName = FxHashMap<(MetricKind, Box<str>), Arc<Metric>>;

/// Every metric of the process.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<ByName>);

impl Metrics {
    /// The metric of this kind and name, made if there is none.
    ///
    /// # Errors
    /// `InternalFailure`: there are too many, or the name is too long.
    pub fn define(&self, kind: MetricKind, name: &str) -> Result<Arc<Metric>, Status> {
        if name.len() > NAME_BYTES {
            return Err(Status::InternalFailure);
        }
        let mut metrics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metric) = metrics.get(&(kind, name.into())) {
            return Ok(metric.clone());
        }
        if metrics.len() >= METRICS {
            return Err(Status::InternalFailure);
        }
        let buckets = if kind == MetricKind::Histogram { BUCKETS } else { 0 };
        let buckets = (0..buckets).map(|_| AtomicU64::new(0)).collect();
        let metric = Arc::new(Metric { name: name.into(), kind, value: AtomicI64::new(0), buckets });
        metrics.insert((kind, name.into()), metric.clone());
        Ok(metric)
    }

    /// Every metric, by name.
    pub fn all(&self) -> Vec<Arc<Metric>> {
        let mut all: Vec<_> = self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by(|left, right| left.name.cmp(&right.name));
        all
    }
}

impl Metric {
    /// Set a gauge or counter, or record a value of a histogram.
    pub fn record(&self, value: u64) {
        if self.kind == MetricKind::Histogram {
            let bucket = (u64::BITS - value.saturating_sub(1).leading_zeros()) as usize;
            self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
            self.value.fetch_add(value as i64, Ordering::Relaxed);
        } else {
            self.value.store(value as i64, Ordering::Relaxed);
        }
    }

    /// Change a gauge or counter.
    ///
    /// # Errors
    /// `BadArgument`: it is a counter and `delta` negative, or a histogram.
    pub fn increment(&self, delta: i64) -> Result<(), Status> {
        if self.kind == MetricKind::Histogram || (self.kind == MetricKind::Counter && delta < 0) {
            return Err(Status::BadArgument);
        }
        self.value.fetch_add(delta, Ordering::Relaxed);
        Ok(())
    }

    /// The value; of a histogram the sum of what was recorded.
    pub fn value(&self) -> i64 {
        self.value.load(Ordering::Relaxed)
    }

    /// How often each bucket of a histogram was hit; empty for the others.
    pub fn buckets(&self) -> Vec<u64> {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_metric_for_everybody() {
        let metrics = Metrics::default();
        let first = metrics.define(MetricKind::Counter, "a").unwrap();
        let second = metrics.define(MetricKind::Counter, "a").unwrap();
        first.increment(2).unwrap();
        second.increment(3).unwrap();
        assert_eq!(first.value(), 5);
        assert_eq!(first.increment(-1), Err(Status::BadArgument));
        let gauge = metrics.define(MetricKind::Gauge, "a").unwrap();
        gauge.record(7);
        gauge.increment(-9).unwrap();
        assert_eq!((gauge.value(), metrics.all().len()), (-2, 2));
    }

    #[test]
    fn a_histogram_counts_in_powers_of_two() {
        let metrics = Metrics::default();
        let metric = metrics.define(MetricKind::Histogram, "h").unwrap();
        for value in [0, 1, 2, 3, 4, 5, u64::MAX] {
            metric.record(value);
        }
        let buckets = metric.buckets();
        assert_eq!((&buckets[..4], buckets[BUCKETS - 1]), (&[2, 1, 2, 1][..], 1));
        assert_eq!(metric.increment(1), Err(Status::BadArgument));
    }

    #[test]
    fn there_is_an_end_to_them() {
        let metrics = Metrics::default();
        for number in 0..METRICS {
            metrics.define(MetricKind::Counter, &number.to_string()).unwrap();
        }
        assert!(metrics.define(MetricKind::Counter, "one more").is_err());
        assert!(metrics.define(MetricKind::Counter, "0").is_ok());
        assert!(metrics.define(MetricKind::Counter, &"x".repeat(NAME_BYTES + 1)).is_err());
    }
}
