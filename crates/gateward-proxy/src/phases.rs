//! Running plugins: phase by phase, in order, each call fenced so that a panic costs one request.

use crate::channel::Channel;
use crate::client::Connection;
use crate::error::ProxyError;
use crate::instance::{ChainId, Instance, Panicked, fenced};
use crate::leaving::Leaving;
use crate::outcome::Verdict;
use crate::pump::{Pace, PumpError};
use crate::session::Session;
use crate::worker::WorkerPlan;
use gateward_http::{BodyFraming, Headers};
use gateward_plugin::{AfterBody, BodyRead, Exchange, Outcome, Plugin, RequestRecord, Step};
use gateward_telemetry::WorkerMetrics;
use std::future::poll_fn;
use std::task::Poll;

/// The rewrite phase of global plugins, before the route is known.
pub(crate) async fn rewrite(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Verdict {
    let chain = &plan.shared.chains[plan.shared.global_chain.0 as usize];
    if !chain.needs.phases.rewrite {
        return Verdict::Proxy;
    }
    for link in &chain.links {
        let Some(instance) = link.select(None).map(|index| &plan.shared.instances[index as usize]) else { continue };
        if instance.needs.phases.rewrite {
            match run(connection, instance, Leaving::nobody(), |plugin, exchange| plugin.rewrite(exchange)).await {
                Verdict::Proxy => {}
                ended => return ended,
            }
        }
    }
    Verdict::Proxy
}

/// The access phase of a route's plugins. After one of them ended the request the later ones are still chosen,
/// so that their header, body and log phases run, but their access phase is skipped.
pub(crate) async fn access(connection: &mut Connection<'_>, plan: &WorkerPlan, chain: ChainId) -> Verdict {
    let chain = &plan.shared.chains[chain.0 as usize];
    if chain.links.is_empty() {
        return Verdict::Proxy;
    }
    let mut verdict = Verdict::Proxy;
    connection.session.wanted = chain.needs;
    if chain.needs.request_body
        && let Err(error) = Box::pin(buffer_request(connection)).await
    {
        verdict = Verdict::Fail(error);
    }
    for link in &chain.links {
        let consumer = connection.session.exchange.auth.consumer.as_ref().map(|consumer| consumer.id);
        let Some(index) = link.select(consumer) else { continue };
        connection.session.active.push(index);
        let instance = &plan.shared.instances[index as usize];
        if instance.needs.phases.access && matches!(verdict, Verdict::Proxy) {
            match run(connection, instance, Leaving::nobody(), |plugin, exchange| plugin.access(exchange)).await {
                Verdict::Proxy => {}
                ended => verdict = ended,
            }
        }
    }
    verdict
}

/// Choose the plugins of a request that has no route: the global ones.
pub(crate) fn collect_global(connection: &mut Connection<'_>, plan: &WorkerPlan) {
    let chain = match connection.session.route {
        Some(route) => plan.shared.routes[route].chain,
        None => plan.shared.global_chain,
    };
    let chain = &plan.shared.chains[chain.0 as usize];
    connection.session.wanted = chain.needs;
    connection.session.active.extend(chain.links.iter().filter_map(|link| link.select(None)));
}

/// The response phase: with the whole upstream response in hand. `Some`: answer this instead.
pub(crate) async fn response(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Verdict {
    for position in 0..connection.session.active.len() {
        let instance = active(connection, plan, position);
        if instance.needs.phases.response {
            match run(connection, instance, Leaving::nobody(), |plugin, exchange| plugin.response(exchange)).await {
                Verdict::Proxy => {}
                ended => return ended,
            }
        }
    }
    Verdict::Proxy
}

/// Whether any chosen plugin takes part in the response_head phase.
pub(crate) fn wants_response_head(connection: &Connection<'_>, plan: &WorkerPlan) -> bool {
    let wants = |index: &u32| plan.shared.instances[*index as usize].needs.phases.response_head;
    connection.session.wanted.phases.response_head && connection.session.active.iter().any(wants)
}

/// The response_head phase: before the upstream's response head is passed on.
pub(crate) async fn response_head(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Verdict {
    for position in 0..connection.session.active.len() {
        let instance = active(connection, plan, position);
        if instance.needs.phases.response_head {
            let leaving = Leaving::of(connection.client);
            match run(connection, instance, leaving, |plugin, exchange| plugin.response_head(exchange)).await {
                Verdict::Proxy => {}
                ended => return ended,
            }
        }
    }
    Verdict::Proxy
}

/// The header_filter phase. A plugin that panics here loses its say; the response goes on.
pub(crate) fn header_filter(connection: &mut Connection<'_>, plan: &WorkerPlan) {
    if !connection.session.wanted.phases.header_filter {
        return;
    }
    for position in 0..connection.session.active.len() {
        let instance = active(connection, plan, position);
        if instance.needs.phases.header_filter {
            let exchange = &mut connection.session.exchange;
            let _ = fenced(&connection.worker.metrics, instance, |plugin| plugin.header_filter(exchange));
        }
    }
}

/// Whether any chosen plugin wants to see the response body.
pub(crate) fn filters_body(connection: &Connection<'_>, plan: &WorkerPlan) -> bool {
    let wants = |index: &u32| plan.shared.instances[*index as usize].needs.phases.body_filter;
    connection.session.wanted.phases.body_filter && connection.session.active.iter().any(wants)
}

/// The log phase.
pub(crate) fn log(metrics: &WorkerMetrics, plan: &WorkerPlan, session: &Session, record: &RequestRecord<'_>) {
    if !session.wanted.phases.log {
        return;
    }
    for index in &session.active {
        let instance = &plan.shared.instances[*index as usize];
        if instance.needs.phases.log {
            let _ = fenced(metrics, instance, |plugin| plugin.log(record));
        }
    }
}

fn active<'p>(connection: &Connection<'_>, plan: &'p WorkerPlan, position: usize) -> &'p Instance {
    &plan.shared.instances[connection.session.active[position] as usize]
}

/// Run one phase of one plugin, waiting when it asks to, until the client is noticed to leave.
async fn run(
    connection: &mut Connection<'_>,
    instance: &Instance,
    leaving: Leaving<'_>,
    phase: impl for<'a> FnOnce(&'a dyn Plugin, &'a mut Exchange) -> Step<'a>,
) -> Verdict {
    let metrics = &connection.worker.metrics;
    let exchange = &mut connection.session.exchange;
    let outcome = match fenced(metrics, instance, |plugin| phase(plugin, exchange)) {
        Ok(Step::Next) => Ok(Outcome::Next),
        Ok(step) => come_to_an_end(metrics, instance, step, leaving).await,
        Err(Panicked) => Err(ProxyError::PluginPanic),
    };
    let verdict = match outcome {
        Ok(Outcome::Next) => Verdict::Proxy,
        Ok(Outcome::Respond(response)) => Verdict::Respond(response),
        Ok(Outcome::Body(after)) => Box::pin(go_on_with_body(connection, instance, after)).await,
        Err(error) => Verdict::Fail(error),
    };
    match verdict {
        Verdict::Fail(_) => verdict,
        _ if connection.session.exchange.response.broken => Verdict::Fail(ProxyError::Reset),
        _ => verdict,
    }
}

/// Do what a plugin waits for, as long as the client does.
async fn come_to_an_end(
    metrics: &WorkerMetrics,
    instance: &Instance,
    step: Step<'_>,
    mut leaving: Leaving<'_>,
) -> Result<Outcome, ProxyError> {
    let mut waiting = match step {
        Step::Next => return Ok(Outcome::Next),
        Step::Respond(response) => return Ok(Outcome::Respond(response)),
        Step::Body(after) => return Ok(Outcome::Body(after)),
        Step::Wait(waiting) => waiting,
    };
    poll_fn(|context| match fenced(metrics, instance, |_| waiting.as_mut().poll(context)) {
        Ok(Poll::Ready(outcome)) => Poll::Ready(Ok(outcome)),
        Ok(Poll::Pending) => leaving.poll(context).map(|()| Err(ProxyError::ClientGone)),
        Err(Panicked) => Poll::Ready(Err(ProxyError::PluginPanic)),
    })
    .await
}

/// Receive the request body for a plugin that asked for it, and let it go on.
async fn go_on_with_body(connection: &mut Connection<'_>, instance: &Instance, mut after: AfterBody) -> Verdict {
    loop {
        let read = match read_body(connection).await {
            Ok(read) => read,
            Err(error) => return Verdict::Fail(error),
        };
        let metrics = &connection.worker.metrics;
        let exchange = &mut connection.session.exchange;
        let outcome = match fenced(metrics, instance, |_| after.resume(exchange, read)) {
            Ok(step) => come_to_an_end(metrics, instance, step, Leaving::nobody()).await,
            Err(Panicked) => Err(ProxyError::PluginPanic),
        };
        after = match outcome {
            Ok(Outcome::Next) => return Verdict::Proxy,
            Ok(Outcome::Respond(response)) => return Verdict::Respond(response),
            Ok(Outcome::Body(after)) => after,
            Err(error) => return Verdict::Fail(error),
        };
    }
}

/// Receive the whole request body into the exchange.
async fn buffer_request(connection: &mut Connection<'_>) -> Result<(), ProxyError> {
    match read_body(connection).await? {
        BodyRead::Whole => Ok(()),
        BodyRead::TooLong => Err(ProxyError::BodyTooLarge),
    }
}

/// Likewise, as far as it fits.
async fn read_body(connection: &mut Connection<'_>) -> Result<BodyRead, ProxyError> {
    let limits = &connection.worker.node.settings.limits;
    let session = &mut *connection.session;
    if session.exchange.body.is_some() || session.exchange.request.framing == BodyFraming::None {
        return Ok(BodyRead::Whole);
    }
    let most = match limits.body_bytes {
        0 => limits.body_buffer_bytes as u64,
        most => most.min(limits.body_buffer_bytes as u64),
    };
    let announced_more = matches!(session.exchange.request.framing, BodyFraming::Length(length) if length > most);
    if announced_more || !session.held_up.is_empty() {
        return Ok(BodyRead::TooLong);
    }
    if session.exchange.request.expects_continue && session.upload.input.is_empty() {
        send_continue(connection).await?;
    }
    let limits = &connection.worker.node.settings.limits;
    let pace = Pace { read_ms: limits.body_timeout_ms, write_ms: 0, rate: limits.body_rate, most };
    let session = &mut *connection.session;
    let upload = &mut session.upload;
    let began = connection.deadline.now_ms();
    loop {
        match upload.digest(most) {
            Ok(()) => {}
            Err(PumpError::TooLarge) => {
                // What was received is sent before the rest, unless it can be decoded once more.
                if !upload.rewind() {
                    session.held_up = std::mem::take(&mut upload.output);
                }
                return Ok(BodyRead::TooLong);
            }
            Err(error) => return Err(request_error(&error)),
        }
        if upload.is_received() {
            break;
        }
        upload
            .receive(&connection.client, connection.deadline, pace, began)
            .await
            .map_err(|error| request_error(&error))?;
    }
    let trailers = std::mem::take(&mut upload.trailers);
    session.exchange.body = Some(std::mem::take(&mut upload.output));
    session.exchange.request_trailers = trailers;
    Ok(BodyRead::Whole)
}

/// Tell the client to go on with its body.
pub(crate) async fn send_continue(connection: &mut Connection<'_>) -> Result<(), ProxyError> {
    connection.session.exchange.request.expects_continue = false;
    let timeout_ms = connection.worker.node.settings.limits.send_timeout_ms;
    let sent = match connection.client {
        Channel::Http1(stream) => {
            connection.deadline.write_all(&**stream, b"HTTP/1.1 100 Continue\r\n\r\n", timeout_ms).await
        }
        Channel::Http2(stream) => stream.send_interim(100, &Headers::default()),
    };
    sent.map_err(|_| ProxyError::ClientGone)
}

/// What is wrong with a request when its body does not come in.
pub(crate) fn request_error(error: &PumpError) -> ProxyError {
    match error {
        PumpError::Read => ProxyError::ClientGone,
        PumpError::ReadTimeout => ProxyError::BodyTimeout,
        PumpError::Malformed(error) => ProxyError::Body(*error),
        PumpError::TooLarge => ProxyError::BodyTooLarge,
        PumpError::Write(_) => ProxyError::UpstreamClosed,
    }
}
