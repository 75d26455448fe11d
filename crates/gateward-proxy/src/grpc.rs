//! gRPC: which requests are, what routes for it demand, deadlines, and the statuses of failures.
//!
//! A gRPC call is an HTTP/2 request whose status comes in trailers; everything that moves it is the same as for any
//! other request. What differs is here: a failure of the gateway must be told as a gRPC status, because clients look
//! at nothing else, and whether a call went well is said by `grpc-status`, not by the HTTP status.

use crate::error::{ProxyError, status_message};
use crate::outcome::Local;
use crate::plan::RoutePlan;
use gateward_http::{Headers, Name, Version};
use gateward_plugin::{Exchange, LocalBody, LocalResponse, ResponseState, Scheme};
use gateward_telemetry::Fault;
use std::fmt::Write;

const CONTENT_TYPE: Name<'static> = Name::new("content-type");
const GRPC_TIMEOUT: Name<'static> = Name::new("grpc-timeout");
/// Carries the status of a call, in trailers or in the head of a response without content.
pub(crate) const GRPC_STATUS: Name<'static> = Name::new("grpc-status");

/// A gRPC call under way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Call {
    /// When the whole call must be over, on the worker's clock.
    pub(crate) due_us: Option<u64>,
}

impl Call {
    /// The call that a request with these `headers`, begun at `now_us`, is; `None` if it is none.
    pub(crate) fn of(headers: &Headers, now_us: u64) -> Option<Self> {
        is_grpc(headers).then(|| {
            let timeout_us = headers.get(GRPC_TIMEOUT).and_then(parse_timeout);
            Self { due_us: timeout_us.map(|timeout| now_us.saturating_add(timeout)) }
        })
    }

    /// Microseconds left; `None` without a deadline.
    pub(crate) fn left_us(self, now_us: u64) -> Option<u64> {
        self.due_us.map(|due| due.saturating_sub(now_us))
    }

    /// Tell the upstream how much of the deadline is left. `false`: nothing is.
    pub(crate) fn pass_deadline(self, now_us: u64, headers: &mut Headers) -> bool {
        let Some(left_us) = self.left_us(now_us) else { return true };
        headers.set(GRPC_TIMEOUT.as_str(), write_timeout(left_us));
        left_us > 0
    }
}

/// Whether the content of a message with these `headers` is gRPC: `application/grpc`, with a format or without.
pub(crate) fn is_grpc(headers: &Headers) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let (Some(start), rest) = (value.get(..TYPE.len()), value.get(TYPE.len()..).unwrap_or_default()) else {
        return false;
    };
    start.eq_ignore_ascii_case(TYPE) && matches!(rest, [] | [b'+' | b';' | b' ', ..])
}

/// What a request gets that a route for gRPC does not take (kong/runloop/handler.lua).
pub(crate) fn refusal(exchange: &Exchange, route: &RoutePlan) -> Option<LocalResponse> {
    if !route.grpc {
        return None;
    }
    if !is_grpc(&exchange.request.headers) {
        return Some(LocalResponse::message(415, "Non-gRPC request matched gRPC route"));
    }
    let upgrade = |message: &'static str, to: &'static str| {
        Some(LocalResponse::message(426, message).header("Connection", "Upgrade").header("Upgrade", to))
    };
    if exchange.request.version != Version::Http2 {
        return upgrade("Please use HTTP2 protocol", "HTTP/2");
    }
    if route.grpcs_only && exchange.client.forwarded_proto == Scheme::Http {
        return upgrade(status_message(426), "TLS/1.2, HTTP/2");
    }
    None
}

/// Microseconds of a `grpc-timeout`: at most eight digits and a unit; `None` when it is malformed.
fn parse_timeout(value: &[u8]) -> Option<u64> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => count * 3_600_000_000,
        b'M' => count * 60_000_000,
        b'S' => count * 1_000_000,
        b'm' => count * 1_000,
        b'u' => count,
        b'n' => count.div_ceil(1_000),
        _ => return None,
    })
}

/// A `grpc-timeout` of `us` microseconds, as exact as eight digits allow.
fn write_timeout(us: u64) -> String {
    const MOST: u64 = 99_999_999;
    let (mut count, mut unit) = (us, 'u');
    for (next, factor) in [('m', 1_000), ('S', 1_000), ('M', 60), ('H', 60)] {
        if count <= MOST {
            break;
        }
        (count, unit) = (count / factor, next);
    }
    format!("{}{unit}", count.min(MOST))
}

/// Status codes of gRPC (<https://grpc.io/docs/guides/status-codes/>).
mod code {
    pub(super) const OK: u8 = 0;
    pub(super) const CANCELLED: u8 = 1;
    pub(super) const UNKNOWN: u8 = 2;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
    pub(super) const DATA_LOSS: u8 = 15;
    pub(super) const UNAUTHENTICATED: u8 = 16;
}

/// The status that stands for an HTTP status (gRPC's doc/http-grpc-status-mapping.md), and for those that only a
/// gateway gives the one closest.
pub(crate) fn status_of_http(status: u16) -> u8 {
    match status {
        200..300 => code::OK,
        400 => code::INTERNAL,
        401 => code::UNAUTHENTICATED,
        403 => code::PERMISSION_DENIED,
        404 => code::UNIMPLEMENTED,
        413 | 431 => code::RESOURCE_EXHAUSTED,
        429 | 502..=504 => code::UNAVAILABLE,
        499 => code::CANCELLED,
        _ => code::UNKNOWN,
    }
}

/// The status of a failure of the gateway or behind it.
pub(crate) fn status_of_error(error: ProxyError) -> u8 {
    match error {
        ProxyError::Deadline => code::DEADLINE_EXCEEDED,
        ProxyError::PluginPanic => code::INTERNAL,
        error => status_of_http(error.status()),
    }
}

/// Text as `grpc-message` carries it: bytes beyond printable ASCII, and `%`, in percent code.
pub(crate) fn encode_message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A failed call in gRPC's own terms.
pub(crate) struct Failure {
    error: Option<ProxyError>,
    message: String,
}

impl Failure {
    /// What `local` says, for a client that speaks gRPC.
    pub(crate) fn of(local: &Local) -> Self {
        match local {
            Local::Error(error) => Self { error: Some(*error), message: encode_message(error.message()) },
            Local::Plugin(LocalResponse { body: LocalBody::Message(message), .. }) => {
                Self { error: None, message: encode_message(message) }
            }
            Local::Plugin(_) => Self { error: None, message: String::new() },
        }
    }

    /// Make `response` and its `body` a response without content that has the status in its head, unless it is in
    /// gRPC already.
    pub(crate) fn restate(self, response: &mut ResponseState, body: &mut Vec<u8>) {
        if is_grpc(&response.headers) {
            return;
        }
        let status = self.error.map_or_else(|| status_of_http(response.status), status_of_error);
        response.status = 200;
        response.headers.set("Content-Type", "application/grpc");
        response.headers.set(GRPC_STATUS.as_str(), itoa::Buffer::new().format(status));
        if !self.message.is_empty() {
            response.headers.set("grpc-message", self.message);
        }
        body.clear();
    }
}

/// The status with which a call ended, of the trailers or else of the head of its response.
pub(crate) fn status_of_response(trailers: &Headers, headers: &Headers) -> Option<u8> {
    let value = trailers.get_str(GRPC_STATUS).or_else(|| headers.get_str(GRPC_STATUS))?;
    value.parse().ok()
}

/// Whose fault a call's status tells of. A response without one ended in a way no server should end it.
pub(crate) fn fault(status: Option<u8>) -> Fault {
    match status {
        Some(code::OK) => Fault::None,
        None | Some(code::UNKNOWN | code::DEADLINE_EXCEEDED | code::INTERNAL | code::UNAVAILABLE | code::DATA_LOSS) => {
            Fault::Upstream
        }
        Some(_) => Fault::Client,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_its_type() {
        for (value, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/GRPC; x=y", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
            ("application/grp", false),
        ] {
            let mut headers = Headers::default();
            headers.add("Content-Type", value);
            assert_eq!(is_grpc(&headers), grpc, "{value}");
        }
        assert!(!is_grpc(&Headers::default()));
    }

    #[test]
    fn timeouts_are_eight_digits_and_a_unit() {
        for (text, us) in [
            ("1H", Some(3_600_000_000)),
            ("2M", Some(120_000_000)),
            ("3S", Some(3_000_000)),
            ("4m", Some(4_000)),
            ("5u", Some(5)),
            ("1500n", Some(2)),
            ("99999999H", Some(359_999_996_400_000_000)),
            ("100000000S", None),
            ("S", None),
            ("1", None),
            ("-1S", None),
            ("1s", None),
            ("", None),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), us, "{text}");
        }
        for (us, text) in [
            (0, "0u"),
            (99_999_999, "99999999u"),
            (100_000_000, "100000m"),
            (100_000_000_000, "100000S"),
            (360_000_000_000_000_000, "99999999H"),
        ] {
            assert_eq!(write_timeout(us), text);
        }
    }

    #[test]
    fn a_deadline_shrinks_on_the_way() {
        let mut headers = Headers::default();
        headers.add("content-type", "application/grpc");
        headers.add("grpc-timeout", "1S");
        let call = Call::of(&headers, 500).unwrap();
        assert!(call.pass_deadline(250_500, &mut headers));
        assert_eq!(headers.get_str("grpc-timeout"), Some("750000u"));
        assert!(!call.pass_deadline(2_000_000, &mut headers));
        headers.remove("grpc-timeout");
        let endless = Call::of(&headers, 0).unwrap();
        assert!(endless.pass_deadline(u64::MAX, &mut headers) && !headers.contains("grpc-timeout"));
    }

    #[test]
    fn messages_are_printable() {
        assert_eq!(encode_message("no Route: 100% \u{e9}\n"), "no Route: 100%25 %C3%A9%0A");
    }

    #[test]
    fn statuses_say_whose_fault_it_was() {
        for (status, fault_of) in [
            (Some(0), Fault::None),
            (Some(5), Fault::Client),
            (Some(16), Fault::Client),
            (Some(14), Fault::Upstream),
            (Some(2), Fault::Upstream),
            (None, Fault::Upstream),
        ] {
            assert_eq!(fault(status), fault_of, "{status:?}");
        }
        for (http, status) in [(401, 16), (403, 7), (404, 12), (429, 14), (503, 14), (418, 2), (200, 0)] {
            assert_eq!(status_of_http(http), status, "{http}");
        }
        assert_eq!(status_of_error(ProxyError::NoRoute), 12);
        assert_eq!(status_of_error(ProxyError::Connect), 14);
        assert_eq!(status_of_error(ProxyError::Deadline), 4);
    }
}
