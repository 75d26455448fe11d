//! A real `gateward gateway` process on free ports.
//!
//! The process tells its ports itself: with `--format json` it prints one line on standard output when ready,
//! `{"event":"ready","proxy":["127.0.0.1:1"],"stream":[..],"udp":[..],"admin":[..],"status":[..],"pid":1}`. No port is guessed, so tests
//! run side by side.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::log::{Log, is_error};
use crate::temp_dir::TempDir;
use crate::wait::pause;

/// How long the process may take to become ready: generous, for a debug build on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take to end after SIGTERM when a test just stops it.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long, after the process has ended, the end of its log may take to come through the pipe.
const LOG_END_TIMEOUT: Duration = Duration::from_secs(1);

/// What to run; see [`Gateway::builder`].
#[derive(Debug, Clone)]
pub struct GatewayBuilder {
    config: Config,
    args: Vec<String>,
    env: Vec<(String, String)>,
    workers: usize,
    proxy_listen: String,
    stream_listen: String,
    admin_listen: String,
    status_listen: String,
    binary: Option<PathBuf>,
}

#[derive(Debug, Clone)]
enum Config {
    Text(String),
    File(PathBuf),
    None,
}

/// A running gateway; killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    /// Holds the configuration unless the test named a file of its own.
    dir: TempDir,
    config_path: PathBuf,
    log: Arc<Log>,
    proxy: Vec<SocketAddr>,
    stream: Vec<SocketAddr>,
    udp: Vec<SocketAddr>,
    admin: Vec<SocketAddr>,
    status: Vec<SocketAddr>,
    expected_errors: Vec<String>,
    /// Whether the process is known to have ended; its id may then be another's.
    ended: bool,
}

impl GatewayBuilder {
    /// Uses this file instead of a temporary one; [`Gateway::write_config`] then replaces it.
    #[must_use]
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config = Config::File(path.into());
        self
    }

    /// Starts without any configuration.
    #[must_use]
    pub fn without_config(mut self) -> Self {
        self.config = Config::None;
        self
    }

    /// Runs this program instead of the one found by itself (`GATEWARD_BIN`, or the target directory).
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Adds a command-line argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets an environment variable. `GATEWARD_*` and `KONG_*` are not inherited from the test.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Worker threads; 2 unless set.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// The proxy's address; a free port unless set. Two gateways may share one, as in a rolling restart.
    #[must_use]
    pub fn proxy_listen(mut self, addr: impl Into<String>) -> Self {
        self.proxy_listen = addr.into();
        self
    }

    /// Addresses for streams, with their flags; off unless set.
    #[must_use]
    pub fn stream_listen(mut self, addrs: impl Into<String>) -> Self {
        self.stream_listen = addrs.into();
        self
    }

    /// The admin API's address; a free port unless set.
    #[must_use]
    pub fn admin_listen(mut self, addr: impl Into<String>) -> Self {
        self.admin_listen = addr.into();
        self
    }

    /// The status API's address; a free port unless set.
    #[must_use]
    pub fn status_listen(mut self, addr: impl Into<String>) -> Self {
        self.status_listen = addr.into();
        self
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Panics
    /// When there is no binary, or it does not become ready; the log is part of the message.
    #[track_caller]
    pub fn start(self) -> Gateway {
        match self.try_start() {
            Ok(gateway) => gateway,
            Err(error) => panic!("the gateway did not start: {error:#}"),
        }
    }

    /// Starts the process and waits until it is ready, for tests where it should not become so.
    ///
    /// # Errors
    /// When there is no binary, or it does not become ready; the log is part of the text.
    pub fn try_start(self) -> anyhow::Result<Gateway> {
        let dir = TempDir::new()?;
        let config_path = match &self.config {
            Config::File(path) => path.clone(),
            Config::Text(text) => {
                let path = dir.path().join("kong.yml");
                std::fs::write(&path, text)?;
                path
            }
            Config::None => dir.path().join("kong.yml"),
        };
        let mut child = self.command(&config_path)?.spawn()?;
        let log = Arc::new(Log::default());
        let (lines, ready) = channel();
        if let Some(stderr) = child.stderr.take() {
            log.follow(stderr, None);
        }
        if let Some(stdout) = child.stdout.take() {
            log.follow(stdout, Some(lines));
        }
        let mut gateway = Gateway {
            child,
            dir,
            config_path,
            log,
            proxy: Vec::new(),
            stream: Vec::new(),
            udp: Vec::new(),
            admin: Vec::new(),
            status: Vec::new(),
            expected_errors: Vec::new(),
            ended: false,
        };
        gateway.await_ready(&ready)?;
        Ok(gateway)
    }

    fn command(&self, config_path: &Path) -> anyhow::Result<Command> {
        let binary = match &self.binary {
            Some(path) => path.clone(),
            None => find_binary()?,
        };
        let mut command = clean_command(&binary);
        command.arg("gateway");
        if !matches!(self.config, Config::None) {
            command.arg("--config").arg(config_path);
        }
        command
            .args(["--proxy-listen", &self.proxy_listen])
            .args(["--stream-listen", &self.stream_listen])
            .args(["--admin-listen", &self.admin_listen])
            .args(["--status-listen", &self.status_listen])
            .args(["--workers", &self.workers.to_string()])
            .args(["--format", "json"])
            .args(&self.args)
            // Tests stop many gateways; those about the grace period set their own.
            .env("GATEWARD_SHUTDOWN_GRACE", "0")
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }
}

impl Gateway {
    /// Starts a gateway with this configuration and no special settings.
    ///
    /// # Panics
    /// As [`GatewayBuilder::start`].
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::builder(config).start()
    }

    /// A gateway with this configuration, to be adjusted and started.
    pub fn builder(config: &str) -> GatewayBuilder {
        GatewayBuilder {
            config: Config::Text(config.to_owned()),
            args: Vec::new(),
            env: Vec::new(),
            workers: 2,
            proxy_listen: "127.0.0.1:0".to_owned(),
            stream_listen: "off".to_owned(),
            admin_listen: "127.0.0.1:0".to_owned(),
            status_listen: "127.0.0.1:0".to_owned(),
            binary: None,
        }
    }

    /// Where the proxy listens (its first address).
    ///
    /// # Panics
    /// When it listens nowhere.
    pub fn proxy(&self) -> SocketAddr {
        *self.proxy.first().expect("the proxy listens")
    }

    /// Where the proxy listens, the address of this number in its list.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn proxy_at(&self, index: usize) -> SocketAddr {
        *self.proxy.get(index).expect("the proxy has as many addresses")
    }

    /// Where it listens for streams, the address of this number in its list.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn stream_at(&self, index: usize) -> SocketAddr {
        *self.stream.get(index).expect("it has as many addresses for streams")
    }

    /// Where it receives datagrams, the address of this number among those in its list.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn udp_at(&self, index: usize) -> SocketAddr {
        *self.udp.get(index).expect("it has as many addresses for datagrams")
    }

    /// Where the admin API listens (its first address).
    ///
    /// # Panics
    /// When it listens nowhere.
    pub fn admin(&self) -> SocketAddr {
        *self.admin.first().expect("the admin API listens")
    }

    /// Where the status API listens (its first address).
    ///
    /// # Panics
    /// When it listens nowhere.
    pub fn status(&self) -> SocketAddr {
        *self.status.first().expect("the status API listens")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The configuration file.
    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// A directory of this gateway's own, removed with it; for log files and the like.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Replaces the configuration file in one step, as deployment tools do.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[track_caller]
    pub fn write_config(&self, config: &str) {
        let new = self.config_path.with_extension("new");
        let written = std::fs::write(&new, config).and_then(|()| std::fs::rename(&new, &self.config_path));
        if let Err(error) = written {
            panic!("cannot replace {}: {error}", self.config_path.display());
        }
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Panics
    /// When it has ended already.
    #[track_caller]
    pub fn sigterm(&self) {
        self.signal("TERM");
    }

    /// Asks it to read its configuration again (SIGHUP).
    ///
    /// # Panics
    /// When it has ended already.
    #[track_caller]
    pub fn sighup(&self) {
        self.signal("HUP");
    }

    /// Asks it to start its program anew and hand over (SIGUSR2).
    ///
    /// # Panics
    /// When it has ended already.
    #[track_caller]
    pub fn sigusr2(&self) {
        self.signal("USR2");
    }

    /// Waits until the process has ended.
    ///
    /// # Panics
    /// When it has not after `timeout`.
    #[track_caller]
    pub fn wait_exit(&mut self, timeout: Duration) -> ExitStatus {
        match self.try_wait_exit(timeout) {
            Some(status) => status,
            None => panic!("the gateway did not end within {timeout:?}"),
        }
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    /// Ends it with SIGTERM and asserts that it ended well: in time, with status 0, without unexpected errors.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn stop(mut self) {
        self.sigterm();
        let status = self.wait_exit(STOP_TIMEOUT);
        assert!(status.success(), "the gateway ended with {status}");
        self.assert_no_errors();
    }

    /// What it wrote so far, standard error and standard output, line by line.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Waits until a line of the log contains `text`: the log comes through a pipe of its own, maybe after what it tells of.
    ///
    /// # Panics
    /// When none does within ten seconds.
    #[track_caller]
    pub fn expect_log(&self, text: &str) {
        crate::eventually(Duration::from_secs(10), || self.log().iter().any(|line| line.contains(text)));
    }

    /// Allows log lines of level ERROR that contain `text`.
    pub fn expect_error(&mut self, text: &str) {
        self.expected_errors.push(text.to_owned());
    }

    /// Asserts that no line of the log has level ERROR or tells of a panic, except those expected.
    ///
    /// # Panics
    /// When one does.
    #[track_caller]
    pub fn assert_no_errors(&self) {
        let errors: Vec<String> = self
            .log()
            .into_iter()
            .filter(|line| is_error(line))
            .filter(|line| !self.expected_errors.iter().any(|text| line.contains(text)))
            .collect();
        assert!(errors.is_empty(), "the gateway logged errors:\n{}", errors.join("\n"));
    }

    /// Resident memory of the process, in KiB.
    ///
    /// # Panics
    /// When the process has ended.
    #[track_caller]
    pub fn rss_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|value| value.trim().trim_end_matches(" kB").parse().ok());
        match resident {
            Some(resident) => resident,
            None => panic!("{path} has no VmRSS: the gateway has ended"),
        }
    }

    fn await_ready(&mut self, lines: &Receiver<String>) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let problem = match lines.recv_timeout(left) {
                Ok(line) => match ready_addresses(&line) {
                    Some([proxy, stream, udp, admin, status]) => {
                        (self.proxy, self.stream, self.udp) = (proxy, stream, udp);
                        (self.admin, self.status) = (admin, status);
                        return Ok(());
                    }
                    None => continue,
                },
                Err(RecvTimeoutError::Timeout) => {
                    format!("no ready line on standard output within {READY_TIMEOUT:?}")
                }
                Err(RecvTimeoutError::Disconnected) => match self.try_wait_exit(Duration::from_secs(5)) {
                    Some(status) => format!("it ended with {status}"),
                    None => "it closed its standard output".to_owned(),
                },
            };
            anyhow::bail!("{problem}; its log:\n{}", self.log().join("\n"));
        }
    }

    /// The status, and the complete log with it, once the process has ended.
    fn try_wait_exit(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.exit_status() {
                self.log.await_end(LOG_END_TIMEOUT);
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            pause(Duration::from_millis(5));
        }
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        self.ended |= status.is_some();
        status
    }

    /// Through the shell's own `kill`: it is everywhere, and the system call needs `unsafe`. The process is our
    /// child and not yet waited for, so the id cannot have been given to another.
    #[track_caller]
    fn signal(&self, name: &str) {
        assert!(!self.ended, "cannot send SIG{name} to the gateway: it has ended");
        let script = format!("kill -{name} {}", self.pid());
        let sent = Command::new("sh").args(["-c", &script]).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send SIG{name} to the gateway");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail when the process has ended, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the gateway ---\n{}", self.log().join("\n"));
        }
    }
}

/// A command that runs the `gateward` program without the variables that would configure it.
///
/// # Panics
/// When there is no binary.
#[track_caller]
pub fn gateward_command() -> Command {
    match find_binary() {
        Ok(binary) => clean_command(&binary),
        Err(error) => panic!("{error:#}"),
    }
}

/// Runs `program` without `GATEWARD_*` and `KONG_*` of this process, for output that is easy to read.
fn clean_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("GATEWARD_") || name_text.starts_with("KONG_") {
            command.env_remove(&name);
        }
    }
    command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "1");
    command
}

/// The `gateward` binary: `GATEWARD_BIN`, or the one in the target directory this test was built in.
fn find_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("GATEWARD_BIN") {
        let path = PathBuf::from(path);
        anyhow::ensure!(path.is_file(), "GATEWARD_BIN names {}, which is not a file", path.display());
        return Ok(path);
    }
    let test = std::env::current_exe()?;
    let beside = test.ancestors().skip(1).take(3).map(|dir| dir.join("gateward"));
    let other_profiles = test
        .ancestors()
        .skip(1)
        .take(4)
        .flat_map(|dir| ["debug", "release"].map(|profile| dir.join(profile).join("gateward")));
    beside.chain(other_profiles).find(|path| path.is_file()).ok_or_else(|| {
        anyhow::anyhow!("no gateward binary near {}; run `cargo build -p gateward` or set GATEWARD_BIN", test.display())
    })
}

/// The addresses (proxy, stream, udp, admin, status) of a ready line; `None` for any other line.
fn ready_addresses(line: &str) -> Option<[Vec<SocketAddr>; 5]> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    (value.get("event")?.as_str()? == "ready").then_some(())?;
    Some(["proxy", "stream", "udp", "admin", "status"].map(|key| {
        value
            .get(key)
            .and_then(serde_json::Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|addr| addr.as_str()?.parse().ok())
            .collect()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_ready_line() {
        let line = r#"{"event":"ready","proxy":["127.0.0.1:1","[::1]:2"],"admin":[],"pid":1}"#;
        let [proxy, stream, udp, admin, status] = ready_addresses(line).unwrap();
        assert_eq!((proxy.len(), stream.len(), udp.len()), (2, 0, 0));
        assert!(admin.is_empty() && status.is_empty());
        assert!(ready_addresses(r#"{"event":"stopping"}"#).is_none());
        assert!(ready_addresses("hello").is_none());
    }
}
