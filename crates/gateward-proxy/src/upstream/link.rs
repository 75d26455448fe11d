//! A connection to a target, while one request has it.

use super::choice::Load;
use crate::channel::Channel;
use crate::h2_client::Leased;
use crate::worker::Worker;
use gateward_net::UpstreamConnection;
use gateward_telemetry::Gauge;
use std::rc::Rc;

/// A connection to a target.
pub(crate) struct Link {
    wire: Wire,
    in_use: Option<InUse>,
    pub(super) load: Option<Load>,
    pub(super) reused: bool,
    /// It began with a PROXY header, and so is for this client alone.
    pub(super) announced: bool,
}

/// What a connection is to its request.
enum Wire {
    /// Its own, until it is put back.
    Http1(UpstreamConnection),
    /// A stream of one that others use too.
    Http2(Box<Leased>),
}

/// Counts a connection as in use while it exists, however the exchange ends.
pub(super) struct InUse {
    worker: Rc<Worker>,
}

impl Link {
    pub(super) fn new(connection: UpstreamConnection, worker: Rc<Worker>, reused: bool) -> Self {
        let wire = Wire::Http1(connection);
        Self { wire, in_use: Some(InUse::new(worker)), load: None, reused, announced: false }
    }

    /// A stream of a connection that counts itself.
    pub(super) fn shared(leased: Box<Leased>, reused: bool) -> Self {
        Self { wire: Wire::Http2(leased), in_use: None, load: None, reused, announced: false }
    }

    /// The way to the upstream.
    pub(crate) fn channel(&self) -> Channel<'_> {
        match &self.wire {
            Wire::Http1(connection) => Channel::Http1(&connection.stream),
            Wire::Http2(leased) => Channel::Http2(&leased.stream),
        }
    }

    /// Whether the upstream said that it did not look at the request.
    pub(super) fn is_refused(&self) -> bool {
        matches!(&self.wire, Wire::Http2(leased) if leased.stream.is_refused())
    }

    /// Whether it may have been dead before the request: it was there before, and not the request alone has failed.
    pub(super) fn may_have_been_dead(&self) -> bool {
        self.reused
            && match &self.wire {
                Wire::Http1(_) => true,
                Wire::Http2(leased) => leased.stream.is_lost(),
            }
    }

    pub(super) fn count_request(&mut self) {
        if let Wire::Http1(connection) = &mut self.wire {
            connection.requests += 1;
        }
    }

    /// Microseconds from the choice of the target to its response head.
    pub(crate) fn latency_us(&self) -> Option<u64> {
        self.load.as_ref().and_then(|load| load.latency_us)
    }

    /// The exchange on it is complete: keep the connection for another.
    pub(crate) fn release(self) {
        if self.announced {
            return;
        }
        if let (Wire::Http1(connection), Some(in_use)) = (self.wire, &self.in_use) {
            let worker = &in_use.worker;
            worker.pool.put(connection, worker.deadlines.now_ms());
        }
    }
}

impl InUse {
    pub(super) fn new(worker: Rc<Worker>) -> Self {
        worker.metrics.gauge_add(Gauge::UpstreamConnectionsActive, 1);
        Self { worker }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.worker.metrics.gauge_add(Gauge::UpstreamConnectionsActive, -1);
    }
}
