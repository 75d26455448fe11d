//! `cargo xtask bench`: the gateway beside nginx, HAProxy, Envoy and the epoll floor.
//!
//! The figure is CPU microseconds per request: user and system time of the proxy and its children, divided by the
//! requests the load generator counted. The proxy is pinned to core 0, load and backend to core 1. Machines are
//! noisy, so the contestants of a row take turns (A B C A B C) and only ratios of medians within one run mean
//! anything. A peer that cannot run is reported with the reason, never left out.

pub(crate) mod gateway_config;
mod idle;
pub(crate) mod peers;
pub(crate) mod process;
mod report;
pub(crate) mod wrk;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::idle::lift_file_limit;
use self::peers::{BACKEND_PORT, Peer, address};
use self::report::{Entry, Idle, Row, Sample};
use crate::setup;
use crate::shell::{Running, cargo, must, pause, root, succeeds, target_dir};

const CONNECTIONS: u32 = 64;
const PROXY_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// The rows, with who takes part in each.
const ROWS: &[(&str, &[Peer])] = &[
    ("bare", &[Peer::Nginx, Peer::Haproxy, Peer::Envoy, Peer::Floor, Peer::Gateward]),
    ("routes10k", &[Peer::Gateward, Peer::GatewardRoutes]),
    ("plugins", &[Peer::Nginx, Peer::GatewardPlugins]),
    ("idle", &[]),
];

/// What to measure, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this row: bare, routes10k, plugins or idle.
    #[arg(long, value_parser = ["bare", "routes10k", "plugins", "idle"])]
    only: Option<String>,
    /// Seconds of one round of one contestant.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Rounds of each contestant; medians are taken over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Json,
    Table,
}

/// Measures; true when every contestant took part without a failed request.
///
/// # Errors
/// The load generator or the backend cannot run: then there is nothing to measure with.
pub(crate) fn run(options: &Options) -> Result<bool> {
    setup::for_bench()?;
    lift_file_limit();
    let bench = Bench::prepare()?;
    let _backend = bench.start_backend()?;
    let (mut rows, mut idle) = (Vec::new(), None);
    for (name, contestants) in ROWS.iter().filter(|(name, _)| options.only.as_deref().is_none_or(|only| only == *name))
    {
        if *name == "idle" {
            idle = Some(bench.idle().map_err(|error| format!("{error:#}")));
        } else {
            rows.push(bench.row(name, contestants, options)?);
        }
    }
    match options.format {
        Format::Table => println!("{}", report::table(&rows, idle.as_ref())),
        Format::Json => println!("{:#}", report::json(&rows, idle.as_ref())),
    }
    let complete = |entry: &Entry| entry.median().is_some_and(|sample| sample.failed == 0);
    Ok(rows.iter().flat_map(|row| &row.entries).all(complete) && idle.is_none_or(|idle| idle.is_ok()))
}

/// Where programs and files are.
pub(crate) struct Bench {
    pub(crate) out: PathBuf,
    pub(crate) release: PathBuf,
}

impl Bench {
    /// Builds the programs and makes the folder for files.
    ///
    /// # Errors
    /// The backend or the floor does not build. A gateway that does not build is missing, like any peer.
    pub(crate) fn prepare() -> Result<Self> {
        let bench = Self { out: root().join("bench/out"), release: target_dir()?.join("release") };
        std::fs::create_dir_all(&bench.out)?;
        must(cargo().args(["build", "--release", "-p", "gateward-bench", "--bin", "backend", "--bin", "floor"]))?;
        if !succeeds(cargo().args(["build", "--release", "-p", "gateward"]))? {
            // An older binary would be measured under a newer name.
            let _ = std::fs::remove_file(bench.release.join("gateward"));
            eprintln!("note: the gateway does not build; its rows are missing");
        }
        Ok(bench)
    }

    /// Starts the backend on the load's core.
    ///
    /// # Errors
    /// It does not build or its port is taken.
    pub(crate) fn start_backend(&self) -> Result<Running> {
        let mut command = Command::new(self.release.join("backend"));
        command.args(["--listen", &address(BACKEND_PORT)]);
        start(&command, BACKEND_PORT, Some(LOAD_CORE), &self.out.join("backend.log"))
    }

    /// Every round starts every contestant anew: where a process' memory happens to lie decides a few percent of its
    /// time, and must be drawn for each round like everything else that is luck.
    fn row(&self, name: &'static str, contestants: &[Peer], options: &Options) -> Result<Row> {
        let mut entries: Vec<(Peer, Result<Vec<Sample>, String>)> =
            contestants.iter().map(|peer| (*peer, Ok(Vec::new()))).collect();
        for round in 1..=options.rounds {
            for (peer, outcome) in &mut entries {
                let Ok(samples) = outcome else { continue };
                match self.start_peer(*peer) {
                    Ok(process) => {
                        load(*peer, 1)?;
                        let sample = measure(*peer, &process, options.seconds)?;
                        eprintln!("{name}: round {round}/{}: {}: {:.2} us", options.rounds, peer.name(), sample.cpu_us);
                        samples.push(sample);
                    }
                    Err(error) => {
                        eprintln!("{name}: {} is missing", peer.name());
                        *outcome = Err(format!("{error:#}"));
                    }
                }
            }
        }
        let entry = |(peer, outcome): (Peer, _)| Entry { name: peer.name().to_owned(), outcome };
        Ok(Row { name, entries: entries.into_iter().map(entry).collect() })
    }

    fn start_peer(&self, peer: Peer) -> Result<Running> {
        let command = peer.command(&self.out, &self.release)?;
        start(&command, peer.port(), Some(PROXY_CORE), &self.out.join(format!("{}.log", peer.name())))
    }

    fn idle(&self) -> Result<Idle> {
        eprintln!("idle: starting gateward");
        let process = self.start_peer(Peer::Gateward)?;
        pause(Duration::from_secs(1));
        idle::measure(process.id(), &address(Peer::Gateward.port()))
    }
}

/// One round: CPU spent by the proxy while it is loaded.
fn measure(peer: Peer, process: &Running, seconds: u64) -> Result<Sample> {
    let before = process::cpu_seconds(process.id());
    let load = load(peer, seconds)?;
    let spent = process::cpu_seconds(process.id()) - before;
    #[expect(clippy::cast_precision_loss, reason = "request counts are far below 2^52")]
    let requests = load.requests.max(1) as f64;
    Ok(Sample {
        cpu_us: spent * 1e6 / requests,
        per_second: load.per_second,
        p50_us: load.p50_us,
        p99_us: load.p99_us,
        failed: load.socket_errors + load.bad_statuses,
    })
}

fn load(peer: Peer, seconds: u64) -> Result<wrk::Load> {
    let url = format!("http://{}{}", address(peer.port()), peer.path());
    let headers = peer.headers();
    wrk::run(&wrk::Plan { url: &url, headers, connections: CONNECTIONS, seconds, core: Some(LOAD_CORE) })
}

/// Starts a program, pinned if asked for, and waits until its port answers.
///
/// # Errors
/// The port is taken, or the program ends or stays silent; the text holds the end of its log.
pub(crate) fn start(command: &Command, port: u16, core: Option<usize>, log: &Path) -> Result<Running> {
    if TcpStream::connect(address(port)).is_ok() {
        bail!("port {port} is taken by another process");
    }
    let mut command = pinned(command, core, log)?;
    let mut process = Running::start(&mut command)?;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(20) {
        if TcpStream::connect(address(port)).is_ok() {
            return Ok(process);
        }
        if !process.is_alive() {
            bail!("it ended before it listened on port {port}: {}", tail(log));
        }
        pause(Duration::from_millis(50));
    }
    bail!("it did not listen on port {port} within 20 s: {}", tail(log))
}

/// The same command under `taskset`, with its output in `log`.
fn pinned(command: &Command, core: Option<usize>, log: &Path) -> Result<Command> {
    let file = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut result = match core {
        Some(core) => {
            let mut pinned = Command::new("taskset");
            pinned.args(["-c", &core.to_string()]).arg(command.get_program());
            pinned
        }
        None => Command::new(command.get_program()),
    };
    result.args(command.get_args()).stdout(Stdio::from(file.try_clone()?)).stderr(Stdio::from(file));
    Ok(result)
}

/// The last lines of a log, for an error text.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(3)..].join("; ");
    if last.is_empty() { "it printed nothing".to_owned() } else { last }
}
