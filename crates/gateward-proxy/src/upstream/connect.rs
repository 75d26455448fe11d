//! Getting a connection to where a try goes: pooled or new, of its own over HTTP/1.1 or a share of one over HTTP/2.

use super::Asking;
use super::link::{InUse, Link};
use super::{http2, secure};
use crate::client::Connection;
use crate::error::ProxyError;
use crate::protection::Opening;
use crate::session::Session;
use crate::worker::Worker;
use gateward_model::Service;
use gateward_net::{Peer, UpstreamConnection};
use gateward_plugin::Try;
use gateward_telemetry::Counter;
use std::net::SocketAddr;

/// A connection to `peer`: pooled, or new.
pub(super) async fn connect(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    peer: Peer,
    fresh_only: bool,
    began_us: u64,
) -> Result<Link, ProxyError> {
    let (service, address) = (asking.service, peer.address);
    if http2::is_for(service) {
        return Box::pin(connect_shared(connection, service, address, began_us)).await;
    }
    let worker = connection.worker;
    let connect_ms = u64::from(service.connect_timeout);
    let session = &mut *connection.session;
    let method = session.exchange.upstream.method.as_ref().unwrap_or(&session.exchange.request.method);
    if !fresh_only && service.proxy_protocol.is_none() {
        let (pooled, discarded) = worker.pool.take(&peer, !method.is_idempotent(), worker.deadlines.now_ms());
        if discarded > 0 {
            worker.metrics.add(Counter::UpstreamIdleDiscarded, discarded);
        }
        if let Some(pooled) = pooled {
            worker.metrics.count(Counter::UpstreamReuses);
            session.tries.push(attempt_record(worker, address, began_us, true, None));
            return Ok(Link::new(pooled, worker.clone(), true));
        }
    }
    let opening = match &asking.protection {
        None => None,
        Some(protection) => {
            Box::pin(protection.open(
                (&worker.pool, || worker.deadlines.now_ms()),
                &peer,
                fresh_only || service.proxy_protocol.is_some(),
                connect_ms,
            ))
            .await?
        }
    };
    let lease = match opening {
        None => None,
        Some(Opening::New(lease)) => Some(lease),
        Some(Opening::Idle(pooled)) => {
            worker.metrics.count(Counter::UpstreamReuses);
            session.tries.push(attempt_record(worker, address, began_us, true, None));
            return Ok(Link::new(pooled, worker.clone(), true));
        }
    };
    session.deadline.arm(connect_ms);
    let dialling = Box::pin(secure::dial(&peer, asking.tls, service, session));
    let error = match session.deadline.guard(dialling).await {
        Ok(Ok(stream)) => {
            worker.metrics.count(Counter::UpstreamConnects);
            if let Some(idle) = worker.node.settings.tcp_keepalive {
                stream.keep_alive(idle);
            }
            session.tries.push(attempt_record(worker, address, began_us, false, None));
            let connection = UpstreamConnection { stream, peer, requests: 0, lease };
            let mut link = Link::new(connection, worker.clone(), false);
            link.announced = service.proxy_protocol.is_some();
            return Ok(link);
        }
        Ok(Err(error)) => error,
        Err(_) => ProxyError::ConnectTimeout,
    };
    note_no_connection(worker, session, address, began_us, error);
    Err(error)
}

/// A stream to `address` on a connection that other requests use too.
async fn connect_shared(
    connection: &mut Connection<'_>,
    service: &Service,
    address: SocketAddr,
    began_us: u64,
) -> Result<Link, ProxyError> {
    let (worker, session) = (connection.worker, &mut *connection.session);
    let keep = || InUse::new(worker.clone());
    match http2::connect(worker, &session.deadline, service, address, keep).await {
        Ok((leased, reused)) => {
            worker.metrics.count(if reused { Counter::UpstreamReuses } else { Counter::UpstreamConnects });
            session.tries.push(attempt_record(worker, address, began_us, reused, None));
            Ok(Link::shared(leased, reused))
        }
        Err(error) => {
            note_no_connection(worker, session, address, began_us, error);
            Err(error)
        }
    }
}

fn note_no_connection(worker: &Worker, session: &mut Session, address: SocketAddr, began_us: u64, error: ProxyError) {
    worker.metrics.count(Counter::UpstreamConnectFailures);
    let failure = if error == ProxyError::ConnectTimeout { "timeout" } else { "failed" };
    session.tries.push(attempt_record(worker, address, began_us, false, Some(failure)));
}

fn attempt_record(
    worker: &Worker,
    address: SocketAddr,
    began_us: u64,
    keepalive: bool,
    failure: Option<&'static str>,
) -> Try {
    // A pooled connection costs no time worth a clock read.
    let connect_us = if keepalive { 0 } else { worker.now_us().saturating_sub(began_us) };
    Try { address, started_at_ms: worker.unix_ms(began_us), connect_us, keepalive, failure }
}
