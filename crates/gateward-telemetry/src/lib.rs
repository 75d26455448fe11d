//! Metrics, their exporters and the access log.
//!
//! Every worker owns one slab of counters that only it writes; scrapes read the slabs with relaxed loads and
//! merge them, so recording a request takes no lock and, once a series has been seen, allocates nothing.
//! Series ids are resolved when a configuration is compiled, so no label is hashed per request (but the
//! consumer's, where `per_consumer` asks for it).
//!
//! This crate serves no port, reads no configuration and knows nothing about requests: callers hand it a
//! [`Sample`] and take away text. It holds no identities or credentials beyond the names given as labels.
#![forbid(unsafe_code)]

pub mod access_log;
pub mod catalog;
mod cells;
mod codes;
mod consumers;
mod counters;
pub mod histogram;
mod limits;
pub mod process;
pub mod prometheus;
mod proxy_protocol;
mod refusals;
mod sample;
mod series;
mod snapshot;
mod streams;
mod telemetry;
mod worker;

pub use access_log::{AccessLog, AccessLogTarget};
pub use counters::{ControlCounter, Counter, Gauge};
pub use limits::Limits;
pub use prometheus::{ExtraHistogram, ExtraMetric, ExtraSample, NodeInfo};
pub use proxy_protocol::ProxyProtocolOutcome;
pub use sample::{Fault, Groups, Sample, Source};
pub use series::SeriesId;
pub use snapshot::{
    CodeCount, ConsumerSnapshot, LatencySnapshot, MetricsSnapshot, SeriesSnapshot, StatusLabel, StreamSnapshot, Traffic,
};
pub use streams::{StreamKind, StreamSample};
pub use telemetry::{Connections, Live, Telemetry};
pub use worker::WorkerMetrics;

/// Label value that gathers what a cardinality limit turned away.
pub const OVERFLOW_LABEL: &str = "__overflow__";
