//! Getting a connection to where a try goes: pooled or new, of its own over HTTP/1.1 or a share of one over HTTP/2.

use super::link::Link;
use super::{Asking, http2, secure};
use crate::client::Connection;
use crate::error::ProxyError;
use crate::h2_client::Dialled;
use crate::protection::Opening;
use crate::session::Session;
use crate::worker::Worker;
use gateward_net::tls::Offer;
use gateward_net::{Lease, Peer, UpstreamConnection};
use gateward_plugin::Try;
use gateward_telemetry::Counter;
use std::net::SocketAddr;
use std::rc::Rc;

/// A connection to `peer`: pooled, or new.
pub(super) async fn connect(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    peer: Peer,
    fresh_only: bool,
    began_us: u64,
) -> Result<Link, ProxyError> {
    match http2::offer(asking.service, connection.session) {
        Offer::Http1 => connect_http1(connection, asking, peer, Offer::Http1, fresh_only, began_us).await,
        offer => Box::pin(http2::connect(connection, asking, peer, offer, fresh_only, began_us)).await,
    }
}

/// A connection of its own to `peer`, which speaks HTTP/1.1. A new one where more is on `offer` may choose otherwise.
pub(super) async fn connect_http1(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    peer: Peer,
    offer: Offer,
    fresh_only: bool,
    began_us: u64,
) -> Result<Link, ProxyError> {
    let (service, address) = (asking.service, peer.address);
    let worker = connection.worker;
    let fresh_only = fresh_only || service.proxy_protocol.is_some();
    let session = &mut *connection.session;
    let method = session.exchange.upstream.method.as_ref().unwrap_or(&session.exchange.request.method);
    if !fresh_only {
        let (pooled, discarded) = worker.pool.take(&peer, !method.is_idempotent(), worker.deadlines.now_ms());
        if discarded > 0 {
            worker.metrics.add(Counter::UpstreamIdleDiscarded, discarded);
        }
        if let Some(pooled) = pooled {
            return Ok(reuse(worker, session, pooled, began_us));
        }
    }
    let opening = match &asking.protection {
        None => None,
        Some(protection) => {
            let wait_ms = u64::from(service.connect_timeout);
            Box::pin(protection.open(worker.idle_connections(), &peer, fresh_only, wait_ms)).await?
        }
    };
    let place = match opening {
        None => None,
        Some(Opening::New(lease)) => Some(lease),
        Some(Opening::Idle(pooled)) => return Ok(reuse(worker, session, pooled, began_us)),
    };
    let dialled = match Box::pin(dial(worker, session, asking, &peer, offer, place)).await {
        Ok(dialled) => dialled,
        Err(error) => {
            note_no_connection(worker, session, address, began_us, error);
            return Err(error);
        }
    };
    session.exchange.tries.push(attempt_record(worker, address, began_us, false, None));
    if offer == Offer::Either && dialled.is_http2() {
        return Box::pin(http2::adopt(worker, peer, dialled)).await;
    }
    Ok(begin(worker, asking, peer, dialled))
}

/// The connection that `dialled` is, over HTTP/1.1.
pub(super) fn begin(worker: &Rc<Worker>, asking: &Asking<'_>, peer: Peer, dialled: Dialled) -> Link {
    let connection = UpstreamConnection { stream: Rc::new(dialled.stream), peer, requests: 0, lease: dialled.place };
    let mut link = Link::new(connection, worker.clone(), false);
    link.announced = asking.service.proxy_protocol.is_some();
    link
}

fn reuse(worker: &Rc<Worker>, session: &mut Session, pooled: UpstreamConnection, began_us: u64) -> Link {
    worker.metrics.count(Counter::UpstreamReuses);
    session.exchange.tries.push(attempt_record(worker, pooled.peer.address, began_us, true, None));
    Link::new(pooled, worker.clone(), true)
}

/// Make a connection, within the service's time for it.
pub(super) async fn dial(
    worker: &Worker,
    session: &Session,
    asking: &Asking<'_>,
    peer: &Peer,
    offer: Offer,
    place: Option<Lease>,
) -> Result<Dialled, ProxyError> {
    session.deadline.arm(u64::from(asking.service.connect_timeout));
    let stream = session.deadline.guard(secure::dial(peer, asking.tls, asking.service, session, offer)).await;
    let stream = stream.unwrap_or(Err(ProxyError::ConnectTimeout))?;
    worker.metrics.count(Counter::UpstreamConnects);
    if let Some(idle) = worker.node.settings.tcp_keepalive {
        stream.keep_alive(idle);
    }
    Ok(Dialled { stream, place })
}

pub(super) fn note_no_connection(
    worker: &Worker,
    session: &mut Session,
    address: SocketAddr,
    began_us: u64,
    error: ProxyError,
) {
    worker.metrics.count(Counter::UpstreamConnectFailures);
    let failure = if error == ProxyError::ConnectTimeout { "timeout" } else { "failed" };
    session.exchange.tries.push(attempt_record(worker, address, began_us, false, Some(failure)));
}

pub(super) fn attempt_record(
    worker: &Worker,
    address: SocketAddr,
    began_us: u64,
    keepalive: bool,
    failure: Option<&'static str>,
) -> Try {
    // A pooled connection costs no time worth a clock read.
    let connect_us = if keepalive { 0 } else { worker.now_us().saturating_sub(began_us) };
    Try { address, started_at_ms: worker.unix_ms(began_us), connect_us, keepalive, failure, status: None }
}
