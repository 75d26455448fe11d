//! One active check of one target: connect, and ask.

use super::rules::{Active, Probe};
use super::{Attempt, Watched};
use gateward_http::{HeadLimits, Method, Parsed, ResponseHead, parse_response_head};
use std::fmt::Write;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes of a response head taken; what follows is not read.
const HEAD_BYTES: usize = 16 * 1024;

/// Ask `target`. An answer to a TCP check is status 0: there is none to judge.
pub(super) async fn ask(target: &Watched, active: &Active) -> Attempt {
    match timeout(active.timeout, attempt(target, active)).await {
        Ok(Ok(status)) => Attempt::Status(status),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Attempt::Late,
        Ok(Err(_)) => Attempt::Broken,
        Err(_) => Attempt::Late,
    }
}

async fn attempt(target: &Watched, active: &Active) -> io::Result<u16> {
    let host = target.host.trim_start_matches('[').trim_end_matches(']');
    let mut stream = TcpStream::connect((host, target.port)).await?;
    if active.probe == Probe::Tcp {
        return Ok(0);
    }
    stream.write_all(request(target, active).as_bytes()).await?;
    let mut received = Vec::with_capacity(1024);
    let limits = HeadLimits { head_bytes: HEAD_BYTES, ..HeadLimits::default() };
    let mut head = ResponseHead::default();
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parse_response_head(&received, &limits, &Method::Get, &mut head) {
            Ok(Parsed::Complete(_)) if head.status >= 200 => return Ok(head.status),
            Ok(Parsed::Complete(length)) => drop(received.drain(..length)),
            Ok(Parsed::Partial) => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

fn request(target: &Watched, active: &Active) -> String {
    let mut request = format!("GET {} HTTP/1.1\r\n", active.path);
    let own_host = active.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    // Writing to a String cannot fail.
    let _ = match &active.host_header {
        _ if own_host => Ok(()),
        Some(host) => write!(request, "Host: {host}\r\n"),
        None => write!(request, "Host: {}:{}\r\n", target.host, target.port),
    };
    for (name, value) in &active.headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    request.push_str("Connection: close\r\n\r\n");
    request
}
