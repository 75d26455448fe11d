//! Streams: connections whose protocol the gateway does not know. [`serve`] reads like the life of one; the steps are
//! beside it.
//!
//! A listener without `ssl` never looks at what a client sends when a tcp route goes by the addresses: where the server
//! speaks first, there is nothing to look at. Only where none does, the client's hello is waited for, which must name a
//! tls_passthrough route. A listener with `ssl` passes through what a tls_passthrough route asks for and ends the TLS of
//! everything else, as Kong's does.

mod error;
mod preread;
mod record;
mod session;
mod target;
pub(crate) mod udp;
mod way;

use crate::arrival::{self, Manner};
use crate::body::Buffer;
use crate::tunnel::{self, End, Ends, Joined};
use crate::worker::Worker;
use error::StreamError;
use gateward_net::{ListenerFlags, Stream};
use session::Session;
use std::net::SocketAddr;
use std::rc::Rc;
use target::Reached;
use tokio::net::TcpStream;

/// Serve a connection of a listener for streams until it ends.
pub(crate) async fn serve(worker: Rc<Worker>, tcp: TcpStream, peer: SocketAddr, local: SocketAddr, manner: Manner) {
    let Some(client) = arrival::client(&worker, &tcp, peer, manner).await else { return };
    // Where the listener has every address of the machine, this is the one that was meant.
    let local = tcp.local_addr().unwrap_or(local);
    let mut session = Session::begin(&worker, client.address, local, client.origin.clone());
    let outcome = live(&worker, tcp, &mut session, manner.flags).await;
    record::finish(&worker, &session, outcome);
}

async fn live(
    worker: &Rc<Worker>,
    tcp: TcpStream,
    session: &mut Session,
    flags: ListenerFlags,
) -> Result<End, StreamError> {
    let plan = worker.plan();
    let (stream, route) = preread::find_route(worker, &plan, tcp, session, flags).await?;
    session.matched(&plan, route);
    let asked = preread::ask_plugins(worker, &plan, session, route).await;
    if !session.exchange.greeting.is_empty() {
        greet(worker, session, &stream).await?;
    }
    asked?;
    let reached = target::reach(worker, &plan, session, route).await?;
    // A stream may last for days: what it needs of its configuration it has.
    drop(plan);
    Ok(relay(worker, session, &stream, reached).await)
}

/// Send the client what plugins have for it.
async fn greet(worker: &Worker, session: &mut Session, client: &Stream) -> Result<(), StreamError> {
    let greeting = std::mem::take(&mut session.exchange.greeting);
    let deadline = worker.deadlines.register();
    let timeout_ms = worker.node.settings.limits.send_timeout_ms;
    deadline.write_all(client, &greeting, timeout_ms).await.map_err(|_| StreamError::ClientGone)?;
    session.greeting_bytes = greeting.len() as u64;
    Ok(())
}

/// Pass bytes on both ways until one end is gone.
async fn relay(worker: &Rc<Worker>, session: &mut Session, client: &Stream, reached: Reached) -> End {
    let (up, down) = (worker.deadlines.register(), worker.deadlines.register());
    let ends = Ends {
        client,
        upstream: &reached.stream,
        deadlines: (&up, &down),
        input: (Buffer::default(), Buffer::default()),
        idle_ms: reached.read_ms,
        write_ms: (reached.write_ms, reached.write_ms),
        websocket: false,
        abrupt_ends: true,
    };
    let Joined { end, up_bytes, down_bytes } = tunnel::join(worker, ends).await;
    session.up_bytes = up_bytes;
    session.down_bytes = down_bytes;
    end
}
