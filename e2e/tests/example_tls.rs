//! `examples/tls/run` and the lines it prints.

use gateward_e2e::has_tool;
use gateward_testkit::{eventually, free_port, gateward_command};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn the_example_does_what_it_says() {
    if !has_tool("openssl") || !has_tool("curl") {
        return;
    }
    let (port, tls_port) = (free_port().port(), free_port().port());
    let mut child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/tls/run"))
        .env("PORT", port.to_string())
        .env("TLS_PORT", tls_port.to_string())
        .env("GATEWARD_BIN", gateward_command().get_program())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the example runs");
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let (output, kept) = (child.stdout.take().expect("it has an output"), lines.clone());
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    let printed = || lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
    eventually(PATIENCE, || TcpStream::connect(("127.0.0.1", tls_port)).is_ok());
    let commands: Vec<String> = printed().iter().filter(|line| line.starts_with("  ")).cloned().collect();
    let answers: Vec<String> = commands
        .iter()
        .map(|line| {
            let output = Command::new("sh").args(["-c", &format!("{line} 2>&1")]).output().expect("a shell runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
        .collect();
    let [anonymous, ann, plain, openssl] = answers.as_slice() else { panic!("{commands:?}") };
    assert_eq!((anonymous.as_str(), ann.as_str()), ("from the inner service\n", "from the inner service\n"));
    assert!(plain.starts_with("HTTP/1.1 308") && plain.contains("https://shop.example"), "{plain}");
    assert!(openssl.contains("Verification: OK") && openssl.contains("TLSv1.3"), "{openssl}");
    for subject in ["CN=ann,O=Example", "CN=gateway,O=Example"] {
        eventually(PATIENCE, || printed().iter().any(|line| line.contains(subject)));
    }
    let authority = commands[0].split_whitespace().find(|word| word.ends_with("/ca.pem")).expect("a path").to_owned();
    let asked = Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status();
    assert!(asked.is_ok_and(|status| status.success()));
    assert!(child.wait().is_ok_and(|status| status.success()));
    assert!(!std::path::Path::new(&authority).exists(), "keys are removed");
    reader.join().expect("the output was read");
}
