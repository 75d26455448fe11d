//! Bodies in both directions: every framing, back-pressure, pipelining, interim responses, early answers.

use gateward_e2e::{echoed_header, one_route, with_service_fields};
use gateward_testkit::{Backend, Gateway, Next, RawClient, eventually, http, pause};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const MIB: u64 = 1024 * 1024;
/// What the gateway may add to its memory while a slow peer holds up a large body; socket buffers are the kernel's.
const HELD_KIB_MAX: u64 = 8 * 1024;

/// Writes `total` bytes as fast as the peer takes them, counting.
fn pour(stream: &mut TcpStream, total: u64, sent: &AtomicU64) {
    let piece = vec![b'x'; 64 * 1024];
    let mut left = total;
    while left > 0 {
        let count = left.min(piece.len() as u64);
        if stream.write_all(&piece[..count as usize]).is_err() {
            return;
        }
        left -= count;
        sent.fetch_add(count, Ordering::SeqCst);
    }
}

/// Reads up to `total` bytes and throws them away; how many came.
fn swallow(stream: &mut TcpStream, total: u64) -> u64 {
    let mut piece = vec![0; 256 * 1024];
    let mut got = 0;
    while got < total {
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => got += count as u64,
            _ => return got,
        }
    }
    got
}

/// Waits until a counter stands still, and gives it.
fn settled(counter: &AtomicU64) -> u64 {
    let mut last = counter.load(Ordering::SeqCst);
    let mut still = 0;
    while still < 3 {
        pause(Duration::from_millis(100));
        let now = counter.load(Ordering::SeqCst);
        still = if now == last { still + 1 } else { 0 };
        last = now;
    }
    last
}

#[test]
fn a_slow_reader_holds_up_the_upstream_not_memory() {
    const TOTAL: u64 = 200 * MIB;
    let sent = Arc::new(AtomicU64::new(0));
    let backend = Backend::scripted({
        let sent = Arc::clone(&sent);
        move |request, stream| {
            if request.target == "/warm" {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                return Next::KeepAlive;
            }
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n").as_bytes());
            pour(stream, TOTAL, &sent);
            Next::KeepAlive
        }
    });
    let gateway = Gateway::start(&one_route(&backend.url()));
    assert_eq!(http(gateway.proxy(), "GET /warm", &[], b"").status, 200);
    let before_kib = gateway.rss_kib();
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read_some();
    let head_length = head.windows(4).position(|window| window == b"\r\n\r\n").expect("the head came at once") + 4;
    let held = settled(&sent);
    assert!(held < TOTAL / 2, "{held} bytes went out although nobody read: no back-pressure");
    let grown_kib = gateway.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < HELD_KIB_MAX, "the gateway grew by {grown_kib} KiB behind a slow reader");
    let rest = TOTAL - (head.len() - head_length) as u64;
    client.stream().set_read_timeout(Some(Duration::from_secs(20))).expect("the timeout is not zero");
    assert_eq!(swallow(client.stream(), rest), rest, "all of it arrives in the end");
    let grown_kib = gateway.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < HELD_KIB_MAX, "the gateway grew by {grown_kib} KiB");
    gateway.stop();
}

#[test]
fn a_slow_upstream_holds_up_the_client_not_memory() {
    const TOTAL: u64 = 200 * MIB;
    let go = Arc::new(AtomicBool::new(false));
    let backend = Backend::raw({
        let go = Arc::clone(&go);
        move |_, mut stream| {
            eventually(Duration::from_secs(30), || go.load(Ordering::SeqCst));
            let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
            let got = swallow(&mut stream, TOTAL);
            let body = got.to_string();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            // The rest: the head counted too.
            let _ = stream.shutdown(Shutdown::Write);
            swallow(&mut stream, u64::MAX);
        }
    });
    let gateway = Gateway::start(&one_route(&backend.url()));
    let before_kib = gateway.rss_kib();
    let mut client = RawClient::connect(gateway.proxy());
    client.set_timeout(Duration::from_secs(30));
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {TOTAL}\r\n\r\n").as_bytes());
    let sent = Arc::new(AtomicU64::new(0));
    let mut stream = client.stream().try_clone().expect("sockets can be cloned");
    let pouring = std::thread::spawn({
        let sent = Arc::clone(&sent);
        move || pour(&mut stream, TOTAL, &sent)
    });
    let held = settled(&sent);
    assert!(held < TOTAL / 2, "{held} bytes were taken although the upstream read none: no back-pressure");
    go.store(true, Ordering::SeqCst);
    assert_eq!(client.read_response("POST").status, 200);
    pouring.join().expect("pouring does not panic");
    let grown_kib = gateway.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < HELD_KIB_MAX, "the gateway grew by {grown_kib} KiB behind a slow upstream");
    gateway.stop();
}

#[test]
fn response_framings() {
    let long = "0123456789".repeat(50_000);
    let chunks: String = long.as_bytes().chunks(7_001).fold(String::new(), |mut text, chunk| {
        text += &format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk));
        text
    });
    let cases = [
        ("length", format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}", long.len()), Next::KeepAlive),
        ("chunked", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"), Next::KeepAlive),
        ("until-close", format!("HTTP/1.1 200 OK\r\n\r\n{long}"), Next::Close),
        ("http10", format!("HTTP/1.0 200 OK\r\n\r\n{long}"), Next::Close),
    ];
    for (name, response, next) in cases {
        let backend = Backend::scripted(move |_, stream| {
            let _ = stream.write_all(response.as_bytes());
            next
        });
        let gateway = Gateway::start(&one_route(&backend.url()));
        let mut client = RawClient::connect(gateway.proxy());
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.read_response("GET");
        assert!(answer.text() == long, "{name}: {} bytes of {}", answer.body.len(), long.len());
        assert!(!answer.closes(), "{name}: HTTP/1.1 clients keep their connection");
        let old = gateward_e2e::exchange(gateway.proxy(), "GET", b"GET / HTTP/1.0\r\n\r\n");
        assert!(old.text() == long && old.closes(), "{name} to HTTP/1.0: {} bytes", old.body.len());
        assert_eq!(old.header("transfer-encoding"), None, "{name}: HTTP/1.0 clients do not know chunked");
        gateway.stop();
    }
}

#[test]
fn request_framings() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    for size in [0, 1, 100, 16 * 1024, 16 * 1024 + 1, 64 * 1024, 1_000_000] {
        let body = "b".repeat(size);
        let answer = http(gateway.proxy(), "POST /", &[], body.as_bytes());
        assert_eq!(answer.json()["body"].as_str().map(str::len), Some(size), "Content-Length: {size}");
        let chunks = if size == 0 { String::new() } else { format!("{size:x}\r\n{body}\r\n") };
        let chunked = format!("{chunks}0\r\nX-T: 1\r\n\r\n");
        let answer = http(gateway.proxy(), "PUT /", &[("Transfer-Encoding", "chunked")], chunked.as_bytes());
        assert_eq!(answer.json()["body"].as_str().map(str::len), Some(size), "chunked: {size}");
        assert_eq!(answer.json()["trailers"][0][0], "X-T");
    }
    let bare = http(gateway.proxy(), "GET /", &[], b"");
    for name in ["content-length", "transfer-encoding"] {
        assert_eq!(echoed_header(&bare, name), None, "no body, no {name}");
    }
    gateway.stop();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    let mut requests = String::new();
    for index in 0..50 {
        requests += &match index % 3 {
            0 => format!("GET /{index} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("POST /{index} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nbody{}", index % 10),
            _ => format!(
                "POST /{index} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbody{}\r\n0\r\n\r\n",
                index % 10
            ),
        };
    }
    client.send(requests.as_bytes());
    for index in 0..50 {
        let answer = client.read_response("GET").json();
        assert_eq!(answer["target"], format!("/{index}"));
        let body = if index % 3 == 0 { String::new() } else { format!("body{}", index % 10) };
        assert_eq!(answer["body"], body);
    }
    gateway.stop();
}

#[test]
fn keep_alive_and_close_on_both_versions() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    for (request, closes) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n", true),
        ("GET / HTTP/1.0\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", true),
    ] {
        let mut client = RawClient::connect(gateway.proxy());
        client.send(request.as_bytes());
        let answer = client.read_response("GET");
        assert_eq!((answer.status, answer.closes()), (200, closes), "{request}");
        if closes {
            client.expect_closed();
        } else {
            client.send(request.as_bytes());
            assert_eq!(client.read_response("GET").status, 200, "{request} again");
        }
    }
    gateway.stop();
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    let backend = Backend::scripted(|_, stream| {
        pause(Duration::from_millis(100));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Next::KeepAlive
    });
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.finish_sending();
    assert_eq!(client.read_response("GET").body, b"ok");
    client.expect_closed();
    gateway.stop();
}

/// Each answer may wait for room behind others, and nobody waits for the last of them.
#[test]
fn a_pipelining_client_that_reads_late_gets_every_answer_after_its_end() {
    const REQUESTS: usize = 1000;
    const LONG: usize = 12 * 1024;
    let served = Arc::new(AtomicU64::new(0));
    let backend = Backend::scripted({
        let served = Arc::clone(&served);
        move |request, stream| {
            served.fetch_add(1, Ordering::SeqCst);
            let body = format!("{:>LONG$}", request.target);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n{body}");
            Next::KeepAlive
        }
    });
    let refused =
        "routes: [{name: refused, paths: [/no], plugins: [{name: request-termination, config: {status_code: 403}}]}]\n";
    let gateway = Gateway::start(&(one_route(&backend.url()) + refused));
    let mut client = RawClient::connect(gateway.proxy());
    let refuses = |index: usize| index % 5 == 4;
    let requests = (0..REQUESTS).map(|index| {
        let path = if refuses(index) { "/no".to_owned() } else { format!("/{index}") };
        format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
    });
    client.send(requests.collect::<String>().as_bytes());
    client.finish_sending();
    let asked = settled(&served);
    assert!(asked < (REQUESTS - REQUESTS / 5) as u64, "who does not read is not served on: {asked}");
    for index in 0..REQUESTS {
        let answer = client.read_response("GET");
        if refuses(index) {
            assert_eq!(answer.status, 403, "{index}");
        } else {
            assert_eq!((answer.body.len(), answer.text().trim_start()), (LONG, &*format!("/{index}")));
        }
    }
    client.expect_closed();
    gateway.stop();
}

#[test]
fn interim_responses_pass_except_100() {
    let backend = Backend::fixed(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n\
         HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let hints = client.read_response("GET");
    assert_eq!((hints.status, hints.header("link"), hints.header("x-hop")), (103, Some("</a>"), None));
    assert_eq!(client.read_response("GET").status, 102);
    assert_eq!(client.read_response("GET").body, b"ok");
    let old = gateward_e2e::exchange(gateway.proxy(), "GET", b"GET / HTTP/1.0\r\n\r\n");
    assert!(old.bytes.starts_with(b"HTTP/1.1 200"), "HTTP/1.0 knows no interim responses");
    gateway.stop();
}

/// An upstream that refuses an upload early: its answer arrives although the body is not finished.
#[test]
fn an_early_answer_to_a_large_upload_arrives() {
    for end_at_once in [false, true] {
        let backend = Backend::raw(move |_, mut stream| {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope");
            if !end_at_once {
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                swallow(&mut stream, u64::MAX);
            }
        });
        let gateway = Gateway::start(&one_route(&backend.url()));
        let mut client = RawClient::connect(gateway.proxy());
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n");
        let _ = client.try_send(&vec![b'x'; 300_000]);
        let answer = client.read_response("POST");
        assert_eq!(answer.status, 403, "upstream closes at once: {end_at_once}");
        assert!(answer.closes(), "the rest of the body is not worth reading");
        gateway.stop();
    }
}

#[test]
fn after_an_early_answer_a_short_rest_is_read_and_the_connection_goes_on() {
    let backend = Backend::raw(|connection, mut stream| {
        let mut head = [0; 64 * 1024];
        let _ = stream.read(&mut head);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{connection}");
        swallow(&mut stream, u64::MAX);
    });
    let gateway = Gateway::builder(&one_route(&backend.url())).workers(1).start();
    let mut client = RawClient::connect(gateway.proxy());
    for connection in ["1", "2", "3"] {
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
        client.send(&[b'x'; 500]);
        let answer = client.read_response("POST");
        // The upstream has not taken the whole request, so its connection is not used again.
        assert_eq!((answer.text().as_str(), answer.closes()), (connection, false));
        client.send(&[b'x'; 500]);
    }
    gateway.stop();
}

#[test]
fn both_directions_stream_at_once() {
    // The back end sends each piece back before the next one comes.
    let backend = Backend::raw(|_, mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
            head.push(byte[0]);
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n");
        for _ in 0..3 {
            let mut piece = [0; 5];
            if stream.read_exact(&mut piece).is_err() || stream.write_all(&piece).is_err() {
                return;
            }
        }
    });
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n");
    let mut got = client.read_some();
    while !got.ends_with(b"\r\n\r\n") {
        got.extend(client.read_some());
    }
    for piece in [b"first", b"secnd", b"third"] {
        client.send(piece);
        let mut answer = Vec::new();
        while answer.len() < 5 {
            answer.extend(client.read_some());
        }
        assert_eq!(answer, piece);
    }
    gateway.stop();
}

#[test]
fn pieces_are_passed_on_as_they_come() {
    let backend = Backend::scripted(|_, stream| {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            let _ = stream.write_all(b"7\r\ndata: x\r\n");
            pause(Duration::from_millis(400));
        }
        let _ = stream.write_all(b"0\r\n\r\n");
        Next::KeepAlive
    });
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.set_timeout(Duration::from_millis(1_500));
    let began = std::time::Instant::now();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains("data: x") {
        got.extend(client.read_some());
    }
    assert!(began.elapsed() < Duration::from_millis(350), "the first event took {:?}", began.elapsed());
    gateway.stop();
}

#[test]
fn upstream_connections_are_used_again() {
    let backend = Backend::echo();
    let gateway = Gateway::builder(&one_route(&backend.url())).workers(1).start();
    for _ in 0..20 {
        assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 200);
        assert_eq!(http(gateway.proxy(), "POST /", &[], b"body").status, 200);
    }
    assert_eq!(backend.connections(), 1);
    gateway.stop();
}

#[test]
fn pool_settings_are_kept() {
    let backend = Backend::echo();
    let gateway = Gateway::builder(&with_service_fields(&backend.url(), "retries: 0"))
        .workers(1)
        .env("KONG_UPSTREAM_KEEPALIVE_MAX_REQUESTS", "5")
        .start();
    for _ in 0..20 {
        assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 200);
    }
    assert_eq!(backend.connections(), 4, "5 requests each");
    gateway.stop();

    let backend = Backend::echo();
    let gateway =
        Gateway::builder(&one_route(&backend.url())).workers(1).env("KONG_UPSTREAM_KEEPALIVE_POOL_SIZE", "0").start();
    for _ in 0..5 {
        assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 200);
    }
    assert_eq!(backend.connections(), 5, "no pool");
    gateway.stop();
}
