//! Which upstreams are spoken to in HTTP/2, and a connection to one.

use super::Asking;
use super::connect::{attempt_record, begin, connect_http1, dial, note_no_connection};
use super::link::{InUse, Link};
use crate::client::Connection;
use crate::error::ProxyError;
use crate::h2_client::{Destination, Dialled, Http2Pool, Way};
use crate::protection::Opening;
use crate::session::Session;
use crate::worker::Worker;
use gateward_model::{Protocol, Service};
use gateward_net::tls::Offer;
use gateward_net::{Lease, Peer};
use gateward_telemetry::Counter;
use std::rc::Rc;

/// What an upstream of `service` may choose from for this request. In the clear nothing is chosen: what is offered is
/// spoken.
pub(super) fn offer(service: &Service, session: &Session) -> Offer {
    match service.protocol {
        Protocol::Grpc | Protocol::Grpcs => Offer::Http2,
        // Yet another protocol can be agreed on only in HTTP/1.1.
        Protocol::Https if service.http2 == Some(true) && session.upgrade.is_none() => Offer::Either,
        _ => Offer::Http1,
    }
}

/// A connection to `peer` that speaks HTTP/2 if that is what comes of the `offer`.
pub(super) async fn connect(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    peer: Peer,
    offer: Offer,
    fresh_only: bool,
    began_us: u64,
) -> Result<Link, ProxyError> {
    let (worker, session) = (connection.worker, &mut *connection.session);
    let (address, negotiates) = (peer.address, offer == Offer::Either);
    let destination = Destination { peer, negotiates };
    let found = {
        let (session, peer) = (&*session, &destination.peer);
        let dial = async || {
            let place = place(worker, asking, peer).await?;
            dial(worker, session, asking, peer, offer, place).await
        };
        let keep = || InUse::new(worker.clone());
        if asking.service.proxy_protocol.is_some() {
            // Such a connection is for one client.
            match dial().await {
                Ok(dialled) if dialled.is_http2() => {
                    Http2Pool::single(&destination, &worker.deadlines, dialled, keep())
                        .await
                        .map(|leased| (Way::Http2(leased), false))
                }
                Ok(dialled) => Ok((Way::Http1(dialled), false)),
                Err(error) => Err(error),
            }
        } else {
            // The time for waiting while another dials; who dials has it once more.
            session.deadline.arm(u64::from(asking.service.connect_timeout));
            worker.http2.way(&destination, &worker.deadlines, &session.deadline, dial, keep).await
        }
    };
    let (way, reused) = match found {
        Ok(found) => found,
        Err(error) => {
            if !matches!(error, ProxyError::Limited(_)) {
                note_no_connection(worker, session, address, began_us, error);
            }
            return Err(error);
        }
    };
    match way {
        Way::KnownHttp1 => connect_http1(connection, asking, destination.peer, offer, fresh_only, began_us).await,
        Way::Http1(dialled) => {
            session.exchange.tries.push(attempt_record(worker, address, began_us, false, None));
            Ok(begin(worker, asking, destination.peer, dialled))
        }
        Way::Http2(leased) => {
            if reused {
                worker.metrics.count(Counter::UpstreamReuses);
            }
            session.exchange.tries.push(attempt_record(worker, address, began_us, reused, None));
            // When one connection has died under the request already, the next that does is no surprise.
            Ok(Link::shared(leased, reused && !fresh_only))
        }
    }
}

/// A place among the connections of an upstream that limits them.
async fn place(worker: &Worker, asking: &Asking<'_>, peer: &Peer) -> Result<Option<Lease>, ProxyError> {
    let Some(protection) = &asking.protection else { return Ok(None) };
    let wait_ms = u64::from(asking.service.connect_timeout);
    let opening = protection.open(worker.idle_connections(), peer, true, wait_ms).await?;
    Ok(opening.and_then(|opening| match opening {
        Opening::New(lease) => Some(lease),
        Opening::Idle(idle) => idle.lease,
    }))
}

/// A share of a new connection to `peer`, which had chosen HTTP/1.1 before and does not any more.
pub(super) async fn adopt(worker: &Rc<Worker>, peer: Peer, dialled: Dialled) -> Result<Link, ProxyError> {
    let destination = Destination { peer, negotiates: true };
    let kept = InUse::new(worker.clone());
    let leased = worker.http2.adopt(&destination, &worker.deadlines, dialled, kept).await?;
    Ok(Link::shared(leased, false))
}

#[cfg(test)]
mod tests;
