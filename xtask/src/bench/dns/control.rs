//! What is sent to the control API while latency is measured.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{NAMES, SOA};
use crate::bench::peers::address;
use crate::shell::pause;

/// Updates per second, and connections that send them.
const UPDATES_PER_SECOND: u32 = 500;
pub(super) const WRITERS: u32 = 8;
/// Times a second that a zone with a mistake is sent.
const BROKEN_PER_SECOND: u32 = 10;

/// A request on a connection that is kept; the status of the answer.
fn request(stream: &mut BufReader<TcpStream>, method: &str, path: &str, kind: &str, body: &str) -> Result<u16> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.get_mut().write_all([head.as_bytes(), body.as_bytes()].concat().as_slice())?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .with_context(|| format!("the control API answered {line:?}"))?;
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    std::io::copy(&mut std::io::Read::take(stream, length), &mut std::io::sink())?;
    Ok(status)
}

fn connect(port: u16) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address(port)).context("the control API does not answer")?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// Adds and removes a record of `origin` again and again at the control API on `port`, at its share of the rate; every change must be taken.
///
/// # Errors
/// One was not.
pub(super) fn update(port: u16, origin: &str, writer: u32, stop: &AtomicBool, count: &AtomicU64) -> Result<()> {
    let pace = Duration::from_secs(1) * WRITERS / UPDATES_PER_SECOND;
    let mut next = Instant::now();
    alternate(port, origin, writer, stop, |status| {
        ensure!(status == 200, "an update was answered with {status}");
        count.fetch_add(1, Ordering::Relaxed);
        next += pace;
        pause(next.saturating_duration_since(Instant::now()));
        Ok(())
    })
}

/// Adds and removes a record of `origin` as fast as that is answered, whether it is taken or is over the zone's quota.
///
/// # Errors
/// There was another answer.
pub(super) fn loop_updates(port: u16, origin: &str, stop: &AtomicBool, count: &AtomicU64) -> Result<()> {
    alternate(port, origin, 0, stop, |status| {
        ensure!(matches!(status, 200 | 429), "an update was answered with {status}");
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    })
}

fn alternate(
    port: u16,
    origin: &str,
    writer: u32,
    stop: &AtomicBool,
    mut answered: impl FnMut(u16) -> Result<()>,
) -> Result<()> {
    let mut stream = connect(port)?;
    let path = format!("/v1/zones/{origin}/changes");
    let mut present = false;
    while !stop.load(Ordering::Relaxed) {
        let op = if present { "remove" } else { "add" };
        let body = format!(r#"{{"changes":[{{"op":"{op}","record":"w{writer}.{origin}. 300 IN A 192.0.2.9"}}]}}"#);
        let status = request(&mut stream, "POST", &path, "application/json", &body)?;
        present ^= status == 200;
        answered(status)?;
    }
    Ok(())
}

/// Adds a zone each second.
///
/// # Errors
/// One was not taken.
pub(super) fn add_zones(port: u16, round: u64, stop: &AtomicBool) -> Result<()> {
    let mut stream = connect(port)?;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let origin = format!("new-{round}-{number}.test");
        let text = format!("$ORIGIN {origin}.\n$TTL 300\n{SOA}");
        let status = request(&mut stream, "PUT", &format!("/v1/zones/{origin}"), "text/dns", &text)?;
        ensure!(status == 204, "a new zone was answered with {status}");
        pause(Duration::from_secs(1));
    }
    Ok(())
}

/// Sends a zone of as many names as the measured one, whose last line is none, again and again.
///
/// # Errors
/// It was taken.
pub(super) fn break_zone(port: u16, origin: &str, stop: &AtomicBool, count: &AtomicU64) -> Result<()> {
    let mut stream = connect(port)?;
    let mut text = format!("$ORIGIN {origin}.\n$TTL 300\n{SOA}");
    (0..NAMES).for_each(|host| _ = writeln!(text, "host-{host} A 10.0.{}.{}", host >> 8, host & 255));
    text.push_str("last A 192.0.2.300\n");
    while !stop.load(Ordering::Relaxed) {
        let status = request(&mut stream, "PUT", &format!("/v1/zones/{origin}"), "text/dns", &text)?;
        ensure!(matches!(status, 422 | 429), "a zone with a mistake was answered with {status}");
        count.fetch_add(1, Ordering::Relaxed);
        pause(Duration::from_secs(1) / BROKEN_PER_SECOND);
    }
    Ok(())
}
