//! One run of wrk, and what it said.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// What wrk counted in one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Load {
    /// Complete responses, whatever their status.
    pub(crate) requests: u64,
    /// Responses per second.
    pub(crate) per_second: f64,
    /// Median latency in microseconds.
    pub(crate) p50_us: f64,
    /// 99th percentile in microseconds.
    pub(crate) p99_us: f64,
    /// Failed connects, reads and writes, and time-outs.
    pub(crate) socket_errors: u64,
    /// Responses outside 2xx and 3xx.
    pub(crate) bad_statuses: u64,
}

/// How to load an address.
pub(crate) struct Plan<'a> {
    pub(crate) url: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) connections: u32,
    pub(crate) seconds: u64,
    /// Core to run on, if pinned.
    pub(crate) core: Option<usize>,
}

/// The command of a plan.
pub(crate) fn command(plan: &Plan<'_>) -> Command {
    let mut command = match plan.core {
        Some(core) => {
            let mut pinned = Command::new("taskset");
            pinned.args(["-c", &core.to_string(), "wrk"]);
            pinned
        }
        None => Command::new("wrk"),
    };
    command.args(["-t1", "--latency", "-c", &plan.connections.to_string(), "-d", &format!("{}s", plan.seconds)]);
    for (name, value) in plan.headers {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    command.arg(plan.url).stdin(Stdio::null());
    command
}

/// Runs a plan to its end.
///
/// # Errors
/// wrk is missing, fails, or prints what this version does not understand.
pub(crate) fn run(plan: &Plan<'_>) -> Result<Load> {
    let output = command(plan).output().context("cannot start wrk; `cargo xtask setup --bench` installs it")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("wrk failed on {}: {text}{}", plan.url, String::from_utf8_lossy(&output.stderr));
    }
    parse(&text).with_context(|| format!("cannot read what wrk printed:\n{text}"))
}

/// Reads wrk's report.
pub(crate) fn parse(text: &str) -> Option<Load> {
    let mut load = Load::default();
    for line in text.lines().map(str::trim) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("50%"), Some(time)) => load.p50_us = microseconds(time)?,
            (Some("99%"), Some(time)) => load.p99_us = microseconds(time)?,
            (Some("Requests/sec:"), Some(rate)) => load.per_second = rate.parse().ok()?,
            (Some(count), Some("requests")) => load.requests = count.parse().ok()?,
            (Some("Socket"), Some("errors:")) => load.socket_errors = numbers(line),
            (Some("Non-2xx"), Some("or")) => load.bad_statuses = numbers(line.split_once(':')?.1),
            _ => {}
        }
    }
    (load.per_second > 0.0 || text.contains("Requests/sec:")).then_some(load)
}

fn numbers(text: &str) -> u64 {
    let words = text.split(|letter: char| !letter.is_ascii_digit());
    words.filter_map(|word| word.parse::<u64>().ok()).sum()
}

fn microseconds(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7)];
    let (unit, factor) = units.iter().find(|(unit, _)| text.ends_with(unit))?;
    text.strip_suffix(unit)?.parse::<f64>().ok().map(|value| value * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let text = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n  Thread Stats   Avg\n    \
                    Latency     1.37ms  255.00us   4.00ms   80.00%\n  Latency Distribution\n     50%  850.00us\n     \
                    75%    1.47ms\n     99%    2.10ms\n  51023 requests in 1.00s, 9.00MB read\n  \
                    Socket errors: connect 1, read 2, write 0, timeout 3\n  Non-2xx or 3xx responses: 7\n\
                    Requests/sec:  50901.50\nTransfer/sec:      9.10MB\n";
        let expected = Load {
            requests: 51_023,
            per_second: 50_901.5,
            p50_us: 850.0,
            p99_us: 2100.0,
            socket_errors: 6,
            bad_statuses: 7,
        };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("unable to connect"), None);
    }
}
