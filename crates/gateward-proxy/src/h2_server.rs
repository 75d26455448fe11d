//! A client's HTTP/2 connection: every request is a task of its own with its own session, and goes through the same
//! life as one of HTTP/1.1.
//!
//! The connection's task drives the protocol, takes in requests and keeps the limits: how many at once (counting
//! those whose work is still going on after a reset), how many in all, how long without any, how long without the
//! client taking what is there for it, and how many frames that mean nothing (see `http2::Budgets`).

use crate::body::BUFFER_BYTES;
use crate::channel::Channel;
use crate::client::{Age, Connection};
use crate::error::ProxyError;
use crate::flow::Source;
use crate::grpc::Call;
use crate::head;
use crate::http2::{self, Http2Stream, Io, Watch, message_fields};
use crate::linger::linger;
use crate::outcome::{After, Ended, Local};
use crate::record;
use crate::reply;
use crate::request;
use crate::session::{Arrival, Session};
use crate::settings::Limits;
use crate::worker::{Worker, WorkerPlan};
use gateward_http::{MessageParts, read_request_head};
use gateward_net::{Deadline, Stage, Stream};
use gateward_telemetry::Counter;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

/// Milliseconds between two looks at a busy connection.
const LOOK_MS: u64 = 5_000;
/// Milliseconds for saying why the connection ends.
const GOAWAY_MS: u64 = 1_000;
/// Requests a client may have given up before they were looked at, at any time.
const UNSEEN_RESETS: usize = 50;

/// What a connection and its requests share.
struct Shared {
    worker: Rc<Worker>,
    age: Age,
    arrival: Arrival,
    /// Requests whose work goes on.
    open: Cell<usize>,
    /// Of the connection; idle while there are no requests.
    deadline: Deadline,
    /// The deadline is that of an idle connection.
    idle: Cell<bool>,
    watch: Rc<Watch>,
}

/// How a connection ends.
enum End {
    /// The client has ended it.
    Done,
    /// The peer broke the protocol and has been told.
    Refused,
    /// It has been idle for long enough.
    Idle,
    /// It is cut with this reason.
    Cut { reason: Reason, label: &'static str },
}

/// Serve the HTTP/2 connection `stream` until it ends; `before` was read from it already.
pub(crate) async fn serve(worker: Rc<Worker>, stream: Rc<Stream>, before: Vec<u8>, arrival: Arrival) {
    let io = Io::accepted(stream.clone(), before, worker.deadlines.clone());
    let watch = io.watch();
    let deadline = worker.deadlines.register();
    let limits = &worker.node.settings.limits;
    deadline.arm_fresh(limits.header_timeout_ms);
    let Ok(Ok(mut h2)) = deadline.guard(builder(limits).handshake(io)).await else {
        worker.metrics.refuse("http2_handshake");
        return;
    };
    let age = Age::new(&worker);
    let shared = Rc::new(Shared { worker, age, arrival, open: Cell::new(0), deadline, idle: Cell::new(false), watch });
    shared.rest();
    let end = accept_requests(&mut h2, &shared).await;
    // What was refused is counted as it is sent, and the last of it may have been sent at the end.
    shared.watch.budgets.take_faults(|label| shared.worker.metrics.refuse(label));
    match end {
        End::Done => return,
        End::Refused => {}
        End::Idle => say_goodbye(&mut h2, &shared, Reason::NO_ERROR).await,
        End::Cut { reason, label } => {
            shared.worker.metrics.refuse(label);
            tracing::debug!(peer = %shared.arrival.peer, label, "HTTP/2 connection cut");
            say_goodbye(&mut h2, &shared, reason).await;
        }
    }
    drop(h2);
    linger(&stream, &shared.deadline).await;
}

/// Send GOAWAY at once, whatever is under way.
async fn say_goodbye(h2: &mut server::Connection<Io, bytes::Bytes>, shared: &Shared, reason: Reason) {
    h2.abrupt_shutdown(reason);
    shared.deadline.arm(GOAWAY_MS);
    let _ = shared.deadline.guard(poll_fn(|context| h2.poll_closed(context))).await;
}

/// Every limit of the protocol, said aloud.
fn builder(limits: &Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    let fields = limits.head.fields * http2::FIELD_OVERHEAD;
    builder
        .initial_window_size(http2::STREAM_WINDOW)
        .initial_connection_window_size(http2::CONNECTION_WINDOW)
        .max_frame_size(http2::FRAME_BYTES)
        .max_header_list_size(u32::try_from(limits.head.head_bytes + fields).unwrap_or(u32::MAX))
        .header_table_size(http2::HEADER_TABLE)
        .max_concurrent_streams(limits.http2_streams)
        .max_concurrent_reset_streams(http2::RESET_STREAMS)
        .reset_stream_duration(http2::RESET_REMEMBERED)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(http2::ERROR_RESETS))
        .max_send_buffer_size(http2::SEND_BUFFER)
        .data_frame_budget(http2::DATA_FRAME_BUDGET);
    builder
}

/// Take in requests until the connection ends.
async fn accept_requests(connection: &mut server::Connection<Io, bytes::Bytes>, shared: &Rc<Shared>) -> End {
    let (worker, watch) = (&shared.worker, &shared.watch);
    let (limits, most) = (&worker.node.settings.limits, worker.node.settings.keepalive_requests);
    let drain = worker.node.drain.clone();
    let mut draining = Box::pin(drain.reached(Stage::Draining));
    let (mut leaving, mut served) = (false, 0);
    loop {
        let next = poll_fn(|context| {
            watch.begin_turn();
            if !leaving && draining.as_mut().poll(context).is_ready() {
                leaving = true;
                connection.graceful_shutdown();
            }
            let polled = connection.poll_accept(context);
            watch.budgets.take_faults(|label| worker.metrics.refuse(label));
            match watch.budgets.excess() {
                Some(excess) => Poll::Ready(Err(excess)),
                None => polled.map(Ok),
            }
        });
        match shared.deadline.guard(next).await {
            Ok(Ok(None)) => return End::Done,
            Ok(Ok(Some(Err(error)))) => return ended_by(&error, worker),
            Ok(Err(excess)) => return End::Cut { reason: Reason::ENHANCE_YOUR_CALM, label: excess.label() },
            Ok(Ok(Some(Ok((request, response))))) => {
                served += 1;
                let over_age = shared.age.is_over(worker);
                if ((most > 0 && served == most) || over_age) && !leaving {
                    if over_age {
                        worker.metrics.count(Counter::ConnectionsAged);
                    }
                    leaving = true;
                    connection.graceful_shutdown();
                }
                start(shared, request, response, served - 1);
            }
            Err(_) if watch.stuck_ms() >= limits.send_timeout_ms => {
                return End::Cut { reason: Reason::NO_ERROR, label: "http2_slow_read" };
            }
            Err(_) if shared.open.get() > 0 => shared.look_later(),
            Err(_) if shared.idle.get() => return End::Idle,
            Err(_) => shared.rest(),
        }
    }
}

/// The h2 crate has said goodbye already; what is left is to count.
fn ended_by(error: &h2::Error, worker: &Worker) -> End {
    if error.is_library() {
        worker.metrics.refuse(match error.reason() {
            Some(Reason::ENHANCE_YOUR_CALM) => "http2_calm_down",
            Some(Reason::FLOW_CONTROL_ERROR) => "http2_flow_control",
            Some(Reason::COMPRESSION_ERROR) => "http2_compression",
            Some(Reason::FRAME_SIZE_ERROR) => "http2_frame_size",
            _ => "http2_protocol",
        });
    }
    if error.is_library() { End::Refused } else { End::Done }
}

/// Serve one request in a task of its own, unless too many are under way.
fn start(shared: &Rc<Shared>, request: Request<RecvStream>, mut response: SendResponse<bytes::Bytes>, served: u32) {
    if shared.open.get() >= shared.worker.node.settings.limits.http2_streams as usize {
        // The protocol counts a stream out when it is reset, we when its work is done.
        response.send_reset(Reason::REFUSED_STREAM);
        return;
    }
    let open = Open::new(shared.clone());
    tokio::task::spawn_local(async move {
        let shared = &open.shared;
        let mut session = shared.worker.session(&shared.arrival);
        serve_request(shared, &mut session, request, response, served).await;
        shared.worker.give_back(session);
    });
}

/// Counts a request among those under way while it exists.
struct Open {
    shared: Rc<Shared>,
}

impl Open {
    fn new(shared: Rc<Shared>) -> Self {
        if shared.open.replace(shared.open.get() + 1) == 0 {
            shared.look_later();
        }
        Self { shared }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.open.set(self.shared.open.get() - 1);
        if self.shared.open.get() == 0 {
            self.shared.rest();
        }
    }
}

impl Shared {
    /// Nothing is under way: from now the connection is idle, once the client has taken what there was for it.
    fn rest(&self) {
        if self.watch.is_stuck() {
            return self.look_later();
        }
        self.idle.set(true);
        self.deadline.arm_idle(self.worker.node.settings.limits.keepalive_timeout_ms);
    }

    /// Look again in a while whether the client takes what there is for it.
    fn look_later(&self) {
        self.idle.set(false);
        self.deadline.arm(LOOK_MS.min(self.worker.node.settings.limits.send_timeout_ms));
    }
}

async fn serve_request(
    shared: &Shared,
    session: &mut Session,
    request: Request<RecvStream>,
    response: SendResponse<bytes::Bytes>,
    served: u32,
) {
    let worker = &shared.worker;
    let (parts, body) = request.into_parts();
    session.begin();
    session.times.started = worker.now_us();
    let received = fill_head(worker, session, &parts, body.is_end_stream());
    session.call = Call::of(&session.exchange.request.headers, session.times.started);
    let stream = Http2Stream::accepted(body, response);
    let deadline = worker.deadlines.register();
    let plan = worker.plan();
    let client = Channel::Http2(&stream);
    let mut connection = Connection { worker, client, deadline: &deadline, session, served, age: shared.age };
    let received = received.and_then(|()| head::accept(&mut connection));
    if received.is_ok() {
        take_what_is_there(&mut connection, &stream).await;
    }
    let due = connection.session.call.and_then(|call| call.left_us(connection.session.times.started));
    let ending = {
        let work = async {
            match received {
                Ok(()) => request::exchange(&mut connection, &plan).await,
                Err(error) => request::refuse(&mut connection, &plan, error).await,
            }
        };
        until_over(work, &stream, due.map(|left_us| (worker.deadlines.register(), left_us))).await
    };
    match ending {
        Ending::Finished(After::Abort) => stream.reset(Reason::INTERNAL_ERROR),
        // The rest of a request that has been answered is not wanted (RFC 9113 section 8.1).
        Ending::Finished(_) => stream.reset(Reason::NO_ERROR),
        // What was under way has ended with the work.
        Ending::Abandoned => {
            if stream.is_unanswered() {
                connection.session.exchange.response.status = 499;
            }
            finish(&connection, &plan, ProxyError::ClientGone);
        }
        Ending::Late if stream.is_unanswered() => {
            let ended = reply::send(&mut connection, &plan, Local::Error(ProxyError::Deadline)).await;
            record::finish(&connection, &plan, &ended);
            stream.reset(Reason::NO_ERROR);
        }
        Ending::Late => {
            finish(&connection, &plan, ProxyError::Deadline);
            stream.reset(Reason::CANCEL);
        }
    }
}

/// How the work for a request ended.
enum Ending {
    Finished(After),
    /// The client gave the request up, or is gone.
    Abandoned,
    /// The call's deadline passed.
    Late,
}

/// Do `work` until it is done, the client gives `stream` up, or the time it gave is over.
async fn until_over(work: impl Future<Output = After>, stream: &Http2Stream, due: Option<(Deadline, u64)>) -> Ending {
    let mut work = std::pin::pin!(work);
    let done = poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(after) => Poll::Ready(Ending::Finished(after)),
        Poll::Pending => stream.poll_abandoned(context).map(|()| Ending::Abandoned),
    });
    match due {
        None => done.await,
        Some((deadline, left_us)) => {
            deadline.arm(left_us / 1000);
            deadline.guard(done).await.unwrap_or(Ending::Late)
        }
    }
}

/// Close the books on a request whose work was cut short.
fn finish(connection: &Connection<'_>, plan: &WorkerPlan, error: ProxyError) {
    let sent_bytes = connection.session.download.sent_bytes;
    record::finish(connection, plan, &Ended { after: After::Abort, error: Some(error), sent_bytes });
}

/// Read the head as if it had come in lines.
fn fill_head(
    worker: &Worker,
    session: &mut Session,
    parts: &http::request::Parts,
    ended: bool,
) -> Result<(), ProxyError> {
    let limits = &worker.node.settings.limits.head;
    let message = MessageParts {
        method: parts.method.as_str(),
        authority: parts.uri.authority().map(http::uri::Authority::as_str),
        path: parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str),
        ended,
    };
    let fields = message_fields(&parts.headers);
    session.received_bytes =
        fields.map(|(name, value)| name.len() + value.len() + 4).sum::<usize>() as u64 + message.path.len() as u64;
    let fields = message_fields(&parts.headers);
    read_request_head(message, fields, limits, &mut session.exchange.request).map_err(ProxyError::Head)
}

/// A short body has usually come with its head: with all of it at hand the request can be sent in one piece, and
/// again.
async fn take_what_is_there(connection: &mut Connection<'_>, stream: &Http2Stream) {
    let upload = &mut connection.session.upload;
    if !stream.is_ended() {
        poll_fn(|context| {
            upload.take_ready(stream, context, BUFFER_BYTES);
            Poll::Ready(())
        })
        .await;
    }
}
