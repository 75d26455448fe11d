//! Programs of the system: clients that are run, and servers that are started for a test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::memory::{SECRET, eventually};
use gateward_testkit::free_port;

/// Whether a program can be run; missing ones are failures unless `GATEWARD_SKIP` names them.
#[track_caller]
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(path_of(program)).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    let skipped = std::env::var("GATEWARD_SKIP").is_ok_and(|list| list.split(',').any(|entry| entry.trim() == program));
    assert!(
        found || skipped,
        "{program} is not installed; install it, or set GATEWARD_SKIP={program} to skip its tests"
    );
    found
}

/// Where a program is: daemons are not in everybody's path.
fn path_of(program: &str) -> PathBuf {
    let daemon = PathBuf::from("/usr/sbin").join(program);
    if daemon.is_file() { daemon } else { program.into() }
}

/// Runs a program with this input; all that it says.
#[track_caller]
pub(crate) fn run(program: &str, args: &[&str], input: &str) -> String {
    let child = Command::new(path_of(program))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect(program);
    let mut stdin = child.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut stdin, input.as_bytes()).expect("it reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// `nsupdate` with a key of its own syntax (`hmac-sha256:name:secret`); what it says.
#[track_caller]
pub(crate) fn nsupdate(server: SocketAddr, key: &str, over_tcp: bool, lines: &[&str]) -> String {
    let mut args = vec!["-t", "5", "-y", key];
    if over_tcp {
        args.push("-v");
    }
    let port = server.port();
    let input = format!("server 127.0.0.1 {port}\nzone example.com\n{}\nsend\n", lines.join("\n"));
    run("nsupdate", &args, &input)
}

/// `dig` at a server of a test.
#[track_caller]
pub(crate) fn dig(server: SocketAddr, args: &[&str]) -> String {
    let port = server.port().to_string();
    run("dig", &[&["@127.0.0.1", "-p", &port, "+time=2", "+tries=1"], args].concat(), "")
}

/// A key as BIND's tools take it on the command line.
pub(crate) fn key_argument(algorithm: &str, name: &str) -> String {
    format!("{algorithm}:{name}:{SECRET}")
}

/// A server that was started for a test.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) folder: PathBuf,
}

impl Daemon {
    /// Starts a program in a folder of its own. `configure` gets folder and port and makes the files, name and content; the first one
    /// is what `args` name with `CONF`.
    #[track_caller]
    pub(crate) fn start(
        program: &str,
        args: &[&str],
        configure: impl Fn(&str, u16) -> Vec<(&'static str, String)>,
    ) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{program}-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let address = free_port();
        let shown = folder.to_str().expect("paths of the build are text");
        let files = configure(shown, address.port());
        for (name, content) in &files {
            std::fs::write(folder.join(name), content).expect("a file");
        }
        let conf = folder.join(files[0].0);
        let args = args.iter().map(|arg| if *arg == "CONF" { conf.to_str().expect("text") } else { arg });
        let log = std::fs::File::create(folder.join("log")).expect("a file");
        let child = Command::new(path_of(program))
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .spawn()
            .expect(program);
        let daemon = Daemon { child, address, folder };
        eventually(&format!("{program} answers: {}", daemon.log()), || {
            std::net::TcpStream::connect(daemon.address).is_ok()
        });
        daemon
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// What it answers to a question, one record's data a line.
    #[track_caller]
    pub(crate) fn answers(&self, name: &str, rtype: &str) -> String {
        dig(self.address, &["+short", "+norecurse", name, rtype]).trim().to_owned()
    }

    /// Waits until it gives this answer.
    #[track_caller]
    #[expect(clippy::disallowed_methods, reason = "the thread is the test's own")]
    pub(crate) fn will_answer(&self, name: &str, rtype: &str, answer: &str) {
        let start = std::time::Instant::now();
        while self.answers(name, rtype) != answer {
            assert!(start.elapsed().as_secs() < 20, "{name} {rtype} is never {answer}:\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
