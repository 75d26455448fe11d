//! One worker's slab of figures and the handle that writes it.
//!
//! The slab starts on its own cache line: two workers must never write to the same one.

use crate::cells::{Level, Sparse, Tally};
use crate::consumers::{ConsumerIndex, ConsumerSlot, TrafficTally};
use crate::histogram::Histogram;
use crate::proxy_protocol::{ProxyProtocolOutcome, ProxyProtocolTally};
use crate::refusals::Refusals;
use crate::streams::{StreamSlot, StreamTally};
use crate::{Counter, Fault, Gauge, Limits, Sample, Source, StreamSample};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The statuses gRPC knows, 0 to 16, and one place for none or another.
pub(crate) const CALL_STATUSES: usize = 18;

/// The figures of one worker. 128 bytes: CPUs fetch cache lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Slab {
    pub(crate) outcomes: [Tally; Fault::ALL.len()],
    pub(crate) bytes_in: Tally,
    pub(crate) bytes_out: Tally,
    pub(crate) latency: LatencyTallies,
    pub(crate) counters: [Tally; Counter::ALL.len()],
    pub(crate) gauges: [Level; Gauge::ALL.len()],
    pub(crate) refusals: Refusals,
    /// Exists once an upgraded connection ended.
    pub(crate) tunnel_ends: OnceLock<Box<Refusals>>,
    /// Exists once a stream ended.
    pub(crate) streams: OnceLock<Box<StreamTally>>,
    /// Exists once a listener took PROXY headers.
    pub(crate) proxy_protocol: OnceLock<Box<ProxyProtocolTally>>,
    /// gRPC calls by status; the last one is for those without a known one.
    pub(crate) calls: [Tally; CALL_STATUSES],
    pub(crate) series: Sparse<SeriesSlot>,
    pub(crate) consumers: Sparse<ConsumerSlot>,
    consumer_limit: usize,
    /// A handle exists; there must never be two writers.
    taken: AtomicBool,
}

/// The three latencies of a request. Aligned for the reason the slab is.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct LatencyTallies {
    pub(crate) request: Histogram,
    pub(crate) gateway: Histogram,
    pub(crate) upstream: Histogram,
}

impl LatencyTallies {
    #[inline]
    fn record(&self, sample: &Sample<'_>) {
        self.request.record(sample.request_us);
        self.gateway.record(sample.gateway_us);
        if let Some(us) = sample.upstream_us {
            self.upstream.record(us);
        }
    }
}

/// One series' figures; each part exists once its group was on for a request.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct SeriesSlot {
    pub(crate) traffic: TrafficTally,
    pub(crate) latency: OnceLock<Box<LatencyTallies>>,
    /// Consumers beyond the limit.
    pub(crate) other_consumers: OnceLock<Box<TrafficTally>>,
    pub(crate) streams: OnceLock<Box<StreamSlot>>,
}

impl Slab {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            outcomes: Default::default(),
            bytes_in: Tally::default(),
            bytes_out: Tally::default(),
            latency: LatencyTallies::default(),
            counters: Default::default(),
            gauges: Default::default(),
            refusals: Refusals::default(),
            tunnel_ends: OnceLock::new(),
            streams: OnceLock::new(),
            proxy_protocol: OnceLock::new(),
            calls: Default::default(),
            series: Sparse::with_capacity(limits.series.saturating_add(crate::series::RESERVED)),
            consumers: Sparse::with_capacity(limits.consumers),
            consumer_limit: limits.consumers,
            taken: AtomicBool::new(false),
        }
    }
}

/// The handle through which one worker records. It can move to the worker's thread but not be shared.
#[derive(Debug)]
pub struct WorkerMetrics {
    slab: Arc<Slab>,
    /// `RefCell` also makes the handle `!Sync`, which is what lets the slab do without atomic additions.
    consumers: RefCell<ConsumerIndex>,
}

impl WorkerMetrics {
    /// `None` while another handle to the slab exists.
    pub(crate) fn take(slab: &Arc<Slab>) -> Option<Self> {
        // Acquire pairs with the release in `drop`: a new writer must see all that the old one wrote.
        if slab.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        let consumers = RefCell::new(ConsumerIndex::of(&slab.consumers));
        Some(Self { slab: Arc::clone(slab), consumers })
    }

    /// Records one finished request: its outcome, bytes and latencies for the node, and for its route whatever
    /// groups are on.
    #[inline]
    pub fn record(&self, sample: &Sample<'_>) {
        let slab = &*self.slab;
        slab.outcomes[sample.fault as usize].add(1);
        slab.bytes_in.add(sample.bytes_in);
        slab.bytes_out.add(sample.bytes_out);
        slab.latency.record(sample);
        let groups = sample.groups;
        if groups.status_code || groups.latency || groups.bandwidth {
            self.record_series(sample);
        }
    }

    /// Adds one to `counter`.
    #[inline]
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Adds `n` to `counter`.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        self.slab.counters[counter as usize].add(n);
    }

    /// Moves `gauge` up or down by `n`.
    #[inline]
    pub fn gauge_add(&self, gauge: Gauge, n: i64) {
        self.slab.gauges[gauge as usize].add(n);
    }

    /// Counts a refusal (a request or connection the gateway turned down) by its reason.
    ///
    /// Reasons are a fixed vocabulary; a worker tells 128 apart and gathers the rest under `__overflow__`.
    pub fn refuse(&self, reason: &'static str) {
        self.slab.refusals.count(reason);
    }

    /// Counts the end of an upgraded connection by its reason, of a fixed vocabulary.
    pub fn tunnel_ended(&self, reason: &'static str) {
        self.slab.tunnel_ends.get_or_init(Box::default).count(reason);
    }

    /// Records one finished session of a stream.
    pub fn record_stream(&self, sample: &StreamSample) {
        self.slab.streams.get_or_init(Box::default).count(sample.kind, sample.end);
        self.add(Counter::StreamBytesReceived, sample.bytes_in);
        self.add(Counter::StreamBytesSent, sample.bytes_out);
        let groups = sample.groups;
        if !(groups.status_code || groups.latency || groups.bandwidth) {
            return;
        }
        let Some(series) = self.slab.series.entry(sample.series.index()) else { return };
        series.streams.get_or_init(Box::default).record(sample);
        if groups.latency {
            series.latency.get_or_init(Box::default).gateway.record(sample.gateway_us);
        }
    }

    /// Counts a connection to a listener that takes PROXY headers. `vpce_id`: the VPC endpoint its header named; a worker
    /// tells a bounded number of these apart and gathers the rest under `__overflow__`.
    pub fn proxied(&self, required: bool, outcome: ProxyProtocolOutcome, vpce_id: Option<&str>) {
        self.slab.proxy_protocol.get_or_init(Box::default).count(required, outcome, vpce_id);
    }

    /// Counts a gRPC call by the status with which it ended.
    pub fn count_call(&self, status: Option<u8>) {
        let status = status.map_or(CALL_STATUSES - 1, usize::from);
        self.slab.calls[status.min(CALL_STATUSES - 1)].add(1);
    }

    fn record_series(&self, sample: &Sample<'_>) {
        let Some(series) = self.slab.series.entry(sample.series.index()) else { return };
        if sample.groups.latency {
            series.latency.get_or_init(Box::default).record(sample);
        }
        if !(sample.groups.status_code || sample.groups.bandwidth) {
            return;
        }
        match sample.consumer {
            Some(consumer) if sample.groups.per_consumer => {
                let mut index = self.consumers.borrow_mut();
                let slab = &*self.slab;
                let known = index.traffic(&slab.consumers, slab.consumer_limit, sample.series, consumer);
                record_traffic(known.unwrap_or_else(|| series.other_consumers.get_or_init(Box::default)), sample);
            }
            _ => record_traffic(&series.traffic, sample),
        }
    }
}

#[inline]
fn record_traffic(traffic: &TrafficTally, sample: &Sample<'_>) {
    if sample.groups.status_code {
        traffic.codes.count(sample.status, sample.source == Source::Service);
    }
    if sample.groups.bandwidth {
        traffic.bytes_in.add(sample.bytes_in);
        traffic.bytes_out.add(sample.bytes_out);
    }
}

impl Drop for WorkerMetrics {
    fn drop(&mut self) {
        self.slab.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Groups, SeriesId};

    /// Memory is what is used, not what is configured.
    #[test]
    fn an_unused_slab_is_small() {
        let slab = Arc::new(Slab::new(&Limits::default()));
        assert!(size_of::<Slab>() <= 8 << 10, "{}", size_of::<Slab>());
        assert!(size_of::<SeriesSlot>() <= 256, "{}", size_of::<SeriesSlot>());
        let worker = WorkerMetrics::take(&slab).expect("the first handle");
        let groups = Groups { status_code: true, ..Groups::default() };
        let sample = Sample {
            series: SeriesId(9_999),
            status: 200,
            source: Source::Service,
            fault: Fault::None,
            request_us: 1,
            gateway_us: 1,
            upstream_us: None,
            bytes_in: 0,
            bytes_out: 0,
            groups,
            consumer: Some("alice"),
        };
        worker.record(&sample);
        worker.record(&Sample { series: SeriesId(9_998), groups: Groups::default(), ..sample });
        assert_eq!(slab.series.iter().map(|(index, _)| index).collect::<Vec<_>>(), [9_999]);
        assert_eq!(slab.consumers.iter().count(), 0);
        assert!(slab.series.iter().all(|(_, slot)| slot.latency.get().is_none()));
    }
}
