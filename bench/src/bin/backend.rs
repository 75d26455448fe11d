//! The backend behind every measured proxy: one thread, epoll, a constant answer of 128 bytes.
//!
//! It counts header ends and parses nothing else, so that it costs a small part of any proxy in front of it.
//! It does not read request bodies.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use clap::Parser;
use gateward_bench::{BUFFER_BYTES, LISTENER, ReadState, listen, read_available, register, write_pending};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Poll, Token};

const BODY_BYTES: usize = 128;

#[derive(Parser)]
#[command(about = "A minimal HTTP/1.1 backend for measurements")]
struct Arguments {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:9201")]
    listen: SocketAddr,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut poll = Poll::new().context("cannot create an epoll instance")?;
    let listener = listen(&poll, arguments.listen).with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = Events::with_capacity(256);
    let answer = answer();
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
            if !serve(connection, &answer, event.is_readable()) {
                *slot = None;
            }
        }
    }
}

fn answer() -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {BODY_BYTES}\r\n\r\n").into_bytes();
    bytes.resize(bytes.len() + BODY_BYTES, b'x');
    bytes
}

fn accept_all(poll: &Poll, listener: &TcpListener, connections: &mut Vec<Option<Connection>>) {
    while let Ok((mut stream, _)) = listener.accept() {
        let index = connections.iter().position(Option::is_none).unwrap_or(connections.len());
        if register(poll, &mut stream, Token(index)).is_err() {
            continue;
        }
        let connection =
            Connection { stream, input: vec![0; BUFFER_BYTES], filled: 0, output: Vec::with_capacity(BUFFER_BYTES) };
        if index == connections.len() {
            connections.push(Some(connection));
        } else {
            connections[index] = Some(connection);
        }
    }
}

/// Answers every complete request in the buffer. False: the connection is over.
fn serve(connection: &mut Connection, answer: &[u8], readable: bool) -> bool {
    let mut alive = true;
    if readable {
        alive =
            read_available(&mut connection.stream, &mut connection.input, &mut connection.filled) == ReadState::Drained;
        let mut consumed = 0;
        while let Some(length) = head_length(&connection.input[consumed..connection.filled]) {
            consumed += length;
            connection.output.extend_from_slice(answer);
        }
        connection.input.copy_within(consumed..connection.filled, 0);
        connection.filled -= consumed;
    }
    write_pending(&mut connection.stream, &mut connection.output) && alive
}

fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4)
}
