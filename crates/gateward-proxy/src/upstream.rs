//! Asking the upstream: pick a target, get a connection, send the request, wait for the response head, and try
//! again where that is allowed.
//!
//! A try is repeated when nothing went out, or when the method is idempotent and the body is still at hand
//! (RFC 9110 section 9.2.2; nginx `proxy_next_upstream error timeout`). A pooled connection that dies before any
//! byte came back says nothing about the target, so repeating on a new connection does not count as a retry.

use crate::client::Connection;
use crate::error::{ProxyError, Side};
use crate::forward;
use crate::hashing;
use crate::outcome::Local;
use crate::phases::{request_error, send_continue};
use crate::plan::{Backend, TargetPlan};
use crate::pump::{Pace, PumpError};
use crate::session::Session;
use crate::upstreams::UpstreamHandle;
use crate::worker::{Worker, WorkerPlan};
use gateward_balance::Ticket;
use gateward_http::{BodyFraming, HeadLimits, Parsed, hop, parse_response_head};
use gateward_model::{Service, Upstream};
use gateward_net::UpstreamConnection;
use gateward_plugin::Try;
use gateward_telemetry::{Counter, Gauge};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// Milliseconds for passing an interim response to the client.
const INTERIM_MS: u64 = 60_000;

/// An upstream that has answered: its response head is in the session, its body follows on the connection.
pub(crate) struct Answered {
    pub(crate) link: Link,
    /// Milliseconds between two reads and two writes.
    pub(crate) read_ms: u64,
    pub(crate) write_ms: u64,
}

/// A connection to a target.
pub(crate) struct Link {
    pub(crate) connection: UpstreamConnection,
    in_use: InUse,
    reused: bool,
}

/// Counts a connection and its target as in use while it exists, however the exchange ends.
struct InUse {
    worker: Rc<Worker>,
    share: Option<(UpstreamHandle, Ticket)>,
    latency_us: Option<u64>,
}

/// Where a try goes.
struct Destination {
    address: SocketAddr,
    share: Option<Share>,
}

/// The target of an upstream that a try goes to.
struct Share {
    handle: UpstreamHandle,
    ticket: Ticket,
    target: Rc<TargetPlan>,
    upstream: Arc<Upstream>,
}

/// A try that failed.
struct Failed {
    error: ProxyError,
    /// Bytes of the request went out.
    sent: bool,
    /// It died on a pooled connection without an answer.
    stale: bool,
}

/// Send the request of `connection` upstream until an answer's head is there.
pub(crate) async fn ask(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Result<Answered, Local> {
    let session = &mut *connection.session;
    let backend = session.route.and_then(|route| plan.shared.routes[route].backend);
    let (Some(service), Some(backend)) = (session.exchange.service.clone(), backend) else {
        return Err(Local::Error(ProxyError::NoService));
    };
    let hash = match backend {
        Backend::Upstream(index) => {
            let upstream = plan.upstream(index, connection.worker).borrow();
            let ids = &connection.worker.ids;
            hashing::hash(upstream.entity(), &mut session.exchange, || {
                format!("{:016x}{:016x}", ids.next(), ids.next())
            })
        }
        Backend::Host(_) => None,
    };
    if announced_length(connection) > body_limit(connection) {
        return Err(Local::Error(ProxyError::BodyTooLarge));
    }
    adopt_buffered_body(connection);
    forward::count_down(&mut connection.session.exchange.request);
    let mut left = service.retries;
    let mut fresh_only = false;
    loop {
        let failed = match attempt(connection, plan, &service, backend, hash, fresh_only).await {
            Ok(answered) => return Ok(answered),
            Err(failed) => failed,
        };
        if !may_repeat(connection, &failed) || (left == 0 && !failed.stale) {
            return Err(Local::Error(failed.error));
        }
        connection.session.upload.rewind();
        if failed.stale {
            fresh_only = true;
        } else {
            left -= 1;
            connection.worker.metrics.count(Counter::UpstreamRetries);
        }
    }
}

fn may_repeat(connection: &Connection<'_>, failed: &Failed) -> bool {
    if !matches!(failed.error.side(), Side::Upstream) || !connection.session.upload.can_rewind() {
        return false;
    }
    let request = &connection.session.exchange.request;
    let method = connection.session.exchange.upstream.method.as_ref().unwrap_or(&request.method);
    !failed.sent || (method.is_idempotent() && !matches!(failed.error, ProxyError::UpstreamHead(_)))
}

/// Send a body that was buffered for plugins from memory.
fn adopt_buffered_body(connection: &mut Connection<'_>) {
    let session = &mut *connection.session;
    if session.exchange.body.is_some() {
        session.upload.begin(BodyFraming::None, crate::body::Encoder::Raw);
    }
}

async fn attempt(
    connection: &mut Connection<'_>,
    plan: &WorkerPlan,
    service: &Service,
    backend: Backend,
    hash: Option<u64>,
    fresh_only: bool,
) -> Result<Answered, Failed> {
    let unsent = |error| Failed { error, sent: false, stale: false };
    let began = connection.worker.now_us();
    let first = *connection.session.times.forwarded.get_or_insert(began);
    let destination = choose(connection, plan, service, backend, hash, first).await.map_err(unsent)?;
    let mut link = connect(connection, service, destination.address, fresh_only, began).await.map_err(unsent)?;
    let settings = &connection.worker.node.settings;
    let (host, port, host_header) = match &destination.share {
        Some(share) => (share.target.host.as_str(), share.target.port, share.upstream.host_header.as_deref()),
        None => (service.host.as_str(), service.port, None),
    };
    forward::write_head(connection.session, settings, &connection.worker.own, host, port, host_header);
    link.in_use.share = destination.share.map(|Share { handle, ticket, .. }| {
        handle.borrow_mut().started(ticket, began);
        (handle, ticket)
    });
    let pace = Pace {
        read_ms: settings.limits.body_timeout_ms,
        write_ms: u64::from(service.write_timeout),
        rate: settings.limits.body_rate,
        most: body_limit(connection),
    };
    let answered = Answered { link, read_ms: u64::from(service.read_timeout), write_ms: pace.write_ms };
    send_and_wait(connection, answered, pace).await
}

/// Length of the request body as far as it is known before it is received.
fn announced_length(connection: &Connection<'_>) -> u64 {
    let exchange = &connection.session.exchange;
    match (&exchange.body, exchange.request.framing) {
        (Some(body), _) => body.len() as u64,
        (None, BodyFraming::Length(length)) => length,
        (None, _) => 0,
    }
}

/// Longest body this request may have.
pub(crate) fn body_limit(connection: &Connection<'_>) -> u64 {
    let configured = match connection.worker.node.settings.limits.body_bytes {
        0 => u64::MAX,
        most => most,
    };
    configured.min(connection.session.exchange.request_body_max.unwrap_or(u64::MAX))
}

/// Pick a target and resolve its name.
async fn choose(
    connection: &mut Connection<'_>,
    plan: &WorkerPlan,
    service: &Service,
    backend: Backend,
    hash: Option<u64>,
    now_us: u64,
) -> Result<Destination, ProxyError> {
    let worker = connection.worker;
    let now_ms = worker.deadlines.now_ms();
    let (host, port, literal, share) = match backend {
        Backend::Host(literal) => (service.host.as_str(), service.port, literal, None),
        Backend::Upstream(index) => {
            let share = pick(connection.session, plan.upstream(index, worker), hash, now_us)?;
            ("", share.target.port, share.target.literal, Some(share))
        }
    };
    let address = match (literal, &share) {
        (Some(ip), _) => Ok(SocketAddr::new(ip, port)),
        (None, Some(share)) => worker.resolver.resolve(&share.target.host, port, now_ms).await,
        (None, None) => worker.resolver.resolve(host, port, now_ms).await,
    };
    Ok(Destination { address: address.map_err(|_| ProxyError::NameResolution)?, share })
}

/// A target that was not tried yet, if there is one.
fn pick(session: &mut Session, handle: &UpstreamHandle, hash: Option<u64>, now_us: u64) -> Result<Share, ProxyError> {
    let mut upstream = handle.borrow_mut();
    if session.excluded_of != upstream.generation() {
        session.excluded.clear();
        session.excluded_of = upstream.generation();
    }
    let (ticket, target) = upstream.pick(hash, &session.excluded, now_us).ok_or(ProxyError::NoTarget)?;
    session.excluded.push(ticket.index());
    Ok(Share { handle: handle.clone(), ticket, target, upstream: upstream.entity().clone() })
}

/// A connection to `address`: pooled, or new.
async fn connect(
    connection: &mut Connection<'_>,
    service: &Service,
    address: SocketAddr,
    fresh_only: bool,
    began_us: u64,
) -> Result<Link, ProxyError> {
    let worker = connection.worker;
    let session = &mut *connection.session;
    let method = session.exchange.upstream.method.as_ref().unwrap_or(&session.exchange.request.method);
    if !fresh_only {
        let (pooled, discarded) = worker.pool.take(address, !method.is_idempotent(), worker.deadlines.now_ms());
        if discarded > 0 {
            worker.metrics.add(Counter::UpstreamIdleDiscarded, discarded);
        }
        if let Some(pooled) = pooled {
            worker.metrics.count(Counter::UpstreamReuses);
            session.tries.push(attempt_record(worker, address, began_us, true, None));
            return Ok(Link::new(pooled, worker.clone(), true));
        }
    }
    session.deadline.arm(u64::from(service.connect_timeout));
    let error = match session.deadline.guard(TcpStream::connect(address)).await {
        Ok(Ok(stream)) if stream.set_nodelay(true).is_ok() => {
            worker.metrics.count(Counter::UpstreamConnects);
            session.tries.push(attempt_record(worker, address, began_us, false, None));
            let connection = UpstreamConnection { stream, address, requests: 0 };
            return Ok(Link::new(connection, worker.clone(), false));
        }
        Ok(_) => ProxyError::Connect,
        Err(_) => ProxyError::ConnectTimeout,
    };
    worker.metrics.count(Counter::UpstreamConnectFailures);
    let failure = if error == ProxyError::Connect { "failed" } else { "timeout" };
    session.tries.push(attempt_record(worker, address, began_us, false, Some(failure)));
    Err(error)
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

/// Send head and body, and receive the response head. The body may still be on its way when the head arrives.
async fn send_and_wait(
    connection: &mut Connection<'_>,
    mut answered: Answered,
    pace: Pace,
) -> Result<Answered, Failed> {
    let reused = answered.link.reused;
    let outcome = exchange_heads(connection, &mut answered, pace).await;
    let now = connection.worker.now_us();
    let session = &mut *connection.session;
    match outcome {
        Ok(()) => {
            session.times.answered = Some(now);
            session.upstream_status = Some(session.response_head.status);
            let since = session.times.forwarded.unwrap_or(now);
            answered.link.in_use.latency_us = Some(now.saturating_sub(since));
            answered.link.connection.requests += 1;
            Ok(answered)
        }
        Err(error) => {
            let silent = session.download.input.is_empty();
            if let Some(attempt) = session.tries.last_mut().filter(|_| error.side() == Side::Upstream) {
                attempt.failure = Some(if error == ProxyError::UpstreamTimeout { "timeout" } else { "failed" });
            }
            session.download.input.reset();
            let stale = reused && silent && error == ProxyError::UpstreamClosed;
            Err(Failed { error, sent: true, stale })
        }
    }
}

async fn exchange_heads(
    connection: &mut Connection<'_>,
    answered: &mut Answered,
    pace: Pace,
) -> Result<(), ProxyError> {
    if let Some(body) = &connection.session.exchange.body {
        connection.session.upload.output.extend_from_slice(body);
    }
    connection.session.upload.digest(pace.most).map_err(|error| request_error(&error))?;
    if connection.session.exchange.request.expects_continue && !connection.session.upload.is_received() {
        send_continue(connection).await?;
    }
    let Connection { worker, reader, writer, deadline, session, .. } = connection;
    let (mut from_upstream, mut to_upstream) = answered.link.connection.stream.split();
    let limits = &worker.node.settings.limits.head;
    if session.upload.is_received() {
        // The usual case: everything there is to send is at hand and leaves in one write.
        let sent = session.upload.flush(&mut to_upstream, deadline, pace.write_ms).await;
        tolerate_early_answer(sent)?;
        return receive_head(&mut from_upstream, session, limits, answered.read_ms, writer).await;
    }
    let Session { upload, .. } = &mut **session;
    let mut upload = std::mem::take(upload);
    let outcome = {
        let mut sending = std::pin::pin!(upload.run(reader, &mut to_upstream, deadline, pace));
        let mut receiving = std::pin::pin!(receive_head(&mut from_upstream, session, limits, answered.read_ms, writer));
        tokio::select! {
            biased;
            received = &mut receiving => received,
            sent = &mut sending => match tolerate_early_answer(sent) {
                Ok(()) => receiving.await,
                Err(error) => Err(error),
            },
        }
    };
    session.upload = upload;
    outcome
}

/// An upstream that stops taking the request may have answered already: go and see. Anything else is an error.
fn tolerate_early_answer(sent: Result<(), PumpError>) -> Result<(), ProxyError> {
    match sent {
        Ok(()) => Ok(()),
        Err(PumpError::Write(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
            Err(ProxyError::UpstreamTimeout)
        }
        Err(PumpError::Write(_)) => Ok(()),
        Err(error) => Err(request_error(&error)),
    }
}

/// Read until a final response head is complete; interim responses are passed on.
async fn receive_head(
    upstream: &mut ReadHalf<'_>,
    session: &mut Session,
    limits: &HeadLimits,
    read_ms: u64,
    client: &mut WriteHalf<'_>,
) -> Result<(), ProxyError> {
    let Session { exchange, response_head: head, download, deadline, .. } = session;
    let method = exchange.upstream.method.as_ref().unwrap_or(&exchange.request.method);
    loop {
        if !download.input.is_empty() {
            match parse_response_head(download.input.filled(), limits, method, head)
                .map_err(ProxyError::UpstreamHead)?
            {
                Parsed::Complete(length) => {
                    download.input.consume(length);
                    if head.status >= 200 || head.status == 101 {
                        break;
                    }
                    pass_interim(exchange, head, client, deadline).await?;
                    continue;
                }
                Parsed::Partial => {}
            }
        }
        deadline.arm(read_ms);
        let space = download.input.space(limits.head_bytes);
        if space.is_empty() {
            return Err(ProxyError::UpstreamClosed);
        }
        match deadline.guard(upstream.read(space)).await {
            Err(_) => return Err(ProxyError::UpstreamTimeout),
            Ok(Err(_) | Ok(0)) => return Err(ProxyError::UpstreamClosed),
            Ok(Ok(count)) => download.input.fill(count),
        }
    }
    // Nothing asked for another protocol, so nothing may switch to one.
    if head.status == 101 { Err(ProxyError::UpstreamClosed) } else { Ok(()) }
}

/// Pass an interim response on (RFC 9110 section 15.2), except 100, which the gateway answers itself.
async fn pass_interim(
    exchange: &gateward_plugin::Exchange,
    head: &mut gateward_http::ResponseHead,
    client: &mut WriteHalf<'_>,
    deadline: &gateward_net::Deadline,
) -> Result<(), ProxyError> {
    if head.status == 100 || exchange.request.version != gateward_http::Version::Http11 {
        return Ok(());
    }
    hop::strip_response(&mut head.headers);
    let mut out = format!("HTTP/1.1 {} {}\r\n", head.status, head.reason).into_bytes();
    head.headers.write_to(&mut out);
    out.extend_from_slice(b"\r\n");
    deadline.write_all(client, &out, INTERIM_MS).await.map_err(|_| ProxyError::ClientGone)
}

impl Link {
    fn new(connection: UpstreamConnection, worker: Rc<Worker>, reused: bool) -> Self {
        worker.metrics.gauge_add(Gauge::UpstreamConnectionsActive, 1);
        Self { connection, in_use: InUse { worker, share: None, latency_us: None }, reused }
    }

    /// The exchange on it is complete: keep the connection for another.
    pub(crate) fn release(self) {
        let worker = &self.in_use.worker;
        worker.pool.put(self.connection, worker.deadlines.now_ms());
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.worker.metrics.gauge_add(Gauge::UpstreamConnectionsActive, -1);
        if let Some((upstream, ticket)) = self.share.take() {
            let now_us = self.worker.now_us();
            upstream.borrow_mut().finished(ticket, self.latency_us, now_us);
        }
    }
}
