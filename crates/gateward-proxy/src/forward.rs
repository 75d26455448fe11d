//! The request head that goes upstream.

use crate::body::Encoder;
use crate::forwarded::write_ip;
use crate::own::OwnFields;
use crate::session::Session;
use crate::settings::Settings;
use gateward_http::headers::Name;
use gateward_http::{BodyFraming, Method, RequestHead};
use gateward_model::Route;
use gateward_plugin::{Exchange, Scheme};

const FORWARDED_FOR: Name<'static> = Name::new("x-forwarded-for");
const FORWARDED: Name<'static> = Name::new("forwarded");
const TE: Name<'static> = Name::new("te");
const MAX_FORWARDS: Name<'static> = Name::new("max-forwards");

/// Whom the balancer chose.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Authority<'a> {
    pub(crate) host: &'a str,
    /// `None`: the scheme's own.
    pub(crate) port: Option<u16>,
    /// A Host that the upstream entity wants instead.
    pub(crate) header: Option<&'a str>,
}

/// Write the head for `authority` (used unless the route or a plugin says otherwise) into the upload's output, before
/// the body.
pub(crate) fn write_head(session: &mut Session, settings: &Settings, own: &OwnFields, authority: Authority<'_>) {
    let framing = body_framing(session);
    session.upload.encoder = if framing == BodyFraming::Chunked { Encoder::Chunked } else { Encoder::Raw };
    let exchange = &mut session.exchange;
    let out = &mut session.upload.output;
    let upstream = &exchange.upstream;
    let method = upstream.method.as_ref().unwrap_or(&exchange.request.method);
    for part in [method.as_str(), " ", &upstream.path] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Some(query) = &upstream.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    let preserve = exchange.route.as_deref().is_some_and(|route: &Route| route.preserve_host);
    match (&upstream.host, preserve && !exchange.request.authority.is_empty(), authority.header) {
        (Some(host), _, _) => out.extend_from_slice(host.as_bytes()),
        (None, true, _) => out.extend_from_slice(exchange.request.authority.as_bytes()),
        (None, false, Some(host)) => out.extend_from_slice(host.as_bytes()),
        (None, false, None) => write_authority(authority.host, authority.port, out),
    }
    out.extend_from_slice(b"\r\n");
    exchange.request.headers.write_except(&own.request_fields, out);
    write_forwarded(session, settings, own);
    let out = &mut session.upload.output;
    // TE is itself a connection option (RFC 9110 section 10.1.4), and so is Upgrade (section 7.8).
    match (&session.upgrade, session.exchange.request.headers.contains(TE)) {
        (None, false) => {}
        (None, true) => out.extend_from_slice(b"Connection: TE\r\n"),
        (Some(upgrade), te) => {
            out.extend_from_slice(if te { b"Connection: Upgrade, TE" } else { b"Connection: Upgrade" });
            out.extend_from_slice(b"\r\nUpgrade: ");
            out.extend_from_slice(upgrade.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    write_framing(framing, out);
    out.extend_from_slice(b"\r\n");
}

/// How the body goes upstream: as it came, or with the length a plugin left it.
fn body_framing(session: &Session) -> BodyFraming {
    match (&session.exchange.body, session.exchange.request.framing) {
        (Some(body), BodyFraming::None) if body.is_empty() => BodyFraming::None,
        // Plugins may change the length, or there is something behind the body.
        (Some(_), _) if !session.exchange.request_trailers.is_empty() => BodyFraming::Chunked,
        (None, _) if session.streams => BodyFraming::Chunked,
        (Some(body), _) => BodyFraming::Length(body.len() as u64),
        // In HTTP/2 a length need not be known; in HTTP/1.1 chunks do without.
        (None, BodyFraming::UntilClose) => BodyFraming::Chunked,
        (None, framing) => framing,
    }
}

pub(crate) fn write_framing(framing: BodyFraming, out: &mut Vec<u8>) {
    match framing {
        BodyFraming::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        BodyFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        BodyFraming::None | BodyFraming::UntilClose => {}
    }
}

fn write_authority(host: &str, port: Option<u16>, out: &mut Vec<u8>) {
    let bare_v6 = host.contains(':') && !host.starts_with('[');
    if bare_v6 {
        out.push(b'[');
    }
    out.extend_from_slice(host.as_bytes());
    if bare_v6 {
        out.push(b']');
    }
    if let Some(port) = port {
        out.push(b':');
        out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
}

/// `X-Forwarded-*`, `X-Real-IP`, `Via` and the request id, as kong/runloop/handler.lua sends them. The history of an
/// untrusted peer is dropped, a trusted one's is continued.
fn write_forwarded(session: &mut Session, settings: &Settings, own: &OwnFields) {
    let exchange = &session.exchange;
    let client = &exchange.client;
    let out = &mut session.upload.output;
    if client.trusted {
        write_history(exchange, &session.peer, out);
    } else {
        out.extend_from_slice(&session.direct);
    }
    out.extend_from_slice(b"X-Forwarded-Host: ");
    out.extend_from_slice(exchange.forwarded_host().as_bytes());
    out.extend_from_slice(b"\r\nX-Forwarded-Path: ");
    out.extend_from_slice(exchange.forwarded_path().as_bytes());
    if !client.forwarded_prefix.is_empty() {
        out.extend_from_slice(b"\r\nX-Forwarded-Prefix: ");
        // The prefix is normalised text and may hold characters that only stand escaped in a header.
        session.scratch.clear();
        gateward_http::uri::escape_path(&client.forwarded_prefix, &mut session.scratch);
        out.extend_from_slice(session.scratch.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    let id = settings.tokens.request_id_upstream.then_some(exchange.id.as_str());
    own.write_passage(&exchange.request.headers, true, id, out);
}

/// Where a request came from, continuing what a trusted peer said about it.
fn write_history(exchange: &Exchange, peer: &[u8], out: &mut Vec<u8>) {
    let (client, headers) = (&exchange.client, &exchange.request.headers);
    out.extend_from_slice(b"X-Forwarded-For: ");
    for value in headers.get_all(FORWARDED_FOR) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(peer);
    out.extend_from_slice(b"\r\nX-Real-IP: ");
    write_ip(client.ip, out);
    for value in headers.get_all(FORWARDED) {
        out.extend_from_slice(b"\r\nForwarded: ");
        out.extend_from_slice(value);
    }
    out.extend_from_slice(b"\r\n");
    write_arrival(client.forwarded_proto, client.forwarded_port, out);
}

/// Where a request came from when the peer is the client. It is the same for all requests of a connection.
pub(crate) fn write_origin(peer: &[u8], scheme: Scheme, port: u16, out: &mut Vec<u8>) {
    for name in ["X-Forwarded-For: ", "X-Real-IP: "] {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(peer);
        out.extend_from_slice(b"\r\n");
    }
    write_arrival(scheme, port, out);
}

fn write_arrival(scheme: Scheme, port: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(b"X-Forwarded-Proto: ");
    out.extend_from_slice(scheme.as_str().as_bytes());
    out.extend_from_slice(b"\r\nX-Forwarded-Port: ");
    out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// One hop less for an OPTIONS request (RFC 9110 section 7.6.2), however often it is tried. A count of 0 is answered
/// before this.
pub(crate) fn count_down(request: &mut RequestHead) {
    if request.method != Method::Options {
        return;
    }
    let headers = &mut request.headers;
    if let Some(hops) = headers.get_str(MAX_FORWARDS).and_then(|hops| hops.parse::<u64>().ok()) {
        headers.set("Max-Forwards", itoa::Buffer::new().format(hops.saturating_sub(1)));
    }
}
