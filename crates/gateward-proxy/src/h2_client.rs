//! HTTP/2 connections to upstreams, shared by the requests of a worker.
//!
//! A destination has as many connections as its requests need: a new one only when all are full, and one dial at a
//! time, for which the others wait. A connection that says goodbye takes no more requests and finishes those it has.
//!
//! Requests share a connection only when they go to the same peer as the same client: the [`Destination`] holds the
//! address and, with TLS, the server name, how it is verified and what certificate is shown. Where the protocol is
//! agreed on in TLS, the first dial finds out, and what was found is remembered for a while: an upstream that chose
//! HTTP/1.1 is not asked by one dial at a time any more.

use crate::error::ProxyError;
use crate::http2::{self, Http2Stream, Io, Watch};
use bytes::Bytes;
use gateward_net::tls::HTTP_2;
use gateward_net::{Deadline, Deadlines, Lease as Place, Peer, PoolSettings, Stream};
use h2::client::{self, SendRequest};
use h2::{Ping, PingPong};
use http::uri::Scheme;
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

/// Connections per destination and worker.
const CONNECTIONS: usize = 32;
/// Requests at a time on one connection, if the upstream allows as many.
const STREAMS: usize = 100;
/// Milliseconds after which a connection with requests is tried with a ping: often enough for a load balancer that
/// forgets silent connections after 350 s, seldom enough for gRPC servers that take more than one in five minutes
/// for abuse.
const PING_AFTER_MS: u64 = 310_000;
/// Milliseconds for the answer to a ping.
const PONG_MS: u64 = 20_000;
/// Destinations known at a time; beyond, those without a connection are forgotten.
const DESTINATIONS: usize = 4096;
/// Milliseconds since its last use for which it is remembered that a destination chose HTTP/1.1.
const REMEMBERED_MS: u64 = 600_000;
/// Bytes that may have come on all streams of a connection and not gone on: as much as on each of them together. The
/// clients behind the streams have nothing to do with each other, and one that reads slowly must not keep the others
/// from their answers.
const CONNECTION_WINDOW: u32 = STREAMS as u32 * http2::STREAM_WINDOW;

/// Where a connection leads, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Destination {
    pub(crate) peer: Peer,
    /// HTTP/1.1 is offered beside HTTP/2.
    pub(crate) negotiates: bool,
}

/// The connections of one worker.
pub(crate) struct Http2Pool {
    settings: PoolSettings,
    hosts: RefCell<FxHashMap<Destination, Rc<Host>>>,
}

/// One destination.
#[derive(Default)]
struct Host {
    connections: RefCell<Vec<Rc<Shared>>>,
    dialling: Cell<bool>,
    /// Dials that failed, and the last one's error.
    failures: Cell<u64>,
    error: Cell<Option<ProxyError>>,
    dialled: Notify,
    /// It chose HTTP/1.1 when it was last asked, and this was last of use at this time.
    http1_at_ms: Cell<Option<u64>>,
}

/// A connection as its requests see it.
struct Shared {
    sender: SendRequest<Bytes>,
    scheme: Scheme,
    state: Rc<State>,
    /// Requests begun.
    requests: Cell<u32>,
    idle_since_ms: Cell<u64>,
    /// Its place among the connections of an upstream that limits them.
    place: Option<Place>,
}

/// What a connection's task and its requests tell each other.
#[derive(Default)]
struct State {
    /// Requests under way.
    open: Cell<usize>,
    ended: Cell<bool>,
}

/// A stream on a shared connection; one request.
pub(crate) struct Leased {
    pub(crate) stream: Http2Stream,
    _lease: Lease,
}

/// A request under way, counted out when it ends, however it ends.
struct Lease {
    shared: Rc<Shared>,
    clock: Rc<Deadlines>,
}

/// A connection that was made.
pub(crate) struct Dialled {
    pub(crate) stream: Stream,
    pub(crate) place: Option<Place>,
}

impl Dialled {
    /// Whether HTTP/2 is spoken on it. Without TLS there was nothing to agree on.
    pub(crate) fn is_http2(&self) -> bool {
        self.stream.tls().is_none() || self.stream.alpn() == Some(HTTP_2)
    }
}

/// How a destination is to be asked.
pub(crate) enum Way {
    /// On this stream.
    Http2(Box<Leased>),
    /// Over HTTP/1.1, which it chose on this new connection.
    Http1(Dialled),
    /// Over HTTP/1.1, as it chose before.
    KnownHttp1,
}

impl Http2Pool {
    pub(crate) fn new(settings: PoolSettings) -> Self {
        Self { settings, hosts: RefCell::default() }
    }

    /// How to ask `destination`, and whether that is on a connection that was there before. `dial` makes a connection;
    /// whatever `keep` gives is dropped when that ends. The `deadline` is for waiting while another request dials.
    pub(crate) async fn way<K: 'static>(
        &self,
        destination: &Destination,
        clock: &Rc<Deadlines>,
        deadline: &Deadline,
        dial: impl AsyncFnOnce() -> Result<Dialled, ProxyError>,
        keep: impl FnOnce() -> K,
    ) -> Result<(Way, bool), ProxyError> {
        let host = self.host(destination);
        loop {
            if let Some(shared) = host.pick(self.settings.max_requests) {
                return Ok((Way::Http2(shared.lease(clock)), true));
            }
            if destination.negotiates && host.chose_http1(clock.now_ms()) {
                return Ok((Way::KnownHttp1, true));
            }
            if !host.dialling.get() {
                break;
            }
            let failures = host.failures.get();
            if deadline.guard(host.dialled.notified()).await.is_err() {
                return Err(ProxyError::ConnectTimeout);
            }
            if host.failures.get() > failures {
                return Err(host.error.get().unwrap_or(ProxyError::Connect));
            }
        }
        if host.connections.borrow().len() >= CONNECTIONS {
            return Err(ProxyError::UpstreamFull);
        }
        let dialling = Dialling::new(&host);
        let made = async {
            let dialled = dial().await?;
            if !dialled.is_http2() {
                host.http1_at_ms.set(Some(clock.now_ms()));
                return Ok(Way::Http1(dialled));
            }
            let shared = open(dialled, scheme_of(destination), clock, keep()).await?;
            host.connections.borrow_mut().push(shared.clone());
            Ok(Way::Http2(shared.lease(clock)))
        };
        let made = made.await;
        dialling.ended(made.as_ref().err().copied());
        made.map(|way| (way, false))
    }

    /// A stream on a connection that speaks HTTP/2, although its destination had chosen HTTP/1.1 before; others may
    /// share it.
    pub(crate) async fn adopt<K: 'static>(
        &self,
        destination: &Destination,
        clock: &Rc<Deadlines>,
        dialled: Dialled,
        kept: K,
    ) -> Result<Box<Leased>, ProxyError> {
        let host = self.host(destination);
        host.http1_at_ms.set(None);
        let shared = open(dialled, scheme_of(destination), clock, kept).await?;
        let mut connections = host.connections.borrow_mut();
        if connections.len() < CONNECTIONS {
            connections.push(shared.clone());
        }
        Ok(shared.lease(clock))
    }

    /// A stream on a connection that is for one request alone.
    pub(crate) async fn single<K: 'static>(
        destination: &Destination,
        clock: &Rc<Deadlines>,
        dialled: Dialled,
        kept: K,
    ) -> Result<Box<Leased>, ProxyError> {
        Ok(open(dialled, scheme_of(destination), clock, kept).await?.lease(clock))
    }

    fn host(&self, destination: &Destination) -> Rc<Host> {
        let mut hosts = self.hosts.borrow_mut();
        if let Some(host) = hosts.get(destination) {
            return host.clone();
        }
        if hosts.len() >= DESTINATIONS {
            hosts.retain(|_, host| host.is_in_use());
        }
        hosts.entry(destination.clone()).or_default().clone()
    }

    /// Close one idle connection whose place is among those `wanted`; whether there was one.
    pub(crate) fn evict(&self, is_wanted: impl Fn(&Place) -> bool) -> bool {
        self.hosts.borrow().values().any(|host| {
            let mut connections = host.connections.borrow_mut();
            let found = connections
                .iter()
                .position(|shared| shared.state.open.get() == 0 && shared.place.as_ref().is_some_and(&is_wanted));
            found.map(|index| connections.remove(index)).is_some()
        })
    }

    /// Forget connections that ended or have been idle for too long; how many. Call about once a second.
    pub(crate) fn sweep(&self, now_ms: u64) -> u64 {
        let timeout_ms = self.settings.idle_timeout_ms;
        let mut closed = 0;
        self.hosts.borrow_mut().retain(|_, host| {
            host.connections.borrow_mut().retain(|shared| {
                let idle_ms = now_ms.saturating_sub(shared.idle_since_ms.get());
                let idle = shared.state.open.get() == 0 && timeout_ms > 0 && idle_ms >= timeout_ms;
                let keep = !idle && !shared.is_ended();
                closed += u64::from(!keep);
                keep
            });
            host.is_in_use() || host.is_remembered(now_ms)
        });
        closed
    }
}

/// The scheme by which requests to `destination` go.
fn scheme_of(destination: &Destination) -> Scheme {
    if destination.peer.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
}

impl Host {
    fn is_in_use(&self) -> bool {
        self.dialling.get() || !self.connections.borrow().is_empty()
    }

    /// Whether it chose HTTP/1.1 and that is still remembered, which it then is for longer.
    fn chose_http1(&self, now_ms: u64) -> bool {
        let remembered = self.is_remembered(now_ms);
        self.http1_at_ms.set(remembered.then_some(now_ms));
        remembered
    }

    fn is_remembered(&self, now_ms: u64) -> bool {
        self.http1_at_ms.get().is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < REMEMBERED_MS)
    }

    /// The connection with the most requests that still has room: the others may become idle and end.
    fn pick(&self, max_requests: u32) -> Option<Rc<Shared>> {
        let mut connections = self.connections.borrow_mut();
        // One that has served its requests is forgotten here; those under way keep it.
        connections.retain(|shared| !shared.is_ended() && (max_requests == 0 || shared.requests.get() < max_requests));
        let room =
            |shared: &&Rc<Shared>| shared.state.open.get() < STREAMS.min(shared.sender.current_max_send_streams());
        connections.iter().filter(room).max_by_key(|shared| shared.state.open.get()).cloned()
    }
}

/// A dial under way: ends for those who wait, also when the request that dials is given up.
struct Dialling<'a> {
    host: &'a Host,
}

impl<'a> Dialling<'a> {
    fn new(host: &'a Host) -> Self {
        host.dialling.set(true);
        Self { host }
    }

    /// The dial came to an end of its own; to an error, which is that of all who waited.
    fn ended(self, error: Option<ProxyError>) {
        self.host.error.set(error);
        self.host.failures.set(self.host.failures.get() + u64::from(error.is_some()));
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.host.dialling.set(false);
        self.host.dialled.notify_waiters();
    }
}

impl Shared {
    fn lease(self: &Rc<Self>, clock: &Rc<Deadlines>) -> Box<Leased> {
        self.requests.set(self.requests.get().saturating_add(1));
        self.state.open.set(self.state.open.get() + 1);
        let stream = Http2Stream::outgoing(self.sender.clone(), self.scheme.clone());
        Box::new(Leased { stream, _lease: Lease { shared: self.clone(), clock: clock.clone() } })
    }

    /// Whether it takes no more requests: it has ended or said goodbye.
    fn is_ended(&self) -> bool {
        let said_goodbye = || {
            let mut context = Context::from_waker(Waker::noop());
            matches!(self.sender.clone().poll_ready(&mut context), Poll::Ready(Err(_)))
        };
        self.state.ended.get() || said_goodbye()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let open = &self.shared.state.open;
        open.set(open.get() - 1);
        self.shared.idle_since_ms.set(self.clock.now_ms());
    }
}

/// Begin HTTP/2 on a connection, and drive it in a task of its own.
async fn open<K: 'static>(
    Dialled { stream, place }: Dialled,
    scheme: Scheme,
    clock: &Rc<Deadlines>,
    kept: K,
) -> Result<Rc<Shared>, ProxyError> {
    let io = Io::outgoing(Rc::new(stream), clock.clone());
    let watch = io.watch();
    let (sender, mut connection) = builder().handshake(io).await.map_err(|_| ProxyError::Connect)?;
    let state = Rc::new(State::default());
    let (known, deadline) = (state.clone(), clock.register());
    tokio::task::spawn_local(async move {
        let pings = connection.ping_pong();
        drive(connection, pings, &watch, &known, &deadline).await;
        known.ended.set(true);
        drop(kept);
    });
    let (requests, idle_since_ms) = (Cell::new(0), Cell::new(clock.now_ms()));
    Ok(Rc::new(Shared { sender, scheme, state, requests, idle_since_ms, place }))
}

/// Every limit of the protocol, said aloud.
fn builder() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(http2::STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(http2::FRAME_BYTES)
        .max_header_list_size(http2::ANSWER_LIST_BYTES)
        .header_table_size(http2::HEADER_TABLE)
        .max_concurrent_streams(0)
        .initial_max_send_streams(STREAMS)
        .max_concurrent_reset_streams(http2::RESET_STREAMS)
        .reset_stream_duration(http2::RESET_REMEMBERED)
        .max_pending_accept_reset_streams(STREAMS)
        .max_local_error_reset_streams(Some(http2::ERROR_RESETS))
        .max_send_buffer_size(http2::SEND_BUFFER)
        .data_frame_budget(http2::DATA_FRAME_BUDGET);
    builder
}

/// Until the connection ends, does not answer a ping, or sends too much that means nothing.
async fn drive(
    mut connection: client::Connection<Io, Bytes>,
    mut pings: Option<PingPong>,
    watch: &Watch,
    state: &State,
    deadline: &Deadline,
) {
    let mut waiting = false;
    deadline.arm(PING_AFTER_MS);
    loop {
        let next = poll_fn(|context| {
            watch.begin_turn();
            let ended = std::pin::Pin::new(&mut connection).poll(context).is_ready();
            if let Some(excess) = watch.budgets.excess() {
                tracing::warn!(
                    reason = excess.label(),
                    "an upstream sends too much that means nothing; its connection is given up"
                );
                return Poll::Ready(true);
            }
            if ended {
                return Poll::Ready(true);
            }
            match pings.as_mut().filter(|_| waiting) {
                Some(pings) => pings.poll_pong(context).map(|_| false),
                None => Poll::Pending,
            }
        });
        match deadline.guard(next).await {
            Ok(true) => return,
            Ok(false) => {
                waiting = false;
                deadline.arm(PING_AFTER_MS);
            }
            Err(_) if waiting => {
                tracing::debug!("an upstream does not answer pings; its connection is given up");
                return;
            }
            Err(_) => {
                let asked = pings.as_mut().filter(|_| state.open.get() > 0);
                waiting = asked.is_some_and(|pings| pings.send_ping(Ping::opaque()).is_ok());
                deadline.arm(if waiting { PONG_MS } else { PING_AFTER_MS });
            }
        }
    }
}
