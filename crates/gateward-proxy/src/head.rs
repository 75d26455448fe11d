//! Receiving a request's head and describing the request: ids, addresses, what was forwarded.

use crate::body::{Encoder, STREAM_BYTES};
use crate::client::Connection;
use crate::error::ProxyError;
use crate::flow::Source;
use crate::forwarded;
use crate::settings::Underscores;
use crate::upgrade;
use gateward_http::headers::Name;
use gateward_http::{Method, Parsed, hop, parse_request_head, worth_parsing};
use gateward_telemetry::Gauge;
use std::future::poll_fn;

/// What came of waiting for a head.
pub(crate) enum Received {
    Request,
    /// The connection ended before a request began.
    Nothing,
    /// The connection's preface of HTTP/2 by a client that knows that it is spoken here (RFC 9113 section 3.3).
    Http2,
}

/// Read until a head is complete.
pub(crate) async fn receive(connection: &mut Connection<'_>) -> Result<Received, ProxyError> {
    let limits = connection.worker.node.settings.limits;
    let most = limits.head.head_bytes.max(STREAM_BYTES);
    connection.deadline.arm(limits.header_timeout_ms);
    let client = connection.client;
    let session = &mut *connection.session;
    let (input, head) = (&mut session.upload.input, &mut session.exchange.request);
    let mut seen = 0;
    loop {
        if !input.is_empty() && worth_parsing(input.filled(), seen, &limits.head) {
            match parse_request_head(input.filled(), &limits.head, head) {
                Ok(Parsed::Complete(length)) => {
                    input.consume(length);
                    input.rest();
                    session.received_bytes = length as u64;
                    return accept(connection).map(|()| Received::Request);
                }
                Ok(Parsed::Partial) => {}
                Err(_) if connection.served == 0 && speaks_http2(input.filled()) => return Ok(Received::Http2),
                Err(error) => return Err(ProxyError::Head(error)),
            }
        }
        let untouched = input.is_empty();
        let space = input.space(most);
        let count = match connection.deadline.guard(poll_fn(|context| client.poll_receive(context, space))).await {
            Ok(Ok(count)) if count > 0 => count,
            _ if untouched => return Ok(Received::Nothing),
            Err(_) => return Err(ProxyError::HeadTimeout),
            Ok(_) => return Err(ProxyError::ClientGone),
        };
        seen = input.len();
        input.fill(count);
    }
}

/// Rules about a well-formed head that are policy rather than syntax.
pub(crate) fn accept(connection: &mut Connection<'_>) -> Result<(), ProxyError> {
    let settings = &connection.worker.node.settings;
    let request = &mut connection.session.exchange.request;
    if matches!(request.method, Method::Connect | Method::Trace) {
        return Err(ProxyError::Method);
    }
    const VIA: Name<'static> = Name::new("via");
    let hops: usize = request
        .headers
        .get_all(VIA)
        .map(|value| value.split(|byte| *byte == b',').filter(|hop| names_gateway(hop)).count())
        .sum();
    if hops > settings.limits.via_hops {
        return Err(ProxyError::Loop);
    }
    connection.session.upgrade = upgrade::asked(request, settings);
    hop::strip_request(&mut request.headers);
    hop::clear_identity_headers(&mut request.headers);
    match settings.underscores {
        Underscores::Allow => hop::drop_aliases(&mut request.headers),
        Underscores::Drop => hop::drop_underscored(&mut request.headers),
        Underscores::Refuse if request.headers.is_underscored() => return Err(ProxyError::Underscore),
        Underscores::Refuse => {}
    }
    Ok(())
}

/// Whether `bytes` are a beginning of the preface that no HTTP/1.1 request has. The rest is read as HTTP/2, and
/// refused as such if it is none.
fn speaks_http2(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PRI * HTTP/2")
}

/// Whether a `Via` entry is one of a Gateward node.
fn names_gateway(hop: &[u8]) -> bool {
    hop.windows(b"gateward".len()).any(|window| window.eq_ignore_ascii_case(b"gateward"))
}

/// Fill in what plugins, logs and the upstream get to know about the request besides its head.
pub(crate) fn describe(connection: &mut Connection<'_>) {
    let worker = connection.worker;
    let session = &mut *connection.session;
    worker.metrics.gauge_add(Gauge::RequestsInFlight, 1);
    worker.ids.write_next(&mut session.exchange.id);
    session.exchange.started_at_ms = worker.unix_ms(session.times.started);
    session.exchange.client.number = connection.served.saturating_add(1);
    let framing = connection.client.received_as(session.exchange.request.framing);
    session.upload.begin(framing, Encoder::Raw);
    forwarded::apply(&mut session.exchange, &worker.node.settings);
}
