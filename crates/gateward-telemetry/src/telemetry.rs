//! The registry: all workers' slabs, the series' names and the control side's counters.

use crate::cells::Tally;
use crate::series::SeriesTable;
use crate::snapshot::MetricsSnapshot;
use crate::worker::{Slab, WorkerMetrics};
use crate::{ControlCounter, Counter, Fault, Gauge, Limits, SeriesId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// All figures of a gateway process. Shared by workers, the control side and exporters.
pub struct Telemetry {
    slabs: Box<[Arc<Slab>]>,
    series: SeriesTable,
    control: [AtomicU64; ControlCounter::ALL.len()],
    last_reload_failed: AtomicBool,
}

/// Sums over all requests since the start, cheap enough to read every second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Live {
    /// Requests finished.
    pub requests_total: u64,
    /// Those that succeeded.
    pub good_total: u64,
    /// Those that failed through the gateway's or the upstream's fault.
    pub bad_total: u64,
    /// Those that failed through the client's fault, clients that left included; no part of the success rate.
    pub client_faults_total: u64,
}

/// Connections of clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connections {
    /// Since the start.
    pub accepted: u64,
    /// Of those, the ones that were closed because of a limit.
    pub refused: u64,
    /// Open now.
    pub active: u64,
    /// Of those, the ones with a request under way.
    pub busy: u64,
}

impl Live {
    /// Share of requests that succeeded, client faults left out; 1 when there were none.
    #[must_use]
    pub fn success_ratio(&self) -> f64 {
        match self.good_total + self.bad_total {
            0 => 1.0,
            judged => self.good_total as f64 / judged as f64,
        }
    }
}

impl Telemetry {
    /// Figures for `workers` workers.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "callers build limits for this call alone")]
    pub fn new(workers: usize, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            slabs: (0..workers).map(|_| Arc::new(Slab::new(&limits))).collect(),
            series: SeriesTable::new(limits.series),
            control: Default::default(),
            last_reload_failed: AtomicBool::new(false),
        })
    }

    /// The series of a (service, route) pair, by the names used as labels.
    ///
    /// The same pair always has the same series, across reloads too. Pairs beyond [`Limits::series`] share one
    /// labelled `__overflow__`. Takes a lock: for configuration compiles, not for requests.
    pub fn series(&self, service: &str, route: &str) -> SeriesId {
        self.series.id(service, route)
    }

    /// The handle of worker `index`, to be moved to its thread. A worker that was restarted may take it again,
    /// and counts on from where it was.
    ///
    /// # Panics
    /// When `index` is not below the number of workers, or when the previous handle of this worker is still alive:
    /// two writers would lose counts.
    #[must_use]
    pub fn worker(&self, index: usize) -> WorkerMetrics {
        WorkerMetrics::take(&self.slabs[index]).expect("each worker's metrics have one writer at a time")
    }

    /// Counts an event of the control side.
    pub fn count_control(&self, counter: ControlCounter) {
        self.control[counter as usize].fetch_add(1, Relaxed);
        self.last_reload_failed.store(counter == ControlCounter::ConfigReloadFailed, Relaxed);
    }

    /// All figures, merged over the workers without stopping them: each figure is exact, but figures of one request
    /// may be read a moment apart.
    #[must_use]
    pub fn snapshot(&self) -> MetricsSnapshot {
        let mut snapshot = MetricsSnapshot::merge(self.slabs.iter().map(Arc::as_ref), &self.series.names());
        snapshot.control = std::array::from_fn(|at| self.control[at].load(Relaxed));
        snapshot.last_reload_success = !self.last_reload_failed.load(Relaxed);
        snapshot
    }

    /// Connections of clients, and their requests under way: cheaper than [`Telemetry::snapshot`].
    #[must_use]
    pub fn connections(&self) -> Connections {
        let counter = |counter: Counter| self.slabs.iter().map(|slab| slab.counters[counter as usize].value()).sum();
        let gauge = |gauge: Gauge| self.slabs.iter().map(|slab| slab.gauges[gauge as usize].value()).sum::<i64>();
        let active = gauge(Gauge::ConnectionsActive).max(0);
        Connections {
            accepted: counter(Counter::ConnectionsAccepted),
            refused: counter(Counter::ConnectionsRefused),
            active: active as u64,
            busy: gauge(Gauge::RequestsInFlight).clamp(0, active) as u64,
        }
    }

    /// The sums of the live line and of `/status`.
    #[must_use]
    pub fn live(&self) -> Live {
        let mut live = Live::default();
        for fault in Fault::ALL {
            let n: u64 = self.slabs.iter().map(|slab| Tally::value(&slab.outcomes[fault as usize])).sum();
            live.requests_total += n;
            *match fault {
                Fault::None => &mut live.good_total,
                Fault::Client | Fault::ClientGone => &mut live.client_faults_total,
                Fault::Gateway | Fault::Upstream => &mut live.bad_total,
            } += n;
        }
        live
    }
}
