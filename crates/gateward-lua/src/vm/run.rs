//! Calling handlers.
//!
//! A phase that may wait runs in a coroutine. What it waits for is an [`Op`]: a future that a function in Rust made and Lua
//! yielded; the worker polls it and resumes the coroutine with its values, so that a handler that waits holds nobody up.
//! `kong.response.exit` yields too, and is never resumed: no `pcall` of a plugin can catch it. Phases that must not wait
//! are plain calls.

use super::{SPARE, Vm};
use crate::instance::Instance;
use crate::shared::{Op, Operation};
use crate::state::{Phase, Reach, Scene};
use gateward_plugin::{Exchange, LocalResponse, RequestRecord};
use mlua::{Function, MultiValue, Thread, Value};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The handler returned.
    Next,
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

/// A call that waits.
pub(crate) struct Waiting {
    vm: Rc<Vm>,
    instance: Arc<Instance>,
    phase: Phase,
    request: (f64, u32),
    thread: Thread,
    operation: Operation,
}

/// What resuming a coroutine came to.
enum Resumed {
    Ended(Ended),
    Waits(Operation),
}

impl Vm {
    /// Begin the handler of `phase`.
    pub(crate) fn start(self: &Rc<Self>, instance: &Arc<Instance>, phase: Phase, exchange: &mut Exchange) -> Started {
        instance.counts.called(phase);
        let request = self.request(exchange);
        let thread = self.prepared(instance).and_then(|(handler, conf)| {
            let function = handler.function(phase)?;
            Ok((self.thread(function)?, handler.table.clone(), conf))
        });
        let (thread, table, conf) = match thread {
            Ok(ready) => ready,
            Err(error) => return Started::Ended(self.failed(instance, phase, &error.to_string())),
        };
        let arguments = MultiValue::from_iter([Value::Table(table), conf]);
        match self.resume(&thread, arguments, instance, phase, request, exchange) {
            Resumed::Ended(ended) => Started::Ended(ended),
            Resumed::Waits(operation) => Started::Waiting(Waiting {
                vm: self.clone(),
                instance: instance.clone(),
                phase,
                request,
                thread,
                operation,
            }),
        }
    }

    fn resume(
        &self,
        thread: &Thread,
        arguments: MultiValue,
        instance: &Arc<Instance>,
        phase: Phase,
        request: (f64, u32),
        exchange: &mut Exchange,
    ) -> Resumed {
        let mut scene =
            Scene { reach: Reach::Exchange(exchange), chunk: None, phase, instance: instance.number, request };
        let (resumed, stopped) =
            self.watched.during(|| self.shared.state.enter(&mut scene, || thread.resume::<MultiValue>(arguments)));
        if stopped {
            instance.counts.stopped.fetch_add(1, Ordering::Relaxed);
        }
        let values = match resumed {
            Ok(values) => values,
            Err(error) => return Resumed::Ended(self.failed(instance, phase, &error.to_string())),
        };
        if !thread.is_resumable() {
            self.keep(thread.clone());
            return Resumed::Ended(Ended::Next);
        }
        if let Some(answer) = self.shared.answer.take() {
            return Resumed::Ended(Ended::Respond(answer));
        }
        let operation = match values.front() {
            Some(Value::UserData(data)) => data.borrow::<Op>().ok().and_then(|op| op.take()),
            _ => None,
        };
        // Anything else that is yielded is a plugin being polite: it goes on at the next turn.
        Resumed::Waits(operation.unwrap_or_else(|| {
            Box::pin(async {
                tokio::task::yield_now().await;
                Ok(MultiValue::new())
            })
        }))
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
        self.call_on(instance, Phase::BodyFilter, request, Reach::Exchange(exchange), Some((chunk, last)))
    }

    /// Likewise log, with what there is to say about the request.
    pub(crate) fn log(self: &Rc<Self>, instance: &Arc<Instance>, record: &RequestRecord<'_>) -> Ended {
        let request = self.past_request(record.exchange);
        self.call_on(instance, Phase::Log, request, Reach::Record(record), None)
    }

    fn call_on(
        &self,
        instance: &Arc<Instance>,
        phase: Phase,
        request: (f64, u32),
        reach: Reach<'_>,
        chunk: Option<(&mut Vec<u8>, bool)>,
    ) -> Ended {
        instance.counts.called(phase);
        let prepared =
            self.prepared(instance).and_then(|(handler, conf)| Ok((handler.function(phase)?.clone(), handler, conf)));
        let (function, handler, conf) = match prepared {
            Ok(ready) => ready,
            Err(error) => return self.failed(instance, phase, &error.to_string()),
        };
        let mut scene = Scene { reach, chunk, phase, instance: instance.number, request };
        let (called, stopped) =
            self.watched.during(|| self.shared.state.enter(&mut scene, || function.call::<()>((&handler.table, conf))));
        if stopped {
            instance.counts.stopped.fetch_add(1, Ordering::Relaxed);
        }
        match called {
            Ok(()) => Ended::Next,
            Err(error) => self.failed(instance, phase, &error.to_string()),
        }
    }

    fn failed(&self, instance: &Instance, phase: Phase, error: &str) -> Ended {
        self.shared.answer.take();
        instance.counts.failed(phase);
        let (plugin, id) = (&instance.entity.name, &instance.entity.id);
        tracing::error!(plugin, %id, phase = phase.as_str(), "a Lua plugin failed: {error}");
        Ended::Failed
    }

    /// A coroutine that will run `function`.
    fn thread(&self, function: &Function) -> mlua::Result<Thread> {
        match self.spare.borrow_mut().pop() {
            Some(thread) => {
                thread.reset(function.clone())?;
                Ok(thread)
            }
            None => self.lua.create_thread(function.clone()),
        }
    }

    fn keep(&self, thread: Thread) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE {
            spare.push(thread);
        }
    }
}

impl Waiting {
    /// Go on as far as it goes.
    pub(crate) fn poll(&mut self, exchange: &mut Exchange, context: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let values = match self.operation.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(values)) => values,
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(self.vm.failed(&self.instance, self.phase, &error.to_string()));
                }
            };
            match self.vm.resume(&self.thread, values, &self.instance, self.phase, self.request, exchange) {
                Resumed::Ended(ended) => return Poll::Ready(ended),
                Resumed::Waits(operation) => self.operation = operation,
            }
        }
    }
}

impl super::Handler {
    fn function(&self, phase: Phase) -> mlua::Result<&Function> {
        let index = Phase::ALL.iter().position(|known| *known == phase);
        let function = index.and_then(|index| self.functions[index].as_ref());
        function.ok_or_else(|| mlua::Error::runtime(format!("the handler has no function for {}", phase.as_str())))
    }
}
