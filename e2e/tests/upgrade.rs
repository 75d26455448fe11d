//! Replacing the program while it serves: the sockets go to the new process, and nobody notices.

use gateward_e2e::dial::{Dial, Line, plain};
use gateward_e2e::grpc::GrpcServer;
use gateward_e2e::protocol_load::ProtocolLoad;
use gateward_e2e::{Authority, curl, has_tool, one_route, websocket};
use gateward_testkit::load::{Load, RunningLoad};
use gateward_testkit::{Backend, Gateway, GatewayBuilder, TempDir, eventually, http, pause};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// For what takes a moment on a quiet machine.
const SOON: Duration = Duration::from_secs(20);

/// The name that the certificate is for.
const NAME: &str = "a.test";

/// Back ends, a configuration for them, a place for the upgrade socket, and the authority of the certificate.
struct Scene {
    _backends: ([Backend; 2], GrpcServer),
    config: String,
    folder: TempDir,
    authority: Authority,
}

impl Scene {
    fn new() -> Self {
        let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let folder = TempDir::new().expect("a folder can be made");
        let echo = websocket::echo_backend();
        let chat = format!("- {{name: chat, url: '{}', routes: [{{name: chat, paths: [/chat]}}]}}\n", echo.url());
        let server = GrpcServer::start();
        let calls = format!(
            "- {{name: calls, url: '{}', routes: [{{name: calls, protocols: [grpc, grpcs], paths: [/test.Echo]}}]}}\n",
            server.url()
        );
        let authority = Authority::new();
        let certificates = format!("certificates:\n{}", authority.issue(NAME).entity(&[NAME]));
        let config = [one_route(&backend.url()), chat, calls, certificates].concat();
        Self { config, _backends: ([backend, echo], server), folder, authority }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("upgrade.sock")
    }

    /// Every process is told to listen on free ports: those that follow get the ports of the first.
    fn gateway(&self) -> GatewayBuilder {
        self.with_config(&self.config)
    }

    fn with_config(&self, config: &str) -> GatewayBuilder {
        Gateway::builder(config)
            .proxy_listen("127.0.0.1:0, 127.0.0.3:0 http2 ssl")
            .env("GATEWARD_SHUTDOWN_GRACE", "1s")
            .env("GATEWARD_UPGRADE_SOCKET", self.socket().display().to_string())
    }
}

/// TLS on the client's side, by other means than the gateway's.
#[derive(Clone)]
struct Tls {
    addr: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Tls {
    fn new(scene: &Scene, addr: SocketAddr, protocol: &str) -> Self {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(scene.authority.pem().as_bytes()).expect("a certificate");
        roots.add(authority).expect("an authority");
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Self { addr, config: Arc::new(config) }
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from(NAME).expect("a name")
    }

    fn dial(self) -> Dial {
        Arc::new(move || {
            let (connector, addr) = (TlsConnector::from(self.config.clone()), self.addr);
            Box::pin(async move {
                let tcp = tokio::net::TcpStream::connect(addr).await?;
                Ok(Box::new(connector.connect(Self::name(), tcp).await?) as Box<dyn Line>)
            })
        })
    }

    fn websocket(&self) -> Result<tungstenite::WebSocket<StreamOwned<ClientConnection, std::net::TcpStream>>, String> {
        let tcp = websocket::dial(self.addr).map_err(|error| error.to_string())?;
        let session = ClientConnection::new(self.config.clone(), Self::name()).map_err(|error| error.to_string())?;
        websocket::handshake(StreamOwned::new(session, tcp), &format!("ws://{NAME}/chat"))
    }
}

/// What every kind of client does while processes follow each other.
struct Traffic {
    http1: Vec<(&'static str, RunningLoad)>,
    others: Vec<(&'static str, ProtocolLoad)>,
}

impl Traffic {
    fn start(scene: &Scene, gateway: &Gateway) -> Self {
        let (proxy, secure, status) = (gateway.proxy(), gateway.proxy_at(1), gateway.status());
        let each = |addr: SocketAddr, target: &str| {
            format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").into_bytes()
        };
        let millisecond = Duration::from_millis(1);
        let probe = Duration::from_millis(20);
        let over_tls = |protocol| Tls::new(scene, secure, protocol);
        let upgraded = over_tls("http/1.1");
        let mut others = vec![
            ("HTTP/2", ProtocolLoad::http2(proxy)),
            ("HTTP/2 over TLS", ProtocolLoad::http2_over(over_tls("h2").dial())),
            ("gRPC", ProtocolLoad::grpc_over(plain(proxy))),
            ("gRPC over TLS", ProtocolLoad::grpc_over(over_tls("h2").dial())),
            ("WebSocket", ProtocolLoad::websocket(proxy, "/chat")),
            ("WebSocket over TLS", ProtocolLoad::websocket_over(move || upgraded.websocket())),
        ];
        if has_tool("curl") {
            others.push(("HTTP/1.1 over TLS", ProtocolLoad::rounds(over_curl(scene, secure))));
        }
        let http1 = vec![
            ("keep-alive", Load::get(proxy, "/").connections(4).start()),
            ("one request per connection", Load::request(proxy, "GET", each(proxy, "/")).interval(millisecond).start()),
            ("readiness", Load::request(status, "GET", each(status, "/status/ready")).interval(probe).start()),
            ("readiness, kept connection", Load::get(status, "/status/ready").interval(probe).start()),
        ];
        Self { http1, others }
    }

    #[track_caller]
    fn assert_all_ok(self) {
        pause(Duration::from_millis(300));
        for (name, load) in self.others {
            load.assert_all_ok(name);
        }
        for (name, load) in self.http1 {
            let report = load.stop();
            println!("{name}: {} requests over {} connections", report.ok, report.connects);
            report.assert_all_ok();
        }
    }
}

/// Requests by curl, twenty over a connection.
fn over_curl(scene: &Scene, addr: SocketAddr) -> impl Fn() -> Result<u64, String> + Send + 'static {
    let folder = TempDir::new().expect("a folder can be made");
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, scene.authority.pem()).expect("files can be written");
    let (resolve, url) =
        (format!("{NAME}:{}:{}", addr.port(), addr.ip()), format!("https://{NAME}:{}/[1-20]", addr.port()));
    move || {
        let authority = folder.path().join("authority.pem").display().to_string();
        let fixed = ["-f", "--http1.1", "-o", "/dev/null", "-w", "%{http_code} "];
        let output = curl(&[&fixed[..], &["--cacert", &authority, "--resolve", &resolve, &url]].concat());
        let codes = String::from_utf8_lossy(&output.stdout).into_owned();
        let good = codes.split_whitespace().filter(|code| *code == "200").count();
        if good == 20 { Ok(20) } else { Err(format!("{codes}{}", String::from_utf8_lossy(&output.stderr))) }
    }
}

#[track_caller]
fn logged(gateway: &Gateway, text: &str) {
    eventually(SOON, || gateway.log().iter().any(|line| line.contains(text)));
}

#[track_caller]
fn serves(addr: SocketAddr) {
    assert_eq!(http(addr, "GET /", &[], b"").status, 200);
}

/// Also with other numbers of workers, and before the process before the last has ended.
#[test]
fn load_upgrades_in_a_row() {
    let scene = Scene::new();
    let mut old = scene.gateway().workers(2).start();
    let traffic = Traffic::start(&scene, &old);
    let mut draining = Vec::new();
    for workers in [2, 3, 1, 2] {
        pause(Duration::from_millis(300));
        let new = scene.gateway().workers(workers).start();
        assert_eq!((new.proxy(), new.admin(), new.status()), (old.proxy(), old.admin(), old.status()));
        logged(&old, "another process has taken over");
        draining.push(std::mem::replace(&mut old, new));
    }
    for mut gateway in draining {
        assert!(gateway.wait_exit(SOON).success());
        gateway.assert_no_errors();
    }
    traffic.assert_all_ok();
    serves(old.proxy());
    old.stop();
    assert!(!scene.socket().exists(), "the last one takes its file away");
}

/// A process that a gateway started, which is nobody's child here.
struct Successor {
    pid: u64,
    proxy: SocketAddr,
}

impl Successor {
    /// The one after these, which writes to the same log.
    fn after(gateway: &Gateway, before: &[u64]) -> Self {
        let mut found = None;
        eventually(SOON, || {
            let log = gateway.log();
            found = log.iter().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                let pid = line["pid"].as_u64().filter(|pid| line["event"] == "ready" && !before.contains(pid))?;
                Some(Self { pid, proxy: line["proxy"][0].as_str()?.parse().ok()? })
            });
            found.is_some()
        });
        found.expect("it was found")
    }

    fn signal(&self, name: &str) {
        let _ = Command::new("sh").args(["-c", &format!("kill -{name} {} 2>&1", self.pid)]).output();
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        let command = std::fs::read_to_string(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        if command.contains("gateward") {
            self.signal("KILL");
        }
    }
}

#[test]
fn load_sigusr2_starts_the_program_anew() {
    let scene = Scene::new();
    let mut old = scene.gateway().start();
    let traffic = Traffic::start(&scene, &old);
    let first = u64::from(old.pid());
    old.sigusr2();
    let second = Successor::after(&old, &[first]);
    assert_eq!(second.proxy, old.proxy());
    // Sent to the one that drains, it only leads to a word in the log.
    logged(&old, "another process has taken over");
    old.sigusr2();
    logged(&old, "has handed over already");
    assert!(old.wait_exit(SOON).success());
    // Once more, from the successor.
    second.signal("USR2");
    let third = Successor::after(&old, &[first, second.pid]);
    eventually(SOON, || !Path::new(&format!("/proc/{}", second.pid)).exists() || is_zombie(second.pid));
    traffic.assert_all_ok();
    serves(third.proxy);
    old.assert_no_errors();
    third.signal("TERM");
    eventually(SOON, || std::net::TcpStream::connect(third.proxy).is_err());
}

/// Ended, and waiting for a parent that asks: in a container without init nobody does.
fn is_zombie(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z"))
}

#[test]
fn sigusr2_without_an_upgrade_socket_says_what_is_missing() {
    let gateway = Gateway::start("_format_version: '3.0'\n");
    gateway.sigusr2();
    logged(&gateway, "start with --upgrade-socket PATH");
    gateway.stop();
}

#[test]
fn a_new_process_that_cannot_start_changes_nothing() {
    let scene = Scene::new();
    let mut gateway = scene.gateway().start();
    let traffic = Traffic::start(&scene, &gateway);
    let error = scene.with_config("nonsense: 1\n").try_start().unwrap_err().to_string();
    assert!(error.contains("nothing was started"), "{error}");
    let error = scene.gateway().env("GATEWARD_ACCESS_LOG", "/no/such/folder/log").try_start().unwrap_err().to_string();
    assert!(error.contains("cannot open the access log"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = scene.gateway().proxy_listen(taken.local_addr().unwrap().to_string());
    let error = elsewhere.try_start().unwrap_err().to_string();
    assert!(error.contains("cannot listen on"), "{error}");
    logged(&gateway, "went away before it was ready");
    // By itself, too.
    gateway.write_config("nonsense: 1\n");
    logged(&gateway, "configuration refused");
    gateway.expect_error("configuration refused");
    gateway.expect_error("ended before it was ready");
    gateway.sigusr2();
    logged(&gateway, "ended before it was ready");
    assert_eq!(std::fs::read_dir(scene.folder.path()).unwrap().count(), 1, "they left no files");
    gateway.write_config(&scene.config);
    let new = scene.gateway().start();
    assert!(gateway.wait_exit(SOON).success());
    traffic.assert_all_ok();
    new.stop();
}

#[test]
fn an_address_that_the_new_process_does_not_want_is_closed_in_order() {
    let scene = Scene::new();
    let mut old = scene.gateway().proxy_listen("127.0.0.1:0, 127.0.0.2:0").start();
    let new = scene.gateway().start();
    assert_eq!(new.proxy(), old.proxy());
    logged(&old, "another process has taken over");
    let left = old.log().iter().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["proxy"].get(1)?.as_str()?.parse::<SocketAddr>().ok()
    });
    let left = left.expect("the ready line names two addresses");
    serves(left);
    assert!(old.wait_exit(SOON).success());
    assert!(std::net::TcpStream::connect(left).is_err());
    new.stop();
}

#[test]
fn a_process_that_drains_still_hands_over() {
    let scene = Scene::new();
    let mut old = scene.gateway().env("GATEWARD_SHUTDOWN_GRACE", "60s").start();
    old.sigterm();
    eventually(SOON, || http(old.status(), "GET /status/ready", &[], b"").status == 503);
    let new = scene.gateway().start();
    assert_eq!(new.proxy(), old.proxy());
    eventually(SOON, || http(new.status(), "GET /status/ready", &[], b"").status == 200);
    serves(new.proxy());
    // Asked again, it ends before its grace is over; the sockets are the new one's.
    old.sigterm();
    assert!(old.wait_exit(SOON).success());
    serves(new.proxy());
    new.stop();
}

/// The other end of the upgrade socket, by hand.
struct Peer(UnixStream);

impl Peer {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("somebody listens");
        stream.set_read_timeout(Some(SOON)).expect("sockets have time-outs");
        Self(stream)
    }

    fn say(&mut self, message: &Value) {
        let text = message.to_string();
        let message = [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
        self.0.write_all(&message).expect("the gateway reads");
    }

    fn hear(&mut self) -> Value {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).expect("the gateway answers");
        let mut text = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut text).expect("the gateway finishes what it says");
        serde_json::from_slice(&text).expect("it is JSON")
    }
}

fn hello(protocols: &[u32]) -> Value {
    json!({ "protocols": protocols, "version": "x", "pid": 1, "configured": true })
}

#[test]
fn peers_that_are_wrong_slow_or_late_are_refused_in_words() {
    let scene = Scene::new();
    let old = scene.gateway().start();
    let mode = std::fs::metadata(scene.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "for this user only");
    let mut silent = Peer::connect(&scene.socket());
    let mut other = Peer::connect(&scene.socket());
    other.0.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    logged(&old, "not the language of a gateward process");
    let mut later = Peer::connect(&scene.socket());
    later.say(&hello(&[2, 3]));
    assert!(later.hear()["refused"]["reason"].as_str().unwrap().contains("versions [2, 3]"));
    // One that got the sockets and does not go on holds the place until it ends.
    let mut slow = Peer::connect(&scene.socket());
    slow.say(&hello(&[1]));
    assert_eq!(slow.hear()["sockets"]["protocol"], 1);
    let error = scene.gateway().try_start().unwrap_err().to_string();
    assert!(error.contains("another upgrade is under way"), "{error}");
    serves(old.proxy());
    drop(slow);
    logged(&old, "went away before it was ready");
    // Who connected and said nothing is told nothing, and is in nobody's way.
    let mut rest = Vec::new();
    assert_eq!(silent.0.read_to_end(&mut rest).unwrap(), 0);
    let new = scene.gateway().start();
    logged(&old, "another process has taken over");
    new.stop();
    old.assert_no_errors();
}

#[test]
fn a_configuration_that_came_by_the_admin_api_is_not_lost() {
    let scene = Scene::new();
    let mut old = scene.gateway().without_config().start();
    let posted = http(old.admin(), "POST /config", &[("Content-Type", "text/yaml")], scene.config.as_bytes());
    assert_eq!(posted.status, 201, "{}", posted.text());
    let error = scene.gateway().without_config().try_start().unwrap_err().to_string();
    assert!(error.contains("POST /config") && error.contains("--config"), "{error}");
    serves(old.proxy());
    let new = scene.gateway().start();
    assert!(old.wait_exit(SOON).success());
    serves(new.proxy());
    new.stop();
}

#[test]
fn a_stale_socket_is_replaced_and_other_files_are_not() {
    let scene = Scene::new();
    drop(UnixListener::bind(scene.socket()).unwrap());
    let gateway = scene.gateway().start();
    serves(gateway.proxy());
    gateway.stop();
    std::fs::write(scene.socket(), "mine").unwrap();
    let error = scene.gateway().try_start().unwrap_err().to_string();
    assert!(error.contains("is no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(scene.socket()).unwrap(), "mine");
}

#[test]
fn the_service_manager_is_told_who_is_in_charge() {
    let scene = Scene::new();
    let path = scene.folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let heard = || {
        let mut bytes = [0; 200];
        let count = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let start = || scene.gateway().env("NOTIFY_SOCKET", path.display().to_string()).start();
    let mut old = start();
    assert_eq!(heard(), format!("READY=1\nMAINPID={}", old.pid()));
    let new = start();
    // Each of them says so: which one is heard depends on NotifyAccess.
    let mut both = [heard(), heard()];
    both.sort();
    assert_eq!(both, [format!("MAINPID={}", new.pid()), format!("READY=1\nMAINPID={}", new.pid())]);
    assert!(old.wait_exit(SOON).success());
    new.stop();
    assert_eq!(heard(), "STOPPING=1");
}
