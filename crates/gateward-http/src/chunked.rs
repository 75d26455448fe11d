//! Chunked transfer coding, decoded incrementally under strict rules (RFC 9112 section 7.1).

use crate::Headers;
use std::ops::Range;

/// Incremental decoder of a chunked body.
#[derive(Debug, Default)]
pub struct ChunkedDecoder {
    trailers: Headers,
}

/// What one call of [`ChunkedDecoder::decode`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkedStep {
    /// Bytes of the input that are dealt with; always advances unless more input is needed.
    pub consumed: usize,
    /// Where in the input body data stands; empty when only framing was consumed.
    pub data: Range<usize>,
    /// The body and its trailer section have ended.
    pub done: bool,
}

/// Why a chunked body is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked body")]
pub struct ChunkedError;

impl ChunkedDecoder {
    /// Decode the next piece of `input`: consumes framing and at most one run of body data.
    pub fn decode(&mut self, input: &[u8]) -> Result<ChunkedStep, ChunkedError> {
        let _ = input;
        Err(ChunkedError)
    }

    /// Trailer fields that may be forwarded; complete once a step said `done`.
    pub fn trailers(&self) -> &Headers {
        &self.trailers
    }
}

/// Append the size line of a chunk of `len` bytes (`len` > 0); data and CRLF follow.
pub fn write_chunk_head(out: &mut Vec<u8>, len: usize) {
    let _ = (out, len);
}

/// Append the last chunk, `trailers`, and the final empty line.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &Headers) {
    let _ = (out, trailers);
}
