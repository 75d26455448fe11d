//! Health of targets over the wire: active and passive checks, outlier ejection, slow start, and an operator's word.

use gateward_e2e::Metrics;
use gateward_testkit::{Backend, Gateway, Next, eventually, free_port, http};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(15);

/// A back end whose status a test sets; checks ask for `/health`, which has a status of its own.
struct Moody {
    backend: Backend,
    status: Arc<AtomicU16>,
    health: Arc<AtomicU16>,
    checks: Arc<AtomicUsize>,
}

impl Moody {
    fn start() -> Self {
        let (status, health, checks) =
            (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU16::new(200)), Arc::<AtomicUsize>::default());
        let (now, asked, counted) = (status.clone(), health.clone(), Arc::clone(&checks));
        let backend = Backend::scripted(move |request, stream| {
            let check = request.target == "/health";
            counted.fetch_add(usize::from(check), SeqCst);
            let status = if check { asked.load(SeqCst) } else { now.load(SeqCst) };
            let answer = format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).is_ok() { Next::KeepAlive } else { Next::Close }
        });
        Self { backend, status, health, checks }
    }

    fn served(&self) -> usize {
        self.backend.request_count() - self.checks.load(SeqCst)
    }
}

fn config(targets: &[&Moody], fields: &str) -> String {
    let list: String = targets.iter().map(|moody| format!("  - {{target: '{}'}}\n", moody.backend.addr())).collect();
    format!(
        "_format_version: '3.0'\n\
         services:\n\
         - {{name: s, host: pool, retries: 0, routes: [{{name: r, paths: [/]}}]}}\n\
         plugins:\n\
         - {{name: prometheus, config: {{upstream_health_metrics: true}}}}\n\
         upstreams:\n\
         - name: pool\n{fields}  \
           targets:\n{list}"
    )
}

const ACTIVE: &str = "  healthchecks: {active: {http_path: /health, healthy: {interval: 0.05, successes: 2}, unhealthy: {interval: 0.05, http_failures: 2, tcp_failures: 1, timeouts: 1}}}\n";

fn get(gateway: &Gateway) -> u16 {
    http(gateway.proxy(), "GET /x", &[], b"").status
}

/// Health of each target as the Admin API tells it, in the order of the configuration.
fn shown(gateway: &Gateway) -> Vec<String> {
    let json = http(gateway.admin(), "GET /upstreams/pool/health", &[], b"").json();
    let targets = json["data"].as_array().expect("a list").iter();
    targets.map(|target| target["health"].as_str().expect("a state").to_owned()).collect()
}

fn becomes(gateway: &Gateway, states: &[&str]) {
    eventually(PATIENCE, || shown(gateway) == states);
}

#[test]
fn active_checks_take_a_target_out_and_bring_it_back() {
    let moods = [Moody::start(), Moody::start()];
    let gateway = Gateway::builder(&config(&[&moods[0], &moods[1]], ACTIVE)).workers(2).start();
    becomes(&gateway, &["HEALTHY", "HEALTHY"]);
    moods[0].health.store(503, SeqCst);
    becomes(&gateway, &["UNHEALTHY", "HEALTHY"]);
    let before = moods[0].served();
    assert!((0..20).all(|_| get(&gateway) == 200));
    assert_eq!(moods[0].served(), before, "an unhealthy target gets no requests");
    moods[0].health.store(200, SeqCst);
    becomes(&gateway, &["HEALTHY", "HEALTHY"]);
    eventually(PATIENCE, || get(&gateway) == 200 && moods[0].served() > before);
    let metrics = Metrics::scrape(&gateway);
    let turned = |to: &str| {
        metrics.sum("gateward_target_health_transitions_total", &[&format!("to=\"{to}\""), "reason=\"active\""])
    };
    assert_eq!((turned("healthy"), turned("unhealthy")), (1.0, 1.0));
}

#[test]
fn the_node_checks_once_however_many_workers_it_has() {
    let moody = Moody::start();
    let slow = ACTIVE.replace("0.05", "3600");
    let gateway = Gateway::builder(&config(&[&moody], &slow)).workers(4).start();
    eventually(PATIENCE, || moody.checks.load(SeqCst) >= 1);
    assert!((0..20).all(|_| get(&gateway) == 200));
    assert_eq!(moody.checks.load(SeqCst), 1);
}

#[test]
fn a_target_that_refuses_connections_is_found_by_tcp_checks() {
    let (alive, dead) = (Moody::start(), Moody::start());
    let mut config = config(&[&alive, &dead], &ACTIVE.replace("active: {", "active: {type: tcp, "));
    let free = free_port();
    config = config.replace(&dead.backend.addr().to_string(), &free.to_string());
    let gateway = Gateway::start(&config);
    becomes(&gateway, &["HEALTHY", "UNHEALTHY"]);
    assert!((0..20).all(|_| get(&gateway) == 200));
}

#[test]
fn requests_take_a_target_out_and_an_operator_brings_it_back() {
    let moods = [Moody::start(), Moody::start()];
    let fields = "  healthchecks: {passive: {unhealthy: {http_failures: 3}}}\n";
    let text = config(&[&moods[0], &moods[1]], fields);
    let gateway = Gateway::builder(&text).workers(1).start();
    moods[1].status.store(500, SeqCst);
    let failed = (0..40).filter(|_| get(&gateway) == 500).count();
    assert_eq!(failed, 3, "no more than it takes");
    assert_eq!(shown(&gateway), ["HEALTHY", "UNHEALTHY"]);
    // A new configuration does not forget: not with another target, another weight or another service.
    let third = Moody::start();
    let changed = config(&[&moods[0], &moods[1], &third], fields).replace("retries: 0", "retries: 1");
    let posted = http(gateway.admin(), "POST /config", &[("Content-Type", "text/yaml")], changed.as_bytes());
    assert_eq!(posted.status, 201, "{}", posted.text());
    assert_eq!(shown(&gateway), ["HEALTHY", "UNHEALTHY", "HEALTHY"]);
    assert!((0..20).all(|_| get(&gateway) == 200));
    moods[1].status.store(200, SeqCst);
    let path = format!("PUT /upstreams/pool/targets/{}/healthy", moods[1].backend.addr());
    assert_eq!(http(gateway.admin(), &path, &[], b"").status, 204);
    assert_eq!(shown(&gateway), ["HEALTHY"; 3]);
    let before = moods[1].served();
    assert!((0..9).all(|_| get(&gateway) == 200));
    assert_eq!(moods[1].served() - before, 3);
    assert_eq!(http(gateway.admin(), "PUT /upstreams/pool/targets/192.0.2.1:1/healthy", &[], b"").status, 404);
}

#[test]
fn without_a_healthy_target_the_answer_is_kongs() {
    let moody = Moody::start();
    let fields = "  healthchecks: {passive: {unhealthy: {http_failures: 1}}}\n";
    let gateway = Gateway::builder(&config(&[&moody], fields)).workers(1).start();
    moody.status.store(503, SeqCst);
    get(&gateway);
    let answer = http(gateway.proxy(), "GET /x", &[], b"");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("failure to get a peer from the ring-balancer"), "{}", answer.text());
    let balancer = http(gateway.admin(), "GET /upstreams/pool/health?balancer_health=1", &[], b"").json();
    assert_eq!(balancer["data"]["health"], "UNHEALTHY");
}

#[test]
fn below_the_threshold_nobody_is_asked() {
    let moods = [Moody::start(), Moody::start(), Moody::start()];
    let fields = "  healthchecks: {threshold: 50, passive: {unhealthy: {http_failures: 1}}}\n";
    let gateway = Gateway::builder(&config(&[&moods[0], &moods[1], &moods[2]], fields)).workers(1).start();
    let set = |target: usize, state: &str| {
        // The method of Kong before 3.0.
        let path = format!("POST /upstreams/pool/targets/{}/{state}", moods[target].backend.addr());
        assert_eq!(http(gateway.admin(), &path, &[], b"").status, 204);
    };
    let balancer = || http(gateway.admin(), "GET /upstreams/pool/health?balancer_health=1", &[], b"").json();
    set(0, "unhealthy");
    assert!((0..6).all(|_| get(&gateway) == 200));
    assert_eq!(
        (&balancer()["data"]["health"], &balancer()["data"]["details"]["weight"]["available"]),
        (&"HEALTHY".into(), &200.into())
    );
    set(1, "unhealthy");
    let served = moods[2].served();
    assert!((0..6).all(|_| get(&gateway) == 503));
    assert_eq!(moods[2].served(), served, "a third is not more than half");
    assert_eq!(balancer()["data"]["health"], "UNHEALTHY");
    set(0, "healthy");
    assert!((0..6).all(|_| get(&gateway) == 200));
}

#[test]
fn silence_and_refused_connections_take_a_target_out() {
    let good = Moody::start();
    let silent = Backend::raw(|_, mut stream| drop(std::io::copy(&mut stream, &mut std::io::sink())));
    let free = free_port();
    for (other, counted) in [(silent.addr(), "timeouts"), (free, "tcp_failures")] {
        let fields = format!("  healthchecks: {{passive: {{unhealthy: {{{counted}: 2}}}}}}\n");
        let text = config(&[&good], &fields).replace("retries: 0", "retries: 1, read_timeout: 200");
        let text = format!("{text}  - {{target: '{other}'}}\n");
        let gateway = Gateway::builder(&text).workers(1).start();
        // A retry hides each of them from clients.
        assert!((0..8).all(|_| get(&gateway) == 200), "{counted}");
        assert_eq!(shown(&gateway), ["HEALTHY", "UNHEALTHY"], "{counted}");
        let metrics = Metrics::scrape(&gateway);
        assert_eq!(metrics.sum("gateward_upstream_retries_total", &[]), 2.0, "{counted}");
    }
}

/// Kong#7652, Kong#5581: checks stopped, and health was forgotten, with changes of the configuration.
#[test]
fn checks_go_on_while_the_configuration_keeps_changing() {
    let moods = [Moody::start(), Moody::start(), Moody::start()];
    let texts = [config(&[&moods[0], &moods[1]], ACTIVE), config(&[&moods[2], &moods[0], &moods[1]], ACTIVE)];
    let gateway = Gateway::start(&texts[0]);
    let mut turn = 0;
    let mut change = || {
        turn += 1;
        let posted =
            http(gateway.admin(), "POST /config", &[("Content-Type", "text/yaml")], texts[turn % 2].as_bytes());
        assert_eq!(posted.status, 201, "{}", posted.text());
        let states = shown(&gateway);
        states[states.len() - 2..].to_vec()
    };
    moods[0].health.store(500, SeqCst);
    eventually(PATIENCE, || change() == ["UNHEALTHY", "HEALTHY"]);
    assert!((0..10).all(|_| change() == ["UNHEALTHY", "HEALTHY"]), "no change makes it healthy");
    moods[0].health.store(200, SeqCst);
    eventually(PATIENCE, || change() == ["HEALTHY", "HEALTHY"]);
    let metrics = Metrics::scrape(&gateway);
    assert_eq!(metrics.sum("gateward_target_health_transitions_total", &["reason=\"active\""]), 2.0);
}

#[test]
fn an_outlier_is_ejected_for_a_while() {
    let moods = [Moody::start(), Moody::start(), Moody::start()];
    let fields = "  resilience: {outlier_detection: {consecutive_failures: 4, base_ejection_time: 1.5, max_ejection_percent: 40}}\n";
    let gateway = Gateway::builder(&config(&[&moods[0], &moods[1], &moods[2]], fields)).workers(1).start();
    moods[2].status.store(502, SeqCst);
    let failed = (0..30).filter(|_| get(&gateway) == 502).count();
    assert_eq!(failed, 4);
    assert_eq!(shown(&gateway), ["HEALTHY", "HEALTHY", "UNHEALTHY"]);
    moods[2].status.store(200, SeqCst);
    becomes(&gateway, &["HEALTHY"; 3]);
    assert!((0..9).all(|_| get(&gateway) == 200));
}

#[test]
fn a_new_target_gets_its_share_slowly() {
    let moods = [Moody::start(), Moody::start()];
    let fields = "  resilience: {slow_start: {window: 3600, min_weight_percent: 10}}\n";
    let gateway = Gateway::builder(&config(&[&moods[0]], fields)).workers(1).start();
    assert_eq!(get(&gateway), 200);
    let both = config(&[&moods[0], &moods[1]], fields);
    let posted = http(gateway.admin(), "POST /config", &[("Content-Type", "text/yaml")], both.as_bytes());
    assert_eq!(posted.status, 201, "{}", posted.text());
    assert!((0..110).all(|_| get(&gateway) == 200));
    // 100 parts of the weight against 10.
    assert_eq!(moods[1].served(), 10);
}
