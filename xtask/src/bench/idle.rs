//! Memory of a proxy: at rest, and with many connections that have been used once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::process::resident_bytes;
use super::report::Idle;
use crate::shell::{pause, quietly};

/// Open files that every measured program can count on.
const FILES: u64 = 16_384;

/// Opens connections to a running proxy and compares.
///
/// # Errors
/// A connection is refused or answers something other than 200.
pub(crate) fn measure(process: u32, address: &str, connections: u64) -> Result<Idle> {
    let idle_bytes = resident_bytes(process);
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(use_once(address)?);
    }
    pause(Duration::from_secs(1));
    let loaded_bytes = resident_bytes(process);
    Ok(Idle { idle_bytes, loaded_bytes, connections })
}

/// Lifts the soft limit of open files of this process (and so of what it starts) where it is low.
pub(crate) fn lift_file_limit() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if soft_limit(&limits).is_none_or(|limit| limit >= FILES) {
        return;
    }
    let own = std::process::id().to_string();
    if !quietly(Command::new("prlimit").args(["--pid", &own, &format!("--nofile={FILES}:")])) {
        eprintln!("note: cannot lift the limit of open files to {FILES}; see `ulimit -Hn`");
    }
}

fn soft_limit(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

fn use_once(address: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: idle\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).with_context(|| format!("no answer from {address}"))?;
    if &head != b"HTTP/1.1 200" {
        bail!("{address} answered {}", String::from_utf8_lossy(&head));
    }
    // The rest of the answer stays in the socket: what counts is the gateway's side.
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_read() {
        let limits =
            "Limit Soft Hard Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(soft_limit(limits), Some(1024));
        assert_eq!(soft_limit("Max open files unlimited unlimited files\n"), None);
    }
}
