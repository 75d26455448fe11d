//! `cargo xtask soak`: a release gateway at full load while its configuration is replaced every second.
//!
//! A swap is a new file put in place by rename, plus SIGHUP; it counts once the new version answers, so a gateway
//! that ignores changes fails too. No request may fail, and memory must not grow: the median of the last quarter of
//! the samples is compared with that of the second (the first is warm-up).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::bench::load::Service;
use crate::bench::peers::{BACKEND_PORT, address, gateward_command, write};
use crate::bench::wrk::{self, Load};
use crate::bench::{Bench, gateway_config, process, start};
use crate::shell::{Running, pause, quietly};

const PORT: u16 = 9221;
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Growth that is still flat: allocator noise, not a leak.
const SLACK_BYTES: u64 = 2 * 1024 * 1024;
const SLACK_PERCENT: u64 = 5;

/// For how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Minutes of load.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
}

/// What the swaps came to.
#[derive(Default)]
struct Swaps {
    done: u64,
    late: u64,
    slowest: Duration,
}

/// Soaks; true when nothing failed and memory is flat.
///
/// # Errors
/// The gateway, the backend or wrk cannot run, or the gateway ends under load.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let bench = Bench::prepare()?;
    let _backend = bench.start_backend(Service::Plain)?;
    let file = write(&bench.out, "soak.yml", &gateway_config::soak(BACKEND_PORT, 0))?;
    let command = gateward_command(&bench.release, &file, &address(PORT), PORT, None)?;
    let mut gateway = start(&command, PORT, None, &bench.out.join("soak.log"))?;
    let url = format!("http://{}/", address(PORT));
    let plan = wrk::Plan { url: &url, headers: &[], connections: 64, seconds: options.minutes * 60, core: None };
    let mut load = wrk::command(&plan).stdout(Stdio::piped()).spawn().context("cannot start wrk")?;
    let (mut swaps, mut memory) = (Swaps::default(), Vec::new());
    let driven = drive(&bench.out, &mut gateway, &mut load, &mut swaps, &mut memory);
    if driven.is_err() {
        // Otherwise wrk would go on against nobody until its time is up.
        let _ = load.kill();
    }
    driven?;
    let mut text = String::new();
    load.stdout.take().context("wrk's output is piped")?.read_to_string(&mut text)?;
    let load = wrk::parse(&text).with_context(|| format!("cannot read what wrk printed:\n{text}"))?;
    Ok(verdict(&load, &swaps, &memory))
}

/// Swaps once a second and samples memory until the load ends.
fn drive(out: &Path, gateway: &mut Running, load: &mut Child, swaps: &mut Swaps, memory: &mut Vec<u64>) -> Result<()> {
    let (started, mut version, mut next_sample) = (Instant::now(), 0, Duration::ZERO);
    println!("{:>8} {:>12} {:>8} {:>8}", "seconds", "RSS KiB", "swaps", "late");
    while load.try_wait()?.is_none() {
        version += 1;
        let due = started.elapsed() + Duration::from_secs(1);
        swap(out, gateway.id(), version, swaps)?;
        if !gateway.is_alive() {
            bail!("the gateway ended after {} s; its log is bench/out/soak.log", started.elapsed().as_secs());
        }
        if started.elapsed() >= next_sample {
            let resident = process::resident_bytes(gateway.id());
            println!("{:>8} {:>12} {:>8} {:>8}", started.elapsed().as_secs(), resident / 1024, swaps.done, swaps.late);
            memory.push(resident);
            next_sample += SAMPLE_EVERY;
        }
        pause(due.saturating_sub(started.elapsed()));
    }
    Ok(())
}

/// Puts a new version in place and waits until it answers.
fn swap(out: &Path, process: u32, version: u64, swaps: &mut Swaps) -> Result<()> {
    let next = write(out, "soak.yml.next", &gateway_config::soak(BACKEND_PORT, version))?;
    std::fs::rename(next, out.join("soak.yml"))?;
    quietly(Command::new("kill").args(["-HUP", &process.to_string()]));
    let begun = Instant::now();
    let wanted = format!("version-{version}");
    while begun.elapsed() < Duration::from_secs(5) {
        if answer("/soak-version").is_ok_and(|answer| answer.contains(&wanted)) {
            swaps.done += 1;
            swaps.slowest = swaps.slowest.max(begun.elapsed());
            return Ok(());
        }
        pause(Duration::from_millis(20));
    }
    swaps.late += 1;
    Ok(())
}

fn answer(path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address(PORT))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn verdict(load: &Load, swaps: &Swaps, memory: &[u64]) -> bool {
    let failed = load.socket_errors + load.bad_statuses;
    let growth = growth(memory);
    println!(
        "\nrequests: {} ({:.0}/s), p50 {:.0} us, p99 {:.0} us\nfailed: {failed} (socket errors {}, statuses {})\n\
         swaps: {} seen, {} not seen within 5 s, slowest {} ms",
        load.requests,
        load.per_second,
        load.p50_us,
        load.p99_us,
        load.socket_errors,
        load.bad_statuses,
        swaps.done,
        swaps.late,
        swaps.slowest.as_millis()
    );
    let flat = match growth {
        Some((early, late)) => {
            println!("memory: {} KiB in the second quarter, {} KiB in the last", early / 1024, late / 1024);
            late <= early + early * SLACK_PERCENT / 100 + SLACK_BYTES
        }
        None => false,
    };
    let passed = load.requests > 0 && failed == 0 && swaps.done > 0 && swaps.late == 0 && flat;
    println!("soak: {}", if passed { "passed" } else { "FAILED" });
    passed
}

/// Medians of the second and the last quarter.
fn growth(memory: &[u64]) -> Option<(u64, u64)> {
    let quarter = memory.len() / 4;
    let median = |samples: &[u64]| {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    };
    Some((median(memory.get(quarter..quarter * 2)?)?, median(memory.get(memory.len() - quarter..)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failed: u64, late: u64, memory: &[u64]) -> bool {
        let load = Load { requests: 10, socket_errors: failed, ..Load::default() };
        verdict(&load, &Swaps { done: 5, late, slowest: Duration::ZERO }, memory)
    }

    #[test]
    fn a_failed_request_a_missed_swap_or_a_leak_fails() {
        let flat: Vec<u64> = (0..12).map(|step| (30 << 20) + step % 3).collect();
        let leak: Vec<u64> = (0..12).map(|step| (30 + step) << 20).collect();
        assert!(check(0, 0, &flat));
        assert!(!check(1, 0, &flat));
        assert!(!check(0, 1, &flat));
        assert!(!check(0, 0, &leak));
        assert!(!check(0, 0, &[]));
    }
}
