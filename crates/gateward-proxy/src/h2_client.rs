//! HTTP/2 connections to upstreams, shared by the requests of a worker.
//!
//! A destination has as many connections as its requests need: a new one only when all are full, and one dial at a
//! time, for which the others wait. A connection that says goodbye takes no more requests and finishes those it has.
//!
//! What makes two requests go to the same peer is the [`Destination`]: today the address, since the connections are
//! in the clear; what is agreed on in TLS (server name, verification, client certificate) belongs into it.

use crate::http2::{self, Http2Stream, Io, Watch};
use bytes::Bytes;
use gateward_net::{Deadline, Deadlines, PoolSettings, Stream};
use h2::client::{self, SendRequest};
use h2::{Ping, PingPong};
use http::uri::Scheme;
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
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

/// Where a connection leads, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Destination {
    pub(crate) address: SocketAddr,
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
    /// Dials that failed.
    failures: Cell<u64>,
    dialled: Notify,
}

/// A connection as its requests see it.
struct Shared {
    sender: SendRequest<Bytes>,
    scheme: Scheme,
    state: Rc<State>,
    /// Requests begun.
    requests: Cell<u32>,
    idle_since_ms: Cell<u64>,
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

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// Dialling failed.
    Connect,
    /// All connections there may be are full.
    Full,
}

impl Http2Pool {
    pub(crate) fn new(settings: PoolSettings) -> Self {
        Self { settings, hosts: RefCell::default() }
    }

    /// A stream to `destination`, and whether its connection was there before. `dial` makes a connection; whatever
    /// `keep` gives is dropped when that ends.
    pub(crate) async fn lease<K: 'static>(
        &self,
        destination: &Destination,
        scheme: Scheme,
        clock: &Rc<Deadlines>,
        dial: impl AsyncFn() -> std::io::Result<Stream>,
        keep: impl Fn() -> K,
    ) -> Result<(Leased, bool), Unavailable> {
        let host = self.hosts.borrow_mut().entry(destination.clone()).or_default().clone();
        let mut reused = true;
        loop {
            if let Some(shared) = host.pick(self.settings.max_requests) {
                return Ok((shared.lease(clock), reused));
            }
            if host.dialling.get() {
                let failures = host.failures.get();
                host.dialled.notified().await;
                if host.failures.get() > failures {
                    return Err(Unavailable::Connect);
                }
                continue;
            }
            if host.connections.borrow().len() >= CONNECTIONS {
                return Err(Unavailable::Full);
            }
            reused = false;
            let dialling = Dialling::new(&host);
            let stream = dial().await.map_err(|_| Unavailable::Connect)?;
            let shared = open(stream, scheme.clone(), clock, keep()).await?;
            host.connections.borrow_mut().push(shared);
            dialling.succeeded();
        }
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
            host.dialling.get() || !host.connections.borrow().is_empty()
        });
        closed
    }
}

impl Host {
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
    failed: bool,
}

impl<'a> Dialling<'a> {
    fn new(host: &'a Host) -> Self {
        host.dialling.set(true);
        Self { host, failed: true }
    }

    fn succeeded(mut self) {
        self.failed = false;
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.host.failures.set(self.host.failures.get() + u64::from(self.failed));
        self.host.dialling.set(false);
        self.host.dialled.notify_waiters();
    }
}

impl Shared {
    fn lease(self: &Rc<Self>, clock: &Rc<Deadlines>) -> Leased {
        self.requests.set(self.requests.get().saturating_add(1));
        self.state.open.set(self.state.open.get() + 1);
        let stream = Http2Stream::outgoing(self.sender.clone(), self.scheme.clone());
        Leased { stream, _lease: Lease { shared: self.clone(), clock: clock.clone() } }
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

/// Begin HTTP/2 on `stream`, and drive it in a task of its own.
async fn open<K: 'static>(
    stream: Stream,
    scheme: Scheme,
    clock: &Rc<Deadlines>,
    kept: K,
) -> Result<Rc<Shared>, Unavailable> {
    let io = Io::outgoing(Rc::new(stream), clock.clone());
    let watch = io.watch();
    let (sender, mut connection) = builder().handshake(io).await.map_err(|_| Unavailable::Connect)?;
    let state = Rc::new(State::default());
    let (known, deadline) = (state.clone(), clock.register());
    tokio::task::spawn_local(async move {
        let pings = connection.ping_pong();
        drive(connection, pings, &watch, &known, &deadline).await;
        known.ended.set(true);
        drop(kept);
    });
    let (requests, idle_since_ms) = (Cell::new(0), Cell::new(clock.now_ms()));
    Ok(Rc::new(Shared { sender, scheme, state, requests, idle_since_ms }))
}

/// Every limit of the protocol, said aloud.
fn builder() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(http2::STREAM_WINDOW)
        .initial_connection_window_size(http2::CONNECTION_WINDOW)
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
            if ended || watch.budgets.excess().is_some() {
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
