//! Changes of zones while the server runs: durable when acknowledged, refused whole, and made by machines for themselves.

use gateward_e2e::names::NameServer;
use gateward_testkit::{RawResponse, eventually, free_port, gateward_command, http};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const JSON: (&str, &str) = ("Content-Type", "application/json");

const ZONE: &str = "\
$TTL 60
@ SOA ns1 hostmaster 1 3600 600 86400 300
@ NS ns1
@ NS ns2
ns1 A 192.0.2.53
ns2 A 192.0.2.54
www A 192.0.2.1
";

/// A server of `example.com`, and where its control API is.
fn server() -> (NameServer, SocketAddr) {
    let control = free_port();
    let server = NameServer::start(&[("example.com.zone", ZONE)], &["--control-listen", &control.to_string()]);
    eventually(PATIENCE, || std::net::TcpStream::connect(control).is_ok());
    (server, control)
}

/// As the kernel does when memory runs out.
fn crash(server: &mut NameServer) {
    server.signal("KILL");
    server.restart();
}

fn change(control: SocketAddr, op: &str, record: &str) -> RawResponse {
    let body = serde_json::json!({ "changes": [{ "op": op, "record": record }] }).to_string();
    http(control, "POST /v1/zones/example.com/changes", &[JSON], body.as_bytes())
}

fn zone(control: SocketAddr) -> String {
    http(control, "GET /v1/zones/example.com", &[], b"").text()
}

#[test]
fn kill_9_during_updates_loses_no_acknowledged_change() {
    let (mut server, control) = server();
    let acknowledged = Mutex::new(BTreeSet::new());
    for round in 0..3 {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (acknowledged, stop) = (&acknowledged, &stop);
                scope.spawn(move || {
                    for number in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let name = format!("r{round}-t{thread}-n{number}");
                        let body = format!(r#"{{"changes":[{{"op":"add","record":"{name} 60 IN A 192.0.2.9"}}]}}"#);
                        // The server dies under some of these.
                        let Some(status) = try_post(control, &body) else { continue };
                        assert_eq!(status, 200);
                        acknowledged.lock().unwrap().insert(name);
                    }
                });
            }
            let before = acknowledged.lock().unwrap().len();
            eventually(PATIENCE, || acknowledged.lock().unwrap().len() >= before + 100);
            crash(&mut server);
            stop.store(true, Ordering::Relaxed);
        });
        eventually(PATIENCE, || std::net::TcpStream::connect(control).is_ok());
        let served = zone(control);
        let names: BTreeSet<&str> = served.lines().filter_map(|line| line.split_whitespace().next()).collect();
        let lost: Vec<_> =
            acknowledged.lock().unwrap().iter().filter(|name| !names.contains(name.as_str())).cloned().collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
    }
    let last = acknowledged.lock().unwrap().last().cloned().unwrap();
    assert_eq!(server.dig(&[&format!("{last}.example.com"), "+short"]), "192.0.2.9");
    assert!(!server.log().contains("panic"));
}

/// The status of a request, if the server lives long enough to answer it.
fn try_post(control: SocketAddr, body: &str) -> Option<u16> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(control).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let head = format!(
        "POST /v1/zones/example.com/changes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[test]
fn the_next_query_sees_an_acknowledged_change() {
    let (server, control) = server();
    for number in 1..=20 {
        assert_eq!(change(control, "add", &format!("n{number} 60 IN A 10.0.0.{number}")).status, 200);
        assert_eq!(server.dig(&[&format!("n{number}.example.com"), "+short"]), format!("10.0.0.{number}"));
    }
    let put = http(control, "PUT /v1/zones/new.example", &[], ZONE.as_bytes());
    assert_eq!(put.status, 204, "{}", put.text());
    assert_eq!(server.dig(&["www.new.example", "+short"]), "192.0.2.1");
    assert_eq!(http(control, "DELETE /v1/zones/new.example", &[], b"").status, 204);
    assert!(server.dig(&["www.new.example"]).contains("REFUSED"));
}

#[test]
fn a_bad_zone_is_refused_with_every_error_and_the_served_version_stays() {
    let (server, control) = server();
    let bad = "@ 60 SOA ns1 hm 9 2 3 4 5\n@ 60 NS ns1\nns1 60 A 192.0.2\nwww 60 B 1\nx 60 MX y\n";
    let put = http(control, "PUT /v1/zones/example.com", &[], bad.as_bytes());
    let lines: BTreeSet<u64> =
        put.json()["errors"].as_array().unwrap().iter().filter_map(|error| error["line"].as_u64()).collect();
    assert_eq!((put.status, lines), (422, BTreeSet::from([3, 4, 5])));
    server.write("example.com.zone", bad);
    eventually(PATIENCE, || http(control, "GET /v1/zones", &[], b"").json()["zones"][0]["state"] == "refused");
    assert_eq!(server.dig(&["www.example.com", "+short"]), "192.0.2.1");
    for line in ["example.com.zone:3:", "example.com.zone:4:", "example.com.zone:5:"] {
        assert!(server.log().contains(line), "{line}");
    }
    let check = run(gateward_command().args(["dns", "check"]).arg(server.folder()));
    assert_eq!(check.0, Some(1));
    assert!(check.1.contains("example.com.zone:3: error:"), "{}", check.1);
    server.write(
        "example.com.zone",
        &ZONE.replace("192.0.2.1\n", "192.0.2.7\n").replace("hostmaster 1 ", "hostmaster 2 "),
    );
    eventually(PATIENCE, || server.dig(&["www.example.com", "+short"]) == "192.0.2.7");
    assert_eq!(run(gateward_command().args(["dns", "check"]).arg(server.folder())).0, Some(0));
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("gateward can be started");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// An agent, ended with the test.
struct Agent(Child);

impl Agent {
    fn start(control: SocketAddr, id: &str, address: &str, more: &[&str]) -> Self {
        let child = gateward_command()
            .args(["dns", "register", "--zone", "example.com", "--name", "api", "--lease-seconds", "5", "--control"])
            .args([&format!("http://{control}"), "--id", id, "--data", address])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Agent(child.expect("gateward can be started"))
    }

    fn term(&mut self) {
        let sent = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        assert!(sent.expect("kill can be run").success());
        assert!(self.0.wait().expect("it is a child").success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn machines_register_themselves_and_the_last_one_stays() {
    let (mut server, control) = server();
    let flag = server.folder().join("healthy");
    std::fs::write(&flag, "").unwrap();
    let test = format!("test -e {}", flag.display());
    let served = |server: &NameServer| {
        let mut served: Vec<String> = server.dig(&["api.example.com", "+short"]).lines().map(str::to_owned).collect();
        served.sort();
        served
    };
    let mut first = Agent::start(control, "a", "10.0.0.1", &[]);
    let health = ["--health-command", &test, "--health-interval", "1", "--unhealthy-after", "1"];
    let second = Agent::start(control, "b", "10.0.0.2", &health);
    eventually(PATIENCE, || served(&server) == ["10.0.0.1", "10.0.0.2"]);
    std::fs::remove_file(&flag).unwrap();
    eventually(PATIENCE, || served(&server) == ["10.0.0.1"]);
    std::fs::write(&flag, "").unwrap();
    eventually(PATIENCE, || served(&server) == ["10.0.0.1", "10.0.0.2"]);
    first.term();
    eventually(PATIENCE, || served(&server) == ["10.0.0.2"]);
    crash(&mut server);
    // It goes on renewing, or this one would end.
    eventually(PATIENCE, || {
        let leases = http(control, "GET /v1/leases/example.com", &[], b"").json();
        leases["leases"][0]["id"] == "b" && leases["leases"][0]["live"] == true
    });
    drop(second);
    eventually(PATIENCE, || http(control, "GET /v1/leases/example.com", &[], b"").json()["leases"][0]["live"] == false);
    assert_eq!(served(&server), ["10.0.0.2"], "never the last one");
    let refused = run(gateward_command()
        .args([
            "dns",
            "register",
            "--zone",
            "example.com",
            "--name",
            "www",
            "--type",
            "CNAME",
            "--data",
            "api",
            "--control",
        ])
        .arg(format!("http://{control}")));
    assert_eq!(refused.0, Some(1));
}
