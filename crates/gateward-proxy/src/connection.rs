//! A client connection: waits for requests, holds almost nothing while it waits, and ends tidily.

use crate::body::STREAM_BYTES;
use crate::channel::Channel;
use crate::client::{Age, Connection};
use crate::h2_server;
use crate::linger::linger;
use crate::outcome::After;
use crate::request;
use crate::secure;
use crate::session::{Arrival, Session};
use crate::worker::Worker;
use gateward_net::{Deadline, Stage, Stream};
use gateward_telemetry::Counter;
use std::future::poll_fn;
use std::rc::Rc;

/// Milliseconds without a request after which a connection gives its session back.
const BURST_GAP_MS: u64 = 100;

/// Serve `stream` until it ends.
pub(crate) async fn serve(worker: Rc<Worker>, stream: Stream, arrival: Arrival) {
    let stream = Rc::new(stream);
    let deadline = worker.deadlines.register();
    let mut served = 0;
    let age = Age::new(&worker);
    let after = loop {
        // The session and the large future of a request exist only while the connection is busy: an idle one costs
        // this function's frame and the socket.
        if !wait_for_bytes(&worker, &stream, &deadline, served).await {
            secure::goodbye(&stream);
            break After::Abort;
        }
        let mut session = worker.session(&arrival);
        let after = Box::pin(serve_burst(&worker, &stream, &deadline, &mut session, (&mut served, age))).await;
        let before = (after == After::Http2).then(|| session.upload.input.filled().to_vec());
        worker.give_back(session);
        if let Some(before) = before {
            drop(deadline);
            return Box::pin(h2_server::serve(worker, stream, before, arrival)).await;
        }
        if after != After::KeepAlive {
            break after;
        }
    };
    // Until the client has its last answer, the connection counts as one. The outbox gives up on who takes nothing.
    let sent = poll_fn(|context| stream.poll_sent(context)).await;
    if after == After::Close && sent.is_ok() {
        if age.is_over(&worker) {
            worker.metrics.count(Counter::ConnectionsAged);
        }
        linger(&stream, &deadline).await;
    }
}

/// `false`: the connection has ended or been idle too long.
async fn wait_for_bytes(worker: &Worker, stream: &Stream, deadline: &Deadline, served: u32) -> bool {
    let limits = &worker.node.settings.limits;
    if served == 0 {
        // Also a connection accepted at the last moment gets its request served.
        deadline.arm_fresh(limits.header_timeout_ms);
    } else if worker.node.drain.stage() == Stage::Closing {
        return false;
    } else {
        deadline.arm_idle(limits.keepalive_timeout_ms);
    }
    if served == 0 {
        // Only a look tells; without it every new connection would hold a session and count as busy while it is idle.
        return matches!(deadline.guard(stream.arrival()).await, Ok(Ok(true)));
    }
    matches!(deadline.guard(stream.readable()).await, Ok(Ok(())))
}

/// Serve requests until none has come for [`BURST_GAP_MS`]: on a busy connection the session stays attached.
async fn serve_burst(
    worker: &Rc<Worker>,
    stream: &Rc<Stream>,
    deadline: &Deadline,
    session: &mut Session,
    (served, age): (&mut u32, Age),
) -> After {
    let client = Channel::Http1(stream);
    let mut connection = Connection { worker, client, deadline, session, served: *served, age };
    loop {
        let after = request::serve(&mut connection).await;
        connection.served = connection.served.saturating_add(1);
        *served = connection.served;
        if after != After::KeepAlive {
            return after;
        }
        if connection.session.upload.input.is_empty() {
            match next_bytes(&mut connection, stream).await {
                Next::Bytes => {}
                Next::Quiet => return After::KeepAlive,
                Next::Ended => return After::Abort,
            }
        }
    }
}

/// What came after a response.
enum Next {
    Bytes,
    Quiet,
    Ended,
}

/// Wait a moment for the next request.
async fn next_bytes(connection: &mut Connection<'_>, stream: &Stream) -> Next {
    let worker = connection.worker;
    if worker.node.drain.stage() == Stage::Closing {
        return Next::Ended;
    }
    let keepalive_ms = worker.node.settings.limits.keepalive_timeout_ms;
    connection.deadline.arm_idle(BURST_GAP_MS.min(keepalive_ms));
    let input = &mut connection.session.upload.input;
    input.rest();
    let received = connection.deadline.guard(async {
        stream.readable().await?;
        stream.read(input.space(STREAM_BYTES)).await
    });
    match received.await {
        Err(_) => Next::Quiet,
        Ok(Err(_) | Ok(0)) => Next::Ended,
        Ok(Ok(count)) => {
            input.fill(count);
            Next::Bytes
        }
    }
}
