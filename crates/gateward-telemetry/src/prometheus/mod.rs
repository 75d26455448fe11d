//! The Prometheus text exposition, a pure function of a snapshot.
//!
//! `kong.rs` writes Kong's metrics, `gateward.rs` our own, `text.rs` the format. Figures from elsewhere (the
//! process, upstream health, the access log) come in as [`ExtraMetric`]s and are checked, because a single bad
//! line makes Prometheus throw the whole scrape away.

mod gateward;
mod kong;
mod text;

use crate::catalog::{Kind, Metric};
use crate::snapshot::MetricsSnapshot;
use text::Writer;

/// `Content-Type` of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// What the exporter says about the node.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    /// Version of the gateway.
    pub version: String,
    /// Host name.
    pub hostname: String,
    /// Id of this node (a UUID).
    pub node_id: String,
    /// Hash of the configuration being served, as in `/status`.
    pub configuration_hash: String,
    /// Generation of the configuration being served.
    pub generation: u64,
    /// Metrics gathered elsewhere, e.g. by [`crate::process::metrics`].
    pub extra: Vec<ExtraMetric>,
}

/// A counter or gauge gathered outside the slabs.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtraMetric {
    /// Name; `[a-zA-Z_:][a-zA-Z0-9_:]*`.
    pub name: String,
    /// One sentence for people.
    pub help: String,
    /// A histogram has histograms, everything else samples; what does not fit together is left out.
    pub kind: Kind,
    /// Values; their labels must differ.
    pub samples: Vec<ExtraSample>,
    /// Likewise.
    pub histograms: Vec<ExtraHistogram>,
}

/// One value of an [`ExtraMetric`].
#[derive(Debug, Clone, PartialEq)]
pub struct ExtraSample {
    /// Label names (`[a-zA-Z_][a-zA-Z0-9_]*`) and values (anything).
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

/// One histogram of an [`ExtraMetric`].
#[derive(Debug, Clone, PartialEq)]
pub struct ExtraHistogram {
    /// As of [`ExtraSample`].
    pub labels: Vec<(String, String)>,
    /// Upper bounds of the buckets, in the metric's unit, rising, and how many values are in each. Not added up.
    pub buckets: Vec<(f64, u64)>,
    /// Values above the last bound.
    pub beyond: u64,
    /// Sum of all values, in the metric's unit.
    pub sum: f64,
}

impl ExtraMetric {
    /// A metric of the catalogue, without samples yet.
    #[must_use]
    pub fn of(metric: &Metric) -> Self {
        Self {
            name: metric.name.into(),
            help: metric.help.into(),
            kind: metric.kind,
            samples: Vec::new(),
            histograms: Vec::new(),
        }
    }

    /// Adds a value with labels.
    #[must_use]
    pub fn sample(mut self, labels: &[(&str, &str)], value: f64) -> Self {
        self.samples.push(ExtraSample { labels: owned(labels), value });
        self
    }

    /// Adds a histogram with labels: the values up to each bound, those beyond the last, and the sum of all.
    #[must_use]
    pub fn histogram(mut self, labels: &[(&str, &str)], buckets: Vec<(f64, u64)>, beyond: u64, sum: f64) -> Self {
        self.histograms.push(ExtraHistogram { labels: owned(labels), buckets, beyond, sum });
        self
    }
}

fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

/// Appends the exposition of `snapshot` to `out`.
///
/// An extra metric that is not valid, or repeats a name, is left out and counted in
/// `kong_nginx_metric_errors_total`.
pub fn render(snapshot: &MetricsSnapshot, node: &NodeInfo, out: &mut String) {
    let mut writer = Writer::new(out);
    kong::render(snapshot, node, &mut writer);
    gateward::render(snapshot, node, &mut writer);
    let mut errors = 0;
    for extra in &node.extra {
        if !writer.extra(extra) {
            errors += 1;
        }
    }
    kong::render_errors(errors, &mut writer);
}
