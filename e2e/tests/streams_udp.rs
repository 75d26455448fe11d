//! UDP sessions: who gets which reply, how they end, how many there may be, and what happens to them in a hand-over.

use gateward_e2e::Metrics;
use gateward_e2e::streams::PATIENCE;
use gateward_testkit::{Gateway, GatewayBuilder, TempDir, eventually};
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A server that answers `name: question`, as long as its socket exists, and knows who asked.
struct Server {
    port: u16,
    peers: Arc<Mutex<BTreeSet<SocketAddr>>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start(name: &'static str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("it is bound").port();
        let (peers, asked) = (Arc::<Mutex<BTreeSet<SocketAddr>>>::default(), Arc::<AtomicUsize>::default());
        let (seen, count) = (peers.clone(), asked.clone());
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_535];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                seen.lock().expect("nobody panics").insert(peer);
                count.fetch_add(1, Relaxed);
                let answer = [name.as_bytes(), b": ", &buffer[..length]].concat();
                let _ = socket.send_to(&answer, peer);
            }
        });
        Self { port, peers, asked }
    }

    fn peers(&self) -> usize {
        self.peers.lock().expect("nobody panics").len()
    }
}

/// A client with one address of its own.
struct Client(UdpSocket);

impl Client {
    /// Connected: a reply from another address than was asked does not arrive.
    fn new(from: &str, addr: SocketAddr) -> Self {
        let socket = UdpSocket::bind((from, 0)).expect("loopback addresses are all there");
        socket.connect(addr).expect("an address");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("options can be set");
        Self(socket)
    }

    fn send(&self, question: &[u8]) {
        let _ = self.0.send(question);
    }

    /// A reply, if one comes soon.
    fn hear(&self) -> Option<String> {
        let mut buffer = vec![0; 65_535];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Datagrams may be lost: asks until there is an answer.
    #[track_caller]
    fn ask(&self, question: &str) -> String {
        let mut answer = None;
        eventually(PATIENCE, || {
            self.send(question.as_bytes());
            answer = self.hear();
            answer.is_some()
        });
        answer.unwrap_or_default()
    }
}

fn config(host: &str, fields: &str, more: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- {{name: s, protocol: udp, {host}{fields}, routes: [{{name: r, protocols: [udp], sources: [{{ip: 127.0.0.0/8}}]}}]}}\n{more}"
    )
}

fn to(server: &Server) -> String {
    format!("host: 127.0.0.1, port: {}", server.port)
}

fn listening(config: &str) -> GatewayBuilder {
    Gateway::builder(config).stream_listen("127.0.0.1:0 udp")
}

fn metric(gateway: &Gateway, name: &str, label: &str) -> f64 {
    Metrics::scrape(gateway).sum(name, &[label])
}

#[test]
fn every_client_gets_its_own_replies() {
    let server = Server::start("s");
    let gateway = listening(&config(&to(&server), "", "")).start();
    let clients: Vec<Client> = (0..50).map(|_| Client::new("127.0.0.1", gateway.udp_at(0))).collect();
    for round in 0..3 {
        for (number, client) in clients.iter().enumerate() {
            assert_eq!(client.ask(&format!("{round} of {number}")), format!("s: {round} of {number}"));
        }
    }
    assert_eq!(server.peers(), 50, "one socket for each client, for as long as it lasts");
    assert_eq!(metric(&gateway, "gateward_stream_sessions_active", ""), 50.0);
    // As long as datagrams get, and an empty one.
    let large = "x".repeat(60_000);
    assert_eq!(clients[0].ask(&large), format!("s: {large}"));
    assert_eq!(clients[1].ask(""), "s: ");
    gateway.stop();
}

#[test]
fn replies_come_from_where_was_asked_and_routes_go_by_it() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let services: String = [(&one, "127.0.0.1"), (&two, "127.0.0.2")]
        .map(|(server, ip)| {
            format!("- {{name: 's{ip}', protocol: udp, {}, routes: [{{name: 'r{ip}', protocols: [udp], destinations: [{{ip: {ip}}}]}}]}}\n", to(server))
        })
        .concat();
    let gateway = Gateway::builder(&format!("_format_version: '3.0'\nservices:\n{services}"))
        .stream_listen("0.0.0.0:0 udp, 127.0.0.1:0")
        .start();
    let port = gateway.udp_at(0).port();
    let client = |ip: [u8; 4]| Client::new("127.0.0.1", (ip, port).into());
    assert_eq!(client([127, 0, 0, 1]).ask("q"), "one: q");
    assert_eq!(client([127, 0, 0, 2]).ask("q"), "two: q");
    let nobody = client([127, 0, 0, 3]);
    nobody.send(b"q");
    eventually(PATIENCE, || {
        metric(&gateway, "gateward_stream_sessions_total", "protocol=\"udp\",end=\"no_route\"") == 1.0
    });
    assert_eq!(nobody.hear(), None);
    gateway.stop();
}

#[test]
fn silence_ends_a_session_and_the_record_tells() {
    let server = Server::start("s");
    let folder = TempDir::new().expect("a folder can be made");
    let log = folder.path().join("access.log");
    let gateway = listening(&config(&to(&server), ", read_timeout: 300", ""))
        .env("GATEWARD_ACCESS_LOG", log.display().to_string())
        .start();
    let client = Client::new("127.0.0.1", gateway.udp_at(0));
    assert_eq!(client.ask("q"), "s: q");
    eventually(PATIENCE, || metric(&gateway, "gateward_stream_sessions_active", "") == 0.0);
    eventually(PATIENCE, || std::fs::read_to_string(&log).unwrap_or_default().lines().count() == 1);
    let text = std::fs::read_to_string(&log).expect("it is there");
    let record: serde_json::Value = serde_json::from_str(&text).expect("a line of JSON");
    assert_eq!((&record["session"]["protocol"], &record["end"]), (&"udp".into(), &"idle".into()), "{record}");
    let asked = server.asked.load(Relaxed) as u64;
    assert_eq!(
        (&record["session"]["received"], &record["upstream"]["sent"]),
        (&asked.into(), &asked.into()),
        "{record}"
    );
    // The next datagram begins another session.
    assert_eq!(client.ask("q"), "s: q");
    assert_eq!(server.peers(), 2);
    gateway.stop();
}

#[test]
fn sessions_are_bounded_and_what_is_dropped_is_counted() {
    let server = Server::start("s");
    let gateway = listening(&config(&to(&server), ", read_timeout: 1500", ""))
        .workers(1)
        .env("GATEWARD_MAX_UDP_SESSIONS", "3")
        .start();
    let clients: Vec<Client> = (0..3).map(|_| Client::new("127.0.0.1", gateway.udp_at(0))).collect();
    clients.iter().for_each(|client| assert_eq!(client.ask("q"), "s: q"));
    let late = Client::new("127.0.0.1", gateway.udp_at(0));
    late.send(b"q");
    eventually(PATIENCE, || metric(&gateway, "gateward_refusals_total", "reason=\"stream_sessions_full\"") >= 1.0);
    assert!(metric(&gateway, "gateward_stream_datagrams_dropped_total", "") >= 1.0);
    // Places are given back.
    assert_eq!(late.ask("q"), "s: q");
    gateway.stop();
}

#[test]
fn dead_targets_are_left_out_and_denied_clients_dropped() {
    let server = Server::start("s");
    let dead = UdpSocket::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port");
    let more = format!(
        "upstreams:\n- {{name: u, healthchecks: {{passive: {{type: tcp, unhealthy: {{tcp_failures: 1}}}}}}, targets: [{{target: '127.0.0.1:{}'}}, {{target: '{dead}'}}]}}\nplugins:\n- {{name: ip-restriction, config: {{deny: [127.0.0.9]}}}}\n",
        server.port
    );
    let gateway = listening(&config("host: u", "", &more)).start();
    for _ in 0..8 {
        assert_eq!(Client::new("127.0.0.1", gateway.udp_at(0)).ask("q"), "s: q");
    }
    assert_eq!(metric(&gateway, "gateward_target_health_transitions_total", "to=\"unhealthy\""), 1.0);
    assert_eq!(metric(&gateway, "gateward_stream_sessions_total", "end=\"upstream_reset\""), 1.0);
    let before = server.asked.load(Relaxed);
    let denied = Client::new("127.0.0.9", gateway.udp_at(0));
    denied.send(b"q");
    eventually(PATIENCE, || metric(&gateway, "gateward_refusals_total", "reason=\"stream_forbidden\"") == 1.0);
    assert_eq!((denied.hear(), server.asked.load(Relaxed)), (None, before));
    gateway.stop();
}

#[test]
fn another_process_takes_the_sockets_over() {
    let server = Server::start("s");
    let folder = TempDir::new().expect("a folder can be made");
    let start = |workers| {
        listening(&config(&to(&server), "", ""))
            .workers(workers)
            .env("GATEWARD_SHUTDOWN_GRACE", "100ms")
            .env("GATEWARD_UPGRADE_SOCKET", folder.path().join("upgrade.sock").display().to_string())
            .start()
    };
    let mut old = start(2);
    let addr = old.udp_at(0);
    let kept = Client::new("127.0.0.1", addr);
    assert_eq!(kept.ask("q"), "s: q");
    for workers in [2, 1, 3] {
        let new = start(workers);
        assert_eq!(new.udp_at(0), addr);
        let mut before = std::mem::replace(&mut old, new);
        // Sessions that nobody hears of do not hold the old process up.
        assert!(before.wait_exit(PATIENCE).success());
        before.assert_no_errors();
        assert_eq!(kept.ask("again"), "s: again");
        assert_eq!(Client::new("127.0.0.1", addr).ask("new"), "s: new");
    }
    old.stop();
}
