//! What one worker owns and all its requests share. Nothing here is shared with another thread except what
//! [`Node`] holds.

use crate::node::Node;
use crate::plan::Plan;
use crate::session::{Session, Spare};
use crate::upstreams::{Known, UpstreamHandle};
use gateward_model::{Route, Service};
use gateward_net::{Deadlines, Pool, Resolver};
use gateward_telemetry::WorkerMetrics;
use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// A worker's own state.
pub(crate) struct Worker {
    pub(crate) node: Arc<Node>,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) deadlines: Rc<Deadlines>,
    pub(crate) pool: Pool,
    pub(crate) resolver: Rc<Resolver>,
    pub(crate) ids: Ids,
    pub(crate) names: OwnNames,
    /// Client connections open.
    pub(crate) connections: Cell<usize>,
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

impl Worker {
    pub(crate) fn new(node: Arc<Node>, index: usize) -> Self {
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

    /// Set the clocks against each other again, so that a stepped wall clock shows.
    pub(crate) fn follow_wall_clock(&self) {
        self.clocks.set((Instant::now(), SystemTime::now()));
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
