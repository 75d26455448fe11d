//! A balancer of connections that misbehaves as an AWS NLB does.
//!
//! A gateway behind such a balancer loses requests for reasons of the balancer: it resets connections of targets
//! that fail a check, forgets quiet ones without a word, sends new ones to targets that were taken out. Each of
//! these is here as a switch, with AWS's defaults, so that a test shows the failure and what removes it. Times are
//! AWS's, divided by [`Settings::times_faster`].
//!
//! It works on connections, not packets: a client's connection attempt always succeeds, and what would be a refused
//! packet is a reset of that connection. TCP keep-alive probes stay in the kernel of either side and so do not keep
//! a connection alive here; an NLB would count them. Names of settings are those of AWS target groups.

mod flow;
mod group;
mod header;
mod probe;
mod settings;

pub use group::Health;
pub use settings::{Check, ProxyProtocol, Settings, Target};

use gateward_testkit::eventually;
use group::{Group, Reset, TargetId};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// How long a target may take to become healthy in a test, beside the checks themselves.
const PATIENCE: Duration = Duration::from_secs(20);

/// What happened to connections; see [`Nlb::count`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// A connection came.
    Flow,
    /// The target refused it: the client's connection was reset.
    Refused,
    /// Reset, because its target failed its checks (row 1).
    ResetUnhealthy,
    /// Forgotten, because it was quiet for too long (row 2).
    Forgotten,
    /// Went to a target that had been taken out of the group (row 3).
    ToDeregistered,
    /// Reset, because the delay of a target that was taken out had passed (row 4).
    ResetTerminated,
    /// Reset, because the target had another connection with the same addresses and ports (row 5).
    Duplicate,
    /// Nobody serves in its zone: it is never answered (row 8).
    BlackHole,
    /// One side reset it, and the other was told.
    PassedReset,
}

/// A running balancer; ends with all its connections when dropped.
#[derive(Debug)]
pub struct Nlb {
    zones: Vec<SocketAddr>,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// What the tasks of a balancer share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    group: Mutex<Group>,
}

impl Shared {
    /// The target group. No task waits for anything while it holds this.
    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Nlb {
    /// Starts listening, one address per zone, without targets.
    ///
    /// # Panics
    /// When the system has no sockets or threads left.
    pub fn start(settings: Settings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread can be started");
        let shared = Arc::new(Shared { group: Mutex::new(Group::new(&settings)), settings });
        let zones = (0..shared.settings.zones)
            .map(|zone| {
                let listener = runtime
                    .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
                    .expect("there is a free port on loopback");
                let addr = listener.local_addr().expect("a bound socket has an address");
                runtime.spawn(accept(shared.clone(), listener, zone, addr));
                addr
            })
            .collect();
        Self { zones, shared, runtime: Some(runtime) }
    }

    /// The address of the first zone.
    pub fn addr(&self) -> SocketAddr {
        self.zones[0]
    }

    /// The addresses of all zones, as DNS would list them.
    pub fn zones(&self) -> &[SocketAddr] {
        &self.zones
    }

    /// Takes a target into the group. It gets connections once its checks succeed (or no target's do).
    pub fn register(&self, target: Target) -> TargetId {
        let id = self.shared.group().register(target);
        self.runtime().spawn(probe::watch(self.shared.clone(), id));
        id
    }

    /// Takes a target into the group, and waits until it is healthy.
    ///
    /// # Panics
    /// When it does not become so.
    #[track_caller]
    pub fn register_healthy(&self, target: Target) -> TargetId {
        let id = self.register(target);
        eventually(PATIENCE, || self.health(id) == Some(Health::Healthy));
        id
    }

    /// Takes a target out of the group. It still gets new connections for [`Settings::deregistration_lag`], and keeps
    /// those it has; after [`Settings::deregistration_delay`] they are reset if
    /// [`Settings::connection_termination`] says so.
    pub fn deregister(&self, id: TargetId) {
        self.shared.group().deregister(id, Instant::now());
        let shared = self.shared.clone();
        self.runtime().spawn(async move {
            tokio::time::sleep(shared.settings.scaled(shared.settings.deregistration_delay)).await;
            let reset = shared.settings.connection_termination.then_some(Reset::Terminated);
            shared.group().remove(id, reset);
        });
    }

    /// What the checks say of a target; `None` when it is not in the group.
    pub fn health(&self, id: TargetId) -> Option<Health> {
        self.shared.group().health(id)
    }

    /// How often something happened so far.
    pub fn count(&self, event: Event) -> u64 {
        self.shared.group().count(event)
    }

    /// Connections sent to a target so far.
    pub fn flows_to(&self, id: TargetId) -> u64 {
        self.shared.group().flows_to(id)
    }

    /// What happened so far, for the report of a test.
    pub fn events(&self) -> String {
        self.shared.group().events()
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is taken only when the balancer is dropped")
    }
}

impl Drop for Nlb {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, zone: usize, local: SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((client, peer)) => {
                tokio::spawn(flow::serve(shared.clone(), client, peer, zone, local));
            }
            // For lack of file descriptors: some connection will end.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
