//! The measured proxies: how each is configured alike, and started.
//!
//! Alike means: one worker, keep-alive on both sides, Host rewritten to the upstream's, `X-Forwarded-For` and a
//! request id added, no access log. Files are written to `bench/out`, to be looked at after a run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::configs::{self, Site};
use super::load::{Certificate, Service};
use super::{filter, gateway_config};
use crate::setup;
use crate::shell::{find, root};

/// The port of the HTTP/1.1 backend.
pub(crate) const BACKEND_PORT: u16 = 9201;
/// The port of the gRPC backend.
const GRPC_PORT: u16 = 9202;
/// The port of the WebSocket backend.
const WEBSOCKET_PORT: u16 = 9203;

/// A proxy that takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Nginx,
    Haproxy,
    Envoy,
    Floor,
    /// The gateway with one route.
    Gateward,
    /// The gateway with 10,000 routes.
    GatewardRoutes,
    /// The gateway with key-auth, rate-limiting and prometheus.
    GatewardPlugins,
    /// The gateway with the Wasm filter of `bench/filter`.
    GatewardFilter,
    /// Envoy with the same file.
    EnvoyFilter,
    /// The gateway with the Lua plugin of `bench/lua`.
    GatewardLua,
    /// nginx with its Lua module doing the same.
    NginxLua,
}

impl Peer {
    /// The name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Nginx => "nginx",
            Peer::Haproxy => "haproxy",
            Peer::Envoy => "envoy",
            Peer::Floor => "floor",
            Peer::Gateward => "gateward",
            Peer::GatewardRoutes => "gateward-10k-routes",
            Peer::GatewardPlugins => "gateward-plugins",
            Peer::GatewardFilter => "gateward-filter",
            Peer::EnvoyFilter => "envoy-filter",
            Peer::GatewardLua => "gateward-lua",
            Peer::NginxLua => "nginx-lua",
        }
    }

    /// The port it listens on.
    pub(crate) fn port(self) -> u16 {
        match self {
            Peer::Nginx => 9211,
            Peer::Haproxy => 9212,
            Peer::Envoy => 9213,
            Peer::Floor => 9214,
            Peer::Gateward => 9215,
            Peer::GatewardRoutes => 9216,
            Peer::GatewardPlugins => 9217,
            Peer::GatewardFilter => 9218,
            Peer::EnvoyFilter => 9219,
            Peer::GatewardLua => 9220,
            Peer::NginxLua => 9221,
        }
    }

    /// The one without the Wasm filter or the Lua plugin that this one has.
    pub(crate) fn unfiltered(self) -> Option<Self> {
        match self {
            Peer::GatewardFilter | Peer::GatewardLua => Some(Peer::Gateward),
            Peer::NginxLua => Some(Peer::Nginx),
            Peer::EnvoyFilter => Some(Peer::Envoy),
            _ => None,
        }
    }

    /// What to request.
    pub(crate) fn path(self) -> String {
        match self {
            Peer::GatewardRoutes => gateway_config::middle_path(),
            _ => "/".to_owned(),
        }
    }

    /// Headers to request it with.
    pub(crate) fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Peer::GatewardPlugins => &[("apikey", gateway_config::KEY)],
            _ => &[],
        }
    }

    /// The command that runs it in the foreground; its files are written to `out`.
    ///
    /// # Errors
    /// The program is not installed, or a file cannot be written.
    pub(crate) fn command(self, out: &Path, release: &Path, service: Service, connections: u64) -> Result<Command> {
        let certificate = Certificate::make(out)?;
        let backend = backend_port(service);
        let filter = matches!(self, Peer::GatewardFilter | Peer::EnvoyFilter).then(|| filter::module(out));
        let site = Site {
            service,
            port: self.port(),
            backend,
            connections,
            certificate: &certificate,
            filter: filter.as_deref(),
            lua: self == Peer::NginxLua,
        };
        Ok(match self {
            Peer::Nginx | Peer::NginxLua => {
                let program = find("nginx").context("nginx is not installed")?;
                if self == Peer::NginxLua && !Path::new(configs::NGINX_LUA).is_file() {
                    bail!("{} is missing (apt-get install libnginx-mod-http-lua)", configs::NGINX_LUA);
                }
                let file =
                    write(out, &format!("{}.conf", self.name()), &configs::nginx(&site, &out.display().to_string()))?;
                let mut command = Command::new(program);
                command.arg("-p").arg(out).arg("-c").arg(file);
                command
            }
            Peer::Haproxy => {
                let program = find("haproxy").context("haproxy is not installed")?;
                let file = write(out, "haproxy.cfg", &configs::haproxy(&site))?;
                let mut command = Command::new(program);
                command.arg("-f").arg(file).arg("-db");
                command
            }
            Peer::Envoy | Peer::EnvoyFilter => {
                let hint = "envoy is not installed; `cargo xtask setup --bench` installs it";
                let program = setup::envoy().context(hint)?;
                let file = write(out, &format!("{}.yaml", self.name()), &configs::envoy(&site))?;
                let mut command = Command::new(program);
                command.arg("-c").arg(file).args([
                    "--concurrency",
                    "1",
                    "--log-level",
                    "error",
                    "--use-dynamic-base-id",
                ]);
                command
            }
            Peer::Floor => {
                let mut floor = Command::new(release.join("floor"));
                floor.args(["--listen", &address(self.port()), "--upstream", &address(backend)]);
                floor
            }
            Peer::Gateward if service == Service::Grpc => {
                gateward(out, release, self, &gateway_config::grpc(backend), &site)?
            }
            Peer::Gateward => gateward(out, release, self, &gateway_config::bare(backend), &site)?,
            Peer::GatewardRoutes => gateward(out, release, self, &gateway_config::routes(backend), &site)?,
            Peer::GatewardPlugins => gateward(out, release, self, &gateway_config::plugins(backend), &site)?,
            Peer::GatewardLua => {
                let mut command = gateward(out, release, self, &gateway_config::lua(backend), &site)?;
                command.arg("--plugins-dir").arg(root().join("bench/lua"));
                command
            }
            Peer::GatewardFilter => {
                let config = gateway_config::filtered(backend, &["bench"]);
                let mut command = gateward(out, release, self, &config, &site)?;
                command.arg("--wasm=on").arg("--wasm-filters-path").arg(filter::folder(out));
                command
            }
        })
    }
}

/// The port of what is behind the proxies.
pub(crate) fn backend_port(service: Service) -> u16 {
    match service {
        Service::Grpc => GRPC_PORT,
        Service::WebSocket => WEBSOCKET_PORT,
        _ => BACKEND_PORT,
    }
}

/// A loopback address.
pub(crate) fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The command for a gateway with a declarative file; its status port is `port` and a thousand.
///
/// # Errors
/// The binary does not exist.
pub(crate) fn gateward_command(
    release: &Path,
    file: &Path,
    listen: &str,
    port: u16,
    workers: Option<u32>,
) -> Result<Command> {
    let binary = release.join("gateward");
    if !binary.is_file() {
        bail!("{} does not exist", binary.display());
    }
    let mut command = Command::new(binary);
    command.args(["gateway", "--config"]).arg(file);
    command.args(["--proxy-listen", listen, "--admin-listen", "off"]);
    command.args(["--status-listen", &address(port + 1000)]);
    if let Some(workers) = workers {
        command.args(["--workers", &workers.to_string()]);
    }
    Ok(command)
}

fn gateward(out: &Path, release: &Path, peer: Peer, config: &str, site: &Site<'_>) -> Result<Command> {
    let file = write(out, &format!("{}.yml", peer.name()), config)?;
    let flags = match site.service {
        Service::Plain | Service::Fields | Service::WebSocket => "",
        Service::Tls => " ssl",
        Service::H2 => " ssl http2",
        Service::H2c | Service::Grpc => " http2",
    };
    let mut command = gateward_command(release, &file, &format!("{}{flags}", address(site.port)), site.port, Some(1))?;
    if matches!(site.service, Service::Tls | Service::H2) {
        command.args(["--ssl-cert", &site.certificate.certificate, "--ssl-cert-key", &site.certificate.key]);
    }
    Ok(command)
}

/// Writes a file below `out`.
///
/// # Errors
/// The folder is not writable.
pub(crate) fn write(out: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = out.join(name);
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}
