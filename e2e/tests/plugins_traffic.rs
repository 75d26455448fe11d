//! Plugins that limit, answer or change requests and responses.

use gateward_e2e::{await_room_in_the_minute, echoed_header, echoed_target, one_route, with_plugins};
use gateward_testkit::{Backend, Gateway, RawClient, RawResponse, http};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

fn start(plugins: &[&str]) -> (Gateway, Backend) {
    let backend = Backend::echo();
    (Gateway::start(&with_plugins(&one_route(&backend.url()), plugins)), backend)
}

#[track_caller]
fn get(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> RawResponse {
    http(gateway.proxy(), &format!("GET {target}"), headers, b"")
}

/// The limit is the node's, not each worker's, and exact under concurrency.
#[test]
fn rate_limiting_is_exact_over_workers() {
    const LIMIT: u32 = 100;
    let (gateway, backend) =
        start(&[&format!("{{name: rate-limiting, config: {{hour: {LIMIT}, policy: local, limit_by: ip}}}}")]);
    let (passed, limited) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (passed, limited, proxy) = (Arc::clone(&passed), Arc::clone(&limited), gateway.proxy());
            std::thread::spawn(move || {
                for _ in 0..5 {
                    let mut client = RawClient::connect(proxy);
                    for _ in 0..5 {
                        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                        match client.read_response("GET").status {
                            200 => passed.fetch_add(1, Ordering::SeqCst),
                            429 => limited.fetch_add(1, Ordering::SeqCst),
                            status => panic!("status {status}"),
                        };
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("every request was answered");
    }
    assert_eq!((passed.load(Ordering::SeqCst), limited.load(Ordering::SeqCst)), (LIMIT, 100));
    assert_eq!(backend.request_count(), LIMIT as usize);
    gateway.stop();
}

#[test]
fn rate_limiting_tells_what_is_left() {
    let (gateway, _backend) = start(&[
        "{name: rate-limiting, config: {minute: 2, hour: 10, policy: local, limit_by: header, header_name: X-Who}}",
    ]);
    await_room_in_the_minute();
    for (left, status) in [("1", 200), ("0", 200), ("0", 429)] {
        let response = get(&gateway, "/", &[("X-Who", "a")]);
        assert_eq!(response.status, status);
        assert_eq!(response.header("x-ratelimit-limit-minute"), Some("2"));
        assert_eq!(response.header("x-ratelimit-remaining-minute"), Some(left));
        assert_eq!(response.header("ratelimit-limit"), Some("2"));
        assert_eq!(response.header("ratelimit-remaining"), Some(left));
        let reset = response.header("ratelimit-reset").and_then(|value| value.parse::<u32>().ok());
        assert!(reset.is_some_and(|reset| reset <= 60), "{:?}", response.headers);
        assert_eq!(response.header("retry-after").is_some(), status == 429);
    }
    assert_eq!(get(&gateway, "/", &[("X-Who", "b")]).status, 200, "another caller has a limit of its own");
    gateway.stop();
}

#[test]
fn request_size_limiting() {
    let (gateway, backend) = start(&[
        "{name: request-size-limiting, config: {allowed_payload_size: 10, size_unit: bytes, require_content_length: false}}",
    ]);
    let post = |headers: &[(&str, &str)], body: &[u8]| http(gateway.proxy(), "POST /", headers, body).status;
    assert_eq!(post(&[], b"0123456789"), 200);
    assert_eq!(post(&[], b"0123456789x"), 413);
    let chunked = [("Transfer-Encoding", "chunked")];
    assert_eq!(post(&chunked, b"5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"), 200);
    assert_eq!(post(&chunked, b"5\r\n01234\r\n6\r\n56789x\r\n0\r\n\r\n"), 413);
    assert_eq!(backend.request_count(), 2);
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n");
    assert!(matches!(client.read_response("POST").status, 413 | 417), "refused before the body");
    gateway.stop();
    let (gateway, _backend) = start(&["{name: request-size-limiting, config: {require_content_length: true}}"]);
    assert_eq!(http(gateway.proxy(), "POST /", &chunked, b"0\r\n\r\n").status, 411);
    gateway.stop();
}

#[test]
fn request_termination() {
    for (config, status, content_type, body) in [
        ("{}", 503, "application/json; charset=utf-8", "Service unavailable"),
        ("{status_code: 404, message: gone fishing}", 404, "application/json; charset=utf-8", "gone fishing"),
        ("{status_code: 200, body: '<p>', content_type: text/html}", 200, "text/html", "<p>"),
    ] {
        let (gateway, backend) = start(&[&format!("{{name: request-termination, config: {config}}}")]);
        let response = get(&gateway, "/", &[]);
        assert_eq!((response.status, response.header("content-type")), (status, Some(content_type)), "{config}");
        assert!(response.text().contains(body), "{config}: {}", response.text());
        assert_eq!(backend.request_count(), 0);
        gateway.stop();
    }
    let (gateway, _backend) = start(&["{name: request-termination, config: {trigger: X-Stop}}"]);
    assert_eq!(get(&gateway, "/", &[]).status, 200);
    assert_eq!(get(&gateway, "/", &[("X-Stop", "1")]).status, 503);
    gateway.stop();
}

#[test]
fn redirect() {
    for (config, location) in [
        ("{location: 'https://new.example/x'}", "https://new.example/x"),
        ("{location: 'https://new.example', keep_incoming_path: true}", "https://new.example/a/b?c=d"),
    ] {
        let (gateway, _backend) = start(&[&format!("{{name: redirect, config: {config}}}")]);
        let response = get(&gateway, "/a/b?c=d", &[]);
        assert_eq!((response.status, response.header("location")), (301, Some(location)), "{config}");
        gateway.stop();
    }
}

#[test]
fn correlation_id() {
    let (gateway, _backend) = start(&[
        "{name: correlation-id, config: {header_name: X-Id, generator: 'uuid#counter', echo_downstream: true}}",
    ]);
    let first = get(&gateway, "/", &[]);
    let id = first.header("x-id").expect("it is echoed").to_owned();
    assert_eq!(echoed_header(&first, "x-id"), Some(id.clone()));
    assert!(id.contains('#'), "{id}");
    assert_ne!(get(&gateway, "/", &[]).header("x-id"), Some(id.as_str()));
    let given = get(&gateway, "/", &[("X-Id", "mine")]);
    assert_eq!((given.header("x-id"), echoed_header(&given, "x-id").as_deref()), (Some("mine"), Some("mine")));
    gateway.stop();
}

#[test]
fn cors() {
    let (gateway, backend) = start(&[
        "{name: cors, config: {origins: ['https://a.example', 'https://.*\\.b\\.example'], methods: [GET, POST], headers: [X-A], exposed_headers: [X-B], credentials: true, max_age: 60}}",
    ]);
    let preflight = http(
        gateway.proxy(),
        "OPTIONS /",
        &[("Origin", "https://a.example"), ("Access-Control-Request-Method", "POST")],
        b"",
    );
    assert_eq!((preflight.status, backend.request_count()), (200, 0), "preflights are answered here");
    for (name, value) in [
        ("access-control-allow-origin", "https://a.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET,POST"),
        ("access-control-allow-headers", "X-A"),
        ("access-control-max-age", "60"),
    ] {
        assert_eq!(preflight.header(name), Some(value), "{name}");
    }
    for (origin, allowed) in
        [("https://a.example", true), ("https://x.b.example", true), ("https://evil.example", false)]
    {
        let response = get(&gateway, "/", &[("Origin", origin)]);
        assert_eq!(response.status, 200);
        assert_eq!(
            response.header("access-control-allow-origin") == Some(origin),
            allowed,
            "{origin}: {:?}",
            response.headers
        );
        if allowed {
            assert_eq!(response.header("access-control-expose-headers"), Some("X-B"));
        }
        assert!(response.header_all("vary").join(",").contains("Origin"), "{origin}");
    }
    gateway.stop();
}

#[test]
fn request_transformer() {
    let backend = Backend::echo();
    let config = with_plugins(
        &format!(
            "_format_version: '3.0'\nservices:\n- {{name: s, url: '{}', routes: [{{name: r, paths: ['~/users/(?<id>[0-9]+)'], strip_path: false}}]}}\n",
            backend.url()
        ),
        &["{name: request-transformer, config: {\
           remove: {headers: [X-Remove], querystring: [gone], body: [secret]}, \
           rename: {headers: ['X-Old:X-New'], querystring: ['from:to']}, \
           replace: {headers: ['X-Replace:new', 'X-Absent:no'], uri: '/v2/people/$(uri_captures.id)'}, \
           add: {headers: ['X-Add:$(headers.x_source)', 'X-Kept:no'], querystring: ['id:$(uri_captures.id)', 'q:$(query_params.from)'], body: ['extra:1']}, \
           append: {headers: ['X-Append:2']}}}"],
    );
    let gateway = Gateway::start(&config);
    let response = http(
        gateway.proxy(),
        "POST /users/42?from=7&gone=1",
        &[
            ("X-Remove", "1"),
            ("X-Old", "old"),
            ("X-Replace", "old"),
            ("X-Source", "src"),
            ("X-Kept", "mine"),
            ("X-Append", "1"),
            ("Content-Type", "application/json"),
        ],
        br#"{"secret":1,"open":2}"#,
    );
    assert_eq!(response.status, 200, "{}", response.text());
    for (name, value) in [
        ("x-remove", None),
        ("x-old", None),
        ("x-new", Some("old")),
        ("x-replace", Some("new")),
        ("x-absent", None),
        ("x-add", Some("src")),
        ("x-kept", Some("mine")),
    ] {
        assert_eq!(echoed_header(&response, name).as_deref(), value, "{name}");
    }
    let target = echoed_target(&response);
    let (path, query) = target.split_once('?').expect("there is a query");
    assert_eq!(path, "/v2/people/42");
    assert!(query.contains("to=7") && query.contains("id=42") && !query.contains("gone"), "{query}");
    let body: serde_json::Value =
        serde_json::from_str(response.json()["body"].as_str().unwrap_or_default()).expect("the body is JSON");
    assert_eq!((body.get("secret"), &body["open"]), (None, &serde_json::json!(2)), "{body}");
    assert!(body.get("extra").is_some(), "{body}");
    assert_eq!(backend.requests()[0].header_all("x-append"), ["1", "2"]);
    gateway.stop();
}

#[test]
fn a_changed_request_body_is_framed_anew() {
    let backend = Backend::echo();
    let plugin = "{name: request-transformer, config: {add: {body: ['a:1']}}}";
    let gateway =
        Gateway::builder(&with_plugins(&one_route(&backend.url()), &[plugin])).arg("--plugin-body-size=1k").start();
    let chunked = [("Transfer-Encoding", "chunked"), ("Content-Type", "application/json")];
    let response = http(gateway.proxy(), "POST /", &chunked, b"7\r\n{\"b\":2}\r\n0\r\n\r\n");
    assert_eq!(response.status, 200, "{}", response.text());
    let seen = backend.requests().pop().expect("it arrived");
    assert_eq!(seen.header("transfer-encoding"), None);
    assert_eq!(seen.header("content-length"), Some(seen.body.len().to_string().as_str()));
    let body: serde_json::Value = serde_json::from_slice(&seen.body).expect("the body is JSON");
    assert!(body["b"] == 2 && body.get("a").is_some(), "{body}");
    let mut client = RawClient::connect(gateway.proxy());
    client.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n",
    );
    assert_eq!(client.read_response("POST").status, 100, "the plugin wants the body");
    client.send(b"{}");
    assert_eq!(client.read_response("POST").status, 200);
    let long = format!("{{\"b\":\"{}\"}}", "x".repeat(2_000));
    let response = http(gateway.proxy(), "POST /", &[("Content-Type", "application/json")], long.as_bytes());
    assert_eq!(response.status, 413, "more than a plugin may hold");
    gateway.stop();
}

#[test]
fn a_response_body_to_change_may_be_absent_or_too_long() {
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(50_000));
    let backend = Backend::scripted({
        let long = long.clone();
        move |request, stream| {
            let content = match request.target.as_str() {
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n"
                    .to_owned(),
                "/204" => "HTTP/1.1 204 No Content\r\nContent-Type: application/json\r\n\r\n".to_owned(),
                "/long" => {
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{long}",
                        long.len()
                    )
                }
                "/chunked" => format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
                    long.len()
                ),
                _ => {
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n".to_owned()
                        + if request.method == "HEAD" { "" } else { "{\"a\":1}" }
                }
            };
            let _ = std::io::Write::write_all(stream, content.as_bytes());
            gateward_testkit::Next::KeepAlive
        }
    });
    let plugin = "{name: response-transformer, config: {add: {json: ['b:2'], headers: ['X-Seen:1']}}}";
    let gateway =
        Gateway::builder(&with_plugins(&one_route(&backend.url()), &[plugin])).arg("--plugin-body-size=1k").start();
    let mut client = RawClient::connect(gateway.proxy());
    for (method, path, status, body) in [
        ("GET", "/304", 304, ""),
        ("GET", "/204", 204, ""),
        ("HEAD", "/", 200, ""),
        ("GET", "/long", 200, long.as_str()),
        ("GET", "/chunked", 200, &long),
        ("GET", "/", 200, "{\"a\":1,\"b\":\"2\"}"),
    ] {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let response = client.read_response(method);
        assert!(response.status == status && response.text() == body, "{method} {path}: {:.200}", response.text());
        assert_eq!(response.header("x-seen"), Some("1"), "{method} {path}");
    }
    gateway.stop();
}

#[test]
fn response_transformer() {
    let backend = Backend::fixed(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Remove: 1\r\nX-Old: old\r\nX-Replace: old\r\n\
         Content-Length: 23\r\n\r\n{\"secret\":1,\"open\":\"2\"}",
    );
    let config = with_plugins(
        &one_route(&backend.url()),
        &["{name: response-transformer, config: {\
           remove: {headers: [X-Remove], json: [secret]}, rename: {headers: ['X-Old:X-New']}, \
           replace: {headers: ['X-Replace:new'], json: ['open:3'], json_types: [number]}, add: {headers: ['X-Add:1'], json: ['extra:true'], json_types: [boolean]}}}"],
    );
    let gateway = Gateway::start(&config);
    let mut client = RawClient::connect(gateway.proxy());
    for _ in 0..2 {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.read_response("GET");
        for (name, value) in [
            ("x-remove", None),
            ("x-old", None),
            ("x-new", Some("old")),
            ("x-replace", Some("new")),
            ("x-add", Some("1")),
        ] {
            assert_eq!(response.header(name), value, "{name}");
        }
        assert_eq!(response.json(), serde_json::json!({"open": 3, "extra": true}));
    }
    gateway.stop();
}
