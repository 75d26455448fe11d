//! How a row is loaded: which generator, with what, and what one unit of work is.
//!
//! Every generator is somebody else's where there is one (wrk, h2load, openssl s_time); WebSocket messages come from
//! `bench/src/bin/websocket_load.rs`. All run on one core for the same time, and give the same figures.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::peers::{Peer, address, write};
use super::{h2load, handshakes, wrk};

/// Connections of every generator but s_time, which has one.
pub(crate) const CONNECTIONS: u32 = 64;

/// What [`Service::Fields`] sends besides `Host`.
const FIELDS: &[(&str, &str)] = &[
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Cache-Control", "no-cache"),
];

/// What goes over the wire between generator and proxy, and what is behind the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// HTTP/1.1 in the clear.
    Plain,
    /// The same, with the header fields of a browser.
    Fields,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/2 with prior knowledge.
    H2c,
    /// HTTP/2 in the clear on both sides.
    Grpc,
    /// HTTP/1.1 in the clear, upgraded on both sides.
    WebSocket,
}

/// What a generator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// GET over and over on kept connections.
    Requests,
    /// A small unary call over and over.
    Calls,
    /// A new connection for each request; `resumed`: with the session of the first.
    Handshakes { resumed: bool },
    /// A message there and back, over and over.
    Messages,
}

impl Work {
    /// What is counted, in the singular.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Work::Requests => "request",
            Work::Calls => "call",
            Work::Handshakes { .. } => "connection",
            Work::Messages => "message",
        }
    }
}

/// What a generator counted in one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Load {
    /// Units of work done.
    pub(crate) count: u64,
    /// The same per second.
    pub(crate) per_second: f64,
    /// Median latency in microseconds, where the generator says it.
    pub(crate) p50_us: Option<f64>,
    /// 99th percentile in microseconds, likewise.
    pub(crate) p99_us: Option<f64>,
    /// Units that failed, in any way.
    pub(crate) failed: u64,
}

/// Loads `peer` for some seconds.
///
/// # Errors
/// The generator is missing or did not get anything done.
pub(crate) fn run(
    peer: Peer,
    service: Service,
    work: Work,
    seconds: u64,
    core: usize,
    out: &Path,
    release: &Path,
) -> Result<Load> {
    let address = address(peer.port());
    let load = match work {
        Work::Requests => match service {
            Service::Plain | Service::Fields | Service::Tls => {
                let scheme = if service == Service::Tls { "https" } else { "http" };
                let url = format!("{scheme}://{address}{}", peer.path());
                let plan = wrk::Plan {
                    url: &url,
                    headers: if service == Service::Fields { FIELDS } else { peer.headers() },
                    connections: CONNECTIONS,
                    seconds,
                    core: Some(core),
                };
                wrk::run(&plan)?.into()
            }
            Service::H2 => h2load::run(&format!("https://{address}/"), seconds, core, None)?,
            _ => h2load::run(&format!("http://{address}/"), seconds, core, None)?,
        },
        Work::Calls => {
            let call = out.join("grpc-call");
            std::fs::write(&call, h2load::CALL).with_context(|| format!("cannot write {}", call.display()))?;
            h2load::run(&format!("http://{address}/bench.Echo/Unary"), seconds, core, Some(&call))?
        }
        Work::Handshakes { resumed } => handshakes::run(&address, seconds, core, resumed)?,
        Work::Messages => messages(&address, seconds, core, release)?,
    };
    if load.count == 0 {
        bail!("nothing was answered: {} failures", load.failed);
    }
    Ok(load)
}

impl From<wrk::Load> for Load {
    fn from(load: wrk::Load) -> Self {
        Self {
            count: load.requests,
            per_second: load.per_second,
            p50_us: Some(load.p50_us),
            p99_us: Some(load.p99_us),
            failed: load.socket_errors + load.bad_statuses,
        }
    }
}

/// A command on one core, its output as text.
///
/// # Errors
/// The program is missing or fails.
pub(crate) fn output(program: &str, arguments: &[&str], core: usize) -> Result<String> {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), program]).args(arguments).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("cannot start {program}"))?;
    let text = String::from_utf8_lossy(&stdout).into_owned();
    if !status.success() {
        let errors = String::from_utf8_lossy(&stderr);
        bail!("{program} failed: {}", errors.lines().chain(text.lines()).last().unwrap_or("it says nothing"));
    }
    Ok(text)
}

fn messages(address: &str, seconds: u64, core: usize, release: &Path) -> Result<Load> {
    let program = release.join("websocket_load").display().to_string();
    let (connections, seconds) = (CONNECTIONS.to_string(), seconds.to_string());
    let arguments = ["--connect", address, "--connections", &connections, "--seconds", &seconds];
    let text = output(&program, &arguments, core)?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("cannot read what it printed: {text}"))?;
    Ok(Load {
        count: value["messages"].as_u64().unwrap_or(0),
        per_second: value["per_second"].as_f64().unwrap_or(0.0),
        p50_us: value["p50_us"].as_f64(),
        p99_us: value["p99_us"].as_f64(),
        failed: value["failed"].as_u64().unwrap_or(0),
    })
}

/// A certificate for the peers: files of the certificate, its key, and both.
pub(crate) struct Certificate {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) both: String,
}

impl Certificate {
    /// Self-signed, for ECDSA with P-256: what public authorities issue by default. Made once.
    ///
    /// # Errors
    /// openssl is missing or the folder is not writable.
    pub(crate) fn make(out: &Path) -> Result<Self> {
        let path = |name: &str| out.join(name).display().to_string();
        let made = Self { certificate: path("tls.crt"), key: path("tls.key"), both: path("tls.pem") };
        if !Path::new(&made.both).is_file() {
            let curve = "ec_paramgen_curve:P-256";
            let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-days", "3650"];
            let files = ["-subj", "/CN=localhost", "-keyout", &made.key, "-out", &made.certificate];
            let output = Command::new("openssl").args(request).args(files).output();
            let output = output.context("openssl is not installed")?;
            if !output.status.success() {
                bail!("openssl made no certificate: {}", String::from_utf8_lossy(&output.stderr));
            }
            let text = std::fs::read_to_string(&made.certificate)? + &std::fs::read_to_string(&made.key)?;
            write(out, "tls.pem", &text)?;
        }
        Ok(made)
    }
}
