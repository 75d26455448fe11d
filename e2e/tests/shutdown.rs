//! How a gateway ends: readiness first, then no more connections, never a failed request.

use gateward_e2e::one_route;
use gateward_testkit::{Backend, Gateway, Next, RawClient, eventually, http, load::Load, pause};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn ready(gateway: &Gateway) -> u16 {
    http(gateway.status(), "GET /status/ready", &[], b"").status
}

#[test]
fn sigterm_ends_in_order() {
    let backend = Backend::echo();
    let mut gateway = Gateway::builder(&one_route(&backend.url())).env("GATEWARD_SHUTDOWN_GRACE", "2s").start();
    assert_eq!(ready(&gateway), 200);
    let mut idle = RawClient::connect(gateway.proxy());
    let mut busy = RawClient::connect(gateway.proxy());
    busy.send(REQUEST);
    assert!(!busy.read_response("GET").closes());

    gateway.sigterm();
    let began = Instant::now();
    eventually(Duration::from_secs(1), || ready(&gateway) == 503);
    // During the grace period: still accepting, and connections end with their next response.
    let fresh = http(gateway.proxy(), "GET /", &[("Connection", "keep-alive")], b"");
    assert!(fresh.status == 200 && fresh.closes(), "new connections are served, once: {:?}", fresh.headers);
    busy.send(REQUEST);
    let last = busy.read_response("GET");
    assert!(last.status == 200 && last.closes(), "{:?}", last.headers);
    busy.expect_closed();
    assert!(gateway.is_running() && began.elapsed() < Duration::from_secs(2), "the grace period has not passed");

    let status = gateway.wait_exit(Duration::from_secs(10));
    assert!(status.success(), "{status}");
    assert!(began.elapsed() >= Duration::from_millis(1_800), "the grace period was kept: {:?}", began.elapsed());
    idle.expect_closed();
    assert!(TcpStream::connect(gateway.proxy()).is_err(), "nobody listens any more");
    gateway.assert_no_errors();
}

#[test]
fn a_request_under_way_is_finished() {
    let backend = Backend::scripted(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n");
        pause(Duration::from_millis(1_000));
        let _ = stream.write_all(b"finished");
        Next::KeepAlive
    });
    let mut gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(REQUEST);
    eventually(Duration::from_secs(5), || backend.request_count() == 1);
    gateway.sigterm();
    assert_eq!(client.read_response("GET").body, b"finished");
    assert!(gateway.wait_exit(Duration::from_secs(10)).success());
    gateway.assert_no_errors();
}

#[test]
fn what_does_not_end_is_cut_off_after_a_while() {
    let backend = Backend::scripted(|_, _| {
        pause(Duration::from_secs(20));
        Next::Close
    });
    let mut gateway = Gateway::builder(&one_route(&backend.url())).env("GATEWARD_SHUTDOWN_TIMEOUT", "500ms").start();
    let mut client = RawClient::connect(gateway.proxy());
    client.send(REQUEST);
    eventually(Duration::from_secs(5), || backend.request_count() == 1);
    let began = Instant::now();
    gateway.sigterm();
    assert!(gateway.wait_exit(Duration::from_secs(5)).success());
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    assert!(client.try_read_response("GET").is_err());
    // The back end's script still sleeps.
    std::mem::forget(backend);
}

#[test]
fn a_second_signal_ends_at_once() {
    let backend = Backend::echo();
    let mut gateway = Gateway::builder(&one_route(&backend.url())).env("GATEWARD_SHUTDOWN_GRACE", "30s").start();
    gateway.sigterm();
    eventually(Duration::from_secs(2), || ready(&gateway) == 503);
    let began = Instant::now();
    gateway.sigterm();
    gateway.wait_exit(Duration::from_secs(5));
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// Two processes share a port; the new one is ready before the old one is told to go; nobody notices.
#[test]
fn load_rolling_restart() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let config = one_route(&backend.url());
    let start =
        |listen: String| Gateway::builder(&config).env("GATEWARD_SHUTDOWN_GRACE", "1s").proxy_listen(listen).start();
    let mut old = start("127.0.0.1:0 reuseport".to_owned());
    let addr = old.proxy();
    let keep_alive = Load::get(addr, "/").connections(6).start();
    let closing = format!("GET / HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").into_bytes();
    let short = Load::request(addr, "GET", closing).connections(2).interval(Duration::from_millis(1)).start();
    for _ in 0..3 {
        pause(Duration::from_millis(500));
        let new = start(format!("{addr} reuseport"));
        eventually(Duration::from_secs(5), || ready(&new) == 200);
        old.sigterm();
        assert!(old.wait_exit(Duration::from_secs(20)).success());
        old.assert_no_errors();
        old = new;
    }
    pause(Duration::from_millis(300));
    for (name, load) in [("keep-alive", keep_alive), ("one request per connection", short)] {
        let report = load.stop();
        println!("{name}: {} requests over {} connections", report.ok, report.connects);
        report.assert_all_ok();
    }
    old.stop();
}
