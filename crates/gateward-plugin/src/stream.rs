//! One stream, as plugins see it: a TCP or TLS connection, or the datagrams of one client.
//!
//! The record's JSON is that of Kong's `kong.log.serialize` in the stream subsystem (kong/pdk/log.lua): `session`,
//! `upstream`, `latencies`, `tries`, route and service. Besides, `session` tells the protocol and the server name, and
//! `end` what ended it.

use crate::client_tls::TlsView;
use crate::record::{RouteView, ServiceView, TriesView, route_view, service_view};
use crate::record_changes;
use crate::{ClientTls, Context, Detour, MetricGroups, ProxyOrigin, RecordChanges, Try};
use gateward_model::{Protocol, Route, Service};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// State of one stream.
#[derive(Debug)]
pub struct StreamExchange {
    /// Unix milliseconds when it began.
    pub started_at_ms: u64,
    /// What carries it: `tcp`, `tls`, `tls_passthrough` or `udp`.
    pub protocol: Protocol,
    /// Serial number of the connection or UDP session among those of the process, from 1; 0: nobody counted.
    pub connection: u64,
    /// The client: the peer, or who a trusted PROXY header named.
    pub client: SocketAddr,
    /// The address it came in on.
    pub local: SocketAddr,
    /// The server name of its TLS handshake.
    pub sni: Option<String>,
    /// Its TLS session where that ends at the gateway.
    pub tls: Option<Arc<ClientTls>>,
    /// What a trusted PROXY header said; `None` without one.
    pub origin: Option<Arc<ProxyOrigin>>,
    /// The matched route.
    pub route: Option<Arc<Route>>,
    /// The matched route's service.
    pub service: Option<Arc<Service>>,
    /// What a plugin wants of the upstream otherwise than the service says; seldom anything.
    pub detour: Option<Box<Detour>>,
    /// Bytes of plugins for the client: sent before anything of the upstream's, or before the stream is closed.
    pub greeting: Vec<u8>,
    /// Metrics to record beyond the always-on ones, switched on by the prometheus plugin.
    pub metrics: MetricGroups,
    /// What plugins change in its record.
    pub changes: RecordChanges,
    /// What plugins keep until the stream is over.
    pub context: Context,
}

/// What a plugin says to a stream before its upstream is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preread {
    /// Go on.
    Next,
    /// Close it; with this status in records, in nginx's terms (403: forbidden).
    Close(u16),
}

/// How a stream ended, with its figures. Finished exactly once, on every path.
#[derive(Debug)]
pub struct StreamRecord<'a> {
    /// What it was.
    pub stream: &'a StreamExchange,
    /// Attempts to reach the upstream, in order.
    pub tries: &'a [Try],
    /// nginx's status of a session: 200, 400, 403, 500, 502, 503.
    pub status: u16,
    /// What ended it, of a fixed vocabulary.
    pub end: &'static str,
    /// Bytes received from the client.
    pub received_bytes: u64,
    /// Bytes sent to the client.
    pub sent_bytes: u64,
    /// Bytes received from the upstream.
    pub upstream_received_bytes: u64,
    /// Bytes sent to the upstream.
    pub upstream_sent_bytes: u64,
    /// From its beginning until the upstream was dialled; microseconds.
    pub gateway_us: u64,
    /// From its beginning to its end; microseconds.
    pub session_us: u64,
}

impl StreamRecord<'_> {
    /// The record's JSON. Parses what [`Self::write_json`] writes: for who looks into it.
    pub fn to_json(&self) -> serde_json::Value {
        let mut text = String::new();
        self.write_json(&mut text);
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Append the record as one line of JSON, without the line's end.
    pub fn write_json(&self, out: &mut String) {
        record_changes::write(&self.view(), &self.stream.changes, out);
    }

    fn view(&self) -> View<'_> {
        let stream = self.stream;
        View {
            session: SessionView {
                protocol: stream.protocol,
                sni: stream.sni.as_deref(),
                tls: stream.tls.as_deref().map(TlsView::from),
                received: self.received_bytes,
                sent: self.sent_bytes,
                status: self.status,
                server_port: stream.local.port(),
            },
            upstream: BytesView { received: self.upstream_received_bytes, sent: self.upstream_sent_bytes },
            latencies: Latencies { kong: self.gateway_us / 1000, session: self.session_us / 1000 },
            tries: TriesView(self.tries),
            route: stream.route.as_deref().map(route_view),
            service: stream.service.as_deref().map(service_view),
            client_ip: stream.client.ip().to_canonical(),
            proxy_protocol: stream.origin.as_deref(),
            started_at: stream.started_at_ms,
            end: self.end,
        }
    }
}

#[derive(Serialize)]
struct View<'a> {
    session: SessionView<'a>,
    upstream: BytesView,
    latencies: Latencies,
    tries: TriesView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<RouteView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceView<'a>>,
    client_ip: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_protocol: Option<&'a ProxyOrigin>,
    started_at: u64,
    end: &'static str,
}

#[derive(Serialize)]
struct SessionView<'a> {
    protocol: Protocol,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsView<'a>>,
    received: u64,
    sent: u64,
    status: u16,
    server_port: u16,
}

#[derive(Serialize)]
struct BytesView {
    received: u64,
    sent: u64,
}

/// Milliseconds.
#[derive(Serialize)]
struct Latencies {
    kong: u64,
    session: u64,
}

#[cfg(test)]
pub(crate) mod testing {
    //! Streams to try plugins on.

    use super::*;

    /// A connection of this client.
    pub(crate) fn stream(client: &str) -> StreamExchange {
        StreamExchange {
            started_at_ms: 1_700_000_000_123,
            protocol: Protocol::Tcp,
            connection: 0,
            client: SocketAddr::new(client.parse().unwrap(), 4711),
            local: ([10, 0, 0, 1], 5432).into(),
            sni: None,
            tls: None,
            origin: None,
            route: None,
            service: None,
            detour: None,
            greeting: Vec::new(),
            metrics: MetricGroups::default(),
            changes: RecordChanges::default(),
            context: Context::default(),
        }
    }

    /// How it ended.
    pub(crate) fn record(stream: &StreamExchange) -> StreamRecord<'_> {
        StreamRecord {
            stream,
            tries: &[],
            status: 200,
            end: "client",
            received_bytes: 10,
            sent_bytes: 20,
            upstream_received_bytes: 20,
            upstream_sent_bytes: 10,
            gateway_us: 1_500,
            session_us: 60_000_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{record, stream};
    use super::*;
    use serde_json::{Value, json};

    fn check(stream: &StreamExchange, expected: &Value) {
        let mut line = String::new();
        record(stream).write_json(&mut line);
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), *expected);
    }

    #[test]
    fn the_record_is_kongs() {
        let mut exchange = stream("::ffff:192.0.2.7");
        let mut expected = json!({
            "session": { "protocol": "tcp", "received": 10, "sent": 20, "status": 200, "server_port": 5432 },
            "upstream": { "received": 20, "sent": 10 },
            "latencies": { "kong": 1, "session": 60_000 },
            "tries": [],
            "client_ip": "192.0.2.7",
            "started_at": 1_700_000_000_123_u64,
            "end": "client",
        });
        check(&exchange, &expected);
        exchange.protocol = Protocol::Tls;
        exchange.sni = Some("a.example".to_owned());
        let tls = ClientTls { version: "TLSv1.3", cipher: "x", sni: exchange.sni.clone(), certificate: None };
        exchange.tls = Some(Arc::new(tls));
        expected["session"]["protocol"] = json!("tls");
        expected["session"]["sni"] = json!("a.example");
        expected["session"]["tls"] = json!({ "version": "TLSv1.3", "cipher": "x", "client_verify": "NONE" });
        check(&exchange, &expected);
    }
}
