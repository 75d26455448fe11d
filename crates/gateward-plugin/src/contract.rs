//! What a plugin is: phases it takes part in, what it may answer, and how it is made from configuration.

use crate::{Admission, BuildContext, Exchange, Handshake, Preread, RequestRecord, StreamExchange, StreamRecord};
use gateward_model::schema::Schema;
use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// One configured plugin instance. Methods are called on the worker's thread and must not block it.
///
/// Phases run in the order of the fields of [`Phases`]. A phase a plugin does not name in [`Needs::phases`] is
/// never called. A panic in any method ends the request with a 500 and is counted; the worker goes on.
pub trait Plugin: Send + Sync + 'static {
    /// Which phases to call and which bodies to buffer.
    fn needs(&self) -> Needs;

    /// While a client's TLS handshake is under way and its server name is known; only for instances without a scope
    /// (global), as in Kong. All are asked, until one refuses. The handshake's time-out goes on meanwhile.
    fn certificate<'a>(&'a self, handshake: &'a mut Handshake) -> Soon<'a, Admission> {
        let _ = handshake;
        Soon::Now(Admission::Next)
    }

    /// Before anything else; only for instances without a scope (global), as in Kong.
    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let _ = exchange;
        Step::Next
    }

    /// After the route is known and before the upstream is dialled.
    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let _ = exchange;
        Step::Next
    }

    /// With the request's head, once every `access` phase let it pass and before the upstream is asked. `end`: no body
    /// follows. Plugins are asked in order, each when the one before let the head go on.
    fn request_head(&self, exchange: &mut Exchange, end: bool) -> Flow {
        let _ = (exchange, end);
        Flow::Next
    }

    /// For every piece of the request's body, as it comes and as the plugin before left it, when
    /// [`Phases::request_piece`] is set; what is left in `piece` goes on. `last` on the final, possibly empty, piece, when
    /// `exchange.request_trailers` are there. A plugin that holds takes what it wants to keep out of `piece`, and may keep
    /// up to `exchange.held_body_max` bytes. One that held the head lets it go on with [`Flow::Next`].
    fn request_piece(&self, exchange: &mut Exchange, piece: &mut Vec<u8>, last: bool) -> Flow {
        let _ = (exchange, piece, last);
        Flow::Next
    }

    /// Whether a request that the plugin holds goes on, with what it puts into `piece`. Asked after it began to hold and
    /// whenever the waker of `context` was woken; pieces that come meanwhile are shown as ever.
    fn poll_request(&self, exchange: &mut Exchange, piece: &mut Vec<u8>, context: &mut Context<'_>) -> Poll<Flow> {
        let _ = (exchange, piece, context);
        Poll::Ready(Flow::Next)
    }

    /// With the whole upstream response in hand (`exchange.response.body` is `Some`), when
    /// [`Needs::response_body`] is set.
    fn response<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let _ = exchange;
        Step::Next
    }

    /// With the upstream's response head in hand, before any [`Plugin::header_filter`]. It may wait, and answer instead.
    fn response_head<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let _ = exchange;
        Step::Next
    }

    /// Before the response head is sent, whoever made the response. Again when another plugin answers after it in the
    /// upstream's place, in `response_piece` or `poll_response`.
    fn header_filter(&self, exchange: &mut Exchange) {
        let _ = exchange;
    }

    /// For every piece of the response body; `last` on the final, possibly empty, piece.
    fn body_filter(&self, exchange: &mut Exchange, chunk: &mut Vec<u8>, last: bool) {
        let _ = (exchange, chunk, last);
    }

    /// Likewise for plugins that may hold the body; called in its place.
    fn response_piece(&self, exchange: &mut Exchange, piece: &mut Vec<u8>, last: bool) -> Flow {
        self.body_filter(exchange, piece, last);
        Flow::Next
    }

    /// Whether a response body that the plugin holds goes on; as [`Plugin::poll_request`].
    fn poll_response(&self, exchange: &mut Exchange, piece: &mut Vec<u8>, context: &mut Context<'_>) -> Poll<Flow> {
        let _ = (exchange, piece, context);
        Poll::Ready(Flow::Next)
    }

    /// After the exchange ended, on every path.
    fn log(&self, record: &RequestRecord<'_>) {
        let _ = record;
    }

    /// For a stream, after its route is known and before its upstream is dialled. All plugins of the route are asked,
    /// in their order; the first to close it decides. A panic closes it, too.
    fn preread<'a>(&'a self, stream: &'a mut StreamExchange) -> Soon<'a, Preread> {
        let _ = stream;
        Soon::Now(Preread::Next)
    }

    /// After a stream ended, on every path.
    fn log_stream(&self, record: &StreamRecord<'_>) {
        let _ = record;
    }
}

/// What a phase asks for next.
pub enum Step<'a> {
    /// Go on.
    Next,
    /// Answer this instead of proxying. Later plugins' access phases are skipped.
    Respond(LocalResponse),
    /// Wait for I/O; the worker serves other connections meanwhile.
    Wait(Pin<Box<dyn Future<Output = Outcome> + 'a>>),
    /// Go on when the request body was received: for a plugin that learns only now that it needs it.
    Body(AfterBody),
}

/// Something a plugin says: at once, or when it has waited for I/O; the worker serves others meanwhile.
pub enum Soon<'a, T> {
    /// At once.
    Now(T),
    /// Later.
    Later(Pin<Box<dyn Future<Output = T> + 'a>>),
}

/// How a plugin goes on with the request body in hand.
pub struct AfterBody(Box<Resume>);

type Resume = dyn for<'e> FnOnce(&'e mut Exchange, BodyRead) -> Step<'e>;

/// What came of receiving the request body for a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRead {
    /// It is in `exchange.body`; that is `None` still for a request without one.
    Whole,
    /// It is longer than the gateway holds for plugins. It goes upstream as it comes and must not be replaced.
    TooLong,
}

impl AfterBody {
    /// Go on with `resume`.
    pub fn new(resume: impl for<'e> FnOnce(&'e mut Exchange, BodyRead) -> Step<'e> + 'static) -> Self {
        Self(Box::new(resume))
    }

    /// The body was received, or not.
    pub fn resume(self, exchange: &mut Exchange, read: BodyRead) -> Step<'_> {
        (self.0)(exchange, read)
    }
}

impl std::fmt::Debug for AfterBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AfterBody")
    }
}

/// What becomes of a message while it passes a plugin.
#[derive(Debug)]
pub enum Flow {
    /// It goes on.
    Next,
    /// It waits, until the plugin is polled to its end or lets a later piece go on.
    Hold,
    /// Answer this instead. Once the response's head is sent the exchange is broken off.
    Respond(LocalResponse),
    /// Break the exchange off: the client gets a reset in place of an answer, or of the rest of one.
    Reset,
}

/// What a suspended phase came to.
#[derive(Debug)]
pub enum Outcome {
    /// Go on.
    Next,
    /// Answer this instead of proxying.
    Respond(LocalResponse),
    /// Go on when the request body was received.
    Body(AfterBody),
}

impl From<Outcome> for Step<'_> {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Next => Self::Next,
            Outcome::Respond(response) => Self::Respond(response),
            Outcome::Body(after) => Self::Body(after),
        }
    }
}

/// A response made by the gateway or a plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalResponse {
    /// Status code.
    pub status: u16,
    /// Extra fields.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// The content.
    pub body: LocalBody,
}

/// Content of a [`LocalResponse`].
#[derive(Debug, Clone, PartialEq)]
pub enum LocalBody {
    /// No content, `Content-Length: 0`.
    Empty,
    /// A message, rendered with the request id as JSON, HTML, XML or plain text by the request's `Accept`
    /// (Kong's `kong.response.error`).
    Message(Cow<'static, str>),
    /// These bytes with this `Content-Type`; empty: none.
    Bytes(String, Vec<u8>),
}

impl LocalResponse {
    /// A status with a message rendered by `Accept`.
    pub fn message(status: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, headers: Vec::new(), body: LocalBody::Message(message.into()) }
    }

    /// A status without content.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: LocalBody::Empty }
    }

    /// With one more field.
    #[must_use]
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// The phases a plugin takes part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "Kong's phase names, beside those of streams and connections")]
pub struct Phases {
    pub rewrite: bool,
    pub access: bool,
    pub request_head: bool,
    pub request_piece: bool,
    pub response: bool,
    pub response_head: bool,
    pub header_filter: bool,
    pub body_filter: bool,
    pub log: bool,
    pub preread: bool,
    pub log_stream: bool,
    pub certificate: bool,
}

impl Phases {
    /// Whether the plugin sees requests on their way to the upstream.
    pub fn screens_request(self) -> bool {
        self.request_head || self.request_piece
    }

    /// Whether the plugin acts on streams.
    pub fn of_streams(self) -> bool {
        self.preread || self.log_stream
    }

    /// The phases that either takes part in.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            rewrite: self.rewrite | other.rewrite,
            access: self.access | other.access,
            request_head: self.request_head | other.request_head,
            request_piece: self.request_piece | other.request_piece,
            response: self.response | other.response,
            response_head: self.response_head | other.response_head,
            header_filter: self.header_filter | other.header_filter,
            body_filter: self.body_filter | other.body_filter,
            log: self.log | other.log,
            preread: self.preread | other.preread,
            log_stream: self.log_stream | other.log_stream,
            certificate: self.certificate | other.certificate,
        }
    }
}

/// What the data plane must do for a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Methods to call.
    pub phases: Phases,
    /// Buffer the request body (up to the gateway's limit, beyond: 413) before `access`, into `exchange.body`.
    pub request_body: bool,
    /// Buffer the response body (up to the gateway's limit, beyond: streamed unchanged) before `response`.
    pub response_body: bool,
}

impl Needs {
    /// What must be done for two plugins.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            phases: self.phases.union(other.phases),
            request_body: self.request_body | other.request_body,
            response_body: self.response_body | other.response_body,
        }
    }
}

/// A kind of plugin: its name, place in the order, settings and constructor.
pub struct Definition {
    /// Kong's name.
    pub name: &'static str,
    /// Kong's PRIORITY; higher runs first.
    pub priority: i32,
    /// The `config` record.
    pub schema: fn() -> Schema,
    /// Scopes the plugin cannot be used with: error text for the user.
    pub check_scope: fn(&gateward_model::PluginConfig) -> Result<(), String>,
    /// Make an instance from a validated configuration with defaults filled.
    pub build: fn(&BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError>,
}

/// A configuration that passed its schema but cannot be made into an instance.
#[derive(Debug, thiserror::Error)]
#[error("plugin '{plugin}' ({id}): {reason}")]
pub struct BuildError {
    /// Plugin name.
    pub plugin: String,
    /// Entity id.
    pub id: gateward_model::EntityId,
    /// What is wrong and what to do.
    pub reason: String,
}
