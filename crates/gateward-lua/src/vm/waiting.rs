//! Calls that wait: the coroutine of a handler or timer and its light threads, and what each of them waits for.

use super::Vm;
use super::run::{Call, Ended, Resumed, Started};
use crate::shared::{LANES, Operation, Shared};
use crate::state::{Phase, Reach};
use crate::timers::Timer;
use gateward_plugin::Exchange;
use mlua::Thread;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Coroutines of one call that are resumed, and time that they may take, before others have their turn.
const TURNS: u32 = 64;
const TURN: Duration = Duration::from_millis(10);

/// A call that waits. Dropped, all that it waits for is abandoned.
pub(crate) struct Waiting {
    vm: Rc<Vm>,
    call: Call,
    lanes: Vec<Lane>,
    /// Those of them that wait for the request body.
    bodies: Vec<Rc<Cell<Option<bool>>>>,
}

/// A coroutine that waits.
struct Lane {
    thread: Thread,
    /// It is the handler's or the timer's, not a light thread of a plugin.
    own: bool,
    operation: Operation,
    _counted: Counted,
}

/// A coroutine that waits, among those of the machine.
struct Counted(Rc<Shared>);

impl Counted {
    fn new(shared: &Rc<Shared>) -> Self {
        shared.lanes.set(shared.lanes.get() + 1);
        Self(shared.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.lanes.set(self.0.lanes.get() - 1);
    }
}

impl Waiting {
    /// The call whose coroutine was just resumed for the first time.
    pub(super) fn begun(vm: &Rc<Vm>, thread: Thread, call: Call, resumed: Resumed, reach: Reach<'_>) -> Started {
        let mut lanes = Vec::new();
        match resumed {
            Resumed::Waits(_) if vm.shared.lanes.get() >= LANES => {
                let error = format!("more than {LANES} handlers of Lua plugins wait on this worker");
                return Started::Ended(vm.call_failed(&call, &error));
            }
            Resumed::Waits(operation) => {
                lanes.push(Lane { thread, own: true, operation, _counted: Counted::new(&vm.shared) });
            }
            Resumed::Ended(Ended::Next) => {
                vm.keep(thread);
                if vm.shared.adopted.borrow().is_empty() {
                    return Started::Ended(vm.returned(&call, reach));
                }
            }
            Resumed::Ended(ended) => {
                vm.shared.forget();
                return Started::Ended(ended);
            }
        }
        let mut waiting = Self { vm: vm.clone(), call, lanes, bodies: Vec::new() };
        waiting.follow();
        Started::Waiting(waiting)
    }

    /// Whether it goes on only when the request body was received.
    pub(crate) fn wants_body(&self) -> bool {
        !self.bodies.is_empty()
    }

    /// The request body was received, the `whole` of it or as much as nobody can use.
    pub(crate) fn body_came(&mut self, whole: bool) {
        self.bodies.drain(..).for_each(|came| came.set(Some(whole)));
    }

    /// Go on as far as it goes.
    pub(crate) fn poll(&mut self, exchange: &mut Exchange, context: &mut Context<'_>) -> Poll<Ended> {
        self.advance(Some(exchange), context)
    }

    fn advance(&mut self, mut exchange: Option<&mut Exchange>, context: &mut Context<'_>) -> Poll<Ended> {
        let mut index = 0;
        let began = Instant::now();
        let mut resumed = 0;
        while let Some(lane) = self.lanes.get_mut(index) {
            let values = match lane.operation.as_mut().poll(context) {
                Poll::Pending => {
                    index += 1;
                    continue;
                }
                Poll::Ready(Ok(values)) => values,
                Poll::Ready(Err(error)) => return Poll::Ready(self.vm.call_failed(&self.call, &error.to_string())),
            };
            let reach = exchange.as_deref_mut().map_or(Reach::Nothing, Reach::Exchange);
            resumed += 1;
            match self.vm.resume(&lane.thread, values, &self.call, reach) {
                Resumed::Waits(operation) => lane.operation = operation,
                Resumed::Ended(Ended::Next) => {
                    let lane = self.lanes.remove(index);
                    if lane.own {
                        self.vm.keep(lane.thread);
                    }
                }
                Resumed::Ended(ended) => {
                    self.vm.shared.forget();
                    return Poll::Ready(ended);
                }
            }
            if self.follow() {
                index = 0;
            }
            if !self.lanes.is_empty() && (resumed >= TURNS || began.elapsed() >= TURN) {
                // Others have their turn first, or a plugin whose threads end at once would never give the worker back.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        if !self.lanes.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(self.vm.returned(&self.call, exchange.map_or(Reach::Nothing, Reach::Exchange)))
    }

    /// Take in the light threads that were started and let go of those that were ended; whether any was.
    fn follow(&mut self) -> bool {
        let shared = &self.vm.shared;
        self.bodies.append(&mut shared.bodies.borrow_mut());
        let adopted = shared.adopted.take();
        self.lanes.extend(adopted.into_iter().map(|(thread, operation)| Lane {
            thread,
            own: false,
            operation,
            _counted: Counted::new(shared),
        }));
        let killed = shared.killed.take();
        self.lanes.retain(|lane| !killed.contains(&lane.thread.to_pointer()));
        !killed.is_empty()
    }
}

impl Vm {
    /// Call the function of a timer and wait for its end; its errors are logged.
    pub(crate) async fn run_timer(self: &Rc<Self>, timer: &Timer, premature: bool) {
        let Some(function) = self.shared.timers.function.borrow().clone() else { return };
        let number = timer.instance;
        let slot = self.own_slot();
        let known = self.configuration(number);
        let timed = known.as_ref().and_then(|known| known.called(Phase::Timer)).map(Rc::new);
        let call = Call { known, number, phase: Phase::Timer, request: (slot.request, slot.number), timed };
        let thread = match self.thread(&function) {
            Ok(thread) => thread,
            Err(error) => return drop(self.call_failed(&call, &error.to_string())),
        };
        let arguments = (timer.number, timer.again, premature);
        let resumed = self.resume(&thread, arguments, &call, Reach::Nothing);
        if let Started::Waiting(mut waiting) = Waiting::begun(self, thread, call, resumed, Reach::Nothing) {
            poll_fn(|context| waiting.advance(None, context)).await;
        }
    }
}
