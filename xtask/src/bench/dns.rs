//! `cargo xtask bench-dns`: the DNS server beside NSD and Knot.
//!
//! The figure is CPU microseconds per query at one worker, as in the rows of HTTP: server on core 0, dnsperf on core 1, contestants in
//! turns, medians. Every server holds the same zone files and answers the same questions; NSD's rate limiting is off, ours too.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::peers::{address, write};
use super::report::{self, Entry, Row, Sample};
use super::{LOAD_CORE, PROXY_CORE, pinned, process};
use crate::setup;
use crate::shell::{Running, cargo, must, pause, root, target_dir};

/// Names of the large zone, and delegations of the zone of referrals.
const NAMES: u32 = 10_000;
/// Zones of the row of many.
const ZONES: u32 = 100_000;
/// Records of the row of memory.
const RECORDS: u32 = 1_000_000;
/// Questions in a file; dnsperf begins again at its end.
const QUESTIONS: u32 = 200_000;
const CONTROL_PORT: u16 = 9653;
/// Queries per second at which latency is looked at: far below what any server can do.
const CALM_QPS: u32 = 5_000;
/// Updates per second, and connections that send them.
const UPDATES_PER_SECOND: u32 = 500;
const WRITERS: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(120);

const SOA: &str = "@ SOA ns1 hostmaster 1 3600 600 86400 300\n@ NS ns1\n@ NS ns2\nns1 A 192.0.2.1\nns2 A 192.0.2.2\n";

/// What to measure, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these rows: names, nxdomain, referrals, zones, changes, memory.
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(["names", "nxdomain", "referrals", "zones", "changes", "memory"]))]
    only: Vec<String>,
    /// Seconds of one round of one contestant.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Rounds of each contestant; medians are taken over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    Nsd,
    Knot,
    Gateward,
}

const SERVERS: [Server; 3] = [Server::Nsd, Server::Knot, Server::Gateward];

impl Server {
    fn name(self) -> &'static str {
        match self {
            Server::Nsd => "nsd",
            Server::Knot => "knot",
            Server::Gateward => "gateward",
        }
    }

    fn port(self) -> u16 {
        match self {
            Server::Nsd => 9301,
            Server::Knot => 9302,
            Server::Gateward => 9303,
        }
    }
}

/// Zone files and questions of a row, each made the first time it is asked for.
struct Material {
    folder: PathBuf,
    /// Origins, one file `ORIGIN.zone` each.
    origins: Vec<String>,
}

/// A number sequence that is the same in every run: questions must not differ between runs.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(limit)).expect("below a u32")
    }
}

/// Measures; true when every server took part without a lost query.
///
/// # Errors
/// The tools are missing or files cannot be written.
pub(crate) fn run(options: &Options) -> Result<bool> {
    setup::for_bench()?;
    let out = root().join("bench/out/dns");
    std::fs::create_dir_all(&out)?;
    must(cargo().args(["build", "--release", "-p", "gateward"]))?;
    let release = target_dir()?.join("release");
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut rows = Vec::new();
    for (name, zones) in [("names", "names"), ("nxdomain", "names"), ("referrals", "referrals"), ("zones", "zones")] {
        if wanted(name) {
            rows.push(row(name, &material(&out, zones)?, &questions(&out, name)?, &out, &release, options));
        }
    }
    let rows_complete =
        rows.iter().flat_map(|row| &row.entries).all(|entry| entry.median().is_some_and(|sample| sample.failed == 0));
    println!("{}", report::table(&rows, &[], &[]));
    if wanted("changes") {
        println!("{}", changes(&out, &release, options)?);
    }
    if wanted("memory") {
        println!("{}", memory(&out, &release)?);
    }
    Ok(rows_complete)
}

fn material(out: &Path, kind: &str) -> Result<Material> {
    let folder = out.join(kind);
    let origins: Vec<String> = if kind == "zones" {
        (0..ZONES).map(|zone| format!("z{zone}.example.com")).collect()
    } else {
        vec!["example.com".to_owned()]
    };
    let done = folder.join("done");
    if !done.exists() {
        eprintln!("{kind}: writing zone files");
        std::fs::create_dir_all(&folder)?;
        for origin in &origins {
            let mut text = format!("$ORIGIN {origin}.\n$TTL 300\n{SOA}");
            match kind {
                "names" => (0..NAMES).for_each(|host| _ = writeln!(text, "host-{host} A 10.0.{}.{}", host >> 8, host & 255)),
                "records" => (0..RECORDS).for_each(|host| _ = writeln!(text, "host-{host} A 10.{}.{}.{}", host >> 16, host >> 8 & 255, host & 255)),
                "referrals" => (0..NAMES).for_each(|zone| {
                    let (a, b) = (zone >> 8, zone & 255);
                    _ = writeln!(text, "d{zone} NS ns1.d{zone}\nd{zone} NS ns2.d{zone}\nns1.d{zone} A 10.1.{a}.{b}\nns2.d{zone} A 10.2.{a}.{b}");
                }),
                _ => text.push_str("www A 192.0.2.3\n"),
            }
            std::fs::write(folder.join(format!("{origin}.zone")), text)?;
        }
        std::fs::write(done, "")?;
    }
    Ok(Material { folder, origins })
}

fn questions(out: &Path, row: &str) -> Result<PathBuf> {
    let mut sequence = Sequence(0x9e37_79b9_7f4a_7c15);
    let mut text = String::new();
    for _ in 0..QUESTIONS {
        _ = match row {
            "names" => writeln!(text, "host-{}.example.com A", sequence.below(NAMES)),
            "nxdomain" => {
                writeln!(text, "x{:08x}{:08x}.example.com A", sequence.below(u32::MAX), sequence.below(u32::MAX))
            }
            "referrals" => writeln!(text, "www.d{}.example.com A", sequence.below(NAMES)),
            _ => writeln!(text, "www.z{}.example.com A", sequence.below(ZONES)),
        };
    }
    write(out, &format!("{row}.questions"), &text)
}

fn row(
    name: &'static str,
    material: &Material,
    questions: &Path,
    out: &Path,
    release: &Path,
    options: &Options,
) -> Row {
    let mut outcomes: Vec<(Server, Result<Vec<Sample>, String>)> =
        SERVERS.iter().map(|server| (*server, Ok(Vec::new()))).collect();
    for round in 1..=options.rounds {
        for (server, outcome) in &mut outcomes {
            let Ok(samples) = outcome else { continue };
            match measure(*server, material, questions, out, release, options.seconds) {
                Ok(sample) => {
                    eprintln!(
                        "{name}: round {round}/{}: {}: {:.2} us/query",
                        options.rounds,
                        server.name(),
                        sample.cpu_us
                    );
                    samples.push(sample);
                }
                Err(error) => {
                    eprintln!("{name}: {} is missing: {error:#}", server.name());
                    *outcome = Err(format!("{error:#}"));
                }
            }
        }
    }
    let entry = |(server, outcome): (Server, _)| Entry { name: server.name().to_owned(), unfiltered: None, outcome };
    Row { name, unit: "query", entries: outcomes.into_iter().map(entry).collect() }
}

/// One round: a fresh server, a second to warm up, then CPU while dnsperf asks as fast as it is answered.
fn measure(
    server: Server,
    material: &Material,
    questions: &Path,
    out: &Path,
    release: &Path,
    seconds: u64,
) -> Result<Sample> {
    let process = start(server, material, out, release)?;
    load(server.port(), questions, 1, &[])?;
    let before = process::cpu_seconds(process.id());
    let done = load(server.port(), questions, seconds, &["-c", "8", "-q", "200"])?;
    let spent = process::cpu_seconds(process.id()) - before;
    #[expect(clippy::cast_precision_loss, reason = "query counts are far below 2^52")]
    let count = done.completed.max(1) as f64;
    Ok(Sample {
        cpu_us: spent * 1e6 / count,
        per_second: done.per_second,
        p50_us: None,
        p99_us: None,
        failed: done.lost,
    })
}

/// What dnsperf says at its end.
struct Done {
    completed: u64,
    lost: u64,
    per_second: f64,
}

fn load(port: u16, questions: &Path, seconds: u64, more: &[&str]) -> Result<Done> {
    let mut command = Command::new("dnsperf");
    command
        .args(["-s", "127.0.0.1", "-p", &port.to_string(), "-l", &seconds.to_string(), "-T", "1", "-d"])
        .arg(questions)
        .args(more);
    let output = pinned(&command, Some(LOAD_CORE), &std::env::temp_dir().join("gateward-dnsperf.log"))?
        .stdout(Stdio::piped())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |label: &str| -> Result<f64> {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(label))
            .with_context(|| format!("dnsperf did not say {label:?}"))?;
        let figure = line.split(':').nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
        figure.parse().with_context(|| format!("dnsperf says {line:?}"))
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    let count = |label| number(label).map(|figure| figure as u64);
    Ok(Done {
        completed: count("Queries completed")?,
        lost: count("Queries lost")?,
        per_second: number("Queries per second")?,
    })
}

/// Starts a server with the zones of `material` and waits until it answers for the last of them.
fn start(server: Server, material: &Material, out: &Path, release: &Path) -> Result<Running> {
    let command = command(server, material, out, release)?;
    let mut command = pinned(&command, Some(PROXY_CORE), &out.join(format!("{}.log", server.name())))?;
    let mut process = Running::start(&mut command)?;
    let began = Instant::now();
    let last = material.origins.last().context("there is a zone")?;
    while began.elapsed() < PATIENCE {
        if answers(server.port(), last) {
            return Ok(process);
        }
        ensure!(
            process.is_alive(),
            "{} ended before it answered; see bench/out/dns/{}.log",
            server.name(),
            server.name()
        );
        pause(Duration::from_millis(100));
    }
    bail!("{} did not answer within {} s", server.name(), PATIENCE.as_secs())
}

/// Whether the SOA of an origin is answered with a record.
fn answers(port: u16, origin: &str) -> bool {
    let mut query = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in origin.split('.') {
        query.push(u8::try_from(label.len()).unwrap_or_default());
        query.extend_from_slice(label.as_bytes());
    }
    query.extend([0, 0, 6, 0, 1]);
    let ask = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        socket.send_to(&query, ("127.0.0.1", port))?;
        let mut answer = [0; 512];
        let len = socket.recv(&mut answer)?;
        Ok(len > 12 && answer[3] & 15 == 0 && answer[7] == 1)
    };
    ask().unwrap_or(false)
}

fn command(server: Server, material: &Material, out: &Path, release: &Path) -> Result<Command> {
    let (port, folder) = (server.port(), material.folder.display());
    let run = out.join(format!("{}-run", server.name()));
    std::fs::create_dir_all(&run)?;
    let run_folder = run.display();
    match server {
        Server::Nsd => {
            let mut text = format!(
                "server:\n  server-count: 1\n  ip-address: 127.0.0.1@{port}\n  username: \"\"\n  zonesdir: \"{folder}\"\n  pidfile: \"{run_folder}/pid\"\n  \
                 database: \"\"\n  xfrdfile: \"{run_folder}/xfrd\"\n  zonelistfile: \"{run_folder}/zones\"\n  xfrdir: \"{run_folder}\"\n  rrl-ratelimit: 0\n  \
                 minimal-responses: yes\nremote-control:\n  control-enable: no\n"
            );
            for origin in &material.origins {
                _ = write!(text, "zone:\n  name: \"{origin}\"\n  zonefile: \"{origin}.zone\"\n");
            }
            let mut command = Command::new("nsd");
            command.arg("-d").arg("-c").arg(write(out, "nsd.conf", &text)?);
            Ok(command)
        }
        Server::Knot => {
            let mut text = format!(
                "server:\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n  listen: 127.0.0.1@{port}\n  rundir: {run_folder}\ndatabase:\n  \
                 storage: {run_folder}/db\ntemplate:\n - id: default\n   storage: {folder}\n   file: \"%s.zone\"\n   zonefile-sync: -1\n   \
                 zonefile-load: whole\n   journal-content: none\n   semantic-checks: off\nzone:\n"
            );
            for origin in &material.origins {
                _ = writeln!(text, " - domain: {origin}");
            }
            let mut command = Command::new("knotd");
            command.arg("-c").arg(write(out, "knot.conf", &text)?);
            Ok(command)
        }
        Server::Gateward => {
            let binary = release.join("gateward");
            ensure!(binary.is_file(), "{} does not exist", binary.display());
            let mut command = Command::new(binary);
            command.arg("dns").arg("--zones-dir").arg(&material.folder).args(["--listen", &address(port)]);
            command.args(["--control-listen", &address(CONTROL_PORT), "--workers", "1", "--rate-limit", "0"]);
            Ok(command)
        }
    }
}

/// Latency while nothing changes, and while a zone is added every second and a zone of 10,000 names is updated 500 times a second.
fn changes(out: &Path, release: &Path, options: &Options) -> Result<String> {
    let questions = questions(out, "names")?;
    // The server writes into this folder.
    let folder = out.join("changing");
    _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(material(out, "names")?.folder.join("example.com.zone"), folder.join("example.com.zone"))?;
    std::fs::write(folder.join("example.com.policy.yaml"), "limits:\n  updates_per_second: 10000\n")?;
    let material = Material { folder, origins: vec!["example.com".to_owned()] };
    let _process = start(Server::Gateward, &material, out, release)?;
    let (mut calm, mut busy, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds {
        calm.push(p99_us(&questions, options.seconds)?);
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
                std::thread::spawn(move || {
                    update(u32::try_from(round).unwrap_or_default() * WRITERS + writer, &stop, &count)
                })
            })
            .collect();
        let adder = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || add_zones(round, &stop))
        };
        let latency = p99_us(&questions, options.seconds);
        let elapsed = began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        for thread in writers.into_iter().chain([adder]) {
            thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        #[expect(clippy::cast_precision_loss, reason = "update counts are far below 2^52")]
        rates.push(count.load(Ordering::Relaxed) as f64 / elapsed);
        busy.push(latency?);
        eprintln!(
            "changes: round {}/{}: p99 {:.0} us calm, {:.0} us busy, {:.0} updates/s",
            round + 1,
            options.rounds,
            calm[calm.len() - 1],
            busy[busy.len() - 1],
            rates[rates.len() - 1]
        );
    }
    let median = |figures: &mut Vec<f64>| {
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Ok(format!(
        "\n**changes** (one zone a second added, {:.0} updates a second applied)\n\n| server | p99 us calm | p99 us while changing |\n|---|---|---|\n| gateward | {:.0} | {:.0} |\n",
        median(&mut rates),
        median(&mut calm),
        median(&mut busy)
    ))
}

/// The 99th percentile of the time to an answer, at a calm rate.
fn p99_us(questions: &Path, seconds: u64) -> Result<f64> {
    let mut command = Command::new("dnsperf");
    command.args([
        "-s",
        "127.0.0.1",
        "-p",
        &Server::Gateward.port().to_string(),
        "-l",
        &seconds.to_string(),
        "-T",
        "1",
        "-v",
    ]);
    command.args(["-Q", &CALM_QPS.to_string(), "-d"]).arg(questions);
    let output = pinned(&command, Some(LOAD_CORE), &std::env::temp_dir().join("gateward-dnsperf.log"))?
        .stdout(Stdio::piped())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut times: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with("> "))
        .filter_map(|line| line.split_whitespace().last()?.parse().ok())
        .collect();
    ensure!(times.len() > 100, "dnsperf told the times of {} answers only", times.len());
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() * 99 / 100] * 1e6)
}

/// A request to the control API on a connection that is kept.
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

fn control() -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address(CONTROL_PORT)).context("the control API does not answer")?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// Adds and removes a record again and again, at its share of the rate.
fn update(writer: u32, stop: &AtomicBool, count: &AtomicU64) -> Result<()> {
    let mut stream = control()?;
    let pace = Duration::from_secs(1) * WRITERS / UPDATES_PER_SECOND;
    let mut next = Instant::now();
    let mut present = false;
    while !stop.load(Ordering::Relaxed) {
        let op = if present { "remove" } else { "add" };
        let body = format!(r#"{{"changes":[{{"op":"{op}","record":"w{writer}.example.com. 300 IN A 192.0.2.9"}}]}}"#);
        let status = request(&mut stream, "POST", "/v1/zones/example.com/changes", "application/json", &body)?;
        ensure!(status == 200, "an update was answered with {status}");
        present = !present;
        count.fetch_add(1, Ordering::Relaxed);
        next += pace;
        pause(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn add_zones(round: u64, stop: &AtomicBool) -> Result<()> {
    let mut stream = control()?;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let origin = format!("new-{round}-{number}.test");
        let status = request(
            &mut stream,
            "PUT",
            &format!("/v1/zones/{origin}"),
            "text/dns",
            &format!("$ORIGIN {origin}.\n$TTL 300\n{SOA}"),
        )?;
        ensure!(status == 204, "a new zone was answered with {status}");
        pause(Duration::from_secs(1));
    }
    Ok(())
}

/// What a million records take.
fn memory(out: &Path, release: &Path) -> Result<String> {
    let material = material(out, "records")?;
    let mut text = format!("\n**memory** ({RECORDS} records in one zone)\n\n| server | MiB resident |\n|---|---|\n");
    for server in SERVERS {
        match start(server, &material, out, release) {
            Ok(process) => {
                pause(Duration::from_secs(2));
                _ = writeln!(text, "| {} | {} |", server.name(), process::resident_bytes(process.id()) >> 20);
            }
            Err(error) => _ = writeln!(text, "| {} | missing: {error:#} |", server.name()),
        }
    }
    Ok(text)
}
