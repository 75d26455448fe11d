//! What the data plane reports about one finished request.

use crate::SeriesId;

/// Who produced the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A plugin or the gateway answered on purpose (Kong's `exit`).
    Exit,
    /// The gateway answered because something failed (Kong's `error`).
    Error,
    /// The upstream answered.
    Service,
}

/// Whose fault it is that a request did not succeed; splits the success-rate metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request succeeded.
    None,
    /// The client's: a malformed, refused or unauthorised request.
    Client,
    /// The gateway's own: a plugin panic, an overload, a bug.
    Gateway,
    /// The upstream's: unreachable, timed out, broke off, or answered 5xx.
    Upstream,
    /// The client left before it had the whole response.
    ClientGone,
}

impl Fault {
    /// Every fault, in the order of the outcome counters.
    pub const ALL: [Self; 5] = [Self::None, Self::Client, Self::Gateway, Self::Upstream, Self::ClientGone];

    /// Value of the `outcome` label.
    #[must_use]
    pub fn outcome(self) -> &'static str {
        match self {
            Self::None => "ok",
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Upstream => "upstream",
            Self::ClientGone => "client_gone",
        }
    }
}

/// Which per-route metric groups the prometheus plugin turned on for a request; all off by default, as in Kong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Groups {
    /// Label requests and bytes with the consumer (Kong's `per_consumer`).
    pub per_consumer: bool,
    /// Count requests by status code (`status_code_metrics`).
    pub status_code: bool,
    /// Latency histograms (`latency_metrics`).
    pub latency: bool,
    /// Bytes in and out (`bandwidth_metrics`).
    pub bandwidth: bool,
}

/// The figures of one finished request.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// The route's series, or [`SeriesId::NONE`].
    pub series: SeriesId,
    /// Status sent to the client (499 when it left before one was sent).
    pub status: u16,
    /// Who produced the response.
    pub source: Source,
    /// Whose fault a failure was.
    pub fault: Fault,
    /// First byte of the request to last byte of the response; microseconds.
    pub request_us: u64,
    /// Time the gateway itself added; microseconds.
    pub gateway_us: u64,
    /// From asking the upstream to its response head; microseconds. `None`: not asked.
    pub upstream_us: Option<u64>,
    /// Bytes received from the client, head and body.
    pub bytes_in: u64,
    /// Bytes sent to the client, head and body.
    pub bytes_out: u64,
    /// Metric groups that are on for this request.
    pub groups: Groups,
    /// Name of the authenticated consumer.
    pub consumer: Option<&'a str>,
}
