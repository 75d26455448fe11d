//! TLS behind a PROXY header: the header comes in the clear, before the handshake, and what it says is known to requests
//! over TLS as it is to others.

use gateward_e2e::fronted::{Fronted, Pieces};
use gateward_e2e::{Authority, Metrics, curl, has_tool, with_plugins};
use gateward_testkit::{Backend, Gateway, GatewayBuilder, RawClient, eventually};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
const NAME: &str = "a.test";
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.9 4321 443\r\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

/// A header as AWS sends it: PROXY, TCP over IPv4 from 192.0.2.7, the VPC endpoint's entry.
fn v2(vpce_id: &str) -> Vec<u8> {
    let mut rest = vec![192, 0, 2, 7, 10, 0, 0, 9, 0x10, 0xE1, 0x01, 0xBB];
    rest.extend_from_slice(&[0xEA, 0, 1 + vpce_id.len() as u8, 1]);
    rest.extend_from_slice(vpce_id.as_bytes());
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    header.extend_from_slice(&(rest.len() as u16).to_be_bytes());
    header.extend_from_slice(&rest);
    header
}

/// As a balancer's own probe has it.
fn local() -> Vec<u8> {
    b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0".to_vec()
}

struct Scene {
    gateway: Gateway,
    authority: String,
    log: std::path::PathBuf,
    _backend: Backend,
}

impl Scene {
    /// A gateway whose listener has these flags after `ssl`, and an echo behind three routes: for one endpoint and name
    /// `/mine`, for one client `/seven`, for others `/other`.
    fn start(flags: &str, adjust: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Self {
        let (authority, backend) = (Authority::new(), Backend::echo());
        let route = |name: &str, expression: &str, priority: u8| {
            format!(
                "- {{name: {name}, url: '{}/{name}', routes: [{{name: {name}, expression: '{expression}', priority: {priority}}}]}}\n",
                backend.url()
            )
        };
        let config = [
            "_format_version: '3.0'\nservices:\n".to_owned(),
            route("mine", "net.src.vpce_id == \"vpce-1\" && tls.sni == \"a.test\"", 3),
            route("seven", "net.src.ip == 192.0.2.7 && net.protocol == \"https\"", 2),
            route("other", "http.path ^= \"/\"", 1),
            format!("certificates:\n{}", authority.issue(NAME).entity(&[NAME])),
        ];
        let config = with_plugins(&config.concat(), &["{name: ip-restriction, config: {deny: [192.0.2.66]}}"]);
        let folder = std::env::temp_dir();
        let log = folder.join(format!("gateward-tls-behind-{}-{}.log", std::process::id(), backend.addr().port()));
        let builder = Gateway::builder(&config)
            .proxy_listen(format!("127.0.0.1:0 http2 ssl {flags}"))
            .env("KONG_ROUTER_FLAVOR", "expressions")
            .env("KONG_REAL_IP_HEADER", "proxy_protocol")
            .env("KONG_TRUSTED_IPS", "127.0.0.0/8")
            .env("GATEWARD_ACCESS_LOG", log.display().to_string());
        let gateway = adjust(builder).start();
        let path = gateway.dir().join("authority.pem");
        std::fs::write(&path, authority.pem()).expect("files can be written");
        Self { gateway, authority: path.display().to_string(), log, _backend: backend }
    }

    /// curl's exit status and what it printed for `https://a.test/`, asked at `address`.
    fn get(&self, address: SocketAddr, args: &[&str]) -> (Option<i32>, String) {
        let resolve = format!("{NAME}:{}:127.0.0.1", address.port());
        let url = format!("https://{NAME}:{}/", address.port());
        let output = curl(&[&["--cacert", &self.authority, "--resolve", &resolve], args, &[&url]].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The back end's path and the client's address of a request that comes with `header` in front.
    #[track_caller]
    fn seen(&self, header: &[u8], pieces: Pieces, args: &[&str]) -> (String, String) {
        let front = Fronted::start(self.gateway.proxy(), header, pieces);
        let (status, text) = self.get(front.addr(), args);
        assert_eq!(status, Some(0), "{header:?} {args:?}: {:?}", self.gateway.log());
        seen(&text)
    }

    #[track_caller]
    fn expect_count(&self, mode: &str, outcome: &str, count: f64) {
        let labels = [format!("mode=\"{mode}\""), format!("outcome=\"{outcome}\"")];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let counted =
            || Metrics::scrape(&self.gateway).sum("gateward_proxy_protocol_connections_total", &labels) == count;
        eventually(PATIENCE, counted);
    }

    #[track_caller]
    fn expect_refused(&self, reason: &str) {
        let label = format!("reason=\"{reason}\"");
        eventually(PATIENCE, || Metrics::scrape(&self.gateway).sum("gateward_refusals_total", &[&label]) >= 1.0);
    }

    fn stop(self) {
        self.gateway.stop();
        let _ = std::fs::remove_file(self.log);
    }
}

/// What an echo tells of path and client, and that the request came over TLS.
#[track_caller]
fn seen(text: &str) -> (String, String) {
    let echo: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("no echo: {text}"));
    let field = |wanted: &str| {
        let fields = echo["headers"].as_array().expect("fields");
        let found = fields.iter().find(|field| field[0].as_str().is_some_and(|it| it.eq_ignore_ascii_case(wanted)));
        found.and_then(|field| field[1].as_str()).unwrap_or_default().to_owned()
    };
    assert_eq!(field("x-forwarded-proto"), "https");
    assert_eq!(field("x-forwarded-for"), field("x-real-ip"));
    (echo["target"].as_str().unwrap_or_default().trim_end_matches('/').to_owned(), field("x-real-ip"))
}

fn at(path: &str, address: &str) -> (String, String) {
    (path.to_owned(), address.to_owned())
}

#[test]
fn clients_and_endpoints_are_known_over_tls() {
    if !has_tool("curl") {
        return;
    }
    let scene = Scene::start("proxy_protocol", |builder| builder);
    for args in [&["--http1.1"][..], &["--http2"], &["--tls-max", "1.2"]] {
        for pieces in [Pieces::Whole, Pieces::Bytes] {
            assert_eq!(scene.seen(V1, pieces, args), at("/seven", "192.0.2.7"), "{args:?} {pieces:?}");
            assert_eq!(scene.seen(&v2("vpce-1"), pieces, args), at("/mine", "192.0.2.7"), "{args:?} {pieces:?}");
            assert_eq!(scene.seen(&v2("vpce-2"), pieces, args), at("/seven", "192.0.2.7"), "{args:?} {pieces:?}");
        }
    }
    // Who claims something in a field is not believed: the balancer adds none.
    let claims = ["-H", "X-Forwarded-For: 6.6.6.6", "-H", "X-Real-IP: 6.6.6.6", "-H", "X-Forwarded-Proto: http"];
    assert_eq!(scene.seen(V1, Pieces::Whole, &claims), at("/seven", "192.0.2.7"));
    for header in [local(), b"PROXY UNKNOWN\r\n".to_vec()] {
        assert_eq!(scene.seen(&header, Pieces::Whole, &[]), at("/other", "127.0.0.1"));
    }
    // A plugin looks at the same address.
    let denied = Fronted::start(scene.gateway.proxy(), "PROXY TCP4 192.0.2.66 10.0.0.9 1 2\r\n", Pieces::Whole);
    assert_eq!(scene.get(denied.addr(), &["-o", "/dev/null", "-w", "%{http_code}"]).1, "403");

    for (outcome, count) in [("proxied", 20.0), ("local", 1.0), ("unknown", 1.0)] {
        scene.expect_count("require", outcome, count);
    }
    let metrics = Metrics::scrape(&scene.gateway);
    let endpoints = metrics.sum("gateward_proxy_protocol_endpoint_connections_total", &["vpce_id=\"vpce-1\""]);
    assert_eq!((endpoints, metrics.sum("gateward_tls_handshakes_total", &[])), (6.0, 22.0), "{}", metrics.text());
    let mut text = String::new();
    eventually(PATIENCE, || {
        text = std::fs::read_to_string(&scene.log).unwrap_or_default();
        text.lines().count() == 22
    });
    let line = text.lines().find(|line| line.contains("vpce-1")).expect("a line of the endpoint");
    let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let origin = &record["proxy_protocol"];
    assert_eq!((&record["client_ip"], &origin["vpce_id"]), (&"192.0.2.7".into(), &"vpce-1".into()), "{line}");
    assert_eq!((&origin["source"], &origin["destination"]), (&"192.0.2.7:4321".into(), &"10.0.0.9:443".into()));
    assert_eq!(record["request"]["tls"]["version"], "TLSv1.3", "{line}");
    scene.stop();
}

#[test]
fn a_required_header_comes_before_the_handshake_or_nothing_is_served() {
    if !has_tool("curl") || !has_tool("openssl") {
        return;
    }
    let scene = Scene::start("proxy_protocol", |builder| builder);
    // Without one: closed before a byte of TLS (curl: 35).
    assert_eq!(scene.get(scene.gateway.proxy(), &[]).0, Some(35));
    scene.expect_count("require", "missing", 1.0);
    scene.expect_refused("proxy_protocol_missing");
    // Broken ones.
    for header in ["PROXY TCP4 192.0.2.7\r\n", "PROXY TCP4 192.0.2.7 10.0.0.9 1 99999\r\n"] {
        let front = Fronted::start(scene.gateway.proxy(), header, Pieces::Whole);
        assert_eq!(scene.get(front.addr(), &[]).0, Some(35), "{header:?}");
    }
    scene.expect_refused("proxy_protocol_malformed");
    // A second header, in the clear, is no TLS.
    for second in [V1.to_vec(), v2("vpce-2"), local()] {
        let front = Fronted::start(scene.gateway.proxy(), [V1, &second].concat(), Pieces::Whole);
        assert_eq!(scene.get(front.addr(), &[]).0, Some(35), "{second:?}");
    }
    scene.expect_refused("tls_not_tls");
    scene.stop();
}

/// Once TLS has begun a header is what any other bytes would be, wherever it stands.
#[test]
fn a_header_after_the_start_of_tls_is_refused() {
    if !has_tool("curl") || !has_tool("openssl") {
        return;
    }
    for (flags, in_front) in [("proxy_protocol", V1), ("proxy_protocol=auto", V1), ("proxy_protocol=auto", b"")] {
        let scene = Scene::start(flags, |builder| builder);
        let front = Fronted::start(scene.gateway.proxy(), in_front, Pieces::Whole);
        // Within the encrypted stream: a malformed request, and nobody's address.
        let answer = over_tls(front.addr(), &[b"PROXY TCP4 6.6.6.6 10.0.0.9 1 2\r\n", REQUEST].concat());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{flags}: {answer:?}");
        scene.expect_refused("request_line");
        let good = over_tls(front.addr(), REQUEST);
        assert!(good.starts_with("HTTP/1.1 200 ") && !good.contains("6.6.6.6"), "{flags}: {good:?}");
        // In the clear, after the head of a TLS record.
        let mut client = RawClient::connect(front.addr());
        let _ = client.try_send(&[b"\x16\x03\x01\x00\x40", V1].concat());
        let _ = client.try_send(&[0; 64]);
        client.read_to_close(PATIENCE);
        let refused = Metrics::scrape(&scene.gateway).sum("gateward_refusals_total", &["reason=\"tls_"]);
        assert_eq!(refused, 1.0, "{flags}: {}", Metrics::scrape(&scene.gateway).text());
        assert!(!std::fs::read_to_string(&scene.log).unwrap_or_default().contains("6.6.6.6"));
        scene.stop();
    }
}

/// What `openssl s_client` receives when it sends `bytes`.
#[track_caller]
fn over_tls(address: SocketAddr, bytes: &[u8]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-quiet", "-servername", NAME, "-connect", &address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let input = child.stdin.as_mut().expect("it has an input");
    input.write_all(bytes).expect("openssl reads");
    let output = child.wait_with_output().expect("openssl ends");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn auto_serves_tls_with_and_without_a_header() {
    if !has_tool("curl") {
        return;
    }
    let scene = Scene::start("proxy_protocol=auto", |builder| builder);
    let direct = |args: &[&str]| {
        let (status, text) = scene.get(scene.gateway.proxy(), args);
        assert_eq!(status, Some(0), "{args:?}: {:?}", scene.gateway.log());
        seen(&text)
    };
    // A health probe over TLS without a header, and a client.
    for args in [&["--http1.1"][..], &["--http2"]] {
        assert_eq!(direct(args), at("/other", "127.0.0.1"), "{args:?}");
        assert_eq!(scene.seen(b"", Pieces::Bytes, args), at("/other", "127.0.0.1"), "{args:?}");
        assert_eq!(scene.seen(&v2("vpce-1"), Pieces::Bytes, args), at("/mine", "192.0.2.7"), "{args:?}");
        assert_eq!(scene.seen(&local(), Pieces::Whole, args), at("/other", "127.0.0.1"), "{args:?}");
    }
    // Probes that only connect, or reset, break nothing.
    drop(RawClient::connect(scene.gateway.proxy()));
    gateward_testkit::reset(RawClient::connect(scene.gateway.proxy()).stream().try_clone().expect("a socket"));
    // HTTP in the clear is told so, with a header and without.
    for in_front in [V1, b""] {
        let mut client = RawClient::connect(scene.gateway.proxy());
        client.send(&[in_front, REQUEST].concat());
        let told = client.read_final_response("GET");
        assert!(told.status == 400 && told.text().contains("HTTPS port"), "{}", told.text());
    }
    assert_eq!(direct(&[]), at("/other", "127.0.0.1"));
    for (outcome, count) in [("absent", 6.0), ("proxied", 3.0), ("local", 2.0)] {
        scene.expect_count("auto", outcome, count);
    }
    scene.stop();
}

#[test]
fn a_header_of_a_stranger_is_taken_off_and_not_believed() {
    if !has_tool("curl") {
        return;
    }
    for flags in ["proxy_protocol", "proxy_protocol=auto"] {
        let scene = Scene::start(flags, |builder| builder.env("KONG_TRUSTED_IPS", "10.0.0.0/8"));
        assert_eq!(scene.seen(&v2("vpce-1"), Pieces::Whole, &[]), at("/other", "127.0.0.1"));
        let mode = if flags.ends_with("auto") { "auto" } else { "require" };
        scene.expect_count(mode, "untrusted", 1.0);
        assert!(!Metrics::scrape(&scene.gateway).text().contains("vpce-1"));
        scene.stop();
    }
}

#[test]
fn header_and_handshake_have_a_deadline_each() {
    let scene = Scene::start("proxy_protocol", |builder| {
        builder.env("GATEWARD_CLIENT_HEADER_TIMEOUT", "300ms").env("GATEWARD_TLS_HANDSHAKE_TIMEOUT", "300ms")
    });
    for bytes in [&b""[..], b"PROXY TCP4", b"\r\n\r\n\0"] {
        let mut client = RawClient::connect(scene.gateway.proxy());
        client.send(bytes);
        client.expect_closed();
    }
    scene.expect_count("require", "timeout", 3.0);
    for rest in [&b""[..], b"\x16\x03\x01"] {
        let mut client = RawClient::connect(scene.gateway.proxy());
        client.send(&[V1, rest].concat());
        client.expect_closed();
    }
    scene.expect_refused("tls_timeout");
    scene.stop();
}
