//! `cargo xtask bench`: the gateway beside nginx, HAProxy, Envoy and the epoll floor.
//!
//! The figure is CPU microseconds per request: user and system time of the proxy and its children, divided by the
//! requests the load generator counted. The proxy is pinned to core 0, load and backend to core 1. Machines are
//! noisy, so the contestants of a row take turns (A B C A B C) and only ratios of medians within one run mean
//! anything. A peer that cannot run is reported with the reason, never left out.

mod configs;
pub(crate) mod dns;
mod filter;
pub(crate) mod gateway_config;
mod h2load;
mod handshakes;
mod idle;
pub(crate) mod load;
pub(crate) mod peers;
pub(crate) mod process;
mod report;
mod starts;
pub(crate) mod wrk;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::idle::lift_file_limit;
use self::load::{Load, Service, Work};
use self::peers::{Peer, address, backend_port};
use self::report::{Entry, Idle, Memory, Row, Sample};
use crate::setup;
use crate::shell::{Running, cargo, must, pause, root, succeeds, target_dir};

const PROXY_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// Client connections that every proxy is configured for, except where a row needs more.
const POSSIBLE_CONNECTIONS: u64 = 4000;

/// A row: what is served and done, and who takes part.
struct RowPlan {
    name: &'static str,
    service: Service,
    work: Work,
    contestants: &'static [Peer],
}

/// The proxies that can do all of it.
const ALL: &[Peer] = &[Peer::Nginx, Peer::Haproxy, Peer::Envoy, Peer::Gateward];

const fn row(name: &'static str, service: Service, work: Work, contestants: &'static [Peer]) -> RowPlan {
    RowPlan { name, service, work, contestants }
}

/// Rows of CPU time.
#[rustfmt::skip]
const ROWS: &[RowPlan] = &[
    row("bare", Service::Plain, Work::Requests, &[Peer::Nginx, Peer::Haproxy, Peer::Envoy, Peer::Floor, Peer::Gateward]),
    row("routes10k", Service::Plain, Work::Requests, &[Peer::Gateward, Peer::GatewardRoutes]),
    row("plugins", Service::Plain, Work::Requests, &[Peer::Nginx, Peer::GatewardPlugins]),
    row("tls", Service::Tls, Work::Requests, ALL),
    row("handshakes", Service::Tls, Work::Handshakes { resumed: false }, ALL),
    row("resumptions", Service::Tls, Work::Handshakes { resumed: true }, ALL),
    row("h2", Service::H2, Work::Requests, ALL),
    row("h2c", Service::H2c, Work::Requests, ALL),
    row("grpc", Service::Grpc, Work::Calls, ALL),
    row("wasm", Service::Fields, Work::Requests, &[Peer::Gateward, Peer::GatewardFilter, Peer::Envoy, Peer::EnvoyFilter]),
    row("lua", Service::Fields, Work::Requests, &[Peer::Gateward, Peer::GatewardLua, Peer::Nginx, Peer::NginxLua]),
    row("websocket", Service::WebSocket, Work::Messages, ALL),
];

/// Rows of memory: their names, how many idle connections, who takes part.
const MEMORY: &[(&str, u64, &[Peer])] = &[("idle", 1000, &[Peer::Gateward]), ("idle10k", 10_000, ALL)];

/// The row of starts: with Wasm filters and without.
const START: &str = "start";

/// What to measure, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these rows, separated by commas: bare, routes10k, plugins, tls, handshakes, resumptions, h2, h2c, grpc,
    /// wasm, lua, websocket, idle, idle10k, start.
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(names()))]
    only: Vec<String>,
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

fn names() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.name).chain(MEMORY.iter().map(|(name, ..)| *name)).chain([START]).collect()
}

/// Measures; true when every contestant took part without a failed request.
///
/// # Errors
/// The load generator or the backend cannot run: then there is nothing to measure with.
pub(crate) fn run(options: &Options) -> Result<bool> {
    setup::for_bench()?;
    lift_file_limit();
    let bench = Bench::prepare()?;
    let (mut rows, mut memory) = (Vec::new(), Vec::new());
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    if wanted("wasm") || wanted(START) {
        filter::build(&bench.out)?;
    }
    for plan in ROWS.iter().filter(|plan| wanted(plan.name)) {
        let _backend = bench.start_backend(plan.service)?;
        rows.push(bench.row(plan, options));
    }
    for (name, connections, contestants) in MEMORY.iter().filter(|(name, ..)| wanted(name)) {
        let _backend = bench.start_backend(Service::Plain)?;
        let entry = |peer: &Peer| {
            eprintln!("{name}: {}", peer.name());
            (peer.name(), bench.idle(*peer, *connections).map_err(|error| format!("{error:#}")))
        };
        memory.push(Memory { name, entries: contestants.iter().map(entry).collect() });
    }
    let starts = if wanted(START) { starts::measure(&bench, options.rounds)? } else { Vec::new() };
    match options.format {
        Format::Table => println!("{}", report::table(&rows, &memory, &starts)),
        Format::Json => println!("{:#}", report::json(&rows, &memory, &starts)),
    }
    let complete = |entry: &Entry| entry.median().is_some_and(|sample| sample.failed == 0);
    let measured = |row: &Memory| row.entries.iter().all(|(_, outcome)| outcome.is_ok());
    Ok(rows.iter().flat_map(|row| &row.entries).all(complete) && memory.iter().all(measured))
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
        let programs = ["backend", "floor", "grpc_backend", "websocket_backend", "websocket_load"];
        let programs = programs.iter().flat_map(|program| ["--bin", *program]);
        must(cargo().args(["build", "--release", "-p", "gateward-bench"]).args(programs))?;
        if !succeeds(cargo().args(["build", "--release", "-p", "gateward"]))? {
            // An older binary would be measured under a newer name.
            let _ = std::fs::remove_file(bench.release.join("gateward"));
            eprintln!("note: the gateway does not build; its rows are missing");
        }
        Ok(bench)
    }

    /// Starts what is behind the proxies on the load's core.
    ///
    /// # Errors
    /// It does not build or its port is taken.
    pub(crate) fn start_backend(&self, service: Service) -> Result<Running> {
        let program = match service {
            Service::Grpc => "grpc_backend",
            Service::WebSocket => "websocket_backend",
            _ => "backend",
        };
        let port = backend_port(service);
        let mut command = Command::new(self.release.join(program));
        command.args(["--listen", &address(port)]);
        start(&command, port, Some(LOAD_CORE), &self.out.join(format!("{program}.log")))
    }

    /// Every round starts every contestant anew: where a process' memory happens to lie decides a few percent of its
    /// time, and must be drawn for each round like everything else that is luck.
    fn row(&self, plan: &RowPlan, options: &Options) -> Row {
        let RowPlan { name, work, contestants, .. } = plan;
        let mut entries: Vec<(Peer, Result<Vec<Sample>, String>)> =
            contestants.iter().map(|peer| (*peer, Ok(Vec::new()))).collect();
        for round in 1..=options.rounds {
            for (peer, outcome) in &mut entries {
                let Ok(samples) = outcome else { continue };
                let unit = work.unit();
                match self.measure(*peer, plan, options.seconds) {
                    Ok(sample) => {
                        let (rounds, peer, cpu_us) = (options.rounds, peer.name(), sample.cpu_us);
                        eprintln!("{name}: round {round}/{rounds}: {peer}: {cpu_us:.2} us/{unit}");
                        samples.push(sample);
                    }
                    Err(error) => {
                        eprintln!("{name}: {} is missing: {error:#}", peer.name());
                        *outcome = Err(format!("{error:#}"));
                    }
                }
            }
        }
        let entry = |(peer, outcome): (Peer, _)| {
            let unfiltered = peer.unfiltered().map(|peer| peer.name().to_owned());
            Entry { name: peer.name().to_owned(), unfiltered, outcome }
        };
        Row { name, unit: work.unit(), entries: entries.into_iter().map(entry).collect() }
    }

    /// One round: CPU spent by the proxy while it is loaded, after a second to warm up.
    fn measure(&self, peer: Peer, plan: &RowPlan, seconds: u64) -> Result<Sample> {
        let RowPlan { service, work, .. } = *plan;
        let process = self.start_peer(peer, service, POSSIBLE_CONNECTIONS)?;
        let load = |seconds| load::run(peer, service, work, seconds, LOAD_CORE, &self.out, &self.release);
        load(1)?;
        let before = process::cpu_seconds(process.id());
        let done = load(seconds)?;
        let spent = process::cpu_seconds(process.id()) - before;
        #[expect(clippy::cast_precision_loss, reason = "request counts are far below 2^52")]
        let count = done.count.max(1) as f64;
        let Load { per_second, p50_us, p99_us, failed, .. } = done;
        Ok(Sample { cpu_us: spent * 1e6 / count, per_second, p50_us, p99_us, failed })
    }

    fn start_peer(&self, peer: Peer, service: Service, connections: u64) -> Result<Running> {
        let command = peer.command(&self.out, &self.release, service, connections)?;
        start(&command, peer.port(), Some(PROXY_CORE), &self.out.join(format!("{}.log", peer.name())))
    }

    fn idle(&self, peer: Peer, connections: u64) -> Result<Idle> {
        let process = self.start_peer(peer, Service::Plain, connections + POSSIBLE_CONNECTIONS)?;
        pause(Duration::from_secs(1));
        idle::measure(process.id(), &address(peer.port()), connections)
    }
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
