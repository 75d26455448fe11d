//! The name servers that are compared: how each is configured and started.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Material;
use crate::bench::peers::{address, write};
use crate::bench::{PROXY_CORE, pinned};
use crate::shell::{Running, pause};

const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Nsd,
    Knot,
    Gateward,
    /// Another one of ours, beside the one that is measured.
    Neighbour,
}

pub(super) const SERVERS: [Server; 3] = [Server::Nsd, Server::Knot, Server::Gateward];

impl Server {
    /// As tables call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Server::Nsd => "nsd",
            Server::Knot => "knot",
            Server::Gateward => "gateward",
            Server::Neighbour => "neighbour",
        }
    }

    /// Where it is asked.
    pub(super) fn port(self) -> u16 {
        match self {
            Server::Nsd => 9301,
            Server::Knot => 9302,
            Server::Gateward => 9303,
            Server::Neighbour => 9304,
        }
    }

    /// Where the control API of ours is.
    pub(super) fn control_port(self) -> u16 {
        self.port() + 1000
    }
}

/// Starts a server with the zones of `material` and waits until it answers for the last of them.
///
/// # Errors
/// It is not installed, ends, or does not answer.
pub(super) fn start(server: Server, material: &Material, out: &Path, release: &Path) -> Result<Running> {
    launch(server, &command(server, material, out, release)?, Some(PROXY_CORE), material, out)
}

/// Likewise our own, with a core for its worker and another for everything else, which is the load's.
///
/// # Errors
/// As [`start`].
pub(super) fn start_apart(material: &Material, out: &Path, release: &Path) -> Result<Running> {
    let mut command = command(Server::Gateward, material, out, release)?;
    command.arg("--pin-workers");
    launch(Server::Gateward, &command, None, material, out)
}

/// Likewise another one of ours, on this core.
///
/// # Errors
/// As [`start`].
pub(super) fn start_neighbour(core: usize, material: &Material, out: &Path, release: &Path) -> Result<Running> {
    let command = command(Server::Neighbour, material, out, release)?;
    launch(Server::Neighbour, &command, Some(core), material, out)
}

fn launch(server: Server, command: &Command, core: Option<usize>, material: &Material, out: &Path) -> Result<Running> {
    let mut command = pinned(command, core, &out.join(format!("{}.log", server.name())))?;
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

/// A question without EDNS.
pub(super) fn query(name: &str, record_type: u8) -> Vec<u8> {
    let mut query = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap_or_default());
        query.extend_from_slice(label.as_bytes());
    }
    query.extend([0, 0, record_type, 0, 1]);
    query
}

/// Whether the SOA of an origin is answered with a record.
fn answers(port: u16, origin: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        socket.send_to(&query(origin, 6), ("127.0.0.1", port))?;
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
        Server::Gateward | Server::Neighbour => {
            let binary = release.join("gateward");
            ensure!(binary.is_file(), "{} does not exist", binary.display());
            let mut command = Command::new(binary);
            command.arg("dns").arg("--zones-dir").arg(&material.folder).args(["--listen", &address(port)]);
            command.args(["--control-listen", &address(server.control_port()), "--workers", "1", "--rate-limit", "0"]);
            Ok(command)
        }
    }
}
