//! Reaching the upstream of a stream: pick a target, connect, and try others as long as no byte went out.

use super::error::StreamError;
use super::session::Session;
use super::way::Way;
use crate::announce;
use crate::error::{ProxyError, Side};
use crate::hashing::hash_of_stream;
use crate::health::Attempt;
use crate::plan::Backend;
use crate::protection::{Opening, Place, Protection};
use crate::server_name::bare_host;
use crate::upstreams::{UpstreamHandle, WorkerTarget, pick_when_resolved};
use crate::worker::{Worker, WorkerPlan};
use gateward_balance::Ticket;
use gateward_model::Service;
use gateward_net::tls::{Client, Offer};
use gateward_net::{Deadline, Lease, Stream};
use gateward_plugin::Try;
use gateward_telemetry::{Counter, Gauge};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use tokio::net::UdpSocket;

/// A connection to the upstream.
pub(super) struct Reached {
    pub(super) stream: Stream,
    /// Milliseconds between two reads and two writes.
    pub(super) read_ms: u64,
    pub(super) write_ms: u64,
    _load: Option<Load>,
    _in_use: InUse,
    _lease: Option<Lease>,
}

/// Counts a stream as under way to its target while it is, and tells how it went.
pub(super) struct Load {
    worker: Rc<Worker>,
    handle: UpstreamHandle,
    ticket: Ticket,
    pub(super) target: Rc<WorkerTarget>,
    pub(super) latency_us: Option<u64>,
    pub(super) attempt: Option<Attempt>,
    _place: Option<Place>,
}

impl Drop for Load {
    fn drop(&mut self) {
        let now_us = self.worker.now_us();
        let mut upstream = self.handle.borrow_mut();
        upstream.finished(self.ticket, self.latency_us, now_us);
        if let Some(attempt) = self.attempt {
            upstream.report(&self.target, attempt);
        }
    }
}

impl Load {
    /// Whether the target of datagrams was there.
    pub(super) fn answered(&mut self, there: bool) {
        self.attempt = Some(if there { Attempt::Connected } else { Attempt::Broken });
    }

    /// Tell at once how the connection went: a stream may last for days.
    fn tell(&mut self, attempt: Attempt) {
        self.handle.borrow().report(&self.target, attempt);
    }
}

/// Likewise an upstream connection as in use.
struct InUse(Rc<Worker>);

impl InUse {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.metrics.gauge_add(Gauge::UpstreamConnectionsActive, 1);
        Self(worker.clone())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.metrics.gauge_add(Gauge::UpstreamConnectionsActive, -1);
    }
}

/// What is reached for, the same for every try.
pub(super) struct Reaching<'a> {
    worker: &'a Rc<Worker>,
    pub(super) service: &'a Service,
    upstream: Option<&'a UpstreamHandle>,
    /// The address of a service that leads to one.
    literal: Option<IpAddr>,
    hash: Option<u64>,
    tls: Option<&'a Client>,
    protection: Option<Rc<Protection>>,
    deadline: Deadline,
    /// Targets tried, of this generation of the upstream's.
    excluded: (u64, Vec<usize>),
    /// Likewise addresses of a service without an upstream.
    tried: Vec<SocketAddr>,
}

impl<'a> Reaching<'a> {
    pub(super) fn new(worker: &'a Rc<Worker>, plan: &'a WorkerPlan, session: &Session, way: &'a Way<'a>) -> Self {
        let (service, backend) = (way.service(), way.backend());
        let (upstream, literal) = match backend {
            Backend::Upstream(index) => (Some(plan.upstream(index, worker)), None),
            Backend::Host(literal) => (None, literal),
        };
        let client = session.exchange.client.ip();
        let hash = upstream.and_then(|upstream| hash_of_stream(upstream.borrow().entity(), client));
        Self {
            worker,
            service,
            upstream,
            literal,
            hash,
            tls: way.tls(),
            protection: upstream.and_then(|upstream| upstream.borrow().protection()),
            deadline: worker.deadlines.register(),
            excluded: (0, Vec::new()),
            tried: Vec::new(),
        }
    }

    /// Where a try goes, and the share of its target. There is as much time for its name as for connecting.
    pub(super) async fn choose(&mut self) -> Result<(SocketAddr, Option<Load>), ProxyError> {
        let (worker, service) = (self.worker, self.service);
        let connect_ms = u64::from(service.connect_timeout);
        let mut place = match &self.protection {
            None => None,
            Some(protection) => Box::pin(protection.enter(connect_ms)).await?,
        };
        if let Some(upstream) = self.upstream {
            let load = match self.pick(upstream, &mut place) {
                Err(ProxyError::NoTarget) => {
                    let deadline = worker.deadlines.register();
                    deadline.arm(connect_ms);
                    let pick = || self.pick(upstream, &mut place);
                    Box::pin(pick_when_resolved(upstream, &deadline, pick)).await?
                }
                picked => picked?,
            };
            return Ok((load.target.address, Some(load)));
        }
        if let Some(ip) = self.literal {
            return Ok((SocketAddr::new(ip, service.port), None));
        }
        let tried = |address| self.tried.contains(&address);
        let found = match worker.resolver.at_hand(&service.host, service.port, tried) {
            Some(found) => found,
            None => {
                self.deadline.arm(connect_ms);
                let waited = self.deadline.guard(Box::pin(worker.resolver.wait(&service.host, service.port))).await;
                waited.map_err(|_| ProxyError::NameResolution)?
            }
        };
        let address = found.map_err(|_| ProxyError::NameResolution)?;
        self.tried.push(address);
        Ok((address, None))
    }

    /// A target that was not tried yet, if there is one.
    fn pick(&mut self, handle: &UpstreamHandle, place: &mut Option<Place>) -> Result<Load, ProxyError> {
        let now_us = self.worker.now_us();
        let mut upstream = handle.borrow_mut();
        upstream.follow_names(self.worker.node.registries());
        if self.excluded.0 != upstream.generation() {
            self.excluded = (upstream.generation(), Vec::new());
        }
        let picked = upstream.pick(self.hash, &self.excluded.1, now_us);
        let (ticket, target) = picked.ok_or(ProxyError::NoTarget)?;
        self.excluded.1.push(ticket.index());
        upstream.started(ticket, now_us);
        Ok(Load {
            worker: self.worker.clone(),
            handle: handle.clone(),
            ticket,
            target,
            latency_us: None,
            attempt: None,
            _place: place.take(),
        })
    }

    /// Whether another try may follow; the retry budget pays for it.
    pub(super) fn may_repeat(&self, error: ProxyError) -> bool {
        let hopeless = matches!(error, ProxyError::NoTarget | ProxyError::Limited(_));
        if hopeless || error.side() != Side::Upstream {
            return false;
        }
        self.protection.as_ref().is_none_or(|protection| protection.may_repeat(&self.worker.metrics))
    }

    /// The name under which an upstream is asked for over TLS.
    fn name(&self, load: Option<&Load>) -> String {
        let wanted = self.upstream.and_then(|upstream| upstream.borrow().entity().host_header.clone());
        let host = || load.map_or(self.service.host.as_str(), |load| load.target.host());
        bare_host(wanted.as_deref().unwrap_or_else(host)).to_owned()
    }
}

/// Connect to the upstream of `route`, with as many tries as the service allows.
pub(super) async fn reach(
    worker: &Rc<Worker>,
    plan: &WorkerPlan,
    session: &mut Session,
    route: usize,
) -> Result<Reached, StreamError> {
    session.forwarded_us = Some(worker.now_us());
    let way = Way::of(plan, session, route)?;
    let mut reaching = Reaching::new(worker, plan, session, &way);
    if let Some(protection) = &reaching.protection {
        protection.begin();
    }
    let mut left = reaching.service.retries;
    loop {
        let error = match attempt(&mut reaching, session).await {
            Ok(reached) => return Ok(reached),
            Err(error) => error,
        };
        if left == 0 || !reaching.may_repeat(error) {
            return Err(error.into());
        }
        left -= 1;
        worker.metrics.count(Counter::UpstreamRetries);
    }
}

/// A socket for the datagrams of one client, connected to the upstream.
pub(super) struct Answering {
    pub(super) socket: UdpSocket,
    /// Milliseconds of silence after which the session is over.
    pub(super) idle_ms: u64,
    pub(super) load: Option<Load>,
}

/// Choose the upstream of `route` for datagrams. There is no connection that could fail, only a name without an address.
pub(super) async fn bind(
    worker: &Rc<Worker>,
    plan: &WorkerPlan,
    session: &mut Session,
    route: usize,
) -> Result<Answering, StreamError> {
    let began_us = worker.now_us();
    session.forwarded_us = Some(began_us);
    let way = Way::of(plan, session, route)?;
    let mut reaching = Reaching::new(worker, plan, session, &way);
    let mut left = reaching.service.retries;
    let (address, load) = loop {
        match reaching.choose().await {
            Ok(chosen) => break chosen,
            Err(error) if left == 0 || !reaching.may_repeat(error) => return Err(error.into()),
            Err(_) => left -= 1,
        }
    };
    let anywhere = if address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let bound = async {
        let socket = UdpSocket::bind(SocketAddr::new(anywhere, 0)).await?;
        socket.connect(address).await?;
        // What is sent next is sent at once or not at all, and the reactor has to know first that it can be.
        socket.writable().await.map(|()| socket)
    };
    let socket = bound.await.map_err(|_| ProxyError::Connect);
    session.tries.push(Try {
        address,
        started_at_ms: worker.unix_ms(began_us),
        connect_us: worker.now_us().saturating_sub(began_us),
        keepalive: false,
        failure: socket.is_err().then_some("failed"),
        status: None,
    });
    Ok(Answering { socket: socket?, idle_ms: u64::from(reaching.service.read_timeout), load })
}

async fn attempt(reaching: &mut Reaching<'_>, session: &mut Session) -> Result<Reached, ProxyError> {
    let (worker, service) = (reaching.worker, reaching.service);
    let began_us = worker.now_us();
    let (address, mut load) = reaching.choose().await?;
    let lease = lease(reaching, address).await?;
    reaching.deadline.arm(u64::from(service.connect_timeout));
    let dialling = Box::pin(dial(reaching, session, address, load.as_ref()));
    let outcome = reaching.deadline.guard(dialling).await.unwrap_or(Err(ProxyError::ConnectTimeout));
    let connect_us = worker.now_us().saturating_sub(began_us);
    let failure = match outcome {
        Ok(_) => None,
        Err(ProxyError::ConnectTimeout) => Some("timeout"),
        Err(_) => Some("failed"),
    };
    let started_at_ms = worker.unix_ms(began_us);
    session.tries.push(Try { address, started_at_ms, connect_us, keepalive: false, failure, status: None });
    worker.metrics.count(if failure.is_none() { Counter::UpstreamConnects } else { Counter::UpstreamConnectFailures });
    if let Some(load) = &mut load {
        match outcome {
            Ok(_) => {
                load.latency_us = Some(connect_us);
                load.tell(Attempt::Connected);
            }
            Err(ProxyError::ConnectTimeout) => load.attempt = Some(Attempt::Late),
            Err(_) => load.attempt = Some(Attempt::Broken),
        }
    }
    Ok(Reached {
        stream: outcome?,
        read_ms: u64::from(service.read_timeout),
        write_ms: u64::from(service.write_timeout),
        _load: load,
        _in_use: InUse::new(worker),
        _lease: lease,
    })
}

/// A place among the upstream's connections, where their number is limited.
async fn lease(reaching: &Reaching<'_>, address: SocketAddr) -> Result<Option<Lease>, ProxyError> {
    let Some(protection) = &reaching.protection else { return Ok(None) };
    let connect_ms = u64::from(reaching.service.connect_timeout);
    let opening =
        Box::pin(protection.open(reaching.worker.idle_connections(), &address.into(), true, connect_ms)).await?;
    Ok(match opening {
        Some(Opening::New(lease)) => Some(lease),
        // Only new ones were asked for.
        Some(Opening::Idle(_)) | None => None,
    })
}

/// Connect, tell the upstream the client if the service asks for that, and do the TLS handshake where there is one.
async fn dial(
    reaching: &Reaching<'_>,
    session: &Session,
    address: SocketAddr,
    load: Option<&Load>,
) -> Result<Stream, ProxyError> {
    let stream = Stream::connect(address).await.map_err(|_| ProxyError::Connect)?;
    if let Some(idle) = reaching.worker.node.settings.tcp_keepalive {
        stream.keep_alive(idle);
    }
    if let Some(version) = reaching.service.proxy_protocol {
        let exchange = &session.exchange;
        let header = announce::header_of(exchange.client, exchange.local, exchange.origin.as_deref(), version);
        announce::send(&header, &stream).await.map_err(|_| ProxyError::Connect)?;
    }
    let Some(client) = reaching.tls else { return Ok(stream) };
    let name = reaching.name(load);
    stream.negotiate_tls(client, address.ip(), &name, Offer::Nothing).await.map_err(|error| {
        if error.kind() != std::io::ErrorKind::InvalidData {
            return ProxyError::Connect;
        }
        tracing::warn!(%address, name, %error, "TLS handshake with an upstream failed");
        ProxyError::UpstreamTls
    })
}
