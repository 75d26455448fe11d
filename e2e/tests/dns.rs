//! Names of services and targets over the wire, with a DNS server that follows a script: kinds of records, ports and
//! weights, times to live, stale answers, failures that are remembered, and that nobody waits for what is known.

use gateward_e2e::Metrics;
use gateward_testkit::dns::{Kind, Manner};
use gateward_testkit::load::Load;
use gateward_testkit::{Backend, DnsServer, Gateway, GatewayBuilder, RawResponse, eventually, http};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// A service `s` on `host`, with these upstreams.
fn config(host: &str, port: u16, upstreams: &str) -> String {
    format!(
        "_format_version: '3.0'\n\
         services:\n\
         - {{name: s, host: {host}, port: {port}, connect_timeout: 5000, routes: [{{name: r, paths: [/]}}]}}\n\
         {upstreams}"
    )
}

/// An upstream `pool` of these targets.
fn pool(targets: &[&str], fields: &str) -> String {
    let list: String = targets.iter().map(|target| format!("  - {{target: '{target}'}}\n")).collect();
    format!("upstreams:\n- name: pool\n{fields}  targets:\n{list}")
}

/// A gateway that asks `dns`, with one worker, so that turns can be counted.
fn builder(dns: &DnsServer, config: &str) -> GatewayBuilder {
    Gateway::builder(config).workers(1).arg("--dns-resolver").arg(dns.addr().to_string())
}

/// Backends on one port of 127.0.0.1, 127.0.0.2 and so on.
fn row(count: u8) -> Vec<Backend> {
    for _ in 0..100 {
        let first = Backend::echo();
        let at = |last: u8| SocketAddr::from(([127, 0, 0, last], first.addr().port()));
        let others: Result<Vec<Backend>, _> = (2..=count).map(|last| Backend::echo_on(at(last))).collect();
        if let Ok(others) = others {
            return std::iter::once(first).chain(others).collect();
        }
    }
    panic!("no port is free on {count} addresses");
}

fn get(gateway: &Gateway) -> RawResponse {
    http(gateway.proxy(), "GET /", &[], b"")
}

#[track_caller]
fn all_succeed(gateway: &Gateway, count: usize) {
    for _ in 0..count {
        let response = get(gateway);
        assert_eq!(response.status, 200, "{}", response.text());
    }
}

fn counts(backends: &[Backend]) -> Vec<usize> {
    backends.iter().map(Backend::request_count).collect()
}

fn look_ups(gateway: &Gateway, outcome: &str) -> f64 {
    Metrics::scrape(gateway).sum("gateward_dns_lookups_total", &[&format!("outcome=\"{outcome}\"")])
}

fn names(gateway: &Gateway, state: &str) -> f64 {
    Metrics::scrape(gateway).sum("gateward_dns_names", &[&format!("state=\"{state}\"")])
}

#[track_caller]
fn assert_unresolved(response: &RawResponse) {
    assert_eq!((response.status, response.json()["message"].as_str()), (503, Some("name resolution failed")));
}

/// Address and health of every address of the first target.
fn addresses(gateway: &Gateway) -> Vec<(String, String)> {
    let json = http(gateway.admin(), "GET /upstreams/pool/health", &[], b"").json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = json["data"][0]["data"]["addresses"].as_array().expect("a list").iter();
    list.map(|it| (format!("{}:{}", text(&it["ip"]), it["port"]), text(&it["health"]))).collect()
}

/// Kong#7786: the port of SRV records was ignored.
/// The Host of the request that a backend echoed.
fn host_of(echo: &Value) -> &str {
    let mut fields = echo["headers"].as_array().into_iter().flatten();
    fields.find(|field| field[0] == "Host").and_then(|field| field[1].as_str()).unwrap_or_default()
}

#[test]
fn ports_weights_and_priorities_of_srv_records_count() {
    let (dns, backends) = (DnsServer::start(), [Backend::echo(), Backend::echo(), Backend::echo()]);
    let port = |index: usize| backends[index].addr().port();
    dns.services(
        "_http._tcp.svc.test",
        60,
        &[(1, 30, port(0), "one.test"), (1, 10, port(1), "one.test"), (7, 50, port(2), "one.test")],
    );
    dns.addresses("one.test", 60, &["127.0.0.1"]);
    // As a target, whose own port and weight do not count.
    let target = pool(&["_http._tcp.svc.test:1"], "");
    let gateway = builder(&dns, &config("pool", 80, &target)).start();
    all_succeed(&gateway, 40);
    assert_eq!(counts(&backends), [30, 10, 0]);
    assert_eq!(host_of(&get(&gateway).json()), format!("_http._tcp.svc.test:{}", port(0)), "as in Kong");
    gateway.stop();
    let by_record = pool(&["_http._tcp.svc.test:1"], "  use_srv_name: true\n");
    let gateway = builder(&dns, &config("pool", 80, &by_record)).start();
    assert_eq!(host_of(&get(&gateway).json()), format!("one.test:{}", port(0)), "the host that the record names");
    gateway.stop();
    // As the host of a service.
    let gateway = builder(&dns, &config("_http._tcp.svc.test", 1, "")).start();
    all_succeed(&gateway, 40);
    assert_eq!(counts(&backends), [62, 20, 0]);
    gateway.stop();
}

#[test]
fn every_address_of_a_name_is_balanced_and_has_a_health_that_survives_changes() {
    let (dns, backends) = (DnsServer::start(), row(4));
    let port = backends[0].addr().port();
    dns.addresses("row.test", 1, &["127.0.0.3", "127.0.0.1", "127.0.0.2"]);
    let checks = "  healthchecks: {passive: {unhealthy: {http_failures: 1}}}\n";
    let upstream = pool(&[&format!("row.test:{port}")], checks);
    let gateway = builder(&dns, &config("pool", 80, &upstream)).start();
    all_succeed(&gateway, 30);
    assert_eq!(counts(&backends), [10, 10, 10, 0]);
    let ill = format!("127.0.0.2:{port}");
    let put = http(gateway.admin(), &format!("PUT /upstreams/pool/targets/row.test:{port}/{ill}/unhealthy"), &[], b"");
    assert_eq!(put.status, 204);
    let state = |last: u8, health: &str| (format!("127.0.0.{last}:{port}"), health.to_owned());
    assert_eq!(addresses(&gateway), [state(1, "HEALTHY"), state(2, "UNHEALTHY"), state(3, "HEALTHY")]);
    all_succeed(&gateway, 10);
    assert_eq!(backends[1].request_count(), 10);
    // One address goes, another comes: what is known of those that stay is kept.
    dns.addresses("row.test", 1, &["127.0.0.4", "127.0.0.2", "127.0.0.1"]);
    let expected = [state(1, "HEALTHY"), state(2, "UNHEALTHY"), state(4, "HEALTHY")];
    eventually(PATIENCE, || addresses(&gateway) == expected);
    let before = counts(&backends);
    all_succeed(&gateway, 10);
    let served: Vec<usize> = counts(&backends).iter().zip(&before).map(|(now, before)| now - before).collect();
    assert_eq!(served, [5, 0, 0, 5]);
    gateway.stop();
}

#[test]
fn active_checks_ask_every_address() {
    let (dns, backends) = (DnsServer::start(), row(2));
    let port = backends[0].addr().port();
    // Nothing listens on the third.
    dns.addresses("row.test", 60, &["127.0.0.1", "127.0.0.2", "127.0.0.9"]);
    let checks = "  healthchecks: {active: {type: tcp, healthy: {interval: 0.1, successes: 1}, unhealthy: {interval: 0.1, tcp_failures: 1}}}\n";
    let gateway = builder(&dns, &config("pool", 80, &pool(&[&format!("row.test:{port}")], checks))).start();
    let health = || addresses(&gateway).into_iter().map(|(_, health)| health).collect::<Vec<_>>();
    eventually(PATIENCE, || health() == ["HEALTHY", "HEALTHY", "UNHEALTHY"]);
    all_succeed(&gateway, 20);
    assert_eq!(counts(&backends), [10, 10]);
    gateway.stop();
}

#[test]
fn a_changed_answer_is_followed_when_its_time_is_over_and_no_request_fails() {
    let (dns, backends) = (DnsServer::start(), row(2));
    let port = backends[0].addr().port();
    dns.addresses("move.test", 1, &["127.0.0.1"]);
    for upstream in [String::new(), pool(&[&format!("move.test:{port}")], "")] {
        dns.addresses("move.test", 1, &["127.0.0.1"]);
        let host = if upstream.is_empty() { "move.test" } else { "pool" };
        let gateway = builder(&dns, &config(host, port, &upstream)).workers(2).start();
        let before = counts(&backends);
        let load = Load::get(gateway.proxy(), "/").connections(3).interval(Duration::from_millis(2)).start();
        eventually(PATIENCE, || backends[0].request_count() > before[0] + 20);
        assert_eq!(backends[1].request_count(), before[1]);
        dns.addresses("move.test", 1, &["127.0.0.2"]);
        eventually(PATIENCE, || backends[1].request_count() > before[1] + 20);
        let last = backends[0].request_count();
        eventually(PATIENCE, || backends[1].request_count() > before[1] + 200);
        // What was under way when the answer came may still have been counted.
        assert!(backends[0].request_count() <= last + 3, "the old address is still used");
        load.stop().assert_all_ok();
        gateway.stop();
    }
}

/// Kong#11713: stale answers were served although others could be had; and for ever.
#[test]
fn while_servers_are_dead_the_last_answer_serves_for_its_stale_time() {
    let (dns, backend) = (DnsServer::start(), Backend::echo());
    let port = backend.addr().port();
    dns.addresses("away.test", 1, &["127.0.0.1"]);
    let upstream = pool(&[&format!("away.test:{port}")], "");
    let arguments = |gateway: GatewayBuilder| gateway.arg("--dns-stale-ttl").arg("4").workers(2).start();
    for (host, upstream) in [("pool", upstream.as_str()), ("away.test", "")] {
        dns.behave(Manner::Answer);
        let gateway = arguments(builder(&dns, &config(host, port, upstream)));
        all_succeed(&gateway, 5);
        dns.behave(Manner::Code(2));
        let load = Load::get(gateway.proxy(), "/").connections(2).interval(Duration::from_millis(2)).start();
        eventually(PATIENCE, || names(&gateway, "stale") == 1.0);
        eventually(PATIENCE, || look_ups(&gateway, "failed_stale") >= 2.0);
        load.stop().assert_all_ok();
        eventually(PATIENCE, || names(&gateway, "failed") == 1.0);
        eventually(PATIENCE, || get(&gateway).status == 503);
        assert_unresolved(&get(&gateway));
        let of_names = |line: &&String| line.contains("gateward_net::dns");
        let said = |text: &str| gateway.log().iter().filter(of_names).filter(|line| line.contains(text)).count();
        eventually(PATIENCE, || said("name resolution failed") == 1);
        // Once per change, however often it is asked for.
        let failed = look_ups(&gateway, "failed");
        eventually(PATIENCE, || get(&gateway).status == 503 && look_ups(&gateway, "failed") >= failed + 2.0);
        assert_eq!((said("the last addresses stay in use"), said("name resolution failed")), (1, 1));
        dns.behave(Manner::Answer);
        eventually(PATIENCE, || get(&gateway).status == 200);
        gateway.stop();
    }
}

#[test]
fn a_server_that_says_nothing_fails_no_request_while_an_answer_is_known() {
    let (dns, backend) = (DnsServer::start(), Backend::echo());
    dns.addresses("still.test", 1, &["127.0.0.1"]);
    let gateway = builder(&dns, &config("still.test", backend.addr().port(), "")).workers(2).start();
    all_succeed(&gateway, 5);
    let found = look_ups(&gateway, "found");
    dns.behave(Manner::Silence);
    let asked = dns.queries("still.test", Kind::A);
    eventually(PATIENCE, || dns.queries("still.test", Kind::A) > asked);
    // It is being asked, and has not answered: nobody waits for that.
    all_succeed(&gateway, 50);
    assert_eq!((look_ups(&gateway, "found"), look_ups(&gateway, "failed_stale")), (found, 0.0));
    gateway.stop();
}

#[test]
fn the_first_requests_wait_for_one_look_up_and_do_not_fail() {
    let (dns, backend) = (DnsServer::start(), Backend::echo());
    dns.addresses("slow.test", 60, &["127.0.0.1"]);
    dns.behave(Manner::Delay(Duration::from_millis(700)));
    let port = backend.addr().port();
    for (host, upstream) in [("pool", pool(&[&format!("slow.test:{port}")], "")), ("slow.test", String::new())] {
        let gateway = builder(&dns, &config(host, port, &upstream)).workers(2).start();
        let proxy = gateway.proxy();
        let clients: Vec<_> =
            (0..10).map(|_| std::thread::spawn(move || http(proxy, "GET /", &[], b"").status)).collect();
        let statuses: Vec<u16> = clients.into_iter().map(|client| client.join().expect("a client")).collect();
        assert_eq!(statuses, [200; 10]);
        assert_eq!(look_ups(&gateway, "found"), 1.0);
        gateway.stop();
    }
}

#[test]
fn the_wait_for_a_first_answer_is_bounded() {
    let dns = DnsServer::start();
    dns.behave(Manner::Silence);
    for (host, upstream) in [("pool", pool(&["silent.test:80"], "")), ("silent.test", String::new())] {
        let text = config(host, 80, &upstream).replace("connect_timeout: 5000", "connect_timeout: 300, retries: 0");
        let gateway = builder(&dns, &text).start();
        assert_unresolved(&get(&gateway));
        gateway.stop();
    }
}

#[test]
fn that_a_name_does_not_exist_is_remembered() {
    let dns = DnsServer::start();
    for (host, upstream) in [("pool", pool(&["nobody.test:80"], "")), ("nobody.test", String::new())] {
        let before = dns.queries("nobody.test", Kind::A);
        let gateway = builder(&dns, &config(host, 80, &upstream)).workers(2).start();
        for _ in 0..30 {
            assert_unresolved(&get(&gateway));
        }
        assert_eq!(dns.queries("nobody.test", Kind::A) - before, 1);
        assert_eq!((look_ups(&gateway, "not_found"), names(&gateway, "failed")), (1.0, 1.0));
        if host == "pool" {
            let json = http(gateway.admin(), "GET /upstreams/pool/health", &[], b"").json();
            assert_eq!(json["data"][0]["health"], "DNS_ERROR");
        }
        gateway.stop();
    }
    // For as long as is set.
    dns.remove("nobody.test");
    let gateway = builder(&dns, &config("nobody.test", 80, "")).arg("--dns-not-found-ttl").arg("0.2").start();
    assert_unresolved(&get(&gateway));
    let backend = Backend::echo();
    dns.addresses("nobody.test", 60, &["127.0.0.1"]);
    let reload = config("nobody.test", backend.addr().port(), "");
    gateway.write_config(&reload);
    eventually(PATIENCE, || get(&gateway).status == 200);
    gateway.stop();
}

#[test]
fn a_name_that_is_taken_away_ends_at_once() {
    let (dns, backend) = (DnsServer::start(), Backend::echo());
    let port = backend.addr().port();
    dns.addresses("gone.test", 1, &["127.0.0.1"]);
    let gateway = builder(&dns, &config("pool", 80, &pool(&[&format!("gone.test:{port}")], ""))).start();
    all_succeed(&gateway, 3);
    dns.remove("gone.test");
    eventually(PATIENCE, || get(&gateway).status == 503);
    assert_unresolved(&get(&gateway));
    gateway.stop();
}

#[test]
fn kinds_of_records_are_asked_for_in_their_order() {
    let (dns, backends) = (DnsServer::start(), [Backend::echo(), Backend::echo()]);
    let port = |index: usize| backends[index].addr().port();
    dns.services("both.test", 60, &[(1, 1, port(1), "host.test")]);
    dns.addresses("both.test", 60, &["127.0.0.1"]);
    dns.addresses("host.test", 60, &["127.0.0.1"]);
    let config = config("both.test", port(0), "");
    for (order, expected) in [("LAST,SRV,A,CNAME", [0, 1]), ("A,SRV", [1, 1]), ("CNAME,SRV", [2, 1])] {
        let gateway = builder(&dns, &config).arg("--dns-order").arg(order).start();
        all_succeed(&gateway, 1);
        assert_eq!(counts(&backends), expected, "{order}");
        gateway.stop();
    }
}

#[test]
fn names_with_ipv6_addresses_alone_need_aaaa_in_the_order() {
    let dns = DnsServer::start();
    let backend = Backend::echo_on("[::1]:0".parse().expect("an address")).expect("this machine has ::1");
    dns.addresses("six.test", 60, &["::1"]);
    let config = config("six.test", backend.addr().port(), "");
    let gateway = builder(&dns, &config).env("KONG_DNS_ORDER", "LAST,SRV,A,AAAA,CNAME").start();
    all_succeed(&gateway, 3);
    gateway.stop();
    let gateway = builder(&dns, &config).start();
    assert_unresolved(&get(&gateway));
    gateway.stop();
}

#[test]
fn aliases_are_followed_and_the_least_time_to_live_counts() {
    let (dns, backends) = (DnsServer::start(), row(2));
    dns.alias("www.test", 1, "first.test");
    dns.alias("first.test", 600, "real.test");
    dns.addresses("real.test", 600, &["127.0.0.1"]);
    let gateway = builder(&dns, &config("www.test", backends[0].addr().port(), "")).start();
    all_succeed(&gateway, 3);
    assert_eq!(counts(&backends), [3, 0]);
    dns.alias("www.test", 600, "second.test");
    dns.addresses("second.test", 600, &["127.0.0.2"]);
    eventually(PATIENCE, || get(&gateway).status == 200 && backends[1].request_count() > 0);
    gateway.stop();
}

/// Kong#3641: at a time to live of 0 the kind of record changed back and forth, and so did the targets.
#[test]
fn a_time_to_live_of_nothing_neither_changes_the_kind_nor_asks_for_each_request() {
    let (dns, backends) = (DnsServer::start(), [Backend::echo(), Backend::echo()]);
    let port = |index: usize| backends[index].addr().port();
    dns.services("zero.test", 0, &[(1, 1, port(0), "host.test")]);
    dns.addresses("zero.test", 0, &["127.0.0.1"]);
    dns.addresses("host.test", 0, &["127.0.0.1"]);
    let gateway = builder(&dns, &config("zero.test", port(1), "")).workers(2).start();
    let load = Load::get(gateway.proxy(), "/").connections(3).interval(Duration::from_millis(1)).start();
    eventually(PATIENCE, || look_ups(&gateway, "found") >= 2.0);
    // The records that answered last cannot be had for a while.
    dns.behave_for("zero.test", Kind::Srv, Manner::Code(2));
    eventually(PATIENCE, || look_ups(&gateway, "failed_stale") >= 2.0);
    dns.behave_for("zero.test", Kind::Srv, Manner::Answer);
    let found = look_ups(&gateway, "found");
    eventually(PATIENCE, || look_ups(&gateway, "found") > found + 1.0);
    let report = load.stop();
    report.assert_all_ok();
    assert_eq!(backends[1].request_count(), 0, "the other kind of record was never used");
    assert_eq!(dns.queries("zero.test", Kind::A), 0);
    let look_ups = look_ups(&gateway, "found") + look_ups(&gateway, "failed_stale");
    assert!(look_ups * 5.0 < report.ok as f64, "{look_ups} look-ups for {} requests", report.ok);
    gateway.stop();
}

/// Kong#6384: the look-up of a retry failed.
#[test]
fn a_retry_goes_to_the_next_address() {
    let (dns, backend) = (DnsServer::start(), Backend::echo());
    let port = backend.addr().port();
    // Nothing listens on the others.
    dns.addresses("some.test", 60, &["127.0.0.7", "127.0.0.8", "127.0.0.1"]);
    for (host, upstream) in [("some.test", String::new()), ("pool", pool(&[&format!("some.test:{port}")], ""))] {
        let text = config(host, port, &upstream).replace("port:", "retries: 2, port:");
        let gateway = builder(&dns, &text).start();
        all_succeed(&gateway, 30);
        gateway.stop();
    }
}

/// Kong#14244: the name of an upstream that came later was looked up in DNS.
#[test]
fn an_upstream_that_comes_later_takes_its_name_from_dns_at_once() {
    let (dns, backend) = (DnsServer::start(), Backend::echo());
    let gateway = builder(&dns, &config("pool", 80, "")).start();
    assert_unresolved(&get(&gateway));
    let with = config("pool", 80, &pool(&[&backend.addr().to_string()], ""));
    let posted = http(gateway.admin(), "POST /config", &[("Content-Type", "text/yaml")], with.as_bytes());
    assert_eq!(posted.status, 201, "{}", posted.text());
    let asked = dns.queries("pool", Kind::A);
    all_succeed(&gateway, 20);
    assert_eq!(dns.queries("pool", Kind::A), asked);
    gateway.stop();
}

#[test]
fn names_of_a_configuration_are_looked_up_before_anybody_asks() {
    let dns = DnsServer::start();
    dns.addresses("ahead.test", 60, &["127.0.0.1"]);
    dns.addresses("later.test", 60, &["127.0.0.1"]);
    let gateway = builder(&dns, &config("pool", 80, &pool(&["ahead.test:80"], ""))).start();
    eventually(PATIENCE, || names(&gateway, "fresh") == 1.0);
    let next = config("later.test", 80, &pool(&["ahead.test:80"], ""));
    let posted = http(gateway.admin(), "POST /config", &[("Content-Type", "text/yaml")], next.as_bytes());
    assert_eq!(posted.status, 201, "{}", posted.text());
    eventually(PATIENCE, || names(&gateway, "fresh") == 2.0);
    assert_eq!(dns.queries("ahead.test", Kind::A), 1, "what is known is not asked for again");
    gateway.stop();
}

#[test]
fn answers_too_long_for_udp_come_over_tcp() {
    let (dns, backend) = (DnsServer::start(), Backend::echo());
    dns.addresses("long.test", 60, &["127.0.0.1"]);
    dns.behave(Manner::Truncate);
    let gateway = builder(&dns, &config("long.test", backend.addr().port(), "")).start();
    all_succeed(&gateway, 3);
    assert_eq!(dns.queries_over_tcp("long.test", Kind::A), 1);
    gateway.stop();
}

#[test]
fn the_hosts_file_and_localhost_come_before_dns() {
    let (dns, backends) = (DnsServer::start(), row(2));
    let port = backends[0].addr().port();
    dns.addresses("own.test", 60, &["127.0.0.1"]);
    let gateway = builder(&dns, &config("own.test", port, "")).start();
    std::fs::write(gateway.dir().join("hosts"), "127.0.0.2 own.test\n").expect("the folder is the test's");
    let hosts = gateway.dir().join("hosts").display().to_string();
    let with = builder(&dns, &config("own.test", port, "")).arg("--dns-hostsfile").arg(hosts).start();
    all_succeed(&with, 3);
    assert_eq!(counts(&backends), [0, 3]);
    with.stop();
    gateway.stop();
    let gateway = builder(&dns, &config("localhost", port, "")).start();
    all_succeed(&gateway, 2);
    assert_eq!((counts(&backends), dns.queries("localhost", Kind::A)), (vec![2, 3], 0));
    gateway.stop();
}
