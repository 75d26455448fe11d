//! A client connection: waits for requests, holds almost nothing while it waits, and ends tidily.

use crate::request;
use crate::session::{Connection, Session};
use crate::worker::Worker;
use gateward_net::{Deadline, Stage};
use gateward_telemetry::{Counter, Gauge};
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Milliseconds a closing connection is read from, so that the client gets to see the last response: closing with
/// unread bytes would reset the connection under it.
const LINGER_MS: u64 = 2_000;
/// Bytes thrown away while lingering.
const LINGER_BYTES: usize = 1024 * 1024;

/// What becomes of a connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// It waits for the next request.
    KeepAlive,
    /// It ends; what the client still sends is read for a moment.
    Close,
    /// It ends at once: the client is gone or must notice that the response is cut off.
    Abort,
}

/// Serve `stream` until it ends.
pub(crate) async fn serve(worker: Rc<Worker>, mut stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
    let metrics = &worker.metrics;
    metrics.gauge_add(Gauge::ConnectionsActive, 1);
    let deadline = worker.deadlines.register();
    let mut served = 0;
    let after = loop {
        // The session and the large future of a request exist only from the first byte of a request to the last
        // byte of its response: an idle connection costs this function's frame and the socket.
        if !wait_for_bytes(&worker, &stream, &deadline).await {
            break After::Abort;
        }
        let mut session = worker.session(peer, local);
        let after = Box::pin(serve_burst(&worker, &mut stream, &deadline, &mut session, &mut served)).await;
        worker.give_back(session);
        if after != After::KeepAlive {
            break after;
        }
    };
    if after == After::Close {
        linger(&mut stream, &deadline).await;
    }
    metrics.gauge_add(Gauge::ConnectionsActive, -1);
    metrics.count(Counter::ConnectionsClosed);
}

/// `false`: the connection has ended or been idle too long.
async fn wait_for_bytes(worker: &Worker, stream: &TcpStream, deadline: &Deadline) -> bool {
    if worker.node.drain.stage() == Stage::Closing {
        return false;
    }
    deadline.arm_idle(worker.node.settings.limits.keepalive_timeout_ms);
    matches!(deadline.guard(stream.readable()).await, Ok(Ok(())))
}

/// Serve requests as long as bytes of a next one are there already.
async fn serve_burst(
    worker: &Rc<Worker>,
    stream: &mut TcpStream,
    deadline: &Deadline,
    session: &mut Session,
    served: &mut u32,
) -> After {
    let (reader, writer) = stream.split();
    let mut connection = Connection { worker, reader, writer, deadline, session, served: *served };
    loop {
        let after = request::serve(&mut connection).await;
        connection.served = connection.served.saturating_add(1);
        *served = connection.served;
        if after != After::KeepAlive || connection.session.upload.input.is_empty() {
            return after;
        }
    }
}

/// Say that no more will be sent, and read what the client still sends for a bounded while.
async fn linger(stream: &mut TcpStream, deadline: &Deadline) {
    if stream.shutdown().await.is_err() {
        return;
    }
    deadline.arm(LINGER_MS);
    let mut scrap = [0_u8; 2048];
    let mut left = LINGER_BYTES;
    while let Ok(Ok(count)) = deadline.guard(stream.read(&mut scrap)).await {
        left = left.saturating_sub(count);
        if count == 0 || left == 0 {
            return;
        }
    }
}
