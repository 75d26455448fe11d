//! `cargo xtask bench-dns`: the DNS server beside NSD and Knot.
//!
//! The figure is CPU microseconds per query at one worker, as in the rows of HTTP: server on core 0, dnsperf on core 1, contestants in
//! turns, medians. Every server holds the same zone files and answers the same questions; NSD's rate limiting is off, ours too.

mod control;
mod latency;
mod prober;
mod servers;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use self::servers::{SERVERS, Server, start};
use super::peers::write;
use super::report::{self, Entry, Row, Sample};
use super::{LOAD_CORE, pinned, process};
use crate::setup;
use crate::shell::{cargo, must, pause, root, target_dir};

/// Names of the large zone, and delegations of the zone of referrals.
const NAMES: u32 = 10_000;
/// Zones of the row of many.
const ZONES: u32 = 100_000;
/// Records of the row of memory.
const RECORDS: u32 = 1_000_000;
/// Questions in a file; dnsperf begins again at its end.
const QUESTIONS: u32 = 200_000;

const SOA: &str = "@ SOA ns1 hostmaster 1 3600 600 86400 300\n@ NS ns1\n@ NS ns2\nns1 A 192.0.2.1\nns2 A 192.0.2.2\n";

/// What to measure, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these rows: names, nxdomain, referrals, zones, changes, isolation, memory.
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(["names", "nxdomain", "referrals", "zones", "changes", "isolation", "memory"]))]
    only: Vec<String>,
    /// Seconds of one round of one contestant.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Rounds of each contestant; medians are taken over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
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
        println!("{}", latency::changes(&out, &release, options)?);
    }
    if wanted("isolation") {
        println!("{}", latency::isolation(&out, &release, options)?);
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
