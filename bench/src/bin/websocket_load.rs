//! A closed loop of WebSocket messages: every connection sends one, waits for its echo and sends the next.
//!
//! One thread, epoll. It prints one JSON object: messages, per_second, p50_us, p99_us, failed. A connection that
//! breaks, is not upgraded or answers something else is one failure and is not replaced.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use gateward_bench::websocket::{Frame, KEY, MESSAGE_BYTES, accept, first, frame};
use gateward_bench::{BUFFER_BYTES, ReadState, read_available, register, write_pending};
use mio::net::TcpStream;
use mio::{Events, Poll, Token};

/// Every client masks; with what does not matter here.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[derive(Parser)]
#[command(about = "A closed loop of WebSocket messages")]
struct Arguments {
    /// Address to connect to.
    #[arg(long)]
    connect: SocketAddr,
    /// How many connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// For how long.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    upgraded: bool,
    sent: Instant,
}

/// What never changes.
struct Script {
    request: Vec<u8>,
    message: Vec<u8>,
    payload: [u8; MESSAGE_BYTES],
    accept: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut poll = Poll::new().context("cannot create an epoll instance")?;
    let script = Script::new(arguments.connect);
    let mut connections = Vec::new();
    for index in 0..arguments.connections {
        connections.push(Some(open(&poll, index, &arguments, &script)?));
    }
    let mut events = Events::with_capacity(256);
    let mut latencies_us: Vec<u32> = Vec::new();
    let mut failed = 0_u64;
    let started = Instant::now();
    let end = started + Duration::from_secs(arguments.seconds);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || connections.iter().all(Option::is_none) {
            break;
        }
        match poll.poll(&mut events, Some(left)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(error).context("epoll_wait failed");
            }
            _ => {}
        }
        for event in &events {
            let Some(slot) = connections.get_mut(event.token().0) else { continue };
            let Some(connection) = slot else { continue };
            if !drive(connection, &script, event.is_readable(), &mut latencies_us) {
                failed += 1;
                *slot = None;
            }
        }
    }
    print(latencies_us, failed, started.elapsed());
    Ok(())
}

impl Script {
    fn new(address: SocketAddr) -> Self {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        let payload = [b'x'; MESSAGE_BYTES];
        let message = frame(&payload, Some(MASK));
        Self { request: request.into_bytes(), message, payload, accept: accept(KEY) }
    }
}

fn open(poll: &Poll, index: usize, arguments: &Arguments, script: &Script) -> Result<Connection> {
    let address = arguments.connect;
    let stream = std::net::TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream);
    register(poll, &mut stream, Token(index))?;
    let mut output = script.request.clone();
    write_pending(&mut stream, &mut output);
    Ok(Connection { stream, input: vec![0; BUFFER_BYTES], filled: 0, output, upgraded: false, sent: Instant::now() })
}

/// False: the connection is over, or has answered something else.
fn drive(connection: &mut Connection, script: &Script, readable: bool, latencies_us: &mut Vec<u32>) -> bool {
    if readable {
        let state = read_available(&mut connection.stream, &mut connection.input, &mut connection.filled);
        if !answered(connection, script, latencies_us) || state == ReadState::Ended {
            return false;
        }
    }
    write_pending(&mut connection.stream, &mut connection.output)
}

/// Takes what came and sends the next message. False: this is not what was asked for.
fn answered(connection: &mut Connection, script: &Script, latencies_us: &mut Vec<u32>) -> bool {
    let bytes = &connection.input[..connection.filled];
    let used = if connection.upgraded {
        match first(bytes) {
            Frame::Partial => return true,
            Frame::Message(payload, None, used) if payload == script.payload => used,
            _ => return false,
        }
    } else {
        let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else { return true };
        let head = String::from_utf8_lossy(&bytes[..end]);
        if !head.starts_with("HTTP/1.1 101 ") || !head.contains(&script.accept) {
            return false;
        }
        end + 4
    };
    if connection.upgraded {
        latencies_us.push(u32::try_from(connection.sent.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    connection.upgraded = true;
    connection.input.copy_within(used..connection.filled, 0);
    connection.filled -= used;
    connection.output.extend_from_slice(&script.message);
    connection.sent = Instant::now();
    // Nothing was asked for that could have come behind it.
    connection.filled == 0
}

fn print(mut latencies_us: Vec<u32>, failed: u64, elapsed: Duration) {
    latencies_us.sort_unstable();
    let messages = latencies_us.len();
    let quantile = |share: usize| latencies_us.get(messages * share / 100).copied();
    let report = serde_json::json!({
        "messages": messages,
        "per_second": messages as f64 / elapsed.as_secs_f64(),
        "p50_us": quantile(50),
        "p99_us": quantile(99),
        "failed": failed,
    });
    println!("{report}");
}
