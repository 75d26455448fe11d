//! A request before plugins that see it as it comes: its head, and as much of its body as is needed for the head to go
//! on.
//!
//! A body that is wholly at hand passes the plugins here and is from then on like one that was held in memory: its length
//! is known, and it can be sent again. Of any other nothing is read unless a plugin holds the head; its pieces pass
//! while they are sent.

use crate::client::Connection;
use crate::course::{Course, Desk};
use crate::error::ProxyError;
use crate::leaving::Leaving;
use crate::outcome::{Local, Verdict};
use crate::phases::{request_error, send_continue};
use crate::pieces;
use crate::session::Session;
use crate::upstream::{body_limit, upload_pace};
use crate::worker::WorkerPlan;
use gateward_http::{BodyFraming, Headers};
use std::cell::Cell;

/// Show the request to the chosen plugins that see it as it comes.
pub(crate) async fn request(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Verdict {
    match screen(connection, plan).await {
        Ok(()) => Verdict::Proxy,
        Err(Local::Plugin(response)) => Verdict::Respond(response),
        Err(Local::Error(error)) => Verdict::Fail(error),
    }
}

async fn screen(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Result<(), Local> {
    let held_body_max = connection.worker.node.settings.limits.body_buffer_bytes;
    let Session { exchange, upload, course, returns, active, held_up, .. } = &mut *connection.session;
    let phases = |index: &u32| plan.shared.instances[*index as usize].needs.phases;
    course.get_mut().begin_request(active.iter().copied().filter(|index| phases(index).screens_request()));
    if !course.get_mut().is_begun() {
        return Ok(());
    }
    exchange.held_body_max = held_body_max;
    let bodiless = match &exchange.body {
        Some(body) => body.is_empty(),
        None => upload.is_received() && held_up.is_empty(),
    };
    let sees_pieces = active.iter().any(|index| phases(index).request_piece);
    let metrics = &connection.worker.metrics;
    let desk = Desk { metrics, instances: &plan.shared.instances, request: course, response: returns };
    desk.head(exchange, bodiless)?;
    if bodiless || !sees_pieces {
        // The usual case does not even make the future.
        return if course.borrow().is_open() { Ok(()) } else { Box::pin(wait_for_head(connection, plan)).await };
    }
    screen_body(connection, plan).await
}

/// Wait until the head came through, without reading the body.
async fn wait_for_head(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Result<(), Local> {
    let client = connection.client;
    let Session { exchange, course, returns, .. } = &mut *connection.session;
    let metrics = &connection.worker.metrics;
    let desk = Desk { metrics, instances: &plan.shared.instances, request: course, response: returns };
    desk.beside(exchange, Leaving::of(client), pieces::until(desk.request, Course::is_open)).await
}

/// Show the body, if it is at hand or the head does not go on without.
async fn screen_body(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Result<(), Local> {
    if let Some((body, trailers)) = take_body_at_hand(connection).map_err(Local::Error)? {
        let Session { exchange, course, returns, .. } = &mut *connection.session;
        course.get_mut().offer(body, true, trailers);
        let metrics = &connection.worker.metrics;
        let desk = Desk { metrics, instances: &plan.shared.instances, request: course, response: returns };
        desk.pass_offered(exchange)?;
        if !course.get_mut().is_ended() {
            Box::pin(bring_until_open(connection, plan)).await?;
        }
    } else {
        connection.session.streams = true;
        offer_held_up(connection, plan)?;
        if connection.session.course.get_mut().is_open() {
            return Ok(());
        }
        Box::pin(bring_until_open(connection, plan)).await?;
    }
    take_shown(connection.session);
    Ok(())
}

/// Show the beginning of a body that a plugin asked for and that is too long to hold.
fn offer_held_up(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Result<(), Local> {
    let Session { exchange, course, returns, held_up, .. } = &mut *connection.session;
    if held_up.is_empty() {
        return Ok(());
    }
    course.get_mut().offer(std::mem::take(held_up), false, Headers::default());
    let metrics = &connection.worker.metrics;
    let desk = Desk { metrics, instances: &plan.shared.instances, request: course, response: returns };
    desk.pass_offered(exchange)
}

/// Once all of the body came out, it is one in memory.
fn take_shown(session: &mut Session) {
    let course = session.course.get_mut();
    if course.is_ended() {
        session.streams = false;
        session.exchange.body = Some(course.take_out());
        session.exchange.request_trailers = course.take_trailers();
        session.received_bytes += std::mem::take(&mut session.upload.body_bytes);
    }
}

/// The whole body, if nothing more of it is to be received.
fn take_body_at_hand(connection: &mut Connection<'_>) -> Result<Option<(Vec<u8>, Headers)>, ProxyError> {
    let most = body_limit(connection);
    if !connection.session.held_up.is_empty() {
        return Ok(None);
    }
    let Session { exchange, upload, .. } = &mut *connection.session;
    if let Some(body) = exchange.body.take() {
        return Ok(Some((body, std::mem::take(&mut exchange.request_trailers))));
    }
    if let BodyFraming::Length(length) = exchange.request.framing {
        if length > most {
            return Err(ProxyError::BodyTooLarge);
        }
        if length > upload.input.len() as u64 {
            return Ok(None);
        }
    }
    let mut body = Vec::new();
    let ended = upload.decode(&mut body).map_err(|error| request_error(&error))?;
    if upload.body_bytes > most {
        return Err(ProxyError::BodyTooLarge);
    }
    if ended {
        return Ok(Some((body, std::mem::take(&mut upload.trailers))));
    }
    upload.rewind();
    Ok(None)
}

/// Bring pieces to the plugins until the head came through; to the end, if the end came first.
async fn bring_until_open(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Result<(), Local> {
    let upload = &connection.session.upload;
    let waits = !upload.is_received() && upload.input.is_empty();
    if waits && connection.session.exchange.request.expects_continue {
        send_continue(connection).await.map_err(Local::Error)?;
    }
    let pace = upload_pace(connection, 0, 0);
    let Connection { worker, client, deadline, session, .. } = connection;
    let Session { exchange, upload, course, returns, .. } = &mut **session;
    let metrics = &worker.metrics;
    let desk = Desk { metrics, instances: &plan.shared.instances, request: course, response: returns };
    let work = async {
        pieces::bring(upload, desk.request, client, deadline, pace).await?;
        if desk.request.borrow().is_full() {
            pieces::until(desk.request, Course::is_ended).await;
        }
        Ok(())
    };
    let reading = Cell::new(true);
    let brought = desk.beside(exchange, Leaving::after(&reading, *client), work).await?;
    brought.map_err(|error| Local::Error(request_error(&error)))
}
