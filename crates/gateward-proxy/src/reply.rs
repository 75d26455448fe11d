//! Responses the gateway makes itself, and the head of every response.

use crate::client::Connection;
use crate::course::{Course, Desk};
use crate::error::{ProxyError, Side};
use crate::flow::Discard;
use crate::forward::write_framing;
use crate::grpc;
use crate::leaving::Leaving;
use crate::outcome::{After, Ended, Local, Persistence};
use crate::own::PSEUDONYM;
use crate::phases;
use crate::pieces;
use crate::pump::PumpError;
use crate::session::Session;
use crate::worker::WorkerPlan;
use gateward_http::headers::{Name, NameSet};
use gateward_http::{BodyFraming, Headers, Method, Version};
use gateward_net::Stage;
use gateward_plugin::{Exchange, LocalBody, Source};

/// Fields the gateway writes itself.
const OWN: NameSet =
    NameSet::new(&[Name::new("content-length"), Name::new("transfer-encoding"), Name::new("connection")]);

/// Answer with `local`, after the header and body filters of the chosen plugins.
pub(crate) async fn send(connection: &mut Connection<'_>, plan: &WorkerPlan, local: Local) -> Ended {
    let error = match &local {
        Local::Plugin(_) => None,
        Local::Error(error) => Some(*error),
    };
    if error == Some(ProxyError::Reset) {
        return broken_off(connection, ProxyError::Reset);
    }
    if error == Some(ProxyError::ClientGone) {
        return left(connection);
    }
    let call_ended = connection.session.call.map(|_| grpc::Failure::of(&local));
    let mut body = render(connection, local);
    if let Some(failure) = call_ended {
        failure.restate(&mut connection.session.exchange.response, &mut body);
    }
    apply_early(&mut connection.session.exchange);
    connection.session.exchange.response.started = true;
    phases::header_filter(connection, plan);
    if let Some(replacement) = connection.session.exchange.response.body.take() {
        body = replacement;
    }
    if phases::filters_body(connection, plan) {
        match Box::pin(show_body(connection, plan, body)).await {
            Ok(shown) => body = shown,
            Err(ProxyError::ClientGone) => return left(connection),
            Err(error) => return broken_off(connection, error),
        }
    }

    if !connection.session.upload.is_received() {
        // A short body often came with its head. Should it be malformed, its end is never found and nothing follows.
        let _ = connection.session.upload.digest(u64::MAX);
    }
    let drainable = !error.is_some_and(ProxyError::closes) && can_drain(connection);
    let persistence = if drainable { persistence(connection) } else { Persistence::Close };
    let head_only = connection.session.exchange.request.method == Method::Head;
    let session = &mut *connection.session;
    session.download.begin(BodyFraming::None, crate::body::Encoder::Raw);
    session.download.conclude();
    // These never have content, whatever a plugin was told to send (RFC 9110 sections 15.3.5 and 15.4.5).
    let bodiless = matches!(session.exchange.response.status, 100..200 | 204 | 304);
    // A gRPC failure is all head, and ends the stream with it.
    let all_head = bodiless || (session.call.is_some() && body.is_empty());
    let framing = if all_head { BodyFraming::None } else { BodyFraming::Length(body.len() as u64) };
    write_fields(session, None, &OWN);
    write_end(session, framing, persistence);
    if !head_only && !bodiless {
        session.download.output.extend_from_slice(&body);
    }
    let sent = write(connection, persistence).await;
    let sent_bytes = connection.session.download.sent_bytes;
    if sent.is_err() {
        return Ended { after: After::Abort, error: error.or(Some(ProxyError::ClientGone)), sent_bytes };
    }
    let after = if persistence == Persistence::KeepAlive { drain(connection).await } else { After::Close };
    Ended { after, error, sent_bytes }
}

/// Send the answer, with those to others where nothing has to come behind it.
async fn write(connection: &mut Connection<'_>, persistence: Persistence) -> Result<(), PumpError> {
    let Connection { worker, client, session, .. } = connection;
    let Session { download, upload, deadline, .. } = &mut **session;
    let last = persistence == Persistence::Close || !upload.is_received();
    if !last && client.post(download, &worker.outbox) {
        return Ok(());
    }
    download.flush(client, deadline, worker.node.settings.limits.send_timeout_ms).await
}

/// Show the content to the plugins that look at it, and wait while they hold it.
async fn show_body(connection: &mut Connection<'_>, plan: &WorkerPlan, body: Vec<u8>) -> Result<Vec<u8>, ProxyError> {
    let client = connection.client;
    let Session { exchange, course, returns, active, .. } = &mut *connection.session;
    let wants = |index: &u32| plan.shared.instances[*index as usize].needs.phases.body_filter;
    course.get_mut().reset();
    returns.get_mut().begin_response(active.iter().copied().filter(wants));
    returns.get_mut().offer(body, true, Headers::default());
    let metrics = &connection.worker.metrics;
    let desk = Desk { metrics, instances: &plan.shared.instances, request: course, response: returns };
    let shown = desk.beside(exchange, Leaving::of(client), pieces::until(desk.response, Course::is_ended)).await;
    shown.map_err(|local| match local {
        Local::Error(ProxyError::ClientGone) => ProxyError::ClientGone,
        _ => ProxyError::Reset,
    })?;
    Ok(returns.get_mut().take_out())
}

/// Nobody is there to be answered.
fn left(connection: &mut Connection<'_>) -> Ended {
    connection.session.exchange.response.status = 499;
    Ended { after: After::Abort, error: Some(ProxyError::ClientGone), sent_bytes: 0 }
}

/// End without an answer.
fn broken_off(connection: &mut Connection<'_>, error: ProxyError) -> Ended {
    connection.client.reset_on_close();
    connection.session.exchange.response.status = error.status();
    Ended { after: After::Abort, error: Some(error), sent_bytes: 0 }
}

/// Set status and fields of the exchange's response, and give its content.
fn render(connection: &mut Connection<'_>, local: Local) -> Vec<u8> {
    let settings = &connection.worker.node.settings;
    let session = &mut *connection.session;
    let exchange = &mut session.exchange;
    let (status, source, extra, body) = match local {
        Local::Plugin(response) => (response.status, Source::Exit, response.headers, response.body),
        Local::Error(error) => (error.status(), Source::Error, Vec::new(), LocalBody::Message(error.message().into())),
    };
    exchange.response.status = status;
    exchange.response.source = source;
    // What the upstream sent is not the answer any more.
    exchange.response.body = None;
    let mut grpc_message = None;
    let (content_type, body) = match body {
        LocalBody::Empty => (None, Vec::new()),
        LocalBody::Bytes(content_type, body) => (Some(content_type).filter(|known| !known.is_empty()), body),
        LocalBody::Message(message) => {
            let wanted = extra.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
            let (content_type, body) = render_message(exchange, &message, wanted.map(|(_, value)| value.as_str()));
            grpc_message = (content_type == "application/grpc").then_some(message);
            (Some(content_type.to_owned()), body)
        }
    };
    let headers = &mut exchange.response.headers;
    headers.clear();
    if let Some(message) = grpc_message {
        headers.add("grpc-status", itoa::Buffer::new().format(grpc_status(status)));
        headers.add("grpc-message", message.as_ref());
    }
    headers.add("Date", http_date(exchange.started_at_ms / 1000));
    if let Some(content_type) = content_type {
        headers.add("Content-Type", content_type);
    }
    for (index, (name, value)) in extra.iter().enumerate() {
        // A name that is given twice has two values.
        if extra[..index].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
            headers.add(name, value);
        } else {
            headers.set(name, value);
        }
    }
    if settings.tokens.server {
        headers.set("Server", PSEUDONYM);
    }
    if settings.tokens.latency {
        let elapsed = connection.worker.now_us().saturating_sub(session.times.started) / 1000;
        headers.set(connection.worker.own.response_latency, elapsed.to_string());
    }
    if settings.tokens.request_id_downstream {
        headers.set(connection.worker.own.request_id, &exchange.id);
    }
    body
}

/// Kong's error templates, chosen by the type that is `wanted`, or by `Accept` (kong/error_handlers.lua,
/// kong/tools/http.lua).
fn render_message(exchange: &Exchange, message: &str, wanted: Option<&str>) -> (&'static str, Vec<u8>) {
    let id = &exchange.id;
    let accept = wanted.or(exchange.request.headers.get_str("accept")).unwrap_or("*/*");
    match preferred_type(accept) {
        Template::Json => {
            let mut text = String::from("{\n  \"message\":");
            write_json_string(message, &mut text);
            text.push_str(",\n  \"request_id\":\"");
            text.push_str(id);
            text.push_str("\"\n}");
            ("application/json; charset=utf-8", text.into_bytes())
        }
        Template::Html => {
            let message = escape_markup(message);
            let text = format!(
                "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Error</title>\n  </head>\n  <body>\n    <h1>Error</h1>\n    <p>{message}.</p>\n    <p>request_id: {id}</p>\n  </body>\n</html>\n"
            );
            ("text/html; charset=utf-8", text.into_bytes())
        }
        Template::Xml => {
            let message = escape_markup(message);
            let text = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>{message}</message>\n  <requestid>{id}</requestid>\n</error>\n"
            );
            ("application/xml; charset=utf-8", text.into_bytes())
        }
        // gRPC says everything in fields.
        Template::Grpc => ("application/grpc", Vec::new()),
        Template::Plain => ("text/plain; charset=utf-8", format!("{message}\nrequest_id: {id}\n").into_bytes()),
    }
}

/// The gRPC status for an HTTP status (kong/pdk/response.lua).
fn grpc_status(status: u16) -> u8 {
    match status {
        200..300 => 0,
        400 => 3,
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 6,
        429 => 8,
        499 => 1,
        500 => 13,
        501 => 12,
        503 => 14,
        504 => 4,
        _ => 2,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Template {
    Json,
    Html,
    Xml,
    Plain,
    Grpc,
}

/// The type with the highest quality; JSON when nothing known is asked for.
fn preferred_type(accept: &str) -> Template {
    let mut best = (Template::Json, 0.0_f32);
    for range in accept.split(',').take(32) {
        let mut parts = range.split(';').map(str::trim);
        let template = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "application/json" | "application/*" | "*/*" => Template::Json,
            "text/html" | "text/*" => Template::Html,
            "application/xml" | "text/xml" => Template::Xml,
            "text/plain" => Template::Plain,
            "application/grpc" => Template::Grpc,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |text| text.parse().ok());
        if let Some(quality) = quality
            && quality > best.1
        {
            best = (template, quality);
        }
    }
    best.0
}

fn write_json_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => {
                out.push_str("\\u00");
                out.push(char::from_digit(control as u32 >> 4, 16).unwrap_or('0'));
                out.push(char::from_digit(control as u32 & 15, 16).unwrap_or('0'));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

fn escape_markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Fields plugins set before there was a response.
pub(crate) fn apply_early(exchange: &mut Exchange) {
    let response = &mut exchange.response;
    for (name, value) in response.early.iter() {
        if name.eq_ignore_ascii_case("set-cookie") {
            response.headers.add(name, value);
        } else {
            response.headers.set(name, value);
        }
    }
}

/// Whether the connection may serve another request after this one.
pub(crate) fn persistence(connection: &Connection<'_>) -> Persistence {
    let settings = &connection.worker.node.settings;
    let used_up = settings.keepalive_requests > 0 && connection.served + 1 >= settings.keepalive_requests;
    let keep = connection.session.exchange.request.keep_alive
        && !used_up
        && !connection.is_over_age()
        && connection.worker.node.drain.stage() == Stage::Running;
    if keep { Persistence::KeepAlive } else { Persistence::Close }
}

/// Write status line and fields of the exchange's response to the download's output, but those in `left_out`.
pub(crate) fn write_fields(session: &mut Session, reason: Option<&str>, left_out: &NameSet) {
    let response = &session.exchange.response;
    let out = &mut session.download.output;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(response.status).as_bytes());
    out.push(b' ');
    let reason = reason.filter(|reason| !reason.is_empty()).unwrap_or_else(|| reason_phrase(response.status));
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    response.headers.write_except(left_out, out);
}

/// End the head with what says how body and connection are delimited.
pub(crate) fn write_end(session: &mut Session, framing: BodyFraming, persistence: Persistence) {
    write_last_fields(session, framing, persistence);
    session.download.head_bytes = session.download.output.len() as u64;
}

fn write_last_fields(session: &mut Session, framing: BodyFraming, persistence: Persistence) {
    let out = &mut session.download.output;
    if session.exchange.response.status == 101
        && let Some(upgrade) = &session.upgrade
    {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: ");
        out.extend_from_slice(upgrade.as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        return;
    }
    write_framing(framing, out);
    let upgrade_required = session.exchange.response.status == 426;
    out.extend_from_slice(match (persistence, upgrade_required) {
        (Persistence::KeepAlive, false) => b"Connection: keep-alive\r\n\r\n",
        (Persistence::KeepAlive, true) => b"Connection: keep-alive, Upgrade\r\n\r\n",
        (Persistence::Close, false) => b"Connection: close\r\n\r\n",
        (Persistence::Close, true) => b"Connection: close, Upgrade\r\n\r\n",
    });
}

/// Whether what is left of the request body is little enough to read and throw away.
pub(crate) fn can_drain(connection: &mut Connection<'_>) -> bool {
    let session = &mut *connection.session;
    if session.upload.is_received() || connection.client.ends_messages() {
        return true;
    }
    // The client waits for a 100 that will not come: whether it sends the body now cannot be known.
    if session.exchange.request.expects_continue {
        return false;
    }
    match session.exchange.request.framing {
        BodyFraming::Length(length) => {
            length.saturating_sub(session.upload.body_bytes) <= connection.worker.node.settings.limits.drain_bytes
        }
        _ => false,
    }
}

/// Read the rest of the request body, so that the next request can follow.
pub(crate) async fn drain(connection: &mut Connection<'_>) -> After {
    let limits = &connection.worker.node.settings.limits;
    let pace = crate::pump::Pace {
        read_ms: limits.body_timeout_ms,
        write_ms: limits.body_timeout_ms,
        rate: limits.body_rate,
        most: u64::MAX,
    };
    if connection.session.upload.is_received() || connection.client.ends_messages() {
        return After::KeepAlive;
    }
    let Connection { client, deadline, session, .. } = connection;
    let drained = session.upload.run(client, &Discard, deadline, pace).await;
    if drained.is_ok() { After::KeepAlive } else { After::Abort }
}

/// The reason phrase of a status code (RFC 9110 section 15); empty for one without.
pub(crate) fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "",
    }
}

/// Unix seconds as an IMF-fixdate (RFC 9110 section 5.6.7).
pub(crate) fn http_date(unix: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    // Days since 0000-03-01, in years that begin in March, so that the leap day comes last (the method of
    // Howard Hinnant's civil_from_days).
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize]);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Whether a version reads chunked bodies.
pub(crate) fn reads_chunked(version: Version) -> bool {
    version == Version::Http11
}

/// Whether an error is worth a warning in the log: something the operator can act on.
pub(crate) fn is_operators(error: ProxyError) -> bool {
    error.side() != Side::Client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_imf_fixdates() {
        for (unix, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(unix), text);
        }
    }

    #[test]
    fn the_template_follows_accept() {
        for (accept, template) in [
            ("*/*", Template::Json),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Template::Html),
            ("application/xml;q=0.9, application/json;q=0.2", Template::Xml),
            ("text/plain", Template::Plain),
            ("image/png", Template::Json),
            ("application/grpc", Template::Grpc),
            ("text/html;q=what, text/plain;q=0.1", Template::Plain),
        ] {
            assert_eq!(preferred_type(accept), template, "{accept}");
        }
    }

    #[test]
    fn messages_cannot_break_their_template() {
        let mut text = String::new();
        write_json_string("a\"b\\c\n", &mut text);
        assert_eq!(text, "\"a\\\"b\\\\c\\u000a\"");
        assert_eq!(escape_markup("<a&\">"), "&lt;a&amp;&quot;&gt;");
    }
}
