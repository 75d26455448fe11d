//! What is counted about a filter's callouts. One set of counters per filter name, for the life of the process: callouts
//! are rare enough for counters that threads share.

use crate::callout::CalloutStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Upper bounds of the time histogram, in milliseconds; beyond the last there is one more bucket.
pub const CALLOUT_BOUNDS_MS: [u64; 13] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// Kinds of callouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalloutProtocol {
    /// A request over HTTP.
    Http,
    /// A gRPC call of one message each way.
    Grpc,
    /// A gRPC call of any number of messages.
    GrpcStream,
}

/// How callouts end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalloutOutcome {
    /// With an answer, whatever its status; over gRPC with the status OK.
    Answered,
    /// Without, or over gRPC with another status.
    Failed,
    /// Its time was over.
    TimedOut,
    /// The filter, or the end of what it was made for, gave it up.
    Cancelled,
}

impl CalloutProtocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Http, Self::Grpc, Self::GrpcStream];

    /// Name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::GrpcStream => "grpc_stream",
        }
    }
}

impl CalloutOutcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Answered, Self::Failed, Self::TimedOut, Self::Cancelled];

    /// Name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }

    /// What the final status of a callout says.
    pub(crate) fn of(status: u32) -> Self {
        match status {
            CalloutStatus::OK => Self::Answered,
            CalloutStatus::DEADLINE_EXCEEDED => Self::TimedOut,
            _ => Self::Failed,
        }
    }
}

const PROTOCOLS: usize = CalloutProtocol::ALL.len();
const OUTCOMES: usize = CalloutOutcome::ALL.len();
const BUCKETS: usize = CALLOUT_BOUNDS_MS.len() + 1;

/// See the module's text.
#[derive(Debug)]
pub struct CalloutStats {
    begun: [AtomicU64; PROTOCOLS],
    ended: [[AtomicU64; OUTCOMES]; PROTOCOLS],
    times: [[AtomicU64; BUCKETS]; PROTOCOLS],
    time_us: [AtomicU64; PROTOCOLS],
}

impl Default for CalloutStats {
    fn default() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self {
            begun: std::array::from_fn(zero),
            ended: std::array::from_fn(|_| std::array::from_fn(zero)),
            times: std::array::from_fn(|_| std::array::from_fn(zero)),
            time_us: std::array::from_fn(zero),
        }
    }
}

impl CalloutStats {
    /// A callout begins.
    pub(crate) fn begin(self: &Arc<Self>, protocol: CalloutProtocol) -> Timed {
        self.begun[protocol as usize].fetch_add(1, Relaxed);
        Timed { stats: self.clone(), protocol, began: Instant::now(), outcome: CalloutOutcome::Cancelled }
    }

    /// Callouts that ended so.
    pub fn ended(&self, protocol: CalloutProtocol, outcome: CalloutOutcome) -> u64 {
        self.ended[protocol as usize][outcome as usize].load(Relaxed)
    }

    /// Callouts begun and not ended.
    pub fn under_way(&self, protocol: CalloutProtocol) -> u64 {
        let ended: u64 = self.ended[protocol as usize].iter().map(|count| count.load(Relaxed)).sum();
        self.begun[protocol as usize].load(Relaxed).saturating_sub(ended)
    }

    /// Callouts by [`CALLOUT_BOUNDS_MS`], those given up left out.
    pub fn times(&self, protocol: CalloutProtocol) -> [u64; BUCKETS] {
        std::array::from_fn(|bucket| self.times[protocol as usize][bucket].load(Relaxed))
    }

    /// Their time, in microseconds.
    pub fn time_us(&self, protocol: CalloutProtocol) -> u64 {
        self.time_us[protocol as usize].load(Relaxed)
    }

    fn end(&self, protocol: CalloutProtocol, outcome: CalloutOutcome, took: Duration) {
        let protocol = protocol as usize;
        self.ended[protocol][outcome as usize].fetch_add(1, Relaxed);
        if outcome != CalloutOutcome::Cancelled {
            let bucket = CALLOUT_BOUNDS_MS.iter().position(|bound| took <= Duration::from_millis(*bound));
            self.times[protocol][bucket.unwrap_or(BUCKETS - 1)].fetch_add(1, Relaxed);
            self.time_us[protocol].fetch_add(took.as_micros() as u64, Relaxed);
        }
    }
}

/// A callout under way; counted as given up when it is dropped before it [`ended`](Self::ended).
#[derive(Debug)]
pub(crate) struct Timed {
    stats: Arc<CalloutStats>,
    protocol: CalloutProtocol,
    began: Instant,
    outcome: CalloutOutcome,
}

impl Timed {
    /// It ended with this status.
    pub(crate) fn ended(mut self, status: u32) {
        self.outcome = CalloutOutcome::of(status);
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.stats.end(self.protocol, self.outcome, self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_callout_ends_once() {
        let stats = Arc::<CalloutStats>::default();
        let (first, second) = (stats.begin(CalloutProtocol::Http), stats.begin(CalloutProtocol::Http));
        assert_eq!(stats.under_way(CalloutProtocol::Http), 2);
        first.ended(CalloutStatus::OK);
        drop(second);
        stats.begin(CalloutProtocol::Http).ended(CalloutStatus::DEADLINE_EXCEEDED);
        stats.begin(CalloutProtocol::Http).ended(CalloutStatus::UNAVAILABLE);
        let ended = CalloutOutcome::ALL.map(|outcome| stats.ended(CalloutProtocol::Http, outcome));
        assert_eq!((ended, stats.under_way(CalloutProtocol::Http)), ([1, 1, 1, 1], 0));
        assert_eq!(stats.times(CalloutProtocol::Http).iter().sum::<u64>(), 3);
        stats.end(CalloutProtocol::Grpc, CalloutOutcome::Answered, Duration::from_millis(3));
        stats.end(CalloutProtocol::Grpc, CalloutOutcome::TimedOut, Duration::from_secs(60));
        let times = stats.times(CalloutProtocol::Grpc);
        assert_eq!((times[2], times[13], stats.time_us(CalloutProtocol::Grpc)), (1, 1, 60_003_000));
    }
}
