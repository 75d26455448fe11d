//! `gateward dns` as a process, and the programs of others that ask it.

use gateward_testkit::{TempDir, eventually, free_port, gateward_command};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// A DNS server that serves the files of a folder of its own.
pub struct NameServer {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
    flags: Vec<String>,
}

impl NameServer {
    /// Starts one with these files and further flags, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn start(files: &[(&str, &str)], flags: &[&str]) -> Self {
        Self::start_at(free_port(), files, flags)
    }

    /// As [`Self::start`], at an address.
    ///
    /// # Panics
    /// When it does not answer there.
    #[track_caller]
    pub fn start_at(address: SocketAddr, files: &[(&str, &str)], flags: &[&str]) -> Self {
        let folder = TempDir::new().expect("a directory can be made");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("files can be written");
        }
        let child = spawn(gateward_command(), folder.path(), &[address], flags);
        let flags = flags.iter().map(ToString::to_string).collect();
        let server = NameServer { child, folder, address, flags };
        eventually(PATIENCE, || ask(server.address, ".", 6).is_some());
        server
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder of its zones.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of its folder.
    ///
    /// # Panics
    /// When it cannot be written.
    #[track_caller]
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("files can be written");
    }

    /// What it said so far.
    ///
    /// # Panics
    /// When the log cannot be read.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_file(self.folder.path())).expect("the log is there")
    }

    /// Where each of its threads may run, by the threads' names: lists of cores as the kernel writes them.
    ///
    /// # Panics
    /// When `/proc` does not say.
    pub fn threads(&self) -> Vec<(String, String)> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let thread = |task: PathBuf| {
            let status = read(task.join("status"));
            let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
            Some((read(task.join("comm")).trim().to_owned(), cores.trim().to_owned()))
        };
        tasks.filter_map(|task| thread(task.expect("a thread").path())).collect()
    }

    /// Sends a signal: `HUP`, `TERM`, `KILL`.
    ///
    /// # Panics
    /// When it cannot be sent.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill can be run").success());
    }

    /// Asks it to end, and waits.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().expect("it is a child")
    }

    /// Starts it again with the files as they are, after it ended or was killed.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn restart(&mut self) {
        self.child.wait().expect("it is a child");
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        self.child = spawn(gateward_command(), self.folder.path(), &[self.address], &flags);
        eventually(PATIENCE, || ask(self.address, ".", 6).is_some());
    }

    /// What `dig` says about a question to it.
    #[track_caller]
    pub fn dig(&self, args: &[&str]) -> String {
        let (server, port) = (format!("@{}", self.address.ip()), self.address.port().to_string());
        let output = said(&program("dig", &[&[&server, "-p", &port, "+time=5", "+tries=1"], args].concat()));
        output.trim().to_owned()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join(".log")
}

/// Starts `gateward dns` by `command`, which may be the binary itself or something that runs it.
#[track_caller]
fn spawn(mut command: Command, folder: &Path, listen: &[SocketAddr], flags: &[&str]) -> Child {
    let log = std::fs::File::create(log_file(folder)).expect("the log can be made");
    command.arg("dns").arg("--zones-dir").arg(folder).args(flags);
    for address in listen {
        command.arg("--listen").arg(address.to_string());
    }
    command.stdout(Stdio::null()).stderr(log).spawn().expect("gateward can be started")
}

/// The answer to a question over UDP, if there is one within a fifth of a second.
pub fn ask(server: SocketAddr, name: &str, qtype: u16) -> Option<Vec<u8>> {
    let mut query = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        query.push(u8::try_from(label.len()).ok()?);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend(qtype.to_be_bytes());
    query.extend([0, 1]);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
    socket.send_to(&query, server).ok()?;
    let mut answer = vec![0; 4096];
    let len = socket.recv(&mut answer).ok()?;
    answer.truncate(len);
    Some(answer)
}

/// Runs a program.
///
/// # Panics
/// When it is not installed.
#[track_caller]
pub fn program(name: &str, args: &[&str]) -> Output {
    Command::new(name)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}; `cargo xtask setup` installs it"))
}

/// What a program wrote on both streams.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A network of its own, with DNS servers in it: addresses and ports as in the world outside, seen by nobody else.
pub struct Island {
    name: String,
    servers: Vec<(Child, TempDir)>,
    folder: TempDir,
}

impl Island {
    /// A network whose only host has these addresses.
    ///
    /// # Panics
    /// When it cannot be made: that takes root.
    #[track_caller]
    pub fn new(addresses: &[&str]) -> Self {
        let folder = TempDir::new().expect("a directory can be made");
        let name = format!("gw-{}", folder.path().file_name().and_then(|name| name.to_str()).expect("it has a name"));
        // Left over from a killed test whose process id has come round again.
        let _ = program("ip", &["netns", "del", &name]);
        let island = Island { name, servers: Vec::new(), folder };
        let ip = |args: &[&str]| {
            let output = program("ip", args);
            assert!(output.status.success(), "ip {args:?}: {}", said(&output));
        };
        ip(&["netns", "add", &island.name]);
        ip(&["-n", &island.name, "link", "set", "lo", "up"]);
        for address in addresses {
            ip(&["-n", &island.name, "addr", "add", &format!("{address}/32"), "dev", "lo"]);
        }
        island
    }

    /// A server of these files on port 53 of `listen`.
    ///
    /// # Panics
    /// When that does not start.
    #[track_caller]
    pub fn serve(&mut self, files: &[(&str, &str)], listen: &[&str]) {
        self.serve_with(files, listen, &[]);
    }

    /// As [`Self::serve`], with further flags.
    ///
    /// # Panics
    /// When that does not start.
    #[track_caller]
    pub fn serve_with(&mut self, files: &[(&str, &str)], listen: &[&str], flags: &[&str]) {
        let folder = TempDir::new().expect("a directory can be made");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("files can be written");
        }
        let origin = files.first().map_or(".".to_owned(), |(name, _)| name.trim_end_matches(".zone").replace('@', "."));
        // Without a zone an answer is a refusal.
        let expected = if files.is_empty() { "status: " } else { "status: NOERROR" };
        let binary = gateward_command();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(binary.get_program());
        let addresses: Vec<SocketAddr> =
            listen.iter().map(|address| SocketAddr::new(address.parse().expect("an address"), 53)).collect();
        let child = spawn(command, folder.path(), &addresses, &[&["--rate-limit", "0"], flags].concat());
        self.servers.push((child, folder));
        eventually(PATIENCE, || {
            let server = format!("@{}", listen[0]);
            self.run("dig", &[&server, &origin, "SOA", "+time=1", "+tries=1"]).contains(expected)
        });
    }

    /// Runs `gateward` there; what it says.
    #[track_caller]
    pub fn gateward(&self, args: &[&str]) -> String {
        let binary = gateward_command().get_program().to_string_lossy().into_owned();
        self.run(&binary, args)
    }

    /// Runs a program there; what it says.
    #[track_caller]
    pub fn run(&self, name: &str, args: &[&str]) -> String {
        said(&program("ip", &[&["netns", "exec", &self.name, name], args].concat()))
    }

    /// A file beside the zones.
    ///
    /// # Panics
    /// When it cannot be written.
    #[track_caller]
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("files can be written");
        path.display().to_string()
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        for (child, _) in &mut self.servers {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = program("ip", &["netns", "del", &self.name]);
    }
}
