//! One try to ask the upstream: pick a target, get a connection, send the request, wait for the response head. What
//! follows when it fails is for `tries` to say.

use crate::answer;
use crate::body::{Encoder, STREAM_BYTES};
use crate::channel::Channel;
use crate::client::Connection;
use crate::error::{ProxyError, Side};
use crate::forward::{self, Authority};
use crate::h2_client::Leased;
use crate::h2_upstream;
use crate::health::Attempt;
use crate::phases::{request_error, send_continue};
use crate::plan::Backend;
use crate::protection::{Opening, Place, Protection};
use crate::pump::{Pace, PumpError};
use crate::secure_upstream;
use crate::session::{Role, Session, WatchedTry};
use crate::upstreams::{UpstreamHandle, WorkerTarget};
use crate::worker::{Worker, WorkerPlan};
use gateward_balance::Ticket;
use gateward_http::HeadError;
use gateward_model::{Service, Upstream};
use gateward_net::tls::Client;
use gateward_net::{Peer, UpstreamConnection};
use gateward_plugin::Try;
use gateward_telemetry::{Counter, Gauge};
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// An upstream that has answered: its response head is in the session, its body follows on the connection.
pub(crate) struct Answered {
    pub(crate) link: Link,
    /// Milliseconds between two reads and two writes.
    pub(crate) read_ms: u64,
    pub(crate) write_ms: u64,
}

/// A connection to a target.
pub(crate) struct Link {
    wire: Wire,
    in_use: Option<InUse>,
    load: Option<Load>,
    reused: bool,
    /// It began with a PROXY header, and so is for this client alone.
    announced: bool,
}

/// What a connection is to its request.
enum Wire {
    /// Its own, until it is put back.
    Http1(UpstreamConnection),
    /// A stream of one that others use too.
    Http2(Box<Leased>),
}

/// Counts a connection as in use while it exists, however the exchange ends.
struct InUse {
    worker: Rc<Worker>,
}

/// Likewise a request as in flight to its target: from the choice on, since a target that does not even let one
/// connect is busy.
struct Load {
    worker: Rc<Worker>,
    handle: UpstreamHandle,
    ticket: Ticket,
    latency_us: Option<u64>,
    target: Rc<WorkerTarget>,
    /// How it went, for the target's health.
    attempt: Option<Attempt>,
    /// The try is watched and may be given up.
    watched: Option<Rc<WatchedTry>>,
    _place: Option<Place>,
}

/// Where a try goes.
struct Destination {
    address: SocketAddr,
    share: Option<Share>,
}

impl Destination {
    /// Host and port that are asked, and the Host that the upstream entity wants instead.
    fn asked<'a>(&'a self, service: &'a Service) -> (&'a str, u16, Option<&'a str>) {
        match &self.share {
            Some(share) => (&share.target.host, share.target.port, share.upstream.host_header.as_deref()),
            None => (&service.host, service.port, None),
        }
    }
}

/// The target of an upstream that a try goes to.
struct Share {
    load: Load,
    target: Rc<WorkerTarget>,
    upstream: Arc<Upstream>,
}

/// A try that failed.
pub(crate) struct Failed {
    pub(crate) error: ProxyError,
    /// Bytes of the request went out.
    pub(crate) sent: bool,
    /// It died on a pooled connection without an answer.
    pub(crate) stale: bool,
    pub(crate) again: Again,
}

/// Whether another try may follow a failed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// If the request allows it and the retry budget has something left.
    Ask,
    /// It was decided that it does, and the budget has paid.
    Paid,
    /// There is no time left.
    No,
}

/// What is asked, the same for every try.
pub(crate) struct Asking<'a> {
    pub(crate) plan: &'a WorkerPlan,
    pub(crate) service: &'a Service,
    pub(crate) backend: Backend,
    pub(crate) hash: Option<u64>,
    /// How the upstream is spoken to when that is over TLS.
    pub(crate) tls: Option<&'a Client>,
    pub(crate) protection: Option<Rc<Protection>>,
}

impl Asking<'_> {
    /// Whether a second try can go elsewhere than the first.
    pub(crate) fn has_alternatives(&self, worker: &Worker) -> bool {
        match self.backend {
            Backend::Upstream(index) => self.plan.upstream(index, worker).borrow().has_alternatives(),
            Backend::Host(_) => false,
        }
    }
}

/// Tries to come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tries {
    pub(crate) left: u16,
    /// Pooled connections are not to be trusted any more.
    pub(crate) fresh_only: bool,
}

/// Whether the request as it goes upstream may be sent more than once.
pub(crate) fn is_idempotent(connection: &Connection<'_>) -> bool {
    let exchange = &connection.session.exchange;
    exchange.upstream.method.as_ref().unwrap_or(&exchange.request.method).is_idempotent()
}

/// One try.
pub(crate) async fn attempt(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    fresh_only: bool,
) -> Result<Box<Answered>, Failed> {
    let unsent = |error| Failed { error, sent: false, stale: false, again: Again::Ask };
    let service = asking.service;
    let began = connection.worker.now_us();
    connection.session.times.forwarded.get_or_insert(began);
    let place = match &asking.protection {
        None => None,
        Some(protection) => Box::pin(protection.enter(u64::from(service.connect_timeout))).await.map_err(unsent)?,
    };
    let mut destination = choose(connection, asking, place, began).await.map_err(unsent)?;
    let peer = secure_upstream::peer(connection.session, destination.address, asking.tls, || {
        let (host, _, header) = destination.asked(service);
        header.unwrap_or(host)
    });
    let mut link = match connect(connection, asking, peer, fresh_only, began).await {
        Ok(link) => link,
        Err(error) => {
            if let Some(share) = &mut destination.share {
                share.load.attempt = failed_attempt(error);
            }
            return Err(unsent(error));
        }
    };
    if let Some(call) = connection.session.call
        && !call.pass_deadline(began, &mut connection.session.exchange.request.headers)
    {
        return Err(unsent(ProxyError::Deadline));
    }
    let (host, port, host_header) = destination.asked(service);
    let settings = &connection.worker.node.settings;
    let default_port = if asking.tls.is_some() { 443 } else { 80 };
    let authority = Authority { host, port: (port != default_port).then_some(port), header: host_header };
    forward::write_head(connection.session, settings, &connection.worker.own, authority);
    if link.channel().ends_messages() {
        connection.session.upload.encoder = Encoder::Raw;
    }
    link.load = destination.share.map(|share| share.load);
    let pace = upload_pace(connection, u64::from(service.read_timeout), u64::from(service.write_timeout));
    // Boxed, because it changes hands a dozen times from here to the end of the exchange.
    let answered = Box::new(Answered { link, read_ms: u64::from(service.read_timeout), write_ms: pace.write_ms });
    send_and_wait(connection, answered, pace, began).await
}

/// How the request's body may come in and go on. The messages of a gRPC call may come as seldom as those of its
/// response.
pub(crate) fn upload_pace(connection: &Connection<'_>, read_ms: u64, write_ms: u64) -> Pace {
    let limits = &connection.worker.node.settings.limits;
    let (read_ms, rate) = match connection.session.call {
        Some(_) => (read_ms.max(limits.body_timeout_ms), 0),
        None => (limits.body_timeout_ms, limits.body_rate),
    };
    Pace { read_ms, write_ms, rate, most: body_limit(connection) }
}

/// Longest body this request may have.
pub(crate) fn body_limit(connection: &Connection<'_>) -> u64 {
    let configured = match connection.worker.node.settings.limits.body_bytes {
        0 => u64::MAX,
        most => most,
    };
    configured.min(connection.session.exchange.request_body_max.unwrap_or(u64::MAX))
}

/// Pick a target and resolve its name, for which there is as much time as for connecting.
async fn choose(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    place: Option<Place>,
    now_us: u64,
) -> Result<Destination, ProxyError> {
    let worker = connection.worker;
    let service = asking.service;
    let now_ms = worker.deadlines.now_ms();
    let (host, port, literal, share) = match asking.backend {
        Backend::Host(literal) => (service.host.as_str(), service.port, literal, None),
        Backend::Upstream(index) => {
            let upstream = asking.plan.upstream(index, worker);
            let share = pick(connection.session, worker, upstream, asking.hash, place, now_us)?;
            ("", share.target.port, share.target.literal, Some(share))
        }
    };
    if let Some(ip) = literal {
        return Ok(Destination { address: SocketAddr::new(ip, port), share });
    }
    let host = share.as_ref().map_or(host, |share| &share.target.host);
    let deadline = &connection.session.deadline;
    deadline.arm(u64::from(service.connect_timeout));
    // Here and below: what seldom happens waits in a future of its own, which keeps that of every request small.
    match deadline.guard(Box::pin(worker.resolver.resolve(host, port, now_ms))).await {
        Ok(Ok(address)) => Ok(Destination { address, share }),
        Ok(Err(_)) | Err(_) => Err(ProxyError::NameResolution),
    }
}

/// A target that was not tried yet, if there is one.
fn pick(
    session: &mut Session,
    worker: &Rc<Worker>,
    handle: &UpstreamHandle,
    hash: Option<u64>,
    place: Option<Place>,
    now_us: u64,
) -> Result<Share, ProxyError> {
    let mut upstream = handle.borrow_mut();
    if session.excluded_of != upstream.generation() {
        session.excluded.clear();
        session.excluded_of = upstream.generation();
    }
    let (ticket, target) = upstream.pick(hash, &session.excluded, now_us).ok_or(ProxyError::NoTarget)?;
    let watched = match &session.role {
        Role::Only => None,
        Role::First(watched) => {
            watched.target.set(Some(ticket.index()));
            Some(watched.clone())
        }
        Role::Second if session.excluded.contains(&ticket.index()) => return Err(ProxyError::NoTarget),
        Role::Second => None,
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
        _place: place,
    };
    Ok(Share { load, target, upstream: upstream.entity().clone() })
}

/// A connection to `peer`: pooled, or new.
async fn connect(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    peer: Peer,
    fresh_only: bool,
    began_us: u64,
) -> Result<Link, ProxyError> {
    let (service, address) = (asking.service, peer.address);
    if h2_upstream::is_for(service) {
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
    let dialling = Box::pin(secure_upstream::dial(&peer, asking.tls, service, session));
    let error = match session.deadline.guard(dialling).await {
        Ok(Ok(stream)) => {
            worker.metrics.count(Counter::UpstreamConnects);
            if let Some(idle) = worker.node.settings.tcp_keepalive {
                stream.keep_alive(idle);
            }
            session.tries.push(attempt_record(worker, address, began_us, false, None));
            let connection = UpstreamConnection { stream, peer, requests: 0, lease };
            let link = Link::new(connection, worker.clone(), false);
            return Ok(Link { announced: service.proxy_protocol.is_some(), ..link });
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
    match h2_upstream::connect(worker, &session.deadline, service, address, keep).await {
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

/// What a failed try says about its target.
fn failed_attempt(error: ProxyError) -> Option<Attempt> {
    match error {
        ProxyError::ConnectTimeout | ProxyError::UpstreamTimeout => Some(Attempt::Late),
        // The target was not even asked.
        ProxyError::Limited(_) => None,
        error if error.side() == Side::Upstream => Some(Attempt::Broken),
        _ => None,
    }
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
    mut answered: Box<Answered>,
    pace: Pace,
    began_us: u64,
) -> Result<Box<Answered>, Failed> {
    let reused = answered.link.reused;
    let outcome = exchange_heads(connection, &mut answered, pace).await;
    let now = connection.worker.now_us();
    let session = &mut *connection.session;
    match outcome {
        Ok(()) => {
            session.times.answered = Some(now);
            session.upstream_status = Some(session.response_head.status);
            if let Some(load) = &mut answered.link.load {
                load.latency_us = Some(now.saturating_sub(began_us));
                load.attempt = Some(Attempt::Status(session.response_head.status));
            }
            answered.link.count_request();
            Ok(answered)
        }
        Err(error) => {
            let silent = session.download.input.is_empty();
            if let Some(attempt) = session.tries.last_mut().filter(|_| error.side() == Side::Upstream) {
                attempt.failure = Some(if error == ProxyError::UpstreamTimeout { "timeout" } else { "failed" });
            }
            session.download.input.reset();
            // Where the peer says that it did not look, sending again is like sending at last.
            let refused = answered.link.is_refused();
            let stale = reused && silent && (error == ProxyError::UpstreamClosed) && !refused;
            if let Some(load) = answered.link.load.as_mut().filter(|_| !stale) {
                load.attempt = failed_attempt(error);
            }
            Err(Failed { error, sent: !refused, stale, again: Again::Ask })
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
    let all_at_hand = {
        let upload = &connection.session.upload;
        upload.is_received() && upload.output.len() <= STREAM_BYTES
    };
    if !all_at_hand {
        return Box::pin(send_while_waiting(connection, answered, pace)).await;
    }
    // The usual case: everything there is to send leaves in one write.
    let Connection { worker, client, deadline, session, .. } = connection;
    let (client, upstream) = (*client, answered.link.channel());
    let sent = session.upload.flush(&upstream, deadline, pace.write_ms).await;
    tolerate_early_answer(sent)?;
    let limits = &worker.node.settings.limits.head;
    let sent_at = Cell::new(Some(0));
    answer::receive(upstream, session, limits, answered.read_ms, &sent_at, client).await
}

/// Send a body that is long or still on its way, and look out for the answer meanwhile.
async fn send_while_waiting(
    connection: &mut Connection<'_>,
    answered: &mut Answered,
    pace: Pace,
) -> Result<(), ProxyError> {
    let Connection { worker, client, deadline, session, .. } = connection;
    let (client, upstream) = (*client, answered.link.channel());
    let limits = &worker.node.settings.limits.head;
    let mut upload = std::mem::take(&mut session.upload);
    let sent_at = Cell::new(None);
    let outcome = {
        let mut sending = std::pin::pin!(upload.run(&client, &upstream, deadline, pace));
        let answer = answer::receive(upstream, session, limits, answered.read_ms, &sent_at, client);
        let mut receiving = std::pin::pin!(answer);
        tokio::select! {
            biased;
            received = &mut receiving => received,
            sent = &mut sending => match tolerate_early_answer(sent) {
                Ok(()) => {
                    sent_at.set(Some(worker.deadlines.now_ms()));
                    receiving.await
                }
                Err(error) => Err(error),
            },
        }
    };
    session.upload = upload;
    if outcome.is_ok() && session.response_head.status == 101 && !session.upload.is_finished() {
        // The client has not even asked to the end (RFC 9110 section 7.8).
        return Err(ProxyError::UpstreamHead(HeadError::StatusLine));
    }
    outcome
}

/// An upstream that stops taking the request may have answered already: go and see. Anything else is an error.
fn tolerate_early_answer(sent: Result<(), PumpError>) -> Result<(), ProxyError> {
    match sent {
        Ok(()) => Ok(()),
        Err(PumpError::Write(error)) if error.kind() == io::ErrorKind::TimedOut => Err(ProxyError::UpstreamTimeout),
        Err(PumpError::Write(_)) => Ok(()),
        Err(error) => Err(request_error(&error)),
    }
}

impl Link {
    fn new(connection: UpstreamConnection, worker: Rc<Worker>, reused: bool) -> Self {
        let wire = Wire::Http1(connection);
        Self { wire, in_use: Some(InUse::new(worker)), load: None, reused, announced: false }
    }

    /// A stream of a connection that counts itself.
    fn shared(leased: Leased, reused: bool) -> Self {
        Self { wire: Wire::Http2(Box::new(leased)), in_use: None, load: None, reused, announced: false }
    }

    /// The way to the upstream.
    pub(crate) fn channel(&self) -> Channel<'_> {
        match &self.wire {
            Wire::Http1(connection) => Channel::Http1(&connection.stream),
            Wire::Http2(leased) => Channel::Http2(&leased.stream),
        }
    }

    fn is_refused(&self) -> bool {
        matches!(&self.wire, Wire::Http2(leased) if leased.stream.is_refused())
    }

    fn count_request(&mut self) {
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
    fn new(worker: Rc<Worker>) -> Self {
        worker.metrics.gauge_add(Gauge::UpstreamConnectionsActive, 1);
        Self { worker }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.worker.metrics.gauge_add(Gauge::UpstreamConnectionsActive, -1);
    }
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

#[cfg(test)]
mod tests {
    use crate::Settings;
    use crate::testing::{ask, backend, gateway, local, read_until};
    use std::cell::Cell;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// One service on `port` with more fields, and a route to it.
    fn service(port: u16, fields: &str) -> String {
        format!(
            "_format_version: '3.0'\nservices:\n- {{name: s, host: 127.0.0.1, port: {port}{fields}, routes: [{{name: r, paths: [/]}}]}}\n"
        )
    }

    #[test]
    fn an_upload_may_take_longer_than_the_upstream_may_be_silent() {
        local(async {
            let port = backend(async |mut stream: TcpStream| {
                read_until(&mut stream, "0\r\n\r\n").await;
                stream.write_all(OK).await.unwrap();
            })
            .await;
            let gateway = gateway(&service(port, ", read_timeout: 150, retries: 0"), Settings::default());
            let mut client = TcpStream::connect(gateway).await.unwrap();
            let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
            client.write_all(head).await.unwrap();
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                client.write_all(b"1\r\nx\r\n").await.unwrap();
            }
            client.write_all(b"0\r\n\r\n").await.unwrap();
            let answer = read_until(&mut client, "ok").await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        });
    }

    #[test]
    fn after_an_upload_the_upstream_has_its_whole_time_and_no_more() {
        local(async {
            let port = backend(async |mut stream: TcpStream| {
                let path = read_until(&mut stream, "\r\n\r\n").await;
                read_until(&mut stream, "0\r\n\r\n").await;
                let pause = if path.contains("/late") { 1500 } else { 250 };
                tokio::time::sleep(Duration::from_millis(pause)).await;
                let _ = stream.write_all(OK).await;
            })
            .await;
            let gateway = gateway(&service(port, ", read_timeout: 400, retries: 0"), Settings::default());
            for (path, status) in [("/", "200"), ("/late", "504")] {
                let mut client = TcpStream::connect(gateway).await.unwrap();
                let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
                client.write_all(head.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(300)).await;
                client.write_all(b"0\r\n\r\n").await.unwrap();
                let answer = read_until(&mut client, "\r\n").await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
            }
        });
    }

    #[test]
    fn an_answer_to_a_held_body_that_is_not_read_arrives() {
        local(async {
            let port = backend(async |mut stream: TcpStream| {
                read_until(&mut stream, "\r\n\r\n").await;
                stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
                std::future::pending::<()>().await;
            })
            .await;
            let plugin = "plugins:\n- {name: request-transformer, config: {add: {body: ['a:b']}}}\n";
            let config = service(port, ", write_timeout: 700, retries: 0") + plugin;
            let gateway = gateway(&config, Settings::default());
            let body = "x".repeat(7 * 1024 * 1024);
            let request = format!(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let answer = ask(gateway, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        });
    }

    #[test]
    fn a_stale_connection_does_not_move_a_hashed_request() {
        local(async {
            // Each answers once per connection, and dies at a second request.
            async fn once(name: &'static str) -> u16 {
                backend(async move |mut stream: TcpStream| {
                    read_until(&mut stream, "\r\n\r\n").await;
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{name}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    let _ = stream.read_u8().await;
                })
                .await
            }
            let (first, second) = (once("1").await, once("2").await);
            let config = format!(
                "_format_version: '3.0'\nupstreams:\n- {{name: u, algorithm: consistent-hashing, hash_on: path, targets: [{{target: '127.0.0.1:{first}'}}, {{target: '127.0.0.1:{second}'}}]}}\nservices:\n- {{name: s, host: u, retries: 0, routes: [{{name: r, paths: [/]}}]}}\n"
            );
            let gateway = gateway(&config, Settings::default());
            for path in 0..8 {
                let request = format!("GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                let answers = [ask(gateway, request.as_bytes()).await, ask(gateway, request.as_bytes()).await];
                assert_eq!(answers[0].chars().last(), answers[1].chars().last(), "{answers:?}");
            }
        });
    }

    #[test]
    fn an_endless_row_of_interim_responses_is_cut() {
        local(async {
            let port = backend(async |mut stream: TcpStream| {
                read_until(&mut stream, "\r\n\r\n").await;
                while stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await.is_ok() {}
            })
            .await;
            let gateway = gateway(&service(port, ", retries: 0"), Settings::default());
            let answer = ask(gateway, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            assert!(answer.contains("HTTP/1.1 502 "), "{}", answer.len());
        });
    }

    #[test]
    fn a_protocol_nobody_asked_for_is_refused_at_once() {
        local(async {
            let asked = std::rc::Rc::new(Cell::new(0));
            let count = asked.clone();
            let port = backend(async move |mut stream: TcpStream| {
                read_until(&mut stream, "\r\n\r\n").await;
                count.set(count.get() + 1);
                stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n").await.unwrap();
            })
            .await;
            let gateway = gateway(&service(port, ""), Settings::default());
            let answer = ask(gateway, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 502 ") && asked.get() == 1, "{answer}");
        });
    }
}
