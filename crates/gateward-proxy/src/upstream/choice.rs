//! Where a try goes: a target of the upstream, or the service's own host.

use super::Asking;
use crate::client::Connection;
use crate::error::{ProxyError, Side};
use crate::health::Attempt;
use crate::plan::Backend;
use crate::protection::Place;
use crate::session::{Role, Session, WatchedTry};
use crate::upstreams::{UpstreamHandle, WorkerTarget, pick_when_resolved};
use crate::worker::Worker;
use gateward_balance::Ticket;
use gateward_model::{Service, Upstream};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// Counts a request as in flight to its target while it exists: from the choice on, since a target that does not even
/// let one connect is busy.
pub(super) struct Load {
    worker: Rc<Worker>,
    handle: UpstreamHandle,
    ticket: Ticket,
    pub(super) latency_us: Option<u64>,
    target: Rc<WorkerTarget>,
    /// How it went, for the target's health.
    pub(super) attempt: Option<Attempt>,
    /// The try is watched and may be given up.
    watched: Option<Rc<WatchedTry>>,
    _place: Option<Place>,
}

impl Drop for Load {
    fn drop(&mut self) {
        let now_us = self.worker.now_us();
        let mut upstream = self.handle.borrow_mut();
        upstream.finished(self.ticket, self.latency_us, now_us);
        let given_up = || self.watched.as_ref().is_some_and(|watched| watched.given_up.get()).then_some(Attempt::Late);
        if let Some(attempt) = self.attempt.or_else(given_up) {
            upstream.report(&self.target, attempt);
        }
    }
}

/// Where a try goes.
pub(super) struct Destination {
    pub(super) address: SocketAddr,
    pub(super) share: Option<Share>,
}

impl Destination {
    /// Host and port that are asked, and the Host that the upstream entity wants instead.
    pub(super) fn asked<'a>(&'a self, service: &'a Service) -> (&'a str, u16, Option<&'a str>) {
        // The port is that of the address: an SRV record may have brought another.
        match &self.share {
            Some(share) => (share.target.host(), self.address.port(), share.upstream.host_header.as_deref()),
            None => (&service.host, self.address.port(), None),
        }
    }
}

/// The target of an upstream that a try goes to.
pub(super) struct Share {
    pub(super) load: Load,
    target: Rc<WorkerTarget>,
    upstream: Arc<Upstream>,
}

/// Where to go. What a name leads to is known, but for the first time it is used; then there is as much time as for
/// connecting.
pub(super) async fn choose(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    mut place: Option<Place>,
    now_us: u64,
) -> Result<Destination, ProxyError> {
    let worker = connection.worker;
    match asking.backend {
        Backend::Host(Some(ip)) => Ok(Destination { address: SocketAddr::new(ip, asking.service.port), share: None }),
        Backend::Host(None) => {
            let Service { host, port, .. } = asking.service;
            let tried = |address| connection.session.exchange.tries.iter().any(|earlier| earlier.address == address);
            let found = match worker.resolver.at_hand(host, *port, tried) {
                Some(found) => found,
                // Here and below: what seldom happens waits in a future of its own, which keeps that of every request
                // small.
                None => {
                    let deadline = &connection.session.deadline;
                    deadline.arm(u64::from(asking.service.connect_timeout));
                    let waited = deadline.guard(Box::pin(worker.resolver.wait(host, *port))).await;
                    waited.map_err(|_| ProxyError::NameResolution)?
                }
            };
            let address = found.map_err(|_| ProxyError::NameResolution)?;
            Ok(Destination { address, share: None })
        }
        Backend::Upstream(index) => {
            let upstream = asking.plan.upstream(index, worker);
            let share = match pick(connection.session, worker, upstream, asking.hash, &mut place, now_us) {
                Err(ProxyError::NoTarget) => {
                    let deadline = worker.deadlines.register();
                    deadline.arm(u64::from(asking.service.connect_timeout));
                    let pick = || pick(connection.session, worker, upstream, asking.hash, &mut place, now_us);
                    Box::pin(pick_when_resolved(upstream, &deadline, pick)).await?
                }
                picked => picked?,
            };
            Ok(Destination { address: share.target.address, share: Some(share) })
        }
    }
}

/// A target that was not tried yet, if there is one.
fn pick(
    session: &mut Session,
    worker: &Rc<Worker>,
    handle: &UpstreamHandle,
    hash: Option<u64>,
    place: &mut Option<Place>,
    now_us: u64,
) -> Result<Share, ProxyError> {
    let mut upstream = handle.borrow_mut();
    upstream.follow_names(worker.node.registries());
    if session.excluded_of != upstream.generation() {
        session.excluded.clear();
        session.excluded_of = upstream.generation();
    }
    let mut picked = upstream.pick(hash, &session.excluded, now_us).ok_or(ProxyError::NoTarget)?;
    if let Role::Second(Some(first)) = session.role
        && session.excluded.contains(&picked.0.index())
    {
        // All were tried: one that failed may do better now, the one that hangs will not.
        picked = upstream.pick(hash, &[first], now_us).ok_or(ProxyError::NoTarget)?;
    }
    let (ticket, target) = picked;
    let watched = match &session.role {
        Role::Only => None,
        Role::First(watched) => {
            watched.target.set(Some(ticket.index()));
            Some(watched.clone())
        }
        Role::Second(first) if *first == Some(ticket.index()) => return Err(ProxyError::NoTarget),
        Role::Second(_) => None,
    };
    session.excluded.push(ticket.index());
    upstream.started(ticket, now_us);
    let load = Load {
        worker: worker.clone(),
        handle: handle.clone(),
        ticket,
        latency_us: None,
        target: target.clone(),
        attempt: None,
        watched,
        _place: place.take(),
    };
    Ok(Share { load, target, upstream: upstream.entity().clone() })
}

/// What a failed try says about its target.
pub(super) fn failed_attempt(error: ProxyError) -> Option<Attempt> {
    match error {
        ProxyError::ConnectTimeout | ProxyError::UpstreamTimeout => Some(Attempt::Late),
        // The target was not even asked.
        ProxyError::Limited(_) => None,
        error if error.side() == Side::Upstream => Some(Attempt::Broken),
        _ => None,
    }
}
