//! WebSocket and other upgrades: real clients and servers through the gateway, and raw ones that break the rules.

use gateward_e2e::websocket::{connect, echo_backend, try_connect};
use gateward_e2e::{Metrics, one_route, with_plugins, with_service_fields};
use gateward_testkit::{Backend, Gateway, RawClient, eventually, http};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tungstenite::{Error, Message};

const PATIENCE: Duration = Duration::from_secs(10);
const HANDSHAKE: &[u8] = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// The head of a request, as a raw back end gets it.
fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A back end that answers every head with `answer` and then does `script`.
fn raw(answer: &'static [u8], script: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Backend {
    Backend::raw(move |_, mut stream| {
        let head = read_head(&mut stream);
        if !head.is_empty() && stream.write_all(answer).is_ok() {
            script(&head, &mut stream);
        }
    })
}

#[track_caller]
fn expect_ended(gateway: &Gateway, reason: &str, count: f64) {
    let label = format!("reason=\"{reason}\"");
    eventually(PATIENCE, || Metrics::scrape(gateway).sum("gateward_tunnels_ended_total", &[&label]) == count);
    eventually(PATIENCE, || Metrics::scrape(gateway).sum("gateward_tunnels_active", &[]) == 0.0);
}

#[test]
fn messages_of_every_kind_and_size() {
    let backend = echo_backend();
    let log = std::env::temp_dir().join(format!("gateward-websocket-{}.log", std::process::id()));
    let config = with_plugins(&one_route(&backend.url()), &["{name: prometheus, config: {bandwidth_metrics: true}}"]);
    let gateway = Gateway::builder(&config).env("GATEWARD_ACCESS_LOG", log.display().to_string()).start();
    let mut socket = connect(gateway.proxy(), "/chat?room=1");
    eventually(PATIENCE, || Metrics::scrape(&gateway).sum("gateward_tunnels_active", &[]) == 1.0);
    let messages = [
        Message::text("hello"),
        Message::text(""),
        Message::binary(vec![0_u8; 125]),
        Message::binary(vec![7_u8; 70_000]),
        Message::binary((0..3_000_000).map(|byte| byte as u8).collect::<Vec<_>>()),
        Message::text("ü".repeat(100_000)),
    ];
    for message in messages {
        socket.send(message.clone()).expect("sent");
        assert!(socket.read().expect("received") == message, "a message came back otherwise");
    }
    socket.send(Message::Ping("are you there".into())).expect("sent");
    assert_eq!(socket.read().expect("received"), Message::Pong("are you there".into()));
    socket.close(None).expect("sent");
    assert!(matches!(socket.read(), Ok(Message::Close(_))));
    assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));
    drop(socket);
    eventually(PATIENCE, || Metrics::scrape(&gateway).sum("gateward_tunnels_active", &[]) == 0.0);

    let mut text = String::new();
    eventually(PATIENCE, || {
        text = std::fs::read_to_string(&log).unwrap_or_default();
        text.ends_with('\n')
    });
    let record: serde_json::Value = serde_json::from_str(&text).expect("one record, at the end");
    assert_eq!((&record["response"]["status"], &record["upstream_status"]), (&101.into(), &"101".into()));
    for size in [&record["request"]["size"], &record["response"]["size"]] {
        assert!(size.as_u64().is_some_and(|bytes| (3_270_000..3_300_000).contains(&bytes)), "{size}");
    }
    let metrics = Metrics::scrape(&gateway);
    for direction in ["ingress", "egress"] {
        let bytes = metrics.sum("kong_bandwidth_bytes", &[&format!("direction=\"{direction}\"")]);
        assert!(bytes > 3_200_000.0, "{direction}: {bytes}");
    }
    let _ = std::fs::remove_file(log);
    gateway.stop();
}

#[test]
fn the_handshake_is_rebuilt_and_plugins_run() {
    let backend = raw(SWITCHING, |head, stream| {
        let _ = stream.write_all(head.as_bytes());
    });
    let plugins = [
        "{name: key-auth}",
        "{name: response-transformer, config: {add: {headers: ['x-seen: yes']}}}",
        "{name: request-transformer, config: {add: {headers: ['x-added:yes']}}}",
    ];
    let config = with_plugins(&one_route(&backend.url()), &plugins)
        + "consumers:\n- {username: alice, keyauth_credentials: [{key: k}]}\n";
    let gateway = Gateway::start(&config);
    assert!(try_connect(gateway.proxy(), "/").is_err_and(|error| error.contains("401")));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(&[&HANDSHAKE[..HANDSHAKE.len() - 2], b"apikey: k\r\nTE: trailers\r\n\r\n"].concat());
    let answer = client.read_response("GET");
    assert_eq!((answer.status, answer.header("x-seen")), (101, Some("yes")));
    assert_eq!((answer.header("Connection"), answer.header("Upgrade")), (Some("Upgrade"), Some("websocket")));
    assert!(answer.header("Content-Length").is_none() && answer.header("Transfer-Encoding").is_none());
    let head = String::from_utf8(client.read_to_close(PATIENCE)).expect("a head");
    for line in [
        "Connection: Upgrade, TE",
        "Upgrade: websocket",
        "x-added: yes",
        "X-Consumer-Username: alice",
        "Sec-WebSocket-Key: dGhl",
    ] {
        assert!(head.contains(&format!("\r\n{line}")), "{line}: {head}");
    }
    assert_eq!(head.matches("Connection:").count(), 1, "{head}");
    gateway.stop();
}

#[test]
fn bytes_that_come_early_are_not_lost() {
    // The server's first bytes come with its 101, the client's with its request.
    let backend = Backend::raw(|_, mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(&[SWITCHING, b"server first"].concat());
        let mut got = [0; 12];
        if stream.read_exact(&mut got).is_ok() {
            let _ = stream.write_all(&got);
        }
    });
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(&[HANDSHAKE, b"client"].concat());
    assert_eq!(client.read_response("GET").status, 101);
    client.send(b" first");
    assert_eq!(client.read_to_close(PATIENCE), b"server firstclient first");
    drop(client);
    expect_ended(&gateway, "upstream", 1.0);
    gateway.stop();
}

/// A request after an upgrade that was refused is a request, not a tunnel's bytes.
#[test]
fn without_101_the_connection_goes_on() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(&[HANDSHAKE, b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    for _ in 0..2 {
        let answer = client.read_response("GET");
        assert!(answer.status == 200 && !answer.closes() && answer.header("Upgrade").is_none(), "{answer:?}");
    }
    let targets: Vec<_> = backend.requests().iter().map(|request| request.target.clone()).collect();
    assert_eq!(targets, ["/chat", "/second"]);
    assert!(backend.requests()[0].header("Upgrade").is_some() && backend.requests()[1].header("Upgrade").is_none());
    assert_eq!(backend.connections(), 1, "the upstream connection goes on, too");
    gateway.stop();
}

#[test]
fn what_may_not_be_asked_for_is_not_forwarded() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    for (version, fields) in [
        ("1.1", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        ("1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c, websocket\r\nHTTP2-Settings: AAMAAABk\r\n"),
        ("1.1", "Connection: Upgrade\r\nUpgrade: frobnicate\r\n"),
        ("1.1", "Connection: close\r\nUpgrade: websocket\r\n"),
        ("1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    ] {
        let mut client = RawClient::connect(gateway.proxy());
        client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n").as_bytes());
        let answer = client.read_response("GET");
        assert_eq!(answer.status, 200, "{fields}");
        for name in ["Upgrade", "HTTP2-Settings"] {
            assert_eq!(gateward_e2e::echoed_header(&answer, name), None, "{fields}");
        }
    }
    gateway.stop();
}

#[test]
fn other_protocols_by_setting() {
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: frobnicate\r\n\r\n";
    let backend = raw(answer, |_, stream| {
        // Half-close: what comes after the client's end is still delivered.
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got);
        let _ = stream.write_all(&got);
    });
    let gateway = Gateway::builder(&one_route(&backend.url())).env("GATEWARD_UPGRADE_PROTOCOLS", "frobnicate").start();
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: Frobnicate, other\r\n\r\n");
    let answer = client.read_response("GET");
    assert_eq!((answer.status, answer.header("Upgrade")), (101, Some("frobnicate")));
    client.send(b"to the end");
    client.finish_sending();
    assert_eq!(client.read_to_close(PATIENCE), b"to the end");
    expect_ended(&gateway, "client", 1.0);
    gateway.stop();
}

#[test]
fn an_upstream_that_switches_to_something_else_is_refused() {
    for answer in [
        &b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"[..],
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let backend = raw(answer, |_, stream| {
            let _ = stream.read(&mut [0]);
        });
        let gateway = Gateway::start(&one_route(&backend.url()));
        let mut client = RawClient::connect(gateway.proxy());
        client.send(HANDSHAKE);
        assert_eq!(client.read_response("GET").status, 502);
        gateway.stop();
    }
}

#[test]
fn a_silent_tunnel_ends_and_a_talking_one_does_not() {
    let backend = echo_backend();
    let gateway = Gateway::start(&with_service_fields(&backend.url(), "read_timeout: 700"));
    let mut socket = connect(gateway.proxy(), "/");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1_500) {
        socket.send(Message::text("still here")).expect("sent");
        socket.read().expect("received");
        gateward_testkit::pause(Duration::from_millis(100));
    }
    let quiet = Instant::now();
    assert!(socket.read().is_err());
    assert!(quiet.elapsed() >= Duration::from_millis(600), "{:?}", quiet.elapsed());
    expect_ended(&gateway, "idle", 1.0);
    gateway.stop();
}

/// A reader that does not read slows the writer: no more is held than the sockets and one buffer take.
#[test]
fn back_pressure() {
    const BYTES: usize = 24 << 20;
    let backend = raw(SWITCHING, |_, stream| {
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..BYTES >> 20 {
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
    });
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(HANDSHAKE);
    assert_eq!(client.read_response("GET").status, 101);
    let before = gateway.rss_kib();
    gateward_testkit::pause(Duration::from_millis(500));
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more");
    assert_eq!(client.read_to_close(Duration::from_secs(30)).len(), BYTES);
    gateway.stop();
}

#[test]
fn resets_pass_through() {
    let backend = raw(SWITCHING, |_, stream| {
        let _ = stream.read(&mut [0]);
        gateward_testkit::reset(stream.try_clone().expect("a socket"));
    });
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(HANDSHAKE);
    assert_eq!(client.read_response("GET").status, 101);
    client.send(b"x");
    assert!(client.stream().read(&mut [0]).is_err(), "cut off, not ended");
    expect_ended(&gateway, "upstream_reset", 1.0);
    gateway.stop();

    // And the other way round.
    let (seen, ends) = std::sync::mpsc::channel();
    let backend = raw(SWITCHING, move |_, stream| {
        let _ = stream.read(&mut [0]);
        let _ = seen.send(stream.read(&mut [0]).is_err());
    });
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(HANDSHAKE);
    assert_eq!(client.read_response("GET").status, 101);
    client.send(b"x");
    gateward_testkit::reset(client.stream().try_clone().expect("a socket"));
    drop(client);
    assert_eq!(ends.recv_timeout(PATIENCE), Ok(true), "cut off, not ended");
    expect_ended(&gateway, "client_reset", 1.0);
    gateway.stop();
}

/// The protocol changes after the request, not within it (RFC 9110 section 7.8).
#[test]
fn a_101_before_the_end_of_the_request_is_refused() {
    let backend = raw(SWITCHING, |_, stream| {
        let _ = stream.read(&mut [0]);
    });
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 10\r\n\r\n");
    assert_eq!(client.read_response("POST").status, 502);
    drop(client);
    gateway.stop();
}

#[test]
fn a_shutdown_says_goodbye_between_two_frames() {
    let backend = echo_backend();
    let mut gateway = Gateway::builder(&one_route(&backend.url())).env("GATEWARD_SHUTDOWN_GRACE", "200ms").start();
    let mut sockets = [(); 3].map(|()| connect(gateway.proxy(), "/"));
    for socket in &mut sockets {
        socket.send(Message::text("hello")).expect("sent");
        socket.read().expect("received");
    }
    let began = Instant::now();
    gateway.sigterm();
    for socket in &mut sockets {
        match socket.read() {
            Ok(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 1001),
            other => panic!("{other:?}"),
        }
        // The library answers with its own Close; then the gateway ends the connection.
        assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));
    }
    assert!(gateway.wait_exit(PATIENCE).success());
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    gateway.assert_no_errors();
}

#[test]
fn a_shutdown_waits_for_the_end_of_a_frame() {
    // Half a frame; when the gateway is closing, the other half and one more.
    let (closing, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let backend = raw(SWITCHING, move |_, stream| {
        let _ = stream.write_all(b"\x82\x06abc");
        let waited = wait.lock().expect("no script panics").recv_timeout(2 * PATIENCE);
        if waited.is_ok() {
            let _ = stream.write_all(b"def\x82\x01x");
        }
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let mut gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(HANDSHAKE);
    assert_eq!(client.read_response("GET").status, 101);
    let mut got = Vec::new();
    while got.len() < 5 {
        got.extend(client.read_some());
    }
    gateway.sigterm();
    // Without a grace period the stage of closing begins with the listeners' end.
    eventually(PATIENCE, || TcpStream::connect(gateway.proxy()).is_err());
    closing.send(()).expect("the back end waits");
    while got.len() < 12 {
        let more = client.read_some();
        assert!(!more.is_empty(), "closed after {got:?}: {:?}", gateway.log());
        got.extend(more);
    }
    assert_eq!(got, b"\x82\x06abcdef\x88\x02\x03\xE9", "nothing after the goodbye");
    client.send(b"\x88\x82mask\x6e\x88");
    assert_eq!(client.read_to_close(PATIENCE), b"");
    assert!(gateway.wait_exit(PATIENCE).success());
    gateway.assert_no_errors();
}

#[test]
fn a_client_that_does_not_answer_the_goodbye_is_cut_off() {
    let backend = echo_backend();
    let mut gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(HANDSHAKE);
    assert_eq!(client.read_response("GET").status, 101);
    let began = Instant::now();
    gateway.sigterm();
    assert_eq!(client.read_to_close(Duration::from_secs(12)), b"\x88\x02\x03\xE9");
    assert!(gateway.wait_exit(PATIENCE).success());
    assert!(began.elapsed() >= Duration::from_secs(4), "it was waited for: {:?}", began.elapsed());
}

#[test]
fn an_upstream_that_refuses_is_an_ordinary_failure() {
    let gateway = Gateway::start(&one_route("http://127.0.0.1:1"));
    assert!(try_connect(gateway.proxy(), "/").is_err_and(|error| error.contains("502")));
    assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 502);
    gateway.stop();
}
