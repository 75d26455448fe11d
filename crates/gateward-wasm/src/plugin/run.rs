//! A configured filter in the phases of an exchange.
//!
//! The filter's context lives from the request's head to log; what belongs to it is kept in the exchange. A filter that
//! fails, or has no instance because it failed before, follows its failure policy: the request goes on without it, or ends
//! with 503 (once the response is under way: is broken off). Either way the request ends.

use super::bodies::Side;
use super::pause::{self, Paused};
use super::view::{Reach, Stage, View};
use super::worker::{Running, Shared, Ticket, report};
use crate::failure::{Failure, FailurePolicy};
use crate::host::ContextId;
use crate::instance::{Instance, Signals};
use crate::stream::LocalReply;
use crate::types::{Action, Direction, FieldMap};
use gateward_http::Method;
use gateward_plugin::{
    Exchange, Flow, LocalBody, LocalResponse, Needs, Outcome, Phases, Plugin, RequestRecord, Source, Step,
};
use std::borrow::Cow;
use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

/// One configured filter.
pub(super) struct FilterPlugin {
    pub(super) shared: Arc<Shared>,
    /// Tells its entries in an exchange from those of other filters.
    id: u64,
    pub(super) request_body: bool,
    response_body: bool,
}

/// What an exchange keeps for its filters.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "an entry is taken out and put back at every phase; moving a box is cheaper")]
struct Streams {
    /// There is rarely more than one.
    first: Option<Box<Entry>>,
    others: Vec<Box<Entry>>,
}

/// One filter's part of an exchange.
pub(super) struct Entry {
    owner: u64,
    pub(super) ticket: Ticket,
    /// The path that the filter set.
    pub(super) path: Option<String>,
    request: Side,
    response: Side,
    head_seen: bool,
    /// The filter failed; it has no more part in this exchange.
    pub(super) failed: bool,
}

/// A part of an exchange that has just begun.
pub(super) struct Begun {
    pub(super) entry: Box<Entry>,
    pub(super) progress: Result<Progress, Failure>,
    pub(super) calls_out: bool,
}

/// What a phase came to.
pub(super) enum Progress {
    GoOn,
    Wait,
    Respond(Box<LocalReply>),
    Close,
}

impl FilterPlugin {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let exports = |name| shared.filter.exports(name);
        let request_body =
            shared.settings.request_body && (exports("proxy_on_request_body") || exports("proxy_on_request_trailers"));
        let response_body = exports("proxy_on_response_body") || exports("proxy_on_response_trailers");
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), request_body, response_body, shared }
    }

    pub(super) fn policy(&self) -> FailurePolicy {
        self.shared.filter.config().failure
    }

    pub(super) fn name(&self) -> &str {
        &self.shared.filter.config().name
    }

    /// A part of an exchange that begins.
    fn entry(&self, running: Arc<Running>, context: ContextId) -> Box<Entry> {
        Box::new(Entry {
            owner: self.id,
            ticket: Ticket { running, context, ended: Cell::new(false) },
            path: None,
            request: Side::default(),
            response: Side::default(),
            head_seen: false,
            failed: false,
        })
    }

    /// Begin a part of the exchange and show the request's head; what came of it, and whether callouts wait to be sent.
    /// `None`: there is no instance that works.
    pub(super) fn begin(&self, exchange: &mut Exchange, end: bool) -> Option<Begun> {
        // Outside of the instance's lock, which an entry takes when it is dropped: a panic would drop it under the lock.
        let mut begun = None;
        let (progress, calls_out) = self.shared.with(|running, instance| {
            let id = instance.open_stream();
            let entry = begun.insert(self.entry(running.clone(), id));
            let mut view = entry.view(Reach::Write(exchange), Stage::Request, None);
            let progress = instance
                .begin_stream(id, &mut view, end)
                .map(|action| weigh(action, instance.take_signals(id, Direction::Request), Direction::Request));
            (progress, instance.has_callouts())
        })?;
        begun.map(|entry| Begun { entry, progress, calls_out })
    }

    /// Its part of the exchange, taken out so that both can be changed; `None`: it has none, or failed.
    pub(super) fn take(&self, exchange: &mut Exchange) -> Option<Box<Entry>> {
        let streams = exchange.kept_mut::<Streams>()?;
        let own = |entry: &Entry| entry.owner == self.id && !entry.failed;
        if streams.first.as_deref().is_some_and(own) {
            return streams.first.take();
        }
        let place = streams.others.iter().position(|entry| own(entry))?;
        Some(streams.others.swap_remove(place))
    }

    /// Its part of the exchange, whether it failed or not.
    pub(super) fn entry_in<'e>(&self, exchange: &'e mut Exchange) -> Option<&'e mut Entry> {
        let streams = exchange.kept_mut::<Streams>()?;
        let mut entries = streams.first.iter_mut().chain(&mut streams.others);
        entries.find(|entry| entry.owner == self.id).map(|entry| &mut **entry)
    }

    pub(super) fn keep(exchange: &mut Exchange, entry: Box<Entry>) {
        match exchange.kept_mut::<Streams>() {
            Some(Streams { first: first @ None, .. }) => *first = Some(entry),
            Some(Streams { others, .. }) => others.push(entry),
            None => exchange.put(Streams { first: Some(entry), others: Vec::new() }),
        }
    }

    /// Likewise, and send its callouts if there are some.
    pub(super) fn keep_settled(exchange: &mut Exchange, entry: Box<Entry>, calls_out: bool) {
        if calls_out {
            entry.ticket.running.settle();
        }
        Self::keep(exchange, entry);
    }

    /// The filter failed before the response head was sent.
    fn fail(&self, mut entry: Box<Entry>, exchange: &mut Exchange, failure: &Failure) -> Outcome {
        report(failure);
        entry.failed = true;
        Self::keep(exchange, entry);
        match self.policy() {
            FailurePolicy::Open => Outcome::Next,
            FailurePolicy::Closed => Outcome::Respond(LocalResponse::message(503, "a filter failed")),
        }
    }

    /// Show the response's head; and whether callouts wait to be sent.
    fn head(entry: &mut Entry, exchange: &mut Exchange) -> (Result<Progress, Failure>, bool) {
        entry.head_seen = true;
        let status = exchange.response.status;
        let end = exchange.request.method == Method::Head || matches!(status, 204 | 304);
        entry.response.bodiless = end;
        entry.call(Reach::Write(exchange), Stage::ResponseHead, None, |instance, id, view| {
            let action = instance.headers(id, view, FieldMap::ResponseHeaders, end)?;
            Ok(weigh(action, instance.take_signals(id, Direction::Response), Direction::Response))
        })
    }

    /// Carry on after the response's head was shown.
    fn step<'a>(&'a self, mut entry: Box<Entry>, exchange: &'a mut Exchange) -> Step<'a> {
        let (progress, calls_out) = Self::head(&mut entry, exchange);
        let outcome = match progress {
            Ok(Progress::Wait) => {
                let mut away = Away { entry: Some(entry), exchange };
                return Step::Wait(Box::pin(async move {
                    let paused = poll_fn(|context| away.poll(context)).await;
                    match away.entry.take() {
                        Some(entry) => self.resume(entry, away.exchange, paused),
                        None => Outcome::Next,
                    }
                }));
            }
            Ok(progress) => {
                Self::keep_settled(exchange, entry, calls_out);
                concluded(progress, exchange)
            }
            Err(failure) => self.fail(entry, exchange, &failure),
        };
        outcome.into()
    }

    fn resume(&self, entry: Box<Entry>, exchange: &mut Exchange, paused: Paused) -> Outcome {
        let running = entry.ticket.running.clone();
        let outcome = match paused {
            Paused::Ended(progress) => {
                Self::keep(exchange, entry);
                concluded(progress, exchange)
            }
            Paused::Failed(failure) => self.fail(entry, exchange, &failure),
            Paused::TooLong => {
                tracing::warn!(filter = self.name(), "a Wasm filter paused for too long");
                Self::keep(exchange, entry);
                match self.policy() {
                    FailurePolicy::Open => Outcome::Next,
                    FailurePolicy::Closed => Outcome::Respond(too_long()),
                }
            }
        };
        running.settle();
        outcome
    }
}

/// The answer to a request whose filter paused too long.
pub(super) fn too_long() -> LocalResponse {
    LocalResponse::message(504, "a filter took too long")
}

/// An entry out of its exchange while the filter is waited for. Should nobody wait any longer, it goes back, so that the
/// filter is told of the end.
struct Away<'a> {
    entry: Option<Box<Entry>>,
    exchange: &'a mut Exchange,
}

impl Away<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Paused> {
        match &mut self.entry {
            Some(entry) => pause::poll(entry, self.exchange, Stage::ResponseHead, true, context),
            None => Poll::Pending,
        }
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            FilterPlugin::keep(self.exchange, entry);
        }
    }
}

impl Entry {
    pub(super) fn view<'a>(&'a mut self, reach: Reach<'a>, stage: Stage, chunk: Option<&'a mut Vec<u8>>) -> View<'a> {
        View { reach, stage, chunk, path: &mut self.path, touches: Cell::new(0) }
    }

    /// Call the filter; what comes of it, and whether callouts wait to be sent.
    pub(super) fn call<T>(
        &mut self,
        reach: Reach<'_>,
        stage: Stage,
        chunk: Option<&mut Vec<u8>>,
        work: impl FnOnce(&mut Instance, ContextId, &mut View<'_>) -> Result<T, Failure>,
    ) -> (Result<T, Failure>, bool) {
        let mut instance = self.ticket.running.instance();
        let mut view = View { reach, stage, chunk, path: &mut self.path, touches: Cell::new(0) };
        let called = work(&mut instance, self.ticket.context, &mut view);
        (called, instance.has_callouts())
    }

    pub(super) fn side(&mut self, direction: Direction) -> &mut Side {
        if direction == Direction::Request { &mut self.request } else { &mut self.response }
    }

    /// Do something with what is held of a body.
    pub(super) fn with_held<T>(&mut self, direction: Direction, work: impl FnOnce(&mut Self, &mut Vec<u8>) -> T) -> T {
        let mut held = std::mem::take(&mut self.side(direction).held);
        let done = work(self, &mut held);
        self.side(direction).held = held;
        done
    }
}

/// What a callback's action and what it did besides come to.
pub(super) fn weigh(action: Action, signals: Signals, direction: Direction) -> Progress {
    if signals.closes_any() {
        return Progress::Close;
    }
    let resumed = signals.resumes(direction);
    match (signals.reply, action) {
        (Some(reply), _) => Progress::Respond(reply),
        (None, Action::Pause) if !resumed => Progress::Wait,
        (None, _) => Progress::GoOn,
    }
}

/// The outcome of a phase that is over.
fn concluded(progress: Progress, exchange: &mut Exchange) -> Outcome {
    match progress {
        Progress::GoOn | Progress::Wait => Outcome::Next,
        Progress::Respond(reply) => Outcome::Respond(response(*reply)),
        Progress::Close => {
            exchange.response.broken = true;
            Outcome::Next
        }
    }
}

/// A filter's response as the gateway's.
pub(super) fn response(reply: LocalReply) -> LocalResponse {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut content_type = "text/plain".to_owned();
    let mut headers: Vec<(Cow<'static, str>, String)> = Vec::new();
    for (name, value) in &reply.headers {
        match name.as_slice() {
            b"content-type" => content_type = text(value),
            b"content-length" | b"transfer-encoding" | b"connection" => {}
            name if name.starts_with(b":") => {}
            name => headers.push((text(name).into(), text(value))),
        }
    }
    if let Some(status) = reply.grpc_status {
        headers.push(("grpc-status".into(), status.to_string()));
    }
    let body = if reply.body.is_empty() { LocalBody::Empty } else { LocalBody::Bytes(content_type, reply.body) };
    LocalResponse { status: reply.status, headers, body }
}

impl Plugin for FilterPlugin {
    fn needs(&self) -> Needs {
        let phases = Phases {
            request_head: true,
            request_piece: self.request_body,
            response_head: true,
            header_filter: true,
            body_filter: self.response_body,
            log: true,
            ..Phases::default()
        };
        Needs { phases, ..Needs::default() }
    }

    fn request_head(&self, exchange: &mut Exchange, end: bool) -> Flow {
        match self.begin(exchange, end) {
            Some(begun) => self.weigh_request_head(begun, exchange, end),
            None if self.policy() == FailurePolicy::Open => Flow::Next,
            None => Flow::Respond(LocalResponse::message(503, "a filter is not available")),
        }
    }

    fn request_piece(&self, exchange: &mut Exchange, piece: &mut Vec<u8>, last: bool) -> Flow {
        self.show_piece(exchange, Direction::Request, piece, last)
    }

    fn poll_request(&self, exchange: &mut Exchange, piece: &mut Vec<u8>, context: &mut Context<'_>) -> Poll<Flow> {
        self.poll_held(exchange, Direction::Request, piece, context)
    }

    fn response_head<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let Some(entry) = self.take(exchange) else { return Step::Next };
        self.step(entry, exchange)
    }

    /// A response of the gateway's own, or of another plugin: the filter sees it too, and cannot hold it.
    fn header_filter(&self, exchange: &mut Exchange) {
        let replaces = exchange.response.source != Source::Service;
        let Some(entry) = self.entry_in(exchange) else { return };
        if replaces {
            // What is held of the upstream's must not go with the one in its place.
            entry.response.forget();
        }
        if entry.head_seen {
            return;
        }
        let Some(mut entry) = self.take(exchange) else { return };
        // What it asks for is not done: there is nothing to wait for, and no other answer.
        let (progress, calls_out) = Self::head(&mut entry, exchange);
        if let Err(failure) = progress {
            report(&failure);
            entry.failed = true;
        }
        Self::keep_settled(exchange, entry, calls_out);
    }

    fn response_piece(&self, exchange: &mut Exchange, piece: &mut Vec<u8>, last: bool) -> Flow {
        self.show_piece(exchange, Direction::Response, piece, last)
    }

    fn poll_response(&self, exchange: &mut Exchange, piece: &mut Vec<u8>, context: &mut Context<'_>) -> Poll<Flow> {
        self.poll_held(exchange, Direction::Response, piece, context)
    }

    fn log(&self, record: &RequestRecord<'_>) {
        let Some(streams) = record.exchange.kept::<Streams>() else { return };
        let mut entries = streams.first.iter().chain(&streams.others);
        let own = entries.find(|entry| entry.owner == self.id && !entry.failed && !entry.ticket.ended.get());
        let Some(entry) = own else { return };
        entry.ticket.ended.set(true);
        let mut path = entry.path.clone();
        let (reach, touches) = (Reach::Read(record.exchange), Cell::new(0));
        let mut view = View { reach, stage: Stage::Over, chunk: None, path: &mut path, touches };
        let (ended, calls_out) = {
            let mut instance = entry.ticket.running.instance();
            (instance.end_stream(entry.ticket.context, &mut view), instance.has_callouts())
        };
        if let Err(failure) = ended {
            report(&failure);
        }
        if calls_out {
            entry.ticket.running.settle();
        }
    }
}
