//! TLS in streams: passed through by name, ended at the gateway, begun towards the upstream. Real curl, openssl and nginx.

use gateward_e2e::streams::{Client, PATIENCE, dead_port, named_echo};
use gateward_e2e::{Authority, Metrics, curl, has_tool, indented};
use gateward_testkit::{Backend, Gateway, GatewayBuilder, TempDir, eventually};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const CA_ID: &str = "2a1f4c3e-52f4-4f0c-8c52-6c6f1b1b6a01";

/// nginx with a server for each name, which says its name; killed when dropped.
struct Nginx {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Nginx {
    #[track_caller]
    fn start(authority: &Authority, names: &[&str]) -> Self {
        let (port, dir) = (dead_port(), TempDir::new().expect("a folder can be made"));
        let shown = dir.path().display().to_string();
        let servers: String = names
            .iter()
            .map(|name| {
                let file = name.replace('*', "any");
                authority.issue(name).write(dir.path(), &file);
                format!(
                    "server {{ listen 127.0.0.1:{port} ssl; server_name {name}; ssl_certificate {shown}/{file}.crt; \
                     ssl_certificate_key {shown}/{file}.key; location / {{ return 200 \"{name}|$ssl_server_name|$ssl_alpn_protocol\"; }} }}\n"
                )
            })
            .collect();
        let configuration = format!(
            "worker_processes 1; pid {shown}/nginx.pid; error_log {shown}/error.log;\nevents {{ worker_connections 256; }}\n\
             http {{ access_log off; default_type text/plain; client_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy;\n\
             fastcgi_temp_path {shown}/f; uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;\n{servers}}}\n"
        );
        std::fs::write(dir.path().join("nginx.conf"), configuration).expect("files can be written");
        let child = Command::new("nginx")
            .args(["-p", &shown, "-c", &format!("{shown}/nginx.conf"), "-g", "daemon off;"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx runs");
        eventually(PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port, _dir: dir }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // An orderly end, so that its workers end too.
        let _ = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        let _ = self.child.wait();
    }
}

/// Services `(name, url, further fields, route)`.
fn config(services: &[(&str, String, &str, &str)]) -> String {
    let entries = services.iter().map(|(name, url, fields, route)| {
        format!("- {{name: {name}, url: '{url}'{fields}, routes: [{{name: {name}, {route}}}]}}\n")
    });
    format!("_format_version: '3.0'\nservices:\n{}", entries.collect::<String>())
}

fn listening(config: &str, listen: &str) -> GatewayBuilder {
    Gateway::builder(config).stream_listen(listen)
}

/// curl's exit status and what it printed for `https://name/`, asked at `addr`, trusting `authority` alone.
fn get(authority: &Path, addr: SocketAddr, name: &str) -> (Option<i32>, String) {
    let resolve = format!("{name}:{}:{}", addr.port(), addr.ip());
    let url = format!("https://{name}:{}/", addr.port());
    let output = curl(&["--cacert", &authority.display().to_string(), "--resolve", &resolve, &url]);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn trust(dir: &TempDir, authority: &Authority) -> std::path::PathBuf {
    let path = dir.path().join("authority.pem");
    std::fs::write(&path, authority.pem()).expect("files can be written");
    path
}

fn ended(gateway: &Gateway, protocol: &str, end: &str) -> f64 {
    let labels = [format!("protocol=\"{protocol}\""), format!("end=\"{end}\"")];
    Metrics::scrape(gateway).sum("gateward_stream_sessions_total", &[&labels[0], &labels[1]])
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    Metrics::scrape(gateway).sum("gateward_refusals_total", &[&format!("reason=\"{reason}\"")])
}

#[test]
fn names_lead_through_to_their_own_certificates() {
    if !has_tool("nginx") || !has_tool("curl") {
        return;
    }
    let (authority, dir) = (Authority::new(), TempDir::new().expect("a folder can be made"));
    let trusted = trust(&dir, &authority);
    let (first, second) = (Nginx::start(&authority, &["a.test", "*.wild.test"]), Nginx::start(&authority, &["b.test"]));
    let ended_here = authority.issue("c.test").entity(&["c.test"]);
    let text = config(&[
        (
            "a",
            format!("tcp://127.0.0.1:{}", first.port),
            "",
            "protocols: [tls_passthrough], snis: [a.test, '*.wild.test']",
        ),
        ("b", format!("tcp://127.0.0.1:{}", second.port), "", "protocols: [tls_passthrough], snis: [b.test]"),
        ("c", format!("tcp://127.0.0.1:{}", dead_port()), "", "protocols: [tls], snis: [c.test]"),
    ]) + "certificates:\n"
        + &ended_here;
    let gateway = listening(&text, "127.0.0.1:0, 127.0.0.1:0 ssl").start();
    for addr in [gateway.stream_at(0), gateway.stream_at(1)] {
        for (name, expected) in [
            ("a.test", "a.test|a.test|http/1.1"),
            ("A.Test", "a.test|a.test|http/1.1"),
            ("b.test", "b.test|b.test|http/1.1"),
            ("x.wild.test", "*.wild.test|x.wild.test|http/1.1"),
        ] {
            assert_eq!(get(&trusted, addr, name), (Some(0), expected.to_owned()), "{name}");
        }
    }
    // What does not pass through: without TLS here there is no route (35: closed), with it the default certificate (60).
    assert_eq!(get(&trusted, gateway.stream_at(0), "c.test").0, Some(35));
    assert_eq!(get(&trusted, gateway.stream_at(0), "unknown.test").0, Some(35));
    assert_eq!(get(&trusted, gateway.stream_at(1), "unknown.test").0, Some(60));
    assert_ne!(get(&trusted, gateway.stream_at(1), "c.test").0, Some(60));
    eventually(PATIENCE, || ended(&gateway, "tls", "connect_failure") == 1.0);
    // curl may leave with what it did not read, which makes its end a reset.
    let of = |end: &str| ended(&gateway, "tls_passthrough", end);
    eventually(PATIENCE, || of("client") + of("client_reset") + of("upstream") + of("upstream_reset") == 8.0);
    eventually(PATIENCE, || ended(&gateway, "tls_passthrough", "no_route") == 2.0);
    gateway.stop();
}

#[test]
fn tls_ends_at_the_gateway_and_begins_towards_the_upstream() {
    if !has_tool("nginx") || !has_tool("curl") {
        return;
    }
    let (authority, dir) = (Authority::new(), TempDir::new().expect("a folder can be made"));
    let trusted = trust(&dir, &authority);
    let (backend, nginx) = (Backend::echo(), Nginx::start(&authority, &["localhost"]));
    let verified = format!(", tls_verify: true, ca_certificates: [{CA_ID}]");
    let text = config(&[
        ("ends", format!("tcp://{}", backend.addr()), "", "protocols: [tls], snis: [ends.test]"),
        ("again", format!("tls://localhost:{}", nginx.port), &verified, "protocols: [tls], snis: ['*.again.test']"),
        ("misnamed", format!("tls://127.0.0.1:{}", nginx.port), &verified, "protocols: [tls], snis: [misnamed.test]"),
        (
            "begins",
            format!("tls://localhost:{}", nginx.port),
            &verified,
            "protocols: [tcp], destinations: [{ip: 127.0.0.2}]",
        ),
    ]) + &format!(
        "ca_certificates:\n- id: {CA_ID}\n  cert: |\n{}certificates:\n",
        indented(authority.pem())
    ) + &authority.issue("ends.test").entity(&["ends.test"])
        + &authority.issue("x.again.test").entity(&["x.again.test"])
        + &authority.issue("misnamed.test").entity(&["misnamed.test"]);
    let log = dir.path().join("access.log");
    let gateway =
        listening(&text, "127.0.0.1:0 ssl, 127.0.0.2:0").env("GATEWARD_ACCESS_LOG", log.display().to_string()).start();
    let addr = gateway.stream_at(0);
    let (status, echoed) = get(&trusted, addr, "ends.test");
    assert!(status == Some(0) && echoed.contains("ends.test"), "{status:?} {echoed}");
    // Nothing is said about the protocol inside, and the upstream is asked for by its own name.
    assert_eq!(get(&trusted, addr, "x.again.test"), (Some(0), "localhost|localhost|".to_owned()));
    assert_ne!(get(&trusted, addr, "misnamed.test").0, Some(0));
    eventually(PATIENCE, || ended(&gateway, "tls", "upstream_tls") == 1.0);
    // In the clear here, TLS from here on.
    let mut client = Client::connect(gateway.stream_at(1));
    client.send(b"GET / HTTP/1.0\r\n\r\n").expect("the gateway reads");
    let answer = String::from_utf8(client.rest().expect("an answer")).expect("text");
    assert!(answer.ends_with("\r\n\r\nlocalhost|localhost|"), "{answer}");
    drop(client);
    eventually(PATIENCE, || std::fs::read_to_string(&log).unwrap_or_default().lines().count() >= 4);
    let text = std::fs::read_to_string(&log).expect("it is there");
    let first: serde_json::Value =
        serde_json::from_str(text.lines().next().unwrap_or_default()).expect("a line of JSON");
    assert_eq!(
        (&first["session"]["sni"], &first["session"]["tls"]["version"]),
        (&"ends.test".into(), &"TLSv1.3".into())
    );
    gateway.stop();
}

/// ALPN of any kind is let through, where a listener of HTTP would refuse what it does not know.
#[test]
fn a_protocol_of_its_own_is_spoken_inside() {
    if !has_tool("openssl") {
        return;
    }
    let authority = Authority::new();
    let text =
        config(&[("s", format!("tcp://127.0.0.1:{}", named_echo("inside")), "", "protocols: [tls], snis: [s.test]")])
            + "certificates:\n"
            + &authority.issue("s.test").entity(&["s.test"]);
    let gateway = listening(&text, "127.0.0.1:0 ssl").start();
    for version in ["-tls1_2", "-tls1_3"] {
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-no_ign_eof", "-connect", &gateway.stream_at(0).to_string()])
            .args(["-servername", "s.test", "-alpn", "postgresql", version])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let mut output = std::io::BufReader::new(child.stdout.take().expect("it has an output"));
        let mut line = || {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut output, &mut line).expect("a line");
            line
        };
        assert_eq!(line(), "inside\n", "the server speaks first");
        let mut input = child.stdin.take().expect("it has an input");
        input.write_all(b"hello\n").expect("openssl reads");
        assert_eq!(line(), "hello\n");
        drop(input);
        assert!(child.wait().expect("openssl ends").success());
    }
    eventually(PATIENCE, || ended(&gateway, "tls", "client") == 2.0);
    gateway.stop();
}

#[test]
fn hellos_that_are_none_are_refused_by_their_reason() {
    let text = config(&[(
        "a",
        format!("tcp://127.0.0.1:{}", named_echo("a")),
        "",
        "protocols: [tls_passthrough], snis: [a.test]",
    )]);
    let gateway =
        listening(&text, "127.0.0.1:0, 127.0.0.1:0 ssl").env("GATEWARD_STREAM_PREREAD_TIMEOUT", "300ms").start();
    let endless =
        [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc][..], &[0; 0x3ffc], &[22, 3, 1, 0x40, 0], &[0; 20_000]].concat();
    let cases: &[(&[u8], &str)] = &[
        (b"", "stream_hello_timeout"),
        (&[22, 3, 1, 0, 99, 1, 0], "stream_hello_timeout"),
        (b"EHLO a.test\r\n", "stream_not_tls"),
        (&[22, 3, 1, 0, 0], "stream_hello_malformed"),
        (&[22, 3, 1, 0, 4, 1, 0, 0xff, 0xff], "stream_hello_too_long"),
        (&endless, "stream_hello_malformed"),
    ];
    for addr in [gateway.stream_at(0), gateway.stream_at(1)] {
        for (bytes, reason) in cases {
            let before = refused(&gateway, reason);
            let mut client = Client::connect(addr);
            let _ = client.send(bytes);
            client.expect_closed();
            eventually(PATIENCE, || refused(&gateway, reason) == before + 1.0);
        }
        let before = ended(&gateway, "tls_passthrough", "client_gone");
        drop(Client::connect(addr));
        eventually(PATIENCE, || ended(&gateway, "tls_passthrough", "client_gone") == before + 1.0);
    }
    gateway.stop();
}
