//! Waiting while a filter pauses: for answers to its callouts, and for other contexts that tell it to go on.

use super::run::{Entry, Progress, weigh};
use super::view::{Reach, Stage};
use super::worker::{Running, Shared, carry, unserved};
use crate::callout::{Callout, CalloutKind, HttpReply, Token};
use crate::failure::Failure;
use crate::types::{Action, Direction};
use gateward_plugin::Exchange;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::mpsc;
use tokio::time::Sleep;

/// Longest pause while nothing but the filter is waited for.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// How a pause ended.
pub(super) enum Paused {
    /// The filter went on, answered or closed.
    Ended(Progress),
    /// The filter failed.
    Failed(Failure),
    /// Nothing happened for [`LONGEST`].
    TooLong,
}

type Answers = mpsc::UnboundedSender<(Token, HttpReply)>;

/// What is waited for while one direction of a stream pauses.
pub(super) struct Pause {
    // As many as the stream has callouts under way, which is limited.
    answers: Answers,
    answered: mpsc::UnboundedReceiver<(Token, HttpReply)>,
    resumed: Pin<Box<OwnedNotified>>,
    too_long: Option<Pin<Box<Sleep>>>,
}

impl Pause {
    fn new(running: &Running) -> Self {
        let (answers, answered) = mpsc::unbounded_channel();
        Self { answers, answered, resumed: listen(running), too_long: None }
    }
}

/// Notified of everything that happens from now on.
fn listen(running: &Running) -> Pin<Box<OwnedNotified>> {
    let mut resumed = Box::pin(running.resumed.clone().notified_owned());
    resumed.as_mut().enable();
    resumed
}

/// Wait until the filter goes on.
pub(super) async fn wait(shared: &Arc<Shared>, entry: &mut Entry, exchange: &mut Exchange, stage: Stage) -> Paused {
    poll_fn(|context| poll(shared, entry, exchange, stage, true, context)).await
}

/// Whether a filter that paused goes on. `bounded`: nothing but the filter is waited for.
pub(super) fn poll(
    shared: &Arc<Shared>,
    entry: &mut Entry,
    exchange: &mut Exchange,
    stage: Stage,
    bounded: bool,
    context: &mut Context<'_>,
) -> Poll<Paused> {
    let running = entry.ticket.running.clone();
    let pause = entry.side(direction(stage)).pause.take();
    let mut pause = pause.unwrap_or_else(|| Box::new(Pause::new(&running)));
    let polled = poll_pause(shared, entry, exchange, stage, &mut pause, context);
    if polled.is_ready() {
        return polled;
    }
    if bounded {
        let too_long = pause.too_long.get_or_insert_with(|| Box::pin(tokio::time::sleep(LONGEST)));
        if too_long.as_mut().poll(context).is_ready() {
            return Poll::Ready(Paused::TooLong);
        }
    }
    entry.side(direction(stage)).pause = Some(pause);
    Poll::Pending
}

/// The direction that pauses.
fn direction(stage: Stage) -> Direction {
    if stage == Stage::Request { Direction::Request } else { Direction::Response }
}

fn poll_pause(
    shared: &Arc<Shared>,
    entry: &mut Entry,
    exchange: &mut Exchange,
    stage: Stage,
    pause: &mut Pause,
    context: &mut Context<'_>,
) -> Poll<Paused> {
    let (running, id) = (entry.ticket.running.clone(), entry.ticket.context);
    loop {
        let callouts = {
            let mut instance = running.instance();
            if instance.has_callouts() { instance.take_callouts() } else { Vec::new() }
        };
        for callout in callouts {
            if callout.context != id {
                running.send(callout);
            } else if let Err(failure) = send(shared, entry, callout, &pause.answers, exchange, stage) {
                return Poll::Ready(Paused::Failed(failure));
            }
        }
        {
            let mut instance = running.instance();
            if let Some(dead) = instance.dead() {
                return Poll::Ready(Paused::Failed(dead.clone()));
            }
            match weigh(Action::Pause, instance.take_signals(id, direction(stage)), direction(stage)) {
                Progress::Wait => {}
                ended => return Poll::Ready(Paused::Ended(ended)),
            }
            if instance.has_callouts() {
                continue;
            }
        }
        if let Poll::Ready(Some((token, reply))) = pause.answered.poll_recv(context) {
            let told = entry.with_held(direction(stage), |entry, held| {
                let mut view = entry.view(Reach::Write(exchange), stage, Some(held));
                running.instance().http_reply(token, reply, Some(&mut view))
            });
            if let Err(failure) = told {
                return Poll::Ready(Paused::Failed(failure));
            }
        } else if pause.resumed.as_mut().poll(context).is_ready() {
            pause.resumed = listen(&running);
        } else {
            return Poll::Pending;
        }
    }
}

/// Send a callout of the stream's. Its answer comes back here, or goes to the instance when nobody waits any more.
fn send(
    shared: &Arc<Shared>,
    entry: &mut Entry,
    callout: Callout,
    answers: &Answers,
    exchange: &mut Exchange,
    stage: Stage,
) -> Result<(), Failure> {
    let token = callout.token;
    match callout.kind {
        CalloutKind::Http(call) => {
            let answer = carry(shared, call);
            let (answers, running) = (answers.clone(), Arc::downgrade(&entry.ticket.running));
            shared.background.spawn(async move {
                let unwanted = answers.send((token, answer.await)).err();
                if let (Some(mpsc::error::SendError((token, reply))), Some(running)) = (unwanted, running.upgrade()) {
                    running.told(|instance| instance.http_reply(token, reply, None));
                }
            });
        }
        CalloutKind::Grpc(_) => {
            let running = entry.ticket.running.clone();
            let mut view = entry.view(Reach::Write(exchange), stage, None);
            running.instance().grpc_event(token, unserved(), Some(&mut view))?;
        }
        CalloutKind::GrpcSend { .. } | CalloutKind::GrpcClose | CalloutKind::Cancel => {}
    }
    Ok(())
}
