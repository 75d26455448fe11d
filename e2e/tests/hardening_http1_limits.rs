//! Limits on connections, and clients that leave or stall at a bad moment.

use gateward_e2e::{Metrics, one_route};
use gateward_testkit::{Backend, Gateway, Next, RawClient, eventually, pause};
use std::io::Write;
use std::time::Duration;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn requests_per_connection_are_limited() {
    let backend = Backend::echo();
    let gateway = Gateway::builder(&one_route(&backend.url())).env("KONG_NGINX_HTTP_KEEPALIVE_REQUESTS", "3").start();
    let mut client = RawClient::connect(gateway.proxy());
    for closes in [false, false, true] {
        client.send(GET);
        let response = client.read_response("GET");
        assert_eq!((response.status, response.closes()), (200, closes));
    }
    client.expect_closed();
    gateway.stop();
}

#[test]
fn connections_per_address_are_limited() {
    let backend = Backend::echo();
    let gateway = Gateway::builder(&one_route(&backend.url())).arg("--max-connections-per-address=3").start();
    let mut clients: Vec<RawClient> = (0..3).map(|_| RawClient::connect(gateway.proxy())).collect();
    for client in &mut clients {
        client.send(GET);
        assert_eq!(client.read_response("GET").status, 200);
    }
    let mut refused = RawClient::connect(gateway.proxy());
    refused.expect_closed();
    assert_eq!(Metrics::scrape(&gateway).sum("gateward_connections_refused_total", &[]), 1.0);
    clients.pop();
    eventually(Duration::from_secs(5), || {
        let mut client = RawClient::connect(gateway.proxy());
        client.try_send(GET).is_ok() && client.try_read_response("GET").is_ok_and(|response| response.status == 200)
    });
    drop(clients);
    gateway.stop();
}

#[test]
fn connections_per_worker_are_limited() {
    let backend = Backend::echo();
    let gateway = Gateway::builder(&one_route(&backend.url())).workers(1).arg("--max-connections=2").start();
    let mut clients: Vec<RawClient> = (0..2).map(|_| RawClient::connect(gateway.proxy())).collect();
    for client in &mut clients {
        client.send(GET);
        assert_eq!(client.read_response("GET").status, 200);
    }
    RawClient::connect(gateway.proxy()).expect_closed();
    for client in &mut clients {
        client.send(GET);
        assert_eq!(client.read_response("GET").status, 200, "those who are in stay in");
    }
    gateway.stop();
}

/// Half a body and then nothing: the upstream must not take it for a whole request.
#[test]
fn a_client_that_leaves_amid_its_body_completes_nothing() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    for (fields, part) in [
        ("Content-Length: 10", "hello"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked", "5\r\nhel"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nX-T: 1\r\n"),
    ] {
        for half_close in [false, true] {
            let before = backend.connections();
            let mut client = RawClient::connect(gateway.proxy());
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{part}").as_bytes());
            eventually(Duration::from_secs(5), || backend.connections() > before);
            if half_close {
                client.finish_sending();
                client.expect_closed();
            }
            drop(client);
            eventually(Duration::from_secs(5), || backend.open_connections() == 0);
        }
    }
    assert_eq!(backend.request_count(), 0);
    gateway.stop();
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let backend = Backend::scripted(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 500000000\r\n\r\n");
        let piece = [b'x'; 64 * 1024];
        while stream.write_all(&piece).is_ok() {}
        Next::Close
    });
    let gateway = Gateway::builder(&one_route(&backend.url())).env("GATEWARD_SEND_TIMEOUT", "500ms").start();
    let mut client = RawClient::connect(gateway.proxy());
    client.send(GET);
    eventually(Duration::from_secs(5), || backend.request_count() == 1);
    eventually(Duration::from_secs(5), || backend.open_connections() == 0);
    gateway.stop();
}

#[test]
fn an_upstream_that_stops_amid_its_body_is_cut() {
    let backend = Backend::scripted(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
        pause(Duration::from_secs(3));
        Next::Close
    });
    let config = gateward_e2e::with_service_fields(&backend.url(), "retries: 0, read_timeout: 300");
    let gateway = Gateway::start(&config);
    let mut client = RawClient::connect(gateway.proxy());
    client.set_timeout(Duration::from_secs(2));
    client.send(GET);
    assert!(
        client
            .try_read_response("GET")
            .is_err_and(|error| !matches!(error, gateward_testkit::WireError::Timeout { .. }))
    );
    gateway.stop();
}

#[test]
fn trailers_of_responses_are_filtered_too() {
    let backend = Backend::fixed(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\nContent-Length: 9\r\n\
         Location: /evil\r\nGrpc-Status: 0\r\n\r\n",
    );
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = RawClient::connect(gateway.proxy());
    client.send(GET);
    let names: Vec<String> = client.read_response("GET").trailers.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["X-Sum", "Grpc-Status"]);
    gateway.stop();
}
