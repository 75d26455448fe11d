//! TCP streams: routes by addresses, what servers and clients may do, targets that fail, and who is told of it.

use gateward_e2e::Metrics;
use gateward_e2e::streams::{Client, PATIENCE, dead_port, named_echo, server};
use gateward_testkit::{Gateway, GatewayBuilder, eventually};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

/// Services `(name, port, further fields, route)`, all with tcp.
fn config(services: &[(&str, u16, &str, &str)]) -> String {
    let entries = services.iter().map(|(name, port, fields, route)| {
        format!(
            "- {{name: {name}, protocol: tcp, host: 127.0.0.1, port: {port}{fields}, routes: [{{name: {name}, {route}}}]}}\n"
        )
    });
    format!("_format_version: '3.0'\nservices:\n{}", entries.collect::<String>())
}

/// A route that takes everything.
const ALL: &str = "protocols: [tcp], sources: [{ip: 0.0.0.0/0}]";

/// With one listener for streams.
fn listening(config: &str) -> GatewayBuilder {
    Gateway::builder(config).stream_listen("127.0.0.1:0")
}

#[track_caller]
fn says(mut client: Client, name: &str) {
    assert_eq!(client.line().expect("the server speaks first"), name);
    assert_eq!(client.ask("ping").expect("it echoes"), "ping");
}

/// Sessions counted by what ended them.
fn ended(gateway: &Gateway, end: &str) -> f64 {
    Metrics::scrape(gateway).sum("gateward_stream_sessions_total", &[&format!("end=\"{end}\"")])
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    Metrics::scrape(gateway).sum("gateward_refusals_total", &[&format!("reason=\"{reason}\"")])
}

#[test]
fn routes_go_by_address_port_and_source() {
    let (a, b, c) = (named_echo("by-address"), named_echo("by-source"), named_echo("by-port"));
    let routes = |port: u16| {
        config(&[
            ("by-address", a, "", "protocols: [tcp], destinations: [{ip: 127.0.0.2}]"),
            ("by-source", b, "", "protocols: [tcp], sources: [{ip: 127.0.0.64/26}], destinations: [{ip: 127.0.0.0/8}]"),
            ("by-port", c, "", &format!("protocols: [tcp], destinations: [{{port: {port}}}]")),
        ])
    };
    // Passing through goes by names; that there are such routes must not make a server wait that speaks first.
    let passing = format!(
        "- {{name: pass, protocol: tcp, host: 127.0.0.1, port: {}, routes: [{{name: pass, protocols: [tls_passthrough], snis: [a.test]}}]}}\n",
        dead_port()
    );
    let gateway =
        Gateway::builder(&(routes(1) + &passing)).stream_listen("127.0.0.1:0, 127.0.0.2:0, 0.0.0.0:0").start();
    says(Client::connect(gateway.stream_at(1)), "by-address");
    says(Client::connect_from(Ipv4Addr::new(127, 0, 0, 65), gateway.stream_at(0)), "by-source");
    // On the listener of all addresses, the one that was meant counts.
    let everywhere = gateway.stream_at(2).port();
    says(Client::connect(([127, 0, 0, 2], everywhere).into()), "by-address");
    gateway.write_config(&(routes(gateway.stream_at(0).port()) + &passing));
    let port = gateway.stream_at(0);
    eventually(PATIENCE, || {
        let mut client = Client::connect(port);
        // Without a route a hello is waited for, which does not come.
        client.finish();
        client.line().is_ok_and(|line| line == "by-port")
    });
    assert!(ended(&gateway, "client") >= 3.0);
    gateway.stop();
}

#[test]
fn what_has_no_route_is_closed_and_counted() {
    let routes = [("s", named_echo("s"), "", "protocols: [tcp], sources: [{ip: 192.0.2.0/24}]")];
    let gateway = listening(&config(&routes)).start();
    for _ in 0..3 {
        Client::connect(gateway.stream_at(0)).expect_closed();
    }
    eventually(PATIENCE, || ended(&gateway, "no_route") == 3.0 && refused(&gateway, "stream_no_route") == 3.0);
    gateway.stop();
}

#[test]
fn a_route_without_a_listener_is_told_and_mixtures_are_refused() {
    let gateway = Gateway::start(&config(&[("s", 1, "", ALL)]));
    // The log comes through a pipe of its own.
    let told = |text: &str| gateway.log().iter().any(|line| line.contains(text));
    eventually(PATIENCE, || told("1 route(s) of streams cannot be reached"));
    gateway.stop();
    for (service, route) in [("http", ALL), ("tcp", "paths: [/]")] {
        let text = format!(
            "_format_version: '3.0'\nservices:\n- name: s\n  url: {service}://127.0.0.1:1\n  routes: [{{name: r, {route}}}]\n"
        );
        let error = listening(&text).try_start().unwrap_err().to_string();
        assert!(error.contains("kong.yml:5:12: services[0].routes[0]: `protocols`"), "{error}");
    }
}

#[test]
fn both_sides_may_send_all_they_have_and_end_by_themselves() {
    const BYTES: usize = 8 << 20;
    // Counts what it gets, and answers only after the client's end.
    let port = server(|mut stream| {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).is_ok() {
            let _ = stream.write_all(format!("{}\n", all.len()).as_bytes()).and_then(|()| stream.write_all(&all));
        }
    });
    let gateway = listening(&config(&[("s", port, "", ALL)])).start();
    let mut client = Client::connect(gateway.stream_at(0));
    let data: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8).collect();
    client.send(&data).expect("the gateway reads");
    client.finish();
    assert_eq!(client.line().expect("an answer"), BYTES.to_string());
    assert!(client.rest().expect("the rest") == data);
    eventually(PATIENCE, || {
        let metrics = Metrics::scrape(&gateway);
        let bytes = metrics.sum("gateward_stream_received_bytes_total", &[]);
        bytes == BYTES as f64 && metrics.sum("gateward_stream_sessions_active", &[]) == 0.0
    });
    // A server that ends first, after a client that has nothing to say.
    let port = server(|mut stream| drop(stream.write_all(b"bye\n")));
    let gateway = listening(&config(&[("s", port, "", ALL)])).start();
    let mut client = Client::connect(gateway.stream_at(0));
    assert_eq!(client.rest().expect("an end"), b"bye\n");
    drop(client);
    eventually(PATIENCE, || ended(&gateway, "upstream") == 1.0);
    gateway.stop();
}

#[test]
fn silence_ends_a_stream_and_a_reset_is_passed_on() {
    let gateway = listening(&config(&[("s", named_echo("s"), ", read_timeout: 300", ALL)])).start();
    let mut client = Client::connect(gateway.stream_at(0));
    assert_eq!(client.line().expect("a name"), "s");
    for _ in 0..3 {
        assert_eq!(client.ask("still here").expect("it echoes"), "still here");
    }
    client.expect_closed();
    eventually(PATIENCE, || ended(&gateway, "idle") == 1.0);
    gateway.stop();
    let port = server(|mut stream| {
        let _ = stream.write_all(b"half a mess").and_then(|()| stream.read_exact(&mut [0]));
        let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
    });
    let gateway = listening(&config(&[("s", port, "", ALL)])).start();
    let mut client = Client::connect(gateway.stream_at(0));
    client.send(b"x").expect("the gateway reads");
    let error = client.rest().expect_err("an orderly end would say that nothing is missing");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    eventually(PATIENCE, || ended(&gateway, "upstream_reset") == 1.0);
    gateway.stop();
}

/// An upstream `u` with these targets and further fields, reached by everything.
fn balanced(targets: &[u16], fields: &str, service: &str) -> String {
    let targets: Vec<String> = targets.iter().map(|port| format!("{{target: '127.0.0.1:{port}'}}")).collect();
    format!(
        "_format_version: '3.0'\nupstreams:\n- {{name: u{fields}, targets: [{}]}}\nservices:\n- {{name: s, protocol: tcp, host: u{service}, routes: [{{name: r, {ALL}}}]}}\n",
        targets.join(", ")
    )
}

fn name_of(addr: SocketAddr) -> String {
    Client::connect(addr).line().expect("a name")
}

#[test]
fn streams_are_balanced_and_failed_targets_left_out() {
    let (a, b) = (named_echo("a"), named_echo("b"));
    let health = ", healthchecks: {passive: {type: tcp, unhealthy: {tcp_failures: 2}}}";
    let gateway = listening(&balanced(&[a, dead_port(), b], health, "")).start();
    let mut names: Vec<String> = (0..40).map(|_| name_of(gateway.stream_at(0))).collect();
    names.sort();
    names.dedup();
    assert_eq!(names, ["a", "b"]);
    let metrics = Metrics::scrape(&gateway);
    let failures = metrics.sum("gateward_upstream_connect_failures_total", &[]);
    // Two on the node, and what was under way.
    assert!((2.0..=4.0).contains(&failures), "{failures}");
    assert_eq!(metrics.sum("gateward_target_health_transitions_total", &["to=\"unhealthy\""]), 1.0);
    gateway.stop();
}

#[test]
fn hashing_goes_by_the_client() {
    let gateway =
        listening(&balanced(&[named_echo("a"), named_echo("b"), named_echo("c")], ", hash_on: ip", "")).start();
    let from =
        |last: u8| Client::connect_from(Ipv4Addr::new(127, 0, 0, last), gateway.stream_at(0)).line().expect("a name");
    let names: Vec<String> = (10..30).map(from).collect();
    assert_eq!(names, (10..30).map(from).collect::<Vec<_>>());
    assert!(names.iter().any(|name| *name != names[0]));
    gateway.stop();
}

#[test]
fn what_no_target_serves_is_closed_and_counted() {
    let gateway = listening(&balanced(&[dead_port(), dead_port()], "", ", retries: 3")).start();
    Client::connect(gateway.stream_at(0)).expect_closed();
    eventually(PATIENCE, || ended(&gateway, "connect_failure") == 1.0);
    assert_eq!(Metrics::scrape(&gateway).sum("gateward_upstream_connect_failures_total", &[]), 4.0);
    eventually(PATIENCE, || gateway.log().iter().any(|line| line.contains("a stream could not be served")));
    gateway.stop();
    // No more streams than the circuit breaker allows.
    let limit = ", resilience: {circuit_breaker: {max_requests: 2}}";
    let gateway = listening(&balanced(&[named_echo("a")], limit, "")).start();
    let mut open: Vec<Client> = (0..2).map(|_| Client::connect(gateway.stream_at(0))).collect();
    for client in &mut open {
        assert_eq!(client.line().expect("a name"), "a");
    }
    Client::connect(gateway.stream_at(0)).expect_closed();
    eventually(PATIENCE, || refused(&gateway, "breaker_max_requests") == 1.0);
    drop(open);
    eventually(PATIENCE, || Client::connect(gateway.stream_at(0)).line().is_ok_and(|line| line == "a"));
    gateway.stop();
}

/// A header as AWS sends it: PROXY, TCP over IPv4, from 192.0.2.7:4321, the VPC endpoint's entry.
fn aws_header() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x16".to_vec();
    header.extend_from_slice(&[192, 0, 2, 7, 10, 0, 0, 9, 0x10, 0xE1, 0x01, 0xBB, 0xEA, 0, 7, 1]);
    header.extend_from_slice(b"vpce-1");
    header
}

#[test]
fn a_load_balancer_names_the_client_and_the_upstream_is_told() {
    // Says in hex what it got first.
    let port = server(|mut stream| {
        let mut header = [0; 16 + 22];
        if stream.read_exact(&mut header).is_ok() {
            let hex: String = header.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = stream.write_all(format!("{hex}\n").as_bytes());
        }
        let _ = stream.read(&mut [0; 64]);
    });
    let routes = [("s", port, ", proxy_protocol: v2", "protocols: [tcp], sources: [{ip: 192.0.2.7, port: 4321}]")];
    let deny = "plugins:\n- {name: ip-restriction, config: {deny: [198.51.100.0/24]}}\n";
    let builder = |trusted: &str| {
        let listener = Gateway::builder(&(config(&routes) + deny)).stream_listen("127.0.0.1:0 proxy_protocol");
        listener.env("KONG_TRUSTED_IPS", trusted).start()
    };
    let gateway = builder("127.0.0.0/8");
    let mut client = Client::connect(gateway.stream_at(0));
    client.send(&aws_header()).expect("the gateway reads");
    let sent: String = aws_header().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(client.line().expect("what the upstream got"), sent);
    // A probe of the balancer's own has no route here; what is no header is closed.
    let mut probe = Client::connect(gateway.stream_at(0));
    probe.send(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0").expect("the gateway reads");
    probe.expect_closed();
    let mut nobody = Client::connect(gateway.stream_at(0));
    nobody.send(b"hello\n").expect("the gateway reads");
    nobody.expect_closed();
    eventually(PATIENCE, || refused(&gateway, "proxy_protocol_missing") == 1.0);
    eventually(PATIENCE, || ended(&gateway, "no_route") == 1.0);
    drop(client);
    gateway.stop();
    // The same header of somebody who is not trusted.
    let gateway = builder("10.0.0.0/8");
    let mut client = Client::connect(gateway.stream_at(0));
    client.send(&aws_header()).expect("the gateway reads");
    client.expect_closed();
    eventually(PATIENCE, || ended(&gateway, "no_route") == 1.0);
    gateway.stop();
}

/// The lines of a log file, once there are `count`.
fn records(path: &std::path::Path, count: usize) -> Vec<Value> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    eventually(PATIENCE, || read().lines().count() >= count);
    read().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn plugins_close_count_and_log() {
    let folder = gateward_testkit::TempDir::new().expect("a folder can be made");
    let (plugin_log, access_log) = (folder.path().join("plugin.log"), folder.path().join("access.log"));
    let plugins = format!(
        "plugins:\n\
         - {{name: ip-restriction, config: {{deny: [127.0.0.9]}}}}\n\
         - {{name: prometheus, protocols: [tcp], config: {{status_code_metrics: true, bandwidth_metrics: true, latency_metrics: true}}}}\n\
         - {{name: file-log, protocols: [tcp], config: {{path: '{}'}}}}\n",
        plugin_log.display()
    );
    let gateway = listening(&(config(&[("s", named_echo("s"), "", ALL)]) + &plugins))
        .env("GATEWARD_ACCESS_LOG", access_log.display().to_string())
        .start();
    says(Client::connect(gateway.stream_at(0)), "s");
    records(&plugin_log, 1);
    Client::connect_from(Ipv4Addr::new(127, 0, 0, 9), gateway.stream_at(0)).expect_closed();
    for path in [&plugin_log, &access_log] {
        let lines = records(path, 2);
        let [served, denied] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((&served["session"]["status"], &served["end"]), (&200.into(), &"client".into()), "{served}");
        assert_eq!((&served["session"]["received"], &served["session"]["sent"]), (&5.into(), &7.into()), "{served}");
        assert_eq!((&served["service"]["name"], &served["route"]["name"]), (&"s".into(), &"s".into()));
        assert_eq!(served["tries"].as_array().map(Vec::len), Some(1));
        assert_eq!(served["session"]["server_port"], gateway.stream_at(0).port());
        assert_eq!((&denied["session"]["status"], &denied["end"]), (&403.into(), &"forbidden".into()), "{denied}");
        assert_eq!((&denied["client_ip"], denied["tries"].as_array().map(Vec::len)), (&"127.0.0.9".into(), Some(0)));
    }
    let metrics = Metrics::scrape(&gateway);
    for (code, source) in [("200", "service"), ("403", "kong")] {
        let (code, source) = (format!("code=\"{code}\""), format!("source=\"{source}\""));
        let sessions = metrics.sum("kong_stream_sessions_total", &[&code, &source, "service=\"s\""]);
        assert_eq!(sessions, 1.0, "{}", metrics.text());
    }
    assert_eq!(metrics.sum("kong_bandwidth_bytes", &["direction=\"egress\""]), 7.0);
    assert_eq!(metrics.sum("kong_session_duration_ms_count", &[]), 2.0);
    assert_eq!(metrics.sum("gateward_requests_total", &[]), 0.0);
    eventually(PATIENCE, || refused(&gateway, "stream_forbidden") == 1.0);
    gateway.stop();
}

#[test]
fn connections_are_limited_as_all_others() {
    let gateway =
        listening(&config(&[("s", named_echo("s"), "", ALL)])).env("GATEWARD_MAX_CONNECTIONS_PER_ADDRESS", "2").start();
    let mut open: Vec<Client> = (0..2).map(|_| Client::connect(gateway.stream_at(0))).collect();
    for client in &mut open {
        assert_eq!(client.line().expect("a name"), "s");
    }
    Client::connect(gateway.stream_at(0)).expect_closed();
    let refused = || Metrics::scrape(&gateway).sum("gateward_connections_refused_total", &[]);
    eventually(PATIENCE, || refused() == 1.0);
    drop(open);
    gateway.stop();
}

/// HTTP goes through a stream as anything does.
#[test]
fn the_bytes_are_untouched() {
    let backend = gateward_testkit::Backend::echo();
    let gateway = listening(&config(&[("s", backend.addr().port(), "", ALL)])).start();
    let mut client = Client::connect(gateway.stream_at(0));
    client.send(b"GET /x HTTP/1.1\r\nhOsT: a\r\nconnection: close\r\n\r\n").expect("the gateway reads");
    let answer = String::from_utf8(client.rest().expect("an answer")).expect("text");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("hOsT") && !answer.contains("X-Forwarded"),
        "{answer}"
    );
    drop(client);
    gateway.stop();
}
