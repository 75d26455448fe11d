//! TLS with clients: real curl and openssl against certificates of the configuration.

use gateward_e2e::{Authority, Metrics, curl, has_tool, indented, one_route, with_plugins, with_route_fields};
use gateward_testkit::{Backend, Gateway, GatewayBuilder, RawClient, eventually, http};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

/// A gateway in the clear at address 0 and with TLS at address 1.
fn with_tls(config: &str) -> GatewayBuilder {
    Gateway::builder(config).proxy_listen("127.0.0.1:0, 127.0.0.1:0 http2 ssl")
}

fn certificates(config: &str, entities: &[String]) -> String {
    format!("{config}certificates:\n{}", entities.concat())
}

/// A client's view: which authority it trusts, which name it asks for.
struct Client<'a> {
    gateway: &'a Gateway,
    authority: std::path::PathBuf,
}

impl<'a> Client<'a> {
    fn new(gateway: &'a Gateway, authority: &Authority) -> Self {
        let path = gateway.dir().join("authority.pem");
        std::fs::write(&path, authority.pem()).expect("files can be written");
        Self { gateway, authority: path }
    }

    /// curl's exit status and what it printed for `https://name/path`.
    fn get(&self, name: &str, path: &str, args: &[&str]) -> (Option<i32>, String) {
        let address = self.gateway.proxy_at(1);
        let resolve = format!("{name}:{}:127.0.0.1", address.port());
        let url = format!("https://{name}:{}{path}", address.port());
        let authority = self.authority.display().to_string();
        let output = curl(&[&["--cacert", &authority, "--resolve", &resolve], args, &[&url]].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// What `openssl s_client` prints.
fn s_client(gateway: &Gateway, args: &[&str]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &gateway.proxy_at(1).to_string()])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let input = child.stdin.as_mut().expect("it has an input");
    // It may have ended over a refused handshake.
    let _ = input.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let output = child.wait_with_output().expect("openssl ends");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_server_name_chooses_the_certificate() {
    if !has_tool("curl") {
        return;
    }
    let (authority, backend) = (Authority::new(), Backend::echo());
    let config = certificates(
        &one_route(&backend.url()),
        &[
            authority.issue("www.a.test").entity(&["www.a.test"]),
            authority.issue("*.a.test").entity(&["*.a.test"]),
            authority.issue("b.other").entity(&["b.*"]),
        ],
    );
    let gateway = with_tls(&config).start();
    let client = Client::new(&gateway, &authority);
    for (name, args) in [
        ("www.a.test", vec![]),
        ("api.a.test", vec!["--tlsv1.3"]),
        ("b.other", vec!["--tls-max", "1.2"]),
        ("www.a.test", vec!["--http2"]),
    ] {
        let (status, text) = client.get(name, "/x?y=1", &args);
        assert_eq!(status, Some(0), "{name}: {text}");
        let echo: serde_json::Value = serde_json::from_str(&text).expect("an echo");
        let field = |wanted: &str| {
            let fields = echo["headers"].as_array().expect("fields");
            let found = fields.iter().find(|field| field[0].as_str().is_some_and(|it| it.eq_ignore_ascii_case(wanted)));
            found.and_then(|field| field[1].as_str()).unwrap_or_default().to_owned()
        };
        assert_eq!(field("x-forwarded-proto"), "https");
        assert_eq!(field("x-forwarded-port"), gateway.proxy_at(1).port().to_string());
    }
    // Anything else is shown the self-signed default, which the authority did not sign (curl: 60).
    assert_eq!(client.get("c.test", "/", &[]).0, Some(60));
    assert_eq!(client.get("localhost", "/", &["-k"]).0, Some(0));
    // In the clear it is http, and HTTP in the clear on the TLS port is told so.
    assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 200);
    let told = http(gateway.proxy_at(1), "GET /", &[], b"");
    assert!(told.status == 400 && told.text().contains("HTTPS port"), "{}", told.text());
    let metrics = Metrics::scrape(&gateway);
    assert_eq!(metrics.sum("gateward_tls_handshakes_total", &[]), 5.0, "{}", metrics.text());
    for reason in ["tls_not_tls", "tls_refused_by_peer"] {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(metrics.sum("gateward_refusals_total", &[&label]), 1.0, "{reason}: {}", metrics.text());
    }
    gateway.stop();
}

#[test]
fn http2_is_offered_where_the_listener_says_so() {
    if !has_tool("curl") {
        return;
    }
    let (authority, backend) = (Authority::new(), Backend::echo());
    let config = certificates(&one_route(&backend.url()), &[authority.issue("a.test").entity(&["a.test"])]);
    for (listen, version) in [("127.0.0.1:0, 127.0.0.1:0 http2 ssl", "2"), ("127.0.0.1:0, 127.0.0.1:0 ssl", "1.1")] {
        let gateway = Gateway::builder(&config).proxy_listen(listen).start();
        let client = Client::new(&gateway, &authority);
        let upload = gateway.dir().join("upload.bin");
        std::fs::write(&upload, vec![b'u'; 2_000_000]).expect("files can be written");
        let from_file = format!("@{}", upload.display());
        let (status, text) =
            client.get("a.test", "/", &["--http2", "--data-binary", &from_file, "-w", "\n%{http_version}"]);
        let (body, spoken) = text.rsplit_once('\n').expect("a body and a version");
        let echo: serde_json::Value = serde_json::from_str(body).expect("an echo");
        assert_eq!((status, spoken, echo["body"].as_str().map(str::len)), (Some(0), version, Some(2_000_000)));
        gateway.stop();
    }
}

#[test]
fn large_bodies_pass_both_ways() {
    if !has_tool("curl") {
        return;
    }
    let (authority, backend) = (Authority::new(), Backend::echo());
    let config = certificates(&one_route(&backend.url()), &[authority.issue("a.test").entity(&["a.test"])]);
    let gateway = with_tls(&config).start();
    let client = Client::new(&gateway, &authority);
    let upload = gateway.dir().join("upload.bin");
    std::fs::write(&upload, vec![b'u'; 5_000_000]).expect("files can be written");
    let from_file = format!("@{}", upload.display());
    for args in
        [vec!["--data-binary", &from_file], vec!["-H", "Transfer-Encoding: chunked", "--data-binary", &from_file]]
    {
        let (status, text) = client.get("a.test", "/", &args);
        let echo: serde_json::Value = serde_json::from_str(&text).expect("an echo");
        assert_eq!((status, echo["body"].as_str().map(str::len)), (Some(0), Some(5_000_000)));
    }
    gateway.stop();
}

#[test]
fn openssl_gets_the_key_it_can_verify_and_resumes() {
    if !has_tool("openssl") {
        return;
    }
    let (authority, backend) = (Authority::new(), Backend::echo());
    let pair = authority.issue_rsa("a.test").entity_with(&authority.issue("a.test"), &["a.test"]);
    let gateway = with_tls(&certificates(&one_route(&backend.url()), &[pair])).start();
    for (args, expected) in [
        (vec!["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"], "Peer signature type: RSA-PSS"),
        (vec!["-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256"], "Peer signature type: ECDSA"),
        (vec!["-tls1_3"], "Peer signature type: ECDSA"),
        (vec!["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "Cipher is ECDHE-RSA-AES128-GCM-SHA256"),
        (vec!["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256"),
        (vec!["-tls1_2", "-reconnect"], "Reused, TLSv1.2"),
        (vec!["-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
    ] {
        let output = s_client(&gateway, &[&["-servername", "a.test"], args.as_slice()].concat());
        assert!(output.contains(expected), "{args:?}: {output}");
    }
    // TLS 1.3: the ticket of one connection is shown on another.
    let session = gateway.dir().join("session").display().to_string();
    let first = s_client(&gateway, &["-servername", "a.test", "-tls1_3", "-sess_out", &session, "-ign_eof"]);
    assert!(first.contains("HTTP/1.1 200"), "{first}");
    let second = s_client(&gateway, &["-servername", "a.test", "-tls1_3", "-sess_in", &session, "-ign_eof"]);
    assert!(second.contains("Reused, TLSv1.3") && second.contains("HTTP/1.1 200"), "{second}");
    assert!(Metrics::scrape(&gateway).sum("gateward_tls_resumptions_total", &[]) >= 2.0);
    gateway.stop();
}

#[test]
fn routes_can_be_for_https_and_for_server_names() {
    if !has_tool("curl") {
        return;
    }
    let (authority, backend) = (Authority::new(), Backend::echo());
    for (status, expected) in [(426, 426), (301, 301)] {
        let fields = format!("protocols: [https], https_redirect_status_code: {status}");
        let config = with_route_fields(&backend.url(), &fields);
        let gateway = with_tls(&certificates(&config, &[authority.issue("*.a.test").entity(&["*.a.test"])])).start();
        let plain = http(gateway.proxy(), "GET /x?y", &[("Host", "www.a.test")], b"");
        assert_eq!(plain.status, expected);
        assert_eq!(plain.header("location"), (status == 301).then_some("https://www.a.test/x?y"));
        assert_eq!(Client::new(&gateway, &authority).get("www.a.test", "/", &["-f"]).0, Some(0));
        gateway.stop();
    }
    let config = with_route_fields(&backend.url(), "snis: [www.a.test]");
    let gateway = with_tls(&certificates(&config, &[authority.issue("*.a.test").entity(&["*.a.test"])])).start();
    let client = Client::new(&gateway, &authority);
    let code = |name: &str| client.get(name, "/", &["-o", "/dev/null", "-w", "%{http_code}"]).1;
    assert_eq!((code("www.a.test").as_str(), code("api.a.test").as_str()), ("200", "404"));
    gateway.stop();
}

#[test]
fn clients_are_asked_for_certificates() {
    if !has_tool("curl") {
        return;
    }
    let (authority, stranger, backend) = (Authority::new(), Authority::new(), Backend::echo());
    let config = certificates(&one_route(&backend.url()), &[authority.issue("a.test").entity(&["a.test"])]);
    for (mode, without) in [("request", Some(0)), ("require", None)] {
        let ca = std::env::temp_dir().join(format!("gateward-client-ca-{mode}-{}.pem", std::process::id()));
        std::fs::write(&ca, authority.pem()).expect("files can be written");
        let gateway = with_tls(&config)
            .env("GATEWARD_TLS_CLIENT_VERIFY", mode)
            .env("GATEWARD_TLS_CLIENT_CA", ca.display().to_string())
            .env("GATEWARD_ACCESS_LOG", "stdout")
            .start();
        let client = Client::new(&gateway, &authority);
        let show = |issued: gateward_e2e::Issued, args: &[&str]| {
            let (cert, key) = issued.write(gateway.dir(), "client");
            let (cert, key) = (cert.display().to_string(), key.display().to_string());
            client.get("a.test", "/", &[&["-f", "--cert", &cert, "--key", &key], args].concat()).0
        };
        assert_eq!(show(authority.issue("ann"), &[]), Some(0), "{mode}");
        assert_eq!(show(authority.issue("ann"), &["--http2"]), Some(0), "{mode}");
        assert_eq!(show(authority.issue_rsa("ann"), &["--tls-max", "1.2"]), Some(0), "{mode}");
        assert_ne!(show(stranger.issue("ann"), &[]), Some(0), "{mode}");
        assert_ne!(show(authority.issue_for_years("ann", 2001..2002), &[]), Some(0), "{mode}: expired");
        let got = client.get("a.test", "/", &["-f"]).0;
        assert!(if without.is_some() { got == without } else { got != Some(0) }, "{mode}: {got:?}");
        let logged = || gateway.log().iter().any(|line| line.contains("\"client_subject\":\"CN=ann\""));
        eventually(PATIENCE, logged);
        let line = gateway.log().into_iter().find(|line| line.contains("client_subject")).unwrap_or_default();
        assert!(line.contains("\"version\":\"TLSv1.3\"") && line.contains("\"client_verify\":\"SUCCESS\""), "{line}");
        let metrics = Metrics::scrape(&gateway);
        assert_eq!(metrics.sum("gateward_refusals_total", &["reason=\"tls_bad_certificate\""]), 2.0);
        let refused = metrics.sum("gateward_refusals_total", &["reason=\"tls_no_certificate\""]);
        assert_eq!(refused, f64::from(u8::from(mode == "require")));
        gateway.stop();
        std::fs::remove_file(ca).expect("files can be removed");
    }
}

#[test]
fn certificates_change_under_load_without_a_failed_request() {
    if !has_tool("curl") {
        return;
    }
    let (authority, backend) = (Authority::new(), Backend::echo());
    let config = || certificates(&one_route(&backend.url()), &[authority.issue("a.test").entity(&["a.test"])]);
    let gateway = with_tls(&config()).start();
    let client = Client::new(&gateway, &authority);
    let stop = AtomicBool::new(false);
    let requests = std::thread::scope(|scope| {
        // New connections all the time, and connections that live through the changes.
        let load: Vec<_> = ["/", "/[1-300]"]
            .into_iter()
            .cycle()
            .take(4)
            .map(|path| {
                let (client, stop) = (&client, &stop);
                scope.spawn(move || {
                    let mut rounds = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let (status, text) =
                            client.get("a.test", path, &["-f", "-o", "/dev/null", "-w", "%{http_code} "]);
                        assert_eq!(status, Some(0), "{text}");
                        assert!(text.split_whitespace().all(|code| code == "200"), "{text}");
                        rounds += text.split_whitespace().count();
                    }
                    rounds
                })
            })
            .collect();
        for generation in 1..=5 {
            gateway.write_config(&config());
            let changed = || {
                Metrics::scrape(&gateway).sum("gateward_config_reloads_total", &["result=\"ok\""])
                    > f64::from(generation)
            };
            eventually(PATIENCE, changed);
        }
        stop.store(true, Ordering::Relaxed);
        load.into_iter().map(|thread| thread.join().expect("no request failed")).sum::<usize>()
    });
    assert!(requests > 0);
    gateway.stop();
}

#[test]
fn a_certificate_that_cannot_be_used_is_named_and_the_old_one_stays() {
    if !has_tool("curl") {
        return;
    }
    let (authority, backend) = (Authority::new(), Backend::echo());
    let route = one_route(&backend.url());
    let gateway = with_tls(&certificates(&route, &[authority.issue("a.test").entity(&["a.test"])])).start();
    let client = Client::new(&gateway, &authority);
    let (one, other) = (authority.issue("a.test"), authority.issue("a.test"));
    let cut = |pem: &str| pem.lines().take(3).map(|line| format!("{line}\n")).collect::<String>();
    let garbled = |pem: &str| pem.replace("MI", "NI");
    for (number, (cert, key, problem)) in [
        (one.cert.clone(), other.key, "key: does not belong to the certificate"),
        (garbled(&one.cert), one.key.clone(), "cert: "),
        (cut(&one.cert), one.key.clone(), "cert"),
        (one.cert.clone(), cut(&one.key), "key"),
        (one.cert.clone(), garbled(&one.key), "key: "),
        ("nothing\n".to_owned(), one.key.clone(), "cert"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("5f2ab1e0-7a35-4a52-9c7c-1f4a3a0a9d0{number}");
        let wrong = certificates(
            &route,
            &[format!(
                "- id: {id}\n  cert: |\n{}  key: |\n{}  snis: [{{name: a.test}}]\n",
                indented(&cert),
                indented(&key)
            )],
        );
        gateway.write_config(&wrong);
        let failed = || Metrics::scrape(&gateway).sum("gateward_config_reloads_total", &["result=\"failed\""]);
        eventually(PATIENCE, || failed() > number as f64);
        let first = wrong.lines().position(|line| line.contains(&id)).unwrap_or_default() + 1;
        let refused = || gateway.log().into_iter().filter(|line| line.contains("configuration refused")).skip(number);
        // The log comes through a pipe of its own.
        eventually(PATIENCE, || refused().next().is_some());
        let lines: Vec<_> = refused().collect();
        let [line] = lines.as_slice() else { panic!("one problem each: {lines:#?}") };
        // At the entity, or at the field of it.
        let place = (first..wrong.lines().count()).any(|place| line.contains(&format!("kong.yml:{place}:")));
        assert!(place && line.contains("certificates[0]") && line.contains(problem), "{problem}: {line}");
        assert_eq!(client.get("a.test", "/", &["-f"]).0, Some(0), "the old one is still shown");
        let check = gateward_testkit::gateward_command()
            .args(["check", "--format", "json", &gateway.config_path().display().to_string()])
            .output()
            .expect("the gateway runs");
        let text = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(!check.status.success() && text.contains(&id), "it names the entity: {text}");
        let status = http(gateway.status(), "GET /status", &[], b"").text();
        for told in [&text, line, &status] {
            assert!(!told.contains("PRIVATE KEY") && key.lines().skip(1).all(|part| !told.contains(part)), "{told}");
        }
    }
    drop(gateway);
}

/// Clients decide about the time; the gateway serves what it is told to, and says so.
#[test]
fn a_certificate_out_of_its_time_is_shown_with_a_warning() {
    if !has_tool("curl") {
        return;
    }
    let (authority, backend) = (Authority::new(), Backend::echo());
    let entity = |years, name| authority.issue_for_years(name, years).entity(&[name]);
    let config = certificates(
        &one_route(&backend.url()),
        &[
            entity(2001..2002, "old.test"),
            entity(4000..4001, "new.test"),
            authority.issue("good.test").entity(&["good.test"]),
        ],
    );
    let gateway = with_tls(&config).start();
    let client = Client::new(&gateway, &authority);
    for name in ["old.test", "new.test"] {
        assert_eq!(client.get(name, "/", &["-f"]).0, Some(60), "{name}: curl looks at the time");
        assert_eq!(client.get(name, "/", &["-f", "-k"]).0, Some(0), "{name} is served");
    }
    assert_eq!(client.get("good.test", "/", &["-f"]).0, Some(0));
    let warnings = |log: &[String]| -> Vec<String> {
        let about = |line: &&String| line.contains("clients refuse it") && line.contains("certificates[");
        log.iter().filter(about).cloned().collect()
    };
    eventually(PATIENCE, || warnings(&gateway.log()).len() >= 2);
    let warned = warnings(&gateway.log());
    let [old, new] = warned.as_slice() else { panic!("{warned:#?}") };
    assert!(old.contains("certificates[0]") && old.contains("expired on Jan  1 00:00:00 2002"), "{old}");
    assert!(new.contains("certificates[1]") && new.contains("is not valid before Jan  1 00:00:00 4000"), "{new}");
    let path = gateway.config_path().display().to_string();
    let check = gateward_testkit::gateward_command().args(["check", &path]).output().expect("the gateway runs");
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success() && text.matches("warning: certificate").count() == 2, "{text}");
    gateway.stop();
}

#[test]
fn handshakes_are_bounded_in_time_and_number() {
    let backend = Backend::echo();
    let gateway = with_tls(&one_route(&backend.url()))
        .workers(1)
        .env("GATEWARD_TLS_HANDSHAKE_TIMEOUT", "2")
        .env("GATEWARD_MAX_TLS_HANDSHAKES", "2")
        .start();
    let began = Instant::now();
    let mut silent: Vec<_> = (0..2).map(|_| RawClient::connect(gateway.proxy_at(1))).collect();
    let refused =
        |reason: &str| Metrics::scrape(&gateway).sum("gateward_refusals_total", &[&format!("reason=\"{reason}\"")]);
    eventually(PATIENCE, || Metrics::scrape(&gateway).sum("gateward_connections_active", &[]) >= 2.0);
    RawClient::connect(gateway.proxy_at(1)).expect_closed();
    eventually(PATIENCE, || refused("tls_too_many_handshakes") >= 1.0);
    silent.iter_mut().for_each(RawClient::expect_closed);
    assert!(began.elapsed() >= Duration::from_secs(2));
    eventually(PATIENCE, || refused("tls_timeout") >= 2.0);
    gateway.stop();
}

#[test]
fn the_nodes_own_interfaces_speak_tls_when_told() {
    if !has_tool("curl") {
        return;
    }
    let gateway = Gateway::builder(&one_route("http://127.0.0.1:1"))
        .admin_listen("127.0.0.1:0 ssl")
        .status_listen("127.0.0.1:0 ssl")
        .start();
    for url in [format!("https://{}/services", gateway.admin()), format!("https://{}/status", gateway.status())] {
        let output = curl(&["-k", "-f", &url]);
        assert!(output.status.success(), "{url}: {output:?}");
    }
    gateway.stop();
}

#[test]
fn the_default_certificate_can_come_from_files() {
    if !has_tool("curl") {
        return;
    }
    let (authority, backend) = (Authority::new(), Backend::echo());
    let dir = std::env::temp_dir();
    let (cert, key) = authority.issue("any.test").write(&dir, &format!("gateward-default-{}", std::process::id()));
    let limited = "{name: ip-restriction, config: {allow: [127.0.0.1]}}";
    let gateway = with_tls(&with_plugins(&one_route(&backend.url()), &[limited]))
        .env("KONG_SSL_CERT", cert.display().to_string())
        .env("KONG_SSL_CERT_KEY", key.display().to_string())
        .env("KONG_SSL_PROTOCOLS", "TLSv1.3")
        .start();
    let client = Client::new(&gateway, &authority);
    assert_eq!(client.get("any.test", "/", &["-f"]).0, Some(0));
    assert_eq!(client.get("any.test", "/", &["-f", "--tls-max", "1.2"]).0, Some(35), "TLS 1.2 is switched off");
    gateway.stop();
    for file in [cert, key] {
        std::fs::remove_file(file).expect("files can be removed");
    }
}
