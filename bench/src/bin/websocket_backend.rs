//! The WebSocket backend behind every measured proxy: one thread, epoll, every message goes back.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use clap::Parser;
use gateward_bench::websocket::{Frame, accept, first, frame};
use gateward_bench::{BUFFER_BYTES, LISTENER, ReadState, listen, read_available, register, write_pending};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Poll, Token};

#[derive(Parser)]
#[command(about = "A minimal WebSocket echo for measurements")]
struct Arguments {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:9203")]
    listen: SocketAddr,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    upgraded: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut poll = Poll::new().context("cannot create an epoll instance")?;
    let listener = listen(&poll, arguments.listen).with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
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
                accept_all(&poll, &listener, &mut connections);
                continue;
            }
            let Some(slot) = connections.get_mut(event.token().0) else { continue };
            let Some(connection) = slot else { continue };
            if !serve(connection, event.is_readable()) {
                *slot = None;
            }
        }
    }
}

fn accept_all(poll: &Poll, listener: &TcpListener, connections: &mut Vec<Option<Connection>>) {
    while let Ok((mut stream, _)) = listener.accept() {
        let index = connections.iter().position(Option::is_none).unwrap_or(connections.len());
        if register(poll, &mut stream, Token(index)).is_err() {
            continue;
        }
        let input = vec![0; BUFFER_BYTES];
        let connection = Connection { stream, input, filled: 0, output: Vec::new(), upgraded: false };
        if index == connections.len() {
            connections.push(Some(connection));
        } else {
            connections[index] = Some(connection);
        }
    }
}

/// Answers what is in the buffer. False: the connection is over.
fn serve(connection: &mut Connection, readable: bool) -> bool {
    let mut alive = true;
    if readable {
        alive =
            read_available(&mut connection.stream, &mut connection.input, &mut connection.filled) == ReadState::Drained;
        let mut used = 0;
        loop {
            let rest = &connection.input[used..connection.filled];
            match step(rest, &mut connection.upgraded, &mut connection.output) {
                Some(0) => break,
                Some(count) => used += count,
                None => return false,
            }
        }
        connection.input.copy_within(used..connection.filled, 0);
        connection.filled -= used;
    }
    write_pending(&mut connection.stream, &mut connection.output) && alive
}

/// Bytes dealt with; 0: more are needed; `None`: this is something else.
fn step(bytes: &[u8], upgraded: &mut bool, output: &mut Vec<u8>) -> Option<usize> {
    if !*upgraded {
        let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else { return Some(0) };
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        let (_, key) = fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))?;
        let accept = accept(key.trim());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        output.extend_from_slice(answer.as_bytes());
        *upgraded = true;
        return Some(end + 4);
    }
    match first(bytes) {
        Frame::Partial => Some(0),
        Frame::Other => None,
        Frame::Message(payload, mask, used) => {
            let mask = mask?;
            let plain: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            output.extend_from_slice(&frame(&plain, None));
            Some(used)
        }
    }
}
