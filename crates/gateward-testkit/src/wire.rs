//! Reading HTTP/1.1 messages from a blocking socket: heads and framed bodies, with a deadline.
//!
//! Deliberately naive and separate from the gateway's codec, so that a mistake there is not repeated here. It
//! is strict where a proxy must be: CRLF line ends, numeric lengths, well-formed chunks.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Largest head accepted, in bytes.
const HEAD_MAX_BYTES: usize = 1 << 20;
/// Largest body accepted, in bytes.
const BODY_MAX_BYTES: usize = 256 << 20;

/// Why no message could be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The peer closed before the first byte of a message.
    #[error("the peer closed the connection before the first byte of a message")]
    Closed,
    /// The peer closed in the middle of a message.
    #[error("the peer closed the connection in the middle of a message, after {}", show(.received))]
    CutShort {
        /// What had come of the message.
        received: Vec<u8>,
    },
    /// The deadline passed.
    #[error("no complete message before the deadline; received so far: {}", show(.received))]
    Timeout {
        /// What had come of the message.
        received: Vec<u8>,
    },
    /// The bytes are not a message.
    #[error("malformed message: {problem}; received: {}", show(.received))]
    Malformed {
        /// What is wrong.
        problem: String,
        /// What had come of the message.
        received: Vec<u8>,
    },
    /// The socket failed, for instance by a reset.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
}

/// A start line and header fields.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) start_line: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Empty,
    Length(usize),
    Chunked,
    UntilClose,
}

/// A body and the fields after it.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pub(crate) content: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

/// Reads messages one after the other.
#[derive(Debug)]
pub(crate) struct MessageReader {
    /// Received bytes, of which those up to `taken` belong to what has been read.
    buffer: Vec<u8>,
    taken: usize,
    deadline: Instant,
}

impl MessageReader {
    pub(crate) fn new() -> Self {
        Self { buffer: Vec::new(), taken: 0, deadline: Instant::now() }
    }

    /// Whether bytes beyond the last message have come already.
    pub(crate) fn has_pending(&self) -> bool {
        self.taken < self.buffer.len()
    }

    /// Takes the bytes beyond the last message that have come already.
    pub(crate) fn take_pending(&mut self) -> Vec<u8> {
        let pending = self.buffer.split_off(self.taken);
        self.buffer.clear();
        self.taken = 0;
        pending
    }

    /// Starts the next message, to be complete within `timeout`.
    pub(crate) fn start(&mut self, timeout: Duration) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.deadline = Instant::now() + timeout;
    }

    /// The bytes of the message as they came, as far as it has been read.
    pub(crate) fn message_bytes(&self) -> &[u8] {
        &self.buffer[..self.taken]
    }

    pub(crate) fn head(&mut self, stream: &mut TcpStream) -> Result<Head, WireError> {
        let start_line = self.line(stream)?;
        let headers = self.fields(stream)?;
        Ok(Head { start_line, headers })
    }

    pub(crate) fn body(&mut self, stream: &mut TcpStream, framing: Framing) -> Result<Body, WireError> {
        let mut body = Body::default();
        match framing {
            Framing::Empty => {}
            Framing::Length(length) => body.content = self.exactly(stream, length)?,
            Framing::Chunked => self.chunks(stream, &mut body)?,
            Framing::UntilClose => {
                body.content = self.rest(stream)?;
            }
        }
        Ok(body)
    }

    /// Everything up to the end of the stream.
    pub(crate) fn rest(&mut self, stream: &mut TcpStream) -> Result<Vec<u8>, WireError> {
        while self.fill(stream)? {
            if self.buffer.len() - self.taken > BODY_MAX_BYTES {
                return Err(self.malformed("the body is larger than this client accepts"));
            }
        }
        let rest = self.buffer[self.taken..].to_vec();
        self.taken = self.buffer.len();
        Ok(rest)
    }

    fn chunks(&mut self, stream: &mut TcpStream, body: &mut Body) -> Result<(), WireError> {
        loop {
            let line = self.line(stream)?;
            let digits = line.split(';').next().unwrap_or_default().trim_end();
            let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let Some(size) = usize::from_str_radix(digits, 16).ok().filter(|_| is_hex) else {
                return Err(self.malformed(&format!("chunk size line {line:?}")));
            };
            if size == 0 {
                body.trailers = self.fields(stream)?;
                return Ok(());
            }
            body.content.extend(self.exactly(stream, size)?);
            if !self.line(stream)?.is_empty() {
                return Err(self.malformed("a chunk is longer than its size"));
            }
        }
    }

    fn fields(&mut self, stream: &mut TcpStream) -> Result<Vec<(String, String)>, WireError> {
        let mut fields = Vec::new();
        loop {
            let line = self.line(stream)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(self.malformed(&format!("header line {line:?} has no colon")));
            };
            let value = value.trim_matches([' ', '\t']);
            fields.push((name.to_owned(), value.to_owned()));
        }
    }

    /// A line without its CRLF; bytes that are not UTF-8 become replacement characters.
    fn line(&mut self, stream: &mut TcpStream) -> Result<String, WireError> {
        let mut searched = self.taken;
        loop {
            if let Some(found) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let end = searched + found;
                let line = self.buffer[self.taken..end].to_vec();
                self.taken = end + 1;
                return match line.strip_suffix(b"\r") {
                    Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
                    None => Err(self.malformed("a line ends with LF alone")),
                };
            }
            searched = self.buffer.len();
            if searched - self.taken > HEAD_MAX_BYTES {
                return Err(self.malformed("a line is longer than this client accepts"));
            }
            self.fill_or_fail(stream)?;
        }
    }

    fn exactly(&mut self, stream: &mut TcpStream, length: usize) -> Result<Vec<u8>, WireError> {
        if length > BODY_MAX_BYTES {
            return Err(self.malformed("the body is larger than this client accepts"));
        }
        while self.buffer.len() - self.taken < length {
            self.fill_or_fail(stream)?;
        }
        let content = self.buffer[self.taken..self.taken + length].to_vec();
        self.taken += length;
        Ok(content)
    }

    fn fill_or_fail(&mut self, stream: &mut TcpStream) -> Result<(), WireError> {
        if self.fill(stream)? {
            return Ok(());
        }
        if self.buffer.is_empty() {
            return Err(WireError::Closed);
        }
        Err(WireError::CutShort { received: self.buffer.clone() })
    }

    /// Receives some bytes; `false` at the end of the stream.
    fn fill(&mut self, stream: &mut TcpStream) -> Result<bool, WireError> {
        let mut chunk = [0; 16 * 1024];
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.timed_out());
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut chunk) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&chunk[..count]);
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Err(self.timed_out()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn timed_out(&self) -> WireError {
        WireError::Timeout { received: self.buffer.clone() }
    }

    fn malformed(&self, problem: &str) -> WireError {
        WireError::Malformed { problem: problem.to_owned(), received: self.buffer.clone() }
    }

    /// How the body after `head` is framed; `None` when the head does not say.
    pub(crate) fn framing(&self, head: &Head) -> Result<Option<Framing>, WireError> {
        let encodings: Vec<&str> = all(&head.headers, "transfer-encoding").collect();
        if let Some(last) = encodings.last() {
            let chunked = last.rsplit(',').next().is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"));
            return Ok(Some(if chunked { Framing::Chunked } else { Framing::UntilClose }));
        }
        let mut lengths = all(&head.headers, "content-length");
        let Some(length) = lengths.next() else {
            return Ok(None);
        };
        let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        match length.parse() {
            Ok(length) if is_number && lengths.next().is_none() => Ok(Some(Framing::Length(length))),
            _ => Err(self.malformed("bad or repeated Content-Length")),
        }
    }
}

/// Whether the error is a socket timeout.
pub(crate) fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The values of the fields with this name, in order.
pub(crate) fn all<'a>(headers: &'a [(String, String)], name: &str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(candidate, _)| candidate.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Whether a `Connection` field lists this option.
pub(crate) fn connection_says(headers: &[(String, String)], option: &str) -> bool {
    all(headers, "connection")
        .flat_map(|value| value.split(','))
        .any(|candidate| candidate.trim().eq_ignore_ascii_case(option))
}

/// Bytes for an error text: escaped, and cut when long.
pub(crate) fn show(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 2_000;
    let shown = &bytes[..bytes.len().min(SHOWN_MAX)];
    let rest = bytes.len() - shown.len();
    let ellipsis = if rest > 0 { format!(" and {rest} more bytes") } else { String::new() };
    format!("\"{}\"{ellipsis}", shown.escape_ascii())
}
