//! Running a worker: accept connections, look after what it owns, and end when the node does.

use crate::arrival::{self, Manner};
use crate::connection;
use crate::forwarded::is_trusted;
use crate::node::Node;
use crate::session::Arrival;
use crate::stream;
use crate::worker::Worker;
use gateward_net::proxy_protocol::Mode;
use gateward_net::{DatagramListener, Listener, Release, Stage, Stream, listen};
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

/// The sockets of one worker.
#[derive(Debug, Default)]
pub struct WorkerSockets {
    /// For connections.
    pub listeners: Vec<Listener>,
    /// For datagrams.
    pub datagrams: Vec<DatagramListener>,
}

/// Run worker number `index` of `node` on the current thread until the node is closing and the last connection
/// has ended or `finish` has passed since.
pub async fn run_worker(node: Arc<Node>, index: usize, sockets: WorkerSockets, finish: Duration) {
    let worker = Rc::new(Worker::new(node, index));
    tokio::task::spawn_local(worker.deadlines.clone().run());
    tokio::task::spawn_local(worker.outbox.clone().run());
    tokio::task::spawn_local(look_after(worker.clone()));
    let mut accepting = Vec::new();
    for socket in sockets.datagrams {
        match socket.into_tokio() {
            Ok(socket) => accepting.push(tokio::task::spawn_local(stream::udp::serve(worker.clone(), socket))),
            Err(error) => tracing::error!(%error, "a socket for datagrams could not be used"),
        }
    }
    for listener in sockets.listeners {
        let manner = Manner { mode: listener.proxy_protocol(), flags: listener.flags() };
        if let Some(idle) = listener.probed_after(worker.node.settings.tcp_keepalive) {
            listener.keep_alive(idle);
        }
        match listener.local_addr().and_then(|address| Ok((listener.into_tokio()?, address))) {
            Ok((listener, address)) => {
                accepting.push(tokio::task::spawn_local(accept(worker.clone(), listener, address, manner)));
            }
            Err(error) => tracing::error!(%error, "a listener could not be used"),
        }
    }
    for task in accepting {
        let _ = task.await;
    }
    let deadline = Instant::now() + finish;
    let open = || worker.connections.get() + worker.sessions.get();
    while open() > 0 && Instant::now() < deadline {
        worker.deadlines.expire_idle();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
    if open() > 0 {
        tracing::warn!(connections = open(), "connections cut at the end of the shutdown");
        // Those that can tell what became of them do.
        worker.cut.notify_waiters();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
    worker.plan().shared.stop_worker().await;
    // The task that does it may have no turn any more.
    worker.outbox.send();
}

/// Accept until the node is closing, then what is left in the queue; or until another process has the socket.
async fn accept(worker: Rc<Worker>, listener: TcpListener, local: SocketAddr, manner: Manner) {
    let drain = worker.node.drain.clone();
    let mut release = std::pin::pin!(drain.release(local));
    let release = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(&worker, stream, peer, local, manner),
                Err(error) => {
                    tracing::warn!(%error, %local, "accepting a connection failed; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            release = &mut release => break release,
        }
    };
    match release {
        Release::Close => listen::last_call(listener, |stream, peer| admit(&worker, stream, peer, local, manner)).await,
        Release::LetGo => {
            drop(listener);
            drain.reached(Stage::Closing).await;
        }
    }
}

/// Serve a new connection unless a limit is reached.
fn admit(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, local: SocketAddr, manner: Manner) {
    let Manner { mode, flags } = manner;
    worker.metrics.count(Counter::ConnectionsAccepted);
    let limits = &worker.node.settings.limits;
    // A balancer's connections are many clients': those are counted once their headers are there.
    let balancer = mode != Mode::Off && is_trusted(peer.ip().to_canonical(), &worker.node.settings);
    let permit = if balancer { Some(None) } else { worker.node.addresses.admit(peer.ip()).map(Some) };
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
        let worker = open.worker.clone();
        match mode {
            Mode::Off if !flags.ssl && !flags.stream => {
                let arrival = Arrival { number: worker.node.number_connection(), peer, local, origin: None, tls: None };
                connection::serve(worker, Stream::plain(stream), arrival).await;
            }
            _ if flags.stream => Box::pin(stream::serve(worker, stream, peer, local, manner)).await,
            _ => Box::pin(arrival::serve(worker, stream, peer, local, manner)).await,
        }
        drop(open);
    });
}

/// Counts a connection out when its task ends, however it ends.
struct OpenConnection {
    worker: Rc<Worker>,
    _permit: Option<listen::AddressPermit>,
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
    let (mut reported_idle, mut reported_limit) = (0, 0);
    loop {
        tokio::time::sleep(SWEEP).await;
        let now_ms = worker.deadlines.now_ms();
        let closed = worker.pool.sweep(now_ms) + worker.http2.sweep(now_ms);
        worker.metrics.add(Counter::UpstreamIdleDiscarded, closed);
        let idle = worker.pool.len() as i64;
        worker.metrics.gauge_add(Gauge::UpstreamConnectionsIdle, idle - reported_idle);
        reported_idle = idle;
        if let Some(concurrency) = &worker.concurrency {
            let limit = i64::from(concurrency.borrow().limit());
            worker.metrics.gauge_add(Gauge::ConcurrencyLimit, limit - reported_limit);
            reported_limit = limit;
        }
        worker.follow_wall_clock();
        worker.weigh_targets();
        drop(worker.plan());
    }
}
