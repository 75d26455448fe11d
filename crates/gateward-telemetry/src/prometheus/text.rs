//! The text format 0.0.4: families, samples, escaping.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use super::{ExtraHistogram, ExtraMetric};
use crate::catalog::{Kind, Metric};
use crate::histogram::HistogramSnapshot;
use std::collections::HashSet;
use std::fmt::{Display, Write as _};

/// Appends families to a string.
pub(super) struct Writer<'o> {
    out: &'o mut String,
    families: HashSet<String>,
    /// Labels of a histogram's bucket up to its `le`, kept to write them once per histogram.
    prefix: String,
}

/// Upper bounds of exported buckets: as the label says it, and in microseconds.
pub(super) struct Bounds<const N: usize> {
    pub(super) labels: [&'static str; N],
    pub(super) us: [u64; N],
    /// Microseconds in the metric's unit.
    pub(super) us_per_unit: f64,
}

impl<'o> Writer<'o> {
    pub(super) fn new(out: &'o mut String) -> Self {
        Self { out, families: HashSet::new(), prefix: String::new() }
    }

    /// Starts a family; its samples must follow before the next one starts.
    pub(super) fn family(&mut self, metric: &Metric) {
        self.header(metric.name, metric.help, metric.kind);
    }

    /// One sample of the family just started. `labels` are given in the order of `metric.labels`.
    pub(super) fn sample(&mut self, metric: &Metric, labels: &[&str], value: impl Display) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "labels of {}", metric.name);
        self.out.push_str(metric.name);
        write_labels(self.out, metric.labels.iter().copied().zip(labels.iter().copied()));
        put(self.out, format_args!(" {value}\n"));
    }

    /// A family with one sample without labels.
    pub(super) fn single(&mut self, metric: &Metric, value: impl Display) {
        self.family(metric);
        self.sample(metric, &[], value);
    }

    /// One histogram of the family just started.
    pub(super) fn histogram<const N: usize>(
        &mut self,
        metric: &Metric,
        labels: &[&str],
        bounds: &Bounds<N>,
        values: &HistogramSnapshot,
    ) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "labels of {}", metric.name);
        let pairs = || metric.labels.iter().copied().zip(labels.iter().copied());
        self.prefix.clear();
        pairs().for_each(|(name, value)| {
            write_label(&mut self.prefix, name, value);
            self.prefix.push(',');
        });
        let (name, prefix, count) = (metric.name, &self.prefix, values.count());
        for (le, n) in bounds.labels.iter().zip(values.cumulative(&bounds.us)) {
            put(self.out, format_args!("{name}_bucket{{{prefix}le=\"{le}\"}} {n}\n"));
        }
        put(self.out, format_args!("{name}_bucket{{{prefix}le=\"+Inf\"}} {count}\n{name}_sum"));
        write_labels(self.out, pairs());
        put(self.out, format_args!(" {}\n{name}_count", values.sum_us() as f64 / bounds.us_per_unit));
        write_labels(self.out, pairs());
        put(self.out, format_args!(" {count}\n"));
    }

    /// A whole family from elsewhere; `false`, and nothing written, when it is not valid or its name is taken.
    pub(super) fn extra(&mut self, extra: &ExtraMetric) -> bool {
        let labels_valid = |labels: &[(String, String)]| {
            let mut names = HashSet::new();
            labels.iter().all(|(name, _)| is_name(name, false) && name != "le" && names.insert(name))
        };
        let mut identities = HashSet::new();
        let mut samples_valid =
            |labels: &Vec<(String, String)>| labels_valid(labels) && identities.insert(labels.clone());
        let valid = is_name(&extra.name, true)
            && (extra.kind == Kind::Histogram) != extra.histograms.is_empty()
            && (extra.kind != Kind::Histogram || extra.samples.is_empty())
            && !self.families.contains(&extra.name)
            && extra.samples.iter().map(|sample| &sample.labels).all(&mut samples_valid)
            && extra.histograms.iter().map(|histogram| &histogram.labels).all(&mut samples_valid);
        if !valid {
            return false;
        }
        self.header(&extra.name, &extra.help, extra.kind);
        for sample in &extra.samples {
            self.out.push_str(&extra.name);
            write_labels(self.out, sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            self.out.push(' ');
            write_float(self.out, sample.value);
            self.out.push('\n');
        }
        extra.histograms.iter().for_each(|histogram| self.extra_histogram(&extra.name, histogram));
        true
    }

    fn extra_histogram(&mut self, name: &str, histogram: &ExtraHistogram) {
        let mut line = |suffix: &str, le: Option<String>, value: &dyn Display| {
            put(self.out, format_args!("{name}_{suffix}"));
            let le = le.as_deref().map(|le| ("le", le));
            let labels = histogram.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            write_labels(self.out, labels.chain(le));
            put(self.out, format_args!(" {value}\n"));
        };
        let mut count = 0;
        for (bound, values) in &histogram.buckets {
            count += values;
            line("bucket", Some(bound.to_string()), &count);
        }
        count += histogram.beyond;
        line("bucket", Some("+Inf".to_owned()), &count);
        line("sum", None, &histogram.sum);
        line("count", None, &count);
    }

    fn header(&mut self, name: &str, help: &str, kind: Kind) {
        let new = self.families.insert(name.to_owned());
        debug_assert!(new, "{name} is written twice");
        put(self.out, format_args!("# HELP {name} "));
        escape(self.out, help, false);
        put(self.out, format_args!("\n# TYPE {name} {}\n", kind.name()));
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string cannot fail");
}

/// `{a="b",c="d"}`, or nothing without labels.
fn write_labels<'l>(out: &mut String, labels: impl Iterator<Item = (&'l str, &'l str)>) {
    let mut separator = '{';
    for (name, value) in labels {
        out.push(separator);
        write_label(out, name, value);
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
}

fn write_label(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str("=\"");
    escape(out, value, true);
    out.push('"');
}

/// Escapes backslash and newline, and the double quote in label values.
fn escape(out: &mut String, text: &str, in_label: bool) {
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '\n', '"']) {
        out.push_str(&rest[..at]);
        out.push_str(match rest.as_bytes()[at] {
            b'\\' => "\\\\",
            b'\n' => "\\n",
            _ if in_label => "\\\"",
            _ => "\"",
        });
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

fn write_float(out: &mut String, value: f64) {
    match value {
        f64::INFINITY => out.push_str("+Inf"),
        f64::NEG_INFINITY => out.push_str("-Inf"),
        _ => put(out, format_args!("{value}")),
    }
}

/// Whether `name` may name a metric (`colon`: metrics may hold colons, labels may not).
fn is_name(name: &str, colon: bool) -> bool {
    let valid = |at: usize, byte: u8| {
        byte.is_ascii_alphabetic() || byte == b'_' || (colon && byte == b':') || (at > 0 && byte.is_ascii_digit())
    };
    !name.is_empty() && name.bytes().enumerate().all(|(at, byte)| valid(at, byte))
}
