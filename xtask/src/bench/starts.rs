//! How long a gateway takes from the start of its process until it serves, with filters and without.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::peers::{BACKEND_PORT, address, gateward_command, write};
use super::report::Start;
use super::{Bench, PROXY_CORE, filter, gateway_config, pinned};
use crate::shell::{Running, pause};

/// Filters of the second and the third start, all of them in one chain.
const FILTERS: usize = 20;
const PORT: u16 = 9215;
const PATIENCE: Duration = Duration::from_secs(60);

/// The starts that are compared: a name, and whether there are filters and a cache that knows them.
const STARTS: [(&str, bool, bool); 3] = [
    ("without filters", false, false),
    ("20 filters, in the cache", true, true),
    ("20 filters, cache empty", true, false),
];

/// Starts in turns; times in milliseconds.
///
/// # Errors
/// The gateway does not build or does not start.
pub(crate) fn measure(bench: &Bench, rounds: u64) -> Result<Vec<Start>> {
    let folder = filter::many(&bench.out, FILTERS)?;
    let cache = bench.out.join("filter-cache");
    let mut starts = STARTS.map(|(name, ..)| Start { name, ms: Vec::new() });
    for round in 0..=rounds {
        for (start, (name, filters, cached)) in starts.iter_mut().zip(STARTS) {
            // The compiler's time is known well enough from a few rounds.
            if filters && !cached && round > 3 {
                continue;
            }
            if filters && !cached {
                let _ = std::fs::remove_dir_all(&cache);
            }
            let ms = once(bench, filters.then_some((folder.as_path(), cache.as_path())))?;
            // The first round fills caches, that of compiled filters among them.
            if round > 0 {
                eprintln!("start: round {round}/{rounds}: {name}: {ms:.1} ms");
                start.ms.push(ms);
            }
        }
    }
    Ok(starts.into())
}

fn once(bench: &Bench, filters: Option<(&Path, &Path)>) -> Result<f64> {
    let count = if filters.is_some() { FILTERS } else { 0 };
    let names: Vec<String> = (0..count).map(|number| format!("filter_{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let file = write(&bench.out, "start.yml", &gateway_config::filtered(BACKEND_PORT, &names))?;
    let mut command = gateward_command(&bench.release, &file, &address(PORT), PORT, Some(1))?;
    if let Some((folder, cache)) = filters {
        command.arg("--wasm=on").arg("--wasm-filters-path").arg(folder).arg("--wasm-cache-path").arg(cache);
    }
    let mut command = pinned(&command, Some(PROXY_CORE), &bench.out.join("start.log"))?;
    time(&mut command)
}

/// Milliseconds until the process says that it is ready.
fn time(command: &mut Command) -> Result<f64> {
    let began = Instant::now();
    let mut process = Running::start(command)?;
    while began.elapsed() < PATIENCE {
        if is_ready(PORT + 1000) {
            return Ok(began.elapsed().as_secs_f64() * 1e3);
        }
        if !process.is_alive() {
            bail!("the gateway ended before it served; its log is bench/out/start.log");
        }
        pause(Duration::from_micros(200));
    }
    bail!("the gateway did not serve within {} s", PATIENCE.as_secs())
}

fn is_ready(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(address(port)) else { return false };
    let asked = stream.write_all(b"GET /status/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.starts_with("HTTP/1.1 200")
}
