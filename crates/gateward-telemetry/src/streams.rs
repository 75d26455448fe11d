//! Sessions of streams: what the data plane reports about one, and how they are counted. They are no requests, so the
//! success rate and the latencies of requests know nothing of them.

use crate::consumers::TrafficTally;
use crate::histogram::Histogram;
use crate::refusals::Refusals;
use crate::{Groups, SeriesId, Source};
use std::collections::BTreeMap;

/// What carries a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum StreamKind {
    /// A TCP connection.
    Tcp,
    /// A TLS connection that ends at the gateway.
    Tls,
    /// A TLS connection that passes through unread.
    TlsPassthrough,
    /// Datagrams of one client address.
    Udp,
}

impl StreamKind {
    const ALL: [Self; 4] = [Self::Tcp, Self::Tls, Self::TlsPassthrough, Self::Udp];

    /// Its label, which is Kong's name of the protocol.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::TlsPassthrough => "tls_passthrough",
            Self::Udp => "udp",
        }
    }
}

/// The figures of one finished session.
#[derive(Debug, Clone, Copy)]
pub struct StreamSample {
    /// The route's series, or [`SeriesId::NONE`].
    pub series: SeriesId,
    /// What carried it.
    pub kind: StreamKind,
    /// What ended it or kept it from being served, of a fixed vocabulary.
    pub end: &'static str,
    /// nginx's status of a session: 200, 403, 500, 502 and so on.
    pub status: u16,
    /// Whether it reached its upstream.
    pub source: Source,
    /// First to last byte; microseconds.
    pub session_us: u64,
    /// From the first byte until the upstream was dialled; microseconds.
    pub gateway_us: u64,
    /// Bytes received from the client.
    pub bytes_in: u64,
    /// Bytes sent to the client.
    pub bytes_out: u64,
    /// Metric groups that are on for this session.
    pub groups: Groups,
}

/// One worker's sessions by kind and end.
#[derive(Debug, Default)]
pub(crate) struct StreamTally([Refusals; StreamKind::ALL.len()]);

impl StreamTally {
    pub(crate) fn count(&self, kind: StreamKind, end: &'static str) {
        self.0[kind as usize].count(end);
    }

    pub(crate) fn add_to(&self, sessions: &mut BTreeMap<(&'static str, &'static str), u64>) {
        for (kind, ends) in StreamKind::ALL.into_iter().zip(&self.0) {
            ends.for_each(|end, n| *sessions.entry((kind.label(), end)).or_default() += n);
        }
    }
}

/// The sessions of one series.
#[derive(Debug, Default)]
pub(crate) struct StreamSlot {
    pub(crate) traffic: TrafficTally,
    pub(crate) session: Histogram,
}

impl StreamSlot {
    pub(crate) fn record(&self, sample: &StreamSample) {
        let groups = sample.groups;
        if groups.status_code {
            self.traffic.codes.count(sample.status, sample.source == Source::Service);
        }
        if groups.bandwidth {
            self.traffic.bytes_in.add(sample.bytes_in);
            self.traffic.bytes_out.add(sample.bytes_out);
        }
        if groups.latency {
            self.session.record(sample.session_us);
        }
    }
}
