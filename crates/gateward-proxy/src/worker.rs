//! One worker: accepts connections, and owns everything its requests share. Nothing here is shared with another
//! thread except what [`Node`] holds.

use crate::connection;
use crate::node::Node;
use crate::plan::Plan;
use crate::session::{Session, Spare};
use crate::upstreams::{Known, UpstreamHandle};
use gateward_model::{Route, Service};
use gateward_net::{Deadlines, Listener, Pool, Resolver, Stage, listen};
use gateward_telemetry::{Counter, Gauge, WorkerMetrics};
use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::{TcpListener, TcpStream};

/// How long accepting pauses after the system refused, e.g. for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often idle upstream connections are looked over.
const SWEEP: Duration = Duration::from_secs(1);

/// The sockets one worker listens on.
pub type WorkerListeners = Vec<Listener>;

/// A worker's own state.
pub(crate) struct Worker {
    pub(crate) node: Arc<Node>,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) deadlines: Rc<Deadlines>,
    pub(crate) pool: Pool,
    pub(crate) resolver: Rc<Resolver>,
    pub(crate) ids: Ids,
    pub(crate) names: OwnNames,
    connections: Cell<usize>,
    current: RefCell<Rc<WorkerPlan>>,
    known: Known,
    spare: RefCell<Spare>,
    /// The same moment on both clocks; renewed so that a stepped wall clock is followed.
    clocks: Cell<(Instant, SystemTime)>,
    started: Instant,
}

/// Names of the gateway's own response fields, with the prefix from the settings.
pub(crate) struct OwnNames {
    pub(crate) upstream_latency: String,
    pub(crate) proxy_latency: String,
    pub(crate) response_latency: String,
    pub(crate) request_id: String,
}

impl OwnNames {
    fn new(prefix: &str) -> Self {
        Self {
            upstream_latency: format!("{prefix}-Upstream-Latency"),
            proxy_latency: format!("{prefix}-Proxy-Latency"),
            response_latency: format!("{prefix}-Response-Latency"),
            request_id: format!("{prefix}-Request-Id"),
        }
    }
}

/// A route and its service.
type Entry = (Arc<Route>, Option<Arc<Service>>);

/// A plan as one worker uses it.
pub(crate) struct WorkerPlan {
    pub(crate) shared: Arc<Plan>,
    /// This worker's own copies of the entities it serves, made at first use: requests clone the pointer, and a
    /// count shared between cores would be fought over.
    entries: Vec<OnceCell<Entry>>,
    /// Parallel to the plan's upstreams; filled at first use.
    upstreams: Vec<OnceCell<UpstreamHandle>>,
}

impl WorkerPlan {
    pub(crate) fn entry(&self, index: usize) -> &Entry {
        self.entries[index].get_or_init(|| {
            let entry = &self.shared.router.routes()[index];
            (Arc::new((*entry.route).clone()), entry.service.as_ref().map(|service| Arc::new((**service).clone())))
        })
    }

    pub(crate) fn upstream(&self, index: u32, worker: &Worker) -> &UpstreamHandle {
        let index = index as usize;
        self.upstreams[index].get_or_init(|| worker.known.handle(&self.shared.upstreams[index], || worker.ids.next()))
    }
}

/// Run worker number `index` of `node` on the current thread until the node is closing and the last connection
/// has ended or `finish` has passed since.
pub async fn run_worker(node: Arc<Node>, index: usize, listeners: WorkerListeners, finish: Duration) {
    let worker = Rc::new(Worker::new(node, index));
    tokio::task::spawn_local(worker.deadlines.clone().run());
    tokio::task::spawn_local(look_after(worker.clone()));
    let mut accepting = Vec::new();
    for listener in listeners {
        match listener.local_addr().and_then(|address| Ok((listener.into_tokio()?, address))) {
            Ok((listener, address)) => {
                accepting.push(tokio::task::spawn_local(accept(worker.clone(), listener, address)));
            }
            Err(error) => tracing::error!(%error, "a listener could not be used"),
        }
    }
    for task in accepting {
        let _ = task.await;
    }
    let deadline = Instant::now() + finish;
    while worker.connections.get() > 0 && Instant::now() < deadline {
        worker.deadlines.expire_idle();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
    if worker.connections.get() > 0 {
        tracing::warn!(connections = worker.connections.get(), "connections cut at the end of the shutdown");
    }
}

impl Worker {
    fn new(node: Arc<Node>, index: usize) -> Self {
        let metrics = node.telemetry.worker(index);
        let ids = Ids::new();
        let current = worker_plan(&node);
        Self {
            metrics,
            deadlines: Deadlines::new(),
            pool: Pool::new(node.settings.pool),
            resolver: Rc::default(),
            ids,
            names: OwnNames::new(&node.settings.header_prefix),
            connections: Cell::new(0),
            current: RefCell::new(Rc::new(current)),
            known: Known::default(),
            spare: RefCell::default(),
            clocks: Cell::new((Instant::now(), SystemTime::now())),
            started: Instant::now(),
            node,
        }
    }

    /// The plan to serve the next request with.
    pub(crate) fn plan(&self) -> Rc<WorkerPlan> {
        let mut current = self.current.borrow_mut();
        if current.shared.snapshot.generation != self.node.generation() {
            *current = Rc::new(worker_plan(&self.node));
            self.known.retain(&current.shared);
        }
        current.clone()
    }

    /// A session for a connection that has something to do.
    pub(crate) fn session(&self, peer: SocketAddr, local: SocketAddr) -> Box<Session> {
        let spare = self.spare.borrow_mut().take();
        let mut session = spare.unwrap_or_else(|| Box::new(Session::new(self.deadlines.register())));
        session.exchange.client.peer = peer;
        session.exchange.client.port = local.port();
        session.local = local;
        session
    }

    pub(crate) fn give_back(&self, session: Box<Session>) {
        self.spare.borrow_mut().give(session);
    }

    /// Wall-clock milliseconds of `moment`.
    pub(crate) fn unix_ms(&self, moment: Instant) -> u64 {
        let (instant, system) = self.clocks.get();
        let base = system.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = match moment.checked_duration_since(instant) {
            Some(later) => base + later,
            None => base.saturating_sub(instant.duration_since(moment)),
        };
        since.as_millis() as u64
    }

    /// Microseconds since the worker started: time for balancers, which only compare.
    pub(crate) fn monotonic_us(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.started).as_micros() as u64
    }
}

fn worker_plan(node: &Node) -> WorkerPlan {
    fn blank<T>(count: usize) -> Vec<OnceCell<T>> {
        std::iter::repeat_with(OnceCell::new).take(count).collect()
    }
    let shared = node.plan();
    let (routes, upstreams) = (shared.router.routes().len(), shared.upstreams.len());
    WorkerPlan { shared, entries: blank(routes), upstreams: blank(upstreams) }
}

/// Accept until the node is closing, then what is left in the queue.
async fn accept(worker: Rc<Worker>, listener: TcpListener, local: SocketAddr) {
    let drain = worker.node.drain.clone();
    let mut closing = std::pin::pin!(drain.reached(Stage::Closing));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(&worker, stream, peer, local),
                Err(error) => {
                    tracing::warn!(%error, %local, "accepting a connection failed; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = &mut closing => break,
        }
    }
    listen::last_call(listener, |stream, peer| admit(&worker, stream, peer, local)).await;
}

/// Serve a new connection unless a limit is reached.
fn admit(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
    worker.metrics.count(Counter::ConnectionsAccepted);
    let limits = &worker.node.settings.limits;
    let permit = worker.node.addresses.admit(peer.ip());
    let Some(permit) = permit.filter(|_| worker.connections.get() < limits.connections) else {
        worker.metrics.count(Counter::ConnectionsRefused);
        return;
    };
    // Heads and small bodies leave in one write, so there is nothing Nagle's algorithm could gather.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    worker.connections.set(worker.connections.get() + 1);
    worker.metrics.gauge_add(Gauge::ConnectionsActive, 1);
    let open = OpenConnection { worker: worker.clone(), _permit: permit };
    tokio::task::spawn_local(async move {
        connection::serve(open.worker.clone(), stream, peer, local).await;
        drop(open);
    });
}

/// Counts a connection out when its task ends, however it ends.
struct OpenConnection {
    worker: Rc<Worker>,
    _permit: listen::AddressPermit,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.worker.connections.set(self.worker.connections.get() - 1);
        self.worker.metrics.gauge_add(Gauge::ConnectionsActive, -1);
        self.worker.metrics.count(Counter::ConnectionsClosed);
    }
}

/// Once a second: close idle upstream connections that expired, follow the wall clock, notice a new plan also
/// when there is no traffic (so that the old one's memory is given back), report gauges.
async fn look_after(worker: Rc<Worker>) {
    let mut reported_idle = 0;
    loop {
        tokio::time::sleep(SWEEP).await;
        let closed = worker.pool.sweep(worker.deadlines.now_ms());
        worker.metrics.add(Counter::UpstreamIdleDiscarded, closed);
        let idle = worker.pool.len() as i64;
        worker.metrics.gauge_add(Gauge::UpstreamConnectionsIdle, idle - reported_idle);
        reported_idle = idle;
        worker.clocks.set((Instant::now(), SystemTime::now()));
        drop(worker.plan());
    }
}

/// Random numbers for request ids and seeds: unique, not secret. xoshiro256++ (Blackman and Vigna), seeded from
/// the operating system.
pub(crate) struct Ids {
    state: Cell<[u64; 4]>,
}

impl Ids {
    fn new() -> Self {
        let (low, high) = (uuid::Uuid::new_v4().as_u64_pair(), uuid::Uuid::new_v4().as_u64_pair());
        Self { state: Cell::new([low.0, low.1, high.0, high.1]) }
    }

    pub(crate) fn next(&self) -> u64 {
        let mut state = self.state.get();
        let result = state[0].wrapping_add(state[3]).rotate_left(23).wrapping_add(state[0]);
        let shifted = state[1] << 17;
        state[2] ^= state[0];
        state[3] ^= state[1];
        state[1] ^= state[2];
        state[0] ^= state[3];
        state[2] ^= shifted;
        state[3] = state[3].rotate_left(45);
        self.state.set(state);
        result
    }

    /// Replace `out` by 32 hex digits.
    pub(crate) fn write_next(&self, out: &mut String) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        out.clear();
        for word in [self.next(), self.next()] {
            for shift in (0..16).rev() {
                out.push(char::from(DIGITS[(word >> (shift * 4) & 15) as usize]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_32_hex_digits_and_differ() {
        let ids = Ids::new();
        let (mut first, mut second) = (String::new(), String::new());
        ids.write_next(&mut first);
        ids.write_next(&mut second);
        assert_ne!(first, second);
        for id in [first, second] {
            assert_eq!(id.len(), 32);
            assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }
}
