//! The time to an answer of one zone while others change, are flooded, are broken or are updated in a loop.
//!
//! The 99th percentile of dnsperf at a calm rate, without and with the trouble, in turns. What makes trouble shares the load's core with
//! dnsperf, which goes before it. Both cores are kept awake by loops that run only when nothing else wants to: a virtual machine's core that sleeps takes
//! longer to wake up than an answer takes, so that a calm server would seem slower than a busy one.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::control::{self, WRITERS};
use super::servers::{Server, query, start};
use super::{Material, Options, SOA, material, questions};
use crate::bench::{LOAD_CORE, PROXY_CORE, pinned};
use crate::shell::{Running, must, pause};

/// Queries per second at which latency is looked at: far below what any server can do.
const CALM_QPS: u32 = 5_000;
/// Queries per second of a flood, and how many of them the flooded zone may answer.
const FLOOD_QPS: u32 = 50_000;
const FLOODED_QPS: u32 = 500;

/// What happens beside the measured zone.
struct Trouble {
    name: &'static str,
    /// What `rate` counts.
    unit: &'static str,
    run: fn(u64, &AtomicBool, &AtomicU64) -> Result<()>,
}

const CHANGES: [Trouble; 1] = [Trouble {
    name: "the zone itself is updated, another added every second",
    unit: "updates applied",
    run: |round, stop, count| {
        let first = u32::try_from(round).unwrap_or_default() * WRITERS;
        let update = |writer| move || control::update("example.com", first + writer, stop, count);
        let add = || control::add_zones(round, stop);
        std::thread::scope(|scope| {
            let adder = scope.spawn(add);
            let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(update(writer))).collect();
            writers
                .into_iter()
                .chain([adder])
                .try_for_each(|thread| thread.join().map_err(|_| anyhow!("it panicked"))?)
        })
    },
}];

const ISOLATION: [Trouble; 3] = [
    Trouble { name: "another zone is flooded", unit: "queries sent", run: |_, stop, count| flood(stop, count) },
    Trouble {
        name: "another zone does not parse",
        unit: "texts refused",
        run: |_, stop, count| control::break_zone("broken.test", stop, count),
    },
    Trouble {
        name: "another zone is updated in a loop",
        unit: "updates answered",
        run: |_, stop, count| control::loop_updates("looped.test", stop, count),
    },
];

/// Latency while nothing changes, and while a zone is added every second and a zone of 10,000 names is updated 500 times a second.
///
/// # Errors
/// The server does not start, a change is refused, or dnsperf fails.
pub(super) fn changes(out: &Path, release: &Path, options: &Options) -> Result<String> {
    compare("changes", &CHANGES, out, release, options)
}

/// Latency of one zone while another is flooded, broken, or updated in a loop.
///
/// # Errors
/// As [`changes`].
pub(super) fn isolation(out: &Path, release: &Path, options: &Options) -> Result<String> {
    compare("isolation", &ISOLATION, out, release, options)
}

fn compare(row: &str, troubles: &[Trouble], out: &Path, release: &Path, options: &Options) -> Result<String> {
    let questions = questions(out, "names")?;
    let material = zones(out)?;
    let _process = start(Server::Gateward, &material, out, release)?;
    let _awake = keep_awake()?;
    must(
        Command::new("taskset")
            .args(["-acp", &LOAD_CORE.to_string(), &std::process::id().to_string()])
            .stdout(Stdio::null()),
    )?;
    let mut text = format!(
        "\n**{row}**\n\n| beside it | per second | p99 us calm | p99 us then | ratio |\n|---|---|---|---|---|\n"
    );
    for trouble in troubles {
        let (mut calm, mut then, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..options.rounds {
            calm.push(p99_us(&questions, options.seconds)?);
            let (latency, rate) = meanwhile(trouble, round, || p99_us(&questions, options.seconds))?;
            then.push(latency);
            rates.push(rate);
            eprintln!(
                "{row}: {}: round {}/{}: p99 {:.0} us calm, {latency:.0} us then, {rate:.0} {} a second",
                trouble.name,
                round + 1,
                options.rounds,
                calm[calm.len() - 1],
                trouble.unit
            );
        }
        let (calm, then) = (median(&mut calm), median(&mut then));
        let rate = median(&mut rates);
        _ = writeln!(
            text,
            "| {} | {rate:.0} {} | {calm:.0} | {then:.0} | {:.2}x |",
            trouble.name,
            trouble.unit,
            then / calm
        );
    }
    Ok(text)
}

/// The measured zone and its neighbours, in a folder that the server may write into.
fn zones(out: &Path) -> Result<Material> {
    let folder = out.join("changing");
    _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(material(out, "names")?.folder.join("example.com.zone"), folder.join("example.com.zone"))?;
    std::fs::write(folder.join("example.com.policy.yaml"), "limits:\n  updates_per_second: 10000\n")?;
    for origin in ["flooded.test", "broken.test", "looped.test"] {
        let text = format!("$ORIGIN {origin}.\n$TTL 300\n{SOA}www A 192.0.2.3\n");
        std::fs::write(folder.join(format!("{origin}.zone")), text)?;
    }
    let limit = format!("limits:\n  queries_per_second: {FLOODED_QPS}\n");
    std::fs::write(folder.join("flooded.test.policy.yaml"), limit)?;
    Ok(Material { folder, origins: vec!["example.com".to_owned()] })
}

/// What `measure` finds while the trouble goes on, and how often a second it happened.
fn meanwhile(trouble: &Trouble, round: u64, measure: impl FnOnce() -> Result<f64>) -> Result<(f64, f64)> {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    let (found, elapsed) = std::thread::scope(|scope| {
        let maker = scope.spawn(|| (trouble.run)(round, &stop, &count));
        let found = measure();
        let elapsed = began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        maker.join().map_err(|_| anyhow!("what makes trouble panicked"))??;
        anyhow::Ok((found?, elapsed))
    })?;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    Ok((found, count.load(Ordering::Relaxed) as f64 / elapsed))
}

/// Asks one zone for far more than it may answer.
fn flood(stop: &AtomicBool, count: &AtomicU64) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(("127.0.0.1", Server::Gateward.port()))?;
    let query = query("www.flooded.test", 1);
    let began = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = began.elapsed().as_secs_f64() * f64::from(FLOOD_QPS);
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        while (count.load(Ordering::Relaxed) as f64) < due {
            // The queue may be full: that is the flood's trouble.
            _ = socket.send(&query);
            count.fetch_add(1, Ordering::Relaxed);
        }
        // A burst keeps the load's core from everything else for as long as the kernel delivers it.
        pause(Duration::from_micros(100));
    }
    Ok(())
}

/// Loops on both cores that give way to everything.
fn keep_awake() -> Result<[Running; 2]> {
    let spin = |core| {
        let mut command = Command::new("chrt");
        command.args(["-i", "0", "sh", "-c", "while :; do :; done"]);
        let log = std::env::temp_dir().join("gateward-awake.log");
        Running::start(&mut pinned(&command, Some(core), &log)?)
    };
    Ok([spin(PROXY_CORE)?, spin(LOAD_CORE)?])
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The 99th percentile of the time to an answer, at a calm rate.
fn p99_us(questions: &Path, seconds: u64) -> Result<f64> {
    let (port, seconds, rate) = (Server::Gateward.port().to_string(), seconds.to_string(), CALM_QPS.to_string());
    // What makes trouble should not hold up the one that looks at the clock. Real-time priority would hold up dnsperf itself: one of its threads
    // spins until the other has had its turn.
    let mut command = Command::new("nice");
    command.args(["-n", "-10", "dnsperf", "-s", "127.0.0.1", "-p", &port, "-l", &seconds, "-T", "1"]);
    command.args(["-v", "-Q", &rate, "-d"]).arg(questions);
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
