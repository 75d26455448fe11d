//! The floor: the least a user-space HTTP/1.1 proxy can cost on epoll.
//!
//! One thread; every client connection owns one upstream connection; each message is one read, one `httparse`,
//! one write. Host is rewritten, `X-Forwarded-For` and a request id are added, as the measured peers do. No
//! routing, time-outs, retries, bodies in requests, chunked coding or statistics: what a gateway costs above this
//! figure is the price of its features.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use clap::Parser;
use gateward_bench::{BUFFER_BYTES, LISTENER, ReadState, listen, read_available, register, write_pending};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Poll, Token};

const MAX_HEADERS: usize = 64;

#[derive(Parser)]
#[command(about = "The least an epoll proxy can cost: parse, rewrite, forward")]
struct Arguments {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:9202")]
    listen: SocketAddr,
    /// The one upstream.
    #[arg(long, default_value = "127.0.0.1:9201")]
    upstream: SocketAddr,
}

/// One socket with what was read from it and what must still be written to it.
struct Side {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        Self { stream, input: vec![0; BUFFER_BYTES], filled: 0, output: Vec::with_capacity(BUFFER_BYTES) }
    }

    fn read(&mut self) -> ReadState {
        read_available(&mut self.stream, &mut self.input, &mut self.filled)
    }

    fn consume(&mut self, count: usize) {
        self.input.copy_within(count..self.filled, 0);
        self.filled -= count;
    }
}

struct Pair {
    client: Side,
    upstream: Side,
    forwarded_for: String,
    /// Whether the upstream connection is established; until then its output waits.
    connected: bool,
    /// Body bytes of the current response that are still to come.
    body_left: usize,
}

/// What every request gets, prepared once.
struct Rewrite {
    host: String,
    next_id: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut poll = Poll::new().context("cannot create an epoll instance")?;
    let listener = listen(&poll, arguments.listen).with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let mut rewrite = Rewrite { host: arguments.upstream.to_string(), next_id: 1 };
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut events = Events::with_capacity(256);
    loop {
        if let Err(error) = poll.poll(&mut events, None) {
            if error.kind() == std::io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error).context("epoll_wait failed");
        }
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&poll, &listener, arguments.upstream, &mut pairs);
                continue;
            }
            // Even tokens are clients, odd ones their upstream connections.
            let Some(slot) = pairs.get_mut(event.token().0 / 2) else { continue };
            let Some(pair) = slot else { continue };
            let alive = if event.token().0.is_multiple_of(2) {
                pair.client_ready(event.is_readable(), &mut rewrite)
            } else {
                pair.upstream_ready(event.is_readable(), event.is_writable())
            };
            if !alive {
                *slot = None;
            }
        }
    }
}

fn accept_all(poll: &Poll, listener: &TcpListener, upstream: SocketAddr, pairs: &mut Vec<Option<Pair>>) {
    while let Ok((mut client, peer)) = listener.accept() {
        let index = pairs.iter().position(Option::is_none).unwrap_or(pairs.len());
        let Ok(mut server) = TcpStream::connect(upstream) else { continue };
        if register(poll, &mut client, Token(index * 2)).is_err()
            || register(poll, &mut server, Token(index * 2 + 1)).is_err()
        {
            continue;
        }
        let pair = Pair {
            client: Side::new(client),
            upstream: Side::new(server),
            forwarded_for: peer.ip().to_string(),
            connected: false,
            body_left: 0,
        };
        if index == pairs.len() {
            pairs.push(Some(pair));
        } else {
            pairs[index] = Some(pair);
        }
    }
}

impl Pair {
    /// Moves requests towards the upstream. False: the pair is over.
    fn client_ready(&mut self, readable: bool, rewrite: &mut Rewrite) -> bool {
        if !write_pending(&mut self.client.stream, &mut self.client.output) {
            return false;
        }
        if !readable {
            return true;
        }
        let alive = self.client.read() == ReadState::Drained;
        let Some(consumed) = forward_requests(
            &self.client.input[..self.client.filled],
            &mut self.upstream.output,
            &self.forwarded_for,
            rewrite,
        ) else {
            return false;
        };
        self.client.consume(consumed);
        self.send_upstream() && alive
    }

    /// Moves responses towards the client. False: the pair is over.
    fn upstream_ready(&mut self, readable: bool, writable: bool) -> bool {
        self.connected |= writable;
        if !self.send_upstream() {
            return false;
        }
        if !readable {
            return true;
        }
        let alive = self.upstream.read() == ReadState::Drained;
        let Some(consumed) = forward_responses(
            &self.upstream.input[..self.upstream.filled],
            &mut self.client.output,
            &mut self.body_left,
        ) else {
            return false;
        };
        self.upstream.consume(consumed);
        write_pending(&mut self.client.stream, &mut self.client.output) && alive
    }

    fn send_upstream(&mut self) -> bool {
        !self.connected || write_pending(&mut self.upstream.stream, &mut self.upstream.output)
    }
}

/// Rewrites every complete request head of `input` into `output`; `None` for what a proxy must refuse.
fn forward_requests(input: &[u8], output: &mut Vec<u8>, forwarded_for: &str, rewrite: &mut Rewrite) -> Option<usize> {
    let mut consumed = 0;
    while consumed < input.len() {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(length) = request.parse(&input[consumed..]).ok()? else { break };
        let (method, path) = (request.method?, request.path?);
        for part in [method.as_bytes(), b" ", path.as_bytes(), b" HTTP/1.1\r\nHost: ", rewrite.host.as_bytes(), b"\r\n"]
        {
            output.extend_from_slice(part);
        }
        for header in request.headers.iter() {
            if header.name.eq_ignore_ascii_case("host") || header.name.eq_ignore_ascii_case("connection") {
                continue;
            }
            if header.name.eq_ignore_ascii_case("content-length")
                || header.name.eq_ignore_ascii_case("transfer-encoding")
            {
                return None;
            }
            for part in [header.name.as_bytes(), b": ", header.value, b"\r\n"] {
                output.extend_from_slice(part);
            }
        }
        let mut added = String::with_capacity(80);
        write!(added, "X-Forwarded-For: {forwarded_for}\r\nX-Request-Id: {:032x}\r\n\r\n", rewrite.next_id).ok()?;
        rewrite.next_id += 1;
        output.extend_from_slice(added.as_bytes());
        consumed += length;
    }
    Some(consumed)
}

/// Copies response heads and their bodies; `None` for framing this program does not speak.
fn forward_responses(input: &[u8], output: &mut Vec<u8>, body_left: &mut usize) -> Option<usize> {
    let mut consumed = 0;
    while consumed < input.len() {
        if *body_left == 0 {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let httparse::Status::Complete(length) = response.parse(&input[consumed..]).ok()? else { break };
            let declared = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
            *body_left = std::str::from_utf8(declared.value).ok()?.parse().ok()?;
            output.extend_from_slice(&input[consumed..consumed + length]);
            consumed += length;
        }
        let take = (*body_left).min(input.len() - consumed);
        output.extend_from_slice(&input[consumed..consumed + take]);
        consumed += take;
        *body_left -= take;
    }
    Some(consumed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_rewritten_and_a_partial_one_waits() {
        let mut rewrite = Rewrite { host: "backend:1".to_owned(), next_id: 1 };
        let mut output = Vec::new();
        let input = b"GET /a HTTP/1.1\r\nHost: me\r\nA: b\r\n\r\nGET /b HT";
        let consumed = forward_requests(input, &mut output, "1.2.3.4", &mut rewrite);
        assert_eq!(consumed, Some(input.len() - 9));
        let text = String::from_utf8(output).expect("the input is ASCII");
        assert!(
            text.starts_with(
                "GET /a HTTP/1.1\r\nHost: backend:1\r\nA: b\r\nX-Forwarded-For: 1.2.3.4\r\nX-Request-Id: "
            ),
            "{text}"
        );
        assert!(text.ends_with("1\r\n\r\n"), "{text}");
    }

    #[test]
    fn a_request_with_a_body_is_refused() {
        let mut rewrite = Rewrite { host: "backend:1".to_owned(), next_id: 1 };
        let input = b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(forward_requests(input, &mut Vec::new(), "1.2.3.4", &mut rewrite), None);
    }

    #[test]
    fn a_response_body_may_arrive_in_parts() {
        let (mut output, mut left) = (Vec::new(), 0);
        let first = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab";
        assert_eq!(forward_responses(first, &mut output, &mut left), Some(first.len()));
        assert_eq!(left, 2);
        assert_eq!(forward_responses(b"cd", &mut output, &mut left), Some(2));
        assert_eq!((left, output.ends_with(b"\r\n\r\nabcd")), (0, true));
    }
}
