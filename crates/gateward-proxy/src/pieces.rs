//! Moving a body that plugins look at: pieces go into its [`Course`] as they come, and on as they come out.
//!
//! As in the [pump](crate::pump), all state outlives the future: a run may be dropped and taken up again. Whoever runs
//! these loops has the courses served meanwhile (see [`Desk::beside`](crate::course::Desk::beside)).

use crate::course::Course;
use crate::flow::{Sink, Source};
use crate::pump::{Pace, Pump, PumpError};
use gateward_http::Headers;
use gateward_net::Deadline;
use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;

/// Wait until `course` is as it should be.
pub(crate) async fn until(course: &RefCell<Course>, is: impl Fn(&Course) -> bool) {
    poll_fn(|_| if is(&course.borrow()) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Bring pieces in until the message's head came through, or all of the body went in.
pub(crate) async fn bring(
    pump: &mut Pump,
    course: &RefCell<Course>,
    source: &impl Source,
    deadline: &Deadline,
    pace: Pace,
) -> Result<(), PumpError> {
    let began_ms = deadline.now_ms();
    loop {
        offer_next(pump, course, pace.most)?;
        until(course, Course::is_served).await;
        if course.borrow().is_open() || course.borrow().is_full() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = until(course, Course::is_open) => return Ok(()),
            received = pump.receive(source, deadline, pace, began_ms) => received?,
        }
    }
}

/// Move the rest of the body. May be dropped and called again.
pub(crate) async fn run(
    pump: &mut Pump,
    course: &RefCell<Course>,
    source: &impl Source,
    sink: &impl Sink,
    deadline: &Deadline,
    pace: Pace,
) -> Result<(), PumpError> {
    let began_ms = deadline.now_ms();
    loop {
        until(course, Course::is_served).await;
        take_out(pump, course);
        pump.flush(sink, deadline, pace.write_ms).await?;
        if pump.is_finished() {
            return Ok(());
        }
        if offer_next(pump, course, pace.most)? {
            continue;
        }
        if course.borrow().is_full() {
            until(course, Course::has_news).await;
            continue;
        }
        tokio::select! {
            biased;
            () = until(course, Course::has_news) => {}
            received = pump.receive(source, deadline, pace, began_ms) => received?,
        }
    }
}

/// Encode what came out.
pub(crate) fn take_out(pump: &mut Pump, course: &RefCell<Course>) {
    let mut course = course.borrow_mut();
    if course.has_news() {
        pump.encode(&course.take_out());
    }
    if course.is_ended() && !pump.is_concluded() {
        pump.finish(course.take_trailers());
    }
}

/// Offer what was received, if something was; whether there was.
fn offer_next(pump: &mut Pump, course: &RefCell<Course>, most: u64) -> Result<bool, PumpError> {
    if course.borrow().is_full() {
        return Ok(false);
    }
    let mut piece = Vec::new();
    let last = pump.decode(&mut piece)?;
    if pump.body_bytes > most {
        return Err(PumpError::TooLarge);
    }
    if piece.is_empty() && !last {
        return Ok(false);
    }
    pump.spend();
    let trailers = if last { std::mem::take(&mut pump.trailers) } else { Headers::default() };
    course.borrow_mut().offer(piece, last, trailers);
    Ok(true)
}
