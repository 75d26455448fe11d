//! What the upstream gets to see: hop-by-hop fields, identity, forwarding fields, upgrades, loops, and one view
//! of the path.

use gateward_e2e::{echoed_header, echoed_target, exchange, one_route};
use gateward_testkit::{Backend, Gateway, RawClient, RawResponse, http};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// GET / with these fields through a gateway with these arguments to an echo.
#[track_caller]
fn forwarded(args: &[&str], headers: &[(&str, &str)]) -> RawResponse {
    let backend = Backend::echo();
    let mut builder = Gateway::builder(&one_route(&backend.url()));
    for arg in args {
        builder = builder.arg(*arg);
    }
    let gateway = builder.start();
    let response = http(gateway.proxy(), "GET /", headers, b"");
    assert_eq!(response.status, 200, "{}", response.text());
    gateway.stop();
    response
}

#[test]
fn hop_by_hop_fields_and_what_they_nominate_stay_here() {
    let response = forwarded(
        &[],
        &[
            ("Connection", "keep-alive, X-Nominated, close"),
            ("X-Nominated", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authorization", "Basic eA=="),
            ("Proxy-Authenticate", "Basic"),
            ("Proxy", "http://evil"),
            ("TE", "gzip, trailers"),
            ("Trailer", "X-T"),
            ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
            ("X-Kept", "2"),
        ],
    );
    let gone = [
        "x-nominated",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "proxy",
        "trailer",
        "http2-settings",
        "upgrade",
    ];
    for name in gone {
        assert_eq!(echoed_header(&response, name), None, "{name}");
    }
    assert_eq!(echoed_header(&response, "te").as_deref(), Some("trailers"));
    assert_eq!(echoed_header(&response, "connection").as_deref(), Some("TE"));
    assert_eq!(echoed_header(&response, "x-kept").as_deref(), Some("2"));
}

#[test]
fn protected_fields_cannot_be_nominated_away() {
    let protected = [
        ("Authorization", "Basic eA=="),
        ("Cookie", "a=b"),
        ("Content-Type", "a/b"),
        ("Content-Encoding", "x"),
        ("Cache-Control", "no-store"),
    ];
    let nominated: Vec<&str> = protected.iter().map(|(name, _)| *name).collect();
    let always =
        "Host, X-Forwarded-For, X-Real-IP, Via, X-Kong-Request-Id, Content-Length, Transfer-Encoding, X-Consumer-ID";
    let connection = format!("close, {always}, {}", nominated.join(", "));
    let mut headers = protected.to_vec();
    headers.push(("Connection", &connection));
    let response = forwarded(&[], &headers);
    for (name, value) in protected {
        assert_eq!(echoed_header(&response, name).as_deref(), Some(value), "{name}");
    }
    for name in ["Host", "X-Forwarded-For", "X-Real-IP", "Via", "X-Kong-Request-Id"] {
        assert!(echoed_header(&response, name).is_some(), "{name}");
    }
}

#[test]
fn a_body_keeps_its_framing_whatever_is_nominated() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    for (field, body) in [("Content-Length: 4", "wiki"), ("Transfer-Encoding: chunked", "4\r\nwiki\r\n0\r\n\r\n")] {
        let name = field.split(':').next().unwrap_or_default();
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: {name}\r\n{field}\r\n\r\n{body}");
        assert_eq!(exchange(gateway.proxy(), "POST", request.as_bytes()).json()["body"], "wiki", "{field}");
    }
    gateway.stop();
}

#[test]
fn identity_fields_of_clients_are_cleared() {
    let fields = [
        "X-Consumer-ID",
        "X-Consumer-Custom-ID",
        "x-consumer-username",
        "X_Consumer_Username",
        "X-Consumer-Groups",
        "X-Authenticated-Groups",
        "X-Credential-Identifier",
        "X-Credential-Username",
        "X-Anonymous-Consumer",
    ];
    let headers: Vec<(&str, &str)> = fields.iter().map(|name| (*name, "spoofed")).collect();
    let response = forwarded(&[], &headers);
    assert!(!response.text().contains("spoofed"), "{}", response.text());
}

#[test]
fn the_gateways_own_fields_come_once() {
    let spoofed = [("X-Kong-Request-Id", "spoofed"), ("Via", "1.1 before"), ("X-Real-IP", "a"), ("X-Real-IP", "b")];
    let response = forwarded(&[], &spoofed);
    let json = response.json();
    let names: Vec<String> = json["headers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|field| Some(field[0].as_str()?.to_ascii_lowercase()))
        .collect();
    for name in ["host", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-host", "x-kong-request-id"] {
        assert_eq!(names.iter().filter(|found| *found == name).count(), 1, "{name}: {json}");
    }
    assert_ne!(echoed_header(&response, "x-kong-request-id").as_deref(), Some("spoofed"));
    assert!(echoed_header(&response, "via").is_some_and(|via| via.starts_with("1.1 before, 1.1 gateward/")));
}

#[test]
fn forwarding_fields_are_overwritten() {
    let spoofed = [
        ("Host", "real.example:1234"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil"),
        ("X-Forwarded-Port", "666"),
        ("X-Forwarded-Path", "/evil"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Real-IP", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"),
    ];
    let response = forwarded(&[], &spoofed);
    let header = |name| echoed_header(&response, name);
    assert_eq!(header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(header("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(header("x-forwarded-host").as_deref(), Some("real.example"));
    assert_eq!(header("x-forwarded-path").as_deref(), Some("/"));
    assert_eq!(header("x-real-ip").as_deref(), Some("127.0.0.1"));
    assert_eq!((header("x-forwarded-prefix"), header("forwarded")), (None, None));
    assert!(!response.text().contains("6.6.6.6") && !response.text().contains("evil"), "{}", response.text());
}

/// State of one connection must not show on another: addresses least of all.
#[test]
fn every_peer_is_told_by_its_own_address() {
    let backend = Backend::echo();
    let gateway = Gateway::builder(&one_route(&backend.url())).workers(1).start();
    for round in 0..3 {
        for peer in ["127.0.0.1", "127.0.0.2", "127.1.2.3"] {
            let text = get_from(peer, gateway.proxy());
            for field in ["X-Forwarded-For", "X-Real-IP"] {
                let expected = format!("[\"{field}\",\"{peer}\"]");
                assert!(text.contains(&expected), "round {round}: {expected}: {text}");
            }
        }
    }
    gateway.stop();
}

/// The whole answer to a GET sent from the local address `from`.
#[track_caller]
fn get_from(from: &str, to: SocketAddr) -> String {
    let from: SocketAddr = format!("{from}:0").parse().expect("an address");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("sockets can be made");
    socket.bind(&from.into()).expect("all of 127/8 is this machine");
    socket.connect(&to.into()).expect("the gateway listens");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("the timeout is not zero");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("the request is sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the answer ends");
    text
}

#[test]
fn a_trusted_peer_is_believed() {
    let said = [
        ("X-Forwarded-For", "1.2.3.4"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "public.example"),
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Path", "/public"),
        ("X-Real-IP", "1.2.3.4"),
    ];
    let response = forwarded(&["--trusted-ips=127.0.0.0/8,10.0.0.1"], &said);
    let header = |name| echoed_header(&response, name);
    assert_eq!(header("x-forwarded-for").as_deref(), Some("1.2.3.4, 127.0.0.1"));
    assert_eq!(header("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(header("x-forwarded-host").as_deref(), Some("public.example"));
    assert_eq!(header("x-forwarded-port").as_deref(), Some("443"));
    assert_eq!(header("x-forwarded-path").as_deref(), Some("/public"));
    assert_eq!(header("x-real-ip").as_deref(), Some("1.2.3.4"));
    let other = forwarded(&["--trusted-ips=10.0.0.0/8"], &said);
    assert_eq!(echoed_header(&other, "x-real-ip").as_deref(), Some("127.0.0.1"), "this peer is not among the trusted");
}

#[test]
fn upgrades_to_h2c_are_never_forwarded() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    for (version, value) in [("1.1", "h2c"), ("1.1", "websocket, h2c"), ("1.1", "H2C"), ("1.0", "websocket")] {
        let request = format!(
            "GET / HTTP/{version}\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {value}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        );
        let response = exchange(gateway.proxy(), "GET", request.as_bytes());
        assert_eq!(response.status, 200, "an upgrade may be ignored");
        for name in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(echoed_header(&response, name), None, "{name} of {value}");
        }
    }
    gateway.stop();
}

/// pingora 2026-0033: bytes behind a request that asks for an upgrade are the next request, not a tunnel.
#[test]
fn nothing_is_tunnelled_before_the_upstream_agrees() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(
        b"GET /up HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(echoed_target(&client.read_response("GET")), "/up");
    let second = client.read_response("GET");
    assert_eq!(echoed_target(&second), "/second");
    assert!(echoed_header(&second, "via").is_some(), "it went through the gateway's rules");
    gateway.stop();
}

#[test]
fn a_loop_is_noticed() {
    // The gateway is its own upstream.
    let gateway = Gateway::start("_format_version: '3.0'\n");
    let config = one_route(&format!("http://{}", gateway.proxy()));
    gateway.write_config(&config);
    gateway.sighup();
    let mut status = 404;
    gateward_testkit::eventually(Duration::from_secs(10), || {
        status = http(gateway.proxy(), "GET /", &[], b"").status;
        status != 404
    });
    assert_eq!(status, 508);
    gateway.stop();
}

#[test]
fn max_forwards_counts_down() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    let response = http(gateway.proxy(), "OPTIONS /", &[("Max-Forwards", "3")], b"");
    assert_eq!(echoed_header(&response, "max-forwards").as_deref(), Some("2"));
    let response = http(gateway.proxy(), "OPTIONS /", &[("Max-Forwards", "0")], b"");
    assert_eq!(response.status, 200);
    assert_eq!(backend.request_count(), 1, "the last hop answers itself");
    gateway.stop();
}

/// The path a route was chosen by is the path the upstream gets: sending that once more chooses the same route,
/// and the upstream gets the same path again.
#[test]
fn routing_and_upstream_share_one_view_of_the_path() {
    let (public, private) = (Backend::echo(), Backend::echo());
    let config = format!(
        "_format_version: '3.0'\n\
         services:\n\
         - {{name: public, url: '{}', routes: [{{name: public, paths: [/], strip_path: false}}]}}\n\
         - {{name: private, url: '{}', routes: [{{name: private, paths: [/admin], strip_path: false}}, \
             {{name: private-regex, paths: ['~/x%2Fy$', '~/ä'], strip_path: false}}]}}\n",
        public.url(),
        private.url()
    );
    let gateway = Gateway::start(&config);
    let paths = [
        ("/", false),
        ("/admin", true),
        ("/a/../admin/x", true),
        ("/a/./../admin", true),
        ("/%61dmin", true),
        ("/%61%64%6d%69%6e/x", true),
        ("//admin", true),
        ("/.//admin", true),
        ("/%2e/admin", true),
        ("/a/%2e%2e/admin", true),
        ("/a/.%2E/admin", true),
        ("/../../admin", true),
        ("/%2Fadmin", false),
        ("/a%2f../admin", false),
        ("/a/..%2fadmin", false),
        ("/%5cadmin", false),
        ("/a/..%5cadmin", false),
        ("/admin;x=y", true),
        ("/;x/admin", false),
        ("/%2561dmin", false),
        ("/%252e%252e/admin", false),
        ("/%c0%ae%c0%ae/admin", false),
        ("/%ff%fe", false),
        ("/%C3%A4", true),
        ("/x%2fy", true),
        ("/x%252fy", false),
        ("/a%20b%3Fc%23d", false),
        ("/a%25b", false),
        ("/a'b(c)!$&*+,;=:@~", false),
        ("/a%7Eb%2Db", false),
        ("/ADMIN", false),
        ("/a/b/../../admin/../admin/", true),
    ];
    for (path, is_private) in paths {
        let (target, private_first) = sent_to(&gateway, &private, path);
        assert_eq!(private_first, is_private, "{path} went upstream as {target}");
        let (again, private_again) = sent_to(&gateway, &private, &target);
        assert_eq!((again.as_str(), private_again), (target.as_str(), private_first), "{path} is not stable");
    }
    let (query, _) = sent_to(&gateway, &private, "/q?a=%2e%2e/../&b=%zz??");
    assert_eq!(query, "/q?a=%2e%2e/../&b=%zz??", "queries pass as they came");
    assert_eq!(sent_to(&gateway, &private, "/q?").0, "/q?");
    gateway.stop();
}

/// What the upstream was asked for, and whether it was the private one.
#[track_caller]
fn sent_to(gateway: &Gateway, private: &Backend, path: &str) -> (String, bool) {
    let before = private.request_count();
    let response = http(gateway.proxy(), &format!("GET {path}"), &[], b"");
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    (echoed_target(&response), private.request_count() > before)
}

/// Backends that read `_` as `-` could not tell these from what the gateway wrote.
#[test]
fn names_with_underscores_follow_the_policy() {
    let fields = [("X_Forwarded_For", "6.6.6.6"), ("X_Real-IP", "6.6.6.6"), ("X_Consumer_ID", "root"), ("my_key", "1")];
    let seen = |args: &[&str]| {
        let response = forwarded(args, &fields);
        fields.map(|(name, _)| echoed_header(&response, name).is_some())
    };
    assert_eq!(seen(&[]), [false, false, false, true]);
    assert_eq!(seen(&["--underscores-in-headers=off"]), [false; 4]);

    let backend = Backend::echo();
    let gateway = Gateway::builder(&one_route(&backend.url())).arg("--underscores-in-headers=refuse").start();
    assert_eq!(http(gateway.proxy(), "GET /", &[("my_key", "1")], b"").status, 400);
    assert_eq!(http(gateway.proxy(), "GET /", &[("my-key", "1")], b"").status, 200);
    assert_eq!(backend.request_count(), 1);
    gateway.stop();
}
