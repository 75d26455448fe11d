//! What is known of one stream while it lives.

use crate::instance::Instance;
use crate::worker::{Worker, WorkerPlan};
use gateward_model::Protocol;
use gateward_plugin::{Context, MetricGroups, ProxyOrigin, RecordChanges, StreamExchange, Try};
use gateward_route::{StreamInput, StreamProtocol, StreamRouter};
use gateward_telemetry::{Gauge, SeriesId};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// One stream; counted as open while it exists.
pub(crate) struct Session {
    pub(crate) exchange: StreamExchange,
    pub(crate) carried: StreamProtocol,
    pub(crate) series: SeriesId,
    /// Plugins chosen for it, in order.
    pub(crate) plugins: Vec<Instance>,
    pub(crate) tries: Vec<Try>,
    /// On the worker's clock, in microseconds.
    pub(crate) started_us: u64,
    /// When the upstream was asked for first.
    pub(crate) forwarded_us: Option<u64>,
    /// Bytes from the client to the upstream, and back.
    pub(crate) up_bytes: u64,
    pub(crate) down_bytes: u64,
    /// Bytes of plugins to the client.
    pub(crate) greeting_bytes: u64,
    worker: Rc<Worker>,
}

impl Session {
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        client: SocketAddr,
        local: SocketAddr,
        origin: Option<Arc<ProxyOrigin>>,
    ) -> Self {
        worker.metrics.gauge_add(Gauge::StreamsActive, 1);
        let started_us = worker.now_us();
        let exchange = StreamExchange {
            started_at_ms: worker.unix_ms(started_us),
            protocol: Protocol::Tcp,
            connection: worker.node.number_connection(),
            client,
            local,
            sni: None,
            tls: None,
            origin,
            route: None,
            service: None,
            detour: None,
            greeting: Vec::new(),
            metrics: MetricGroups::default(),
            changes: RecordChanges::default(),
            context: Context::default(),
        };
        Self {
            exchange,
            carried: StreamProtocol::Tcp,
            series: SeriesId::NONE,
            plugins: Vec::new(),
            tries: Vec::new(),
            started_us,
            forwarded_us: None,
            up_bytes: 0,
            down_bytes: 0,
            greeting_bytes: 0,
            worker: worker.clone(),
        }
    }

    /// It turned out to be carried by this.
    pub(crate) fn carried_by(&mut self, protocol: StreamProtocol) {
        self.carried = protocol;
        self.exchange.protocol = match protocol {
            StreamProtocol::Tcp => Protocol::Tcp,
            StreamProtocol::Tls => Protocol::Tls,
            StreamProtocol::TlsPassthrough => Protocol::TlsPassthrough,
            StreamProtocol::Udp => Protocol::Udp,
        };
    }

    /// The position of its route.
    pub(crate) fn find(&self, router: &StreamRouter) -> Option<usize> {
        let exchange = &self.exchange;
        router.find(&StreamInput {
            protocol: self.carried,
            sni: exchange.sni.as_deref(),
            vpce_id: exchange.origin.as_ref().and_then(|origin| origin.vpce_id.as_deref()),
            src: exchange.client,
            dst: exchange.local,
        })
    }

    /// Its route is this one.
    pub(crate) fn matched(&mut self, plan: &WorkerPlan, route: usize) {
        let entry = &plan.shared.stream_router.routes()[route];
        self.exchange.route = Some(entry.route.clone());
        self.exchange.service.clone_from(&entry.service);
        self.series = plan.shared.stream_routes[route].series;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.worker.metrics.gauge_add(Gauge::StreamsActive, -1);
    }
}
