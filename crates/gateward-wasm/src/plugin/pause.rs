//! Waiting while a filter pauses: for answers to its callouts, and for other contexts that tell it to go on.

use super::run::{Entry, Progress, weigh};
use super::under_way::Waiting;
use super::view::{Reach, Stage};
use super::worker::Running;
use crate::failure::Failure;
use crate::host::ContextId;
use crate::types::{Action, Direction};
use gateward_plugin::Exchange;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
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

/// What is waited for while one direction of a stream pauses.
pub(super) struct Pause {
    /// What comes for the stream's callouts is told here, with the stream at hand.
    waiting: Waiting,
    arrived: Pin<Box<OwnedNotified>>,
    resumed: Pin<Box<OwnedNotified>>,
    too_long: Option<Pin<Box<Sleep>>>,
}

impl Pause {
    fn new(running: &Arc<Running>, id: ContextId) -> Self {
        let waiting = running.wait_for(id);
        let (arrived, resumed) = (listen(&waiting.wake), listen(&running.resumed));
        Self { waiting, arrived, resumed, too_long: None }
    }
}

/// Notified of everything that happens from now on.
fn listen(notify: &Arc<Notify>) -> Pin<Box<OwnedNotified>> {
    let mut notified = Box::pin(notify.clone().notified_owned());
    notified.as_mut().enable();
    notified
}

/// The filter paused: from now on what comes for it waits until it is asked for.
pub(super) fn begin(entry: &mut Entry, direction: Direction) {
    let (running, id) = (entry.ticket.running.clone(), entry.ticket.context);
    entry.side(direction).pause.get_or_insert_with(|| Box::new(Pause::new(&running, id)));
}

/// Whether a filter that paused goes on. `bounded`: nothing but the filter is waited for.
pub(super) fn poll(
    entry: &mut Entry,
    exchange: &mut Exchange,
    stage: Stage,
    bounded: bool,
    context: &mut Context<'_>,
) -> Poll<Paused> {
    let (running, id) = (entry.ticket.running.clone(), entry.ticket.context);
    let pause = entry.side(direction(stage)).pause.take();
    let mut pause = pause.unwrap_or_else(|| Box::new(Pause::new(&running, id)));
    let polled = poll_pause(entry, exchange, stage, &mut pause, context);
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
    entry: &mut Entry,
    exchange: &mut Exchange,
    stage: Stage,
    pause: &mut Pause,
    context: &mut Context<'_>,
) -> Poll<Paused> {
    let (running, id) = (entry.ticket.running.clone(), entry.ticket.context);
    loop {
        let arrived = pause.waiting.next();
        let told = arrived.is_some();
        if let Some(arrived) = arrived {
            let told = entry.with_held(direction(stage), |entry, held| {
                let mut view = entry.view(Reach::Write(exchange), stage, Some(held));
                running.instance().callout_event(arrived.token, arrived.event, Some(&mut view))
            });
            if let Err(failure) = told {
                return Poll::Ready(Paused::Failed(failure));
            }
        }
        running.settle();
        {
            let mut instance = running.instance();
            if let Some(dead) = instance.dead() {
                return Poll::Ready(Paused::Failed(dead.clone()));
            }
            match weigh(Action::Pause, instance.take_signals(id, direction(stage)), direction(stage)) {
                Progress::Wait => {}
                ended => return Poll::Ready(Paused::Ended(ended)),
            }
        }
        if told {
            // There may be more.
            continue;
        }
        if pause.arrived.as_mut().poll(context).is_ready() {
            pause.arrived = listen(&pause.waiting.wake);
        } else if pause.resumed.as_mut().poll(context).is_ready() {
            pause.resumed = listen(&running.resumed);
        } else {
            return Poll::Pending;
        }
    }
}
