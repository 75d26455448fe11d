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
    /// Counter or gauge; a histogram is left out.
    pub kind: Kind,
    /// Values; their labels must differ.
    pub samples: Vec<ExtraSample>,
}

/// One value of an [`ExtraMetric`].
#[derive(Debug, Clone, PartialEq)]
pub struct ExtraSample {
    /// Label names (`[a-zA-Z_][a-zA-Z0-9_]*`) and values (anything).
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

impl ExtraMetric {
    /// A metric of the catalogue, without samples yet.
    #[must_use]
    pub fn of(metric: &Metric) -> Self {
        Self { name: metric.name.into(), help: metric.help.into(), kind: metric.kind, samples: Vec::new() }
    }

    /// Adds a value with labels.
    #[must_use]
    pub fn sample(mut self, labels: &[(&str, &str)], value: f64) -> Self {
        let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.samples.push(ExtraSample { labels, value });
        self
    }
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
