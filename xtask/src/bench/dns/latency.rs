//! The time to an answer of one zone while others change, are flooded, are broken or are updated in a loop.
//!
//! Without the trouble, with the same trouble in another server's zones, and with it in its own server's, in turns: what the second costs is the
//! machine's, only what the third costs beyond it is for lack of isolation. What makes trouble shares the load's core with the prober, which goes
//! before it. Both cores are kept awake by loops that run only when nothing else wants to: a virtual machine's core that sleeps takes longer to
//! wake up than an answer takes, so that a calm server would seem slower than a busy one.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::control::{self, WRITERS};
use super::prober::{self, Latency};
use super::servers::{Server, query, start, start_apart, start_neighbour};
use super::{Material, Options, SOA, material};
use crate::bench::{LOAD_CORE, PROXY_CORE, pinned};
use crate::shell::{Running, must, pause};

/// Queries per second of a flood, and how many of them the flooded zone may answer.
const FLOOD_QPS: u32 = 50_000;
const FLOODED_QPS: u32 = 500;

/// What happens beside the measured zone.
struct Trouble {
    name: &'static str,
    /// What `rate` counts.
    unit: &'static str,
    /// Makes it in this server's zones, in this round.
    run: fn(Server, u64, &AtomicBool, &AtomicU64) -> Result<()>,
}

/// What the server's worker shares its core with.
#[derive(Clone, Copy)]
enum Place {
    /// Nothing: everything else of the server, and another server, run on the load's core (`--pin-workers`).
    Apart,
    /// Everything else of the server, and another server.
    Shared,
}

/// Where the trouble is.
const WHERE: [Option<Server>; 3] = [None, Some(Server::Neighbour), Some(Server::Gateward)];

const CHANGES: [Trouble; 1] = [Trouble {
    name: "the zone itself is updated, another added every second",
    unit: "updates applied",
    run: |server, round, stop, count| {
        let first = u32::try_from(round).unwrap_or_default() * WRITERS;
        let port = server.control_port();
        let update = |writer| move || control::update(port, "example.com", first + writer, stop, count);
        let add = || control::add_zones(port, round, stop);
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
    Trouble {
        name: "another zone is flooded",
        unit: "queries sent",
        run: |server, _, stop, count| flood(server.port(), stop, count),
    },
    Trouble {
        name: "another zone does not parse",
        unit: "texts refused",
        run: |server, _, stop, count| control::break_zone(server.control_port(), "broken.test", stop, count),
    },
    Trouble {
        name: "another zone is updated in a loop",
        unit: "updates answered",
        run: |server, _, stop, count| control::loop_updates(server.control_port(), "looped.test", stop, count),
    },
];

/// Latency while nothing changes, and while a zone is added every second and a zone of 10,000 names is updated 500 times a second.
///
/// # Errors
/// The server does not start, a change is refused, or an answer is wrong.
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
    let mut text = String::new();
    for (place, name) in [(Place::Apart, "worker on a core of its own"), (Place::Shared, "all on one core")] {
        text.push_str(&compare_at(place, &format!("{row}, {name}"), troubles, out, release, options)?);
    }
    Ok(text)
}

fn compare_at(
    place: Place,
    row: &str,
    troubles: &[Trouble],
    out: &Path,
    release: &Path,
    options: &Options,
) -> Result<String> {
    let (material, others) = (zones(out, "measured")?, zones(out, "neighbour")?);
    stay_on([PROXY_CORE, LOAD_CORE])?;
    let (_server, _neighbour) = match place {
        Place::Apart => (start_apart(&material, out, release)?, start_neighbour(LOAD_CORE, &others, out, release)?),
        Place::Shared => {
            (start(Server::Gateward, &material, out, release)?, start_neighbour(PROXY_CORE, &others, out, release)?)
        }
    };
    let _awake = keep_awake()?;
    stay_on([LOAD_CORE])?;
    let mut text = format!(
        "\n**{row}**\n\n| beside it | per second | p50 us calm | elsewhere | here | p99 us calm | elsewhere | here | lost |\n\
         |---|---|---|---|---|---|---|---|---|\n"
    );
    for trouble in troubles {
        let mut found: [Vec<Latency>; WHERE.len()] = Default::default();
        let mut rates = Vec::new();
        for round in 1..=options.rounds {
            for (server, found) in WHERE.iter().zip(&mut found) {
                let probe = || prober::probe(Server::Gateward.port(), options.seconds);
                let Some(server) = server else {
                    found.push(probe()?);
                    continue;
                };
                let (latency, rate) = meanwhile(trouble, *server, round, probe)?;
                found.push(latency);
                if *server == Server::Gateward {
                    rates.push(rate);
                }
            }
            let [calm, elsewhere, here] = found.each_ref().map(|rounds| rounds[rounds.len() - 1].p99_us);
            eprintln!(
                "{row}: {}: round {round}/{}: p99 {calm:.0} us calm, {elsewhere:.0} elsewhere, {here:.0} here",
                trouble.name, options.rounds,
            );
        }
        let medians = |figure: fn(&Latency) -> f64| {
            let median = |rounds: &Vec<Latency>| format!("{:.0}", median(rounds.iter().map(figure).collect()));
            found.each_ref().map(median).join(" | ")
        };
        let lost: usize = found.iter().flatten().map(|round| round.lost).sum();
        let (p50, p99) = (medians(|round| round.p50_us), medians(|round| round.p99_us));
        let (name, rate, unit) = (trouble.name, median(rates), trouble.unit);
        _ = writeln!(text, "| {name} | {rate:.0} {unit} | {p50} | {p99} | {lost} |");
    }
    Ok(text)
}

/// Lets this process run on these cores.
fn stay_on<const N: usize>(cores: [usize; N]) -> Result<()> {
    let cores = cores.map(|core| core.to_string()).join(",");
    must(Command::new("taskset").args(["-acp", &cores, &std::process::id().to_string()]).stdout(Stdio::null()))
}

/// The measured zone and its neighbours, in a folder that the server may write into.
fn zones(out: &Path, name: &str) -> Result<Material> {
    let folder = out.join(name);
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
fn meanwhile(
    trouble: &Trouble,
    server: Server,
    round: u64,
    measure: impl FnOnce() -> Result<Latency>,
) -> Result<(Latency, f64)> {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    let (found, elapsed) = std::thread::scope(|scope| {
        let maker = scope.spawn(|| (trouble.run)(server, round, &stop, &count));
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
fn flood(port: u16, stop: &AtomicBool, count: &AtomicU64) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(("127.0.0.1", port))?;
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

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
