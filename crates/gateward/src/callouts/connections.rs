//! Connections for callouts: pooled by address and, over TLS, by whom the gateway is and asks for.
//!
//! An HTTP/1.1 connection is one call's at a time; one of HTTP/2 is shared by as many as its peer allows, and while one is
//! made others wait for it. What came of ALPN is remembered per destination.

use super::body::Body;
use crate::egress::chain;
use gateward_net::Stream;
use gateward_net::tls::{HTTP_2, Offer};
use gateward_proxy::Callee;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Idle HTTP/1.1 connections per destination.
const IDLE_PER_HOST: usize = 32;
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(60);
/// How often idle ones are looked through.
const SWEEP: Duration = Duration::from_secs(10);
/// Calls at a time on one HTTP/2 connection.
const STREAMS: usize = 100;
/// HTTP/2 connections per destination.
const SHARED_PER_HOST: usize = 64;
/// Bytes of a response's header list over HTTP/2, and of its head over HTTP/1.1.
const HEAD_BYTES: usize = 64 << 10;
/// A connection with calls is tried with a ping after this time: seldom enough for gRPC servers that take more than one
/// in five minutes for abuse.
const PING_AFTER: Duration = Duration::from_secs(310);
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// Bytes that may come on a stream before they are taken.
const STREAM_WINDOW: u32 = 256 << 10;

/// Where a connection leads, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    address: SocketAddr,
    /// [`gateward_net::tls::Client::id`] and the server name.
    tls: Option<(u64, String)>,
}

/// The connections of one node.
pub(super) struct Connections {
    runtime: Handle,
    hosts: Mutex<HashMap<Key, Arc<Host>>>,
    sweeping: AtomicBool,
}

/// One destination.
#[derive(Default)]
struct Host {
    idle: Mutex<Vec<(Instant, http1::SendRequest<Body>)>>,
    shared: Mutex<Vec<Shared>>,
    /// Held while an HTTP/2 connection is made.
    dialling: tokio::sync::Mutex<()>,
    /// It chose HTTP/1.1 when it was last asked.
    chose_http1: AtomicBool,
}

/// An HTTP/2 connection.
struct Shared {
    sender: http2::SendRequest<Body>,
    calls: Arc<AtomicUsize>,
    used: Instant,
}

/// A connection for one call.
pub(super) struct Exchange {
    sender: Sender,
    host: Arc<Host>,
    /// It was there before, so that it may turn out to be closed.
    pub(super) reused: bool,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>, Lease),
}

/// A place on a shared connection.
pub(super) struct Lease(Arc<AtomicUsize>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An answer's head, and what is needed while its content is read.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    /// Given back with [`Answer::finish`].
    connection: Option<(Arc<Host>, http1::SendRequest<Body>)>,
    _lease: Option<Lease>,
}

/// How often a call goes to another connection because one takes no more.
pub(super) const REFUSALS: u32 = 3;

/// Why there is no answer.
pub(super) enum SendFailure {
    /// Nothing of it went out.
    Unsent,
    /// The peer says that it did not look at it and will not (RFC 9113, sections 6.8 and 8.7).
    Refused,
    /// The text says what happened.
    Broken(String),
}

impl fmt::Display for SendFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsent => f.write_str("the connection ended before the call was sent"),
            Self::Refused => f.write_str("the connection takes no more calls"),
            Self::Broken(error) => f.write_str(error),
        }
    }
}

impl Connections {
    /// Made and driven on `runtime`.
    pub(super) fn new(runtime: Handle) -> Arc<Self> {
        Arc::new(Self { runtime, hosts: Mutex::default(), sweeping: AtomicBool::new(false) })
    }

    /// A connection to `callee`; a new one if it is to be `fresh`.
    pub(super) async fn exchange(self: &Arc<Self>, callee: &Callee, fresh: bool) -> Result<Exchange, String> {
        let host = self.host(callee);
        let http1 =
            callee.offer == Offer::Http1 || callee.offer == Offer::Either && host.chose_http1.load(Ordering::Relaxed);
        if http1 {
            if !fresh && let Some(sender) = host.take_idle().await {
                return Ok(Exchange { sender: Sender::Http1(sender), host, reused: true });
            }
            return self.dial(callee, host).await;
        }
        if !fresh && let Some(exchange) = host.share() {
            return Ok(exchange);
        }
        let waiting = host.clone();
        let _one_at_a_time = waiting.dialling.lock().await;
        // Somebody may have made one meanwhile.
        if !fresh && let Some(exchange) = host.share() {
            return Ok(exchange);
        }
        if lock(&host.shared).len() >= SHARED_PER_HOST {
            return Err(format!("{SHARED_PER_HOST} connections are full of calls"));
        }
        self.dial(callee, host).await
    }

    fn host(self: &Arc<Self>, callee: &Callee) -> Arc<Host> {
        if !self.sweeping.swap(true, Ordering::Relaxed) {
            self.runtime.spawn(sweep(Arc::downgrade(self)));
        }
        let tls = callee.tls.as_ref().map(|client| (client.id(), callee.server_name.clone()));
        lock(&self.hosts).entry(Key { address: callee.address, tls }).or_default().clone()
    }

    /// A new connection, made on the runtime of connections.
    async fn dial(&self, callee: &Callee, host: Arc<Host>) -> Result<Exchange, String> {
        let Callee { address, offer, connect_timeout, .. } = *callee;
        let (tls, name) = (callee.tls.clone(), callee.server_name.clone());
        let runtime = self.runtime.clone();
        let dial = async move {
            let connect = async {
                let stream = Stream::connect(address).await.map_err(|error| error.to_string())?;
                let Some(client) = tls else { return Ok((stream, offer == Offer::Http2)) };
                let secured = stream.negotiate_tls(&client, address.ip(), &name, offer).await;
                let stream = secured.map_err(|error| format!("TLS handshake with '{name}' failed: {error}"))?;
                let http2 = stream.alpn() == Some(HTTP_2);
                if offer == Offer::Http2 && !http2 {
                    return Err("HTTP/2 was not agreed on".to_owned());
                }
                Ok((stream, http2))
            };
            let connected = tokio::time::timeout(connect_timeout, connect).await;
            let (stream, http2) =
                connected.map_err(|_| format!("no connection within {} ms", connect_timeout.as_millis()))??;
            begin(&runtime, stream, http2, host).await
        };
        // Given up with who waits for it: otherwise callouts that are cut short would leave a trail of dials behind.
        let mut dials = JoinSet::new();
        dials.spawn_on(dial, &self.runtime);
        let dialled = dials.join_next().await.ok_or("nothing was dialled")?;
        dialled.map_err(|error| error.to_string())?
    }
}

/// Begin HTTP on a new connection, and drive it in a task of its own.
async fn begin(runtime: &Handle, stream: Stream, http2: bool, host: Arc<Host>) -> Result<Exchange, String> {
    let io = TokioIo::new(stream);
    if http2 {
        let mut builder = http2::Builder::new(crate::egress::On(runtime.clone()));
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PONG_WITHIN)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * STREAMS as u32)
            .max_header_list_size(HEAD_BYTES as u32);
        let (sender, connection) = builder.handshake(io).await.map_err(|error| chain(&error))?;
        runtime.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = chain(&error), "an HTTP/2 connection for callouts broke");
            }
        });
        let calls = Arc::new(AtomicUsize::new(1));
        lock(&host.shared).push(Shared { sender: sender.clone(), calls: calls.clone(), used: Instant::now() });
        return Ok(Exchange { sender: Sender::Http2(sender, Lease(calls)), host, reused: false });
    }
    host.chose_http1.store(true, Ordering::Relaxed);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES);
    let (sender, connection) = builder.handshake(io).await.map_err(|error| chain(&error))?;
    // Whoever uses the connection is told of its end.
    runtime.spawn(async move { drop(connection.await) });
    Ok(Exchange { sender: Sender::Http1(sender), host, reused: false })
}

/// How long idle connections have, all together, to say that one of them can be used.
const READY: Duration = Duration::from_millis(20);

impl Host {
    /// The idle connection that was used last, if it is still good.
    async fn take_idle(&self) -> Option<http1::SendRequest<Body>> {
        let until = tokio::time::Instant::now() + READY;
        loop {
            let (_, mut sender) = lock(&self.idle).pop()?;
            if sender.is_closed() {
                continue;
            }
            // One whose last request is still being sent, although its answer came, is not waited for.
            if let Ok(Ok(())) = tokio::time::timeout_at(until, sender.ready()).await {
                return Some(sender);
            }
        }
    }

    /// A place on a shared connection: on the fullest that has one, so that others become idle.
    fn share(self: &Arc<Self>) -> Option<Exchange> {
        let mut shared = lock(&self.shared);
        shared.retain(|connection| !connection.sender.is_closed());
        let calls = |connection: &Shared| connection.calls.load(Ordering::Acquire);
        let open = shared.iter_mut().filter(|connection| calls(connection) < STREAMS);
        let fullest = open.max_by_key(|connection| calls(connection))?;
        fullest.calls.fetch_add(1, Ordering::AcqRel);
        fullest.used = Instant::now();
        let sender = Sender::Http2(fullest.sender.clone(), Lease(fullest.calls.clone()));
        Some(Exchange { sender, host: self.clone(), reused: true })
    }

    /// Close what was idle for too long; whether something is left.
    fn sweep(&self, now: Instant) -> bool {
        let recent = |used: Instant| now.saturating_duration_since(used) < IDLE;
        let mut idle = lock(&self.idle);
        idle.retain(|(since, sender)| recent(*since) && !sender.is_closed());
        let mut shared = lock(&self.shared);
        shared.retain(|connection| {
            !connection.sender.is_closed() && (connection.calls.load(Ordering::Acquire) > 0 || recent(connection.used))
        });
        !idle.is_empty() || !shared.is_empty()
    }
}

impl Exchange {
    /// Whether the request is to be of HTTP/2's form.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(..))
    }

    /// Send `request` and wait for the head of the answer.
    pub(super) async fn send(self, request: Request<Body>) -> Result<Answer, SendFailure> {
        match self.sender {
            Sender::Http1(mut sender) => {
                let response = sender.try_send_request(request).await.map_err(failure)?;
                Ok(Answer { response, connection: Some((self.host, sender)), _lease: None })
            }
            Sender::Http2(mut sender, lease) => {
                let response = sender.try_send_request(request).await.map_err(failure)?;
                Ok(Answer { response, connection: None, _lease: Some(lease) })
            }
        }
    }
}

fn failure(mut error: TrySendError<Request<Body>>) -> SendFailure {
    if error.take_message().is_some() {
        return SendFailure::Unsent;
    }
    if is_refused(error.error()) { SendFailure::Refused } else { SendFailure::Broken(chain(error.error())) }
}

/// A connection that is left in good order does what was asked of it before; only what came later fails with that.
fn is_refused(error: &hyper::Error) -> bool {
    let Some(error) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) else { return false };
    let reason = if error.is_go_away() { h2::Reason::NO_ERROR } else { h2::Reason::REFUSED_STREAM };
    error.is_remote() && error.reason() == Some(reason)
}

impl Answer {
    /// The content was read to its end: others may have the connection.
    pub(super) fn finish(self) {
        if let Some((host, sender)) = self.connection {
            let mut idle = lock(&host.idle);
            if idle.len() < IDLE_PER_HOST {
                idle.push((Instant::now(), sender));
            }
        }
    }
}

/// Close idle connections, and forget destinations without any, until nobody has the connections any more.
async fn sweep(connections: Weak<Connections>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(connections) = connections.upgrade() else { return };
        let now = Instant::now();
        lock(&connections.hosts).retain(|_, host| host.sweep(now) || Arc::strong_count(host) > 1);
    }
}

/// Nothing that holds these locks leaves things half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
