//! A Lua plugin behind the contract of all plugins.

use crate::instance::Instance;
use crate::state::Phase;
use crate::vm::{self, Ended, Started, Vm, Waiting};
use crate::wire;
use gateward_plugin::{
    Admission, AfterBody, BodyRead, Exchange, Handshake, LocalResponse, Needs, Outcome, Phases, Plugin, Preread,
    RequestRecord, Soon, Step, StreamExchange, StreamRecord,
};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What a request gets whose plugin failed (kong/runloop/handler.lua).
const FAILED: &str = "An unexpected error occurred";

/// A configured plugin.
pub(crate) struct LuaPlugin(Arc<Instance>);

impl LuaPlugin {
    pub(crate) fn new(instance: Arc<Instance>) -> Self {
        Self(instance)
    }

    #[cfg(test)]
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.0
    }

    pub(crate) fn vm(&self) -> Option<Rc<Vm>> {
        vm::of(&self.0.code).inspect_err(|error| tracing::error!(plugin = self.0.entity.name, "{error}")).ok()
    }

    /// A phase that may wait.
    fn step<'a>(&self, phase: Phase, exchange: &'a mut Exchange) -> Step<'a> {
        let Some(vm) = self.vm() else { return Step::Respond(LocalResponse::message(500, FAILED)) };
        match vm.start(&self.0, phase, exchange) {
            Started::Ended(ended) => outcome(ended).into(),
            Started::Waiting(waiting) if waiting.wants_body() => Step::Body(after_body(waiting)),
            Started::Waiting(waiting) => Step::Wait(Box::pin(Wait { waiting: Some(waiting), exchange })),
        }
    }
}

fn outcome(ended: Ended) -> Outcome {
    match ended {
        Ended::Next | Ended::Left => Outcome::Next,
        Ended::Respond(response) => Outcome::Respond(response),
        Ended::Failed => Outcome::Respond(LocalResponse::message(500, FAILED)),
    }
}

/// A phase below HTTP, in which an exchange stands for `connection`; `take` makes of its end what the connection is told.
fn below_http<'a, C, T: 'a>(
    vm: &Rc<Vm>,
    (instance, phase): (&Arc<Instance>, Phase),
    connection: &'a mut C,
    stand_in: fn(&mut C) -> &mut Exchange,
    take: fn(&Ended, &mut C) -> T,
) -> Soon<'a, T> {
    match vm.start(instance, phase, stand_in(connection)) {
        Started::Ended(ended) => Soon::Now(take(&ended, connection)),
        Started::Waiting(mut waiting) => Soon::Later(Box::pin(async move {
            let ended = poll_fn(|context| waiting.poll(stand_in(connection), context)).await;
            take(&ended, connection)
        })),
    }
}

/// What a plugin said to `stream`. What it printed is sent.
fn said(ended: &Ended, stream: &mut StreamExchange) -> Preread {
    wire::take_over(stream);
    match ended {
        Ended::Next | Ended::Left => Preread::Next,
        Ended::Respond(response) => Preread::Close(response.status),
        Ended::Failed => Preread::Close(500),
    }
}

/// What a plugin said to `handshake`; one that failed refuses it, as in OpenResty.
fn admission(ended: &Ended, handshake: &mut Handshake) -> Admission {
    wire::take_over_wishes(handshake);
    match ended {
        Ended::Next | Ended::Left => Admission::Next,
        Ended::Respond(_) | Ended::Failed => Admission::Refuse,
    }
}

fn after_body(mut waiting: Waiting) -> AfterBody {
    AfterBody::new(move |exchange, read| {
        waiting.body_came(read == BodyRead::Whole);
        Step::Wait(Box::pin(Wait { waiting: Some(waiting), exchange }))
    })
}

/// A handler that waits.
struct Wait<'a> {
    /// `None` once it is over.
    waiting: Option<Waiting>,
    exchange: &'a mut Exchange,
}

impl Future for Wait<'_> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let Self { waiting, exchange } = self.get_mut();
        let Some(mut waited) = waiting.take() else { return Poll::Pending };
        match waited.poll(exchange, context) {
            Poll::Ready(ended) => Poll::Ready(outcome(ended)),
            Poll::Pending if waited.wants_body() => Poll::Ready(Outcome::Body(after_body(waited))),
            Poll::Pending => {
                *waiting = Some(waited);
                Poll::Pending
            }
        }
    }
}

impl Plugin for LuaPlugin {
    fn needs(&self) -> Needs {
        let info = &self.0.info;
        let response = info.has(Phase::Response);
        let phases = Phases {
            rewrite: info.has(Phase::Rewrite),
            access: info.has(Phase::Access),
            response,
            header_filter: info.has(Phase::HeaderFilter),
            body_filter: info.has(Phase::BodyFilter),
            log: info.has(Phase::Log),
            certificate: info.has(Phase::Certificate),
            preread: info.has(Phase::Preread),
            log_stream: info.has(Phase::Log),
            ..Phases::default()
        };
        Needs { phases, request_body: false, response_body: response }
    }

    fn certificate<'a>(&'a self, handshake: &'a mut Handshake) -> Soon<'a, Admission> {
        let Some(vm) = self.vm() else { return Soon::Now(Admission::Refuse) };
        below_http(&vm, (&self.0, Phase::Certificate), handshake, wire::stand_in_of, admission)
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        self.step(Phase::Rewrite, exchange)
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        self.step(Phase::Access, exchange)
    }

    fn response<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        self.step(Phase::Response, exchange)
    }

    fn header_filter(&self, exchange: &mut Exchange) {
        if let Some(vm) = self.vm() {
            vm.call(&self.0, Phase::HeaderFilter, exchange);
        }
    }

    fn body_filter(&self, exchange: &mut Exchange, chunk: &mut Vec<u8>, last: bool) {
        if let Some(vm) = self.vm() {
            vm.filter(&self.0, exchange, chunk, last);
        }
    }

    fn log(&self, record: &RequestRecord<'_>) {
        if let Some(vm) = self.vm() {
            vm.log(&self.0, record);
        }
    }

    fn preread<'a>(&'a self, stream: &'a mut StreamExchange) -> Soon<'a, Preread> {
        let Some(vm) = self.vm() else { return Soon::Now(Preread::Close(500)) };
        below_http(&vm, (&self.0, Phase::Preread), stream, wire::stand_in, said)
    }

    fn log_stream(&self, record: &StreamRecord<'_>) {
        if let Some(vm) = self.vm() {
            vm.log_stream(&self.0, record);
        }
    }
}
