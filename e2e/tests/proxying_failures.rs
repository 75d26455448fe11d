//! Upstreams that fail: what is tried again, what the client is told, and in which format.

use gateward_e2e::{Metrics, one_route, with_service_fields};
use gateward_testkit::{Backend, Gateway, Next, RawClient, RawResponse, http, pause};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An address nobody listens on.
fn refusing_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port can be bound");
    let addr = listener.local_addr().expect("a listening socket has an address");
    drop(listener);
    format!("http://{addr}")
}

fn upstream(targets: &[String]) -> String {
    let targets: String = targets.iter().map(|target| format!("  - {{target: '{target}'}}\n")).collect();
    format!(
        "_format_version: '3.0'\n\
         services:\n\
         - {{name: origin, host: pool, routes: [{{name: all, paths: [/], strip_path: false}}]}}\n\
         upstreams:\n\
         - name: pool\n  \
           targets:\n{targets}"
    )
}

#[track_caller]
fn status_of(config: &str, request: &str) -> (RawResponse, Duration) {
    let gateway = Gateway::builder(config).workers(1).start();
    let began = Instant::now();
    let response = http(gateway.proxy(), request, &[], b"");
    let took = began.elapsed();
    gateway.stop();
    (response, took)
}

#[test]
fn kinds_of_failure_have_kongs_status_and_text() {
    let silent = Backend::raw(|_, mut stream| {
        let mut scrap = [0; 1024];
        while stream.read(&mut scrap).is_ok_and(|count| count > 0) {}
    });
    let invalid = "An invalid response was received from the upstream server";
    let cases = [
        ("refused", with_service_fields(&refusing_url(), "retries: 0"), 502, invalid),
        ("refused on every try", with_service_fields(&refusing_url(), "retries: 3"), 502, invalid),
        (
            "no address",
            with_service_fields("http://does-not-exist.invalid", "retries: 0"),
            503,
            "name resolution failed",
        ),
        (
            "silent",
            with_service_fields(&silent.url(), "retries: 0, read_timeout: 200"),
            504,
            "The upstream server is timing out",
        ),
        ("no target", upstream(&[]), 503, "failure to get a peer from the ring-balancer"),
        (
            "no target with weight",
            upstream(&["127.0.0.1:1".to_owned()]).replace("127.0.0.1:1'", "127.0.0.1:1', weight: 0"),
            503,
            "failure to get a peer from the ring-balancer",
        ),
        (
            "no service",
            "_format_version: '3.0'\nroutes:\n- {name: r, paths: [/]}\n".to_owned(),
            503,
            "no Service found with those values",
        ),
        ("no route", "_format_version: '3.0'\n".to_owned(), 404, "no Route matched with those values"),
    ];
    for (name, config, status, message) in cases {
        let (response, _) = status_of(&config, "GET /");
        let json = response.json();
        assert_eq!((response.status, json["message"].as_str()), (status, Some(message)), "{name}");
        let id = json["request_id"].as_str().expect("the body names the request");
        assert_eq!(response.header("x-kong-request-id"), Some(id), "{name}");
        assert_eq!(id.len(), 32, "{name}");
    }
}

#[test]
fn connecting_times_out() {
    // A listener with a full backlog: the kernel drops further SYNs.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("sockets can be made");
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    listener.bind(&any.into()).expect("a free port can be bound");
    listener.listen(0).expect("it can listen");
    let addr = listener.local_addr().ok().and_then(|addr| addr.as_socket()).expect("a listening socket has an address");
    let _fill: Vec<_> =
        (0..3).map(|_| std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200))).collect();
    let config = with_service_fields(&format!("http://{addr}"), "retries: 0, connect_timeout: 300");
    let (response, took) = status_of(&config, "GET /");
    assert_eq!(response.status, 504, "{}", response.text());
    assert!(took >= Duration::from_millis(250) && took < Duration::from_millis(2_500), "{took:?}");
}

#[test]
fn timeouts_are_tried_again_for_idempotent_methods() {
    let backend = Backend::scripted(|_, _| {
        pause(Duration::from_millis(600));
        Next::Close
    });
    for (method, expected) in [("GET", 3), ("PUT", 3), ("POST", 1), ("PATCH", 1)] {
        let before = backend.request_count();
        let config = with_service_fields(&backend.url(), "retries: 2, read_timeout: 150");
        let (response, _) = status_of(&config, &format!("{method} /"));
        assert_eq!(response.status, 504, "{method}");
        assert_eq!(backend.request_count() - before, expected, "{method}");
    }
}

#[test]
fn a_dead_target_is_passed_over() {
    let backend = Backend::echo();
    let dead = refusing_url().trim_start_matches("http://").to_owned();
    let config = upstream(&[dead, backend.addr().to_string()]);
    let gateway = Gateway::builder(&config).workers(1).start();
    for index in 0..20 {
        let method = if index % 2 == 0 { "GET" } else { "POST" };
        let response = http(gateway.proxy(), &format!("{method} /{index}"), &[], b"");
        assert_eq!(response.status, 200, "nothing went out, so {method} may be tried on another target");
    }
    assert_eq!(backend.request_count(), 20);
    assert!(Metrics::scrape(&gateway).sum("gateward_upstream_retries_total", &[]) >= 5.0);
    gateway.stop();
}

#[test]
fn errors_of_the_upstream_are_not_retried() {
    let backend = Backend::fixed("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy");
    let (response, _) = status_of(&one_route(&backend.url()), "GET /");
    assert_eq!((response.status, response.body.as_slice(), backend.request_count()), (503, &b"busy"[..], 1));
}

/// A back end whose connections die, each on its second request, before a byte of answer.
fn dying_on_reuse() -> Backend {
    Backend::scripted(|request, stream| {
        if request.number >= 2 {
            return Next::Reset;
        }
        let _ = stream.write_all(OK);
        Next::KeepAlive
    })
}

#[test]
fn a_reused_connection_that_dies_is_replaced() {
    let backend = dying_on_reuse();
    // Even without retries: it says nothing about the target.
    let gateway = Gateway::builder(&with_service_fields(&backend.url(), "retries: 0")).workers(1).start();
    for index in 0..10 {
        assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 200, "request {index}");
    }
    gateway.stop();
}

#[test]
fn a_request_tried_again_keeps_its_body() {
    let backend = dying_on_reuse();
    let gateway = Gateway::builder(&one_route(&backend.url())).workers(1).start();
    let long = "b".repeat(5_000);
    for (index, body) in [(0, "put"), (1, "put"), (2, ""), (3, long.as_str()), (4, "put")] {
        assert_eq!(http(gateway.proxy(), "PUT /", &[], body.as_bytes()).status, 200, "request {index}");
        let last = backend.requests().pop().expect("it arrived");
        assert!(last.body == body.as_bytes(), "request {index} arrived with {} bytes", last.body.len());
    }
    let chunked =
        http(gateway.proxy(), "PUT /", &[("Transfer-Encoding", "chunked")], b"3\r\nput\r\n0\r\nX-T: 1\r\n\r\n");
    assert_eq!(chunked.status, 200);
    let last = backend.requests().pop().expect("it arrived");
    assert_eq!((last.body.as_slice(), last.trailers.len()), (&b"put"[..], 1));
    gateway.stop();
}

#[test]
fn trying_again_is_not_another_hop() {
    let backend = dying_on_reuse();
    let gateway = Gateway::builder(&one_route(&backend.url())).workers(1).start();
    for index in 0..3 {
        assert_eq!(http(gateway.proxy(), "OPTIONS /", &[("Max-Forwards", "7")], b"").status, 200, "request {index}");
        let last = backend.requests().pop().expect("it arrived");
        assert_eq!(last.header("max-forwards"), Some("6"), "request {index}");
    }
    gateway.stop();
}

#[test]
fn a_post_is_never_sent_twice() {
    let backend = dying_on_reuse();
    let gateway = Gateway::builder(&one_route(&backend.url())).workers(1).start();
    for index in 0..10 {
        let before = backend.request_count();
        let response = http(gateway.proxy(), "POST /", &[], b"pay");
        assert!(matches!(response.status, 200 | 502), "request {index}: {}", response.status);
        assert_eq!(backend.request_count() - before, 1, "request {index} was sent more than once");
    }
    gateway.stop();
}

#[test]
fn an_idle_connection_closed_by_the_upstream_costs_no_request() {
    let backend = Backend::scripted(|_, stream| {
        let _ = stream.write_all(OK);
        Next::KeepAlive
    });
    let gateway = Gateway::builder(&with_service_fields(&backend.url(), "retries: 0")).workers(1).start();
    for method in ["GET", "POST", "POST", "GET"] {
        assert_eq!(http(gateway.proxy(), &format!("{method} /"), &[], b"").status, 200);
        backend.close_connections();
        pause(Duration::from_millis(20));
    }
    assert_eq!(backend.connections(), 4);
    gateway.stop();
}

/// An upstream that closes idle connections when it likes, as all do: no GET may fail.
#[test]
fn load_upstream_that_closes_silently() {
    let backend = Backend::scripted(|request, stream| {
        let _ = stream.write_all(OK);
        if request.number.is_multiple_of(5) { Next::Close } else { Next::KeepAlive }
    });
    let gateway = Gateway::start(&with_service_fields(&backend.url(), "retries: 1"));
    let report = gateward_testkit::load::Load::get(gateway.proxy(), "/").connections(6).run(Duration::from_secs(2));
    println!("{} requests over {} upstream connections", report.ok, backend.connections());
    report.assert_all_ok();
    assert!(backend.connections() > 50);
    gateway.stop();
}

#[test]
fn a_streamed_body_that_is_gone_is_not_retried() {
    let backend = Backend::raw(|_, mut stream| {
        let mut scrap = [0; 4096];
        let _ = stream.read(&mut scrap);
        gateward_testkit::reset(stream);
    });
    let gateway = Gateway::builder(&one_route(&backend.url())).workers(1).start();
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    let _ = client.try_send(&[b'x'; 100_000]);
    assert_eq!(client.read_response("PUT").status, 502);
    // More tries are fine only while the whole body is still at hand.
    assert!(backend.connections() <= 2, "{} connections", backend.connections());
    gateway.stop();
}

#[test]
fn error_bodies_follow_accept() {
    let gateway = Gateway::start("_format_version: '3.0'\n");
    for (accept, content_type, start) in [
        ("*/*", "application/json; charset=utf-8", "{"),
        ("application/json", "application/json; charset=utf-8", "{"),
        ("text/html", "text/html; charset=utf-8", "<!doctype html>"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8", "<!doctype"),
        ("application/xml", "application/xml; charset=utf-8", "<?xml"),
        ("text/plain", "text/plain; charset=utf-8", "no Route matched"),
        ("text/plain;q=0.3, application/json;q=0.5", "application/json; charset=utf-8", "{"),
        ("image/png", "application/json; charset=utf-8", "{"),
    ] {
        let response = http(gateway.proxy(), "GET /", &[("Accept", accept)], b"");
        assert_eq!((response.status, response.header("content-type")), (404, Some(content_type)), "{accept}");
        assert!(response.text().starts_with(start), "{accept}: {}", response.text());
        assert!(response.text().contains("no Route matched with those values"), "{accept}");
    }
    let grpc = http(gateway.proxy(), "GET /", &[("Accept", "application/grpc")], b"");
    let message = grpc.header("grpc-message");
    assert_eq!((grpc.header("grpc-status"), message), (Some("5"), Some("no Route matched with those values")));
    assert_eq!((grpc.header("content-type"), grpc.body.len()), (Some("application/grpc"), 0));
    let head = http(gateway.proxy(), "HEAD /", &[], b"");
    assert_eq!((head.status, head.body.len()), (404, 0));
    gateway.stop();
}

#[test]
fn outcomes_are_told_apart_in_the_metrics() {
    let backend = Backend::scripted(|request, stream| {
        let response: &[u8] = match request.target.as_str() {
            "/500" => b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
            "/garbage" => b"garbage\r\n\r\n",
            _ => OK,
        };
        let _ = stream.write_all(response);
        Next::KeepAlive
    });
    let gateway = Gateway::start(&with_service_fields(&backend.url(), "retries: 0"));
    let before = Metrics::scrape(&gateway);
    for target in ["/", "/", "/500", "/garbage"] {
        http(gateway.proxy(), &format!("GET {target}"), &[], b"");
    }
    gateward_e2e::exchange(gateway.proxy(), "GET", b"GET / HTTP/1.1\r\n\r\n");
    let count =
        |metrics: &Metrics, outcome: &str| metrics.sum("gateward_requests_total", &[&format!("outcome=\"{outcome}")]);
    gateward_testkit::eventually(Duration::from_secs(5), || {
        let now = Metrics::scrape(&gateway);
        count(&now, "") - count(&before, "") >= 5.0
    });
    let now = Metrics::scrape(&gateway);
    for (outcome, expected) in [("ok", 2.0), ("upstream", 2.0), ("client", 1.0), ("gateway", 0.0)] {
        assert_eq!(count(&now, outcome) - count(&before, outcome), expected, "{outcome}: {}", now.text());
    }
    gateway.stop();
}
