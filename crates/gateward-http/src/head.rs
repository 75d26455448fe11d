//! Request and response heads: parsing under strict rules, and the framing they declare.
//!
//! httparse finds the parts of a head; it is lenient where leniency costs nothing to a server but much to a
//! proxy, whose reading must be the same as the next hop's. So everything two parsers could read differently
//! is refused here: `request` and `response` hold the rules of each kind, `target` those of the request
//! target and the authority, `fields` the bookkeeping over fields that decide framing, and `diagnose` names
//! the fault when httparse has already refused.
//!
//! The parsers keep no state between calls: each call looks at `buf` from its start. A caller that reads a
//! head in many small pieces asks [`worth_parsing`] first, which looks only at the new bytes, so that a head
//! arriving byte by byte costs time linear in its length.

mod diagnose;
mod error;
mod fields;
mod multiplexed;
mod request;
mod response;
mod scan;
mod target;

pub use error::HeadError;
pub use multiplexed::{MessageParts, read_request_head, read_response_head, read_trailers};
pub use request::parse_request_head;
pub(crate) use request::parse_thoroughly as parse_request_thoroughly;
pub use response::parse_response_head;
pub(crate) use response::parse_thoroughly as parse_response_thoroughly;

use crate::{Headers, Method};

/// Bytes of a method; longer ones are no method anybody implements (RFC 9112 section 3).
const METHOD_BYTES_MAX: usize = 64;

/// Fields the parsers can take, whatever the limits say.
const FIELDS_MAX: usize = 256;

/// Protocol version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
}

/// How a message's body is delimited (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyFraming {
    /// No body, and no field that announces one.
    #[default]
    None,
    /// Exactly this many bytes; 0 when `Content-Length: 0` was sent.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Until the connection closes (responses only), or in HTTP/2 until the stream ends.
    UntilClose,
}

/// Bounds on a head. Exceeding one is an error with its own status.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes of the whole head including the empty line; beyond: 431 (request line beyond `target_bytes`: 414).
    pub head_bytes: usize,
    /// Bytes of the request target; beyond: 414.
    pub target_bytes: usize,
    /// Fields; beyond: 431. At most 256.
    pub fields: usize,
}

impl Default for HeadLimits {
    /// Kong's buffers (1k + 4x8k) in effect: 32 KiB of head, 8 KiB of target, 200 fields.
    fn default() -> Self {
        Self { head_bytes: 32 * 1024, target_bytes: 8 * 1024, fields: 200 }
    }
}

/// What a parse came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed. Call again with the same bytes and more.
    Partial,
    /// The head ends after this many bytes; the body starts there.
    Complete(usize),
}

/// A request head. Reused from request to request: `parse_request_head` clears it first.
#[derive(Debug, Default, Clone)]
pub struct RequestHead {
    /// Method.
    pub method: Method,
    /// Version of the request line.
    pub version: Version,
    /// Request target in origin form or `*`: path and optional query, raw, as it came. Of an absolute-form
    /// target only the part after the authority (at least `/`).
    pub target: String,
    /// The authority the request is for: the Host value, or the authority of an absolute-form target, which
    /// replaces Host (RFC 9112 section 3.2.2); includes the port when one was given. Empty in HTTP/1.0 without Host.
    pub authority: String,
    /// Every field. After an absolute-form target `Host` has been replaced.
    pub headers: Headers,
    /// Body delimitation.
    pub framing: BodyFraming,
    /// Whether the client lets the connection stay open after this exchange (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// `Expect: 100-continue` is present (HTTP/1.1 only).
    pub expects_continue: bool,
    /// The connection asks for `Upgrade` (Connection nominates it and the field is there; HTTP/1.1 only).
    pub upgrade: bool,
}

impl RequestHead {
    /// Path part of the target, raw.
    pub fn raw_path(&self) -> &str {
        memchr::memchr(b'?', self.target.as_bytes()).map_or(&self.target, |mark| &self.target[..mark])
    }

    /// Query part of the target without `?`; `Some("")` for a bare trailing `?`.
    pub fn query(&self) -> Option<&str> {
        memchr::memchr(b'?', self.target.as_bytes()).map(|mark| &self.target[mark + 1..])
    }
}

/// A response head. Reused: `parse_response_head` clears it first.
#[derive(Debug, Default, Clone)]
pub struct ResponseHead {
    /// Version of the status line.
    pub version: Version,
    /// Status code, 100..=999.
    pub status: u16,
    /// Reason phrase as it came; may be empty.
    pub reason: String,
    /// Every field.
    pub headers: Headers,
    /// Body delimitation, already considering the request's method and the status.
    pub framing: BodyFraming,
    /// Whether the upstream connection may carry another request after this response.
    pub keep_alive: bool,
}

/// Whether parsing `buf` can tell more than it did when only the first `seen` bytes were there.
///
/// True on the first look (`seen` is 0), when the new bytes end a head or a line in a forbidden way, and when
/// a bound has been reached. Looks at the new bytes only; a parse that `Partial` answered need not be repeated
/// until this is true. A fault in the middle of the head is then reported when the head ends.
pub fn worth_parsing(buf: &[u8], seen: usize, limits: &HeadLimits) -> bool {
    // Beyond this many bytes without an end of line the target is too long, however short the method was:
    // an empty line, the method and a space stand before it.
    let target_bound = limits.target_bytes.saturating_add(METHOD_BYTES_MAX + 3);
    if seen == 0 || buf.len() >= limits.head_bytes || (seen <= target_bound && buf.len() > target_bound) {
        return true;
    }
    memchr::memchr_iter(b'\n', buf.get(seen..).unwrap_or_default()).any(|at| {
        let line_so_far = &buf[..seen + at];
        !line_so_far.ends_with(b"\r") || line_so_far.ends_with(b"\r\n\r")
    })
}

/// Whether a line ends in LF without CR (RFC 9112 section 2.2 lets a recipient take that; two that differ
/// in it disagree on where a message ends).
fn has_bare_lf(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| at == 0 || bytes[at - 1] != b'\r')
}

#[cfg(test)]
mod tests;
