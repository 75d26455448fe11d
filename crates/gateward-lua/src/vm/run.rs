//! Calling handlers.
//!
//! Handlers run in coroutines. What one waits for is an [`Op`]: a future that a function in Rust made and Lua
//! yielded; the worker polls it and resumes the coroutine with its values, so that a handler that waits holds nobody up.
//! `kong.response.exit` yields too, and is never resumed: no `pcall` of a plugin can catch it. In phases that must not wait
//! the coroutine is not to be seen: plugins know such phases by its absence.

use super::begin::{Bound, Turn};
use super::waiting::Waiting;
use super::{Configuration, SPARE, Vm};
use crate::instance::{Counts, Instance};
use crate::shared::{Op, Operation, next_turn};
use crate::slot::Slot;
use crate::state::{Phase, PutBack, Reach, Scene};
use crate::timing::{self, Timed};
use crate::wire;
use gateward_model::PluginConfig;
use gateward_plugin::{Exchange, LocalResponse, RequestRecord, StreamRecord};
use mlua::{Function, IntoLuaMulti, MultiValue, Thread, Value};
use std::rc::Rc;
use std::sync::Arc;

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The handler returned.
    Next,
    /// It said that it ends here, with all that it waits for.
    Left,
    /// It answered.
    Respond(LocalResponse),
    /// It failed, which was logged and counted.
    Failed,
}

/// A call that was begun.
pub(crate) enum Started {
    Ended(Ended),
    Waiting(Waiting),
}

/// What a call is about.
#[derive(Clone)]
pub(super) struct Call {
    /// Whose it is; a timer may outlive its own.
    pub(super) known: Option<Rc<Configuration>>,
    pub(super) number: u32,
    pub(super) phase: Phase,
    /// Number and slot of the request.
    pub(super) request: (f64, u32),
    /// Seldom.
    pub(super) timed: Option<Rc<Timed>>,
}

/// What resuming a coroutine came to.
pub(super) enum Resumed {
    Ended(Ended),
    Waits(Operation),
}

impl Vm {
    /// Begin the handler of `phase`.
    pub(crate) fn start(self: &Rc<Self>, instance: &Arc<Instance>, phase: Phase, exchange: &mut Exchange) -> Started {
        let known = match self.prepared(instance) {
            Ok(known) => known,
            Err(error) => return Started::Ended(self.not_prepared(instance, phase, &error)),
        };
        let timed = known.called(phase).map(Rc::new);
        let request = self.request(exchange);
        let call = Call { known: Some(known.clone()), number: instance.number, phase, request, timed };
        let thread = match self.empty_thread() {
            Ok(thread) => thread,
            Err(error) => return Started::Ended(self.call_failed(&call, &error.to_string())),
        };
        let begin = || self.begin(&thread, &known.bound, phase);
        let resumed = self.turn(&call, Reach::Exchange(exchange), begin);
        Waiting::begun(self, thread, call, resumed, Reach::Exchange(exchange))
    }

    /// Let a coroutine go on until it ends or waits.
    pub(super) fn resume(
        &self,
        thread: &Thread,
        arguments: impl IntoLuaMulti,
        call: &Call,
        reach: Reach<'_>,
    ) -> Resumed {
        self.turn(call, reach, || {
            let values = thread.resume::<MultiValue>(arguments)?;
            Ok(if thread.is_resumable() { Turn::Yielded(values) } else { Turn::Returned })
        })
    }

    /// Let a coroutine have its turn, which `go` does.
    fn turn(&self, call: &Call, reach: Reach<'_>, go: impl FnOnce() -> mlua::Result<Turn>) -> Resumed {
        let mut scene = Scene { reach, chunk: None, phase: call.phase, instance: call.number, request: call.request };
        let (turn, stopped) =
            timing::during(call.timed.as_deref(), || self.watched.during(|| self.shared.state.enter(&mut scene, go)));
        if let Some(known) = call.known.as_ref().filter(|_| stopped) {
            known.counts.was_stopped();
        }
        let turn = match turn {
            Ok(turn) => turn,
            Err(error) => return Resumed::Ended(self.call_failed(call, &error.to_string())),
        };
        if self.shared.left.take() {
            return Resumed::Ended(self.shared.answer.take().map_or(Ended::Left, Ended::Respond));
        }
        let Turn::Yielded(values) = turn else { return Resumed::Ended(Ended::Next) };
        let operation = match values.front() {
            Some(Value::UserData(data)) => data.borrow::<Op>().ok().and_then(|op| op.take()),
            _ => None,
        };
        // Anything else that is yielded is a plugin being polite.
        Resumed::Waits(operation.unwrap_or_else(next_turn))
    }

    /// How a call ends whose coroutines have all returned: what they printed is the answer, although none of them said so with
    /// `ngx.exit`.
    pub(super) fn returned(&self, call: &Call, reach: Reach<'_>) -> Ended {
        self.shared.forget();
        if !self.shared.printed.get() || !call.phase.may_answer() {
            return Ended::Next;
        }
        let mut scene = Scene { reach, chunk: None, phase: call.phase, instance: call.number, request: call.request };
        let answer = || self.answer_printed.call::<bool>(());
        let (printed, _) = self.watched.during(|| self.shared.state.enter(&mut scene, answer));
        match printed {
            Ok(true) => self.shared.answer.take().map_or(Ended::Next, Ended::Respond),
            Ok(false) => Ended::Next,
            Err(error) => self.call_failed(call, &error.to_string()),
        }
    }

    /// Call the handler of a phase that cannot wait.
    pub(crate) fn call(self: &Rc<Self>, instance: &Arc<Instance>, phase: Phase, exchange: &mut Exchange) -> Ended {
        let request = self.request(exchange);
        self.call_on(instance, phase, request, Reach::Exchange(exchange), None)
    }

    /// Likewise body_filter, with a piece of the body.
    pub(crate) fn filter(
        self: &Rc<Self>,
        instance: &Arc<Instance>,
        exchange: &mut Exchange,
        chunk: &mut Vec<u8>,
        last: bool,
    ) -> Ended {
        let request = self.request(exchange);
        if exchange.kept::<Slot>().is_some_and(|slot| slot.body_ended == Some(instance.number)) {
            chunk.clear();
            return Ended::Next;
        }
        self.call_on(instance, Phase::BodyFilter, request, Reach::Exchange(exchange), Some((chunk, last)))
    }

    /// Likewise log, with what there is to say about the request.
    pub(crate) fn log(self: &Rc<Self>, instance: &Arc<Instance>, record: &RequestRecord<'_>) -> Ended {
        let request = self.past_request(record.exchange);
        self.call_on(instance, Phase::Log, request, Reach::Record(record), None)
    }

    /// Likewise log for a stream.
    pub(crate) fn log_stream(self: &Rc<Self>, instance: &Arc<Instance>, record: &StreamRecord<'_>) -> Ended {
        // The exchange is another one when no plugin in Lua had a say before.
        let made;
        let exchange = match wire::stood_in(record.stream) {
            Some(exchange) => exchange,
            None => {
                made = wire::exchange_of(record.stream);
                &made
            }
        };
        let request = self.past_request(exchange);
        self.call_on(instance, Phase::Log, request, Reach::Stream(exchange, record), None)
    }

    fn call_on(
        &self,
        instance: &Arc<Instance>,
        phase: Phase,
        request: (f64, u32),
        reach: Reach<'_>,
        chunk: Option<(&mut Vec<u8>, bool)>,
    ) -> Ended {
        let known = match self.prepared(instance) {
            Ok(known) => known,
            Err(error) => return self.not_prepared(instance, phase, &error),
        };
        let timed = known.called(phase);
        let failed = |error: &mlua::Error| self.failed(&known.entity, &known.counts, phase, &error.to_string());
        let mut scene = Scene { reach, chunk, phase, instance: instance.number, request };
        let (called, stopped) = timing::during(timed.as_ref(), || {
            self.watched.during(|| self.shared.state.enter(&mut scene, || self.pass(&known.bound, phase)))
        });
        if stopped {
            known.counts.was_stopped();
        }
        let left = self.shared.left.take();
        match called {
            Ok(()) => Ended::Next,
            // The error that ended it.
            Err(_) if left => Ended::Left,
            Err(error) => failed(&error),
        }
    }

    /// Let the function of a phase that cannot wait run to its end.
    fn pass(&self, bound: &Bound, phase: Phase) -> mlua::Result<()> {
        let thread = self.empty_thread()?;
        let unyielding = &self.shared.unyielding;
        let _back = PutBack(unyielding, unyielding.replace(thread.state()));
        match self.begin(&thread, bound, phase)? {
            Turn::Returned => {
                self.keep(thread);
                Ok(())
            }
            Turn::Yielded(_) => {
                Err(mlua::Error::runtime(format!("attempt to yield in {}, which cannot wait", phase.as_str())))
            }
        }
    }

    /// A call that could not even begin.
    pub(super) fn not_prepared(&self, instance: &Instance, phase: Phase, error: &mlua::Error) -> Ended {
        let Instance { entity, counts, .. } = instance;
        counts.called(&counts.join(), phase);
        self.failed(entity, counts, phase, &error.to_string())
    }

    pub(super) fn call_failed(&self, call: &Call, error: &str) -> Ended {
        if let Some(known) = &call.known {
            return self.failed(&known.entity, &known.counts, call.phase, error);
        }
        self.shared.forget();
        tracing::error!(phase = call.phase.as_str(), "a Lua plugin failed: {error}");
        Ended::Failed
    }

    pub(super) fn failed(&self, entity: &PluginConfig, counts: &Counts, phase: Phase, error: &str) -> Ended {
        self.shared.forget();
        counts.failed(phase);
        #[cfg(test)]
        super::LAST_ERROR.set(error.to_owned());
        let (plugin, id) = (&entity.name, &entity.id);
        tracing::error!(plugin, %id, phase = phase.as_str(), "a Lua plugin failed: {error}");
        Ended::Failed
    }

    /// A coroutine that will run `function`.
    pub(super) fn thread(&self, function: &Function) -> mlua::Result<Thread> {
        match self.spare.borrow_mut().pop() {
            Some(thread) => {
                thread.reset(function.clone())?;
                Ok(thread)
            }
            None => self.lua.create_thread(function.clone()),
        }
    }

    /// Keep a coroutine of the machine's own that has returned for the next call, unless a plugin may have got hold of it.
    pub(super) fn keep(&self, thread: Thread) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE && !self.shared.exposed.get() {
            spare.push(thread);
        }
    }
}
