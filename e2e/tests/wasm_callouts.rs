//! Callouts of a Wasm filter (`e2e/filters/caller`, written with the Rust SDK) over HTTP and gRPC, through the gateway's own
//! services and upstreams.

use gateward_e2e::grpc::GrpcServer;
use gateward_e2e::{Authority, Metrics, indented};
use gateward_testkit::{Backend, DnsServer, Gateway, GatewayBuilder, Next, RawResponse, TempDir, eventually, http};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// The compiled filter.
fn caller() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e is in the workspace");
        let target = root.join("target/filters");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--release", "--locked", "--target", "wasm32-wasip1", "--manifest-path"]);
        build.arg(root.join("e2e/filters/caller/Cargo.toml")).arg("--target-dir").arg(&target);
        for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
            build.env_remove(variable);
        }
        let built = build.output().expect("cargo runs");
        let errors = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "rustup target add wasm32-wasip1, if it is missing:\n{errors}");
        target.join("wasm32-wasip1/release/caller.wasm")
    })
}

/// A gateway whose route `/` has the filter, which calls `callee`; `entities` are the services and the rest.
struct Setup {
    _folder: TempDir,
    builder: GatewayBuilder,
}

fn setup(callee: &str, settings: &str, services: &str, entities: &str) -> Setup {
    let folder = TempDir::new().expect("a folder can be made");
    std::fs::copy(caller(), folder.path().join("caller.wasm")).expect("filters can be copied");
    let meta = format!("{{\"gateward\": {{{settings}}}}}");
    std::fs::write(folder.path().join("caller.meta.json"), meta).expect("settings can be written");
    let config = format!(
        "_format_version: '3.0'\nservices:\n- name: own\n  url: http://127.0.0.1:9\n  retries: 0\n  connect_timeout: 500\n  routes:\n  - {{name: filtered, paths: [/]}}\n{services}\
         filter_chains:\n- {{name: chain, route: filtered, filters: [{{name: caller, config: {}}}]}}\n{entities}",
        serde_json::to_string(callee).expect("a text")
    );
    let builder = Gateway::builder(&config)
        .arg("--wasm=on")
        .arg(format!("--wasm-filters-path={}", folder.path().display()))
        .workers(1);
    Setup { _folder: folder, builder }
}

fn service(name: &str, url: &str, fields: &str) -> String {
    format!("- {{name: {name}, url: '{url}'{fields}}}\n")
}

fn get(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> RawResponse {
    http(gateway.proxy(), &format!("GET {path}"), headers, b"")
}

/// Events and messages that the filter noted.
#[track_caller]
fn noted(response: &RawResponse) -> (String, String) {
    assert_eq!(response.status, 200, "{}", response.text());
    (response.header("x-events").unwrap_or_default().to_owned(), response.text())
}

fn callouts(gateway: &Gateway, protocol: &str, outcome: &str) -> f64 {
    let labels = [format!("protocol=\"{protocol}\""), format!("outcome=\"{outcome}\"")];
    Metrics::scrape(gateway).sum("gateward_wasm_callouts_total", &[&labels[0], &labels[1]])
}

fn under_way(gateway: &Gateway) -> f64 {
    Metrics::scrape(gateway).sum("gateward_wasm_callouts_under_way", &["filter=\"caller\""])
}

#[test]
fn targets_are_chosen_by_health_and_weight() {
    let backends = [
        Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
        Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb"),
    ];
    let [first, second] = backends.each_ref().map(|backend| backend.addr().to_string());
    let upstreams = format!(
        "upstreams:\n- {{name: pool, targets: [{{target: '{first}', weight: 30}}, {{target: '{second}', weight: 10}}]}}\n"
    );
    for callee in ["pool", "named"] {
        let services = service("named", "http://pool", "");
        let Setup { builder, _folder } = setup(callee, "", &services, &upstreams);
        let gateway = builder.start();
        let share = || {
            let answers: Vec<_> = (0..40).map(|_| noted(&get(&gateway, "/http/x", &[]))).collect();
            assert!(answers.iter().all(|(events, _)| events == "status:200"), "{answers:?}");
            answers.iter().filter(|(_, body)| body == "a").count()
        };
        assert_eq!(share(), 30, "{callee}");
        let health = |target: &str, state: &str| {
            let answer = http(gateway.admin(), &format!("PUT /upstreams/pool/targets/{target}/{state}"), &[], b"");
            assert_eq!(answer.status, 204, "{}", answer.text());
        };
        health(&first, "unhealthy");
        assert_eq!(share(), 0, "{callee}");
        health(&second, "unhealthy");
        let (events, text) = noted(&get(&gateway, "/http/x", &[]));
        assert_eq!(events, "status: failed:14");
        assert!(text.contains("no target of 'pool' can be asked"), "{text}");
        health(&first, "healthy");
        assert_eq!(share(), 40, "{callee}");
        assert_eq!((callouts(&gateway, "http", "answered"), callouts(&gateway, "http", "failed")), (120.0, 1.0));
        let connections: usize = backends.iter().map(Backend::connections).sum();
        assert!(connections <= 8, "connections are used again: {connections}");
        gateway.stop();
    }
}

#[test]
fn a_target_that_cannot_be_connected_to_is_passed_over_and_found_out() {
    let alive = Backend::echo();
    let upstreams = format!(
        "upstreams:\n- name: pool\n  targets: [{{target: '{}'}}, {{target: '127.0.0.1:1'}}]\n  healthchecks: {{passive: {{unhealthy: {{tcp_failures: 2}}}}}}\n",
        alive.addr()
    );
    let Setup { builder, _folder } = setup("pool", "", "", &upstreams);
    let gateway = builder.start();
    for _ in 0..10 {
        assert_eq!(noted(&get(&gateway, "/http/x", &[])).0, "status:200");
    }
    gateway.expect_log("target is unhealthy");
    assert_eq!(callouts(&gateway, "http", "answered"), 10.0);
    gateway.stop();
}

#[test]
fn names_and_srv_records_lead_where_they_lead_requests() {
    let (dns, backends) = (DnsServer::start(), [Backend::echo(), Backend::echo()]);
    let port = |index: usize| backends[index].addr().port();
    dns.services("_http._tcp.svc.test", 60, &[(1, 30, port(0), "one.test"), (1, 10, port(1), "one.test")]);
    dns.addresses("one.test", 60, &["127.0.0.1"]);
    let services = service("by-host", "http://_http._tcp.svc.test", "") + &service("lost", "http://nowhere.test", "");
    let upstreams = "upstreams:\n- {name: pool, targets: [{target: '_http._tcp.svc.test:1'}]}\n";
    let hosts = format!("\"hosts\": [\"one.test:{}\"]", port(0));
    let mut before = [0, 0];
    for (callee, expected) in [("by-host", [30, 10]), ("pool", [30, 10]), (&format!("one.test:{}", port(0)), [40, 0])] {
        let Setup { builder, _folder } = setup(callee, &hosts, &services, upstreams);
        let gateway = builder.arg("--dns-resolver").arg(dns.addr().to_string()).start();
        for _ in 0..40 {
            assert_eq!(noted(&get(&gateway, "/http/x", &[])).0, "status:200", "{callee}");
        }
        let now = backends.each_ref().map(Backend::request_count);
        assert_eq!([now[0] - before[0], now[1] - before[1]], expected, "{callee}");
        before = now;
        gateway.stop();
    }
    let Setup { builder, _folder } = setup("lost", "", &services, upstreams);
    let gateway = builder.arg("--dns-resolver").arg(dns.addr().to_string()).start();
    let (events, text) = noted(&get(&gateway, "/http/x", &[]));
    assert_eq!((events.as_str(), text.as_str()), ("status: failed:14", "name resolution failed for 'nowhere.test'|"));
    gateway.stop();
}

#[test]
fn content_and_trailers_go_both_ways() {
    let backend = Backend::scripted(|request, stream| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let said = format!("{} {} {}", request.method, request.target, body);
        let answer = format!(
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nTrailer: x-trailer\r\n\r\n{:x}\r\n{said}\r\n0\r\nx-trailer: end\r\n\r\n",
            said.len()
        );
        let _ = stream.write_all(answer.as_bytes());
        Next::KeepAlive
    });
    let Setup { builder, _folder } = setup("callee", "", &service("callee", &backend.url(), ""), "");
    let gateway = builder.start();
    let (events, body) = noted(&get(&gateway, "/http/a?b=c", &[("X-Body", "sent"), ("X-Key", "k")]));
    assert_eq!((events.as_str(), body.as_str()), ("status:201 trailer:end", "POST /a?b=c sent"));
    let request = &backend.requests()[0];
    assert_eq!((request.header("host"), request.header("x-key")), (Some("asked.test"), Some("k")));
    assert_eq!(request.header("trailer"), Some("x-last"));
    gateway.stop();
}

#[test]
fn a_slow_callee_is_cut_at_the_timeout_and_a_long_answer_at_the_limit() {
    let backend = Backend::scripted(|request, stream| {
        if request.target == "/slow" {
            std::thread::park_timeout(Duration::from_secs(3));
        }
        let body = "x".repeat(2000);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        Next::KeepAlive
    });
    let settings = "\"callout_body_bytes\": 1000, \"callout_timeout_ms\": 500";
    let Setup { builder, _folder } = setup("callee", settings, &service("callee", &backend.url(), ""), "");
    let gateway = builder.start();
    for (asked, least) in [("200", 200), ("60000", 500)] {
        let began = Instant::now();
        let (events, text) = noted(&get(&gateway, "/http/slow", &[("X-Timeout", asked)]));
        assert_eq!(events, "status: failed:4");
        assert!(text.contains(&format!("no answer within {least} ms")), "{text}");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(least) && took < Duration::from_millis(2500), "{took:?}");
    }
    let (events, text) = noted(&get(&gateway, "/http/long", &[]));
    assert_eq!(events, "status: failed:14");
    assert!(text.contains("length limit exceeded"), "{text}");
    assert_eq!((callouts(&gateway, "http", "timed_out"), callouts(&gateway, "http", "failed")), (2.0, 1.0));
    gateway.stop();
}

#[test]
fn services_over_tls_are_spoken_to_as_they_say() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let shown = authority.issue("localhost");
    let own = authority.issue("gateway.test");
    let server = GrpcServer::start_tls("127.0.0.1:0", &shown, Some(authority.pem()));
    let (ca, client) = ("2a1f4c3e-52f4-4f0c-8c52-6c6f1b1b6a01", "2a1f4c3e-52f4-4f0c-8c52-6c6f1b1b6a02");
    let fields = format!(", tls_verify: true, ca_certificates: [{ca}], client_certificate: {client}");
    let entities = |authority: &Authority| {
        format!(
            "ca_certificates:\n- id: {ca}\n  cert: |\n{}certificates:\n- id: {client}\n  cert: |\n{}  key: |\n{}",
            indented(authority.pem()),
            indented(&own.cert),
            indented(&own.key)
        )
    };
    let url = format!("grpcs://localhost:{}", server.addr().port());
    for (trusted, fields, good) in
        [(&authority, fields.as_str(), true), (&stranger, fields.as_str(), false), (&authority, "", false)]
    {
        let Setup { builder, _folder } = setup("callee", "", &service("callee", &url, fields), &entities(trusted));
        let gateway = builder.start();
        let (events, text) = noted(&get(&gateway, "/unary/One", &[("X-Messages", "hello")]));
        assert_eq!((events == "ended:0", text == "hello"), (good, good), "{events} {text}");
        gateway.stop();
    }
}

#[test]
fn https_services_agree_on_a_protocol() {
    let authority = Authority::new();
    let shown = authority.issue("localhost");
    let server = GrpcServer::start_tls("127.0.0.1:0", &shown, None);
    let url = format!("https://localhost:{}", server.addr().port());
    let Setup { builder, _folder } = setup("callee", "", &service("callee", &url, ", http2: true"), "");
    let gateway = builder.start();
    for _ in 0..3 {
        // A gRPC server answers plain requests in HTTP/2, with a status of its own.
        let (events, _) = noted(&get(&gateway, "/http/nothing", &[]));
        assert_eq!(events, "status:200");
        assert_eq!(noted(&get(&gateway, "/unary/One", &[("X-Messages", "over https")])).1, "over https");
    }
    assert_eq!(server.connections(), 1);
    gateway.stop();
}

#[test]
fn unary_calls_bring_a_message_or_a_status() {
    let server = GrpcServer::start();
    let Setup { builder, _folder } = setup("callee", "", &service("callee", &server.url(), ""), "");
    let gateway = builder.start();
    let call = |method: &str, headers: &[(&str, &str)]| noted(&get(&gateway, &format!("/unary/{method}"), headers));
    assert_eq!(call("One", &[("X-Messages", "hello")]), ("ended:0".to_owned(), "hello".to_owned()));
    let (_, seen) = call("Seen", &[("X-Key", "k"), ("X-Timeout", "7000")]);
    for line in ["x-there: k\n", "te: trailers\n", "content-type: application/grpc\n", "grpc-timeout: 7000000u\n"] {
        assert!(seen.contains(line), "{line} in {seen}");
    }
    assert_eq!(call("Unheard", &[]), ("ended:12".to_owned(), "no such method".to_owned()));
    let (events, _) = call("Fail", &[]);
    assert!(events.starts_with("ended:") && events != "ended:0", "{events}");
    let began = Instant::now();
    let (events, text) = call("Hang", &[("X-Timeout", "300")]);
    assert_eq!(events, "ended:4", "{text}");
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(server.connections(), 1, "calls share a connection");
    assert_eq!((callouts(&gateway, "grpc", "answered"), callouts(&gateway, "grpc", "timed_out")), (2.0, 1.0));
    gateway.assert_no_errors();
    gateway.stop();
}

#[test]
fn envoys_message_names_a_callee_too() {
    let server = GrpcServer::start();
    let Setup { builder, _folder } =
        // envoy_grpc { cluster_name: "callee" authority: "asked.test" } initial_metadata { key: "X-There" value: "twice" }
        setup(
            "\n\u{14}\n\u{6}callee\u{12}\nasked.test*\u{10}\n\u{7}X-There\u{12}\u{5}twice",
            "",
            &service("callee", &server.url(), ""),
            "",
        );
    let gateway = builder.start();
    let (events, seen) = noted(&get(&gateway, "/unary/Seen", &[("X-Key", "k")]));
    assert_eq!(events, "ended:0", "{seen}");
    assert!(seen.contains("x-there: twice\n") && seen.contains("x-there: k\n"), "{seen}");
    gateway.stop();
}

#[test]
fn streams_carry_messages_and_metadata_both_ways() {
    let server = GrpcServer::start();
    let Setup { builder, _folder } = setup("callee", "", &service("callee", &server.url(), ""), "");
    let gateway = builder.start();
    let call =
        |method: &str, messages: &str| noted(&get(&gateway, &format!("/stream/{method}"), &[("X-Messages", messages)]));
    let whole = "initial:application/grpc trailing:0 closed:0";
    assert_eq!(call("Each", "a,bc,def"), (whole.to_owned(), "a|bc|def".to_owned()));
    let (events, body) = call("Many", "300");
    assert_eq!((events.as_str(), body.split('|').count()), (whole, 300));
    assert!(body.starts_with("message 0|message 1|") && body.ends_with("|message 299"), "in order");
    assert_eq!(call("Count", "a,bc,def"), (whole.to_owned(), "3 6".to_owned()));
    let (events, text) = call("Unheard", "x");
    assert_eq!((events.as_str(), text.as_str()), ("trailing:12 closed:12", "no such method"));
    eventually(PATIENCE, || under_way(&gateway) == 0.0);
    assert_eq!(callouts(&gateway, "grpc_stream", "answered"), 3.0);
    gateway.assert_no_errors();
    gateway.stop();
}

#[test]
fn a_stream_ends_with_its_request_and_one_of_the_instance_goes_on() {
    let (server, own) = (GrpcServer::start(), Backend::echo());
    let Setup { builder, _folder } = setup("callee,tick", "", &service("callee", &server.url(), ""), "");
    let gateway = builder.start();
    gateway.write_config(
        &std::fs::read_to_string(gateway.config_path()).expect("it is there").replace("http://127.0.0.1:9", &own.url()),
    );
    eventually(PATIENCE, || get(&gateway, "/leave/Each", &[("X-Messages", "a,b")]).status == 200);
    for _ in 0..5 {
        assert_eq!(get(&gateway, "/leave/Each", &[("X-Messages", "a,b")]).status, 200);
    }
    let came_back = || Metrics::scrape(&gateway).sum("gateward_wasm_filter_metric", &["name=\"came_back\""]);
    eventually(PATIENCE, || callouts(&gateway, "grpc_stream", "cancelled") >= 6.0 && under_way(&gateway) == 1.0);
    let before = came_back();
    eventually(PATIENCE, || came_back() > before + 3.0);
    assert_eq!(under_way(&gateway), 1.0);
    // So it does through a change of the configuration, whose new services can be called.
    let ended = callouts(&gateway, "grpc_stream", "cancelled");
    let config = std::fs::read_to_string(gateway.config_path()).expect("it is there");
    gateway.write_config(
        &config.replace("- {name: callee", "- {name: another, url: 'http://127.0.0.1:9'}\n- {name: callee"),
    );
    gateway.expect_log("\"generation\":3");
    let before = came_back();
    eventually(PATIENCE, || came_back() > before + 3.0);
    assert_eq!((callouts(&gateway, "grpc_stream", "cancelled"), under_way(&gateway)), (ended, 1.0));
    gateway.assert_no_errors();
    gateway.stop();
}

#[test]
fn a_callee_that_says_goodbye_costs_no_call() {
    let server = GrpcServer::start_leaving(Duration::from_millis(50));
    let Setup { builder, _folder } = setup("callee", "", &service("callee", &server.url(), ""), "");
    let gateway = builder.start();
    let began = Instant::now();
    while server.connections() < 20 {
        assert!(began.elapsed() < PATIENCE, "{} connections", server.connections());
        let (events, text) = noted(&get(&gateway, "/unary/One", &[("X-Messages", "hello")]));
        assert_eq!(events, "ended:0", "{text}");
    }
    // Likewise over HTTP/1.1, where connections are closed without a word.
    let backend = Backend::echo();
    let Setup { builder, _folder } = setup("callee", "", &service("callee", &backend.url(), ""), "");
    let gateway = builder.start();
    for _ in 0..50 {
        assert_eq!(noted(&get(&gateway, "/http/x", &[])).0, "status:200");
        backend.close_connections();
    }
    gateway.assert_no_errors();
    gateway.stop();
}

#[test]
fn a_callee_that_speaks_nonsense_fails_its_calls_and_nothing_else() {
    for said in [
        &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..],
        b"\0\0\0\x04\0\0\0\0\0\xff\xff\xff\xff",
        b"",
        b"SSH-2.0-x\r\n",
    ] {
        let backend = Backend::raw(move |_, mut stream| {
            let _ = stream.write_all(said);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        let grpc = format!("grpc://{}", backend.addr());
        for (url, path, expected) in [
            (&grpc, "/unary/One", "ended:14"),
            (&grpc, "/stream/Each", "closed:14"),
            (&grpc, "/http/x", "status: failed:14"),
        ] {
            let Setup { builder, _folder } = setup("callee", "", &service("callee", url, ""), "");
            let gateway = builder.start();
            let (events, text) = noted(&get(&gateway, path, &[("X-Messages", "a,b"), ("X-Timeout", "15000")]));
            assert_eq!(events, expected, "{text}");
            gateway.assert_no_errors();
            gateway.stop();
        }
    }
}

#[test]
fn an_unreachable_callee_fails_calls_with_a_reason() {
    let Setup { builder, _folder } = setup("callee", "", &service("callee", "grpc://127.0.0.1:1", ", retries: 0"), "");
    let gateway = builder.start();
    let (events, text) = noted(&get(&gateway, "/unary/One", &[]));
    assert_eq!(events, "ended:14");
    assert!(text.contains("127.0.0.1:1") && text.contains("refused"), "{text}");
    let (events, _) = noted(&get(&gateway, "/stream/Each", &[("X-Messages", "a,b")]));
    assert_eq!(events, "closed:14");
    gateway.stop();
    // Whoever is not known is refused at once: BAD_ARGUMENT over HTTP, PARSE_FAILURE over gRPC.
    let Setup { builder, _folder } = setup("stranger", "", "", "");
    let gateway = builder.start();
    assert_eq!(noted(&get(&gateway, "/http/x", &[])).0, "refused:2");
    assert_eq!(noted(&get(&gateway, "/unary/One", &[])).0, "refused:4");
    gateway.stop();
}

#[test]
fn a_storm_of_callouts_is_bounded_and_does_not_delay_others() {
    let backend = Backend::scripted(|_, stream| {
        std::thread::park_timeout(Duration::from_millis(1500));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        Next::KeepAlive
    });
    let settings = "\"callouts\": 300, \"callouts_per_request\": 100";
    let own = Backend::echo();
    let services = service("callee", &backend.url(), "")
        + &format!("- {{name: plain, url: '{}', routes: [{{name: plain, paths: [/plain]}}]}}\n", own.url());
    let Setup { builder, _folder } = setup("callee", settings, &services, "");
    let gateway = builder.start();
    let alone = noted(&get(&gateway, "/storm/1000", &[("X-Timeout", "300")]));
    assert_eq!(alone.0, "refused:900 failed:100");
    assert_eq!(callouts(&gateway, "http", "refused"), 900.0);
    let proxy = gateway.proxy();
    let storms: Vec<_> = (0..8)
        .map(|_| std::thread::spawn(move || noted(&http(proxy, "GET /storm/1000", &[("X-Timeout", "1000")], b"")).0))
        .collect();
    eventually(PATIENCE, || under_way(&gateway) == 300.0);
    // The only worker serves others meanwhile.
    let slowest = (0..50)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(get(&gateway, "/plain", &[]).status, 200);
            began.elapsed()
        })
        .max();
    assert!(slowest < Some(Duration::from_millis(500)), "{slowest:?}");
    let events: Vec<String> = storms.into_iter().map(|storm| storm.join().expect("it ends")).collect();
    let refused = |count| events.iter().filter(|events| events.starts_with(&format!("refused:{count} "))).count();
    assert!(refused(900) >= 3 && refused(1000) >= 1, "{events:?}");
    eventually(PATIENCE, || under_way(&gateway) == 0.0);
    gateway.assert_no_errors();
    gateway.stop();
}

#[test]
fn thousands_of_callouts_under_way_do_not_delay_others() {
    const EACH: usize = 500;
    const REQUESTS: usize = 6;
    // Takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    std::thread::spawn(move || silent.incoming().flatten().collect::<Vec<_>>());
    let settings = format!("\"callouts\": 4000, \"callouts_per_request\": {EACH}");
    let own = Backend::echo();
    let services = service("callee", &url, "")
        + &format!("- {{name: plain, url: '{}', routes: [{{name: plain, paths: [/plain]}}]}}\n", own.url());
    let Setup { builder, _folder } = setup("callee", &settings, &services, "");
    let gateway = builder.start();
    let proxy = gateway.proxy();
    let storms: Vec<_> = (0..REQUESTS)
        .map(|_| {
            let storm = format!("GET /storm/{EACH}");
            std::thread::spawn(move || noted(&http(proxy, &storm, &[("X-Timeout", "3500")], b"")).0)
        })
        .collect();
    eventually(PATIENCE, || under_way(&gateway) == (EACH * REQUESTS) as f64);
    let mut took: Vec<Duration> = (0..100)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(get(&gateway, "/plain", &[]).status, 200);
            began.elapsed()
        })
        .collect();
    took.sort();
    println!("median {:?}, slowest {:?} of 100 beside {} callouts", took[50], took[99], under_way(&gateway));
    assert!(took[50] < Duration::from_millis(50), "{took:?}");
    for storm in storms {
        assert_eq!(storm.join().expect("it ends"), format!("refused:0 failed:{EACH}"));
    }
    assert_eq!(callouts(&gateway, "http", "timed_out"), (EACH * REQUESTS) as f64);
    gateway.assert_no_errors();
    gateway.stop();
}

#[test]
fn callouts_of_requests_that_have_ended_are_given_up() {
    // Reads what is asked and says nothing, until the gateway hangs up.
    let backend = Backend::raw(|_, mut stream| while stream.read(&mut [0; 1024]).is_ok_and(|len| len > 0) {});
    let Setup { builder, _folder } = setup("callee", "", &service("callee", &backend.url(), ""), "");
    let gateway = builder.start();
    for _ in 0..20 {
        // Its own upstream does not answer either.
        assert_eq!(get(&gateway, "/go/x", &[]).status, 502);
    }
    eventually(PATIENCE, || callouts(&gateway, "http", "cancelled") == 20.0 && under_way(&gateway) == 0.0);
    eventually(PATIENCE, || backend.open_connections() == 0);
    gateway.stop();
}
