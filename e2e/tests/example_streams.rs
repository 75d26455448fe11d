//! `examples/streams/run` and the lines it prints.

use gateward_e2e::has_tool;
use gateward_e2e::streams::PATIENCE;
use gateward_testkit::{eventually, free_port, gateward_command};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// Ends the script, which ends what it started.
struct Script(Child);

impl Script {
    fn end(&mut self) -> std::io::Result<ExitStatus> {
        let _ = Command::new("sh").args(["-c", &format!("kill -TERM {} 2>&1", self.0.id())]).output();
        self.0.wait()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// A base whose ports are free now.
fn free_base() -> u16 {
    let mut base = 0;
    eventually(PATIENCE, || {
        let port = free_port().port();
        base = port.saturating_sub(300);
        [101, 102, 201, 202, 203].iter().all(|offset| TcpListener::bind(("127.0.0.1", base + offset)).is_ok())
    });
    base
}

#[test]
fn the_example_does_what_it_says() {
    if !has_tool("openssl") || !has_tool("curl") || !has_tool("python3") {
        return;
    }
    let base = free_base();
    let child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/streams/run"))
        .env("BASE", base.to_string())
        .env("GATEWARD_BIN", gateward_command().get_program())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the example runs");
    let mut script = Script(child);
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let (output, kept) = (script.0.stdout.take().expect("it has an output"), lines.clone());
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    let printed = || lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // The servers first: through the gateway, targets that are not there yet would be taken out for a second.
    for offset in [201, 202, 203, 101, 102] {
        eventually(PATIENCE, || TcpStream::connect(("127.0.0.1", base + offset)).is_ok());
    }
    let commands: Vec<String> = printed().iter().filter(|line| line.starts_with("  ")).cloned().collect();
    let answers: Vec<String> = commands
        .iter()
        .map(|line| {
            let output = Command::new("sh").args(["-c", line]).output().expect("a shell runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
        .collect();
    let [lines, denied, bank, quiet, datagram] = answers.as_slice() else { panic!("{commands:?}") };
    assert!(lines.starts_with("hello from 920") && lines.ends_with("ANYTHING AT ALL\n"), "{lines}");
    assert_eq!((denied.as_str(), bank.as_str()), ("", "from the bank itself\n"));
    assert!(quiet.starts_with("hello from 920") && quiet.ends_with("QUIET\n"), "{quiet}");
    assert_eq!(datagram, "you said ping\n");
    for end in ["\"end\":\"forbidden\"", "\"sni\":\"www.bank.example\"", "\"sni\":\"lines.example\""] {
        eventually(PATIENCE, || printed().iter().any(|line| line.contains(end)));
    }
    assert!(script.end().is_ok_and(|status| status.success()));
    eventually(PATIENCE, || TcpStream::connect(("127.0.0.1", base + 201)).is_err());
    assert!(reader.join().is_ok());
}
