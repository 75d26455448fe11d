//! The kit against itself: the raw client and the load against backends, and a stand-in for the gateway.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use gateward_testkit::load::Load;
use gateward_testkit::{Backend, Gateway, GatewayBuilder, Next, RawClient, WireError, eventually, http, pause, reset};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn echo_describes_requests_in_order() {
    let backend = Backend::echo();
    let mut client = RawClient::connect(backend.addr());
    client.send(b"GET /a HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nx-one:  2 \r\n\r\n");
    client.send(b"POST /b?c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n");
    let first = client.read_response("GET").json();
    assert_eq!(first["headers"][1], serde_json::json!(["X-One", "1"]));
    assert_eq!(first["headers"][2], serde_json::json!(["x-one", "2"]));
    let second = client.read_response("POST").json();
    assert_eq!(second["body"], "abc");
    assert_eq!(second["target"], "/b?c");
    assert_eq!(second["trailers"][0][0], "T");
    assert_eq!((&second["connection"], &second["request"]), (&1.into(), &2.into()));
    let requests = backend.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].header_all("X-ONE"), ["1", "2"]);
    assert!(requests[1].bytes.starts_with(b"POST /b?c HTTP/1.1\r\n"));
    assert_eq!((backend.request_count(), backend.connections()), (2, 1));
}

#[test]
fn one_shot_requests_close_and_frame_bodies() {
    let backend = Backend::echo();
    let response = http(backend.addr(), "POST /x", &[("A", "b")], b"hello");
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["body"], "hello");
    let received = &backend.requests()[0];
    assert_eq!(received.header("content-length"), Some("5"));
    assert_eq!(received.header("connection"), Some("close"));
    assert!(http(backend.addr(), "HEAD /", &[], b"").body.is_empty());
    eventually(SECOND, || backend.open_connections() == 0);
}

#[test]
fn responses_of_every_framing() {
    let backend = Backend::scripted(|request, stream| {
        let (bytes, next): (&[u8], Next) = match request.target.as_str() {
            "/length" => (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Next::KeepAlive),
            "/chunked" => (
                b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n1\r\n!\r\n0\r\nE: f\r\n\r\n",
                Next::KeepAlive,
            ),
            "/none" => (b"HTTP/1.1 204 No Content\r\n\r\n", Next::KeepAlive),
            "/interim" => {
                (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", Next::KeepAlive)
            }
            _ => (b"HTTP/1.0 200 OK\r\n\r\nto the end", Next::Close),
        };
        // In two pieces, so that reading must go on.
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        stream.write_all(head).unwrap();
        pause(Duration::from_millis(10));
        stream.write_all(tail).unwrap();
        next
    });
    let mut client = RawClient::connect(backend.addr());
    let mut ask = |target: &str| {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        client.read_final_response("GET")
    };
    assert_eq!(ask("/length").text(), "ok");
    let chunked = ask("/chunked");
    assert_eq!((chunked.status, chunked.text().as_str()), (201, "ok!"));
    assert_eq!(chunked.trailers, [("E".to_owned(), "f".to_owned())]);
    assert!(chunked.bytes.ends_with(b"E: f\r\n\r\n") && !chunked.closes());
    assert_eq!(ask("/none").status, 204);
    assert_eq!(ask("/interim").status, 200);
    let last = ask("/close");
    assert_eq!(last.text(), "to the end");
    assert!(last.closes());
    client.expect_closed();
}

#[test]
fn broken_responses_are_told_apart() {
    let backend = Backend::scripted(|request, stream| {
        let bytes: &[u8] = match request.target.as_str() {
            "/short" => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
            "/garbage" => b"hello\r\n\r\n",
            "/bare-lf" => b"HTTP/1.1 200 OK\n\n",
            "/chunk" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nok\r\n",
            "/lengths" => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\no",
            "/reset" => return Next::Reset,
            _ => b"",
        };
        stream.write_all(bytes).unwrap();
        Next::Close
    });
    let ask = |target: &str| {
        let mut client = RawClient::connect(backend.addr());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        client.try_read_response("GET").unwrap_err()
    };
    assert!(matches!(ask("/short"), WireError::CutShort { received } if received.ends_with(b"ok")));
    for target in ["/garbage", "/bare-lf", "/chunk", "/lengths"] {
        assert!(matches!(ask(target), WireError::Malformed { .. }), "{target}");
    }
    assert!(matches!(ask("/reset"), WireError::Io(_)));
    assert!(matches!(ask("/nothing"), WireError::Closed));
}

#[test]
fn reading_gives_up_at_the_deadline() {
    let backend = Backend::raw(|_, mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
        // Until the client has gone.
        let _ = stream.read(&mut [0]);
    });
    let mut client = RawClient::connect(backend.addr());
    assert_eq!(client.read_some(), b"HTTP/1.1 200 OK\r\n");
    client.expect_silence(Duration::from_millis(50));
    client.set_timeout(Duration::from_millis(100));
    let started = Instant::now();
    assert!(matches!(client.try_read_response("GET"), Err(WireError::Timeout { .. })));
    assert!(started.elapsed() < SECOND);
    assert!(backend.requests().is_empty());
}

#[test]
fn expectations_are_answered_before_the_body() {
    let backend = Backend::echo();
    let mut client = RawClient::connect(backend.addr());
    client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.read_response("PUT").status, 100);
    client.send(b"hi");
    assert_eq!(client.read_response("PUT").json()["body"], "hi");
}

#[test]
fn raw_backends_reset_and_dropped_backends_cut() {
    let backend = Backend::raw(|_, stream| reset(stream));
    let mut client = RawClient::connect(backend.addr());
    assert!(client.read_to_close(SECOND).is_empty());

    let backend = Backend::echo();
    let addr = backend.addr();
    let mut client = RawClient::connect(addr);
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.read_response("GET");
    drop(backend);
    client.expect_closed();
    assert!(RawClient::try_connect(addr).is_err());
}

#[test]
fn load_counts_every_answer() {
    let backend = Backend::scripted(|request, stream| {
        // Announced closing is no failure.
        let (close, next) =
            if request.number == 5 { ("Connection: close\r\n", Next::Close) } else { ("", Next::KeepAlive) };
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{close}\r\nok");
        stream.write_all(response.as_bytes()).unwrap();
        next
    });
    let report = Load::get(backend.addr(), "/").connections(3).run(Duration::from_millis(200));
    report.assert_all_ok();
    assert_eq!(report.ok, backend.request_count() as u64);
    assert_eq!(report.by_status[&200], report.ok);
    assert_eq!(report.connects, backend.connections() as u64);
    assert!(report.connects >= report.ok / 5 && report.latencies.max() > Duration::ZERO);
}

#[test]
fn load_replaces_connections_closed_while_idle() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let load = Load::get(backend.addr(), "/").interval(Duration::from_millis(40)).start();
    for round in 1..4 {
        eventually(SECOND, || backend.request_count() >= round);
        pause(Duration::from_millis(10));
        backend.close_connections();
    }
    let report = load.stop();
    report.assert_all_ok();
    assert!(report.connects >= 3, "{report:?}");
}

#[test]
fn load_is_strict_about_requests_without_answer() {
    let backend = Backend::scripted(|request, stream| match request.number {
        1 => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            Next::KeepAlive
        }
        _ => Next::Close,
    });
    let report = Load::get(backend.addr(), "/").run(Duration::from_millis(100));
    assert!(report.failed > 0 && report.ok > 0, "{report:?}");
    assert!(report.failures[0].contains("before the first byte"), "{report:?}");

    let backend = Backend::fixed("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy");
    let report = Load::get(backend.addr(), "/").run(Duration::from_millis(50));
    assert_eq!((report.ok, report.by_status[&503]), (0, report.failed));
    assert_eq!(report.failures[0], "status 503: busy");
}

#[test]
fn load_counts_refused_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let report = Load::get(addr, "/").run(Duration::from_millis(20));
    assert!(report.failed > 0 && report.failures[0].starts_with("connecting"), "{report:?}");
}

/// A gateway whose place a shell script takes.
fn stand_in(config: &str, script: &str) -> GatewayBuilder {
    Gateway::builder(config)
        .binary(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand-in.sh"))
        .env("STAND_IN_SCRIPT", script)
}

const READY: &str = r#"echo '{"event":"ready","proxy":["127.0.0.1:7001"],"admin":["127.0.0.1:7002"],"status":["127.0.0.1:7003"],"pid":1}'"#;

#[test]
fn a_gateway_starts_reloads_and_stops() {
    let script = format!(
        "trap 'echo stopping >&2; exit 0' TERM\n\
         trap 'cat \"$3\" >&2' HUP\n\
         echo \"args $* $GREETING\" >&2\n{READY}\nwhile :; do sleep 0.02; done"
    );
    let mut gateway = stand_in("before\n", &script).arg("--extra").env("GREETING", "hello").workers(3).start();
    assert_eq!(gateway.proxy().port(), 7001);
    assert_eq!(gateway.admin().port(), 7002);
    assert_eq!(gateway.status().port(), 7003);
    assert!(gateway.is_running() && gateway.rss_kib() > 100);
    let has = |gateway: &Gateway, text: &str| gateway.log().iter().any(|line| line.contains(text));
    eventually(5 * SECOND, || has(&gateway, "--workers 3 --format json --extra hello"));
    gateway.write_config("after\n");
    gateway.sighup();
    eventually(5 * SECOND, || has(&gateway, "after"));
    assert!(!has(&gateway, "before"));
    gateway.assert_no_errors();
    let dir = gateway.dir().to_owned();
    gateway.sigterm();
    assert!(gateway.wait_exit(5 * SECOND).success());
    assert!(has(&gateway, "stopping"));
    drop(gateway);
    assert!(!dir.exists());
}

#[test]
fn a_gateway_that_fails_tells_why() {
    let error = stand_in("", "echo 'kong.yml:1:1: bad' >&2; exit 3").try_start().unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("kong.yml:1:1: bad"), "{error}");
}

#[test]
fn logged_errors_fail_unless_expected() {
    let script = format!("echo 't ERROR x: first' >&2; echo 't ERROR x: second' >&2\n{READY}\nexec sleep 60");
    let mut gateway = stand_in("", &script).start();
    eventually(5 * SECOND, || gateway.log().iter().any(|line| line.contains("second")));
    gateway.expect_error("second");
    let check = || gateway.assert_no_errors();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).unwrap_err();
    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(text.contains("first") && !text.contains("second"), "{text}");
    gateway.expect_error("first");
    gateway.assert_no_errors();
}
