//! `rate-limiting` with policy `redis`, against a real server: Kong's keys, exactness over nodes, batches, and what
//! happens when the server is slow, gone, encrypted or wants to know who asks.

use gateward_e2e::{Authority, Metrics, has_tool, redis_with_tls};
use gateward_testkit::{Backend, Gateway, RawClient, RawResponse, RedisReply, RedisServer, eventually, http, pause};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const ZEROS: &str = "00000000-0000-0000-0000-000000000000";
const ROUTE: &str = "5d1f4c3e-52f4-4f0c-8c52-6c6f1b1b6a01";

/// A configuration of routes at paths of their names, each with these settings of `rate-limiting`; none for `-`.
fn routes(backend: &Backend, list: &[(&str, &str)]) -> String {
    let routes = list.iter().map(|(name, config)| {
        let id = if *name == "limited" { format!("id: {ROUTE}, ") } else { String::new() };
        let plugin = match *config {
            "-" => String::new(),
            config => format!(", plugins: [{{name: rate-limiting, config: {{policy: redis, {config}}}}}]"),
        };
        format!("  - {{{id}name: {name}, paths: [/{name}]{plugin}}}\n")
    });
    let routes: String = routes.collect();
    format!("_format_version: '3.0'\nservices:\n- name: origin\n  url: {}\n  routes:\n{routes}", backend.url())
}

fn at(redis: &RedisServer) -> String {
    format!("redis: {{host: 127.0.0.1, port: {}}}", redis.port())
}

#[track_caller]
fn get(gateway: &Gateway, path: &str) -> RawResponse {
    http(gateway.proxy(), &format!("GET {path}"), &[("X-Who", "ann")], b"")
}

fn is_limited(response: &RawResponse) -> bool {
    response.header("ratelimit-limit").is_some()
}

#[test]
fn keys_and_answers_are_kongs_and_a_decision_is_one_command() {
    if !has_tool("redis-server") {
        return;
    }
    let (redis, backend) = (RedisServer::start(&[]), Backend::echo());
    // Long periods: a short one might end while this runs.
    let limits = format!("month: 4, year: 9, limit_by: header, header_name: X-Who, {}", at(&redis));
    let gateway = Gateway::start(&routes(&backend, &[("limited", &limits)]));
    for left in ["3", "2"] {
        let response = get(&gateway, "/limited");
        assert_eq!((response.status, response.header("x-ratelimit-remaining-month")), (200, Some(left)));
        assert_eq!(response.header("ratelimit-limit"), Some("4"));
    }
    let keys = redis.command(&["KEYS", "*"]).texts();
    let of = |period: &str| keys.iter().find(|key| key.ends_with(period)).unwrap_or_else(|| panic!("{keys:?}"));
    let (month, year) = (of(":month"), of(":year"));
    assert_eq!(keys.len(), 2, "{keys:?}");
    for (key, period, longest_s) in [(month, "month", 31 * 86_400), (year, "year", 366 * 86_400)] {
        let prefix = format!("ratelimit:{ROUTE}:{ZEROS}:ann:");
        let rest = key.strip_prefix(&prefix).unwrap_or_else(|| panic!("{key} begins with {prefix}"));
        let (start_ms, found) = rest.split_once(':').unwrap_or_else(|| panic!("{key}"));
        assert_eq!(found, period);
        assert_eq!(start_ms.parse::<u64>().map(|ms| ms % 86_400_000), Ok(0), "{key}: the first moment of a day");
        let ttl = redis.command(&["TTL", key]).number().unwrap_or_default();
        assert!((1..=longest_s + 5).contains(&ttl), "{key}: {ttl}");
        assert_eq!(redis.command(&["GET", key]).number(), Some(2));
    }
    // A node of Kong counts one request: INCR, whatever comes of it.
    redis.command(&["INCR", month]);
    redis.command(&["INCR", year]);
    assert_eq!(get(&gateway, "/limited").header("x-ratelimit-remaining-month"), Some("0"));
    for _ in 0..2 {
        let response = get(&gateway, "/limited");
        assert_eq!((response.status, response.header("x-ratelimit-remaining-year")), (429, Some("5")));
        assert!(
            response.header("retry-after").is_some()
                && response.header("retry-after") == response.header("ratelimit-reset")
        );
        assert!(response.text().contains("API rate limit exceeded"), "{}", response.text());
    }
    assert_eq!((redis.command(&["GET", month]).number(), redis.command(&["GET", year]).number()), (Some(4), Some(4)));
    assert_eq!((redis.calls("eval"), redis.calls("expire")), (5, 2));
    let metrics = Metrics::scrape(&gateway);
    assert_eq!(metrics.sum("gateward_redis_answers_total", &[]), 5.0);
    assert_eq!(metrics.sum("gateward_rate_limit_redis_decisions_total", &["outcome=\"passed\""]), 3.0);
    assert_eq!(metrics.sum("gateward_rate_limit_redis_decisions_total", &["outcome=\"limited\""]), 2.0);
    gateway.stop();
}

/// Keeps every gateway busy with two connections until all are told to stop, or have sent `requests`; what passed.
fn hammer(gateways: &[Gateway], requests: usize, pace: Duration, stop: &AtomicBool) -> Vec<Vec<Instant>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = gateways
            .iter()
            .flat_map(|gateway| [gateway.proxy(); 2])
            .map(|proxy| {
                scope.spawn(move || {
                    let (mut client, mut passed) = (RawClient::connect(proxy), Vec::new());
                    for _ in 0..requests {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        client.send(b"GET /limited HTTP/1.1\r\nHost: a\r\nX-Who: ann\r\n\r\n");
                        match client.read_response("GET").status {
                            200 => passed.push(Instant::now()),
                            429 => {}
                            status => panic!("status {status}"),
                        }
                        pause(pace);
                    }
                    passed
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("every request was answered")).collect()
    })
}

#[test]
fn eight_nodes_admit_exactly_the_limit_over_one_connection_each() {
    if !has_tool("redis-server") {
        return;
    }
    const LIMIT: usize = 300;
    let (redis, backend) = (RedisServer::start(&[]), Backend::echo());
    let limits = format!("year: {LIMIT}, limit_by: header, header_name: X-Who, {}", at(&redis));
    let config = routes(&backend, &[("limited", &limits)]);
    let gateways: Vec<Gateway> = (0..8).map(|_| Gateway::start(&config)).collect();
    let passed = hammer(&gateways, 50, Duration::ZERO, &AtomicBool::new(false));
    assert_eq!(passed.iter().map(Vec::len).sum::<usize>(), LIMIT);
    assert_eq!(backend.request_count(), LIMIT);
    // This command's own connection is the ninth.
    let clients = redis.command(&["INFO", "clients"]).text();
    assert!(clients.lines().any(|line| line == "connected_clients:9"), "{clients}");
    assert_eq!(redis.calls("eval"), 800, "one round trip per decision");
    gateways.into_iter().for_each(Gateway::stop);
}

#[test]
fn with_a_sync_rate_counts_go_in_batches_and_come_back() {
    if !has_tool("redis-server") {
        return;
    }
    let (redis, backend) = (RedisServer::start(&[]), Backend::echo());
    let limits = format!("month: 500, year: 500, sync_rate: 0.3, limit_by: header, header_name: X-Who, {}", at(&redis));
    let config = routes(&backend, &[("limited", &limits)]);
    let first = Gateway::start(&config);
    let mut client = RawClient::connect(first.proxy());
    for left in (100..500).rev() {
        client.send(b"GET /limited HTTP/1.1\r\nHost: a\r\nX-Who: ann\r\n\r\n");
        let response = client.read_response("GET");
        assert_eq!(response.status, 200);
        assert_eq!(
            response.header("x-ratelimit-remaining-year"),
            Some(left.to_string().as_str()),
            "own requests count at once"
        );
    }
    let sum = || {
        let keys = redis.command(&["KEYS", "*"]).texts();
        let counts = keys.iter().map(|key| redis.command(&["GET", key]).number().unwrap_or_default());
        (keys.len(), counts.sum::<i64>())
    };
    eventually(PATIENCE, || sum() == (2, 800));
    assert_eq!(redis.calls("mget"), 1, "a window is read once when it begins for a caller");
    assert!(redis.calls("eval") < 200, "{} commands for 400 requests of two periods", redis.calls("eval"));
    // A second node begins where the first is, and the first hears of the second.
    let second = Gateway::start(&config);
    for left in (0..100).rev() {
        assert_eq!(get(&second, "/limited").header("x-ratelimit-remaining-year"), Some(left.to_string().as_str()));
    }
    assert_eq!(get(&second, "/limited").status, 429);
    eventually(PATIENCE, || sum() == (2, 1000));
    eventually(PATIENCE, || get(&first, "/limited").status == 429);
    // What a node has not told yet it tells at its end.
    first.stop();
    second.stop();
    let admitted = i64::try_from(backend.request_count()).unwrap_or(i64::MAX);
    assert_eq!(sum(), (2, 2 * admitted));
}

/// The guide: the limit, and what each node admits before it hears of the others.
#[test]
fn with_a_sync_rate_eight_nodes_stay_within_the_documented_tolerance() {
    if !has_tool("redis-server") {
        return;
    }
    const LIMIT: usize = 1_500;
    const RATE: Duration = Duration::from_millis(100);
    let (redis, backend) = (RedisServer::start(&[]), Backend::echo());
    let limits = format!("year: {LIMIT}, sync_rate: 0.1, limit_by: header, header_name: X-Who, {}", at(&redis));
    let config = routes(&backend, &[("limited", &limits)]);
    let gateways: Vec<Gateway> = (0..8).map(|_| Gateway::builder(&config).workers(1).start()).collect();
    let (stop, refused, probes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicUsize::new(0));
    let passed = std::thread::scope(|scope| {
        // Until every node refuses.
        scope.spawn(|| {
            let deadline = Instant::now() + PATIENCE;
            let refuses = |gateway: &Gateway| {
                let refuses = get(gateway, "/limited").status == 429;
                probes.fetch_add(usize::from(!refuses), Ordering::Relaxed);
                refuses
            };
            while Instant::now() < deadline && !gateways.iter().all(refuses) {
                pause(RATE);
            }
            refused.store(gateways.iter().filter(|gateway| refuses(gateway)).count() as u64, Ordering::Relaxed);
            stop.store(true, Ordering::Relaxed);
        });
        hammer(&gateways, usize::MAX, Duration::from_millis(5), &stop)
    });
    assert_eq!(refused.load(Ordering::Relaxed), 8, "every node comes to refuse");
    // The most that a node's two connections got through in the time of one exchange; a busy machine may be slow at it.
    let window = RATE + Duration::from_secs(1);
    let most = |times: &Vec<Instant>| {
        let within =
            |start: &Instant| times.iter().filter(|time| **time >= *start && **time - *start <= window).count();
        times.iter().map(within).max().unwrap_or(0)
    };
    let tolerance = passed.iter().map(most).sum::<usize>() + probes.load(Ordering::Relaxed);
    let admitted = backend.request_count();
    assert!((LIMIT..=LIMIT + tolerance).contains(&admitted), "{admitted} of {LIMIT} and {tolerance}");
    gateways.into_iter().for_each(Gateway::stop);
}

#[test]
fn a_server_that_is_gone_is_forgiven_or_not_and_found_again() {
    if !has_tool("redis-server") {
        return;
    }
    let (mut redis, backend) = (RedisServer::start(&[]), Backend::echo());
    let to = format!("redis: {{host: 127.0.0.1, port: {}, timeout: 60000}}", redis.port());
    let mut gateway = Gateway::start(&routes(
        &backend,
        &[
            ("open", &format!("year: 1000, {to}")),
            ("strict", &format!("year: 1000, fault_tolerant: false, {to}")),
            ("open-batched", &format!("year: 1000, sync_rate: 0.05, {to}")),
            ("strict-batched", &format!("year: 1000, sync_rate: 0.05, fault_tolerant: false, {to}")),
        ],
    ));
    gateway.expect_error("Redis");
    gateway.expect_error("rate-limiting:");
    let paths = ["/open", "/strict", "/open-batched", "/strict-batched"];
    for path in paths {
        assert!(is_limited(&get(&gateway, path)), "{path}");
    }
    redis.kill();
    for path in ["/open", "/open-batched"] {
        eventually(PATIENCE, || {
            let response = get(&gateway, path);
            assert_eq!(response.status, 200, "{path}: {}", response.text());
            !is_limited(&response)
        });
    }
    for path in ["/strict", "/strict-batched"] {
        eventually(PATIENCE, || get(&gateway, path).status == 500);
        let response = get(&gateway, path);
        assert_eq!(response.json()["message"], "An unexpected error occurred");
        assert!(!is_limited(&response) && response.header("retry-after").is_none());
    }
    // With a time-out of a minute, this many are answered in time only if nobody waits for it.
    let (tries, mut client) = (500, RawClient::connect(gateway.proxy()));
    for _ in 0..tries {
        client.send(b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response("GET").status, 200);
    }
    let metrics = Metrics::scrape(&gateway);
    let decided = |outcome| metrics.sum("gateward_rate_limit_redis_decisions_total", &[outcome]);
    assert!(
        decided("outcome=\"unchecked\"") >= f64::from(tries) && decided("outcome=\"failed\"") >= 2.0,
        "{}",
        metrics.text()
    );
    assert!(metrics.sum("gateward_redis_errors_total", &["reason=\"unavailable\""]) >= f64::from(tries));
    redis.restart();
    for path in paths {
        eventually(PATIENCE, || is_limited(&get(&gateway, path)));
    }
    gateway.stop();
}

#[test]
fn a_server_that_stands_still_costs_a_time_out_and_nobody_elses_time() {
    if !has_tool("redis-server") {
        return;
    }
    let (redis, backend) = (RedisServer::start(&[]), Backend::echo());
    let to = format!("redis: {{host: 127.0.0.1, port: {}, timeout: 3000}}", redis.port());
    let limits = format!("year: 1000, {to}");
    let config = routes(&backend, &[("limited", &limits), ("free", "-")]);
    let mut gateway = Gateway::builder(&config).workers(1).start();
    gateway.expect_error("Redis");
    assert!(is_limited(&get(&gateway, "/limited")));
    redis.freeze();
    let mut waiting = RawClient::connect(gateway.proxy());
    waiting.send(b"GET /limited HTTP/1.1\r\nHost: a\r\n\r\n");
    let passed = backend.request_count();
    let mut free = 0;
    while backend.request_count() == passed + free && free < 20 {
        assert_eq!(get(&gateway, "/free").status, 200);
        free += 1;
    }
    assert!(free > 1, "the worker serves others while a request waits for Redis");
    let response = waiting.read_response("GET");
    assert_eq!((response.status, is_limited(&response)), (200, false));
    let metrics = Metrics::scrape(&gateway);
    assert_eq!(metrics.sum("gateward_redis_errors_total", &["reason=\"timeout\""]), 1.0, "{}", metrics.text());
    redis.thaw();
    eventually(PATIENCE, || is_limited(&get(&gateway, "/limited")));
    gateway.stop();
}

#[test]
fn users_passwords_and_databases() {
    if !has_tool("redis-server") {
        return;
    }
    let (redis, backend) = (RedisServer::start(&[]), Backend::echo());
    let rights = ["+eval", "+get", "+mget", "+incrby", "+expire", "+select", "~ratelimit:*", ">only-ours", "on"];
    let made = redis.command(&[&["ACL", "SETUSER", "gateway"], &rights[..]].concat());
    assert_eq!(made, RedisReply::Text("OK".to_owned()));
    assert_eq!(redis.command(&["CONFIG", "SET", "requirepass", "other"]).text(), "OK");
    let to = |more: &str| {
        format!("year: 10, fault_tolerant: false, redis: {{host: 127.0.0.1, port: {}, {more}}}", redis.port())
    };
    let config = routes(
        &backend,
        &[
            ("limited", &to("username: gateway, password: '{vault://env/redis-password}', database: 3")),
            ("default", &to("password: other")),
            ("wrong", &to("username: gateway, password: not-the-word")),
            ("nobody", &to("database: 0")),
        ],
    );
    let mut gateway = Gateway::builder(&config).env("REDIS_PASSWORD", "only-ours").start();
    gateway.expect_error("Redis");
    for path in ["/limited", "/default"] {
        let response = get(&gateway, path);
        assert_eq!((response.status, is_limited(&response)), (200, true), "{path}: {}", response.text());
    }
    for path in ["/wrong", "/nobody"] {
        assert_eq!(get(&gateway, path).status, 500, "{path}");
    }
    let log = gateway.log().join("\n");
    assert!(log.contains("NOAUTH") || log.contains("WRONGPASS") || log.contains("uthentication"), "{log}");
    for secret in ["only-ours", "not-the-word"] {
        assert!(!log.contains(secret), "{log}");
    }
    let asked = redis.commands(&[&["AUTH", "other"], &["SELECT", "3"], &["DBSIZE"], &["SELECT", "0"], &["DBSIZE"]]);
    let sizes: Vec<_> = asked.expect("the server answers").iter().filter_map(RedisReply::number).collect();
    assert_eq!(sizes, [1, 1]);
    gateway.stop();
}

#[test]
fn encrypted_and_verified_where_asked() {
    if !has_tool("redis-server") {
        return;
    }
    let (authority, backend) = (Authority::new(), Backend::echo());
    let (redis, dir) = redis_with_tls(&authority, "redis.test");
    let trusted = dir.path().join("ca.pem").display().to_string();
    let to = |more: &str| {
        let port = redis.tls_port();
        format!(
            "year: 10, fault_tolerant: false, redis: {{host: 127.0.0.1, port: {port}, ssl: true, timeout: 5000{more}}}"
        )
    };
    let config = routes(
        &backend,
        &[
            ("limited", &to(", ssl_verify: true, server_name: redis.test")),
            ("unverified", &to("")),
            ("wrong-name", &to(", ssl_verify: true, server_name: other.test")),
            ("no-name", &to(", ssl_verify: true")),
        ],
    );
    let mut gateway = Gateway::builder(&config).env("KONG_LUA_SSL_TRUSTED_CERTIFICATE", trusted).start();
    gateway.expect_error("Redis");
    for path in ["/limited", "/unverified"] {
        let response = get(&gateway, path);
        assert_eq!((response.status, is_limited(&response)), (200, true), "{path}: {}", response.text());
    }
    for path in ["/wrong-name", "/no-name"] {
        assert_eq!(get(&gateway, path).status, 500, "{path}");
    }
    assert_eq!(redis.command(&["DBSIZE"]).number(), Some(2));
    gateway.stop();
}
