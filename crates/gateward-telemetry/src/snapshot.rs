//! A merged copy of all figures: what exporters work on.

use crate::codes::CodeTable;
use crate::consumers::TrafficTally;
use crate::histogram::HistogramSnapshot;
use crate::series::Names;
use crate::worker::{CALL_STATUSES, LatencyTallies, SeriesSlot, Slab};
use crate::{ControlCounter, Counter, Fault, Gauge, OVERFLOW_LABEL};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All figures at one moment, summed over the workers.
#[derive(Debug, Clone, Default)]
pub struct MetricsSnapshot {
    /// Requests by outcome, in the order of [`Fault::ALL`].
    pub outcomes: [u64; Fault::ALL.len()],
    /// Bytes received from clients with requests.
    pub bytes_in: u64,
    /// Bytes sent to clients with responses.
    pub bytes_out: u64,
    /// Latencies of all requests.
    pub latency: LatencySnapshot,
    /// In the order of [`Counter::ALL`].
    pub counters: [u64; Counter::ALL.len()],
    /// In the order of [`Gauge::ALL`].
    pub gauges: [i64; Gauge::ALL.len()],
    /// Refusals by reason.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Ends of upgraded connections by reason.
    pub tunnel_ends: BTreeMap<&'static str, u64>,
    /// Sessions of streams by (protocol, what ended them).
    pub streams: BTreeMap<(&'static str, &'static str), u64>,
    /// Connections by (mode, outcome) of the PROXY header.
    pub proxy_protocol: BTreeMap<(&'static str, &'static str), u64>,
    /// Connections by the VPC endpoint of the PROXY header.
    pub endpoints: BTreeMap<Box<str>, u64>,
    /// gRPC calls by status, 0 to 16; the last are those without a known one.
    pub calls: [u64; CALL_STATUSES],
    /// Series that have figures, in the order in which they were first configured.
    pub series: Vec<SeriesSnapshot>,
    /// In the order of [`ControlCounter::ALL`].
    pub control: [u64; ControlCounter::ALL.len()],
    /// Whether the last configuration offered was taken.
    pub last_reload_success: bool,
}

impl MetricsSnapshot {
    /// A counter's value.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// A gauge's value.
    #[must_use]
    pub fn gauge(&self, gauge: Gauge) -> i64 {
        self.gauges[gauge as usize]
    }

    /// Requests finished, whatever their outcome.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.outcomes.iter().sum()
    }
}

/// The three latencies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LatencySnapshot {
    /// Whole requests.
    pub request: HistogramSnapshot,
    /// What the gateway added.
    pub gateway: HistogramSnapshot,
    /// Upstreams, for requests that asked one.
    pub upstream: HistogramSnapshot,
}

/// The figures of one (service, route).
#[derive(Debug, Clone)]
pub struct SeriesSnapshot {
    /// Name of the service; empty without one.
    pub service: Arc<str>,
    /// Name of the route; empty without one.
    pub route: Arc<str>,
    /// Latencies; `None` while the group was never on.
    pub latency: Option<LatencySnapshot>,
    /// Sessions of streams; `None` while none was counted.
    pub streams: Option<StreamSnapshot>,
    /// Requests and bytes by consumer; the consumer is empty for requests not counted per consumer.
    pub consumers: Vec<ConsumerSnapshot>,
}

/// The sessions of one (service, route). Their bytes are among those of the series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamSnapshot {
    /// By nginx's status, in ascending order of (status, source).
    pub codes: Vec<CodeCount>,
    /// How long they were.
    pub session: HistogramSnapshot,
}

/// The figures of one (service, route, consumer).
#[derive(Debug, Clone)]
pub struct ConsumerSnapshot {
    /// Name of the consumer, or empty.
    pub consumer: Arc<str>,
    /// Requests and bytes.
    pub traffic: Traffic,
}

/// Requests by code, and bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// In ascending order of (status, source).
    pub codes: Vec<CodeCount>,
    /// Bytes received from clients.
    pub bytes_in: u64,
    /// Bytes sent to clients.
    pub bytes_out: u64,
}

/// A status code as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusLabel {
    /// A status code.
    Code(u16),
    /// All codes beyond those a series tells apart.
    Other,
}

/// Responses with one status from one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeCount {
    /// The status.
    pub status: StatusLabel,
    /// Whether the upstream answered, not the gateway.
    pub from_service: bool,
    /// How many.
    pub count: u64,
}

impl MetricsSnapshot {
    /// Sums the slabs; `names` are the labels of the series by id.
    pub(crate) fn merge<'a>(slabs: impl Iterator<Item = &'a Slab>, names: &[Names]) -> Self {
        let mut total = Self::default();
        let mut series: BTreeMap<usize, Draft> = BTreeMap::new();
        for slab in slabs {
            total.add_node(slab);
            for (index, slot) in slab.series.iter() {
                series.entry(index).or_default().add(slot);
            }
            for (_, slot) in slab.consumers.iter() {
                let draft = series.entry(slot.series.index()).or_default();
                draft.consumer(&slot.consumer).add(&slot.traffic);
            }
        }
        // A series made after the names were copied has figures but no name yet; the next scrape shows it.
        total.series = series.into_iter().filter_map(|(index, draft)| Some(draft.finish(names.get(index)?))).collect();
        total
    }

    fn add_node(&mut self, slab: &Slab) {
        for (total, tally) in self.outcomes.iter_mut().zip(&slab.outcomes) {
            *total += tally.value();
        }
        self.bytes_in = self.bytes_in.wrapping_add(slab.bytes_in.value());
        self.bytes_out = self.bytes_out.wrapping_add(slab.bytes_out.value());
        self.latency.add(&slab.latency);
        for (total, tally) in self.counters.iter_mut().zip(&slab.counters) {
            *total += tally.value();
        }
        for (total, level) in self.gauges.iter_mut().zip(&slab.gauges) {
            *total += level.value();
        }
        if let Some(ends) = slab.tunnel_ends.get() {
            ends.for_each(|reason, n| *self.tunnel_ends.entry(reason).or_default() += n);
        }
        if let Some(tally) = slab.streams.get() {
            tally.add_to(&mut self.streams);
        }
        if let Some(tally) = slab.proxy_protocol.get() {
            tally.add_to(&mut self.proxy_protocol, &mut self.endpoints);
        }
        for (total, tally) in self.calls.iter_mut().zip(&slab.calls) {
            *total += tally.value();
        }
        slab.refusals.for_each(|reason, n| *self.refusals.entry(reason).or_default() += n);
    }
}

impl LatencySnapshot {
    fn add(&mut self, tallies: &LatencyTallies) {
        tallies.request.add_to(&mut self.request);
        tallies.gateway.add_to(&mut self.gateway);
        tallies.upstream.add_to(&mut self.upstream);
    }
}

/// A series while it is being summed.
#[derive(Default)]
struct Draft {
    latency: Option<LatencySnapshot>,
    streams: Option<StreamDraft>,
    consumers: BTreeMap<Arc<str>, TrafficDraft>,
}

#[derive(Default)]
struct StreamDraft {
    traffic: TrafficDraft,
    session: HistogramSnapshot,
}

#[derive(Default)]
struct TrafficDraft {
    codes: BTreeMap<(StatusLabel, bool), u64>,
    bytes_in: u64,
    bytes_out: u64,
}

impl Draft {
    fn add(&mut self, slot: &SeriesSlot) {
        if let Some(latency) = slot.latency.get() {
            self.latency.get_or_insert_default().add(latency);
        }
        self.consumer("").add(&slot.traffic);
        if let Some(streams) = slot.streams.get() {
            let draft = self.streams.get_or_insert_default();
            draft.traffic.add_codes(&streams.traffic.codes);
            streams.session.add_to(&mut draft.session);
            self.consumer("").add_bytes(&streams.traffic);
        }
        if let Some(others) = slot.other_consumers.get() {
            self.consumer(OVERFLOW_LABEL).add(others);
        }
    }

    fn consumer(&mut self, name: &str) -> &mut TrafficDraft {
        // Looked up by borrow first: a scrape should not allocate a name per consumer and worker.
        if !self.consumers.contains_key(name) {
            self.consumers.insert(name.into(), TrafficDraft::default());
        }
        self.consumers.get_mut(name).expect("inserted above")
    }

    fn finish(self, names: &Names) -> SeriesSnapshot {
        let consumers = self.consumers.into_iter();
        SeriesSnapshot {
            service: Arc::clone(&names.0),
            route: Arc::clone(&names.1),
            latency: self.latency,
            streams: self
                .streams
                .map(|draft| StreamSnapshot { codes: draft.traffic.finish().codes, session: draft.session }),
            consumers: consumers
                .map(|(consumer, draft)| ConsumerSnapshot { consumer, traffic: draft.finish() })
                .collect(),
        }
    }
}

impl TrafficDraft {
    fn add(&mut self, tally: &TrafficTally) {
        self.add_codes(&tally.codes);
        self.add_bytes(tally);
    }

    fn add_bytes(&mut self, tally: &TrafficTally) {
        self.bytes_in = self.bytes_in.wrapping_add(tally.bytes_in.value());
        self.bytes_out = self.bytes_out.wrapping_add(tally.bytes_out.value());
    }

    fn add_codes(&mut self, codes: &CodeTable) {
        codes.for_each(|status, from_service, n| {
            let status = status.map_or(StatusLabel::Other, StatusLabel::Code);
            *self.codes.entry((status, from_service)).or_default() += n;
        });
    }

    fn finish(self) -> Traffic {
        let codes = self.codes.into_iter();
        let codes = codes.map(|((status, from_service), count)| CodeCount { status, from_service, count }).collect();
        Traffic { codes, bytes_in: self.bytes_in, bytes_out: self.bytes_out }
    }
}

impl SeriesSnapshot {
    /// Requests over all consumers and codes.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.consumers.iter().flat_map(|consumer| &consumer.traffic.codes).map(|code| code.count).sum()
    }
}
