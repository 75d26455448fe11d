//! Running a worker: accept connections, look after what it owns, and end when the node does.

use crate::connection;
use crate::node::Node;
use crate::worker::Worker;
use gateward_net::{Listener, Stage, Stream, listen};
use gateward_telemetry::{Counter, Gauge};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};

/// How long accepting pauses after the system refused, e.g. for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often idle upstream connections are looked over.
const SWEEP: Duration = Duration::from_secs(1);

/// The sockets one worker listens on.
pub type WorkerListeners = Vec<Listener>;

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
        connection::serve(open.worker.clone(), Stream::plain(stream), peer, local).await;
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
        let now_ms = worker.deadlines.now_ms();
        let closed = worker.pool.sweep(now_ms) + worker.http2.sweep(now_ms);
        worker.metrics.add(Counter::UpstreamIdleDiscarded, closed);
        let idle = worker.pool.len() as i64;
        worker.metrics.gauge_add(Gauge::UpstreamConnectionsIdle, idle - reported_idle);
        reported_idle = idle;
        worker.follow_wall_clock();
        worker.weigh_targets();
        drop(worker.plan());
    }
}
