//! Request and response heads: parsing under strict rules, and the framing they declare.

use crate::{Headers, Method};

/// Protocol version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// How a message's body is delimited (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyFraming {
    /// No body.
    #[default]
    None,
    /// Exactly this many bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Until the connection closes (responses only).
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
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    /// Query part of the target without `?`; `Some("")` for a bare trailing `?`.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
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

/// Why a head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed head")]
pub struct HeadError;

impl HeadError {
    /// Status to answer a client with: 400, 414, 417, 431, 501 or 505.
    pub fn status(self) -> u16 {
        400
    }

    /// Reason label for the refusal counter, e.g. `bare_cr`, `obs_fold`, `length_and_encoding`.
    pub fn label(self) -> &'static str {
        "malformed"
    }
}

/// Parse a request head at the start of `buf` into `head`.
pub fn parse_request_head(buf: &[u8], limits: &HeadLimits, head: &mut RequestHead) -> Result<Parsed, HeadError> {
    let _ = (buf, limits, head);
    Err(HeadError)
}

/// Parse a response head at the start of `buf` into `head`. `method` is the request's: it decides the framing.
/// Interim (1xx) responses are returned like any other, with `BodyFraming::None`.
pub fn parse_response_head(
    buf: &[u8],
    limits: &HeadLimits,
    method: &Method,
    head: &mut ResponseHead,
) -> Result<Parsed, HeadError> {
    let _ = (buf, limits, method, head);
    Err(HeadError)
}
