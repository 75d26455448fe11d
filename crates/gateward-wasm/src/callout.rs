//! Requests that filters send, and what comes back. This crate queues and checks them; the gateway carries them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// Identifies a callout within one instance.
pub type Token = u32;

/// Fields in order, names in small letters.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Something a filter wants sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callout {
    /// What the filter knows it by.
    pub token: Token,
    /// The context that asked for it: the instance's own, or a stream's.
    pub context: u32,
    /// What it is.
    pub kind: CalloutKind,
}

/// Kinds of callouts, and what can be done to one under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalloutKind {
    /// A request over HTTP.
    Http(HttpCall),
    /// A call over gRPC: one message there, one back, or a stream of messages.
    Grpc(GrpcCall),
    /// A message on a gRPC stream; `end`: the last one.
    GrpcSend {
        /// The message, unframed.
        message: Vec<u8>,
        /// Whether the filter's side of the stream ends.
        end: bool,
    },
    /// The filter's side of a gRPC stream ends.
    GrpcClose,
    /// Nothing is wanted of it any more.
    Cancel,
}

/// A request over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCall {
    /// Name of an upstream or service, or `host[:port]`.
    pub upstream: String,
    /// With `:method`, `:path` and `:authority`.
    pub headers: Fields,
    /// Content.
    pub body: Vec<u8>,
    /// Fields after the content.
    pub trailers: Fields,
    /// For the whole exchange.
    pub timeout: Duration,
}

/// A call over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcCall {
    /// Name of an upstream or service, or `host[:port]`.
    pub upstream: String,
    /// `:authority` to send; `None`: the callee's own name.
    pub authority: Option<String>,
    /// Full name of the service.
    pub service: String,
    /// Name of the method.
    pub method: String,
    /// Metadata to send first.
    pub metadata: Fields,
    /// The one message of a unary call; `None` opens a stream.
    pub message: Option<Vec<u8>>,
    /// For the whole call; a stream has none.
    pub timeout: Option<Duration>,
}

/// The answer to an [`HttpCall`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpReply {
    /// With `:status`; empty when the call failed.
    pub headers: Fields,
    /// Content.
    pub body: Vec<u8>,
    /// Fields after the content.
    pub trailers: Fields,
    /// What `proxy_get_status` says.
    pub status: CalloutStatus,
}

impl HttpReply {
    /// What a filter gets for a call that failed or took too long: no headers, and why.
    pub fn failure(reason: impl Into<String>) -> Self {
        Self { status: CalloutStatus::new(CalloutStatus::UNAVAILABLE, reason), ..Self::default() }
    }

    /// Likewise for one that took longer than `timeout`.
    pub fn timed_out(timeout: Duration) -> Self {
        Self { status: CalloutStatus::timed_out(timeout), ..Self::default() }
    }
}

/// A code and a text: of gRPC, or why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CalloutStatus {
    /// gRPC status code, or 0.
    pub code: u32,
    /// For people.
    pub message: String,
}

impl CalloutStatus {
    /// The call went well.
    pub const OK: u32 = 0;
    /// No answer in time.
    pub const DEADLINE_EXCEEDED: u32 = 4;
    /// More than is taken.
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    /// The peer does not keep to the protocol.
    pub const INTERNAL: u32 = 13;
    /// The callee cannot be reached.
    pub const UNAVAILABLE: u32 = 14;

    /// With this code and text.
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A call that took longer than `timeout`.
    pub fn timed_out(timeout: Duration) -> Self {
        Self::new(Self::DEADLINE_EXCEEDED, format!("no answer within {} ms", timeout.as_millis()))
    }
}

/// Bytes of messages that wait for the peer of one gRPC call to take them.
pub const UNSENT_BYTES: usize = 16 << 20;
/// What a waiting message costs besides its content.
const MESSAGE_BYTES: usize = 64;

/// A filter's messages on their way to the peer of a gRPC call, unframed. They end when the filter's side does.
#[derive(Debug)]
pub struct Messages {
    receiver: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

/// Where a filter's messages go in. Dropped when the filter's side ends.
#[derive(Debug)]
pub struct MessageSender {
    sender: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

impl Messages {
    /// Both ends.
    pub fn channel() -> (MessageSender, Self) {
        // Bounded by bytes: see `send`.
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::<AtomicUsize>::default();
        (MessageSender { sender, waiting: waiting.clone() }, Self { receiver, waiting })
    }

    /// The next message, when there is one; `None`: the filter's side has ended.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        let next = self.receiver.poll_recv(context);
        if let Poll::Ready(Some(message)) = &next {
            self.waiting.fetch_sub(message.len() + MESSAGE_BYTES, Ordering::Relaxed);
        }
        next
    }
}

impl MessageSender {
    /// Send a message; `false`: more than [`UNSENT_BYTES`] wait already. What goes to a call that has ended is dropped.
    pub fn send(&self, message: Vec<u8>) -> bool {
        let cost = message.len() + MESSAGE_BYTES;
        let before = self.waiting.fetch_add(cost, Ordering::Relaxed);
        if before > 0 && before + cost > UNSENT_BYTES {
            return false;
        }
        let _ = self.sender.send(message);
        true
    }
}

/// Something that happened to a callout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalloutEvent {
    /// The answer over HTTP.
    Http(HttpReply),
    /// Anything of a gRPC call.
    Grpc(GrpcEvent),
}

/// Something that happened to a [`GrpcCall`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrpcEvent {
    /// The peer's first metadata.
    Initial(Fields),
    /// A message, unframed.
    Message(Vec<u8>),
    /// The peer's last metadata.
    Trailing(Fields),
    /// The end of the call.
    Close(CalloutStatus),
}

/// Which upstreams a filter may call.
pub trait Upstreams: Send + Sync + 'static {
    /// Whether a callout to `upstream` can be carried.
    fn knows(&self, upstream: &str) -> bool;
}

/// No upstream at all.
#[derive(Debug, Default)]
pub struct NoUpstreams;

impl Upstreams for NoUpstreams {
    fn knows(&self, _upstream: &str) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn messages_wait_within_a_limit() {
        let mut context = Context::from_waker(Waker::noop());
        let (sender, mut messages) = Messages::channel();
        assert!(messages.poll_next(&mut context).is_pending());
        assert!(sender.send(vec![1; UNSENT_BYTES + 1]), "one message alone is always taken");
        assert!(!sender.send(Vec::new()));
        assert!(matches!(messages.poll_next(&mut context), Poll::Ready(Some(message)) if message.len() > UNSENT_BYTES));
        let (sender, mut messages) = Messages::channel();
        for taken in [true, true, true, false] {
            assert_eq!(sender.send(vec![1; UNSENT_BYTES / 4]), taken);
        }
        drop(sender);
        for _ in 0..3 {
            assert!(matches!(messages.poll_next(&mut context), Poll::Ready(Some(_))));
        }
        assert!(matches!(messages.poll_next(&mut context), Poll::Ready(None)));
    }
}
