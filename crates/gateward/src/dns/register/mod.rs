//! `gateward dns register`: an agent beside a machine or task that keeps its lease as long as it is healthy, and gives it up at the end.

mod client;
mod health;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::{Client, Failure};
use gateward_dns::leases::LEASE_SECONDS;
use gateward_zone::Name;
use health::{Check, Judge};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

pub(crate) const AFTER_HELP: &str = "\
The lease is renewed at a third of its time. While the check fails, the data leaves the answers, but never the last of a name. On
SIGTERM and SIGINT the lease is given up. The server being away is no reason to end: the agent goes on trying.

  gateward dns register --control http://10.0.0.2:8053 --zone prod.example.com --name api --data auto
  gateward dns register ... --name api --data 10.0.3.7 --health-url http://127.0.0.1:8080/healthz
  gateward dns register ... --name _http._tcp.api --type SRV --data '0 1 8080 vm-7' --health-tcp 127.0.0.1:8080

Exit codes: 0 ended as asked; 1 the server refuses the lease; 2 wrong usage.";

/// Longest pause between two tries while the server is away.
const MAX_PAUSE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long giving up the lease may take at the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Flags of `gateward dns register`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The server's control API
    #[arg(long, value_name = "URL", env = "GATEWARD_DNS_CONTROL", default_value = "http://127.0.0.1:8053")]
    control: String,
    /// File with the bearer token of the control API
    #[arg(long, value_name = "FILE")]
    control_token_file: Option<PathBuf>,
    /// The zone
    #[arg(long, value_name = "NAME")]
    zone: Name,
    /// The name to register, relative to the zone
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The type of record
    #[arg(long = "type", value_name = "TYPE", default_value = "A")]
    rtype: String,
    /// The record's data; may be repeated. auto: the address from which the server is reached
    #[arg(long, value_name = "DATA", required = true)]
    data: Vec<String>,
    /// What tells this lease from others of the zone [default: the machine's name and the registered one]
    #[arg(long, value_name = "TEXT")]
    id: Option<String>,
    /// Who registers; for policies and the audit log
    #[arg(long, value_name = "TEXT", default_value = "register")]
    actor: String,
    /// Seconds a cache may keep the record
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    ttl: u32,
    /// Seconds that the lease lasts without renewal
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    lease_seconds: u32,
    /// Healthy while this command, run by sh, ends with 0
    #[arg(long, value_name = "COMMAND", group = "health")]
    health_command: Option<String>,
    /// Healthy while this address answers GET with 2xx
    #[arg(long, value_name = "URL", group = "health")]
    health_url: Option<String>,
    /// Healthy while this address takes connections
    #[arg(long, value_name = "HOST:PORT", group = "health")]
    health_tcp: Option<String>,
    /// Seconds between two checks
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    health_interval: u64,
    /// Seconds that a check may take
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    health_timeout: u64,
    /// Failed checks in a row that make it unhealthy
    #[arg(long, value_name = "N", default_value_t = 3)]
    unhealthy_after: u32,
}

/// Registers until a signal.
///
/// # Errors
/// Wrong flags, or the server refuses the lease.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    crate::logging::init(crate::settings::OutputFormat::Text, crate::settings::LogLevel::default(), false);
    runtime.block_on(agent(arguments))
}

async fn agent(arguments: &Arguments) -> Result<()> {
    let client = Client::new(&arguments.control, arguments.control_token_file.as_deref(), &arguments.actor)?;
    let check = check(arguments)?;
    if !LEASE_SECONDS.contains(&arguments.lease_seconds) {
        bail!("--lease-seconds is {} to {}", LEASE_SECONDS.start(), LEASE_SECONDS.end());
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let path = lease_path(arguments);
    tokio::select! {
        ended = keep(arguments, &client, &path, check.as_ref()) => return ended,
        () = told => {}
    }
    match tokio::time::timeout(FAREWELL, client.delete(&path)).await {
        Ok(Ok(())) => tracing::info!(zone = %arguments.zone, "the lease is given up"),
        Ok(Err(error)) => tracing::warn!(%error, "the lease could not be given up; it ends by itself"),
        Err(_) => tracing::warn!("the server did not answer; the lease ends by itself"),
    }
    Ok(())
}

/// Renews and checks, until the server refuses the lease from the start.
async fn keep(arguments: &Arguments, client: &Client, path: &str, check: Option<&Check>) -> Result<()> {
    let renewal = Duration::from_secs(u64::from(arguments.lease_seconds)) / 3;
    let mut judge = Judge::new(arguments.unhealthy_after);
    let mut checks = tokio::time::interval(Duration::from_secs(arguments.health_interval));
    checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut next, mut pause, mut was_registered) = (Instant::now(), FIRST_PAUSE, false);
    loop {
        tokio::select! {
            _ = checks.tick(), if check.is_some() => {
                let passed = match check {
                    Some(check) => check.passes().await,
                    None => true,
                };
                if judge.takes(passed) {
                    tracing::info!(healthy = judge.is_healthy(), "the health changed");
                    next = Instant::now();
                }
                continue;
            }
            () = tokio::time::sleep_until(next), if check.is_none() || judge.is_decided() => {}
        }
        match put(arguments, client, path, judge.is_healthy()).await {
            Ok(expires) => {
                if !was_registered {
                    tracing::info!(zone = %arguments.zone, name = arguments.name, expires, "registered");
                }
                (was_registered, pause, next) = (true, FIRST_PAUSE, Instant::now() + renewal);
            }
            Err(Failure::Refused(reasons)) if !was_registered => bail!("the server refuses the lease: {reasons}"),
            Err(error) => {
                tracing::warn!(%error, retry_after_ms = pause.as_millis(), "the lease could not be renewed");
                next = Instant::now() + pause;
                pause = (pause * 2).min(MAX_PAUSE).min(renewal);
            }
        }
    }
}

async fn put(arguments: &Arguments, client: &Client, path: &str, healthy: bool) -> Result<String, Failure> {
    let mut data = Vec::with_capacity(arguments.data.len());
    for given in &arguments.data {
        data.push(if given == "auto" { client.own_address().await?.to_string() } else { given.clone() });
    }
    let lease = json!({
        "name": arguments.name, "type": arguments.rtype, "data": data, "ttl": arguments.ttl,
        "lease_seconds": arguments.lease_seconds, "healthy": healthy,
    });
    client.put(path, &lease).await
}

fn lease_path(arguments: &Arguments) -> String {
    let host = || {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        format!("{}-{}", name.trim(), arguments.name)
    };
    let id = arguments.id.clone().unwrap_or_else(host);
    let zone = arguments.zone.to_string();
    let zone = if arguments.zone.is_root() { "@" } else { zone.trim_end_matches('.') };
    format!("/v1/leases/{}/{}", client::segment(zone), client::segment(&id))
}

fn check(arguments: &Arguments) -> Result<Option<Check>> {
    let timeout = Duration::from_secs(arguments.health_timeout);
    Ok(match (&arguments.health_command, &arguments.health_url, &arguments.health_tcp) {
        (Some(command), ..) => Some(Check::command(command, timeout)),
        (_, Some(url), _) => Some(Check::url(url, timeout)?),
        (.., Some(address)) => {
            let addresses: Vec<SocketAddr> =
                address.to_socket_addrs().with_context(|| format!("--health-tcp {address}"))?.collect();
            Some(Check::tcp(addresses, timeout))
        }
        _ => None,
    })
}
