//! The exchange of heads: send the request, wait for the head of the response. Bodies may still be on their way.

use super::choice::failed_attempt;
use super::{Again, Answered, Failed};
use crate::answer::{self, Receiver};
use crate::body::STREAM_BYTES;
use crate::client::Connection;
use crate::course::Desk;
use crate::error::{ProxyError, Side};
use crate::health::Attempt;
use crate::leaving::Leaving;
use crate::phases::{request_error, send_continue};
use crate::pieces;
use crate::pump::{Pace, PumpError};
use crate::session::Session;
use crate::worker::WorkerPlan;
use gateward_http::HeadError;
use std::cell::Cell;
use std::io;

/// Send head and body, and receive the response head. The body may still be on its way when the head arrives.
pub(super) async fn send_and_wait(
    connection: &mut Connection<'_>,
    mut answered: Box<Answered>,
    pace: Pace,
    began_us: u64,
    plan: &WorkerPlan,
) -> Result<Box<Answered>, Failed> {
    let outcome = if connection.session.streams {
        Box::pin(send_through_plugins(connection, &mut answered, pace, plan)).await
    } else {
        exchange_heads(connection, &mut answered, pace).await
    };
    let now = connection.worker.now_us();
    let session = &mut *connection.session;
    match outcome {
        Ok(()) => {
            session.times.answered = Some(now);
            session.upstream_status = Some(session.response_head.status);
            if let Some(load) = &mut answered.link.load {
                load.latency_us = Some(now.saturating_sub(began_us));
                load.attempt = Some(Attempt::Status(session.response_head.status));
            }
            answered.link.count_request();
            Ok(answered)
        }
        Err(error) => {
            let silent = session.download.input.is_empty();
            if let Some(attempt) = session.exchange.tries.last_mut().filter(|_| error.side() == Side::Upstream) {
                attempt.failure = Some(if error == ProxyError::UpstreamTimeout { "timeout" } else { "failed" });
            }
            session.download.input.reset();
            // Where the peer says that it did not look, sending again is like sending at last.
            let refused = answered.link.is_refused();
            let stale = error == ProxyError::UpstreamClosed && silent && !refused && answered.link.may_have_been_dead();
            if let Some(load) = answered.link.load.as_mut().filter(|_| !stale) {
                load.attempt = failed_attempt(error);
            }
            Err(Failed { error, sent: !refused, stale, again: Again::Ask })
        }
    }
}

async fn exchange_heads(
    connection: &mut Connection<'_>,
    answered: &mut Answered,
    pace: Pace,
) -> Result<(), ProxyError> {
    let Session { exchange, upload, held_up, .. } = &mut *connection.session;
    if let Some(body) = &exchange.body {
        upload.encode(body);
        if !exchange.request_trailers.is_empty() {
            upload.trailers.clone_from(&exchange.request_trailers);
        }
    } else if !held_up.is_empty() {
        upload.encode(&std::mem::take(held_up));
    }
    connection.session.upload.digest(pace.most).map_err(|error| request_error(&error))?;
    if connection.session.exchange.request.expects_continue && !connection.session.upload.is_received() {
        send_continue(connection).await?;
    }
    let all_at_hand = {
        let upload = &connection.session.upload;
        upload.is_received() && upload.output.len() <= STREAM_BYTES
    };
    if !all_at_hand {
        return Box::pin(send_while_waiting(connection, answered, pace)).await;
    }
    // The usual case: everything there is to send leaves in one piece.
    let Connection { worker, client, deadline, session, .. } = connection;
    let (client, upstream) = (*client, answered.link.channel());
    if !upstream.post(&mut session.upload, &worker.outbox) {
        let sent = session.upload.flush(&upstream, deadline, pace.write_ms).await;
        tolerate_early_answer(sent)?;
    }
    let limits = &worker.node.settings.limits.head;
    let sent_at = Cell::new(Some(0));
    answer::receive(upstream, Receiver::of(session), limits, answered.read_ms, &sent_at, client).await
}

/// Send a body that is long or still on its way, and look out for the answer meanwhile.
async fn send_while_waiting(
    connection: &mut Connection<'_>,
    answered: &mut Answered,
    pace: Pace,
) -> Result<(), ProxyError> {
    let Connection { worker, client, deadline, session, .. } = connection;
    let (client, upstream) = (*client, answered.link.channel());
    let limits = &worker.node.settings.limits.head;
    let mut upload = std::mem::take(&mut session.upload);
    let sent_at = Cell::new(None);
    let outcome = {
        let sending = upload.run(&client, &upstream, deadline, pace);
        let receiving = answer::receive(upstream, Receiver::of(session), limits, answered.read_ms, &sent_at, client);
        send_beside(sending, receiving, || sent_at.set(Some(worker.deadlines.now_ms()))).await
    };
    session.upload = upload;
    if outcome.is_ok() && session.response_head.status == 101 && !session.upload.is_finished() {
        // The client has not even asked to the end (RFC 9110 section 7.8).
        return Err(ProxyError::UpstreamHead(HeadError::StatusLine));
    }
    outcome
}

/// Send the body and receive the answer at the same time; the answer may come before the body's end.
async fn send_beside(
    sending: impl Future<Output = Result<(), PumpError>>,
    receiving: impl Future<Output = Result<(), ProxyError>>,
    note_sent: impl FnOnce(),
) -> Result<(), ProxyError> {
    let (mut sending, mut receiving) = (std::pin::pin!(sending), std::pin::pin!(receiving));
    tokio::select! {
        biased;
        received = &mut receiving => received,
        sent = &mut sending => {
            tolerate_early_answer(sent)?;
            note_sent();
            receiving.await
        }
    }
}

/// Likewise a body that goes through plugins piece by piece.
async fn send_through_plugins(
    connection: &mut Connection<'_>,
    answered: &mut Answered,
    pace: Pace,
    plan: &WorkerPlan,
) -> Result<(), ProxyError> {
    if connection.session.exchange.request.expects_continue && !connection.session.upload.is_received() {
        send_continue(connection).await?;
    }
    let Connection { worker, client, deadline, session, .. } = connection;
    let (client, upstream) = (*client, answered.link.channel());
    let limits = &worker.node.settings.limits.head;
    let Session { exchange, upload, response_head: head, download, deadline: own, upgrade, course, returns, .. } =
        &mut **session;
    let method = exchange.upstream.method.as_ref().unwrap_or(&exchange.request.method).clone();
    let receiver =
        Receiver { method: &method, version: exchange.request.version, head, download, deadline: own, upgrade };
    let desk = Desk { metrics: &worker.metrics, instances: &plan.shared.instances, request: course, response: returns };
    let sent_at = Cell::new(None);
    let work = async {
        let sending = pieces::run(upload, desk.request, &client, &upstream, deadline, pace);
        let receiving = answer::receive(upstream, receiver, limits, answered.read_ms, &sent_at, client);
        send_beside(sending, receiving, || sent_at.set(Some(worker.deadlines.now_ms()))).await
    };
    let reading = Cell::new(true);
    match desk.beside(exchange, Leaving::after(&reading, client), work).await {
        Ok(Ok(())) if session.response_head.status == 101 && !session.upload.is_finished() => {
            Err(ProxyError::UpstreamHead(HeadError::StatusLine))
        }
        Ok(outcome) => outcome,
        Err(local) => Err(session.course.get_mut().stopped_by(local)),
    }
}

/// An upstream that stops taking the request may have answered already: go and see. Anything else is an error.
fn tolerate_early_answer(sent: Result<(), PumpError>) -> Result<(), ProxyError> {
    match sent {
        Ok(()) => Ok(()),
        Err(PumpError::Write(error)) if error.kind() == io::ErrorKind::TimedOut => Err(ProxyError::UpstreamTimeout),
        Err(PumpError::Write(_)) => Ok(()),
        Err(error) => Err(request_error(&error)),
    }
}
