//! Bodies on their way through a filter, and requests whose head it holds.
//!
//! A piece at which the filter pauses is kept, and shown again together with what comes next. A piece that it lets go
//! while it still holds the head is kept too, but not shown again.
//!
//! Envoy calls no body callback while a filter pauses at the head, or takes any `Continue` of one for the end of the
//! pause, depending on a setting. Here pieces are shown, so that a filter can read a body before it lets the head go; but
//! `Continue` ends the pause only if the callback did something with the stream or one before it paused, and no callout is
//! under way: SDKs export callbacks that filters do not write, and these say `Continue` to everything.

use super::pause::{self, Pause, Paused};
use super::run::{Begun, Entry, FilterPlugin, Progress, response, too_long};
use super::view::{Reach, Stage};
use super::worker::report;
use crate::failure::{Failure, FailurePolicy};
use crate::instance::Signals;
use crate::types::{Action, DataBuffer, Direction, FieldMap};
use gateward_plugin::{Exchange, Flow, LocalResponse, Source};
use std::task::{Context, Poll};

/// One direction of a stream.
#[derive(Default)]
pub(super) struct Side {
    /// The filter paused at the head.
    head_paused: bool,
    /// It paused at a piece.
    paused: bool,
    /// What it has seen and let go, and waits for the head.
    passed: Vec<u8>,
    /// What it is shown again.
    pub(super) held: Vec<u8>,
    /// Nothing more comes.
    ended: bool,
    /// The head said so.
    pub(super) bodiless: bool,
    /// What a pause waits for.
    pub(super) pause: Option<Box<Pause>>,
}

/// What a callback came to.
struct Said {
    action: Action,
    signals: Signals,
    /// The filter did something with the stream.
    touched: bool,
    /// Callouts under way.
    calls: u16,
}

impl FilterPlugin {
    /// What the filter said to the request's head.
    pub(super) fn weigh_request_head(&self, begun: Begun, exchange: &mut Exchange, end: bool) -> Flow {
        let Begun { mut entry, progress, calls_out } = begun;
        entry.side(Direction::Request).ended = end;
        let flow = match progress {
            Err(failure) => self.failed(&mut entry, exchange, &failure),
            Ok(Progress::GoOn) => Flow::Next,
            Ok(Progress::Wait) => {
                entry.side(Direction::Request).head_paused = true;
                pause::begin(&mut entry, Direction::Request);
                Flow::Hold
            }
            Ok(Progress::Respond(reply)) => Flow::Respond(response(*reply)),
            Ok(Progress::Close) => Flow::Reset,
        };
        Self::keep_settled(exchange, entry, calls_out && !matches!(flow, Flow::Hold));
        flow
    }

    /// Show a piece, with trailers behind the last.
    pub(super) fn show_piece(
        &self,
        exchange: &mut Exchange,
        direction: Direction,
        piece: &mut Vec<u8>,
        last: bool,
    ) -> Flow {
        let Some(mut entry) = self.take(exchange) else {
            self.let_go(exchange, direction, piece);
            return Flow::Next;
        };
        let side = entry.side(direction);
        if side.bodiless {
            Self::keep(exchange, entry);
            return Flow::Next;
        }
        side.ended |= last;
        prepend(&mut side.held, piece);
        let (said, calls_out) = self.call(&mut entry, exchange, direction, piece, last);
        let flow = match said {
            Ok(said) => self.weigh_piece(&mut entry, exchange, direction, piece, said),
            Err(failure) => self.failed(&mut entry, exchange, &failure),
        };
        if matches!(flow, Flow::Next) {
            prepend(&mut entry.side(direction).passed, piece);
        }
        // A pause sends its callouts itself, to have the stream at hand for their answers.
        Self::keep_settled(exchange, entry, calls_out && !matches!(flow, Flow::Hold));
        flow
    }

    /// The callbacks for one piece, and whether callouts wait to be sent.
    fn call(
        &self,
        entry: &mut Entry,
        exchange: &mut Exchange,
        direction: Direction,
        piece: &mut Vec<u8>,
        last: bool,
    ) -> (Result<Said, Failure>, bool) {
        let of_request = direction == Direction::Request;
        if of_request && !self.request_body {
            let unseen = Said { action: Action::Continue, signals: Signals::default(), touched: false, calls: 0 };
            return (Ok(unseen), false);
        }
        let trailers = if of_request { &exchange.request_trailers } else { &exchange.response.trailers };
        let trailers = last && !trailers.is_empty();
        let (buffer, map, stage) = if of_request {
            (DataBuffer::RequestBody, FieldMap::RequestTrailers, Stage::Request)
        } else {
            (DataBuffer::ResponseBody, FieldMap::ResponseTrailers, Stage::ResponseBody)
        };
        let empty = piece.is_empty();
        entry.call(Reach::Write(exchange), stage, Some(piece), |instance, id, view| {
            let mut action = Action::Continue;
            if !(trailers && empty) {
                action = instance.data(id, view, buffer, last && !trailers)?;
            }
            // The length was looked up for the callback.
            let mut touched = view.touches.replace(0) > 1;
            if trailers {
                action = instance.trailers(id, view, map)?;
                // The fields were counted.
                touched |= view.touches.get() > 1;
            }
            let signals = instance.take_signals(id, direction);
            Ok(Said { action, signals, touched, calls: instance.open_calls(id) })
        })
    }

    fn weigh_piece(
        &self,
        entry: &mut Entry,
        exchange: &mut Exchange,
        direction: Direction,
        piece: &mut Vec<u8>,
        said: Said,
    ) -> Flow {
        let Said { action, signals, touched, calls } = said;
        if signals.closes_any() {
            return Flow::Reset;
        }
        let resumed = signals.resumes(direction);
        if let Some(reply) = signals.reply {
            return answer(exchange, direction, response(*reply));
        }
        let side = entry.side(direction);
        let lets_go = action == Action::Continue;
        let ends_head_pause = (touched || side.paused) && calls == 0;
        if resumed || (lets_go && (!side.head_paused || ends_head_pause)) {
            side.release();
            return Flow::Next;
        }
        if lets_go {
            side.passed.append(piece);
        } else {
            side.paused = true;
            side.held = std::mem::take(piece);
        }
        let held_bytes = side.passed.len() + side.held.len();
        if held_bytes <= self.most_held(exchange, direction) {
            pause::begin(entry, direction);
            return Flow::Hold;
        }
        tracing::warn!(filter = self.name(), held_bytes, "a Wasm filter holds too much of a body");
        *piece = std::mem::take(&mut side.held);
        side.release();
        match (direction, self.policy()) {
            (Direction::Request, _) => Flow::Respond(LocalResponse::message(413, "Payload too large")),
            (_, FailurePolicy::Closed) => Flow::Reset,
            (_, FailurePolicy::Open) => Flow::Next,
        }
    }

    fn most_held(&self, exchange: &Exchange, direction: Direction) -> usize {
        match direction {
            Direction::Request => exchange.held_body_max,
            _ => self.shared.filter.config().limits.body_bytes,
        }
    }

    /// Put what a filter that failed elsewhere still held before the piece: without it the body would not be whole.
    fn let_go(&self, exchange: &mut Exchange, direction: Direction, piece: &mut Vec<u8>) {
        if let Some(entry) = self.entry_in(exchange) {
            let side = entry.side(direction);
            prepend(&mut side.held, piece);
            prepend(&mut side.passed, piece);
        }
    }

    /// The filter failed; what it held goes on without it if that is its policy.
    fn failed(&self, entry: &mut Entry, exchange: &Exchange, failure: &Failure) -> Flow {
        report(failure);
        entry.failed = true;
        match self.policy() {
            FailurePolicy::Open => Flow::Next,
            FailurePolicy::Closed if exchange.response.started => Flow::Reset,
            FailurePolicy::Closed => Flow::Respond(LocalResponse::message(503, "a filter failed")),
        }
    }

    /// Whether what the filter holds goes on.
    pub(super) fn poll_held(
        &self,
        exchange: &mut Exchange,
        direction: Direction,
        piece: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Poll<Flow> {
        let Some(mut entry) = self.take(exchange) else {
            self.let_go(exchange, direction, piece);
            return Poll::Ready(Flow::Next);
        };
        let running = entry.ticket.running.clone();
        let stage = if direction == Direction::Request { Stage::Request } else { Stage::ResponseBody };
        let bounded = entry.side(direction).ended;
        let Poll::Ready(paused) = pause::poll(&mut entry, exchange, stage, bounded, context) else {
            Self::keep(exchange, entry);
            return Poll::Pending;
        };
        let flow = match paused {
            Paused::Ended(Progress::Respond(reply)) => answer(exchange, direction, response(*reply)),
            Paused::Ended(Progress::Close) => Flow::Reset,
            Paused::Ended(Progress::GoOn | Progress::Wait) => Flow::Next,
            Paused::Failed(failure) => self.failed(&mut entry, exchange, &failure),
            Paused::TooLong => {
                tracing::warn!(filter = self.name(), "a Wasm filter paused for too long");
                match self.policy() {
                    FailurePolicy::Open => Flow::Next,
                    FailurePolicy::Closed => answer(exchange, direction, too_long()),
                }
            }
        };
        if matches!(flow, Flow::Next) {
            let side = entry.side(direction);
            side.release();
            *piece = std::mem::take(&mut side.held);
            prepend(&mut side.passed, piece);
        }
        Self::keep(exchange, entry);
        running.settle();
        Poll::Ready(flow)
    }
}

impl Side {
    /// Another message takes the place of this one, whose end the filter may have seen with its head.
    pub(super) fn forget(&mut self) {
        *self = Self { bodiless: self.bodiless, ..Self::default() };
    }

    /// Nothing waits any more.
    fn release(&mut self) {
        self.head_paused = false;
        self.pause = None;
    }
}

/// A filter's answer while a body is under way.
fn answer(exchange: &Exchange, direction: Direction, response: LocalResponse) -> Flow {
    // The gateway's own answers cannot be replaced again and again.
    if direction == Direction::Response && exchange.response.source != Source::Service {
        return Flow::Next;
    }
    if exchange.response.started { Flow::Reset } else { Flow::Respond(response) }
}

/// Put `first` before `rest`.
fn prepend(first: &mut Vec<u8>, rest: &mut Vec<u8>) {
    if !first.is_empty() {
        first.append(rest);
        *rest = std::mem::take(first);
    }
}
