//! The reliability story of `examples/resilience`: the same requests and the same faults, with and without protections.
//!
//! Backends are `gateward echo` processes that count their requests, so what happens is a matter of numbers and not of
//! time: without protections exactly the scripted requests fail. The variants of the configuration are the example's
//! file with lines left out.

use gateward_testkit::load::{Load, LoadReport};
use gateward_testkit::{Gateway, gateward_command};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::Metrics;

/// The example.
const CONFIG: &str = include_str!("../../examples/resilience/kong.yml");
/// Requests of a run: ten rounds of the targets' weights.
const REQUESTS: u64 = 2_000;
/// Connections that send them.
const CONNECTIONS: usize = 16;
/// How long the clients wait for an answer.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Every protection of the example, as the beginning of its line.
const RECORD: [&str; 7] = [
    "resilience:",
    "retry_on_statuses:",
    "per_try_timeout:",
    "hedging:",
    "outlier_detection:",
    "retry_budget:",
    "circuit_breaker:",
];

/// A `gateward echo` process; killed when dropped.
#[derive(Debug)]
struct Echo {
    child: Child,
    addr: SocketAddr,
}

impl Echo {
    fn start(faults: &str) -> Self {
        let mut command = gateward_command();
        command.args(["echo", "--listen", "127.0.0.1:0", "--faults", faults]);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("gateward echo starts");
        let mut line = String::new();
        let stderr = child.stderr.take().expect("standard error is a pipe");
        BufReader::new(stderr).read_line(&mut line).expect("gateward echo says where it listens");
        let addr = line.rsplit(' ').next().and_then(|addr| addr.trim().parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("gateward echo said: {line}"));
        Self { child, addr }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came of one variant.
#[derive(Debug, Clone)]
pub struct Row {
    /// What is different from the example.
    pub name: &'static str,
    /// Requests answered with 2xx in time.
    pub ok: u64,
    /// All requests.
    pub requests: u64,
    /// The time that 199 of 200 requests did not exceed.
    pub p99_5: Duration,
    /// Requests to targets beyond the first try.
    pub repeats: u64,
    /// Repeats the budget refused.
    pub over_budget: u64,
    /// Answers other than 2xx by status, and those that came too late.
    pub failures: String,
}

impl Row {
    /// The share of requests that succeeded, in percent.
    pub fn success(&self) -> f64 {
        self.ok as f64 / self.requests as f64 * 100.0
    }
}

/// Rows under a title.
#[derive(Debug, Clone)]
pub struct Table {
    title: String,
    /// The variants in order.
    pub rows: Vec<Row>,
}

impl Table {
    /// The row of this name.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn row(&self, name: &str) -> &Row {
        self.rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row '{name}'"))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}\n", self.title)?;
        writeln!(
            out,
            "| variant | success | p99.5 | repeats | over budget | failures |\n|---|---:|---:|---:|---:|---|"
        )?;
        for row in &self.rows {
            let p99_5 = row.p99_5.as_secs_f64() * 1000.0;
            writeln!(
                out,
                "| {} | {:.2} % | {p99_5:.0} ms | {} | {} | {} |",
                row.name,
                row.success(),
                row.repeats,
                row.over_budget,
                row.failures
            )?;
        }
        Ok(())
    }
}

/// The example with its mix of faults: without protections, with all, and without each of them alone.
pub fn mixed_faults() -> Table {
    let variants: [(&str, &[&str]); 10] = [
        ("no protections", &["retries:", "resilience"]),
        ("Kong's retries alone", &["resilience"]),
        ("all protections", &[]),
        ("all but retries", &["retries:"]),
        ("all but retry_on_statuses", &["retry_on_statuses:"]),
        ("all but per_try_timeout", &["per_try_timeout:"]),
        ("all but hedging", &["hedging:"]),
        ("all but per_try_timeout and hedging", &["per_try_timeout:", "hedging:"]),
        ("all but outlier_detection", &["outlier_detection:"]),
        ("all but retry_budget and circuit_breaker", &["retry_budget:", "circuit_breaker:"]),
    ];
    let scripts = scripts();
    let rows = variants.map(|(name, off)| run(name, &without(off), &scripts, REQUESTS));
    let faults = scripts.iter().map(|(_, script)| script.as_str()).collect::<Vec<_>>().join("; ");
    Table { title: format!("{REQUESTS} requests, targets with: {faults}; and one that is dead"), rows: rows.into() }
}

/// All targets fail all the time: what retries then do to them, with and without a budget.
pub fn total_outage() -> Table {
    let scripts: Vec<_> = scripts().into_iter().map(|(port, _)| (port, "reset every 1".to_owned())).collect();
    let variants: [(&str, &[&str]); 2] = [("without retry_budget", &["retry_budget:"]), ("with retry_budget", &[])];
    let rows = variants.map(|(name, off)| run(name, &without(off), &scripts, REQUESTS / 4));
    Table { title: format!("{} requests while every target fails", REQUESTS / 4), rows: rows.into() }
}

/// The targets' scripts, as the example's comments say them: (port in the file, script).
fn scripts() -> Vec<(u16, String)> {
    let lines = CONFIG.lines().filter(|line| line.contains("target: \"127.0.0.1:91"));
    let script = |line: &str| {
        let port = line.split("127.0.0.1:").nth(1)?.get(..4)?.parse().ok()?;
        Some((port, line.split("# ").nth(1)?.to_owned()))
    };
    lines.map(|line| script(line).expect("a target with its script")).collect()
}

/// The example without these protections.
fn without(off: &[&str]) -> String {
    let is_off = |line: &str| {
        let line = line.trim_start();
        let record = off.contains(&"resilience") && RECORD.iter().any(|field| line.starts_with(field));
        record || off.iter().any(|field| *field != "retries:" && line.starts_with(field) && field.ends_with(':'))
    };
    let config: String = CONFIG.lines().filter(|line| !is_off(line)).map(|line| format!("{line}\n")).collect();
    match off.contains(&"retries:") {
        true => config.replace("retries: 5", "retries: 0"),
        false => config,
    }
}

/// Fresh backends and a fresh gateway for every variant: counts begin anew.
fn run(name: &'static str, config: &str, scripts: &[(u16, String)], requests: u64) -> Row {
    let mut config = config.to_owned();
    let backends: Vec<Echo> = scripts
        .iter()
        .map(|(port, script)| {
            let echo = Echo::start(script);
            config = config.replace(&format!("127.0.0.1:{port}"), &echo.addr.to_string());
            echo
        })
        .collect();
    // A reset on a reused connection is taken for the end of an idle one, and the request goes out again by itself: so
    // connections are not reused here, and every reset is a failed try.
    let gateway = Gateway::builder(&config).workers(1).arg("--upstream-keepalive-pool-size=0").start();
    let report = Load::get(gateway.proxy(), "/").connections(CONNECTIONS).within(PATIENCE).run_requests(requests);
    let metrics = Metrics::scrape(&gateway);
    drop(backends);
    row(name, &report, &metrics)
}

fn row(name: &'static str, report: &LoadReport, metrics: &Metrics) -> Row {
    let counter = |name: &str| metrics.sum(name, &[]) as u64;
    let late = Some(report.late).filter(|late| *late > 0).map(|late| format!("{late} x late"));
    let failures: Vec<String> = report
        .by_status
        .iter()
        .filter(|(status, _)| !(200..300).contains(*status))
        .map(|(status, count)| format!("{count} x {status}"))
        .chain(late)
        .collect();
    Row {
        name,
        ok: report.ok,
        requests: report.ok + report.failed,
        p99_5: report.latencies.quantile(0.995),
        repeats: counter("gateward_upstream_retries_total") + counter("gateward_upstream_hedges_total"),
        over_budget: counter("gateward_upstream_retries_over_budget_total"),
        failures: failures.join(", "),
    }
}
