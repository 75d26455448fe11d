//! What one worker owns and all its requests share. Nothing here is shared with another thread except what
//! [`Node`] holds.

use crate::forward::write_origin;
use crate::forwarded::write_ip;
use crate::h2_client::Http2Pool;
use crate::node::Node;
use crate::own::OwnFields;
use crate::plan::Plan;
use crate::protection::Connections;
use crate::session::{Arrival, Session, Spare};
use crate::upstreams::{Known, UpstreamHandle};
use gateward_balance::ConcurrencyLimit;
use gateward_model::{Route, Service};
use gateward_net::{Deadlines, Outbox, Pool, Resolver, monotonic_us};
use gateward_plugin::Scheme;
use gateward_telemetry::WorkerMetrics;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// A worker's own state.
pub(crate) struct Worker {
    pub(crate) node: Arc<Node>,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) deadlines: Rc<Deadlines>,
    pub(crate) outbox: Rc<Outbox>,
    pub(crate) pool: Pool,
    /// HTTP/2 connections to upstreams.
    pub(crate) http2: Http2Pool,
    pub(crate) resolver: Resolver,
    pub(crate) ids: Ids,
    pub(crate) own: OwnFields,
    /// How many requests to serve at the same time, if there is a limit.
    pub(crate) concurrency: Option<RefCell<ConcurrencyLimit>>,
    /// Client connections open.
    pub(crate) connections: Cell<usize>,
    /// UDP sessions open.
    pub(crate) sessions: Cell<usize>,
    /// TLS handshakes with clients under way.
    pub(crate) handshakes: Cell<usize>,
    /// Wakes the tunnels that are left when the time of a shutdown is over.
    pub(crate) cut: Notify,
    current: RefCell<Rc<WorkerPlan>>,
    known: Known,
    spare: RefCell<Spare>,
    /// On the system's monotonic clock, in microseconds.
    started_us: u64,
    /// Unix microseconds of `started_us`; renewed so that a stepped wall clock is followed.
    epoch_us: Cell<u64>,
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
        self.upstreams[index]
            .get_or_init(|| worker.known.handle(&self.shared, index, worker.node.registries(), || worker.ids.next()))
    }
}

impl Worker {
    pub(crate) fn new(node: Arc<Node>, index: usize) -> Self {
        let metrics = node.telemetry.worker(index);
        let started_us = monotonic_us();
        let ids = Ids::new();
        let current = worker_plan(&node);
        Self {
            metrics,
            deadlines: Deadlines::new(),
            outbox: Outbox::new(Duration::from_millis(node.settings.limits.send_timeout_ms)),
            pool: Pool::new(node.settings.pool),
            http2: Http2Pool::new(node.settings.pool),
            resolver: Resolver::new(node.names.clone()),
            ids,
            own: OwnFields::new(&node.settings),
            concurrency: node.settings.concurrency.map(|rule| RefCell::new(ConcurrencyLimit::new(rule))),
            connections: Cell::new(0),
            sessions: Cell::new(0),
            handshakes: Cell::new(0),
            cut: Notify::new(),
            current: RefCell::new(Rc::new(current)),
            known: Known::default(),
            spare: RefCell::default(),
            epoch_us: Cell::new(epoch_us(started_us)),
            started_us,
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

    /// The connections that wait for requests.
    pub(crate) fn idle_connections(&self) -> Connections<'_> {
        Connections::new(&self.pool, &self.http2, &self.deadlines)
    }

    /// A session for a connection that has something to do.
    pub(crate) fn session(&self, arrival: &Arrival) -> Box<Session> {
        let Arrival { number, peer, local, ref origin, ref tls } = *arrival;
        let spare = self.spare.borrow_mut().take();
        let mut session = spare.unwrap_or_else(|| Box::new(Session::new(self.deadlines.register())));
        session.exchange.client.connection = number;
        session.exchange.client.peer = peer;
        session.exchange.client.origin.clone_from(origin);
        session.exchange.client.scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
        session.exchange.client.tls.clone_from(tls);
        session.peer.clear();
        write_ip(peer.ip().to_canonical(), &mut session.peer);
        session.direct.clear();
        write_origin(&session.peer, session.exchange.client.scheme, local.port(), &mut session.direct);
        session.exchange.client.local_ip = local.ip();
        session.exchange.client.port = local.port();
        session.local = local;
        session
    }

    pub(crate) fn give_back(&self, session: Box<Session>) {
        self.spare.borrow_mut().give(session);
    }

    /// Let the shares of targets that start slowly grow.
    pub(crate) fn weigh_targets(&self) {
        self.known.weigh();
    }

    /// Set the clocks against each other again, so that a stepped wall clock shows.
    pub(crate) fn follow_wall_clock(&self) {
        self.epoch_us.set(epoch_us(self.started_us));
    }

    /// Microseconds since the worker started: the clock of everything that is measured.
    pub(crate) fn now_us(&self) -> u64 {
        monotonic_us() - self.started_us
    }

    /// Wall-clock milliseconds of a moment of the worker's clock.
    pub(crate) fn unix_ms(&self, at_us: u64) -> u64 {
        self.epoch_us.get().saturating_add(at_us) / 1000
    }
}

/// Unix microseconds of a moment of the monotonic clock.
fn epoch_us(started_us: u64) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (now.as_micros() as u64).saturating_sub(monotonic_us() - started_us)
}

fn worker_plan(node: &Node) -> WorkerPlan {
    fn blank<T>(count: usize) -> Vec<OnceCell<T>> {
        std::iter::repeat_with(OnceCell::new).take(count).collect()
    }
    let shared = node.plan();
    shared.start_worker();
    let (routes, upstreams) = (shared.router.routes().len(), shared.upstreams.len());
    WorkerPlan { shared, entries: blank(routes), upstreams: blank(upstreams) }
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
        let mut digits = [0; 32];
        for (word, half) in [self.next(), self.next()].into_iter().zip(digits.as_chunks_mut::<16>().0) {
            for (byte, pair) in word.to_be_bytes().into_iter().zip(half.as_chunks_mut::<2>().0) {
                *pair = HEX[usize::from(byte)];
            }
        }
        out.clear();
        out.push_str(str::from_utf8(&digits).expect("hex digits are ASCII"));
    }
}

/// The two hex digits of every byte.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

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
