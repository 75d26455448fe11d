//! grpc-web: calls from browsers, which cannot read trailers, for services that speak gRPC.
//!
//! A gRPC-Web request is a gRPC request under another content type, in its text form in base64 besides; of the
//! response the trailers become a last frame of the content (the protocol's PROTOCOL-WEB.md). Kong's field `proto`,
//! which turns JSON into messages, is refused: this build reads no `.proto` files.

use crate::BuildError;
use crate::contract::{Definition, LocalBody, LocalResponse, Needs, Phases, Plugin, Step};
use crate::env::BuildContext;
use crate::exchange::{Exchange, Source};
use crate::native::settings;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateward_http::headers::is_valid_value;
use gateward_http::uri::escape_path;
use gateward_http::{Headers, Method};
use gateward_model::schema::{Field, Rule, Schema};
use serde::Deserialize;
use serde_json::Value;

/// Marks a frame that holds trailers.
const TRAILERS: u8 = 0x80;
/// Bytes of a frame's head: flags and length.
const FRAME_HEAD: usize = 5;

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "grpc-web", priority: 3, schema, check_scope: settings::http, build }
}

fn schema() -> Schema {
    Schema::new([
        ("proto", Field::string()),
        ("pass_stripped_path", Field::boolean()),
        ("allow_origin_header", Field::string().default("*").rule(Rule::Custom(check_origin))),
    ])
}

fn check_origin(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) if is_valid_value(text.as_bytes()) => Ok(()),
        _ => Err("an origin cannot contain control characters".to_owned()),
    }
}

#[derive(Deserialize)]
struct Settings {
    proto: Option<String>,
    pass_stripped_path: Option<bool>,
    allow_origin_header: Option<String>,
}

struct GrpcWeb {
    pass_stripped_path: bool,
    allow_origin: Option<String>,
}

/// What a request was, for its response.
struct Conversation {
    content_type: String,
    text: bool,
    /// The service answered in gRPC.
    answered: bool,
    /// Bytes of the response that do not fill three yet: a text is one run of base64 that way.
    rest: Vec<u8>,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let settings: Settings = settings::read(context)?;
    if settings.proto.is_some() {
        return Err(BuildError {
            plugin: "grpc-web".to_owned(),
            id: context.entity.id,
            reason: "config.proto: this build does not turn JSON into messages; remove the field and let clients \
                     speak gRPC-Web"
                .to_owned(),
        });
    }
    let pass_stripped_path = settings.pass_stripped_path.unwrap_or(false);
    Ok(Box::new(GrpcWeb { pass_stripped_path, allow_origin: settings.allow_origin_header }))
}

impl Plugin for GrpcWeb {
    fn needs(&self) -> Needs {
        let phases = Phases { access: true, header_filter: true, body_filter: true, ..Phases::default() };
        Needs { phases, request_body: true, response_body: false }
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        if exchange.request.method == Method::Options {
            let answer = LocalResponse { status: 200, headers: Vec::new(), body: LocalBody::Message("OK".into()) };
            return Step::Respond(
                answer
                    .header("Access-Control-Allow-Methods", "POST")
                    .header("Access-Control-Allow-Headers", "content-type,x-grpc-web,x-user-agent"),
            );
        }
        let content_type = exchange.request.headers.get_str("content-type").unwrap_or_default().to_owned();
        let Some(text) = is_text(&content_type) else {
            return Step::Respond(LocalResponse::message(400, "Unknown request content-type"));
        };
        if text && let Some(body) = exchange.body.take() {
            let Some(decoded) = decode_text(&body) else {
                return Step::Respond(LocalResponse::message(400, "Malformed base64 in the request"));
            };
            exchange.body = Some(decoded);
        }
        exchange.request.headers.set("content-type", "application/grpc");
        exchange.request.headers.set("te", "trailers");
        if !self.pass_stripped_path {
            exchange.upstream.path.clear();
            escape_path(&exchange.path, &mut exchange.upstream.path);
        }
        exchange.put(Conversation { content_type, text, answered: false, rest: Vec::new() });
        Step::Next
    }

    fn header_filter(&self, exchange: &mut Exchange) {
        let headers = &mut exchange.response.headers;
        if let Some(origin) = &self.allow_origin {
            headers.set("Access-Control-Allow-Origin", origin);
        }
        // Where there is no content the status stands in the head, which a browser shows only when told to.
        headers.set("Access-Control-Expose-Headers", "grpc-status,grpc-message");
        if !is_grpc(exchange) {
            return;
        }
        exchange.response.grpc_status = status(&exchange.response.headers);
        let content_type = exchange.kept_mut::<Conversation>().map(|conversation| {
            conversation.answered = true;
            conversation.content_type.clone()
        });
        if let Some(content_type) = content_type {
            exchange.response.headers.set("Content-Type", content_type);
        }
    }

    fn body_filter(&self, exchange: &mut Exchange, chunk: &mut Vec<u8>, last: bool) {
        if !exchange.kept::<Conversation>().is_some_and(|conversation| conversation.answered) {
            return;
        }
        if last && !exchange.response.trailers.is_empty() {
            write_trailers(&exchange.response.trailers, chunk);
            exchange.response.grpc_status = status(&exchange.response.trailers);
            exchange.response.trailers.clear();
        }
        if let Some(conversation) = exchange.kept_mut::<Conversation>().filter(|conversation| conversation.text) {
            encode_text(&mut conversation.rest, chunk, last);
        }
    }
}

/// Whether a content type is gRPC-Web's: `Some(true)` for the text form.
fn is_text(content_type: &str) -> Option<bool> {
    let name = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match name.as_str() {
        "application/grpc-web" | "application/grpc-web+proto" => Some(false),
        "application/grpc-web-text" | "application/grpc-web-text+proto" => Some(true),
        _ => None,
    }
}

/// Whether the service answered in gRPC; failures of the gateway are no calls.
fn is_grpc(exchange: &Exchange) -> bool {
    let content_type = exchange.response.headers.get_str("content-type").unwrap_or_default();
    exchange.response.source == Source::Service && content_type.starts_with("application/grpc")
}

fn status(trailers: &Headers) -> Option<u8> {
    trailers.get_str("grpc-status").and_then(|status| status.parse().ok())
}

/// A frame of trailers: lines as in HTTP/1.1, names in lower case.
pub(crate) fn write_trailers(trailers: &Headers, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[TRAILERS, 0, 0, 0, 0]);
    for (name, value) in trailers.iter() {
        out.extend_from_slice(name.to_ascii_lowercase().as_bytes());
        out.extend_from_slice(b":");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    // A section is bounded to a few KiB where it is read.
    let length = u32::try_from(out.len() - start - FRAME_HEAD).unwrap_or(u32::MAX);
    out[start + 1..start + FRAME_HEAD].copy_from_slice(&length.to_be_bytes());
}

/// Base64 in one or several padded pieces, one behind the other; `None`: malformed.
pub(crate) fn decode_text(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3);
    let mut rest = text;
    while !rest.is_empty() {
        let padded = rest.chunks(4).position(|group| group.contains(&b'='));
        let (piece, after) = rest.split_at(padded.map_or(rest.len(), |index| (index + 1) * 4));
        STANDARD.decode_vec(piece, &mut decoded).ok()?;
        rest = after;
    }
    Some(decoded)
}

/// Replace `chunk` by its base64, holding back what does not fill a group until the `last`.
pub(crate) fn encode_text(rest: &mut Vec<u8>, chunk: &mut Vec<u8>, last: bool) {
    rest.append(chunk);
    let whole = if last { rest.len() } else { rest.len() / 3 * 3 };
    *chunk = STANDARD.encode(&rest[..whole]).into_bytes();
    rest.drain(..whole);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing;
    use serde_json::json;

    fn plugin() -> Box<dyn Plugin> {
        testing::build(&definition(), json!({}))
    }

    fn exchange(content_type: &str, body: &[u8]) -> Exchange {
        let mut exchange = Exchange::new();
        exchange.request.method = Method::Post;
        exchange.request.headers.add("content-type", content_type);
        exchange.path = "/a.B/C".into();
        exchange.upstream.path = "/C".into();
        exchange.body = Some(body.to_vec());
        exchange
    }

    fn answer(plugin: &dyn Plugin, exchange: &mut Exchange, chunks: &[&[u8]]) -> Vec<u8> {
        exchange.response.source = Source::Service;
        exchange.response.headers.set("content-type", "application/grpc+proto");
        plugin.header_filter(exchange);
        let mut out = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let last = index + 1 == chunks.len();
            if last {
                exchange.response.trailers.add("Grpc-Status", "5");
                exchange.response.trailers.add("grpc-message", "gone");
            }
            let mut chunk = chunk.to_vec();
            plugin.body_filter(exchange, &mut chunk, last);
            out.extend(chunk);
        }
        out
    }

    const FRAMED: &[u8] = b"\x80\0\0\0\x22grpc-status:5\r\ngrpc-message:gone\r\n";

    #[test]
    fn binary_calls_change_their_type_and_get_their_trailers_as_a_frame() {
        let plugin = plugin();
        let mut exchange = exchange("application/grpc-web+proto", b"\0\0\0\0\x01x");
        assert!(matches!(plugin.access(&mut exchange), Step::Next));
        assert_eq!(exchange.request.headers.get_str("content-type"), Some("application/grpc"));
        assert_eq!(exchange.request.headers.get_str("te"), Some("trailers"));
        assert_eq!(exchange.upstream.path, "/a.B/C");
        assert_eq!(exchange.body.as_deref(), Some(&b"\0\0\0\0\x01x"[..]));
        let answered = answer(&*plugin, &mut exchange, &[b"\0\0\0\0\x01y", b""]);
        assert_eq!(answered, [b"\0\0\0\0\x01y", FRAMED].concat());
        assert_eq!(exchange.response.headers.get_str("content-type"), Some("application/grpc-web+proto"));
        assert_eq!(exchange.response.headers.get_str("access-control-allow-origin"), Some("*"));
        assert_eq!(exchange.response.grpc_status, Some(5));
        assert!(exchange.response.trailers.is_empty());
    }

    #[test]
    fn text_calls_are_base64_in_any_pieces() {
        let plugin = plugin();
        let body = [STANDARD.encode(b"\0\0\0\0"), STANDARD.encode(b"\x01x")].concat();
        let mut exchange = exchange("application/grpc-web-text", body.as_bytes());
        assert!(matches!(plugin.access(&mut exchange), Step::Next));
        assert_eq!(exchange.body.as_deref(), Some(&b"\0\0\0\0\x01x"[..]));
        let answered = answer(&*plugin, &mut exchange, &[b"\0", b"\0\0\0\x01", b"y"]);
        assert_eq!(STANDARD.decode(&answered).unwrap(), [b"\0\0\0\0\x01y", FRAMED].concat());
    }

    #[test]
    fn other_requests_are_refused_and_preflights_answered() {
        let plugin = plugin();
        for (content_type, body) in [
            ("application/json", &b"{}"[..]),
            ("", b""),
            ("application/grpc-web-text", b"%%%%"),
            ("application/grpc-web-text", b"abc"),
        ] {
            let mut exchange = exchange(content_type, body);
            let Step::Respond(response) = plugin.access(&mut exchange) else {
                panic!("{content_type} was let through")
            };
            assert_eq!(response.status, 400);
        }
        let mut preflight = exchange("", b"");
        preflight.request.method = Method::Options;
        let Step::Respond(response) = plugin.access(&mut preflight) else { panic!("no answer") };
        assert_eq!(response.status, 200);
        assert!(response.headers.iter().any(|(name, _)| name == "Access-Control-Allow-Methods"));
    }

    #[test]
    fn failures_of_the_gateway_stay_what_they_are() {
        let plugin = plugin();
        let mut exchange = exchange("application/grpc-web", b"");
        assert!(matches!(plugin.access(&mut exchange), Step::Next));
        exchange.response.headers.set("content-type", "application/json");
        plugin.header_filter(&mut exchange);
        let mut body = b"{}".to_vec();
        plugin.body_filter(&mut exchange, &mut body, true);
        assert_eq!(body, b"{}");
    }
}
