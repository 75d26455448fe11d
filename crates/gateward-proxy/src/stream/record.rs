//! The end of every stream: metrics, access log, log plugins.

use super::error::StreamError;
use super::session::Session;
use crate::instance::fenced;
use crate::tunnel::End;
use crate::worker::Worker;
use gateward_plugin::StreamRecord;
use gateward_route::StreamProtocol;
use gateward_telemetry::{Groups, Source, StreamKind, StreamSample};

/// Write the closing record. Called exactly once for every stream.
pub(super) fn finish(worker: &Worker, session: &Session, outcome: Result<End, StreamError>) {
    let now_us = worker.now_us();
    let (end, status) = match outcome {
        Ok(end) => (end.label(), status(end)),
        Err(error) => (error.label(), error.status()),
    };
    let record = StreamRecord {
        stream: &session.exchange,
        tries: &session.tries,
        status,
        end,
        received_bytes: session.up_bytes,
        sent_bytes: session.down_bytes + session.greeting_bytes,
        upstream_received_bytes: session.down_bytes,
        upstream_sent_bytes: session.up_bytes,
        gateway_us: session.forwarded_us.unwrap_or(now_us).saturating_sub(session.started_us),
        session_us: now_us.saturating_sub(session.started_us),
    };
    let groups = session.exchange.metrics;
    worker.metrics.record_stream(&StreamSample {
        series: session.series,
        kind: kind(session.carried),
        end,
        status,
        source: if outcome.is_ok() { Source::Service } else { Source::Error },
        session_us: record.session_us,
        gateway_us: record.gateway_us,
        bytes_in: record.received_bytes,
        bytes_out: record.sent_bytes,
        groups: Groups {
            per_consumer: false,
            status_code: groups.status_code_metrics,
            latency: groups.latency_metrics,
            bandwidth: groups.bandwidth_metrics,
        },
    });
    if let Err(error) = outcome {
        note(worker, session, error);
    }
    if let Some(log) = &worker.node.access_log {
        let mut line = String::with_capacity(1024);
        record.write_json(&mut line);
        log.write(line);
    }
    for instance in session.plugins.iter().filter(|instance| instance.needs.phases.log_stream) {
        let _ = fenced(&worker.metrics, instance, |plugin| plugin.log_stream(&record));
    }
}

/// nginx logs 200 for a session that was relayed, however it ended, but for an upstream that broke it off.
fn status(end: End) -> u16 {
    if end == End::UpstreamReset { 502 } else { 200 }
}

fn kind(carried: StreamProtocol) -> StreamKind {
    match carried {
        StreamProtocol::Tcp => StreamKind::Tcp,
        StreamProtocol::Tls => StreamKind::Tls,
        StreamProtocol::TlsPassthrough => StreamKind::TlsPassthrough,
        StreamProtocol::Udp => StreamKind::Udp,
    }
}

fn note(worker: &Worker, session: &Session, error: StreamError) {
    if let Some(reason) = error.refusal() {
        worker.metrics.refuse(reason);
    }
    let exchange = &session.exchange;
    let route = exchange.route.as_ref().and_then(|route| route.name.as_deref());
    let (client, local, reason) = (exchange.client, exchange.local, error.label());
    if error.is_operators() {
        let address = session.tries.last().map(|attempt| tracing::field::display(attempt.address));
        tracing::warn!(%client, %local, route, address, reason, "a stream could not be served");
    } else {
        tracing::debug!(%client, %local, route, reason, "a stream was not served");
    }
}
