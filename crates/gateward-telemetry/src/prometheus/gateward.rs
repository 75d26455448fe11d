//! The gateway's own metrics: outcomes, latencies fine enough for a sub-millisecond gateway, connections,
//! upstreams and configuration.

use super::NodeInfo;
use super::text::{Bounds, Writer};
use crate::catalog;
use crate::snapshot::MetricsSnapshot;
use crate::{ControlCounter, Counter, Fault, Gauge};

static SECONDS_BOUNDS: Bounds<17> = Bounds {
    labels: [
        "0.00005", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25",
        "0.5", "1", "2.5", "5", "10",
    ],
    us: [
        50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 5_000_000, 10_000_000,
    ],
    us_per_unit: 1e6,
};

pub(super) fn render(snapshot: &MetricsSnapshot, node: &NodeInfo, writer: &mut Writer<'_>) {
    render_requests(snapshot, writer);
    for counter in Counter::ALL {
        writer.single(counter.metric(), snapshot.counter(counter));
    }
    for gauge in Gauge::ALL {
        writer.single(gauge.metric(), snapshot.gauge(gauge));
    }
    writer.family(&catalog::TUNNELS_ENDED);
    for (reason, n) in &snapshot.tunnel_ends {
        writer.sample(&catalog::TUNNELS_ENDED, &[reason], n);
    }
    if !snapshot.streams.is_empty() {
        writer.family(&catalog::STREAM_SESSIONS);
    }
    for ((protocol, end), n) in &snapshot.streams {
        writer.sample(&catalog::STREAM_SESSIONS, &[protocol, end], n);
    }
    render_proxy_protocol(snapshot, writer);
    render_configuration(snapshot, node, writer);
}

fn render_proxy_protocol(snapshot: &MetricsSnapshot, writer: &mut Writer<'_>) {
    if snapshot.proxy_protocol.is_empty() {
        return;
    }
    writer.family(&catalog::PROXY_PROTOCOL_CONNECTIONS);
    for ((mode, outcome), n) in &snapshot.proxy_protocol {
        writer.sample(&catalog::PROXY_PROTOCOL_CONNECTIONS, &[mode, outcome], n);
    }
    writer.family(&catalog::PROXY_PROTOCOL_ENDPOINTS);
    for (vpce_id, n) in &snapshot.endpoints {
        writer.sample(&catalog::PROXY_PROTOCOL_ENDPOINTS, &[vpce_id], n);
    }
}

fn render_requests(snapshot: &MetricsSnapshot, writer: &mut Writer<'_>) {
    writer.family(&catalog::REQUESTS);
    for (fault, n) in Fault::ALL.into_iter().zip(snapshot.outcomes) {
        writer.sample(&catalog::REQUESTS, &[fault.outcome()], n);
    }
    for (metric, values) in [
        (&catalog::REQUEST_DURATION, &snapshot.latency.request),
        (&catalog::GATEWAY_LATENCY, &snapshot.latency.gateway),
        (&catalog::UPSTREAM_LATENCY, &snapshot.latency.upstream),
    ] {
        writer.family(metric);
        writer.histogram(metric, &[], &SECONDS_BOUNDS, values);
    }
    writer.single(&catalog::CLIENT_RECEIVED_BYTES, snapshot.bytes_in);
    writer.single(&catalog::CLIENT_SENT_BYTES, snapshot.bytes_out);
    writer.family(&catalog::GRPC_CALLS);
    for (status, n) in snapshot.calls.iter().enumerate().filter(|(_, n)| **n > 0) {
        let name = if status < snapshot.calls.len() - 1 { status.to_string() } else { "none".to_owned() };
        writer.sample(&catalog::GRPC_CALLS, &[&name], *n);
    }
    writer.family(&catalog::REFUSALS);
    for (reason, n) in &snapshot.refusals {
        writer.sample(&catalog::REFUSALS, &[reason], n);
    }
}

fn render_configuration(snapshot: &MetricsSnapshot, node: &NodeInfo, writer: &mut Writer<'_>) {
    writer.single(&catalog::CONFIG_GENERATION, node.generation);
    writer.family(&catalog::CONFIG_INFO);
    writer.sample(&catalog::CONFIG_INFO, &[&node.configuration_hash], 1);
    writer.family(&catalog::CONFIG_RELOADS);
    for (counter, n) in ControlCounter::ALL.into_iter().zip(snapshot.control) {
        writer.sample(&catalog::CONFIG_RELOADS, &[counter.result()], n);
    }
    writer.single(&catalog::CONFIG_LAST_RELOAD_SUCCESS, u8::from(snapshot.last_reload_success));
    writer.family(&catalog::BUILD_INFO);
    writer.sample(&catalog::BUILD_INFO, &[&node.version], 1);
    writer.family(&catalog::NODE_INFO);
    writer.sample(&catalog::NODE_INFO, &[&node.node_id, &node.hostname], 1);
}
