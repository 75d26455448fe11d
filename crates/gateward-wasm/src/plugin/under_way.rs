//! Callouts under way of one instance: begun, fed, given up, and what comes of them told to whoever waits for it.
//!
//! Each callout is a task on the background runtime. What it brings goes to the request that pauses in the context which
//! asked, so that the filter has the request at hand, and otherwise straight to the instance. Of a gRPC stream nothing
//! comes before what came earlier was told, which keeps the order.

use super::carry::Carried;
use super::worker::{Running, Shared, lock};
use crate::callout::{
    Callout, CalloutEvent, CalloutKind, CalloutStatus, GrpcCall, GrpcEvent, HttpCall, HttpReply, MessageSender,
    Messages, Token,
};
use crate::callout_stats::{CalloutProtocol, Timed};
use crate::host::ContextId;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;

/// The callouts of one instance.
#[derive(Default)]
pub(super) struct UnderWay {
    calls: Mutex<FxHashMap<Token, Ongoing>>,
    /// Requests that pause, by context.
    waiters: Mutex<FxHashMap<ContextId, Waiter>>,
}

/// A callout; dropped: given up.
struct Ongoing {
    task: AbortHandle,
    /// Where a gRPC stream takes messages, until the filter's side ends.
    messages: Option<MessageSender>,
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request that pauses, in one direction or both.
#[derive(Default)]
struct Waiter {
    arrived: VecDeque<Arrived>,
    wake: Arc<Notify>,
    holders: usize,
}

/// Something that came for a paused request.
pub(super) struct Arrived {
    pub(super) token: Token,
    pub(super) event: CalloutEvent,
    /// Held until it was told, so that a gRPC stream brings no more than one at a time.
    _place: Option<OwnedSemaphorePermit>,
}

/// While this exists, what comes for a context is told by who holds it.
pub(super) struct Waiting {
    running: Arc<Running>,
    context: ContextId,
    /// Told of everything that comes.
    pub(super) wake: Arc<Notify>,
}

impl Waiting {
    /// The next of what has come.
    pub(super) fn next(&self) -> Option<Arrived> {
        lock(&self.running.under_way.waiters).get_mut(&self.context)?.arrived.pop_front()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiters = lock(&self.running.under_way.waiters);
        let Some(waiter) = waiters.get_mut(&self.context) else { return };
        waiter.holders -= 1;
        if waiter.holders > 0 {
            return;
        }
        let left = waiters.remove(&self.context).map(|waiter| waiter.arrived).unwrap_or_default();
        drop(waiters);
        // What came with what ended the pause is told without the request at hand.
        if let (false, Some(shared)) = (left.is_empty(), self.running.shared.upgrade()) {
            let running = Arc::downgrade(&self.running);
            shared.background.spawn(async move {
                for arrived in left {
                    let Some(running) = running.upgrade() else { return };
                    running.told(|instance| instance.callout_event(arrived.token, arrived.event, None));
                }
            });
        }
    }
}

impl Running {
    /// From now on the caller tells what comes for `context`.
    pub(super) fn wait_for(self: &Arc<Self>, context: ContextId) -> Waiting {
        let mut waiters = lock(&self.under_way.waiters);
        let waiter = waiters.entry(context).or_default();
        waiter.holders += 1;
        let wake = waiter.wake.clone();
        drop(waiters);
        Waiting { running: self.clone(), context, wake }
    }

    /// Begin, feed and give up what the filter asked for since the last time.
    pub(super) fn settle(self: &Arc<Self>) {
        // Under the instance's lock, so that what is asked on two threads is done in order.
        let mut instance = self.instance();
        if !instance.has_callouts() {
            return;
        }
        let callouts = instance.take_callouts();
        let Some(shared) = self.shared.upgrade() else { return };
        for callout in callouts {
            self.dispatch(&shared, callout);
        }
        drop(instance);
    }

    fn dispatch(self: &Arc<Self>, shared: &Arc<Shared>, Callout { token, context, kind }: Callout) {
        let to = Recipient { running: Arc::downgrade(self), token, context };
        let mut calls = lock(&self.under_way.calls);
        match kind {
            CalloutKind::Http(call) => {
                let timed = shared.callouts.begin(CalloutProtocol::Http);
                let task = shared.background.spawn(http(answer(shared, call), to, timed)).abort_handle();
                calls.insert(token, Ongoing { task, messages: None });
            }
            CalloutKind::Grpc(call) => {
                let (messages, sent) = Messages::channel();
                let unary = call.message.clone();
                let call = GrpcUnderWay::begin(shared, call, sent);
                let (task, messages) = match unary {
                    Some(message) => {
                        messages.send(message);
                        let timed = shared.callouts.begin(CalloutProtocol::Grpc);
                        (shared.background.spawn(self::unary(call, to, timed)), None)
                    }
                    None => {
                        let timed = shared.callouts.begin(CalloutProtocol::GrpcStream);
                        (shared.background.spawn(stream(call, to, timed)), Some(messages))
                    }
                };
                calls.insert(token, Ongoing { task: task.abort_handle(), messages });
            }
            CalloutKind::GrpcSend { message, end } => {
                let Some(call) = calls.get_mut(&token) else { return };
                let fits = call.messages.as_ref().is_none_or(|messages| messages.send(message));
                if end {
                    call.messages = None;
                }
                if !fits {
                    drop(calls.remove(&token));
                    shared.background.spawn(async move {
                        let status = CalloutStatus::new(
                            CalloutStatus::RESOURCE_EXHAUSTED,
                            "too much was sent that the callee does not take",
                        );
                        to.tell(CalloutEvent::Grpc(GrpcEvent::Close(status)), None);
                    });
                }
            }
            CalloutKind::GrpcClose => {
                if let Some(call) = calls.get_mut(&token) {
                    call.messages = None;
                }
            }
            CalloutKind::Cancel => drop(calls.remove(&token)),
        }
    }
}

/// Whom to tell what comes of a callout. Does not keep the instance alive.
struct Recipient {
    running: Weak<Running>,
    token: Token,
    context: ContextId,
}

impl Recipient {
    fn tell(&self, event: CalloutEvent, place: Option<OwnedSemaphorePermit>) {
        let Some(running) = self.running.upgrade() else { return };
        {
            let mut waiters = lock(&running.under_way.waiters);
            if let Some(waiter) = waiters.get_mut(&self.context) {
                waiter.arrived.push_back(Arrived { token: self.token, event, _place: place });
                waiter.wake.notify_waiters();
                return;
            }
        }
        running.told(|instance| instance.callout_event(self.token, event, None));
    }

    /// The callout is over: the last thing its task does.
    fn done(&self) {
        if let Some(running) = self.running.upgrade() {
            drop(lock(&running.under_way.calls).remove(&self.token));
        }
    }
}

/// The answer to a call over HTTP.
fn answer(shared: &Shared, call: HttpCall) -> Carried<HttpReply> {
    let most = shared.filter.config().limits.callout_body_bytes;
    match shared.known.destination(&call.upstream) {
        Some(destination) => shared.carrier.http(destination, call, most),
        None => Box::pin(async { HttpReply::failure("there is nothing of this name that can be called") }),
    }
}

async fn http(answer: Carried<HttpReply>, to: Recipient, timed: Timed) {
    let reply = answer.await;
    timed.ended(reply.status.code);
    to.tell(CalloutEvent::Http(reply), None);
    to.done();
}

/// A gRPC call being carried.
struct GrpcUnderWay {
    carried: Carried<CalloutStatus>,
    arriving: mpsc::Receiver<GrpcEvent>,
    ended: Option<CalloutStatus>,
}

impl GrpcUnderWay {
    fn begin(shared: &Shared, call: GrpcCall, sent: Messages) -> Self {
        let most = shared.filter.config().limits.callout_body_bytes;
        let (events, arriving) = mpsc::channel(1);
        let carried = match shared.known.destination(&call.upstream) {
            Some(destination) => shared.carrier.grpc(destination, call, sent, events, most),
            None => Box::pin(async {
                let text = "there is nothing of this name that can be called";
                CalloutStatus::new(CalloutStatus::UNAVAILABLE, text)
            }),
        };
        Self { carried, arriving, ended: None }
    }

    /// What comes next; the last is the call's close.
    async fn next(&mut self) -> GrpcEvent {
        if self.ended.is_none() {
            tokio::select! {
                biased;
                Some(event) = self.arriving.recv() => return event,
                status = &mut self.carried => self.ended = Some(status),
            }
        }
        match self.arriving.try_recv() {
            Ok(event) => event,
            Err(_) => GrpcEvent::Close(self.ended.clone().unwrap_or_default()),
        }
    }
}

/// The filter is told of one message, or of a failure.
async fn unary(mut call: GrpcUnderWay, to: Recipient, timed: Timed) {
    let mut answer = None;
    let mut status = loop {
        match call.next().await {
            GrpcEvent::Message(message) => answer = Some(message),
            GrpcEvent::Close(status) => break status,
            GrpcEvent::Initial(_) | GrpcEvent::Trailing(_) => {}
        }
    };
    if status.code == CalloutStatus::OK && answer.is_none() {
        status = CalloutStatus::new(CalloutStatus::INTERNAL, "the callee sent no message");
    }
    timed.ended(status.code);
    let event = match answer {
        Some(message) if status.code == CalloutStatus::OK => GrpcEvent::Message(message),
        _ => GrpcEvent::Close(status),
    };
    to.tell(CalloutEvent::Grpc(event), None);
    to.done();
}

async fn stream(mut call: GrpcUnderWay, to: Recipient, timed: Timed) {
    let place = Arc::new(Semaphore::new(1));
    let status = loop {
        let event = call.next().await;
        let taken = place.clone().acquire_owned().await.ok();
        if let GrpcEvent::Close(status) = &event {
            let status = status.code;
            to.tell(CalloutEvent::Grpc(event), taken);
            break status;
        }
        to.tell(CalloutEvent::Grpc(event), taken);
    };
    timed.ended(status);
    to.done();
}
