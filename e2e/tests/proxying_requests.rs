//! From the client's request to the upstream's: path, host and header handling, and the gateway's own fields.

use gateward_e2e::{echoed_header, echoed_target, one_route, with_route_fields};
use gateward_testkit::{Backend, Gateway, http};

/// The path handling of Kong's `v0`: (service path, route paths, strip, request path, upstream path).
#[test]
fn paths_are_joined_as_kong_does() {
    let cases: &[(&str, &str, bool, &str, &str)] = &[
        ("", "/", true, "/", "/"),
        ("", "/", true, "/a/b", "/a/b"),
        ("", "/api", true, "/api", "/"),
        ("", "/api", true, "/api/", "/"),
        ("", "/api", true, "/api/x", "/x"),
        ("", "/api", true, "/apix", "/x"),
        ("", "/api/", true, "/api/x", "/x"),
        ("", "/api", false, "/api/x", "/api/x"),
        ("/", "/api", true, "/api/x", "/x"),
        ("/srv", "/api", true, "/api", "/srv"),
        ("/srv", "/api", true, "/api/", "/srv/"),
        ("/srv", "/api", true, "/api/x", "/srv/x"),
        ("/srv", "/api", true, "/apix", "/srv/x"),
        ("/srv/", "/api", true, "/api/x", "/srv/x"),
        ("/srv/", "/api", true, "/api", "/srv"),
        ("/srv/", "/api", true, "/api/", "/srv/"),
        ("/srv", "/api", false, "/api/x", "/srv/api/x"),
        ("/srv/", "/api", false, "/api/x", "/srv/api/x"),
        ("/srv", "/", false, "/", "/srv"),
        ("/srv", "/", true, "/", "/srv"),
        ("/srv", "~/v(?<version>[0-9]+)/x$", true, "/v2/x", "/srv"),
        ("/srv", "~/v[0-9]+", true, "/v2/x/y", "/srv/x/y"),
        ("/srv", "~/v[0-9]+", false, "/v2/x", "/srv/v2/x"),
        ("", "/api", true, "/api/a%20b?q=%20", "/a%20b?q=%20"),
        ("", "/api", true, "/api/x?", "/x?"),
        ("", "/api", true, "/api?x=/api", "/?x=/api"),
        ("", "/ä", true, "/%c3%a4/%C3%B6", "/%C3%B6"),
    ];
    let backend = Backend::echo();
    let mut config = "_format_version: '3.0'\nservices:\n".to_owned();
    for (index, (service, route, strip, _, _)) in cases.iter().enumerate() {
        let addr = backend.url();
        config += &format!(
            "- {{name: s{index}, url: '{addr}{service}', routes: [{{name: r{index}, hosts: [h{index}], paths: ['{route}'], strip_path: {strip}}}]}}\n"
        );
    }
    let gateway = Gateway::start(&config);
    for (index, (service, route, strip, request, expected)) in cases.iter().enumerate() {
        let host = format!("h{index}");
        let response = http(gateway.proxy(), &format!("GET {request}"), &[("Host", &host)], b"");
        assert_eq!(response.status, 200, "{request}: {}", response.text());
        let shown = format!("service {service:?}, route {route:?}, strip {strip}, request {request:?}");
        assert_eq!(echoed_target(&response), *expected, "{shown}");
    }
    gateway.stop();
}

#[test]
fn host_handling() {
    let backend = Backend::echo();
    let addr = backend.addr();
    let config = format!(
        "_format_version: '3.0'\n\
         services:\n\
         - {{name: plain, url: 'http://{addr}', routes: [{{name: plain, paths: [/plain]}}, {{name: kept, paths: [/kept], preserve_host: true}}]}}\n\
         - {{name: pooled, host: pool, routes: [{{name: pooled, paths: [/pooled]}}]}}\n\
         - {{name: named, host: named-pool, routes: [{{name: named, paths: [/named]}}, {{name: named-kept, paths: [/both], preserve_host: true}}]}}\n\
         upstreams:\n\
         - {{name: pool, targets: [{{target: '{addr}'}}]}}\n\
         - {{name: named-pool, host_header: inner.example, targets: [{{target: '{addr}'}}]}}\n"
    );
    let gateway = Gateway::start(&config);
    let addr = addr.to_string();
    for (path, expected) in [
        ("/plain", addr.as_str()),
        ("/kept", "client.example:99"),
        ("/pooled", &addr),
        ("/named", "inner.example"),
        ("/both", "client.example:99"),
    ] {
        let response = http(gateway.proxy(), &format!("GET {path}"), &[("Host", "client.example:99")], b"");
        assert_eq!(echoed_header(&response, "host").as_deref(), Some(expected), "{path}");
    }
    gateway.stop();
}

#[test]
fn without_a_host_the_upstream_gets_its_own() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&with_route_fields(&backend.url(), "preserve_host: true"));
    let response = gateward_e2e::exchange(gateway.proxy(), "GET", b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(echoed_header(&response, "host"), Some(backend.addr().to_string()));
    gateway.stop();
}

#[test]
fn fields_pass_in_order_and_unchanged() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    let sent = [("X-B", "1"), ("x-a", "2"), ("X-B", "3"), ("X-Empty", ""), ("Accept", "a,  b"), ("Cookie", "a=1; b=2")];
    let response = http(gateway.proxy(), "GET /", &sent, b"");
    let requests = backend.requests();
    let seen: Vec<(&str, &str)> = requests[0]
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| sent.iter().any(|(sent, _)| sent == name))
        .collect();
    assert_eq!(seen, sent);
    assert_eq!(response.status, 200);
    for name in ["x-forwarded-for", "x-real-ip", "via", "x-kong-request-id", "host"] {
        assert_eq!(requests[0].header_all(name).len(), 1, "{name}");
    }
    gateway.stop();
}

#[test]
fn own_fields_of_responses() {
    let backend =
        Backend::fixed("HTTP/1.1 200 OK\r\nServer: origin/1\r\nVia: 1.0 other\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::start(&one_route(&backend.url()));
    let response = http(gateway.proxy(), "GET /", &[], b"");
    for name in ["x-kong-upstream-latency", "x-kong-proxy-latency"] {
        let value = response.header(name).unwrap_or_else(|| panic!("{name} is missing: {:?}", response.headers));
        assert!(value.parse::<u32>().is_ok_and(|latency| latency < 5_000), "{name}: {value}");
    }
    let id = response.header("x-kong-request-id").expect("the response names the request");
    assert_eq!(backend.requests()[0].header("x-kong-request-id"), Some(id), "one id on both sides");
    assert_eq!(response.header("server"), Some("origin/1"));
    assert!(
        response.header("via").is_some_and(|via| via.starts_with("1.0 other, 1.1 gateward/")),
        "{:?}",
        response.headers
    );
    let missing = http(gateway.status(), "GET /nothing", &[], b"");
    assert_eq!(missing.status, 404);
    gateway.stop();

    let gateway = Gateway::start("_format_version: '3.0'\n");
    let own = http(gateway.proxy(), "GET /", &[], b"");
    assert!(own.header("server").is_some_and(|server| server.starts_with("gateward/")));
    assert!(own.header("x-kong-response-latency").is_some() && own.header("date").is_some());
    assert_eq!(own.header("via"), None);
    gateway.stop();
}

#[test]
fn the_prefix_of_own_fields_can_be_chosen() {
    let backend = Backend::echo();
    let gateway = Gateway::builder(&one_route(&backend.url())).arg("--header-prefix=X-Gateward").start();
    let response = http(gateway.proxy(), "GET /", &[], b"");
    for name in ["x-gateward-upstream-latency", "x-gateward-proxy-latency", "x-gateward-request-id"] {
        assert!(response.header(name).is_some(), "{name}: {:?}", response.headers);
    }
    assert!(!String::from_utf8_lossy(&response.bytes).contains("X-Kong"), "{}", response.text());
    gateway.stop();
}

#[test]
fn https_only_routes_tell_plain_clients() {
    let backend = Backend::echo();
    for (code, status) in [(426, 426), (301, 301), (302, 302), (307, 307), (308, 308)] {
        let fields = format!("protocols: [https], https_redirect_status_code: {code}");
        let gateway =
            Gateway::builder(&with_route_fields(&backend.url(), &fields)).arg("--trusted-ips=127.0.0.1").start();
        let response = http(gateway.proxy(), "GET /a?b=c", &[("Host", "site.example:8000")], b"");
        assert_eq!(response.status, status);
        if code == 426 {
            assert_eq!(response.json()["message"], "Please use HTTPS protocol");
            assert!(response.header("upgrade").is_some());
            assert!(response.header_all("connection").join(",").to_ascii_lowercase().contains("upgrade"));
        } else {
            assert_eq!(response.header("location"), Some("https://site.example/a?b=c"));
        }
        let behind_tls = http(gateway.proxy(), "GET /", &[("X-Forwarded-Proto", "https")], b"");
        assert_eq!(behind_tls.status, 200, "a trusted peer ended TLS");
        gateway.stop();
    }
}

#[test]
fn routes_are_chosen_by_method_host_header_and_priority() {
    let backend = Backend::echo();
    let url = backend.url();
    let config = format!(
        "_format_version: '3.0'\n\
         services:\n\
         - name: s\n  \
           url: {url}\n  \
           routes:\n  \
           - {{name: any, paths: [/], strip_path: false}}\n  \
           - {{name: long, paths: [/long/path], service: null}}\n  \
           - {{name: host, hosts: [a.example], paths: [/]}}\n  \
           - {{name: wild, hosts: ['*.example'], paths: [/]}}\n  \
           - {{name: post, methods: [POST], paths: [/], hosts: [a.example]}}\n  \
           - {{name: header, headers: {{x-kind: [special]}}, paths: [/]}}\n"
    )
    .replace(", service: null", "");
    let gateway = Gateway::builder(&config).arg("--allow-debug-header=true").start();
    for (request, headers, route) in [
        ("GET /", vec![], "any"),
        ("GET /long/path/x", vec![], "long"),
        ("GET /", vec![("Host", "a.example")], "host"),
        ("GET /", vec![("Host", "A.EXAMPLE")], "host"),
        ("GET /", vec![("Host", "b.example")], "wild"),
        ("POST /", vec![("Host", "a.example")], "post"),
        ("GET /", vec![("X-Kind", "special")], "header"),
    ] {
        let mut headers = headers;
        headers.push(("Kong-Debug", "1"));
        let response = http(gateway.proxy(), request, &headers, b"");
        assert_eq!(response.header("kong-route-name"), Some(route), "{request} {headers:?}");
    }
    gateway.stop();
}
