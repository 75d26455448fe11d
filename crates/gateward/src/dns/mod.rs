//! A DNS server from start to end: files, threads, signals.

mod arguments;
pub(crate) mod check;
mod copies;
pub(crate) mod example;
mod limits;
pub(crate) mod register;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use gateward_dns::answer::Settings;
use gateward_dns::authority::{self, Authority};
use gateward_dns::control::{Control, Listening};
use gateward_dns::cookies::CookieKeys;
use gateward_dns::folder::Folder;
use gateward_dns::keys::KeyFile;
use gateward_dns::leases::Leases;
use gateward_dns::server::cores::Cores;
use gateward_dns::server::log::QueryLog;
use gateward_dns::server::stats::{self, Stats};
use gateward_dns::server::tls::Certificate;
use gateward_dns::server::{Options, Server, Shared};
use gateward_dns::service::Exchange;
use gateward_dns::transfer::Limits;
use gateward_dns::zones_dir::{Bell, ZonesDir};
use gateward_model::Secret;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::logging;
use crate::notify;

pub(crate) use arguments::{AFTER_HELP, Arguments};

/// Threads of the runtime that serves streams, transfers and the control API.
const RUNTIME_THREADS: usize = 2;

/// Serves until a signal.
///
/// # Errors
/// The folder, an address, the certificate or the secret cannot be used.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    logging::init(crate::settings::OutputFormat::Text, crate::settings::LogLevel::default(), false);
    let workers = workers(arguments);
    // Before any thread is started that could be on a worker's core.
    let cores = match arguments.pin_workers {
        true => Cores::set_apart(workers).context("--pin-workers needs fewer --workers than there are cores")?,
        false => Cores::default(),
    };
    let runtime =
        Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).thread_name("dns-control").enable_all().build()?;
    runtime.block_on(serve(arguments, workers, cores))
}

/// Threads that answer over UDP.
fn workers(arguments: &Arguments) -> usize {
    match arguments.workers {
        Some(workers) => workers.into(),
        None if arguments.pin_workers => (available_cores() - 1).max(1),
        None => available_cores(),
    }
}

async fn serve(arguments: &Arguments, workers: usize, cores: Cores) -> Result<()> {
    let settings = Settings {
        udp_payload: arguments.udp_payload,
        identity: arguments.identity.clone().into_bytes(),
        require_cookies: arguments.require_cookies,
        ..Settings::default()
    };
    let shared = Arc::new(Shared::new(settings, cookie_keys(arguments.cookie_secret_file.as_deref())?));
    let folder =
        Folder::open(&arguments.zones_dir).with_context(|| format!("--zones-dir {}", arguments.zones_dir.display()))?;
    let keys = Arc::new(KeyFile::open(folder.keys_file()).map_err(|error| anyhow!(error))?);
    let options = authority::Options {
        versions: arguments.versions,
        max_records: arguments.max_records,
        max_changes_per_second: arguments.max_changes_per_second,
        ..authority::Options::default()
    };
    let authority = Authority::new(folder, Arc::clone(&shared.zones), options)?;
    copies::settle(arguments, &authority, &keys)?;
    let started = std::time::Instant::now();
    let (zones_dir, loaded) = ZonesDir::load(Arc::clone(&authority), Arc::clone(&keys), available_cores())?;
    let certificate = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(Certificate::open(certificate, key)?),
        _ => None,
    };
    let leases = Leases::open(Arc::clone(&authority));
    let mut exchange = {
        let keys = Arc::clone(&keys);
        // A whole zone comes with its SOA record twice.
        let limits = Limits { records: arguments.max_records.saturating_add(1), ..Limits::default() };
        Exchange::start(&shared, &authority, Arc::new(move || keys.keys()), limits)
    };
    copies::begin(arguments, &authority, &mut exchange);
    let options = server_options(arguments, workers, cores, certificate.as_ref())?;
    limits::keep(&authority);
    let server = Server::start(shared, &options, &exchange.service)?;
    let control = control(arguments, &authority, &keys, &leases, server.stats().to_vec())?;
    let _listening = listen(arguments, &control).await?;
    tokio::spawn(leases.run());
    let bell = Arc::new(Bell::default());
    let watcher = {
        let bell = Arc::clone(&bell);
        std::thread::Builder::new().name("dns-files".into()).spawn(move || zones_dir.watch(&bell))?
    };
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let took_ms = started.elapsed().as_millis();
    tracing::info!(zones = loaded.found, refused = loaded.refused, listen = %addresses.join(" "), took_ms, "answering");
    notify::ready();
    until_told(&bell, certificate.as_ref()).await?;
    notify::stopping();
    bell.stop();
    // A watcher that panicked has been reported by its thread.
    let _ = watcher.join();
    Ok(())
}

fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The control API over everything.
fn control(
    arguments: &Arguments,
    authority: &Arc<Authority>,
    keys: &Arc<KeyFile>,
    leases: &Arc<Leases>,
    stats: Vec<Arc<Stats>>,
) -> Result<Arc<Control>> {
    let token = match &arguments.control_token_file {
        None => None,
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("--control-token-file {}", path.display()))?;
            let token = text.trim();
            anyhow::ensure!(!token.is_empty(), "--control-token-file {}: the file is empty", path.display());
            Some(Secret::new(token))
        }
    };
    let metrics = Box::new(move || stats::render(&stats));
    let (authority, keys, leases) = (Arc::clone(authority), Arc::clone(keys), Arc::clone(leases));
    Ok(Arc::new(Control { authority, keys, leases, metrics, token }))
}

/// Listens where it is asked for.
async fn listen(arguments: &Arguments, control: &Arc<Control>) -> Result<Vec<Listening>> {
    let mut listening = Vec::new();
    if let Some(address) = arguments.control_listen {
        let control = control.listen(address).await.with_context(|| format!("--control-listen {address}"))?;
        tracing::info!(address = %control.address, "the control API listens");
        listening.push(control);
    }
    if let Some(address) = arguments.webhook_listen {
        let webhook = control.listen_webhook(address).await.with_context(|| format!("--webhook-listen {address}"))?;
        tracing::info!(address = %webhook.address, "external-dns's webhook protocol is spoken");
        listening.push(webhook);
    }
    Ok(listening)
}

fn server_options(
    arguments: &Arguments,
    workers: usize,
    cores: Cores,
    certificate: Option<&Arc<Certificate>>,
) -> Result<Options> {
    let log = match &arguments.query_log {
        None => None,
        Some(path) => {
            let file = File::options().append(true).create(true).open(path);
            let file = file.with_context(|| format!("--query-log {}", path.display()))?;
            Some(QueryLog::start(Box::new(file), arguments.query_log_every))
        }
    };
    Ok(Options {
        listen: arguments.listen.clone(),
        tls: certificate.map(|certificate| (arguments.tls_listen.clone(), certificate.server_config())),
        workers,
        cores,
        rate_limit: arguments.rate_limit,
        slip: arguments.rate_limit_slip,
        exempt: arguments.rate_limit_exempt.clone(),
        log,
    })
}

/// The secrets of cookies: from the file, or made up for this process.
fn cookie_keys(file: Option<&Path>) -> Result<CookieKeys> {
    let Some(file) = file else { return Ok(CookieKeys::new(uuid::Uuid::new_v4().into_bytes(), None)) };
    let text = std::fs::read_to_string(file).with_context(|| format!("--cookie-secret-file {}", file.display()))?;
    let mut secrets = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(secret);
    let current = secrets.next().flatten();
    let previous = secrets.next();
    match (current, previous) {
        (Some(current), None) => Ok(CookieKeys::new(current, None)),
        (Some(current), Some(Some(previous))) => Ok(CookieKeys::new(current, Some(previous))),
        _ => Err(anyhow!("--cookie-secret-file {}: each line must be 32 hexadecimal digits", file.display())),
    }
}

fn secret(text: &str) -> Option<[u8; 16]> {
    (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten().map(u128::to_be_bytes)
}

/// Reads files again on SIGHUP; returns on SIGTERM and SIGINT.
async fn until_told(bell: &Bell, certificate: Option<&Arc<Certificate>>) -> Result<()> {
    let (mut hangup, mut terminate, mut interrupt) =
        (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => {
                if let Some(Err(error)) = certificate.map(|certificate| certificate.reload()) {
                    tracing::error!(%error, "the certificate stays the one from before");
                }
                bell.ring();
            }
        }
    }
}
