//! Name servers of others, started for a test: BIND's and Knot's.

use crate::names::{program, said};
use gateward_testkit::{TempDir, eventually};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brand {
    /// BIND 9.
    Named,
    /// Knot DNS.
    Knot,
}

impl Brand {
    fn program(self) -> &'static str {
        match self {
            Brand::Named => "named",
            Brand::Knot => "knotd",
        }
    }

    /// Whether the test can run. Programs that are missing are failures, unless `GATEWARD_SKIP` names them.
    ///
    /// # Panics
    /// When the program is missing.
    #[track_caller]
    pub fn is_here(self) -> bool {
        let name = self.program();
        let skipped =
            std::env::var("GATEWARD_SKIP").is_ok_and(|list| list.split(',').any(|entry| entry.trim() == name));
        let here = Command::new(path_of(name)).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        assert!(here || skipped, "{name} is not installed; `cargo xtask setup` installs it");
        here
    }
}

/// A running server; it ends when it is dropped.
pub struct Daemon {
    brand: Brand,
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Daemon {
    /// Starts one with these files. `configure` makes the content of its configuration from its folder and address.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn start(
        brand: Brand,
        address: SocketAddr,
        files: &[(&str, &str)],
        configure: impl Fn(&str, SocketAddr) -> String,
    ) -> Self {
        let folder = TempDir::new().expect("a directory can be made");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("files can be written");
        }
        let conf = folder.path().join("conf");
        std::fs::write(&conf, configure(&folder.path().display().to_string(), address)).expect("files can be written");
        let log = std::fs::File::create(folder.path().join("log")).expect("the log can be made");
        let mut command = Command::new(path_of(brand.program()));
        match brand {
            Brand::Named => command.args(["-g", "-n", "1", "-c"]).arg(&conf),
            Brand::Knot => command.arg("-c").arg(&conf),
        };
        let both = log.try_clone().expect("a handle");
        let child = command.stdin(Stdio::null()).stdout(both).stderr(log).spawn();
        let child = child.unwrap_or_else(|error| panic!("{}: {error}", brand.program()));
        let daemon = Daemon { brand, child, address, folder };
        eventually(PATIENCE, || TcpStream::connect(address).is_ok());
        daemon
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Lets it read its configuration again.
    ///
    /// # Panics
    /// When it cannot be written.
    #[track_caller]
    pub fn reconfigure(&self, text: &str) {
        std::fs::write(self.folder.path().join("conf"), text).expect("files can be written");
        let sent = Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status();
        assert!(sent.expect("kill can be run").success());
    }

    /// Waits until it gives this answer, as `dig +short` shows it.
    ///
    /// # Panics
    /// When it never does.
    #[track_caller]
    pub fn will_answer(&self, name: &str, rtype: &str, answer: &str) {
        let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let start = std::time::Instant::now();
        while self.ask(name, rtype) != answer {
            assert!(start.elapsed() < PATIENCE, "{:?}: {name} {rtype} is never {answer:?}:\n{}", self.brand, log());
            gateward_testkit::pause(Duration::from_millis(50));
        }
    }

    fn ask(&self, name: &str, rtype: &str) -> String {
        let port = self.address.port().to_string();
        let args = ["@127.0.0.1", "-p", &port, "+short", "+norecurse", "+time=2", "+tries=1", name, rtype];
        said(&program("dig", &args)).trim().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a program is: daemons are not in everybody's path.
fn path_of(program: &str) -> PathBuf {
    let daemon = Path::new("/usr/sbin").join(program);
    if daemon.is_file() { daemon } else { program.into() }
}
