//! The upstream's response on its way to the client: head filters, framing, body, and what is left of the
//! request body.

use crate::body::Encoder;
use crate::client::Connection;
use crate::course::{Course, Desk};
use crate::error::ProxyError;
use crate::leaving::Leaving;
use crate::outcome::{After, Ended, Local, Persistence, Verdict};
use crate::phases::{self, request_error};
use crate::pieces;
use crate::pump::{Pace, PumpError};
use crate::reply::{self, persistence, reads_chunked, write_end, write_fields};
use crate::session::Session;
use crate::tunnel;
use crate::upstream::{Answered, upload_pace};
use crate::worker::WorkerPlan;
use gateward_http::{BodyFraming, Headers, Method, hop};
use gateward_plugin::Source;
use std::cell::Cell;

/// A response ready to be sent.
pub(crate) enum Prepared {
    /// The upstream's, its head written.
    Stream(Box<Answered>),
    /// Another in its place.
    Replaced(Local),
}

/// Take over the upstream's response head, run the response and header phases, and write the client's head.
pub(crate) async fn prepare(
    connection: &mut Connection<'_>,
    plan: &WorkerPlan,
    mut answered: Box<Answered>,
) -> Prepared {
    let session = &mut *connection.session;
    let response = &mut session.exchange.response;
    std::mem::swap(&mut response.headers, &mut session.response_head.headers);
    response.status = session.response_head.status;
    response.upstream_status = response.status;
    response.source = Source::Service;
    hop::strip_response(&mut response.headers);
    response.headers.mark();
    let framing = session.response_head.framing;
    session.download.begin(answered.link.channel().received_as(framing), Encoder::Raw);

    if wants_body(connection, plan, framing)
        && let Some(replacement) = Box::pin(offer_body(connection, plan, &mut answered)).await
    {
        return Prepared::Replaced(replacement);
    }
    if phases::wants_response_head(connection, plan) {
        match Box::pin(phases::response_head(connection, plan)).await {
            Verdict::Proxy => {}
            Verdict::Respond(response) => return Prepared::Replaced(Local::Plugin(response)),
            Verdict::Fail(error) => return Prepared::Replaced(Local::Error(error)),
        }
    }
    add_debug_fields(connection);
    reply::apply_early(&mut connection.session.exchange);
    filter_head(connection, plan);
    if phases::filters_body(connection, plan) {
        let shown = match show_what_is_there(connection, plan) {
            Ok(true) => Ok(()),
            Ok(false) => Box::pin(wait_for_body(connection, plan)).await,
            Err(local) => Err(local),
        };
        if let Err(local) = shown {
            return Prepared::Replaced(local);
        }
    }
    write_client_head(connection);
    Prepared::Stream(answered)
}

/// The header phase, in which a plugin may put another body into the place of the upstream's.
fn filter_head(connection: &mut Connection<'_>, plan: &WorkerPlan) {
    let held = connection.session.exchange.response.body.is_some();
    phases::header_filter(connection, plan);
    let session = &mut *connection.session;
    let response = &session.exchange.response;
    // A body that was held for plugins may have been replaced like any.
    let replaced = !held || response.source != Source::Service;
    if let Some(body) = response.body.as_ref().filter(|_| replaced) {
        session.response_head.framing = BodyFraming::Length(body.len() as u64);
        session.held_back = Vec::new();
        session.download.trailers.clear();
        if session.download.abandon() {
            // More of the upstream's body may come; nobody may take it for an answer.
            session.response_head.keep_alive = false;
        }
    }
}

/// Show the whole response body to the plugins that want it. `Some`: answer this instead.
async fn offer_body(connection: &mut Connection<'_>, plan: &WorkerPlan, answered: &mut Answered) -> Option<Local> {
    match buffer(connection, answered).await {
        Ok(true) => match phases::response(connection, plan).await {
            Verdict::Proxy => None,
            Verdict::Respond(response) => Some(Local::Plugin(response)),
            Verdict::Fail(error) => Some(Local::Error(error)),
        },
        Ok(false) => None,
        Err(error) => Some(Local::Error(error)),
    }
}

/// Let the plugins see the body if all of it is at hand: its length is then known before the head is written, and the
/// response can still be replaced. `false`: a plugin holds it.
fn show_what_is_there(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Result<bool, Local> {
    let Session { exchange, download, course, returns, active, held_back, .. } = &mut *connection.session;
    let wants = |index: &u32| plan.shared.instances[*index as usize].needs.phases.body_filter;
    returns.get_mut().begin_response(active.iter().copied().filter(wants));
    let mut body = std::mem::take(held_back);
    let whole = match exchange.response.body.take() {
        Some(whole) => {
            body = whole;
            true
        }
        None => download.decode(&mut body).map_err(|_| Local::Error(ProxyError::UpstreamBody))?,
    };
    if !whole {
        *held_back = body;
        return Ok(true);
    }
    returns.get_mut().offer(body, true, std::mem::take(&mut download.trailers));
    let metrics = &connection.worker.metrics;
    let desk = Desk { metrics, instances: &plan.shared.instances, request: course, response: returns };
    desk.pass_offered(exchange)?;
    Ok(take_shown(connection.session))
}

/// Wait until plugins that hold the whole body let it go.
async fn wait_for_body(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Result<(), Local> {
    let client = connection.client;
    let Session { exchange, course, returns, .. } = &mut *connection.session;
    let metrics = &connection.worker.metrics;
    let desk = Desk { metrics, instances: &plan.shared.instances, request: course, response: returns };
    desk.beside(exchange, Leaving::of(client), pieces::until(desk.response, Course::is_ended)).await?;
    take_shown(connection.session);
    Ok(())
}

/// Take the body as plugins left it, once all of it came out.
fn take_shown(session: &mut Session) -> bool {
    let returns = session.returns.get_mut();
    if returns.is_ended() {
        session.exchange.response.body = Some(returns.take_out());
        session.download.trailers = returns.take_trailers();
    }
    returns.is_ended()
}

/// Whether a plugin wants the whole response body, and there is one.
fn wants_body(connection: &Connection<'_>, plan: &WorkerPlan, framing: BodyFraming) -> bool {
    let session = &*connection.session;
    let wanted = |index: &u32| plan.shared.instances[*index as usize].needs.response_body;
    let any = || session.wanted.response_body && session.active.iter().any(wanted);
    framing != BodyFraming::None && (session.exchange.response.hold || any())
}

/// Receive the whole response body into the exchange. `false`: it is too long to hold; it is streamed, unchanged.
async fn buffer(connection: &mut Connection<'_>, answered: &mut Answered) -> Result<bool, ProxyError> {
    let most = connection.worker.node.settings.limits.body_buffer_bytes;
    let session = &mut *connection.session;
    if matches!(session.response_head.framing, BodyFraming::Length(length) if length > most as u64) {
        return Ok(false);
    }
    let pace = Pace { read_ms: answered.read_ms, write_ms: 0, rate: 0, most: u64::MAX };
    let download = &mut session.download;
    loop {
        download.digest(u64::MAX).map_err(|_| ProxyError::UpstreamBody)?;
        if download.is_received() {
            let response = &mut session.exchange.response;
            let body = std::mem::take(&mut download.output);
            response.held = response.hold.then(|| body.clone());
            response.body = Some(body);
            return Ok(true);
        }
        if download.output.len() > most {
            // What was gathered is sent on before the rest; the length is not known any more.
            session.exchange.response.body = None;
            session.held_back = std::mem::take(&mut download.output);
            return Ok(false);
        }
        let received = download.receive(&answered.link.channel(), &session.deadline, pace, 0).await;
        received.map_err(|error| match error {
            PumpError::ReadTimeout => ProxyError::UpstreamTimeout,
            _ => ProxyError::UpstreamClosed,
        })?;
    }
}

/// Names of route and service, for who asks and may know.
fn add_debug_fields(connection: &mut Connection<'_>) {
    let exchange = &mut connection.session.exchange;
    if !connection.worker.node.settings.allow_debug_header || exchange.request.headers.get("kong-debug") != Some(b"1") {
        return;
    }
    let headers = &mut exchange.response.headers;
    if let Some(route) = &exchange.route {
        headers.set("Kong-Route-Id", route.id.to_string());
        headers.set("Kong-Route-Name", route.name.as_deref().unwrap_or_default());
    }
    if let Some(service) = &exchange.service {
        headers.set("Kong-Service-Id", service.id.to_string());
        headers.set("Kong-Service-Name", service.name.as_deref().unwrap_or_default());
    }
}

/// `Via`, latencies and the request id. As in Kong they are added after the plugins had their say.
fn write_own_fields(connection: &mut Connection<'_>) {
    let tokens = connection.worker.node.settings.tokens;
    let names = &connection.worker.own;
    let Session { exchange, times, download, .. } = &mut *connection.session;
    let out = &mut download.output;
    if tokens.latency {
        let forwarded = times.forwarded.unwrap_or(times.started);
        let upstream_us = times.answered.unwrap_or(forwarded).saturating_sub(forwarded);
        let gateway_us = forwarded.saturating_sub(times.started);
        for (start, us) in [(&names.upstream_latency_start, upstream_us), (&names.proxy_latency_start, gateway_us)] {
            out.extend_from_slice(start.as_bytes());
            out.extend_from_slice(itoa::Buffer::new().format(us / 1000).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    let id = tokens.request_id_downstream.then_some(exchange.id.as_str());
    names.write_passage(&exchange.response.headers, tokens.server, id, out);
}

/// Decide how the body is delimited for the client, and write the head.
fn write_client_head(connection: &mut Connection<'_>) {
    // A body that plugins are still to see, or whose beginning was taken already.
    let changing = connection.session.exchange.response.body.is_none()
        && (connection.session.returns.get_mut().is_begun() || !connection.session.held_back.is_empty());
    connection.session.exchange.response.started = true;
    let request = &connection.session.exchange.request;
    let chunks = reads_chunked(request.version);
    let head_only = request.method == Method::Head;
    let unknown_length = if chunks { BodyFraming::Chunked } else { BodyFraming::UntilClose };
    let session = &connection.session;
    let bodiless = session.response_head.framing == BodyFraming::None;
    // A plugin may have asked the upstream with another method, or changed the status.
    let forbidden = head_only || matches!(session.exchange.response.status, 100..200 | 204 | 304);
    let framing = match (&session.exchange.response.body, session.response_head.framing) {
        _ if forbidden => BodyFraming::None,
        _ if bodiless && connection.client.ends_messages() => BodyFraming::None,
        _ if bodiless => BodyFraming::Length(0),
        _ if changing => unknown_length,
        (Some(_), _) if chunks && !session.download.trailers.is_empty() => BodyFraming::Chunked,
        (Some(body), _) => BodyFraming::Length(body.len() as u64),
        (None, BodyFraming::Length(length)) => BodyFraming::Length(length),
        (None, _) => unknown_length,
    };
    let mut persistence = persistence(connection);
    if framing == BodyFraming::UntilClose || !reply::can_drain(connection) {
        persistence = Persistence::Close;
    }
    // A response to HEAD and a 304 may say how long the body would be (RFC 9110 section 8.6).
    let announces = framing == BodyFraming::None && (head_only || connection.session.exchange.response.status == 304);
    let own = &connection.worker.own;
    let left_out = if announces { &own.fields_keeping_length } else { &own.fields };
    let session = &mut *connection.session;
    session.persistence = persistence;
    session.download.encoder = match framing {
        _ if forbidden || bodiless => Encoder::Nothing,
        BodyFraming::Chunked => Encoder::Chunked,
        _ => Encoder::Raw,
    };
    let reason = std::mem::take(&mut session.response_head.reason);
    let unchanged = session.exchange.response.status == session.response_head.status;
    write_fields(session, Some(&*reason).filter(|_| unchanged), left_out);
    session.response_head.reason = reason;
    write_own_fields(connection);
    let session = &mut *connection.session;
    write_end(session, framing, persistence);
    if !session.returns.get_mut().is_begun() {
        let held_back = std::mem::take(&mut session.held_back);
        session.download.encoder.data(&held_back, &mut session.download.output);
    }
}

/// Send the response, and the rest of the request body beside it.
pub(crate) async fn run(connection: &mut Connection<'_>, plan: &WorkerPlan, mut answered: Box<Answered>) -> Ended {
    let session = &connection.session;
    // A plugin may have made something else of it.
    if session.response_head.status == 101 && session.exchange.response.status == 101 {
        return Box::pin(tunnel::run(connection, answered)).await;
    }
    let limits = &connection.worker.node.settings.limits;
    let pace = Pace { read_ms: answered.read_ms, write_ms: limits.send_timeout_ms, rate: 0, most: u64::MAX };
    let session = &mut *connection.session;
    if let Some(body) = session.exchange.response.body.take() {
        session.download.encode(&body);
        let trailers = std::mem::take(&mut session.download.trailers);
        session.download.finish(trailers);
    }
    let through_plugins = session.returns.get_mut().is_begun() && !session.download.is_concluded();
    let outcome = if through_plugins || (session.streams && !session.upload.is_finished()) {
        Box::pin(run_through_plugins(connection, plan, &mut answered, pace)).await
    } else if session.upload.is_finished() {
        let received = pass_on(connection, &answered, pace).await;
        received.map_err(|error| response_error(&error))
    } else {
        Box::pin(run_both(connection, &mut answered, pace)).await
    };
    finish(connection, answered, outcome).await
}

/// Send the response, which is often all there.
async fn pass_on(connection: &mut Connection<'_>, answered: &Answered, pace: Pace) -> Result<(), PumpError> {
    let Connection { worker, client, session, .. } = connection;
    let Session { download, deadline, persistence, .. } = &mut **session;
    download.digest(pace.most)?;
    // What comes before a connection's end is written, so that the end does not come first.
    let last = *persistence == Persistence::Close;
    if !last && download.is_concluded() && client.post(download, &worker.outbox) {
        return Ok(());
    }
    download.run(&answered.link.channel(), client, deadline, pace).await
}

/// Send the response and the rest of the request body at the same time.
async fn run_both(connection: &mut Connection<'_>, answered: &mut Answered, pace: Pace) -> Result<(), ProxyError> {
    let upload_pace = upload_pace(connection, answered.read_ms, answered.write_ms);
    let Connection { client, deadline, session, .. } = connection;
    let (client, upstream) = (*client, answered.link.channel());
    let Session { upload, download, deadline: own, .. } = &mut **session;
    let sending = upload.run(&client, &upstream, deadline, upload_pace);
    let receiving = download.run(&upstream, &client, own, pace);
    both(sending, receiving).await
}

/// Likewise where plugins see one of the bodies, or both.
async fn run_through_plugins(
    connection: &mut Connection<'_>,
    plan: &WorkerPlan,
    answered: &mut Answered,
    pace: Pace,
) -> Result<(), ProxyError> {
    let upload_pace = upload_pace(connection, answered.read_ms, answered.write_ms);
    let Connection { worker, client, deadline, session, .. } = connection;
    let (client, upstream) = (*client, answered.link.channel());
    let Session { exchange, upload, download, deadline: own, course, returns, held_back, streams, .. } = &mut **session;
    if !held_back.is_empty() {
        returns.get_mut().offer(std::mem::take(held_back), false, Headers::default());
    }
    let filtered = returns.get_mut().is_begun() && !download.is_concluded();
    let (metrics, instances) = (&worker.metrics, &plan.shared.instances[..]);
    let desk = Desk { metrics, instances, request: course, response: returns };
    let reading = Cell::new(!upload.is_received());
    let sending = async {
        let sent = if upload.is_finished() {
            Ok(())
        } else if *streams {
            pieces::run(upload, desk.request, &client, &upstream, deadline, upload_pace).await
        } else {
            upload.run(&client, &upstream, deadline, upload_pace).await
        };
        reading.set(false);
        sent
    };
    let receiving = async {
        if filtered {
            pieces::run(download, desk.response, &upstream, &client, own, pace).await
        } else {
            download.run(&upstream, &client, own, pace).await
        }
    };
    let outcome = desk.beside(exchange, Leaving::after(&reading, client), both(sending, receiving)).await;
    outcome.unwrap_or_else(|local| match local {
        Local::Error(error) => Err(error),
        // Too late for an answer: the head is out.
        Local::Plugin(_) => Err(ProxyError::Reset),
    })
}

/// Until the response has been sent.
async fn both(
    sending: impl Future<Output = Result<(), PumpError>>,
    receiving: impl Future<Output = Result<(), PumpError>>,
) -> Result<(), ProxyError> {
    let (mut sending, mut receiving) = (std::pin::pin!(sending), std::pin::pin!(receiving));
    let received = tokio::select! {
        biased;
        received = &mut receiving => received,
        sent = &mut sending => match sent {
            // The upstream may stop taking the body and still finish its response.
            Ok(()) | Err(PumpError::Write(_)) => receiving.await,
            Err(error) => return Err(request_error(&error)),
        },
    };
    received.map_err(|error| response_error(&error))
}

fn response_error(error: &PumpError) -> ProxyError {
    match error {
        PumpError::Write(_) => ProxyError::ClientGone,
        PumpError::Read | PumpError::ReadTimeout | PumpError::Malformed(_) | PumpError::TooLarge => {
            ProxyError::UpstreamBody
        }
    }
}

/// Keep or drop both connections.
async fn finish(connection: &mut Connection<'_>, answered: Box<Answered>, outcome: Result<(), ProxyError>) -> Ended {
    let session = &mut *connection.session;
    let sent_bytes = session.download.sent_bytes;
    if let Err(error) = outcome {
        // The head is out: only a connection that breaks tells the client that the body is not whole.
        if error == ProxyError::Reset || !reads_chunked(session.exchange.request.version) {
            // Without chunks an orderly end of the connection may be the end of the body; a reset never is.
            connection.client.reset_on_close();
        }
        return Ended { after: After::Abort, error: Some(error), sent_bytes };
    }
    let complete = session.upload.is_finished() && session.download.is_received() && session.download.input.is_empty();
    session.download.input.rest();
    if complete && session.response_head.keep_alive && session.response_head.framing != BodyFraming::UntilClose {
        answered.link.release();
    }
    let after = match session.persistence {
        Persistence::KeepAlive if session.upload.is_received() => After::KeepAlive,
        Persistence::KeepAlive => Box::pin(reply::drain(connection)).await,
        Persistence::Close => After::Close,
    };
    Ended { after, error: None, sent_bytes }
}

#[cfg(test)]
mod tests {
    use crate::Settings;
    use crate::testing::{backend, gateway, local, read_until};
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;

    #[test]
    fn an_answer_to_head_has_no_content_whatever_the_upstream_was_asked() {
        local(async {
            let port = backend(async |mut stream: TcpStream| {
                while !read_until(&mut stream, "\r\n\r\n").await.is_empty() {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ncontent").await.unwrap();
                }
            })
            .await;
            let config = format!(
                "_format_version: '3.0'\nservices:\n- {{name: s, host: 127.0.0.1, port: {port}, routes: [{{name: r, paths: [/]}}]}}\nplugins:\n- {{name: request-transformer, config: {{http_method: GET}}}}\n"
            );
            let gateway = gateway(&config, Settings::default());
            let mut client = TcpStream::connect(gateway).await.unwrap();
            for _ in 0..2 {
                client.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
                let head = read_until(&mut client, "\r\n\r\n").await;
                assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Length: 7"), "{head}");
            }
        });
    }
}
