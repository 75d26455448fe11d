//! Which target gets a request, over the wire: weights, least connections, hashing, and what a new configuration
//! leaves alone.
//!
//! With one worker, because each worker balances by itself.

use gateward_e2e::Metrics;
use gateward_testkit::{Backend, Gateway, Next, RawClient, http, pause};
use std::io::Write;
use std::time::Duration;

/// An upstream over these targets; `fields` are YAML lines of the upstream, `tag` makes versions differ.
fn config(targets: &[(&Backend, u32)], fields: &str, tag: &str) -> String {
    let list: String = targets
        .iter()
        .map(|(backend, weight)| format!("  - {{target: '{}', weight: {weight}}}\n", backend.addr()))
        .collect();
    format!(
        "_format_version: '3.0'\n\
         services:\n\
         - {{name: s, host: pool, tags: ['{tag}'], routes: [{{name: r, paths: ['~/(?<first>[a-z0-9]*)'], strip_path: false}}]}}\n\
         upstreams:\n\
         - name: pool\n{fields}  \
           targets:\n{list}\
         consumers:\n\
         - {{username: alice, keyauth_credentials: [{{key: a}}]}}\n\
         - {{username: bob, keyauth_credentials: [{{key: b}}]}}\n"
    )
}

fn start(config: &str) -> Gateway {
    Gateway::builder(config).workers(1).start()
}

#[track_caller]
fn get(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> u16 {
    let response = http(gateway.proxy(), &format!("GET {target}"), headers, b"");
    assert_eq!(response.status, 200, "{}", response.text());
    let json = response.json();
    let host = json["headers"].as_array().into_iter().flatten().find(|field| field[0] == "Host");
    let host = host.and_then(|field| field[1].as_str()).unwrap_or_default();
    host.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no port in Host {host:?}"))
}

#[track_caller]
fn reload(gateway: &Gateway, config: &str) {
    let posted = http(gateway.admin(), "POST /config", &[("Content-Type", "text/yaml")], config.as_bytes());
    assert_eq!(posted.status, 201, "{}", posted.text());
}

#[test]
fn round_robin_follows_weights_exactly() {
    let backends: Vec<Backend> = (0..4).map(|_| Backend::echo()).collect();
    let weights = [50, 30, 20, 0];
    let targets: Vec<(&Backend, u32)> = backends.iter().zip(weights).collect();
    let gateway = start(&config(&targets, "", "1"));
    let mut client = RawClient::connect(gateway.proxy());
    for _ in 0..200 {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response("GET").status, 200);
    }
    let counts: Vec<usize> = backends.iter().map(Backend::request_count).collect();
    assert_eq!(counts, [100, 60, 40, 0]);
    gateway.stop();
}

#[test]
fn state_survives_a_reload_that_leaves_the_upstream_alone() {
    let backends = [Backend::echo(), Backend::echo()];
    let targets = [(&backends[0], 100), (&backends[1], 100)];
    let gateway = start(&config(&targets, "", "0"));
    for index in 0..20 {
        get(&gateway, "/", &[]);
        reload(&gateway, &config(&targets, "", &format!("v{index}")));
    }
    let counts: Vec<usize> = backends.iter().map(Backend::request_count).collect();
    assert_eq!(counts, [10, 10], "the turn is not forgotten");
    assert_eq!(backends.iter().map(Backend::connections).sum::<usize>(), 2, "nor are the connections");
    // A changed upstream is taken over.
    let only = [(&backends[1], 100)];
    reload(&gateway, &config(&only, "", "last"));
    for _ in 0..5 {
        assert_eq!(get(&gateway, "/", &[]), backends[1].addr().port());
    }
    gateway.stop();
}

#[test]
fn least_connections_avoids_the_busy_target() {
    let slow = Backend::scripted(|_, stream| {
        pause(Duration::from_millis(1_500));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
        Next::KeepAlive
    });
    let quick = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nquick");
    let gateway = start(&config(&[(&slow, 100), (&quick, 100)], "  algorithm: least-connections\n", "1"));
    // Two requests at once go to two targets, so one of them is held by the slow one.
    let mut clients: Vec<RawClient> = (0..2).map(|_| RawClient::connect(gateway.proxy())).collect();
    for client in &mut clients {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        pause(Duration::from_millis(50));
    }
    gateward_testkit::eventually(Duration::from_secs(1), || {
        if slow.request_count() == 0 {
            http(gateway.proxy(), "GET /", &[("Connection", "close")], b"");
        }
        slow.request_count() == 1
    });
    for _ in 0..10 {
        assert_eq!(http(gateway.proxy(), "GET /", &[], b"").body, b"quick");
    }
    assert_eq!(slow.request_count(), 1);
    for client in &mut clients {
        assert_eq!(client.read_response("GET").status, 200);
    }
    gateway.stop();
}

#[test]
fn latency_prefers_the_fast_target() {
    let slow = Backend::scripted(|_, stream| {
        pause(Duration::from_millis(60));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        Next::KeepAlive
    });
    let quick = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let gateway = start(&config(&[(&slow, 100), (&quick, 100)], "  algorithm: latency\n", "1"));
    for _ in 0..60 {
        assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 200);
    }
    assert!(quick.request_count() >= 50, "{} of 60 went to the fast target", quick.request_count());
    gateway.stop();
}

/// One input of consistent hashing: requests that agree in it go to one target, others are spread.
#[track_caller]
fn check_hash(fields: &str, plugins: &str, request: impl Fn(usize) -> (String, Vec<(String, String)>)) {
    let backends: Vec<Backend> = (0..4).map(|_| Backend::echo()).collect();
    let targets: Vec<(&Backend, u32)> = backends.iter().map(|backend| (backend, 100)).collect();
    let text = config(&targets, &format!("  algorithm: consistent-hashing\n{fields}"), "1") + plugins;
    let ask = |gateway: &Gateway, index: usize| {
        let (target, headers) = request(index);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        get(gateway, &target, &headers)
    };
    let gateway = start(&text);
    let first: Vec<u16> = (0..24).map(|index| ask(&gateway, index)).collect();
    let again: Vec<u16> = (0..24).map(|index| ask(&gateway, index)).collect();
    assert_eq!(first, again, "{fields}: the same input leads to the same target");
    let mut used = first.clone();
    used.sort_unstable();
    used.dedup();
    assert!(used.len() >= 3, "{fields}: 24 inputs are spread over 4 targets, not {}", used.len());
    gateway.stop();
    let restarted = start(&text);
    let later: Vec<u16> = (0..24).map(|index| ask(&restarted, index)).collect();
    assert_eq!(first, later, "{fields}: the ring is the same after a restart");
    restarted.stop();
}

#[test]
fn consistent_hashing_inputs() {
    let field = |name: &str, value: String| vec![(name.to_owned(), value)];
    check_hash("  hash_on: header\n  hash_on_header: X-User\n", "", |index| {
        ("/".into(), field("X-User", format!("u{index}")))
    });
    check_hash("  hash_on: path\n", "", |index| (format!("/p{index}"), vec![]));
    check_hash("  hash_on: query_arg\n  hash_on_query_arg: user\n", "", |index| {
        (format!("/?x=1&user=u{index}"), vec![])
    });
    check_hash("  hash_on: uri_capture\n  hash_on_uri_capture: first\n", "", |index| (format!("/c{index}"), vec![]));
    check_hash("  hash_on: cookie\n  hash_on_cookie: sid\n", "", |index| {
        ("/".into(), field("Cookie", format!("a=b; sid=s{index}")))
    });
    check_hash(
        "  hash_on: header\n  hash_on_header: X-None\n  hash_fallback: header\n  hash_fallback_header: X-User\n",
        "",
        |index| ("/".into(), field("X-User", format!("u{index}"))),
    );
}

#[test]
fn hashing_on_consumer_and_address_is_steady() {
    let backends: Vec<Backend> = (0..4).map(|_| Backend::echo()).collect();
    let targets: Vec<(&Backend, u32)> = backends.iter().map(|backend| (backend, 100)).collect();
    for on in ["ip", "consumer"] {
        let text = config(&targets, &format!("  hash_on: {on}\n"), "1") + "plugins:\n- {name: key-auth}\n";
        let gateway = start(&text);
        for key in ["a", "b"] {
            let first = get(&gateway, "/", &[("apikey", key)]);
            for _ in 0..5 {
                assert_eq!(get(&gateway, "/", &[("apikey", key)]), first, "{on} {key}");
            }
        }
        gateway.stop();
    }
}

#[test]
fn a_missing_cookie_is_made() {
    let backends: Vec<Backend> = (0..3).map(|_| Backend::echo()).collect();
    let targets: Vec<(&Backend, u32)> = backends.iter().map(|backend| (backend, 100)).collect();
    let gateway =
        start(&config(&targets, "  hash_on: cookie\n  hash_on_cookie: sid\n  hash_on_cookie_path: /x\n", "1"));
    let response = http(gateway.proxy(), "GET /", &[], b"");
    let set = response.header("set-cookie").expect("a cookie is set").to_owned();
    assert!(set.starts_with("sid=") && set.contains("Path=/x"), "{set}");
    let chosen = backends.iter().position(|backend| backend.request_count() == 1).expect("one got it");
    let cookie = set.split(';').next().unwrap_or_default().to_owned();
    for _ in 0..5 {
        let response = http(gateway.proxy(), "GET /", &[("Cookie", &cookie)], b"");
        assert_eq!((response.status, response.header("set-cookie")), (200, None));
    }
    assert_eq!(backends[chosen].request_count(), 6, "the cookie leads where its first request went");
    gateway.stop();
}

#[test]
fn only_the_share_of_a_removed_target_moves() {
    let backends: Vec<Backend> = (0..4).map(|_| Backend::echo()).collect();
    let all: Vec<(&Backend, u32)> = backends.iter().map(|backend| (backend, 100)).collect();
    let fields = "  hash_on: header\n  hash_on_header: X-User\n";
    let gateway = start(&config(&all, fields, "1"));
    let ask = |index: usize| get(&gateway, "/", &[("X-User", &format!("user-{index}"))]);
    let before: Vec<u16> = (0..60).map(ask).collect();
    reload(&gateway, &config(&all[..3], fields, "2"));
    let removed = backends[3].addr().port();
    for (index, port) in before.into_iter().enumerate() {
        let now = ask(index);
        if port == removed {
            assert_ne!(now, removed);
        } else {
            assert_eq!(now, port, "user {index} was not on the removed target and stays");
        }
    }
    let metrics = Metrics::scrape(&gateway);
    assert_eq!(metrics.sum("gateward_requests_total", &["outcome=\"upstream"]), 0.0);
    gateway.stop();
}
