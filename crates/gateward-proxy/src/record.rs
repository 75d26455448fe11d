//! The end of every exchange: metrics, access log, log plugins.

use crate::client::Connection;
use crate::error::{ProxyError, Side};
use crate::grpc;
use crate::outcome::Ended;
use crate::phases;
use crate::reply::is_operators;
use crate::worker::WorkerPlan;
use gateward_plugin::{RequestRecord, Source};
use gateward_telemetry::{Counter, Fault, Gauge, Groups, Sample, SeriesId};

/// Write the closing record. Called exactly once for every request that began to arrive.
pub(crate) fn finish(connection: &Connection<'_>, plan: &WorkerPlan, ended: &Ended) {
    let session = &*connection.session;
    let (exchange, times) = (&session.exchange, &session.times);
    let metrics = &connection.worker.metrics;
    let now = connection.worker.now_us();
    let forwarded = times.forwarded.unwrap_or(now);
    let record = RequestRecord {
        exchange,
        tries: &session.exchange.tries,
        request_bytes: session.received_bytes + session.upload.body_bytes,
        response_bytes: ended.sent_bytes,
        response_body_bytes: ended.sent_bytes.saturating_sub(session.download.head_bytes),
        request_us: now.saturating_sub(times.started),
        gateway_us: forwarded.saturating_sub(times.started),
        upstream_us: times.answered.map(|answered| answered.saturating_sub(forwarded)),
        receive_us: times.answered.map_or(0, |answered| now.saturating_sub(answered)),
        upstream_status: session.upstream_status,
        error: ended.error.map(ProxyError::label),
    };
    metrics.gauge_add(Gauge::RequestsInFlight, -1);
    let groups = exchange.metrics;
    let consumer = exchange.auth.consumer.as_deref();
    metrics.record(&Sample {
        series: session.route.map_or(SeriesId::NONE, |route| plan.shared.routes[route].series),
        status: exchange.response.status,
        source: match exchange.response.source {
            Source::Exit => gateward_telemetry::Source::Exit,
            Source::Error => gateward_telemetry::Source::Error,
            Source::Service => gateward_telemetry::Source::Service,
        },
        fault: call_fault(connection, ended)
            .unwrap_or_else(|| fault(exchange.response.status, exchange.response.source, ended.error)),
        request_us: record.request_us,
        gateway_us: record.gateway_us,
        upstream_us: record.upstream_us,
        bytes_in: record.request_bytes,
        bytes_out: record.response_bytes,
        groups: Groups {
            per_consumer: groups.per_consumer,
            status_code: groups.status_code_metrics,
            latency: groups.latency_metrics,
            bandwidth: groups.bandwidth_metrics,
        },
        consumer: consumer.and_then(|consumer| consumer.username.as_deref().or(consumer.custom_id.as_deref())),
    });
    if let Some(error) = ended.error {
        note(connection, error);
    }
    if let Some(log) = &connection.worker.node.access_log {
        let mut line = String::with_capacity(1024);
        record.write_json(&mut line);
        log.write(line);
    }
    phases::log(metrics, plan, session, &record);
}

/// Whose fault it was that the caller did not get a good answer: what the success rate is made of.
fn fault(status: u16, source: Source, error: Option<ProxyError>) -> Fault {
    match error {
        Some(ProxyError::ClientGone) => Fault::ClientGone,
        // As if the plugin had answered 403.
        Some(ProxyError::Reset) => Fault::Client,
        Some(error) => match error.side() {
            Side::Client => Fault::Client,
            Side::Gateway => Fault::Gateway,
            Side::Upstream => Fault::Upstream,
        },
        None if status >= 500 && source == Source::Service => Fault::Upstream,
        // A plugin that answers 5xx was told to (request-termination); it is no failure of the gateway.
        None if (400..500).contains(&status) => Fault::Client,
        None => Fault::None,
    }
}

/// Likewise for a gRPC call that ended with a response in gRPC, which has a status of its own.
fn call_fault(connection: &Connection<'_>, ended: &Ended) -> Option<Fault> {
    let session = &*connection.session;
    let response = &session.exchange.response;
    let status = match (response.grpc_status, session.call) {
        (None, None) => return None,
        (translated @ Some(_), _) => translated,
        (None, Some(_)) => grpc::status_of_response(&session.download.trailers, &response.headers),
    };
    connection.worker.metrics.count_call(status);
    (ended.error.is_none() && (status.is_some() || response.status == 200)).then(|| grpc::fault(status))
}

fn note(connection: &Connection<'_>, error: ProxyError) {
    let metrics = &connection.worker.metrics;
    // Asked for, and maybe often: by an operator's limit, by a plugin.
    let limited = matches!(error, ProxyError::Limited(_) | ProxyError::Reset);
    if limited || (error.side() == Side::Client && error != ProxyError::ClientGone) {
        metrics.refuse(error.label());
    }
    if matches!(error, ProxyError::HeadTimeout | ProxyError::BodyTimeout) {
        metrics.count(Counter::ClientTimeouts);
    }
    // Under overload a line for each would be load of its own; the counters say it.
    if is_operators(error) && !limited {
        let exchange = &connection.session.exchange;
        let route = exchange.route.as_ref().and_then(|route| route.name.as_deref());
        let address = connection.session.exchange.tries.last().map(|attempt| tracing::field::display(attempt.address));
        tracing::warn!(request = exchange.id, route, address, "{error}");
    }
}
