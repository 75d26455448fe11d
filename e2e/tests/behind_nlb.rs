//! Behind a network load balancer: each way in which it loses requests is shown with a gateway that does nothing
//! about it, and then with the settings that remove it. The last test restarts nodes under load with everything off,
//! and with everything on.
//!
//! Rows are numbered as in `docs/guide/behind-a-load-balancer.md`. Requests are counted as a client without any retry
//! would: only a connection found closed before a request was written is replaced.

use gateward_e2e::nlb::{Check, Event, Health, Nlb, ProxyProtocol, Settings, Target};
use gateward_e2e::protocol_load::{Outcome, ProtocolLoad};
use gateward_e2e::{Metrics, echoed_header, one_route, websocket};
use gateward_testkit::load::{Load, LoadReport, RunningLoad};
use gateward_testkit::{Backend, Gateway, GatewayBuilder, Next, RawClient, eventually, pause};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// As long as it takes a load to get going.
const A_MOMENT: Duration = Duration::from_millis(300);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A balancer with AWS's defaults, a hundred times faster, which asks the status port whether a node is ready.
fn balancer() -> Settings {
    Settings { check: Check { path: Some("/status/ready".to_owned()), ..Check::default() }, ..Settings::default() }
}

fn node(config: &str, settings: &[(&str, &str)]) -> GatewayBuilder {
    settings.iter().fold(Gateway::builder(config), |builder, (name, value)| builder.env(*name, *value))
}

fn target(gateway: &Gateway) -> Target {
    Target::new(gateway.proxy()).checked_at(gateway.status())
}

/// A back end that takes its time, so that requests are under way whenever something happens.
fn slow_backend(time: Duration) -> Backend {
    Backend::scripted(move |_, stream| {
        pause(time);
        if stream.write_all(OK.as_bytes()).is_ok() { Next::KeepAlive } else { Next::Close }
    })
}

/// Connections of one request each.
fn closing(addr: SocketAddr) -> Load {
    let request = format!("GET / HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    Load::request(addr, "GET", request.into_bytes()).interval(ms(2))
}

/// Prints the row's measurement.
fn tell(row: &str, setting: &str, report: &LoadReport) {
    let all = report.ok + report.failed;
    let share = 100.0 * report.ok as f64 / all.max(1) as f64;
    println!("row {row}, {setting}: {share:.2} % of {all} requests succeeded");
}

/// The first must have failures, the second none.
#[track_caller]
fn assert_removed(row: &str, before: &LoadReport, after: &LoadReport) {
    tell(row, "before", before);
    tell(row, "after", after);
    assert!(before.failed > 0, "nothing to remove: {before:?}");
    after.assert_all_ok();
}

/// A node whose readiness fails while it drains: its connections are reset under their requests.
#[test]
fn row_1_connections_of_an_unhealthy_target_are_reset() {
    // Longer than the balancer takes to see it: there are requests to lose then.
    let backend = slow_backend(ms(1_500));
    let config = one_route(&backend.url());
    let run = |unhealthy_termination| {
        let nlb = Nlb::start(Settings { unhealthy_termination, ..balancer() });
        let mut failing = node(&config, &[("GATEWARD_SHUTDOWN_GRACE", "3s")]).start();
        let healthy = node(&config, &[]).start();
        let id = nlb.register_healthy(target(&failing));
        nlb.register_healthy(target(&healthy));
        let load = Load::get(nlb.addr(), "/").connections(16).start();
        pause(A_MOMENT);
        failing.sigterm();
        eventually(PATIENCE, || nlb.health(id) == Some(Health::Unhealthy));
        pause(ms(800));
        let report = load.stop();
        assert!(failing.wait_exit(PATIENCE).success());
        (report, nlb.count(Event::ResetUnhealthy))
    };
    let (before, resets) = run(true);
    assert!(resets > 0);
    let (after, resets) = run(false);
    assert_eq!(resets, 0);
    assert_removed("1", &before, &after);
}

/// The balancer forgets quiet connections; the gateway must have closed them before.
#[test]
fn row_2_quiet_connections_are_forgotten() {
    let backend = Backend::fixed(OK);
    let config = one_route(&backend.url());
    let run = |keepalive: &str| {
        let nlb = Nlb::start(Settings { times_faster: 200, ..balancer() });
        let gateway = node(&config, &[("GATEWARD_KEEPALIVE_TIMEOUT", keepalive)]).start();
        nlb.register_healthy(target(&gateway));
        let load = Load::get(nlb.addr(), "/").connections(4).interval(ms(2_700)).start();
        pause(ms(6_000));
        let report = load.stop();
        gateway.stop();
        (report, nlb.count(Event::Forgotten))
    };
    let (before, forgotten) = run("75s");
    assert!(forgotten > 0);
    let (after, forgotten) = run("600ms");
    assert_eq!(forgotten, 0);
    assert_removed("2", &before, &after);
}

/// A target that was taken out still gets connections: it must go on accepting after SIGTERM.
#[test]
fn row_3_a_deregistered_target_gets_new_connections() {
    let backend = Backend::fixed(OK);
    let config = one_route(&backend.url());
    let run = |grace: &str| {
        let nlb = Nlb::start(balancer());
        let mut leaving = node(&config, &[("GATEWARD_SHUTDOWN_GRACE", grace)]).start();
        let staying = node(&config, &[]).start();
        let id = nlb.register_healthy(target(&leaving));
        nlb.register_healthy(target(&staying));
        let load = closing(nlb.addr()).connections(2).start();
        pause(A_MOMENT);
        nlb.deregister(id);
        leaving.sigterm();
        eventually(PATIENCE, || nlb.health(id).is_none());
        assert!(leaving.wait_exit(PATIENCE).success());
        assert!(nlb.count(Event::ToDeregistered) > 0);
        load.stop()
    };
    assert_removed("3", &run("0"), &run("2s"));
}

/// Long connections that nobody ends are reset when the delay is over: the gateway ends them before.
#[test]
fn row_4_what_is_left_after_the_deregistration_delay_is_reset() {
    let backend = Backend::fixed(OK);
    let config = one_route(&backend.url());
    let run = |told_at_once: bool| {
        let nlb = Nlb::start(Settings { connection_termination: true, ..balancer() });
        let mut leaving = node(&config, &[("GATEWARD_SHUTDOWN_GRACE", "2s")]).start();
        let staying = node(&config, &[]).start();
        let id = nlb.register_healthy(target(&leaving));
        nlb.register_healthy(target(&staying));
        let load = Load::get(nlb.addr(), "/").connections(8).start();
        pause(A_MOMENT);
        nlb.deregister(id);
        if told_at_once {
            leaving.sigterm();
        }
        eventually(PATIENCE, || nlb.health(id).is_none());
        pause(A_MOMENT);
        let report = load.stop();
        if !told_at_once {
            leaving.sigterm();
        }
        assert!(leaving.wait_exit(PATIENCE).success());
        (report, nlb.count(Event::ResetTerminated))
    };
    let (before, resets) = run(false);
    assert!(resets > 0);
    let (after, resets) = run(true);
    assert_eq!(resets, 0);
    assert_removed("4", &before, &after);
}

/// Asks over a connection from `port` (0: any), and gives the connection with the answer.
fn ask_from(port: u16, addr: SocketAddr) -> Result<(TcpStream, String), String> {
    let ask = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
        socket.connect(&addr.into())?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let mut answer = vec![0; 1024];
        let count = stream.read(&mut answer)?;
        answer.truncate(count);
        Ok::<_, std::io::Error>((stream, String::from_utf8_lossy(&answer).into_owned()))
    };
    ask().map_err(|error| error.to_string()).and_then(|(stream, answer)| {
        if answer.starts_with("HTTP/1.1 200 ") { Ok((stream, answer)) } else { Err(answer) }
    })
}

/// A client uses one port towards two zones; both connections may land on one target, which sees the same addresses.
#[test]
fn row_5_connections_with_the_same_addresses_collide() {
    let backend = Backend::echo();
    let config = one_route(&backend.url());
    let run = |preserve_client_ip, proxy_protocol: Option<ProxyProtocol>| {
        // Checks go where connections go: they, too, carry a header.
        let check = Check::default();
        let nlb = Nlb::start(Settings {
            zones: 2,
            cross_zone: true,
            preserve_client_ip,
            proxy_protocol,
            check,
            ..balancer()
        });
        let settings = [("KONG_TRUSTED_IPS", "127.0.0.0/8"), ("KONG_REAL_IP_HEADER", "proxy_protocol")];
        let start = || node(&config, &settings).proxy_listen("127.0.0.1:0 proxy_protocol=auto").start();
        let nodes = [start(), start()];
        for gateway in &nodes {
            nlb.register_healthy(Target::new(gateway.proxy()));
        }
        let (mut open, mut report) = (Vec::new(), LoadReport::default());
        let zones = nlb.zones();
        for _ in 0..16 {
            let Ok((first, answer)) = ask_from(0, zones[0]) else { panic!("the first of two is not a duplicate") };
            let port = first.local_addr().unwrap().port();
            // Known by its address only from the header.
            assert!(nlb_names_client(&answer), "{answer}");
            report.ok += 1;
            match ask_from(port, zones[1]) {
                Ok((second, _)) => {
                    report.ok += 1;
                    open.push(second);
                }
                Err(_) => report.failed += 1,
            }
            open.push(first);
        }
        assert_eq!(nlb.count(Event::Duplicate), report.failed);
        report
    };
    let header = ProxyProtocol { vpce_id: None, at_once: false };
    assert_removed("5", &run(true, None), &run(false, Some(header)));
}

/// Whether the client's address reached the back end.
fn nlb_names_client(answer: &str) -> bool {
    answer.to_ascii_lowercase().contains("\"x-forwarded-for\",\"127.0.0.1\"")
}

/// The address of a zone without targets answers nobody.
#[test]
fn row_8_a_zone_without_targets_is_a_black_hole() {
    let backend = Backend::fixed(OK);
    let gateway = Gateway::start(&one_route(&backend.url()));
    let run = |cross_zone| {
        let nlb = Nlb::start(Settings { zones: 2, cross_zone, ..balancer() });
        nlb.register_healthy(target(&gateway));
        let mut report = LoadReport::default();
        for addr in nlb.zones().iter().cycle().take(6) {
            let mut client = RawClient::connect(*addr);
            client.set_timeout(if cross_zone { PATIENCE } else { ms(500) });
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            match client.try_read_response("GET") {
                Ok(response) if response.status == 200 => report.ok += 1,
                _ => report.failed += 1,
            }
        }
        assert_eq!(nlb.count(Event::BlackHole), report.failed);
        report
    };
    assert_removed("8", &run(false), &run(true));
}

/// Long connections stay where they are, so that a node that is added has nothing to do.
#[test]
fn row_13_long_connections_stay_on_their_target() {
    let run = |age: &str| {
        let backends = [Backend::fixed(OK), Backend::fixed(OK)];
        let nlb = Nlb::start(balancer());
        let start =
            |backend: &Backend| node(&one_route(&backend.url()), &[("GATEWARD_MAX_CONNECTION_AGE", age)]).start();
        let first = start(&backends[0]);
        nlb.register_healthy(target(&first));
        let load = Load::get(nlb.addr(), "/").connections(8).interval(ms(2)).start();
        eventually(PATIENCE, || backends[0].request_count() > 100);
        let added = start(&backends[1]);
        nlb.register_healthy(target(&added));
        let done = backends[0].request_count();
        eventually(PATIENCE, || backends.iter().map(Backend::request_count).sum::<usize>() > done + 2_000);
        load.stop().assert_all_ok();
        let (one, other) = (backends[0].request_count() - done, backends[1].request_count());
        let share = 100.0 * other as f64 / (one + other) as f64;
        println!("row 13, max-connection-age {age}: the added node got {share:.0} % of the requests");
        share
    };
    assert_eq!(run("0"), 0.0);
    assert!(run("200ms") > 10.0);
}

/// Headers with an endpoint, LOCAL ones of checks, and nothing else: both a strict listener and a lenient one serve.
#[test]
fn checks_and_clients_with_proxy_headers_are_served() {
    let backend = Backend::echo();
    for (flag, path, at_once) in [("proxy_protocol", None, true), ("proxy_protocol=auto", Some("/"), false)] {
        let proxy_protocol = Some(ProxyProtocol { vpce_id: Some("vpce-0123".to_owned()), at_once });
        let check = Check { path: path.map(str::to_owned), ..Check::default() };
        let nlb = Nlb::start(Settings { proxy_protocol, check, ..balancer() });
        let gateway = node(&one_route(&backend.url()), &[("KONG_TRUSTED_IPS", "127.0.0.0/8")])
            .proxy_listen(format!("127.0.0.1:0 {flag}"))
            .start();
        nlb.register_healthy(Target::new(gateway.proxy()));
        let response =
            gateward_e2e::exchange(nlb.addr(), "GET", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(response.status, 200);
        assert_eq!(echoed_header(&response, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
        let metrics = Metrics::scrape(&gateway);
        let name = "gateward_proxy_protocol_endpoint_connections_total";
        assert_eq!(metrics.sum(name, &["vpce_id=\"vpce-0123\""]), 1.0);
        assert!(metrics.sum("gateward_proxy_protocol_connections_total", &["outcome=\"local\""]) > 0.0);
        gateway.stop();
    }
}

/// All kinds of clients at once.
struct Traffic {
    http1: Vec<(&'static str, RunningLoad)>,
    protocols: Vec<(&'static str, ProtocolLoad)>,
}

impl Traffic {
    fn start(addr: SocketAddr) -> Self {
        Self {
            http1: vec![
                ("busy connections", Load::get(addr, "/").connections(3).start()),
                ("requests that take a while", Load::get(addr, "/slow").connections(6).start()),
                ("a request per connection", closing(addr).connections(2).start()),
                ("connections with long pauses", Load::get(addr, "/").connections(4).interval(ms(4_500)).start()),
            ],
            protocols: vec![("HTTP/2", ProtocolLoad::http2(addr)), ("WebSocket", ProtocolLoad::websocket(addr, "/ws"))],
        }
    }

    /// Succeeded and failed, with what failed first.
    fn stop(self) -> (u64, u64, Vec<String>) {
        let (mut ok, mut failed, mut failures) = (0, 0, Vec::new());
        let mut add = |name: &str, succeeded: u64, not: u64, why: Vec<String>| {
            println!("  {name}: {succeeded} succeeded, {not} failed");
            (ok, failed) = (ok + succeeded, failed + not);
            failures.extend(why.into_iter().take(5).map(|why| format!("{name}: {why}")));
        };
        for (name, load) in self.http1 {
            let report = load.stop();
            add(name, report.ok, report.failed, report.failures);
        }
        for (name, load) in self.protocols {
            let Outcome { ok, failures, .. } = load.stop();
            add(name, ok, failures.len() as u64, failures);
        }
        (ok, failed, failures)
    }
}

/// Replaces each of two nodes behind a balancer, and tells how many requests succeeded and failed meanwhile.
fn rolling_restarts(balancer: Settings, settings: &[(&str, &str)]) -> (u64, u64, Vec<String>) {
    let (plain, slow, socket) = (Backend::fixed(OK), slow_backend(ms(100)), websocket::echo_backend());
    let config = format!(
        "_format_version: '3.0'\nservices:\n\
         - {{name: plain, url: '{}', retries: 0, routes: [{{name: plain, paths: [/]}}]}}\n\
         - {{name: slow, url: '{}', retries: 0, routes: [{{name: slow, paths: [/slow]}}]}}\n\
         - {{name: socket, url: '{}', retries: 0, routes: [{{name: socket, paths: [/ws]}}]}}\n",
        plain.url(),
        slow.url(),
        socket.url()
    );
    let start = || node(&config, settings).start();
    let nlb = Nlb::start(balancer);
    let mut nodes: Vec<_> = (0..2)
        .map(|_| {
            let gateway = start();
            (nlb.register_healthy(target(&gateway)), gateway)
        })
        .collect();
    let traffic = Traffic::start(nlb.addr());
    pause(ms(5_000));
    for node in &mut nodes {
        let gateway = start();
        let new = (nlb.register_healthy(target(&gateway)), gateway);
        let (id, mut old) = std::mem::replace(node, new);
        nlb.deregister(id);
        old.sigterm();
        eventually(PATIENCE, || nlb.health(id).is_none());
        old.wait_exit(PATIENCE);
        old.assert_no_errors();
    }
    pause(A_MOMENT);
    println!("  the balancer: {}", nlb.events());
    traffic.stop()
}

#[test]
fn load_rolling_restarts_behind_the_balancer() {
    // A restart as it comes: the process ends at once, the balancer's defaults, connections kept for longer than it does.
    // Quiet for 3.5 s: long enough that a busy machine's hiccup in the midst of a request is no quiet connection.
    let fast = Settings { times_faster: 200, idle_timeout: Duration::from_secs(700), ..balancer() };
    println!("before:");
    let (ok, failed, _) = rolling_restarts(
        fast.clone(),
        &[("GATEWARD_SHUTDOWN_GRACE", "0"), ("GATEWARD_SHUTDOWN_TIMEOUT", "0"), ("GATEWARD_KEEPALIVE_TIMEOUT", "75s")],
    );
    println!("after:");
    let hardened = Settings { unhealthy_termination: false, cross_zone: true, ..fast };
    let (ok_after, failed_after, failures) = rolling_restarts(
        hardened,
        &[
            ("GATEWARD_SHUTDOWN_GRACE", "2s"),
            ("GATEWARD_SHUTDOWN_TIMEOUT", "10s"),
            ("GATEWARD_KEEPALIVE_TIMEOUT", "700ms"),
            ("GATEWARD_MAX_CONNECTION_AGE", "5s"),
        ],
    );
    let share = |ok: u64, failed: u64| 100.0 * ok as f64 / (ok + failed).max(1) as f64;
    println!("before: {:.3} % of {} requests succeeded", share(ok, failed), ok + failed);
    println!("after:  {:.3} % of {} requests succeeded", share(ok_after, failed_after), ok_after + failed_after);
    assert!(failed > 0, "nothing to remove");
    assert!(failed_after == 0 && ok_after > 0, "{failed_after} failed: {failures:#?}");
}
