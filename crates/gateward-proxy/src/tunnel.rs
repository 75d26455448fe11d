//! The tunnel that two connections become: those of a stream, and those of a request once the upstream has agreed to
//! another protocol with 101 (`upgrade`).
//!
//! Each direction has one buffer, which is written before more is read, and which it has only while there
//! are bytes. An end is passed on, and the other direction goes on. The service's `read_timeout` limits silence in both
//! directions together, as it does in nginx. WebSocket frames are followed as they pass, so that a shutdown can say
//! goodbye between two of them (RFC 6455 section 7.4.1, 1001).

use crate::body::{Buffer, STREAM_BYTES};
use crate::channel::Channel;
use crate::client::Connection;
use crate::error::ProxyError;
use crate::outcome::{After, Ended};
use crate::upgrade::WEBSOCKET;
use crate::upstream::Answered;
use crate::worker::Worker;
use gateward_http::HeadError;
use gateward_http::websocket::{FrameFollower, GOING_AWAY};
use gateward_net::{Deadline, Drain, Stage, Stream};
use gateward_telemetry::Gauge;
use std::cell::Cell;
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::rc::Rc;

/// Milliseconds for the two ends of a WebSocket to part after the gateway said goodbye.
const GOODBYE_MS: u64 = 5_000;
/// Silence after which a WebSocket is over of which one end has closed; milliseconds. It has no half-closed state.
const HALF_CLOSED_MS: u64 = 5_000;

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client closed first.
    Client,
    /// The upstream closed first.
    Upstream,
    /// Nobody said anything for too long.
    Idle,
    /// One end took nothing for too long.
    Stuck,
    /// The client's connection failed.
    ClientReset,
    /// The upstream's connection failed.
    UpstreamReset,
    /// The node is closing, and said so.
    Drain,
    /// The time of a shutdown was over.
    Cut,
}

impl End {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Idle => "idle",
            Self::Stuck => "stuck",
            Self::ClientReset => "client_reset",
            Self::UpstreamReset => "upstream_reset",
            Self::Drain => "drain",
            Self::Cut => "cut",
        }
    }
}

/// What became of one direction.
enum Over {
    /// Its sender closed; the receiver was told.
    Closed,
    /// The gateway has said goodbye to the client.
    Goodbye,
}

/// A tunnel while it is open.
struct Tunnel<'a> {
    client: &'a Stream,
    upstream: &'a Stream,
    drain: &'a Drain,
    websocket: bool,
    abrupt_ends: bool,
    idle_ms: u64,
    /// When bytes last moved, on the deadlines' clock.
    moved_ms: Cell<u64>,
    half_closed: Cell<bool>,
    /// The client has said goodbye.
    client_closing: Cell<bool>,
    /// The gateway has.
    leaving: Cell<bool>,
}

/// One direction of it.
struct Direction<'a> {
    from: &'a Stream,
    to: &'a Stream,
    deadline: &'a Deadline,
    write_ms: u64,
    /// What came early.
    input: Cell<Buffer>,
    bytes: &'a Cell<u64>,
    from_client: bool,
    /// It waits for bytes, by the deadline that a half-closed tunnel shortens.
    reading: Cell<bool>,
}

/// Counts a tunnel while it is open, however it ends.
struct Open(Rc<Worker>);

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.metrics.gauge_add(Gauge::TunnelsActive, 1);
        Self(worker.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.gauge_add(Gauge::TunnelsActive, -1);
    }
}

/// Send the head of the 101, which is written already, and be a tunnel until one of its ends is gone.
pub(crate) async fn run(connection: &mut Connection<'_>, answered: Box<Answered>) -> Ended {
    let limits = connection.worker.node.settings.limits;
    let Connection { worker, client, deadline, session, .. } = connection;
    // HTTP/2 has no upgrades: a request that came that way has asked for none.
    let (Channel::Http1(client), Channel::Http1(upstream)) = (*client, answered.link.channel()) else {
        return Ended {
            after: After::Abort,
            error: Some(ProxyError::UpstreamHead(HeadError::StatusLine)),
            sent_bytes: 0,
        };
    };
    let flushed = session.download.flush(&**client, &session.deadline, limits.send_timeout_ms).await;
    if flushed.is_err() {
        let sent_bytes = session.download.sent_bytes;
        return Ended { after: After::Abort, error: Some(ProxyError::ClientGone), sent_bytes };
    }
    let open = Open::new(worker);
    let ends = Ends {
        client,
        upstream,
        deadlines: (deadline, &session.deadline),
        input: (std::mem::take(&mut session.upload.input), std::mem::take(&mut session.download.input)),
        idle_ms: answered.read_ms,
        write_ms: (answered.write_ms, limits.send_timeout_ms),
        websocket: session.upgrade.as_deref().is_some_and(|protocol| protocol.eq_ignore_ascii_case(WEBSOCKET)),
        abrupt_ends: false,
    };
    let Joined { end, up_bytes, down_bytes } = join(worker, ends).await;
    drop(open);
    worker.metrics.tunnel_ended(end.label());
    session.upload.body_bytes += up_bytes;
    let error = match end {
        End::ClientReset => Some(ProxyError::ClientGone),
        End::UpstreamReset => Some(ProxyError::UpstreamClosed),
        _ => None,
    };
    Ended { after: After::Abort, error, sent_bytes: session.download.sent_bytes + down_bytes }
}

/// What becomes a tunnel.
pub(crate) struct Ends<'a> {
    pub(crate) client: &'a Stream,
    pub(crate) upstream: &'a Stream,
    /// Of the direction from the client, and of the other.
    pub(crate) deadlines: (&'a Deadline, &'a Deadline),
    /// What came early, likewise.
    pub(crate) input: (Buffer, Buffer),
    /// Milliseconds both directions may be silent.
    pub(crate) idle_ms: u64,
    /// Milliseconds an end may take nothing, likewise.
    pub(crate) write_ms: (u64, u64),
    pub(crate) websocket: bool,
    /// TLS that ends without its close_notify has ended, as for nginx: what it carries knows where its messages end.
    pub(crate) abrupt_ends: bool,
}

/// What a tunnel came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Joined {
    pub(crate) end: End,
    /// Bytes from the client to the upstream, and back.
    pub(crate) up_bytes: u64,
    pub(crate) down_bytes: u64,
}

/// Be a tunnel until one of its ends is gone, or the worker's time is over.
pub(crate) async fn join(worker: &Worker, ends: Ends<'_>) -> Joined {
    let Ends { client, upstream, deadlines, input, idle_ms, write_ms, websocket, abrupt_ends } = ends;
    let (sent, received) = (Cell::new(0), Cell::new(0));
    let tunnel = Tunnel {
        client,
        upstream,
        drain: &worker.node.drain,
        websocket,
        abrupt_ends,
        idle_ms,
        moved_ms: Cell::new(deadlines.0.now_ms()),
        half_closed: Cell::new(false),
        client_closing: Cell::new(false),
        leaving: Cell::new(false),
    };
    let up = Direction {
        from: client,
        to: upstream,
        deadline: deadlines.0,
        write_ms: write_ms.0,
        input: Cell::new(input.0),
        bytes: &received,
        from_client: true,
        reading: Cell::new(false),
    };
    let down = Direction {
        from: upstream,
        to: client,
        deadline: deadlines.1,
        write_ms: write_ms.1,
        input: Cell::new(input.1),
        bytes: &sent,
        from_client: false,
        reading: Cell::new(false),
    };
    let end = tokio::select! {
        biased;
        () = worker.cut.notified() => End::Cut,
        end = tunnel.run(&up, &down) => end,
    };
    if matches!(end, End::UpstreamReset | End::Stuck | End::Cut) {
        // An orderly end would say that nothing is missing.
        client.reset_on_close();
    }
    if matches!(end, End::ClientReset | End::Stuck | End::Cut) {
        upstream.reset_on_close();
    }
    Joined { end, up_bytes: received.get(), down_bytes: sent.get() }
}

impl Tunnel<'_> {
    /// Move bytes both ways until the tunnel ends.
    async fn run(&self, up: &Direction<'_>, down: &Direction<'_>) -> End {
        let mut upload = pin!(self.forward(up));
        let mut download = pin!(self.forward(down));
        let outcome = tokio::select! {
            biased;
            uploaded = &mut upload => match uploaded {
                Ok(_) => {
                    self.half_close(down);
                    download.await.map(|_| End::Client)
                }
                Err(end) => Err(end),
            },
            downloaded = &mut download => match downloaded {
                Ok(Over::Closed) => {
                    self.half_close(up);
                    upload.await.map(|_| End::Upstream)
                }
                Ok(Over::Goodbye) => return self.part(upload, down).await,
                Err(end) => Err(end),
            },
        };
        outcome.unwrap_or_else(|end| end)
    }

    /// One end has closed. The `other` direction may be waiting by the longer measure: let it look again.
    fn half_close(&self, other: &Direction<'_>) {
        self.half_closed.set(true);
        if other.reading.get() {
            other.deadline.arm(0);
        }
    }

    /// The gateway has said goodbye: let the client's own pass, then the upstream close.
    async fn part(&self, upload: Pin<&mut impl Future<Output = Result<Over, End>>>, down: &Direction<'_>) -> End {
        down.deadline.arm(GOODBYE_MS);
        let _ = down
            .deadline
            .guard(async {
                if upload.await.is_err() || self.client.finish().is_err() || self.upstream.finish().is_err() {
                    return;
                }
                // What it still says could not be passed on after a Close frame.
                let mut input = Buffer::default();
                while self.upstream.read(input.space(STREAM_BYTES)).await.is_ok_and(|count| count > 0) {}
            })
            .await;
        End::Drain
    }

    /// Move bytes one way until the sender closes or the gateway says goodbye.
    async fn forward(&self, direction: &Direction<'_>) -> Result<Over, End> {
        let mut input = direction.input.take();
        let mut frames = FrameFollower::default();
        let mut closing = pin!(self.drain.reached(Stage::Closing));
        let mut leave = false;
        loop {
            let count = if leave { frames.advance_to_boundary(input.filled()) } else { input.len() };
            if self.websocket && !leave {
                frames.advance(input.filled());
            }
            self.write(direction, &mut input, count).await?;
            if direction.from_client {
                self.client_closing.set(frames.is_closing());
                if self.leaving.get() && frames.is_closing() && frames.is_boundary() {
                    return Ok(Over::Closed);
                }
            } else if leave && frames.is_boundary() && !frames.is_closing() && !self.client_closing.get() {
                return self.say_goodbye(direction, &mut input).await;
            } else if leave && !input.is_empty() {
                continue;
            }
            input.rest();
            let may_leave = self.websocket && !direction.from_client && !leave;
            let count = tokio::select! {
                biased;
                () = &mut closing, if may_leave => {
                    leave = true;
                    continue;
                }
                count = self.read(direction, &mut input) => count?,
            };
            if count == 0 {
                // The receiver may be gone already; its own direction tells.
                let _ = direction.to.finish();
                return Ok(Over::Closed);
            }
        }
    }

    /// Write the first `count` bytes of `input`.
    async fn write(&self, direction: &Direction<'_>, input: &mut Buffer, count: usize) -> Result<(), End> {
        let mut left = count;
        while left > 0 {
            direction.deadline.arm(direction.write_ms);
            let written = match direction.deadline.guard(direction.to.write(&input.filled()[..left])).await {
                Ok(Ok(written)) if written > 0 => written,
                Ok(_) => return Err(if direction.from_client { End::UpstreamReset } else { End::ClientReset }),
                Err(_) => return Err(End::Stuck),
            };
            input.consume(written);
            left -= written;
            direction.bytes.set(direction.bytes.get() + written as u64);
            self.moved_ms.set(direction.deadline.now_ms());
        }
        Ok(())
    }

    /// Read into `input`, which is empty, unless both directions are silent for too long. 0: the sender closed.
    async fn read(&self, direction: &Direction<'_>, input: &mut Buffer) -> Result<usize, End> {
        loop {
            let most_ms = self.patience_ms();
            let silent_ms = direction.deadline.now_ms().saturating_sub(self.moved_ms.get());
            direction.deadline.arm(most_ms.saturating_sub(silent_ms));
            direction.reading.set(true);
            let received = direction.deadline.guard(async {
                direction.from.readable().await?;
                let space = input.space(STREAM_BYTES);
                let room = space.len();
                direction.from.read(space).await.map(|count| (count, count == room))
            });
            let received = received.await;
            direction.reading.set(false);
            match received {
                Ok(Ok((count, all))) => {
                    input.fill(count);
                    if all {
                        input.widen(STREAM_BYTES);
                    }
                    self.moved_ms.set(direction.deadline.now_ms());
                    return Ok(count);
                }
                Ok(Err(error)) if self.abrupt_ends && error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Ok(Err(_)) => return Err(if direction.from_client { End::ClientReset } else { End::UpstreamReset }),
                Err(_) => {
                    let silent_ms = direction.deadline.now_ms().saturating_sub(self.moved_ms.get());
                    if silent_ms >= self.patience_ms() {
                        return Err(End::Idle);
                    }
                }
            }
        }
    }

    /// How long both directions may be silent; milliseconds.
    fn patience_ms(&self) -> u64 {
        if self.half_closed.get() && self.websocket { self.idle_ms.min(HALF_CLOSED_MS) } else { self.idle_ms }
    }

    /// Tell the client that the node goes away; what the upstream sends from now on has nowhere to go.
    async fn say_goodbye(&self, direction: &Direction<'_>, input: &mut Buffer) -> Result<Over, End> {
        self.leaving.set(true);
        let written = direction.deadline.write_all(direction.to, &GOING_AWAY, GOODBYE_MS).await;
        input.reset();
        direction.bytes.set(direction.bytes.get() + GOING_AWAY.len() as u64);
        written.map(|()| Over::Goodbye).map_err(|_| End::ClientReset)
    }
}
