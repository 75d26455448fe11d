//! The measured proxies: how each is configured alike, and started.
//!
//! Alike means: one worker, keep-alive on both sides, Host rewritten to the upstream's, `X-Forwarded-For` and a
//! request id added, no access log. Files are written to `bench/out`, to be looked at after a run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::gateway_config;
use crate::setup;
use crate::shell::find;

/// The port of the backend behind every proxy.
pub(crate) const BACKEND_PORT: u16 = 9201;

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
    pub(crate) fn command(self, out: &Path, release: &Path) -> Result<Command> {
        Ok(match self {
            Peer::Nginx => nginx(out, self.port())?,
            Peer::Haproxy => haproxy(out, self.port())?,
            Peer::Envoy => envoy(out, self.port())?,
            Peer::Floor => {
                let mut floor = Command::new(release.join("floor"));
                floor.args(["--listen", &address(self.port()), "--upstream", &address(BACKEND_PORT)]);
                floor
            }
            Peer::Gateward => gateward(out, release, self, &gateway_config::bare(BACKEND_PORT))?,
            Peer::GatewardRoutes => gateward(out, release, self, &gateway_config::routes(BACKEND_PORT))?,
            Peer::GatewardPlugins => gateward(out, release, self, &gateway_config::plugins(BACKEND_PORT))?,
        })
    }
}

/// A loopback address.
pub(crate) fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The command for a gateway with one worker and a declarative file.
///
/// # Errors
/// The binary does not exist.
pub(crate) fn gateward_command(release: &Path, file: &Path, port: u16, workers: Option<u32>) -> Result<Command> {
    let binary = release.join("gateward");
    if !binary.is_file() {
        bail!("{} does not exist", binary.display());
    }
    let mut command = Command::new(binary);
    command.args(["gateway", "--config"]).arg(file);
    command.args(["--proxy-listen", &address(port), "--admin-listen", "off"]);
    command.args(["--status-listen", &address(port + 1000)]);
    if let Some(workers) = workers {
        command.args(["--workers", &workers.to_string()]);
    }
    Ok(command)
}

fn gateward(out: &Path, release: &Path, peer: Peer, config: &str) -> Result<Command> {
    let file = write(out, &format!("{}.yml", peer.name()), config)?;
    gateward_command(release, &file, peer.port(), Some(1))
}

fn nginx(out: &Path, port: u16) -> Result<Command> {
    let program = find("nginx").context("nginx is not installed")?;
    let folder = out.display();
    let text = format!(
        "worker_processes 1;\ndaemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx-error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  server_tokens off;\n  tcp_nodelay on;\n  keepalive_requests 1000000000;\n  \
         client_body_temp_path {folder}/nginx-body;\n  proxy_temp_path {folder}/nginx-proxy;\n  \
         fastcgi_temp_path {folder}/nginx-fastcgi;\n  uwsgi_temp_path {folder}/nginx-uwsgi;\n  \
         scgi_temp_path {folder}/nginx-scgi;\n  \
         upstream backend {{ server {backend}; keepalive 512; keepalive_requests 1000000000; }}\n  \
         server {{\n    listen {listen};\n    location / {{\n      proxy_pass http://backend;\n      \
         proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      \
         proxy_set_header Host {backend};\n      \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n      \
         proxy_set_header X-Request-Id $request_id;\n    }}\n  }}\n}}\n",
        backend = address(BACKEND_PORT),
        listen = address(port),
    );
    let file = write(out, "nginx.conf", &text)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(out).arg("-c").arg(file);
    Ok(command)
}

fn haproxy(out: &Path, port: u16) -> Result<Command> {
    let program = find("haproxy").context("haproxy is not installed")?;
    let text = format!(
        "global\n  nbthread 1\n  maxconn 4000\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  \
         option http-keep-alive\n  http-reuse always\n\
         frontend in\n  bind {listen}\n  option forwardfor\n  http-request set-header Host {backend}\n  \
         http-request set-header X-Request-Id %[uuid()]\n  default_backend out\n\
         backend out\n  server one {backend}\n",
        listen = address(port),
        backend = address(BACKEND_PORT),
    );
    let file = write(out, "haproxy.cfg", &text)?;
    let mut command = Command::new(program);
    command.arg("-f").arg(file).arg("-db");
    Ok(command)
}

fn envoy(out: &Path, port: u16) -> Result<Command> {
    let program = setup::envoy().context("envoy is not installed; `cargo xtask setup --bench` installs it")?;
    let text = format!(
        r#"static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          use_remote_address: true
          generate_request_id: true
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: "/" }}
                route: {{ cluster: backend, host_rewrite_literal: "{backend}" }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true
  clusters:
  - name: backend
    connect_timeout: 5s
    type: STATIC
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {backend_port} }} }} }}
"#,
        backend = address(BACKEND_PORT),
        backend_port = BACKEND_PORT,
    );
    let file = write(out, "envoy.yaml", &text)?;
    let mut command = Command::new(program);
    command.arg("-c").arg(file).args(["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]);
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
