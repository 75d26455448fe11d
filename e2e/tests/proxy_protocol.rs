//! PROXY protocol: what a load balancer says about its clients reaches plugins, logs, routes and upstreams, and nobody
//! else can say it.

use gateward_e2e::{Metrics, await_room_in_the_minute, echoed_header, one_route, with_plugins, with_service_fields};
use gateward_testkit::{Backend, Gateway, GatewayBuilder, RawClient, RawResponse, eventually, free_port};
use std::io::{Read, Write};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.9 4321 443\r\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// A header as AWS sends it: PROXY, TCP over IPv4, the VPC endpoint's entry.
fn v2(vpce_id: &str) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    let mut rest = vec![192, 0, 2, 7, 10, 0, 0, 9, 0x10, 0xE1, 0x01, 0xBB];
    rest.extend_from_slice(&[0xEA, 0, 1 + vpce_id.len() as u8, 1]);
    rest.extend_from_slice(vpce_id.as_bytes());
    header.extend_from_slice(&(rest.len() as u16).to_be_bytes());
    header.extend_from_slice(&rest);
    header
}

fn local() -> Vec<u8> {
    b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0".to_vec()
}

/// A gateway on a port of its own whose listener has `flag`, and which trusts the tests' address.
fn listening(config: &str, flag: &str) -> GatewayBuilder {
    Gateway::builder(config)
        .proxy_listen(format!("127.0.0.1:0 {flag}"))
        .env("KONG_REAL_IP_HEADER", "proxy_protocol")
        .env("KONG_TRUSTED_IPS", "127.0.0.0/8")
}

#[track_caller]
fn ask(gateway: &Gateway, parts: &[&[u8]]) -> RawResponse {
    let mut client = RawClient::connect(gateway.proxy());
    client.send(&parts.concat());
    client.read_final_response("GET")
}

/// The connection is closed without an answer.
#[track_caller]
fn expect_refused(gateway: &Gateway, bytes: &[u8]) {
    let mut client = RawClient::connect(gateway.proxy());
    let _ = client.try_send(bytes);
    assert_eq!(client.read_to_close(PATIENCE), b"", "{bytes:?}");
}

#[track_caller]
fn expect_count(gateway: &Gateway, mode: &str, outcome: &str, count: f64) {
    let labels = [format!("mode=\"{mode}\""), format!("outcome=\"{outcome}\"")];
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let of = |gateway| Metrics::scrape(gateway).sum("gateward_proxy_protocol_connections_total", &labels);
    eventually(PATIENCE, || of(gateway) == count);
}

#[test]
fn a_required_header_names_the_client() {
    let backend = Backend::echo();
    let gateway = listening(&one_route(&backend.url()), "proxy_protocol").start();
    for header in [V1.to_vec(), v2("vpce-1")] {
        let answer = ask(&gateway, &[&header, b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nproxy_protocol: 6.6.6.6\r\nConnection: close\r\n\r\n"]);
        assert_eq!(answer.status, 200);
        for (name, value) in
            [("X-Forwarded-For", "192.0.2.7"), ("X-Real-IP", "192.0.2.7"), ("X-Forwarded-Proto", "http")]
        {
            // The balancer adds no fields: what the client wrote there is not believed.
            assert_eq!(echoed_header(&answer, name).as_deref(), Some(value), "{name}");
        }
    }
    // The balancer's own probe; in IPv6; without addresses.
    for header in [&local()[..], b"PROXY UNKNOWN\r\n"] {
        let answer = ask(&gateway, &[header, REQUEST]);
        assert_eq!((answer.status, echoed_header(&answer, "X-Real-IP").as_deref()), (200, Some("127.0.0.1")));
    }
    let answer = ask(&gateway, &[b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n", REQUEST]);
    assert_eq!(echoed_header(&answer, "X-Real-IP").as_deref(), Some("2001:db8::7"));

    expect_refused(&gateway, REQUEST);
    expect_refused(&gateway, b"PROXY TCP4 192.0.2.7\r\n");
    expect_refused(&gateway, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xFF\xFF");
    // Only the first header is the balancer's.
    for second in [V1.to_vec(), v2("vpce-2"), local()] {
        assert_eq!(ask(&gateway, &[V1, &second, REQUEST]).status, 400);
    }
    drop(RawClient::connect(gateway.proxy()));
    for (outcome, count) in
        [("proxied", 6.0), ("local", 1.0), ("unknown", 1.0), ("missing", 1.0), ("malformed", 2.0), ("closed", 1.0)]
    {
        expect_count(&gateway, "require", outcome, count);
    }
    let metrics = Metrics::scrape(&gateway);
    let endpoint = metrics.sum("gateward_proxy_protocol_endpoint_connections_total", &["vpce_id=\"vpce-1\""]);
    assert_eq!(endpoint, 1.0, "{}", metrics.text());
    for reason in ["proxy_protocol_missing", "proxy_protocol_malformed"] {
        assert!(metrics.sum("gateward_refusals_total", &[&format!("reason=\"{reason}\"")]) >= 1.0, "{reason}");
    }
    gateway.stop();
}

#[test]
fn auto_serves_with_and_without() {
    let backend = Backend::echo();
    let gateway = listening(&one_route(&backend.url()), "proxy_protocol=auto").start();
    let from = |parts: &[&[u8]]| echoed_header(&ask(&gateway, parts), "X-Real-IP");
    assert_eq!(from(&[REQUEST]).as_deref(), Some("127.0.0.1"));
    assert_eq!(from(&[V1, REQUEST]).as_deref(), Some("192.0.2.7"));
    assert_eq!(from(&[&v2("vpce-1"), REQUEST]).as_deref(), Some("192.0.2.7"));
    assert_eq!(from(&[&local(), REQUEST]).as_deref(), Some("127.0.0.1"));
    // Byte by byte, a method that begins like a header, and the beginning of one that is then HTTP after all.
    for bytes in [
        [V1, REQUEST].concat(),
        REQUEST.to_vec(),
        b"PROPFIND / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec(),
    ] {
        let mut client = RawClient::connect(gateway.proxy());
        client.stream().set_nodelay(true).expect("a socket option");
        bytes.iter().for_each(|byte| client.send(&[*byte]));
        assert_eq!(client.read_final_response("GET").status, 200);
    }
    // A probe that only connects, and one that resets, break nothing.
    drop(RawClient::connect(gateway.proxy()));
    gateward_testkit::reset(RawClient::connect(gateway.proxy()).stream().try_clone().expect("a socket"));
    // TLS bytes get what any malformed request gets.
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"\x16\x03\x01\x00\x05hello\r\n\r\n");
    assert_eq!(client.read_final_response("GET").status, 400);
    assert_eq!(from(&[REQUEST]).as_deref(), Some("127.0.0.1"));
    expect_count(&gateway, "auto", "absent", 5.0);
    gateway.stop();
}

#[test]
fn nobody_is_believed_who_is_not_trusted() {
    let backend = Backend::echo();
    let gateway = listening(&one_route(&backend.url()), "proxy_protocol").env("KONG_TRUSTED_IPS", "10.0.0.0/8").start();
    let answer = ask(&gateway, &[&v2("vpce-1"), REQUEST]);
    assert_eq!((answer.status, echoed_header(&answer, "X-Real-IP").as_deref()), (200, Some("127.0.0.1")));
    expect_count(&gateway, "require", "untrusted", 1.0);
    assert!(!Metrics::scrape(&gateway).text().contains("vpce-1"));
    gateway.stop();

    // As in nginx, the address is taken from the header only where the operator says so.
    let gateway =
        listening(&one_route(&backend.url()), "proxy_protocol").env("KONG_REAL_IP_HEADER", "X-Real-IP").start();
    let answer = ask(&gateway, &[&v2("vpce-1"), REQUEST]);
    assert_eq!(echoed_header(&answer, "X-Real-IP").as_deref(), Some("127.0.0.1"));
    gateway.stop();
}

#[test]
fn a_listener_without_the_flag_expects_http() {
    let backend = Backend::echo();
    let gateway = listening(&one_route(&backend.url()), "").start();
    assert_eq!(ask(&gateway, &[V1, REQUEST]).status, 400);
    assert_eq!(ask(&gateway, &[REQUEST]).status, 200);
    gateway.stop();
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for_forever() {
    let backend = Backend::echo();
    let gateway =
        listening(&one_route(&backend.url()), "proxy_protocol").env("GATEWARD_CLIENT_HEADER_TIMEOUT", "300ms").start();
    for bytes in [&b""[..], b"PROXY TCP4", b"\r\n\r\n\0"] {
        let mut client = RawClient::connect(gateway.proxy());
        client.send(bytes);
        client.expect_closed();
    }
    expect_count(&gateway, "require", "timeout", 3.0);
    gateway.stop();
}

#[test]
fn plugins_and_logs_see_the_client() {
    let backend = Backend::echo();
    let plugins = [
        "{name: ip-restriction, config: {deny: [192.0.2.66]}}",
        "{name: rate-limiting, config: {minute: 2, limit_by: ip, policy: local}}",
    ];
    let log = std::env::temp_dir().join(format!("gateward-proxy-protocol-{}.log", std::process::id()));
    let gateway = listening(&with_plugins(&one_route(&backend.url()), &plugins), "proxy_protocol")
        .env("GATEWARD_ACCESS_LOG", log.display().to_string())
        .start();
    await_room_in_the_minute();
    assert_eq!(ask(&gateway, &[b"PROXY TCP4 192.0.2.66 10.0.0.9 1 2\r\n", REQUEST]).status, 403);
    let statuses = [0; 3].map(|_| ask(&gateway, &[&v2("vpce-1"), REQUEST]).status);
    assert_eq!(statuses, [200, 200, 429], "limited by its own address");
    assert_eq!(ask(&gateway, &[b"PROXY TCP4 192.0.2.8 10.0.0.9 1 2\r\n", REQUEST]).status, 200);
    let mut text = String::new();
    eventually(PATIENCE, || {
        text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().count() == 5
    });
    let line = text.lines().find(|line| line.contains("vpce-1")).expect("a line of the endpoint");
    let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(record["client_ip"], "192.0.2.7");
    let origin = &record["proxy_protocol"];
    assert_eq!((&origin["source"], &origin["destination"]), (&"192.0.2.7:4321".into(), &"10.0.0.9:443".into()));
    assert_eq!((&origin["vpce_id"], origin["balancer"].is_string()), (&"vpce-1".into(), true));
    gateway.stop();
    let _ = std::fs::remove_file(log);
}

#[test]
fn routes_by_vpc_endpoint() {
    let config = "_format_version: '3.0'\n\
        routes:\n\
        - {name: mine, expression: 'net.src.vpce_id == \"vpce-1\"', priority: 2}\n\
        - {name: direct, expression: 'http.path ^= \"/\"', priority: 1}\n\
        plugins:\n\
        - {name: request-termination, route: mine, config: {status_code: 201}}\n\
        - {name: request-termination, route: direct, config: {status_code: 202}}\n";
    let gateway = listening(config, "proxy_protocol=auto").env("KONG_ROUTER_FLAVOR", "expressions").start();
    assert_eq!(ask(&gateway, &[&v2("vpce-1"), REQUEST]).status, 201);
    assert_eq!(ask(&gateway, &[&v2("vpce-2"), REQUEST]).status, 202);
    assert_eq!(ask(&gateway, &[REQUEST]).status, 202);
    gateway.stop();
}

/// The limit of connections per address is for the clients, not for the balancer in front of them.
#[test]
fn connections_are_counted_by_client() {
    let backend = Backend::echo();
    let gateway = listening(&one_route(&backend.url()), "proxy_protocol")
        .env("GATEWARD_MAX_CONNECTIONS_PER_ADDRESS", "1")
        .workers(1)
        .start();
    let keep = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = RawClient::connect(gateway.proxy());
    first.send(&[V1, keep].concat());
    assert_eq!(first.read_response("GET").status, 200);
    expect_refused(&gateway, &[V1, keep].concat());
    assert_eq!(ask(&gateway, &[b"PROXY TCP4 192.0.2.8 10.0.0.9 1 2\r\n", REQUEST]).status, 200);
    gateway.stop();
}

/// A port for a listener of the control side is refused at start.
#[test]
fn the_control_side_takes_no_headers() {
    let port = free_port();
    let started =
        Gateway::builder("_format_version: '3.0'\n").admin_listen(format!("{port} proxy_protocol")).try_start();
    let Err(error) = started else { panic!("it started") };
    let error = error.to_string();
    assert!(error.contains("proxy_protocol is for --proxy-listen and --stream-listen only"), "{error}");
}

/// A back end that sends what it received, up to the end of the head, as its response's content.
fn mirror() -> Backend {
    Backend::raw(|_, mut stream| {
        let mut got = Vec::new();
        let mut byte = [0];
        // The binary signature ends no head: it is followed by a NUL.
        while !(got.ends_with(b"\r\n\r\n") && got.len() > 40) && stream.read(&mut byte).is_ok_and(|count| count > 0) {
            got.push(byte[0]);
        }
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", got.len()).as_bytes());
        let _ = stream.write_all(&got);
        let _ = stream.read(&mut byte);
    })
}

#[test]
fn services_are_told_who_the_client_is() {
    for (version, expected) in [("v1", b"PROXY TCP4 192.0.2.7 10.0.0.9 4321 443\r\n".to_vec()), ("v2", v2("vpce-1"))] {
        let backend = mirror();
        let config = with_service_fields(&backend.url(), &format!("proxy_protocol: {version}"));
        let gateway = listening(&config, "proxy_protocol=auto").workers(1).start();
        let answer = ask(&gateway, &[&v2("vpce-1"), REQUEST]);
        let head = &answer.body[expected.len()..];
        assert_eq!((answer.status, &answer.body[..expected.len()]), (200, &expected[..]), "{:?}", answer.text());
        assert!(head.starts_with(b"GET / HTTP/1.1\r\n"), "{:?}", answer.text());
        // The next client has another header, and so a connection of its own.
        let answer = ask(&gateway, &[b"PROXY TCP4 192.0.2.8 10.0.0.9 1 2\r\n", REQUEST]);
        assert_eq!(answer.status, 200);
        let mut client = RawClient::connect(gateway.proxy());
        for _ in 0..2 {
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.read_response("GET").status, 200);
        }
        assert_eq!(backend.connections(), 4, "{version}");
        gateway.stop();
    }
}

/// HTTP/2 requests know their connection's origin, and no other connection's.
#[test]
fn http2_after_a_header() {
    let backend = Backend::echo();
    let config = format!(
        "_format_version: '3.0'\n\
        services:\n\
        - {{name: mine, url: '{0}/mine', routes: [{{name: mine, expression: 'net.src.vpce_id == \"vpce-1\"', priority: 2}}]}}\n\
        - {{name: other, url: '{0}/other', routes: [{{name: other, expression: 'http.path ^= \"/\"', priority: 1}}]}}\n",
        backend.url()
    );
    let gateway = listening(&config, "proxy_protocol=auto").env("KONG_ROUTER_FLAVOR", "expressions").workers(1).start();
    // Preface, SETTINGS, and HEADERS of GET http://a/ that end the stream (RFC 9113 sections 3.4, 6.2; RFC 7541 appendix A).
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a";
    for (header, path, address) in [
        (v2("vpce-1"), "/mine", "192.0.2.7"),
        (Vec::new(), "/other", "127.0.0.1"),
        (v2("vpce-2"), "/other", "192.0.2.7"),
        (V1.to_vec(), "/other", "192.0.2.7"),
    ] {
        let before = backend.request_count();
        let mut client = RawClient::connect(gateway.proxy());
        client.send(&[&header[..], http2].concat());
        eventually(PATIENCE, || backend.request_count() > before);
        let request = backend.requests().pop().expect("it came");
        assert!(request.target.starts_with(path), "{}", request.target);
        assert_eq!(request.header("X-Real-IP"), Some(address));
    }
    gateway.stop();
}
