//! A client that speaks HTTP/2 frame by frame, also wrongly.
//!
//! For tests of limits, malformed messages and abuse, where a library would refuse or repair the input. Fields are
//! sent as literals without compression; of what comes back only the status is decoded.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::raw::TIMEOUT;

/// What a client's connection begins with (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 section 6).
#[expect(missing_docs, reason = "the names are the standard's")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
/// END_HEADERS of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// 0: the connection.
    pub stream: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// The frame on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = (self.payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// Whether the stream ends with this frame.
    pub fn ends_stream(&self) -> bool {
        (matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & END_STREAM != 0)
            || self.kind == kind::RST_STREAM
    }

    /// The error code of RST_STREAM and GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        let bytes: [u8; 4] = self.payload.get(at..at + 4).and_then(|code| code.try_into().ok()).unwrap_or([0xff; 4]);
        u32::from_be_bytes(bytes)
    }

    /// The last stream of GOAWAY.
    pub fn last_stream(&self) -> u32 {
        let bytes: [u8; 4] = self.payload.get(..4).and_then(|id| id.try_into().ok()).unwrap_or([0; 4]);
        u32::from_be_bytes(bytes) & 0x7fff_ffff
    }
}

/// Fields as a header block of literals, nothing indexed (RFC 7541 section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            write_length(text.len(), &mut block);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn write_length(length: usize, out: &mut Vec<u8>) {
    if length < 127 {
        out.push(length as u8);
        return;
    }
    out.push(127);
    let mut left = length - 127;
    while left >= 128 {
        out.push((left % 128) as u8 | 128);
        left /= 128;
    }
    out.push(left as u8);
}

/// The pseudo-fields of a GET of `path`.
pub fn get(path: &str) -> Vec<(&str, &str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":authority", "a.b"), (":path", path)]
}

/// One connection.
#[derive(Debug)]
pub struct FrameClient {
    stream: TcpStream,
    received: Vec<u8>,
}

impl FrameClient {
    /// Connects and sends the preface and settings without a table for compression.
    ///
    /// # Panics
    /// When the connection is refused.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        let mut client = Self::silent(addr);
        client.send_bytes(PREFACE);
        client.send(&Frame::new(kind::SETTINGS, 0, 0, [0, 1, 0, 0, 0, 0]));
        client
    }

    /// Connects and sends nothing.
    ///
    /// # Panics
    /// When the connection is refused.
    #[track_caller]
    pub fn silent(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&addr, TIMEOUT).expect("the gateway listens");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_write_timeout(Some(TIMEOUT)).expect("a socket option");
        Self { stream, received: Vec::new() }
    }

    /// Sends a frame; an error of a closed connection is left for reading to find.
    pub fn send(&mut self, frame: &Frame) {
        self.send_bytes(&frame.bytes());
    }

    /// Sends bytes, likewise.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends bytes; whether the connection took them.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Opens `stream` with these fields.
    pub fn request(&mut self, stream: u32, fields: &[(&str, &str)], ends: bool) {
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.send(&Frame::new(kind::HEADERS, flags, stream, block(fields)));
    }

    /// Sends data on `stream`.
    pub fn data(&mut self, stream: u32, data: &[u8], ends: bool) {
        self.send(&Frame::new(kind::DATA, u8::from(ends), stream, data));
    }

    /// The next frame; `None` at the end of the connection.
    ///
    /// # Panics
    /// When there is neither in time.
    #[track_caller]
    pub fn read(&mut self) -> Option<Frame> {
        match self.read_within(TIMEOUT) {
            Some(next) => next,
            None => panic!("neither a frame nor the end of the connection within {TIMEOUT:?}"),
        }
    }

    /// The next frame within `patience`; `Some(None)` at the end of the connection, `None` when nothing came.
    pub fn read_within(&mut self, patience: Duration) -> Option<Option<Frame>> {
        let until = Instant::now() + patience;
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(Some(frame));
            }
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).expect("a socket option");
            let mut buf = [0; 16 * 1024];
            match self.stream.read(&mut buf) {
                Ok(0) => return Some(None),
                Ok(count) => self.received.extend(&buf[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= until {
                        return None;
                    }
                }
                Err(_) => return Some(None),
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let header = self.received.get(..9)?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & 0x7fff_ffff;
        let (kind, flags) = (header[3], header[4]);
        let payload = self.received.get(9..9 + length)?.to_vec();
        self.received.drain(..9 + length);
        Some(Frame { kind, flags, stream, payload })
    }

    /// Frames up to the first for which `wanted` holds, which is the last one given.
    ///
    /// # Panics
    /// When the connection ends before, or there is none in time.
    #[track_caller]
    pub fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            match self.read() {
                Some(frame) => {
                    let found = wanted(&frame);
                    frames.push(frame);
                    if found {
                        return frames;
                    }
                }
                None => panic!("the connection ended before the frame; there were {frames:?}"),
            }
        }
    }

    /// Status and content of the response on `stream`, read to its end; settings and pings are acknowledged.
    ///
    /// # Panics
    /// When the stream or the connection ends before, or it takes too long.
    #[track_caller]
    pub fn response(&mut self, stream: u32) -> (u16, Vec<u8>) {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let Some(frame) = self.read() else { panic!("the connection ended before the response") };
            self.acknowledge(&frame);
            if frame.stream != stream {
                assert_ne!(frame.kind, kind::GOAWAY, "GOAWAY {} before the response", frame.code());
                continue;
            }
            match frame.kind {
                kind::HEADERS if status < 200 => status = self::status(&frame.payload),
                kind::DATA => body.extend(&frame.payload),
                kind::RST_STREAM => panic!("stream {stream} was reset with {} after {status}", frame.code()),
                _ => {}
            }
            if frame.ends_stream() {
                return (status, body);
            }
        }
    }

    /// Answers settings and pings.
    pub fn acknowledge(&mut self, frame: &Frame) {
        match (frame.kind, frame.flags & 1) {
            (kind::SETTINGS, 0) => self.send(&Frame::new(kind::SETTINGS, 1, 0, [])),
            (kind::PING, 0) => self.send(&Frame::new(kind::PING, 1, 0, frame.payload.clone())),
            _ => {}
        }
    }

    /// The error code of the GOAWAY with which the connection ends.
    ///
    /// # Panics
    /// When it ends without one, or not in time.
    #[track_caller]
    pub fn goaway(&mut self) -> u32 {
        let until = Instant::now() + 2 * TIMEOUT;
        let mut code = None;
        while let Some(frame) = self.read() {
            if frame.kind == kind::GOAWAY {
                code = Some(frame.code());
            }
            assert!(Instant::now() < until, "the connection goes on");
        }
        code.expect("GOAWAY before the end of the connection")
    }
}

/// The status at the start of a header block.
fn status(block: &[u8]) -> u16 {
    // Size updates of the table may come first.
    let block = &block[block.iter().take_while(|byte| **byte >> 5 == 1).count()..];
    match *block {
        [0x88, ..] => 200,
        [0x89, ..] => 204,
        [0x8a, ..] => 206,
        [0x8b, ..] => 304,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        // A literal with the name of entry 8, plain or in Huffman code.
        [0x08 | 0x18 | 0x48, 3, a, b, c, ..] => {
            [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
        }
        [0x08 | 0x18 | 0x48, length, ref rest @ ..] if length & 0x80 != 0 => {
            huffman_digits(&rest[..usize::from(length & 0x7f)])
        }
        _ => 0,
    }
}

/// Three digits in HPACK's Huffman code (RFC 7541 appendix B): 0 to 2 take five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits = bytes.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let (mut left, mut number) = (bytes.len() * 8, 0);
    for _ in 0..3 {
        let five = (bits >> (left - 5)) & 31;
        let (digit, taken) =
            if five < 3 { (five, 5) } else { (((bits >> (left - 6)) & 63).wrapping_sub(0b01_0110), 6) };
        left -= taken;
        number = number * 10 + digit as u16;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read() {
        assert_eq!(status(&[0x20, 0x88]), 200);
        assert_eq!(status(b"\x08\x03413"), 413);
        // 431 in Huffman code: 011010 011001 00001 and ones to fill up.
        assert_eq!(status(&[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111]), 431);
    }

    #[test]
    fn long_texts_have_long_lengths() {
        let value = "v".repeat(300);
        let block = block(&[("n", &value)]);
        assert_eq!(block[..5], [0, 1, b'n', 127, (173 % 128) as u8 | 128]);
        assert_eq!(block.len(), 3 + 3 + 300);
    }
}
