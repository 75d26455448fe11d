//! Misbehaving upstreams: a client gets a well-formed response or a broken connection, never somebody else's
//! bytes and never a clean end of something incomplete.

use gateward_e2e::{one_route, with_service_fields};
use gateward_testkit::{Backend, Gateway, Next, RawClient, RawResponse, WireError, eventually, http, pause};
use std::io::Write;
use std::time::Duration;

const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A back end that answers requests for `/bad` with these bytes, others in order.
fn backend_with(response: &'static [u8]) -> Backend {
    Backend::scripted(move |request, stream| {
        let bytes = if request.target.starts_with("/bad") { response } else { PLAIN.as_bytes() };
        // When the gateway has closed, reading the next request finds out.
        let _ = stream.write_all(bytes);
        Next::KeepAlive
    })
}

/// One worker, so that there is one pool of upstream connections.
fn start(backend: &Backend) -> Gateway {
    Gateway::builder(&with_service_fields(&backend.url(), "retries: 0, read_timeout: 2000")).workers(1).start()
}

#[track_caller]
fn get(client: &mut RawClient, path: &str) -> RawResponse {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    client.read_response("GET")
}

#[test]
fn malformed_heads_become_502() {
    let cases: [&'static [u8]; 19] = [
        b"garbage\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2,3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nraw",
    ];
    for response in cases {
        let backend = backend_with(response);
        let gateway = start(&backend);
        let mut client = RawClient::connect(gateway.proxy());
        let shown = response.escape_ascii();
        let answer = get(&mut client, "/bad");
        assert_eq!(answer.status, 502, "{shown}: {}", answer.text());
        assert_eq!(answer.json()["message"], "An invalid response was received from the upstream server");
        // The client did nothing wrong and may go on; the upstream connection is not used again.
        assert_eq!(get(&mut client, "/").body, b"ok", "{shown}");
        assert_eq!(backend.connections(), 2, "{shown}");
        gateway.stop();
    }
}

#[test]
fn an_oversized_head_becomes_502() {
    let backend = Backend::scripted(|_, stream| {
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(200_000)).as_bytes());
        Next::Close
    });
    let gateway = start(&backend);
    assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 502);
    gateway.stop();
}

/// The response is fine for the client, but what follows it on the upstream connection cannot be trusted.
#[test]
fn doubtful_connections_are_not_used_again() {
    let cases: [(&str, &'static [u8], &[u8]); 8] = [
        (
            "GET",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            b"hi",
        ),
        (
            "GET",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
            b"hi",
        ),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison", b""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", b""),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", b""),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", b""),
        ("GET", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    ];
    for (method, response, body) in cases {
        let backend = backend_with(response);
        let gateway = start(&backend);
        let mut client = RawClient::connect(gateway.proxy());
        let shown = response.escape_ascii();
        client.send(format!("{method} /bad HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let answer = client.read_response(method);
        assert_eq!(answer.body, body, "{shown}");
        assert!(answer.header_all("content-length").len() <= 1, "{shown}");
        // Give bytes that come late the time to do so.
        pause(Duration::from_millis(20));
        assert_eq!(get(&mut client, "/").body, b"ok", "{method} {shown}");
        assert_eq!(backend.connections(), 2, "{method} {shown}");
        gateway.stop();
    }
}

#[test]
fn a_length_beside_chunked_is_not_passed_on() {
    let backend =
        backend_with(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    let gateway = start(&backend);
    let answer = http(gateway.proxy(), "GET /bad", &[], b"");
    assert_eq!(answer.header("content-length"), None);
    assert_eq!(answer.header_all("transfer-encoding"), ["chunked"]);
    gateway.stop();
}

#[test]
fn unsolicited_bytes_on_an_idle_connection_discard_it() {
    let backend = Backend::scripted(|request, stream| {
        let _ = stream.write_all(PLAIN.as_bytes());
        if request.target == "/bad" {
            pause(Duration::from_millis(50));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
        }
        Next::KeepAlive
    });
    let gateway = start(&backend);
    let mut client = RawClient::connect(gateway.proxy());
    assert_eq!(get(&mut client, "/bad").body, b"ok");
    pause(Duration::from_millis(150));
    assert_eq!(get(&mut client, "/").body, b"ok", "the unsolicited response must not be taken for ours");
    assert_eq!(backend.connections(), 2);
    assert_eq!(get(&mut client, "/").body, b"ok");
    assert_eq!(backend.connections(), 2, "an honest connection is used again");
    gateway.stop();
}

/// An upstream that breaks off: the client must notice, whatever the framing on both sides.
#[test]
fn a_body_cut_short_is_never_a_clean_end() {
    let cases: [&'static [u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\npart",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nxyz\r\n",
    ];
    for response in cases {
        for version in ["1.1", "1.0"] {
            for end in [Next::Close, Next::Reset] {
                let backend = Backend::scripted(move |_, stream| {
                    let _ = stream.write_all(response);
                    pause(Duration::from_millis(20));
                    end
                });
                let gateway = start(&backend);
                let mut client = RawClient::connect(gateway.proxy());
                client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes());
                match client.try_read_response("GET") {
                    Err(WireError::CutShort { .. } | WireError::Io(_) | WireError::Closed) => {}
                    outcome => panic!("{} to HTTP/{version}, {end:?}: {outcome:?}", response.escape_ascii()),
                }
                gateway.stop();
            }
        }
    }
}

#[test]
fn an_upstream_that_closes_before_its_head_is_502() {
    for end in [Next::Close, Next::Reset] {
        for part in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
            let backend = Backend::scripted(move |_, stream| {
                let _ = stream.write_all(part.as_bytes());
                end
            });
            let gateway = start(&backend);
            let answer = http(gateway.proxy(), "GET /", &[], b"");
            assert_eq!(answer.status, 502, "{end:?} after {part:?}");
            gateway.stop();
        }
    }
}

#[test]
fn responses_without_body_have_none() {
    let backend = Backend::scripted(|request, stream| {
        let response: &[u8] = match request.target.as_str() {
            "/204" => b"HTTP/1.1 204 No Content\r\n\r\n",
            "/204-length" => b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n",
            "/head-chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
        };
        let _ = stream.write_all(response);
        Next::KeepAlive
    });
    let gateway = start(&backend);
    let mut client = RawClient::connect(gateway.proxy());
    for (method, path, status, length) in [
        ("GET", "/204", 204, None),
        ("GET", "/204-length", 204, None),
        ("GET", "/304", 304, Some("1234")),
        ("HEAD", "/", 200, Some("1234")),
        ("HEAD", "/head-chunked", 200, None),
    ] {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let answer = client.read_response(method);
        assert_eq!((answer.status, answer.header("content-length")), (status, length), "{method} {path}");
        assert!(!answer.closes(), "{method} {path}");
        client.expect_silence(Duration::from_millis(30));
    }
    gateway.stop();
}

#[test]
fn hop_by_hop_fields_of_responses_stay_here() {
    let backend = Backend::fixed(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Nominated, Set-Cookie\r\nX-Nominated: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: x\r\nProxy-Authenticate: x\r\nUpgrade: h2c\r\nTrailer: X-T\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\
         X-Kept: 2\r\nContent-Length: 0\r\n\r\n",
    );
    let gateway = Gateway::start(&one_route(&backend.url()));
    let answer = http(gateway.proxy(), "GET /", &[], b"");
    for name in ["x-nominated", "keep-alive", "proxy-connection", "proxy-authenticate", "upgrade", "trailer"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header_all("set-cookie"), ["a=b", "c=d"]);
    assert_eq!(answer.header("x-kept"), Some("2"));
    gateway.stop();
}

#[test]
fn unusual_but_valid_responses_pass() {
    let backend = Backend::scripted(|request, stream| {
        let response: &[u8] = match request.target.as_str() {
            "/no-reason" => b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
            "/599" => b"HTTP/1.1 599 Odd Code\r\nContent-Length: 2\r\n\r\nok",
            "/twice" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
            "/extensions" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
            _ => b"HTTP/1.1 200 Fine By Me\r\nContent-Length: 2\r\nX-Latin: \xe4\r\n\r\nok",
        };
        let _ = stream.write_all(response);
        Next::KeepAlive
    });
    let gateway = start(&backend);
    for (path, status) in [("/no-reason", 200), ("/599", 599), ("/twice", 200), ("/extensions", 200), ("/", 200)] {
        let answer = http(gateway.proxy(), &format!("GET {path}"), &[], b"");
        assert_eq!((answer.status, answer.body.as_slice()), (status, &b"ok"[..]), "{path}");
        assert!(answer.header_all("content-length").len() <= 1, "{path}");
    }
    assert_eq!(http(gateway.proxy(), "GET /", &[], b"").reason, "Fine By Me");
    assert_eq!(http(gateway.proxy(), "GET /extensions", &[], b"").trailers, [("X-T".to_owned(), "1".to_owned())]);
    gateway.stop();
}

#[test]
fn a_client_that_leaves_frees_the_upstream() {
    let backend = Backend::scripted(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = [b'x'; 16 * 1024];
        while stream.write_all(&piece).is_ok() {}
        Next::Close
    });
    let gateway = start(&backend);
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!client.read_some().is_empty());
    drop(client);
    eventually(Duration::from_secs(5), || backend.open_connections() == 0);
    gateway.stop();
}
