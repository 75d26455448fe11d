//! A client that sends exactly the bytes it is given.
//!
//! For tests of framing, limits and malformed requests, where an HTTP library would refuse or repair the input.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::wire::{Framing, Head, MessageReader, WireError, all, connection_says, is_timeout, show};

/// Limit for each operation unless [`RawClient::set_timeout`] says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// One connection.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    reader: MessageReader,
    timeout: Duration,
}

/// A response as it came.
#[derive(Debug, Clone)]
pub struct RawResponse {
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: String,
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase, maybe empty.
    pub reason: String,
    /// Names as sent, values without surrounding white space, in order.
    pub headers: Vec<(String, String)>,
    /// The content, decoded when it was chunked.
    pub body: Vec<u8>,
    /// Fields after a chunked body.
    pub trailers: Vec<(String, String)>,
    /// The whole message as it came.
    pub bytes: Vec<u8>,
    /// Whether the end of the connection was the end of the body.
    ends_with_connection: bool,
}

impl RawClient {
    /// Connects.
    ///
    /// # Panics
    /// When the connection is refused or takes longer than [`TIMEOUT`].
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        match Self::try_connect(addr) {
            Ok(client) => client,
            Err(error) => panic!("cannot connect to {addr}: {error}"),
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// When the connection is refused or takes longer than [`TIMEOUT`].
    pub fn try_connect(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, reader: MessageReader::new(), timeout: TIMEOUT })
    }

    /// Changes the limit for each operation that follows.
    ///
    /// # Panics
    /// When `timeout` is zero.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
        self.stream.set_write_timeout(Some(timeout)).expect("the timeout is not zero");
    }

    /// The socket, for half-closing, resetting or odd writes.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// This side's address, which the peer sees.
    ///
    /// # Panics
    /// When the socket has no address, which a connected one has.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("the socket is connected")
    }

    /// Sends all bytes.
    ///
    /// # Panics
    /// When the peer does not take them.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.try_send(bytes) {
            panic!("cannot send {}: {error}", show(bytes));
        }
    }

    /// Sends all bytes.
    ///
    /// # Errors
    /// When the peer does not take them, for instance because it has closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends the end of the stream and goes on reading.
    pub fn finish_sending(&mut self) {
        // Fails when the peer has closed already; then there is nothing left to finish.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads the next response, interim ones (1xx) included. The request's method decides whether a body follows.
    ///
    /// # Panics
    /// When no complete, well-formed response comes in time.
    #[track_caller]
    pub fn read_response(&mut self, method: &str) -> RawResponse {
        match self.try_read_response(method) {
            Ok(response) => response,
            Err(error) => panic!("no response to {method}: {error}"),
        }
    }

    /// Reads the next response, interim ones (1xx) included. The request's method decides whether a body follows.
    ///
    /// # Errors
    /// When no complete, well-formed response comes in time.
    pub fn try_read_response(&mut self, method: &str) -> Result<RawResponse, WireError> {
        self.reader.start(self.timeout);
        let head = self.reader.head(&mut self.stream)?;
        let (version, status, reason) = status_line(&head).ok_or_else(|| WireError::Malformed {
            problem: "the status line is not one".to_owned(),
            received: self.reader.message_bytes().to_vec(),
        })?;
        let bodiless = method == "HEAD" || status < 200 || matches!(status, 204 | 304);
        let tunnel = method == "CONNECT" && (200..300).contains(&status);
        let framing = match self.reader.framing(&head)? {
            _ if bodiless || tunnel => Framing::Empty,
            Some(framing) => framing,
            None => Framing::UntilClose,
        };
        let body = self.reader.body(&mut self.stream, framing)?;
        Ok(RawResponse {
            version,
            status,
            reason,
            headers: head.headers,
            body: body.content,
            trailers: body.trailers,
            bytes: self.reader.message_bytes().to_vec(),
            ends_with_connection: framing == Framing::UntilClose,
        })
    }

    /// Reads the next response that is not interim.
    ///
    /// # Panics
    /// As [`RawClient::read_response`].
    #[track_caller]
    pub fn read_final_response(&mut self, method: &str) -> RawResponse {
        loop {
            let response = self.read_response(method);
            if response.status >= 200 || response.status == 101 {
                return response;
            }
        }
    }

    /// Everything the peer still sends until it closes. A reset counts as closing.
    ///
    /// # Panics
    /// When it has not closed after `timeout`.
    #[track_caller]
    pub fn read_to_close(&mut self, timeout: Duration) -> Vec<u8> {
        self.reader.start(timeout);
        match self.reader.rest(&mut self.stream) {
            Ok(bytes) => bytes,
            Err(WireError::Io(error)) if is_hang_up(&error) => Vec::new(),
            Err(error) => panic!("the peer did not close within {timeout:?}: {error}"),
        }
    }

    /// Asserts that the peer closes, within the time limit and without sending anything more.
    ///
    /// # Panics
    /// When it sends something or does not close.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let rest = self.read_to_close(self.timeout);
        assert!(rest.is_empty(), "the peer sent more before it closed: {}", show(&rest));
    }

    /// Asserts that the peer neither sends nor closes for `duration`.
    ///
    /// # Panics
    /// When it does.
    #[track_caller]
    pub fn expect_silence(&mut self, duration: Duration) {
        self.reader.start(duration);
        match self.reader.rest(&mut self.stream) {
            Err(WireError::Timeout { received }) if received.is_empty() => {}
            Err(WireError::Timeout { received }) => {
                panic!("expected silence, got {}", show(&received))
            }
            Ok(bytes) => panic!("expected silence, the peer closed after {}", show(&bytes)),
            Err(error) => panic!("expected silence: {error}"),
        }
    }

    /// Some bytes of a message as they come, for watching it arrive in pieces: what came together with the message before
    /// it, or else at most 16 KiB; empty at the end of the stream.
    ///
    /// # Panics
    /// When nothing comes within the time limit or the connection fails.
    #[track_caller]
    pub fn read_some(&mut self) -> Vec<u8> {
        let early = self.reader.take_pending();
        if !early.is_empty() {
            return early;
        }
        let end = Instant::now() + self.timeout;
        let mut chunk = vec![0; 16 * 1024];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_millis(1));
            let outcome = self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut chunk));
            match outcome {
                Ok(count) => {
                    chunk.truncate(count);
                    return chunk;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("nothing to read within {:?}: {error}", self.timeout),
            }
        }
    }

    /// Whether an idle connection is still usable: not closed, and nothing unasked for has come.
    pub(crate) fn is_idle(&mut self) -> bool {
        if self.reader.has_pending() || self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        let mut byte = [0];
        let idle = matches!(self.stream.peek(&mut byte), Err(error) if is_timeout(&error));
        self.stream.set_nonblocking(false).is_ok() && idle
    }
}

impl RawResponse {
    /// The first value of the field with this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        all(&self.headers, name).next()
    }

    /// All values of the field with this name, in any case.
    pub fn header_all(&self, name: &str) -> Vec<&str> {
        all(&self.headers, name).collect()
    }

    /// Whether the peer announced that it closes the connection.
    pub fn closes(&self) -> bool {
        connection_says(&self.headers, "close")
            || (self.version == "HTTP/1.0" && !connection_says(&self.headers, "keep-alive"))
            || self.ends_with_connection
    }

    /// The body as text; bytes that are not UTF-8 become replacement characters.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("the body is not JSON: {error}: {}", show(&self.bytes)),
        }
    }
}

/// One request on a connection of its own: `http(addr, "GET /path", &[("apikey", "x")], b"")`.
///
/// Adds `Host`, `Connection: close` and, with a body, `Content-Length` unless given. Interim responses are
/// skipped.
///
/// # Panics
/// When no complete, well-formed response comes within [`TIMEOUT`].
#[track_caller]
pub fn http(addr: SocketAddr, request: &str, headers: &[(&str, &str)], body: &[u8]) -> RawResponse {
    let (method, target) =
        request.split_once(' ').unwrap_or_else(|| panic!("write the request as \"METHOD /target\", not {request:?}"));
    let given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    let mut bytes = format!("{method} {target} HTTP/1.1\r\n");
    if !given("host") {
        bytes += &format!("Host: {addr}\r\n");
    }
    for (name, value) in headers {
        bytes += &format!("{name}: {value}\r\n");
    }
    let framed = given("content-length") || given("transfer-encoding");
    if !framed && (!body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH")) {
        bytes += &format!("Content-Length: {}\r\n", body.len());
    }
    if !given("connection") {
        bytes += "Connection: close\r\n";
    }
    bytes += "\r\n";
    let mut bytes = bytes.into_bytes();
    bytes.extend_from_slice(body);
    let mut client = RawClient::connect(addr);
    // A server may refuse a request before it has read all of it; its answer counts.
    let _ = client.try_send(&bytes);
    client.read_final_response(method)
}

fn status_line(head: &Head) -> Option<(String, u16, String)> {
    let (version, rest) = head.start_line.split_once(' ')?;
    let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let known = matches!(version, "HTTP/1.1" | "HTTP/1.0");
    let three_digits = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
    let status = status.parse().ok().filter(|status| known && three_digits && *status >= 100)?;
    Some((version.to_owned(), status, reason.to_owned()))
}

fn is_hang_up(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe)
}
