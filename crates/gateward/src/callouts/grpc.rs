//! A gRPC callout: messages both ways in their frames, metadata, and the status that everything comes to
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use super::Callouts;
use super::body::Body;
use super::connections::{Answer, REFUSALS, SendFailure};
use super::http::{fields, shown};
use crate::egress::chain;
use bytes::{BufMut, Bytes, BytesMut};
use gateward_proxy::Callee;
use gateward_wasm::callout::{CalloutStatus, GrpcCall, GrpcEvent, Messages};
use gateward_wasm::plugin::Destination;
use http_body_util::BodyExt;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use hyper::{Request, Uri, Version};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// A byte that says whether the message is compressed, and four for its length.
const PREFIX_BYTES: usize = 5;
/// How long a connection has to give back what it did not send.
const RETURN: Duration = Duration::from_secs(1);
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Codes of gRPC beside those that callouts name.
const CANCELLED: u32 = 1;
const UNKNOWN: u32 = 2;
const PERMISSION_DENIED: u32 = 7;
const UNIMPLEMENTED: u32 = 12;
const UNAUTHENTICATED: u32 = 16;

/// Make the call; the status its peer ends it with.
///
/// # Errors
/// The status that stands for what went wrong on the way.
pub(super) async fn ask(
    callouts: &Callouts,
    destination: &Destination,
    call: &GrpcCall,
    sent: Messages,
    events: &mpsc::Sender<GrpcEvent>,
    most: usize,
) -> Result<CalloutStatus, CalloutStatus> {
    let unavailable = |error: String| CalloutStatus::new(CalloutStatus::UNAVAILABLE, error);
    let (mut sent, mut fresh, mut refusals) = (sent, false, 0);
    loop {
        let (mut callee, exchange) = callouts.connect(destination, true, fresh).await.map_err(unavailable)?;
        let reused = exchange.reused;
        let (request, unread) = request(call, &callee, sent).map_err(|error| {
            CalloutStatus::new(CalloutStatus::INTERNAL, format!("the call cannot be made: {error}"))
        })?;
        let failure = match exchange.send(request).await {
            Ok(answer) => {
                callee.answered(answer.response.status().as_u16());
                return listen(answer, events, most).await;
            }
            Err(failure) => failure,
        };
        let again = match failure {
            SendFailure::Unsent => reused,
            SendFailure::Refused => refusals < REFUSALS,
            SendFailure::Broken(_) => false,
        };
        let returned = if again { tokio::time::timeout(RETURN, unread).await.ok().and_then(Result::ok) } else { None };
        let Some(messages) = returned else {
            callee.broke();
            return Err(unavailable(format!("{}: {failure}", callee.address)));
        };
        (sent, fresh, refusals) = (messages, true, refusals + 1);
    }
}

/// The request, and where its messages come back if none of them went out.
fn request(
    call: &GrpcCall,
    callee: &Callee,
    sent: Messages,
) -> Result<(Request<Body>, oneshot::Receiver<Messages>), hyper::http::Error> {
    let mut headers = fields(&call.metadata)?;
    let reserved: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with("grpc-")).cloned().collect();
    for name in reserved {
        headers.remove(name);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if let Some(timeout) = call.timeout {
        headers.insert(GRPC_TIMEOUT, timeout_value(timeout));
    }
    let scheme = if callee.tls.is_some() { "https" } else { "http" };
    let authority = call.authority.as_deref().unwrap_or(&callee.authority);
    let path = format!("/{}/{}", call.service, call.method);
    let (body, unread) = Body::messages(sent);
    let mut request = Request::post(Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build()?)
        .version(Version::HTTP_2)
        .body(body)?;
    *request.headers_mut() = headers;
    Ok((request, unread))
}

/// At most eight digits and a unit; no timeout of a callout needs more.
fn timeout_value(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let text = match (timeout.as_micros(), timeout.as_millis()) {
        (us, _) if us <= MOST => format!("{us}u"),
        (_, ms) => format!("{}m", ms.min(MOST)),
    };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("99999999m"))
}

/// Tell what comes, until the end.
async fn listen(
    mut answer: Answer,
    events: &mpsc::Sender<GrpcEvent>,
    most: usize,
) -> Result<CalloutStatus, CalloutStatus> {
    let head = &answer.response;
    if head.status() != 200 {
        let (status, text) =
            (status_of_http(head.status().as_u16()), format!("HTTP status {}", head.status().as_u16()));
        return Err(status_in(head.headers()).unwrap_or_else(|| CalloutStatus::new(status, text)));
    }
    let content_type = head.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if !content_type.to_ascii_lowercase().starts_with(b"application/grpc") {
        let shown = String::from_utf8_lossy(content_type).into_owned();
        return Err(CalloutStatus::new(UNKNOWN, format!("the answer is not gRPC but '{shown}'")));
    }
    // Nobody listens any more when this fails, and then nobody waits for the status either.
    let gone = |_| CalloutStatus::new(CANCELLED, "given up");
    if let Some(status) = status_in(head.headers()) {
        events.send(GrpcEvent::Trailing(shown(head.headers()))).await.map_err(gone)?;
        return Ok(status);
    }
    events.send(GrpcEvent::Initial(shown(head.headers()))).await.map_err(gone)?;
    let mut received = BytesMut::new();
    while let Some(frame) = answer.response.body_mut().frame().await {
        let frame = match frame.map_err(|error| broken(&error))?.into_data() {
            Ok(data) => {
                received.extend_from_slice(&data);
                while let Some(message) = take_message(&mut received, most)? {
                    events.send(GrpcEvent::Message(message)).await.map_err(gone)?;
                }
                continue;
            }
            Err(frame) => frame,
        };
        if let Ok(trailers) = frame.into_trailers() {
            let status = status_in(&trailers);
            events.send(GrpcEvent::Trailing(shown(&trailers))).await.map_err(gone)?;
            return status.ok_or_else(|| CalloutStatus::new(UNKNOWN, "the trailers have no grpc-status"));
        }
    }
    Err(CalloutStatus::new(UNKNOWN, "the answer ended without a status"))
}

/// A message with its prefix, uncompressed.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    // Messages of filters are far smaller than 4 GiB: they fit into the filter's memory.
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

/// Take a whole message from the front of what was received, if there is one.
fn take_message(received: &mut BytesMut, most: usize) -> Result<Option<Vec<u8>>, CalloutStatus> {
    let Some((&[compressed, ref length @ ..], _)) = received.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if compressed != 0 {
        let text = "a message is compressed, which was not asked for";
        return Err(CalloutStatus::new(CalloutStatus::INTERNAL, text));
    }
    if length > most {
        let text = format!("a message of {length} bytes is longer than {most}");
        return Err(CalloutStatus::new(CalloutStatus::RESOURCE_EXHAUSTED, text));
    }
    if received.len() < PREFIX_BYTES + length {
        return Ok(None);
    }
    let framed = received.split_to(PREFIX_BYTES + length);
    Ok(Some(framed[PREFIX_BYTES..].to_vec()))
}

/// The status that a response's head or trailers tell, if they do.
fn status_in(fields: &HeaderMap) -> Option<CalloutStatus> {
    let code = fields.get("grpc-status")?.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(UNKNOWN);
    let message = fields.get("grpc-message").map(|message| decode_message(message.as_bytes())).unwrap_or_default();
    Some(CalloutStatus { code, message })
}

/// A `grpc-message`, out of its percent code; what is none stays as it is.
fn decode_message(value: &[u8]) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (mut decoded, mut rest) = (Vec::with_capacity(value.len()), value);
    while let Some((&byte, behind)) = rest.split_first() {
        let code = match (byte, behind) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        decoded.push(code.map_or(byte, |(high, low)| (high * 16 + low) as u8));
        rest = if code.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// gRPC's doc/http-grpc-status-mapping.md.
fn status_of_http(status: u16) -> u32 {
    match status {
        400 => CalloutStatus::INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => CalloutStatus::UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// A stream that broke off.
fn broken(error: &hyper::Error) -> CalloutStatus {
    let code = if error.is_canceled() { CANCELLED } else { CalloutStatus::UNAVAILABLE };
    CalloutStatus::new(code, chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_of_their_frames_however_they_were_cut() {
        let framed = [&frame(b"one")[..], &frame(b""), &frame(b"three")].concat();
        for cut in 0..=framed.len() {
            let (mut received, mut messages) = (BytesMut::new(), Vec::new());
            for part in [&framed[..cut], &framed[cut..]] {
                received.extend_from_slice(part);
                while let Some(message) = take_message(&mut received, 5).unwrap() {
                    messages.push(message);
                }
            }
            assert_eq!(messages, [&b"one"[..], b"", b"three"], "{cut}");
            assert!(received.is_empty());
        }
    }

    #[test]
    fn messages_that_are_too_long_or_compressed_end_the_call() {
        let code = |bytes: &[u8]| take_message(&mut BytesMut::from(bytes), 5).unwrap_err().code;
        assert_eq!(code(&[0, 0, 0, 0, 6]), CalloutStatus::RESOURCE_EXHAUSTED);
        assert_eq!(code(&[0, 255, 255, 255, 255]), CalloutStatus::RESOURCE_EXHAUSTED);
        assert_eq!(code(&[1, 0, 0, 0, 1, 0]), CalloutStatus::INTERNAL);
    }

    #[test]
    fn statuses_are_read_from_fields() {
        let read = |status: &'static str, message: &'static str| {
            let mut fields = HeaderMap::new();
            fields.insert("grpc-status", HeaderValue::from_static(status));
            fields.insert("grpc-message", HeaderValue::from_static(message));
            status_in(&fields).unwrap()
        };
        assert_eq!(read("5", "no %C3%A9 100%25 %zz %"), CalloutStatus::new(5, "no \u{e9} 100% %zz %"));
        assert_eq!(read("five", "").code, UNKNOWN);
        assert_eq!(status_in(&HeaderMap::new()), None);
        for (http, grpc) in [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (503, 14), (500, 2), (302, 2)] {
            assert_eq!(status_of_http(http), grpc, "{http}");
        }
    }

    #[test]
    fn timeouts_fit_into_eight_digits() {
        for (timeout, expected) in [
            (Duration::from_millis(5), "5000u"),
            (Duration::from_secs(30), "30000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(u64::MAX), "99999999m"),
        ] {
            assert_eq!(timeout_value(timeout), expected);
        }
    }
}
