//! UDP: the datagrams of one client address are a session, with a socket of its own towards the upstream, for as long as
//! they keep coming.
//!
//! The one task that receives on a socket hands each datagram on at once or drops it: nothing waits for a client or an
//! upstream that takes nothing, and only what comes before the upstream is known is kept, up to a bound. Replies are
//! passed on by the session's own task.

use super::error::StreamError;
use super::session::Session;
use super::target::{self, Answering};
use super::{preread, record};
use crate::tunnel::End;
use crate::worker::Worker;
use gateward_net::datagrams::{DATAGRAM_MAX, Received};
use gateward_net::{Datagrams, Release, Stage};
use gateward_route::StreamProtocol;
use gateward_telemetry::Counter;
use rustc_hash::FxHashMap;
use std::cell::{Cell, OnceCell, RefCell};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

/// Datagrams of one session that are kept until its upstream is known.
const WAITING_MAX: usize = 16;
/// Replies passed on before others get their turn.
const BURST: usize = 32;
/// Silence after which a session is over while the node is closing; milliseconds.
const CLOSING_IDLE_MS: u64 = 1_000;
/// How long receiving pauses after the system refused.
const RECEIVE_PAUSE: Duration = Duration::from_millis(50);

/// A socket for clients and its sessions, by who talks to which of its addresses.
struct Socket {
    datagrams: Datagrams,
    sessions: RefCell<FxHashMap<(SocketAddr, IpAddr), Rc<Talk>>>,
    /// For replies on their way.
    reply: RefCell<Vec<u8>>,
}

/// What the receiver and a session's task share.
#[derive(Default)]
struct Talk {
    upstream: OnceCell<UdpSocket>,
    waiting: RefCell<Vec<Box<[u8]>>>,
    up_bytes: Cell<u64>,
    down_bytes: Cell<u64>,
    /// When a datagram last came, on the deadlines' clock.
    moved_ms: Cell<u64>,
    /// The upstream does not take what is sent.
    broken: Notify,
}

/// Serve the clients of a socket until the node closes it or another process has it. The sessions may go on for longer.
pub(crate) async fn serve(worker: Rc<Worker>, datagrams: Datagrams) {
    let drain = worker.node.drain.clone();
    let mut release = std::pin::pin!(drain.release(datagrams.local_addr()));
    let reply = RefCell::new(vec![0; DATAGRAM_MAX]);
    let socket = Rc::new(Socket { datagrams, sessions: RefCell::default(), reply });
    let mut buffer = vec![0; DATAGRAM_MAX];
    let release = tokio::select! {
        never = receive(&worker, &socket, &mut buffer, true) => match never {},
        release = &mut release => release,
    };
    if release == Release::LetGo {
        return drain.reached(Stage::Closing).await;
    }
    // Nobody else has it: those who are being served stay so.
    tokio::task::spawn_local(async move { match receive(&worker, &socket, &mut buffer, false).await {} });
}

/// Hand on what comes, for ever. `admit`: also from new clients.
async fn receive(worker: &Rc<Worker>, socket: &Rc<Socket>, buffer: &mut [u8], admit: bool) -> std::convert::Infallible {
    loop {
        match socket.datagrams.receive(buffer).await {
            Ok(received) => hand_on(worker, socket, &buffer[..received.length], received, admit),
            Err(error) => {
                let local = socket.datagrams.local_addr();
                tracing::warn!(%error, %local, "receiving datagrams failed; trying again");
                tokio::time::sleep(RECEIVE_PAUSE).await;
            }
        }
    }
}

fn hand_on(worker: &Rc<Worker>, socket: &Rc<Socket>, bytes: &[u8], received: Received, admit: bool) {
    let key = (received.from, received.to.ip());
    if let Some(talk) = socket.sessions.borrow().get(&key) {
        return talk.say(worker, bytes);
    }
    let full = worker.sessions.get() >= worker.node.settings.limits.udp_sessions;
    if full || !admit {
        worker.metrics.count(Counter::StreamDatagramsDropped);
        if full && let Some(reason) = StreamError::Full.refusal() {
            worker.metrics.refuse(reason);
        }
        return;
    }
    let talk = Rc::new(Talk::default());
    talk.say(worker, bytes);
    socket.sessions.borrow_mut().insert(key, talk.clone());
    let open = Open::new(worker);
    let socket = socket.clone();
    tokio::task::spawn_local(async move {
        let worker = open.0.clone();
        let mut session = Session::begin(&worker, received.from, received.to, None);
        session.carried_by(StreamProtocol::Udp);
        let outcome = live(&worker, &socket, &talk, &mut session).await;
        socket.sessions.borrow_mut().remove(&key);
        (session.up_bytes, session.down_bytes) = (talk.up_bytes.get(), talk.down_bytes.get());
        record::finish(&worker, &session, outcome);
    });
}

/// The life of a session.
async fn live(worker: &Rc<Worker>, socket: &Socket, talk: &Talk, session: &mut Session) -> Result<End, StreamError> {
    let plan = worker.plan();
    let route = session.find(&plan.shared.stream_router).ok_or(StreamError::NoRoute)?;
    session.matched(&plan, route);
    let asked = preread::ask_plugins(worker, &plan, session, route).await;
    let greeting = std::mem::take(&mut session.exchange.greeting);
    if !greeting.is_empty() {
        let (client, local) = (session.exchange.client, session.exchange.local.ip());
        // A datagram that has no room is lost, as any.
        let _ = socket.datagrams.send(&greeting, client, local);
    }
    asked?;
    let Answering { socket: upstream, idle_ms, mut load } = target::bind(worker, &plan, session, route).await?;
    drop(plan);
    let upstream = talk.upstream.get_or_init(|| upstream);
    for bytes in talk.waiting.take() {
        talk.send(worker, upstream, &bytes);
    }
    let end = answer(worker, socket, talk, (session.exchange.client, session.exchange.local.ip()), idle_ms).await;
    if let Some(load) = &mut load {
        load.answered(end != End::UpstreamReset);
    }
    Ok(end)
}

/// Pass replies on until nothing has come from either side for so long.
async fn answer(worker: &Worker, socket: &Socket, talk: &Talk, to: (SocketAddr, IpAddr), idle_ms: u64) -> End {
    let Some(upstream) = talk.upstream.get() else { return End::UpstreamReset };
    let deadline = worker.deadlines.register();
    loop {
        let closing = worker.node.drain.stage() == Stage::Closing;
        let patience_ms = if closing { idle_ms.min(CLOSING_IDLE_MS) } else { idle_ms };
        let silent_ms = deadline.now_ms().saturating_sub(talk.moved_ms.get());
        if silent_ms >= patience_ms {
            return End::Idle;
        }
        // The end of the node looks at those that wait.
        deadline.arm_idle(patience_ms - silent_ms);
        tokio::select! {
            biased;
            () = worker.cut.notified() => return End::Cut,
            () = talk.broken.notified() => return End::UpstreamReset,
            readable = deadline.guard(upstream.readable()) => match readable {
                Ok(Ok(())) => {
                    if !pass_replies(worker, socket, talk, upstream, to) {
                        return End::UpstreamReset;
                    }
                }
                Ok(Err(_)) => return End::UpstreamReset,
                Err(_) => {}
            },
        }
    }
}

/// Pass on what is there; `false`: the upstream is gone.
fn pass_replies(worker: &Worker, socket: &Socket, talk: &Talk, upstream: &UdpSocket, to: (SocketAddr, IpAddr)) -> bool {
    let mut buffer = socket.reply.borrow_mut();
    for _ in 0..BURST {
        let length = match upstream.try_recv(&mut buffer[..]) {
            Ok(length) => length,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        talk.moved_ms.set(worker.deadlines.now_ms());
        match socket.datagrams.send(&buffer[..length], to.0, to.1) {
            Ok(()) => talk.down_bytes.set(talk.down_bytes.get() + length as u64),
            Err(_) => worker.metrics.count(Counter::StreamDatagramsDropped),
        }
    }
    true
}

impl Talk {
    /// A datagram of the client: on its way, kept for a moment, or dropped.
    fn say(&self, worker: &Worker, bytes: &[u8]) {
        self.moved_ms.set(worker.deadlines.now_ms());
        if let Some(upstream) = self.upstream.get() {
            return self.send(worker, upstream, bytes);
        }
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < WAITING_MAX {
            waiting.push(bytes.into());
        } else {
            worker.metrics.count(Counter::StreamDatagramsDropped);
        }
    }

    fn send(&self, worker: &Worker, upstream: &UdpSocket, bytes: &[u8]) {
        match upstream.try_send(bytes) {
            Ok(_) => self.up_bytes.set(self.up_bytes.get() + bytes.len() as u64),
            Err(error) => {
                worker.metrics.count(Counter::StreamDatagramsDropped);
                if error.kind() == ErrorKind::ConnectionRefused {
                    self.broken.notify_one();
                }
            }
        }
    }
}

/// Counts a session of the worker while it is there.
struct Open(Rc<Worker>);

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.sessions.set(worker.sessions.get() + 1);
        Self(worker.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.sessions.set(self.0.sessions.get() - 1);
    }
}
