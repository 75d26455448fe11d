//! Chunked transfer coding, decoded incrementally under strict rules (RFC 9112 section 7.1).
//!
//! A byte-wise state machine for the framing, so that input may be cut anywhere and nothing has to be kept
//! by the caller; body data is not copied, only pointed at. What two decoders could read differently is an
//! error: sizes are plain hex digits, lines end in CRLF, nothing stands between a size and its extension.
//! Extensions are checked and dropped. Trailer fields are collected, and those that would change what has
//! been decided on the head are dropped (RFC 9110 section 6.5.1).

use crate::Headers;
use crate::headers::is_valid_value;
use std::ops::Range;

/// Digits of a chunk size, leading zeros included.
const SIZE_DIGITS_MAX: u8 = 16;
/// Bytes of one chunk's extensions.
const EXTENSION_BYTES_MAX: u16 = 256;
/// Framing bytes beyond a fair share of the data: lets single chunks carry extensions, but not a body that is
/// little else.
const OVERHEAD_BYTES_MAX: u64 = 16 * 1024;
/// Bytes of the trailer section, empty line included.
const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Fields of the trailer section.
const TRAILER_FIELDS_MAX: usize = 64;

/// Incremental decoder of a chunked body.
#[derive(Debug, Default)]
pub struct ChunkedDecoder {
    state: State,
    /// Bytes of data left in the chunk, or the size read so far.
    left: u64,
    digits: u8,
    extension_bytes: u16,
    overhead_bytes: u64,
    /// The trailer section as far as it has come.
    section: Vec<u8>,
    trailers: Headers,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ChunkedError {
    /// A chunk size that is not 1 to 16 hex digits.
    #[error("malformed chunk size; it is 1 to 16 hex digits")]
    Size,
    /// A control character in a chunk extension.
    #[error("control character in a chunk extension")]
    Extension,
    /// Extensions beyond 256 bytes in one chunk, or most of a body.
    #[error("chunk extensions too long")]
    ExtensionTooLong,
    /// A size line or chunk data that does not end in CRLF.
    #[error("chunk line or data without CRLF at its end")]
    LineEnd,
    /// A malformed trailer field.
    #[error("malformed trailer field")]
    Trailer,
    /// A trailer section beyond 8 KiB or 64 fields (status 431).
    #[error("trailer section too large")]
    TrailersTooLarge,
}

impl ChunkedError {
    /// Status to answer a client with when its body shows the error: 400 or 431.
    pub fn status(self) -> u16 {
        match self {
            Self::TrailersTooLarge => 431,
            _ => 400,
        }
    }

    /// Reason label for the refusal counter, e.g. `chunk_size`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Size => "chunk_size",
            Self::Extension => "chunk_extension",
            Self::ExtensionTooLong => "chunk_extension_too_long",
            Self::LineEnd => "chunk_line_end",
            Self::Trailer => "trailer_field",
            Self::TrailersTooLarge => "trailers_too_large",
        }
    }
}

impl ChunkedDecoder {
    /// Decode the next piece of `input`: consumes framing and at most one run of body data.
    ///
    /// Whatever is not consumed is the start of the next call's input; after `done` it belongs to the next
    /// message. Input without data is consumed whole, so the caller never has to wait for more bytes of a line.
    ///
    /// # Errors
    /// The body is malformed: its end cannot be found, so the connection must be closed.
    pub fn decode(&mut self, input: &[u8]) -> Result<ChunkedStep, ChunkedError> {
        let mut at = 0;
        while at < input.len() {
            match self.state {
                State::Data => {
                    let rest = input.len() - at;
                    let run = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                    self.left -= run as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(ChunkedStep { consumed: at + run, data: at..at + run, done: false });
                }
                State::Trailers => at += self.take_trailer_bytes(&input[at..])?,
                State::Done => break,
                _ => {
                    self.take_framing_byte(input[at])?;
                    at += 1;
                }
            }
        }
        Ok(ChunkedStep { consumed: at, data: at..at, done: self.state == State::Done })
    }

    /// Trailer fields that may be forwarded; complete once a step said `done`.
    pub fn trailers(&self) -> &Headers {
        &self.trailers
    }

    /// Make ready for the next body, keeping the memory.
    pub fn reset(&mut self) {
        self.state = State::Size;
        self.left = 0;
        self.digits = 0;
        self.extension_bytes = 0;
        self.overhead_bytes = 0;
        self.section.clear();
        self.trailers.clear();
    }

    /// Bytes of memory held, for limits on what a connection may keep while idle.
    pub fn capacity_bytes(&self) -> usize {
        self.section.capacity() + self.trailers.capacity_bytes()
    }

    fn take_framing_byte(&mut self, byte: u8) -> Result<(), ChunkedError> {
        match (self.state, byte) {
            (State::Size, b'\r' | b';') if self.digits == 0 => return Err(ChunkedError::Size),
            (State::Size | State::Extension, b'\r') => self.state = State::SizeLf,
            (State::Size, b';') => self.state = State::Extension,
            (State::Size, b'\n') if self.digits > 0 => return Err(ChunkedError::LineEnd),
            (State::Size, byte) => self.take_size_digit(byte)?,
            (State::Extension, byte) => self.take_extension_byte(byte)?,
            (State::SizeLf, b'\n') => self.start_chunk()?,
            (State::DataCr, b'\r') => self.state = State::DataLf,
            (State::DataLf, b'\n') => self.state = State::Size,
            _ => return Err(ChunkedError::LineEnd),
        }
        Ok(())
    }

    fn take_size_digit(&mut self, byte: u8) -> Result<(), ChunkedError> {
        let digit = char::from(byte).to_digit(16).ok_or(ChunkedError::Size)?;
        if self.digits == SIZE_DIGITS_MAX {
            return Err(ChunkedError::Size);
        }
        self.digits += 1;
        self.left = (self.left << 4) | u64::from(digit);
        Ok(())
    }

    fn take_extension_byte(&mut self, byte: u8) -> Result<(), ChunkedError> {
        if byte == b'\n' {
            return Err(ChunkedError::LineEnd);
        }
        if !is_valid_value(&[byte]) {
            return Err(ChunkedError::Extension);
        }
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX { Err(ChunkedError::ExtensionTooLong) } else { Ok(()) }
    }

    /// The size line is complete.
    fn start_chunk(&mut self) -> Result<(), ChunkedError> {
        // A chunk pays for 16 bytes of its size line, and for as much again as it brings data.
        let line_bytes = u64::from(self.digits) + u64::from(self.extension_bytes);
        let allowance = self.left.saturating_add(16);
        self.overhead_bytes = (self.overhead_bytes + line_bytes).saturating_sub(allowance);
        if self.overhead_bytes > OVERHEAD_BYTES_MAX {
            return Err(ChunkedError::ExtensionTooLong);
        }
        self.digits = 0;
        self.extension_bytes = 0;
        self.state = if self.left == 0 { State::Trailers } else { State::Data };
        Ok(())
    }

    /// Collect the trailer section line by line; how many bytes of `input` belong to it.
    fn take_trailer_bytes(&mut self, input: &[u8]) -> Result<usize, ChunkedError> {
        let (piece, ends_line) = match memchr::memchr(b'\n', input) {
            Some(end) => (&input[..=end], true),
            None => (input, false),
        };
        if self.section.len() + piece.len() > TRAILER_BYTES_MAX {
            return Err(ChunkedError::TrailersTooLarge);
        }
        self.section.extend_from_slice(piece);
        if ends_line {
            if !self.section.ends_with(b"\r\n") {
                return Err(ChunkedError::LineEnd);
            }
            if self.section.len() == 2 || self.section.ends_with(b"\r\n\r\n") {
                self.read_trailers()?;
                self.state = State::Done;
            }
        }
        Ok(piece.len())
    }

    fn read_trailers(&mut self) -> Result<(), ChunkedError> {
        if self.section.len() == 2 {
            return Ok(());
        }
        let mut storage = [httparse::EMPTY_HEADER; TRAILER_FIELDS_MAX];
        match httparse::parse_headers(&self.section, &mut storage) {
            Ok(httparse::Status::Complete((length, fields))) if length == self.section.len() => {
                for field in fields.iter().filter(|field| may_be_trailer(field.name)) {
                    self.trailers.push(field.name.as_bytes(), field.value);
                }
                Ok(())
            }
            Err(httparse::Error::TooManyHeaders) => Err(ChunkedError::TrailersTooLarge),
            _ => Err(ChunkedError::Trailer),
        }
    }
}

/// Append the size line of a chunk of `len` bytes (`len` > 0); data and CRLF follow.
pub fn write_chunk_head(out: &mut Vec<u8>, len: usize) {
    debug_assert!(len > 0, "a chunk of size 0 would end the body");
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(DIGITS[(len >> (place * 4)) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Append the last chunk, `trailers`, and the final empty line.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &Headers) {
    out.extend_from_slice(b"0\r\n");
    trailers.write_to(out);
    out.extend_from_slice(b"\r\n");
}

/// Whether a trailer field may be passed on: not one that frames, routes, modifies or authenticates the
/// message or describes its content (RFC 9110 section 6.5.1), since those have been acted on already.
pub fn may_be_trailer(name: &str) -> bool {
    const PREFIXES: [&str; 7] = ["content-", "x-forwarded-", "proxy-", "if-", "x-kong-", "access-control-", "sec-"];
    const NAMES: [&str; 37] = [
        // framing and connection
        "transfer-encoding",
        "trailer",
        "te",
        "connection",
        "keep-alive",
        "upgrade",
        "http2-settings",
        "proxy",
        // routing
        "host",
        "forwarded",
        "x-real-ip",
        "via",
        "max-forwards",
        "x-http-method-override",
        // request modifiers
        "expect",
        "range",
        "cache-control",
        "pragma",
        "accept",
        "accept-encoding",
        "origin",
        "referer",
        // authentication
        "authorization",
        "www-authenticate",
        "authentication-info",
        "cookie",
        "set-cookie",
        "apikey",
        "x-api-key",
        // response control
        "age",
        "date",
        "expires",
        "location",
        "retry-after",
        "vary",
        "warning",
        "strict-transport-security",
    ];
    let has_prefix = |prefix: &&str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    !PREFIXES.iter().any(has_prefix)
        && !NAMES.iter().any(|text| name.eq_ignore_ascii_case(text))
        && !crate::hop::is_identity_header(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decode all of `input` in one piece: data, trailers as lines, bytes consumed, whether it ended.
    fn decode(input: &[u8]) -> Result<(Vec<u8>, String, usize, bool), ChunkedError> {
        let mut decoder = ChunkedDecoder::default();
        let (mut data, mut at, mut done) = (Vec::new(), 0, false);
        while !done && at < input.len() {
            let step = decoder.decode(&input[at..])?;
            data.extend_from_slice(&input[at..][step.data]);
            at += step.consumed;
            done = step.done;
        }
        let mut trailers = Vec::new();
        decoder.trailers().write_to(&mut trailers);
        Ok((data, String::from_utf8(trailers).unwrap(), at, done))
    }

    fn check(input: &str, data: &str, trailers: &str) {
        let pipelined = format!("{input}GET /");
        let expected = (data.as_bytes().to_vec(), trailers.to_owned(), input.len(), true);
        assert_eq!(decode(pipelined.as_bytes()), Ok(expected), "{input:?}");
        crate::fuzzing::chunked(pipelined.as_bytes());
    }

    fn check_refused(rows: &[(&str, ChunkedError)]) {
        for (input, error) in rows {
            assert_eq!(decode(input.as_bytes()), Err(*error), "{input:?}");
            crate::fuzzing::chunked(input.as_bytes());
        }
    }

    #[test]
    fn chunks_extensions_and_trailers_are_taken() {
        check("0\r\n\r\n", "", "");
        check("3\r\nabc\r\n0\r\n\r\n", "abc", "");
        check("3\r\nabc\r\nA\r\n0123456789\r\n0000\r\n\r\n", "abc0123456789", "");
        check("0000000000000001\r\na\r\n0\r\n\r\n", "a", "");
        check("2;name=\"v;\"; x\r\n\r\n\r\n0;last\r\n\r\n", "\r\n", "");
        check("0\r\nX-Sum: 7 \r\ngrpc-status: 0\r\n\r\n", "", "X-Sum: 7\r\ngrpc-status: 0\r\n");
    }

    #[test]
    fn chunk_size_is_1_to_16_hex_digits() {
        for size in [
            "+3",
            "-3",
            "0x3",
            " 3",
            "\t3",
            "g",
            "3_",
            "",
            ";x",
            "00000000000000003",
            "\0",
            "\u{663}",
            "3h",
            "3 ",
            "3\t",
        ] {
            check_refused(&[(&format!("{size}\r\nabc\r\n0\r\n\r\n"), ChunkedError::Size)]);
        }
        check_refused(&[("3 ;x\r\nabc\r\n0\r\n\r\n", ChunkedError::Size)]);
        check_refused(&[("\r\n3\r\nabc\r\n0\r\n\r\n", ChunkedError::Size)]);
        let mut decoder = ChunkedDecoder::default();
        let step = decoder.decode(b"ffffffffffffffff\r\nabc").unwrap();
        assert_eq!((step.data, step.done), (18..21, false));
    }

    #[test]
    fn lines_and_data_end_in_crlf() {
        check_refused(&[
            ("3\nabc\r\n0\r\n\r\n", ChunkedError::LineEnd),
            ("3\rabc\r\n0\r\n\r\n", ChunkedError::LineEnd),
            ("3\r\r\nabc\r\n0\r\n\r\n", ChunkedError::LineEnd),
            ("3;x\nabc\r\n0\r\n\r\n", ChunkedError::LineEnd),
            ("3\r\nabc\n0\r\n\r\n", ChunkedError::LineEnd),
            ("3\r\nabcd\r\n0\r\n\r\n", ChunkedError::LineEnd),
            ("3\r\nabc0\r\n\r\n", ChunkedError::LineEnd),
            ("3\r\nabc\r0\r\n\r\n", ChunkedError::LineEnd),
            ("0\r\n\n", ChunkedError::LineEnd),
            ("0\r\nX: y\n\r\n", ChunkedError::LineEnd),
        ]);
    }

    #[test]
    fn extensions_are_bounded_and_dropped() {
        let with_extension = |len: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(len));
        check(&with_extension(256), "a", "");
        check_refused(&[
            (&with_extension(257), ChunkedError::ExtensionTooLong),
            ("1;\0\r\na\r\n0\r\n\r\n", ChunkedError::Extension),
            ("1;\x7f\r\na\r\n0\r\n\r\n", ChunkedError::Extension),
            (&format!("1;{}\r\na\r\n", "e".repeat(200)).repeat(200), ChunkedError::ExtensionTooLong),
        ]);
        // Small chunks without extensions, and signed chunks of some size, may go on for ever.
        check(&format!("{}0\r\n\r\n", "1\r\na\r\n".repeat(5000)), &"a".repeat(5000), "");
        let signed = format!("60;chunk-signature={}\r\n{}\r\n", "f".repeat(64), "d".repeat(0x60));
        check(&format!("{}0\r\n\r\n", signed.repeat(500)), &"d".repeat(0x60 * 500), "");
    }

    #[test]
    fn trailers_never_frame_route_or_authenticate() {
        for name in [
            "Content-Length",
            "Transfer-Encoding",
            "Trailer",
            "Host",
            "Forwarded",
            "X-Forwarded-For",
            "X-Real-IP",
            "Via",
            "Authorization",
            "Proxy-Authorization",
            "Cookie",
            "Set-Cookie",
            "WWW-Authenticate",
            "Connection",
            "Upgrade",
            "TE",
            "Keep-Alive",
            "Expect",
            "Content-Type",
            "Content-Encoding",
            "Content-Range",
            "Cache-Control",
            "X-Consumer-ID",
            "X-Credential-Identifier",
            "X-Anonymous-Consumer",
            "If-Match",
            "Range",
            "Location",
        ] {
            assert!(!may_be_trailer(name), "{name}");
            check(&format!("0\r\n{name}: a\r\nX-Ok: b\r\n\r\n"), "", "X-Ok: b\r\n");
        }
        for name in ["grpc-status", "grpc-message", "ETag", "Digest", "Server-Timing", "x-amz-checksum-crc32"] {
            assert!(may_be_trailer(name), "{name}");
        }
    }

    #[test]
    fn trailer_fields_are_checked_like_those_of_heads() {
        for line in ["X : y", " X: y", "X: y\r\n z", "X", ": y", "X(: y", "X: \0", "X: a\rb"] {
            check_refused(&[(&format!("0\r\n{line}\r\n\r\n"), ChunkedError::Trailer)]);
        }
        check_refused(&[
            (&format!("0\r\n{}\r\n", "X: y\r\n".repeat(65)), ChunkedError::TrailersTooLarge),
            (&format!("0\r\nX: {}\r\n\r\n", "y".repeat(8 * 1024)), ChunkedError::TrailersTooLarge),
        ]);
        assert_eq!(decode(format!("0\r\n{}\r\n", "X: y\r\n".repeat(64)).as_bytes()).unwrap().1.len(), 64 * 6);
        assert_eq!((ChunkedError::TrailersTooLarge.status(), ChunkedError::Size.status()), (431, 400));
    }

    #[test]
    fn a_decoder_is_reused_after_reset() {
        let mut decoder = ChunkedDecoder::default();
        assert!(decoder.decode(b"0\r\nA: b\r\n\r\nrest").unwrap().done);
        assert_eq!(decoder.decode(b"rest"), Ok(ChunkedStep { consumed: 0, data: 0..0, done: true }));
        decoder.reset();
        assert!(decoder.trailers().is_empty());
        assert_eq!(decoder.decode(b"2\r\nab"), Ok(ChunkedStep { consumed: 5, data: 3..5, done: false }));
        decoder.reset();
        assert!(decoder.decode(b"0\r\n\r\n").unwrap().done);
    }

    #[test]
    fn heads_of_chunks_are_shortest_hex() {
        for len in [1, 9, 10, 15, 16, 255, 256, 65_536, usize::MAX] {
            let mut out = Vec::new();
            write_chunk_head(&mut out, len);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{len:x}\r\n"));
        }
    }

    #[test]
    fn advisory_hyper_2021_0079_overflowing_chunk_size() {
        // A size beyond 64 bits wrapped around and ended the body early.
        check_refused(&[
            ("f0000000000000003\r\nabc\r\n0\r\n\r\n", ChunkedError::Size),
            ("10000000000000000\r\n\r\n", ChunkedError::Size),
        ]);
    }

    /// Strings over the alphabet of the framing reach deeper than random bytes.
    fn framing() -> impl Strategy<Value = Vec<u8>> {
        let pieces = [
            "0\r\n",
            "\r\n",
            "3\r\nabc\r\n",
            "1;x=y\r\n\n\r\n",
            "0\r\n\r\n",
            "X: y\r\n",
            "Host: a\r\n",
            "a",
            "\r",
            "\n",
            ";",
            " ",
        ];
        proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..12)
            .prop_map(|parts| parts.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn pieces_do_not_matter_and_encoding_round_trips(input in framing()) {
            crate::fuzzing::chunked(&input);
        }

        #[test]
        fn whatever_is_encoded_decodes(chunks in proptest::collection::vec("[a-z\r\n]{1,40}", 0..8), sum in "[!-~]{0,20}") {
            let (mut encoded, mut trailers) = (Vec::new(), Headers::default());
            trailers.add("X-Sum", &sum);
            for chunk in &chunks {
                write_chunk_head(&mut encoded, chunk.len());
                encoded.extend_from_slice(chunk.as_bytes());
                encoded.extend_from_slice(b"\r\n");
            }
            write_last_chunk(&mut encoded, &trailers);
            let expected = (chunks.concat().into_bytes(), format!("X-Sum: {sum}\r\n"), encoded.len(), true);
            prop_assert_eq!(decode(&encoded), Ok(expected));
            crate::fuzzing::chunked(&encoded);
        }
    }
}
