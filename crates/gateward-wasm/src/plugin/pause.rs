//! Waiting while a filter pauses: for answers to its callouts, and for other contexts that tell it to go on.

use super::run::{Entry, Progress, weigh};
use super::view::{Reach, Stage};
use super::worker::{Shared, carry, unserved};
use crate::callout::{Callout, CalloutKind, HttpReply, Token};
use crate::failure::Failure;
use crate::types::{Action, Direction};
use gateward_plugin::Exchange;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Longest pause of one phase.
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

/// Wait until the filter goes on.
pub(super) async fn wait(shared: &Arc<Shared>, entry: &mut Entry, exchange: &mut Exchange, stage: Stage) -> Paused {
    let (running, context) = (entry.ticket.running.clone(), entry.ticket.context);
    let direction = if stage == Stage::Request { Direction::Request } else { Direction::Response };
    // As many as the stream has callouts under way, which is limited.
    let (answers, mut answered) = mpsc::unbounded_channel();
    let mut too_long = pin!(tokio::time::sleep(LONGEST));
    loop {
        let mut resumed = pin!(running.resumed.notified());
        resumed.as_mut().enable();
        let callouts = running.instance().take_callouts();
        for callout in callouts {
            if callout.context != context {
                running.send(callout);
            } else if let Err(failure) = send(shared, entry, callout, &answers, exchange, stage) {
                return Paused::Failed(failure);
            }
        }
        {
            let mut instance = running.instance();
            if let Some(dead) = instance.dead() {
                return Paused::Failed(dead.clone());
            }
            match weigh(Action::Pause, instance.take_signals(context), direction) {
                Progress::Wait => {}
                ended => return Paused::Ended(ended),
            }
            if instance.has_callouts() {
                continue;
            }
        }
        let answer = tokio::select! {
            biased;
            answer = answered.recv() => answer,
            () = resumed => None,
            () = &mut too_long => return Paused::TooLong,
        };
        if let Some((token, reply)) = answer {
            let mut view = entry.view(Reach::Write(exchange), stage, None);
            if let Err(failure) = running.instance().http_reply(token, reply, Some(&mut view)) {
                return Paused::Failed(failure);
            }
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
