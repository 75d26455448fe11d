//! Request bodies over the wire: chunk rules, trailers, limits, `Expect`, draining, deadlines and slow clients.

use gateward_e2e::{exchange, one_route, with_plugins};
use gateward_testkit::{Backend, Gateway, Next, RawClient, eventually, http, pause};
use std::io::Write;
use std::time::{Duration, Instant};

const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

fn chunked(body: &str) -> String {
    format!("POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

#[test]
fn malformed_chunks_are_refused() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    let long_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(300));
    let many_extensions = format!("1;{}\r\na\r\n", "e".repeat(200)).repeat(200) + "0\r\n\r\n";
    let long_trailers = format!("0\r\n{}\r\n", "X-T: v\r\n".repeat(70));
    let cases = [
        ("+1\r\na\r\n0\r\n\r\n", 400),
        ("-1\r\na\r\n0\r\n\r\n", 400),
        ("0x1\r\na\r\n0\r\n\r\n", 400),
        (" 1\r\na\r\n0\r\n\r\n", 400),
        ("1 \r\na\r\n0\r\n\r\n", 400),
        ("1\t;x\r\na\r\n0\r\n\r\n", 400),
        ("1_0\r\na\r\n0\r\n\r\n", 400),
        ("\r\na\r\n0\r\n\r\n", 400),
        ("g\r\na\r\n0\r\n\r\n", 400),
        ("00000000000000001\r\na\r\n0\r\n\r\n", 400),
        // hyper 2021-0079: a size beyond 64 bits must not wrap.
        ("f0000000000000003\r\nabc\r\n0\r\n\r\n", 400),
        ("1\na\r\n0\r\n\r\n", 400),
        ("1\r\na\n0\r\n\r\n", 400),
        ("1\r\nab\r\n0\r\n\r\n", 400),
        ("1\r\na0\r\n\r\n", 400),
        ("1;a\rb\r\na\r\n0\r\n\r\n", 400),
        ("1;a\nb\r\na\r\n0\r\n\r\n", 400),
        ("0\r\nno colon\r\n\r\n", 400),
        ("0\r\nX : y\r\n\r\n", 400),
        ("0\r\nX: y\n\n", 400),
        (&long_extension, 400),
        (&many_extensions, 400),
        (&long_trailers, 431),
    ];
    for (body, status) in cases {
        let mut client = RawClient::connect(gateway.proxy());
        let _ = client.try_send((chunked(body) + NEXT).as_bytes());
        let response = client.read_response("POST");
        assert_eq!(response.status, status, "{body:.60?}: {}", response.text());
        assert!(response.closes(), "{body:.60?}");
        client.expect_closed();
    }
    assert_eq!(backend.request_count(), 0, "no malformed body may become a complete request: {:?}", backend.requests());
    gateway.stop();
}

#[test]
fn chunked_bodies_are_framed_anew_and_extensions_dropped() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    let body = "3;name=\"secret\"\r\nabc\r\n0000A;x\r\n0123456789\r\n0;end\r\n\r\n";
    let mut client = RawClient::connect(gateway.proxy());
    client.send((chunked(body) + NEXT).as_bytes());
    let response = client.read_response("POST");
    assert_eq!(response.json()["body"], "abc0123456789");
    assert_eq!(client.read_response("GET").json()["target"], "/next");
    let seen = &backend.requests()[0];
    assert_eq!(seen.header_all("transfer-encoding"), ["chunked"]);
    assert_eq!(seen.header_all("content-length"), Vec::<&str>::new());
    assert!(!String::from_utf8_lossy(&seen.bytes).contains("secret"), "chunk extensions are not forwarded");
    exchange(gateway.proxy(), "POST", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0002\r\n\r\nab");
    assert_eq!(backend.requests()[2].header_all("content-length"), ["2"], "lengths are written anew");
    gateway.stop();
}

#[test]
fn only_harmless_trailers_pass() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    let refused = [
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Host: evil",
        "Authorization: Basic eA==",
        "Cookie: a=b",
        "X-Consumer-ID: 1",
        "X_Consumer_Username: root",
        "X-Credential-Identifier: 1",
        "X-Forwarded-For: 1.1.1.1",
        "X-Real-IP: 1.1.1.1",
        "Connection: close",
        "Content-Type: a/b",
        "Cache-Control: no-store",
        "Expect: 100-continue",
        "apikey: k",
    ];
    let trailers = format!("X-Checksum: 1\r\n{}\r\nGrpc-Status: 0\r\n", refused.join("\r\n"));
    let body = format!("1\r\na\r\n0\r\n{trailers}\r\n");
    let response = exchange(gateway.proxy(), "POST", chunked(&body).as_bytes());
    assert_eq!(response.status, 200);
    let expected = [("X-Checksum".to_owned(), "1".to_owned()), ("Grpc-Status".to_owned(), "0".to_owned())];
    assert_eq!(backend.requests()[0].trailers, expected);
    gateway.stop();
}

#[test]
fn bodies_of_get_head_and_options_follow_their_framing() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        let before = backend.request_count();
        let mut client = RawClient::connect(gateway.proxy());
        // The body looks like a request: a reader that ignores bodies of GET would serve it.
        client
            .send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{NEXT}", NEXT.len()).as_bytes());
        assert_eq!(client.read_response(method).status, 200, "{method}");
        client.expect_silence(Duration::from_millis(50));
        let requests = backend.requests();
        assert_eq!(requests.len(), before + 1, "{method}: the body was taken for a request");
        assert_eq!(requests[before].body, NEXT.as_bytes(), "{method}");
    }
    gateway.stop();
}

/// pingora 2025-0037: a body that nobody read must not become the next request.
#[test]
fn an_unread_body_is_drained_or_the_connection_closed() {
    let backend = Backend::echo();
    let config = with_plugins(&one_route(&backend.url()), &["{name: request-termination, config: {status_code: 403}}"]);
    let gateway = Gateway::start(&config);
    let mut client = RawClient::connect(gateway.proxy());
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{NEXT}{NEXT}", NEXT.len()).as_bytes());
    assert_eq!(client.read_response("POST").status, 403);
    assert_eq!(client.read_response("GET").status, 403, "the second copy is a request");
    client.expect_silence(Duration::from_millis(100));

    // In pieces: the rest comes after the answer.
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc");
    let response = client.read_response("POST");
    assert_eq!(response.status, 403);
    assert!(!response.closes(), "a small rest is drained");
    client.send(&[b'x'; 997]);
    client.send(NEXT.as_bytes());
    assert_eq!(client.read_response("GET").status, 403);

    // Too much to drain, or of unknown length: closed.
    for head in ["Content-Length: 100000000", "Transfer-Encoding: chunked"] {
        let mut client = RawClient::connect(gateway.proxy());
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n").as_bytes());
        let response = client.read_response("POST");
        assert!(response.status == 403 && response.closes(), "{head}: {:?}", response.headers);
        client.expect_closed();
    }
    assert_eq!(backend.request_count(), 0);
    gateway.stop();
}

#[test]
fn a_body_beyond_the_limit_is_413() {
    let backend = Backend::echo();
    let gateway = Gateway::builder(&one_route(&backend.url())).env("KONG_CLIENT_MAX_BODY_SIZE", "1k").start();
    let full = "x".repeat(1024);
    let accepted = http(gateway.proxy(), "POST /", &[], full.as_bytes());
    assert_eq!(accepted.status, 200, "exactly the limit: {}", accepted.text());
    let chunk = format!("400\r\n{full}\r\n");
    for request in [
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n{full}x"),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n".to_owned(),
        chunked(&format!("{chunk}1\r\nx\r\n0\r\n\r\n")),
        chunked(&chunk.repeat(20)),
    ] {
        let mut client = RawClient::connect(gateway.proxy());
        let _ = client.try_send(request.as_bytes());
        let response = client.read_response("POST");
        assert_eq!(response.status, 413, "{request:.80?}");
        assert!(response.closes());
        client.expect_closed();
    }
    assert_eq!(backend.request_count(), 1);
    gateway.stop();
}

#[test]
fn continue_is_sent_when_the_body_is_wanted() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.read_response("POST").status, 100);
    assert_eq!(backend.request_count(), 0, "the body has not been sent");
    client.send(b"wiki");
    let response = client.read_response("POST");
    assert_eq!((response.status, response.json()["body"].as_str()), (200, Some("wiki")));
    assert_eq!(backend.requests()[0].header("expect"), None, "the gateway has met the expectation itself");

    // A body that is there already needs no invitation; one without a body neither.
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nwiki",
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nwiki",
    ] {
        let mut client = RawClient::connect(gateway.proxy());
        client.send(request.as_bytes());
        assert_eq!(client.read_response("POST").status, 200, "{request}");
    }
    gateway.stop();
}

#[test]
fn an_early_final_response_to_expect_closes() {
    let gateway = Gateway::start("_format_version: '3.0'\n");
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    let response = client.read_response("POST");
    assert_eq!(response.status, 404, "no 100 before it");
    assert!(response.closes(), "whether the body follows cannot be known");
    client.expect_closed();
    gateway.stop();
}

#[test]
fn slow_heads_and_bodies_are_cut_by_deadline() {
    let backend = Backend::echo();
    let gateway = Gateway::builder(&one_route(&backend.url()))
        .env("GATEWARD_CLIENT_HEADER_TIMEOUT", "500ms")
        .env("GATEWARD_CLIENT_BODY_TIMEOUT", "500ms")
        .env("GATEWARD_KEEPALIVE_TIMEOUT", "500ms")
        .start();
    // Trickling does not help: the deadline is for the whole head.
    let mut client = RawClient::connect(gateway.proxy());
    let began = Instant::now();
    let mut trickle = client.stream().try_clone().expect("sockets can be cloned");
    let dripping = std::thread::spawn(move || {
        let _ = trickle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n");
        for _ in 0..30 {
            pause(Duration::from_millis(100));
            if trickle.write_all(b"X: y\r\n").is_err() {
                return;
            }
        }
    });
    let response = client.read_response("GET");
    assert_eq!(response.status, 408);
    assert!(response.closes() && began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
    client.expect_closed();
    dripping.join().expect("the drip does not panic");

    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(client.read_response("POST").status, 408, "a body that stops");
    client.expect_closed();

    let mut client = RawClient::connect(gateway.proxy());
    client.expect_closed();
    let mut client = RawClient::connect(gateway.proxy());
    client.send(NEXT.as_bytes());
    assert_eq!(client.read_response("GET").status, 200);
    client.expect_closed();
    gateway.stop();
}

#[test]
fn a_body_slower_than_the_least_rate_is_cut() {
    let backend = Backend::echo();
    let gateway = Gateway::builder(&one_route(&backend.url())).env("GATEWARD_CLIENT_BODY_TIMEOUT", "1s").start();
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    let mut trickle = client.stream().try_clone().expect("sockets can be cloned");
    let dripping = std::thread::spawn(move || {
        for _ in 0..100 {
            pause(Duration::from_millis(50));
            if trickle.write_all(b"x").is_err() {
                return;
            }
        }
    });
    assert_eq!(client.read_response("POST").status, 408, "no pause is long, but the whole is too slow");
    client.expect_closed();
    dripping.join().expect("the drip does not panic");
    gateway.stop();
}

/// Memory per connection is bounded: what thousands of half-sent heads cost is a small buffer each.
#[test]
fn load_slow_clients() {
    const CLIENTS: usize = 2_000;
    let backend = Backend::scripted(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Next::KeepAlive
    });
    let gateway = Gateway::start(&one_route(&backend.url()));
    assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 200);
    let idle_kib = gateway.rss_kib();
    let mut clients: Vec<RawClient> = (0..CLIENTS).map(|_| RawClient::connect(gateway.proxy())).collect();
    eventually(Duration::from_secs(20), || {
        gateward_e2e::Metrics::scrape(&gateway).sum("gateward_connections_active", &[]) >= CLIENTS as f64
    });
    pause(Duration::from_millis(200));
    let connected_kib = gateway.rss_kib();
    let filler = "x".repeat(4_000);
    for client in &mut clients {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Filler: {filler}").as_bytes());
    }
    pause(Duration::from_millis(500));
    let half_kib = gateway.rss_kib();
    let per_idle = (connected_kib.saturating_sub(idle_kib) * 1024) / CLIENTS as u64;
    let per_half = (half_kib.saturating_sub(idle_kib) * 1024) / CLIENTS as u64;
    println!("bytes per connection: idle {per_idle}, with 4 KB of a head {per_half}");
    assert!(per_idle < 8 * 1024, "an idle connection costs {per_idle} bytes");
    assert!(per_half < 48 * 1024, "a connection with 4 KB of a head costs {per_half} bytes");

    // All the while others are served, and in the end the slow ones too.
    assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 200);
    for client in clients.iter_mut().step_by(100) {
        client.send(b"\r\n\r\n");
        assert_eq!(client.read_response("GET").status, 200);
    }
    // The rest would be waited for until the shutdown's time-out.
    drop(clients);
    gateway.stop();
}
