//! A DNS server from start to end: files, threads, signals.

mod arguments;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use gateward_dns::answer::Settings;
use gateward_dns::authority::{self, Authority};
use gateward_dns::cookies::CookieKeys;
use gateward_dns::folder::{Folder, ZONE_SUFFIX};
use gateward_dns::server::log::QueryLog;
use gateward_dns::server::tls::Certificate;
use gateward_dns::server::{Options, Server, Shared, slow};
use gateward_zone::{Name, Severity};
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
    let runtime =
        Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).thread_name("dns-control").enable_all().build()?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> Result<()> {
    let settings = Settings {
        udp_payload: arguments.udp_payload,
        identity: arguments.identity.clone().into_bytes(),
        require_cookies: arguments.require_cookies,
        ..Settings::default()
    };
    let shared = Arc::new(Shared::new(settings, cookie_keys(arguments.cookie_secret_file.as_deref())?));
    let folder =
        Folder::open(&arguments.zones_dir).with_context(|| format!("--zones-dir {}", arguments.zones_dir.display()))?;
    let options = authority::Options { versions: arguments.versions, ..authority::Options::default() };
    let authority = Authority::new(folder, Arc::clone(&shared.zones), options)?;
    let started = std::time::Instant::now();
    let served = load(&authority)?;
    let certificate = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(Certificate::open(certificate, key)?),
        _ => None,
    };
    let slow: Arc<dyn slow::Slow> = Arc::new(slow::Nothing);
    let server = Server::start(Arc::clone(&shared), &server_options(arguments, certificate.as_ref())?, &slow)?;
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    tracing::info!(zones = served, listen = %addresses.join(" "), took_ms = started.elapsed().as_millis(), "answering");
    notify::ready();
    until_told(&authority, certificate.as_ref()).await?;
    notify::stopping();
    Ok(())
}

/// Reads every zone of the folder; how many are served. One that cannot be read leaves the others alone.
fn load(authority: &Arc<Authority>) -> Result<usize> {
    let mut prepared = Vec::new();
    for origin in origins(authority.folder().root())? {
        let (zone, loaded) = authority.prepare(&origin);
        report(&origin, &loaded.problems);
        prepared.push(zone);
    }
    authority.adopt(prepared);
    Ok(authority.zones().map().slots().filter(|slot| slot.zone().is_some()).count())
}

fn origins(root: &Path) -> Result<Vec<Name>> {
    let mut origins = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let name = entry?.file_name();
        let Some(stem) =
            name.to_str().and_then(|name| name.strip_suffix(ZONE_SUFFIX)).filter(|stem| !stem.starts_with('.'))
        else {
            continue;
        };
        match stem.parse() {
            Ok(origin) => origins.push(origin),
            Err(error) => {
                tracing::error!(file = %name.display(), %error, "the name of a zone file is not a domain name")
            }
        }
    }
    Ok(origins)
}

fn report(origin: &Name, problems: &[gateward_zone::Problem]) {
    for problem in problems {
        match problem.severity {
            Severity::Error => tracing::error!(zone = %origin, "{problem}"),
            Severity::Warning => tracing::warn!(zone = %origin, "{problem}"),
        }
    }
}

fn server_options(arguments: &Arguments, certificate: Option<&Arc<Certificate>>) -> Result<Options> {
    let log = match &arguments.query_log {
        None => None,
        Some(path) => {
            let file = File::options().append(true).create(true).open(path);
            let file = file.with_context(|| format!("--query-log {}", path.display()))?;
            Some(QueryLog::start(Box::new(file), arguments.query_log_every))
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(Options {
        listen: arguments.listen.clone(),
        tls: certificate.map(|certificate| (arguments.tls_listen.clone(), certificate.server_config())),
        workers: arguments.workers.map_or(cores, usize::from),
        rate_limit: arguments.rate_limit,
        slip: arguments.rate_limit_slip,
        exempt: arguments.rate_limit_exempt.iter().map(|network| (network.0, network.1)).collect(),
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
async fn until_told(authority: &Arc<Authority>, certificate: Option<&Arc<Certificate>>) -> Result<()> {
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
                let authority = Arc::clone(authority);
                tokio::task::spawn_blocking(move || reload(&authority)).await?;
            }
        }
    }
}

fn reload(authority: &Arc<Authority>) {
    match origins(authority.folder().root()) {
        Ok(origins) => origins.iter().for_each(|origin| report(origin, &authority.reload(origin).problems)),
        Err(error) => tracing::error!(%error, "the folder of zones cannot be listed"),
    }
}
