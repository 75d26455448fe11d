//! Kong's metrics, so that its dashboards and alerts keep working.
//!
//! Names, labels, label order and buckets are those of Kong 3.9's `kong/plugins/prometheus/exporter.lua`.
//! Families without values are left out, as there.

use super::NodeInfo;
use super::text::{Bounds, Writer};
use crate::catalog::{self, Metric};
use crate::histogram::HistogramSnapshot;
use crate::snapshot::{CodeCount, ConsumerSnapshot, LatencySnapshot, MetricsSnapshot, SeriesSnapshot, StatusLabel};
use crate::{Counter, Gauge};

/// The gateway has one workspace.
const WORKSPACE: &str = "default";
const SUBSYSTEM: &str = "http";

const MS: f64 = 1000.0;

static KONG_BOUNDS: Bounds<17> = Bounds {
    labels: [
        "1", "2", "5", "7", "10", "15", "20", "30", "50", "75", "100", "200", "500", "750", "1000", "3000", "6000",
    ],
    us: [
        1_000, 2_000, 5_000, 7_000, 10_000, 15_000, 20_000, 30_000, 50_000, 75_000, 100_000, 200_000, 500_000, 750_000,
        1_000_000, 3_000_000, 6_000_000,
    ],
    us_per_unit: MS,
};

static UPSTREAM_BOUNDS: Bounds<13> = Bounds {
    labels: ["25", "50", "80", "100", "250", "400", "700", "1000", "2000", "5000", "10000", "30000", "60000"],
    us: [
        25_000, 50_000, 80_000, 100_000, 250_000, 400_000, 700_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
        30_000_000, 60_000_000,
    ],
    us_per_unit: MS,
};

pub(super) fn render(snapshot: &MetricsSnapshot, node: &NodeInfo, writer: &mut Writer<'_>) {
    render_requests(snapshot, writer);
    render_bandwidth(snapshot, writer);
    let series = &snapshot.series;
    render_latency(&catalog::KONG_KONG_LATENCY, &KONG_BOUNDS, series, |latency| &latency.gateway, writer);
    render_latency(&catalog::KONG_UPSTREAM_LATENCY, &UPSTREAM_BOUNDS, series, |latency| &latency.upstream, writer);
    render_latency(&catalog::KONG_REQUEST_LATENCY, &UPSTREAM_BOUNDS, series, |latency| &latency.request, writer);
    render_streams(snapshot, writer);
    render_node(snapshot, node, writer);
}

pub(super) fn render_errors(errors: u64, writer: &mut Writer<'_>) {
    writer.single(&catalog::KONG_METRIC_ERRORS, errors);
}

fn consumers(snapshot: &MetricsSnapshot) -> impl Iterator<Item = (&SeriesSnapshot, &ConsumerSnapshot)> {
    let series = snapshot.series.iter();
    series.flat_map(|series| series.consumers.iter().map(move |consumer| (series, consumer)))
}

fn render_requests(snapshot: &MetricsSnapshot, writer: &mut Writer<'_>) {
    let metric = &catalog::KONG_HTTP_REQUESTS;
    let mut started = false;
    for (series, consumer) in consumers(snapshot) {
        for code in &consumer.traffic.codes {
            if !std::mem::replace(&mut started, true) {
                writer.family(metric);
            }
            let (status, source) = status_labels(code);
            let labels = [&*series.service, &*series.route, &status, source, WORKSPACE, &*consumer.consumer];
            writer.sample(metric, &labels, code.count);
        }
    }
}

fn render_bandwidth(snapshot: &MetricsSnapshot, writer: &mut Writer<'_>) {
    let metric = &catalog::KONG_BANDWIDTH;
    let mut started = false;
    for (series, consumer) in consumers(snapshot) {
        let directions = [("egress", consumer.traffic.bytes_out), ("ingress", consumer.traffic.bytes_in)];
        for (direction, bytes) in directions.into_iter().filter(|(_, bytes)| *bytes > 0) {
            if !std::mem::replace(&mut started, true) {
                writer.family(metric);
            }
            let labels = [&*series.service, &*series.route, direction, WORKSPACE, &*consumer.consumer];
            writer.sample(metric, &labels, bytes);
        }
    }
}

fn render_latency<const N: usize>(
    metric: &Metric,
    bounds: &Bounds<N>,
    series: &[SeriesSnapshot],
    which: impl Fn(&LatencySnapshot) -> &HistogramSnapshot,
    writer: &mut Writer<'_>,
) {
    let mut started = false;
    for series in series {
        let Some(values) = series.latency.as_ref().map(&which).filter(|values| values.count() > 0) else { continue };
        if !std::mem::replace(&mut started, true) {
            writer.family(metric);
        }
        writer.histogram(metric, &[&*series.service, &*series.route, WORKSPACE], bounds, values);
    }
}

fn render_streams(snapshot: &MetricsSnapshot, writer: &mut Writer<'_>) {
    let streams = || snapshot.series.iter().filter_map(|series| Some((series, series.streams.as_ref()?)));
    if streams().any(|(_, streams)| !streams.codes.is_empty()) {
        writer.family(&catalog::KONG_STREAM_SESSIONS);
    }
    for (series, streams) in streams() {
        for code in &streams.codes {
            let (status, source) = status_labels(code);
            let labels = [&*series.service, &*series.route, &status, source, WORKSPACE];
            writer.sample(&catalog::KONG_STREAM_SESSIONS, &labels, code.count);
        }
    }
    if streams().any(|(_, streams)| streams.session.count() > 0) {
        writer.family(&catalog::KONG_SESSION_DURATION);
    }
    for (series, streams) in streams().filter(|(_, streams)| streams.session.count() > 0) {
        let labels = [&*series.service, &*series.route, WORKSPACE];
        writer.histogram(&catalog::KONG_SESSION_DURATION, &labels, &UPSTREAM_BOUNDS, &streams.session);
    }
}

/// The labels `code` and `source`.
fn status_labels(code: &CodeCount) -> (String, &'static str) {
    let status = match code.status {
        StatusLabel::Code(status) => status.to_string(),
        StatusLabel::Other => crate::OVERFLOW_LABEL.to_owned(),
    };
    (status, if code.from_service { "service" } else { "kong" })
}

fn render_node(snapshot: &MetricsSnapshot, node: &NodeInfo, writer: &mut Writer<'_>) {
    let metric = &catalog::KONG_NGINX_CONNECTIONS;
    let requests = i64::try_from(snapshot.requests()).unwrap_or(i64::MAX);
    let counter = |counter| i64::try_from(snapshot.counter(counter)).unwrap_or(i64::MAX);
    let (accepted, refused) = (counter(Counter::ConnectionsAccepted), counter(Counter::ConnectionsRefused));
    let active = snapshot.gauge(Gauge::ConnectionsActive).max(0);
    // A connection's state as nginx sees it: with a request it is writing, without one it waits.
    let writing = snapshot.gauge(Gauge::RequestsInFlight).clamp(0, active);
    writer.family(metric);
    for (state, value) in [
        ("accepted", accepted),
        ("active", active),
        ("handled", (accepted - refused).max(0)),
        ("reading", 0),
        ("total", requests),
        ("waiting", active - writing),
        ("writing", writing),
    ] {
        writer.sample(metric, &[&node.node_id, SUBSYSTEM, state], value);
    }
    writer.family(&catalog::KONG_NGINX_REQUESTS);
    writer.sample(&catalog::KONG_NGINX_REQUESTS, &[&node.node_id, SUBSYSTEM], requests);
    writer.family(&catalog::KONG_NODE_INFO);
    writer.sample(&catalog::KONG_NODE_INFO, &[&node.node_id, &node.version], 1);
    writer.single(&catalog::KONG_DATASTORE_REACHABLE, 1);
}
