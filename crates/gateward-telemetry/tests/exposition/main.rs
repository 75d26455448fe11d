//! The Prometheus exposition, read back with a strict parser: format, names, labels and values.

mod parser;

use gateward_telemetry::catalog::{self, Kind};
use gateward_telemetry::{
    AccessLog, AccessLogTarget, ControlCounter, Counter, ExtraMetric, Fault, Gauge, Groups, Limits, NodeInfo,
    OVERFLOW_LABEL, ProxyProtocolOutcome, Sample, SeriesId, Source, StreamKind, StreamSample, Telemetry, process,
    prometheus,
};
use parser::{Exposition, parse};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const ALL_GROUPS: Groups = Groups { per_consumer: true, status_code: true, latency: true, bandwidth: true };

fn sample(series: SeriesId) -> Sample<'static> {
    Sample {
        series,
        status: 200,
        source: Source::Service,
        fault: Fault::None,
        request_us: 4_200,
        gateway_us: 60,
        upstream_us: Some(4_000),
        bytes_in: 100,
        bytes_out: 2_000,
        groups: ALL_GROUPS,
        consumer: None,
    }
}

fn stream(series: SeriesId) -> StreamSample {
    StreamSample {
        series,
        kind: StreamKind::TlsPassthrough,
        end: "client",
        status: 200,
        source: Source::Service,
        session_us: 90_000_000,
        gateway_us: 900,
        bytes_in: 11,
        bytes_out: 22,
        groups: ALL_GROUPS,
    }
}

fn node() -> NodeInfo {
    NodeInfo {
        version: "1.2.3".into(),
        hostname: "gw-1".into(),
        node_id: "849373c5-45c1-4c1d-b595-fdeaea6daed8".into(),
        configuration_hash: "0123abcd".into(),
        generation: 7,
        extra: Vec::new(),
    }
}

fn scrape(telemetry: &Telemetry, node: &NodeInfo) -> (String, Exposition) {
    let mut text = String::new();
    prometheus::render(&telemetry.snapshot(), node, &mut text);
    let parsed = parse(&text);
    (text, parsed)
}

#[track_caller]
fn check_lines(text: &str, expected: &[&str]) {
    for line in expected {
        assert!(text.lines().any(|have| have == *line), "missing: {line}\nin:\n{text}");
    }
}

#[test]
fn kong_metrics_have_kongs_labels_in_kongs_order() {
    let telemetry = Telemetry::new(1, Limits::default());
    let (worker, series) = (telemetry.worker(0), telemetry.series("google", "google.route-1"));
    worker.record(&sample(series));
    worker.record(&Sample { status: 429, source: Source::Exit, consumer: Some("alice"), ..sample(series) });
    let (text, _) = scrape(&telemetry, &node());
    check_lines(
        &text,
        &[
            r#"kong_http_requests_total{service="google",route="google.route-1",code="200",source="service",workspace="default",consumer=""} 1"#,
            r#"kong_http_requests_total{service="google",route="google.route-1",code="429",source="kong",workspace="default",consumer="alice"} 1"#,
            r#"kong_bandwidth_bytes{service="google",route="google.route-1",direction="egress",workspace="default",consumer=""} 2000"#,
            r#"kong_bandwidth_bytes{service="google",route="google.route-1",direction="ingress",workspace="default",consumer="alice"} 100"#,
            r#"kong_request_latency_ms_bucket{service="google",route="google.route-1",workspace="default",le="25"} 2"#,
            r#"kong_kong_latency_ms_bucket{service="google",route="google.route-1",workspace="default",le="1"} 2"#,
            r#"kong_kong_latency_ms_sum{service="google",route="google.route-1",workspace="default"} 0.12"#,
            r#"kong_upstream_latency_ms_count{service="google",route="google.route-1",workspace="default"} 2"#,
            r#"kong_nginx_connections_total{node_id="849373c5-45c1-4c1d-b595-fdeaea6daed8",subsystem="http",state="total"} 2"#,
            r#"kong_nginx_requests_total{node_id="849373c5-45c1-4c1d-b595-fdeaea6daed8",subsystem="http"} 2"#,
            r#"kong_node_info{node_id="849373c5-45c1-4c1d-b595-fdeaea6daed8",version="1.2.3"} 1"#,
            "kong_datastore_reachable 1",
            "kong_nginx_metric_errors_total 0",
            "# TYPE kong_nginx_connections_total gauge",
            "# TYPE kong_bandwidth_bytes counter",
        ],
    );
}

#[test]
fn sessions_of_streams_are_no_requests() {
    let telemetry = Telemetry::new(1, Limits::default());
    let (worker, series) = (telemetry.worker(0), telemetry.series("db", "db-route"));
    worker.record_stream(&stream(series));
    worker.record_stream(&StreamSample { end: "no_route", groups: Groups::default(), ..stream(SeriesId::NONE) });
    let (text, parsed) = scrape(&telemetry, &node());
    check_lines(
        &text,
        &[
            r#"kong_stream_sessions_total{service="db",route="db-route",code="200",source="service",workspace="default"} 1"#,
            r#"kong_session_duration_ms_bucket{service="db",route="db-route",workspace="default",le="60000"} 0"#,
            r#"kong_session_duration_ms_count{service="db",route="db-route",workspace="default"} 1"#,
            r#"kong_kong_latency_ms_bucket{service="db",route="db-route",workspace="default",le="1"} 1"#,
            r#"kong_bandwidth_bytes{service="db",route="db-route",direction="egress",workspace="default",consumer=""} 22"#,
            r#"gateward_stream_sessions_total{protocol="tls_passthrough",end="client"} 1"#,
            r#"gateward_stream_sessions_total{protocol="tls_passthrough",end="no_route"} 1"#,
            "gateward_stream_received_bytes_total 22",
            r#"gateward_requests_total{outcome="ok"} 0"#,
        ],
    );
    assert!(["kong_http_requests_total", "kong_request_latency_ms"].iter().all(|name| !parsed.contains_key(*name)));
}

#[test]
fn groups_that_are_off_leave_no_series() {
    let telemetry = Telemetry::new(1, Limits::default());
    let (worker, series) = (telemetry.worker(0), telemetry.series("s", "r"));
    worker.record(&Sample { groups: Groups::default(), ..sample(series) });
    let (text, parsed) = scrape(&telemetry, &node());
    let absent = ["kong_http_requests_total", "kong_bandwidth_bytes", "kong_request_latency_ms"];
    assert!(absent.iter().all(|name| !parsed.contains_key(*name)), "{text}");
    check_lines(
        &text,
        &[
            r#"gateward_requests_total{outcome="ok"} 1"#,
            r#"gateward_request_duration_seconds_bucket{le="0.0025"} 0"#,
            r#"gateward_request_duration_seconds_bucket{le="0.005"} 1"#,
            r#"gateward_gateway_latency_seconds_bucket{le="0.00005"} 0"#,
            r#"gateward_gateway_latency_seconds_bucket{le="0.0001"} 1"#,
            "gateward_request_duration_seconds_sum 0.0042",
        ],
    );
}

#[test]
fn per_consumer_off_hides_the_consumer() {
    let telemetry = Telemetry::new(1, Limits::default());
    let (worker, series) = (telemetry.worker(0), telemetry.series("s", "r"));
    let groups = Groups { per_consumer: false, ..ALL_GROUPS };
    worker.record(&Sample { groups, consumer: Some("alice"), ..sample(series) });
    assert!(!scrape(&telemetry, &node()).0.contains("alice"));
}

#[test]
fn limits_gather_in_overflow_labels() {
    let limits = Limits { series: 1, consumers: 2, ..Limits::default() };
    let telemetry = Telemetry::new(1, limits);
    let worker = telemetry.worker(0);
    let (first, beyond) = (telemetry.series("s", "a"), telemetry.series("s", "b"));
    assert_eq!(beyond, telemetry.series("s", "c"));
    worker.record(&Sample { consumer: None, ..sample(beyond) });
    worker.record(&sample(SeriesId::NONE));
    for consumer in ["alice", "bob", "carol", "dave", "alice"] {
        worker.record(&Sample { consumer: Some(consumer), ..sample(first) });
    }
    let line = |service: &str, route: &str, consumer: &str, n: u32| {
        format!(
            r#"kong_http_requests_total{{service="{service}",route="{route}",code="200",source="service",workspace="default",consumer="{consumer}"}} {n}"#
        )
    };
    let expected = [
        line(OVERFLOW_LABEL, OVERFLOW_LABEL, "", 1),
        line("", "", "", 1),
        line("s", "a", "alice", 2),
        line("s", "a", "bob", 1),
        line("s", "a", OVERFLOW_LABEL, 2),
    ];
    check_lines(&scrape(&telemetry, &node()).0, &expected.each_ref().map(String::as_str));
}

#[test]
fn a_restarted_worker_counts_on() {
    let telemetry = Telemetry::new(1, Limits::default());
    let series = telemetry.series("s", "a");
    for _ in 0..2 {
        telemetry.worker(0).record(&Sample { consumer: Some("alice"), ..sample(series) });
    }
    let snapshot = telemetry.snapshot();
    assert_eq!(snapshot.series[0].requests(), 2);
    assert_eq!(snapshot.series[0].consumers.iter().filter(|consumer| &*consumer.consumer == "alice").count(), 1);
    let _held = telemetry.worker(0);
    let second = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| telemetry.worker(0)));
    assert!(second.is_err(), "two handles of one worker would lose counts");
}

#[test]
fn labels_are_escaped() {
    let hostile = "a\"b\\c\nd{e=\"f\"} é";
    let telemetry = Telemetry::new(1, Limits::default());
    let (worker, series) = (telemetry.worker(0), telemetry.series(hostile, "r"));
    worker.record(&Sample { consumer: Some(hostile), ..sample(series) });
    let node = NodeInfo { hostname: hostile.into(), ..node() };
    let (_, parsed) = scrape(&telemetry, &node);
    let requests = &parsed["kong_http_requests_total"].samples[0].1;
    assert_eq!((requests[0].1.as_str(), requests[5].1.as_str()), (hostile, hostile));
    assert_eq!(parsed["gateward_node_info"].samples[0].1[1].1, hostile);
}

#[test]
fn invalid_extras_are_left_out_and_counted() {
    let extra = |name: &str| ExtraMetric {
        name: name.into(),
        help: "a\nb \\".into(),
        kind: Kind::Gauge,
        samples: vec![],
        histograms: vec![],
    };
    let good = extra("good").sample(&[("a", "1")], f64::NAN).sample(&[("a", "2")], f64::INFINITY);
    let bad = [
        extra("0bad"),
        extra(""),
        extra("bad name"),
        extra("good"),
        extra("gateward_requests_total"),
        extra("bad_label").sample(&[("a:b", "1")], 1.0),
        extra("bad_repeat").sample(&[("a", "1"), ("a", "2")], 1.0),
        extra("bad_same").sample(&[("a", "1")], 1.0).sample(&[("a", "1")], 2.0),
        ExtraMetric { kind: Kind::Histogram, ..extra("bad_histogram") },
        ExtraMetric { kind: Kind::Histogram, ..extra("bad_samples").sample(&[], 1.0).histogram(&[], vec![], 0, 0.0) },
        extra("bad_kind").histogram(&[], vec![], 0, 0.0),
    ];
    let node = NodeInfo { extra: std::iter::once(good).chain(bad.clone()).collect(), ..node() };
    let (text, parsed) = scrape(&Telemetry::new(1, Limits::default()), &node);
    assert_eq!(parsed["good"].help, "a\nb \\");
    assert!(!parsed.keys().any(|name| name.starts_with("bad")), "{text}");
    check_lines(&text, &[&format!("kong_nginx_metric_errors_total {}", bad.len()), r#"good{a="2"} +Inf"#]);
}

#[test]
fn histograms_from_elsewhere_are_added_up() {
    let took = ExtraMetric { kind: Kind::Histogram, ..ExtraMetric::of(&catalog::WASM_CALLOUT_SECONDS) };
    let took = took.histogram(&[("filter", "f"), ("protocol", "http")], vec![(0.001, 2), (0.5, 0), (10.0, 3)], 1, 20.5);
    let (text, _) = scrape(&Telemetry::new(1, Limits::default()), &NodeInfo { extra: vec![took], ..node() });
    check_lines(
        &text,
        &[
            r#"gateward_wasm_callout_seconds_bucket{filter="f",protocol="http",le="0.001"} 2"#,
            r#"gateward_wasm_callout_seconds_bucket{filter="f",protocol="http",le="0.5"} 2"#,
            r#"gateward_wasm_callout_seconds_bucket{filter="f",protocol="http",le="10"} 5"#,
            r#"gateward_wasm_callout_seconds_bucket{filter="f",protocol="http",le="+Inf"} 6"#,
            r#"gateward_wasm_callout_seconds_sum{filter="f",protocol="http"} 20.5"#,
            r#"gateward_wasm_callout_seconds_count{filter="f",protocol="http"} 6"#,
        ],
    );
}

#[test]
fn every_metric_is_in_the_catalogue_and_the_catalogue_is_complete() {
    let telemetry = Telemetry::new(1, Limits::default());
    let worker = telemetry.worker(0);
    worker.record(&sample(telemetry.series("s", "r")));
    worker.refuse("header_too_large");
    worker.proxied(true, ProxyProtocolOutcome::Proxied, Some("vpce-1"));
    worker.tunnel_ended("client");
    worker.record_stream(&stream(telemetry.series("s", "r")));
    let log = AccessLog::open(AccessLogTarget::Stdout, &Limits::default()).expect("standard output");
    // What the node's other parts count.
    let parts = [
        &catalog::LOG_ENTRIES_DELIVERED,
        &catalog::LOG_ENTRIES_DROPPED,
        &catalog::LOG_ENTRIES_FAILED,
        &catalog::LOG_BATCHES_FAILED,
        &catalog::RATE_LIMIT_EVICTIONS,
        &catalog::RATE_LIMIT_REDIS_DECISIONS,
        &catalog::RATE_LIMIT_REDIS_UNCOUNTED,
        &catalog::REDIS_ERRORS,
        &catalog::REDIS_ANSWERS,
        &catalog::REDIS_ANSWER_SECONDS,
        &catalog::TARGET_HEALTH_TURNS,
        &catalog::DNS_LOOKUPS,
        &catalog::DNS_NAMES,
        &catalog::KONG_UPSTREAM_TARGET_HEALTH,
        &catalog::LUA_CALLS,
        &catalog::LUA_ERRORS,
        &catalog::LUA_MEMORY,
        &catalog::LUA_STOPPED,
        &catalog::LUA_TIME,
        &catalog::WASM_CALLS,
        &catalog::WASM_TIME,
        &catalog::WASM_FAILURES,
        &catalog::WASM_MEMORY,
        &catalog::WASM_INSTANCES,
        &catalog::WASM_CALLOUTS,
        &catalog::WASM_CALLOUTS_UNDER_WAY,
        &catalog::WASM_CALLOUT_SECONDS,
        &catalog::WASM_OWN,
    ];
    let parts = parts.map(|metric| {
        let labels: Vec<_> = metric.labels.iter().map(|name| (*name, "x")).collect();
        match metric.kind {
            Kind::Histogram => ExtraMetric::of(metric).histogram(&labels, vec![(0.5, 1)], 0, 0.25),
            _ => ExtraMetric::of(metric).sample(&labels, 1.0),
        }
    });
    let extra = process::metrics().into_iter().chain(log.metrics()).chain(parts).collect();
    let (text, parsed) = scrape(&telemetry, &NodeInfo { extra, ..node() });
    let mut metrics: BTreeMap<_, _> = catalog::ALL.iter().map(|metric| (metric.name, metric)).collect();
    for (name, family) in &parsed {
        let metric = metrics.remove(name.as_str()).unwrap_or_else(|| panic!("{name} is not in the catalogue"));
        assert_eq!((family.kind.as_str(), family.help.as_str()), (metric.kind.name(), metric.help));
        let labels = family.samples.iter().map(|(_, labels, _)| labels);
        for labels in labels {
            let names: Vec<_> = labels.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "le").collect();
            assert_eq!(names, metric.labels, "labels of {name}");
        }
    }
    assert!(metrics.is_empty(), "never exported: {:?}\n{text}", metrics.keys());
}

#[test]
fn counters_gauges_and_control_figures_are_exported() {
    let telemetry = Telemetry::new(2, Limits::default());
    let workers = [telemetry.worker(0), telemetry.worker(1)];
    for worker in &workers {
        worker.count(Counter::ConnectionsAccepted);
        worker.add(Counter::UpstreamBytesSent, 10);
        worker.gauge_add(Gauge::ConnectionsActive, 3);
        worker.gauge_add(Gauge::RequestsInFlight, 1);
        worker.refuse("slow_client");
    }
    workers[1].count(Counter::ConnectionsRefused);
    workers[1].gauge_add(Gauge::ConnectionsActive, -2);
    telemetry.count_control(ControlCounter::ConfigReloadOk);
    telemetry.count_control(ControlCounter::ConfigReloadFailed);
    let (text, _) = scrape(&telemetry, &node());
    check_lines(
        &text,
        &[
            "gateward_connections_accepted_total 2",
            "gateward_upstream_sent_bytes_total 20",
            "gateward_connections_active 4",
            r#"gateward_refusals_total{reason="slow_client"} 2"#,
            r#"gateward_config_reloads_total{result="ok"} 1"#,
            r#"gateward_config_reloads_total{result="failed"} 1"#,
            "gateward_config_last_reload_success 0",
            "gateward_config_generation 7",
            r#"gateward_config_info{configuration_hash="0123abcd"} 1"#,
            r#"kong_nginx_connections_total{node_id="849373c5-45c1-4c1d-b595-fdeaea6daed8",subsystem="http",state="handled"} 1"#,
            r#"kong_nginx_connections_total{node_id="849373c5-45c1-4c1d-b595-fdeaea6daed8",subsystem="http",state="waiting"} 2"#,
        ],
    );
    telemetry.count_control(ControlCounter::ConfigRolledBack);
    check_lines(&scrape(&telemetry, &node()).0, &["gateward_config_last_reload_success 1"]);
}

/// One generated request: worker, series, consumer, status, source, fault, microseconds, groups.
type Event = (usize, usize, Option<usize>, u16, bool, usize, u64, [bool; 4]);

fn events() -> impl Strategy<Value = Vec<Event>> {
    let status = prop_oneof![Just(200_u16), Just(404), Just(503), 100..600_u16];
    let us = prop_oneof![0..100_u64, 0..10_000_u64, 0..200_000_000_u64];
    let event = (
        0..3_usize,
        0..4_usize,
        proptest::option::of(0..3_usize),
        status,
        any::<bool>(),
        0..5_usize,
        us,
        any::<[bool; 4]>(),
    );
    proptest::collection::vec(event, 0..200)
}

const CONSUMERS: [&str; 3] = ["alice", "bob", "carol"];

/// Every sample the exposition should have for kong's counters and buckets, the slow way.
#[derive(Default)]
struct Reference {
    samples: BTreeMap<(String, Vec<String>), f64>,
}

impl Reference {
    fn add(&mut self, name: &str, labels: &[&str], n: f64) {
        *self.samples.entry((name.into(), labels.iter().map(|label| (*label).into()).collect())).or_default() += n;
    }

    fn record(&mut self, route: &str, event: &Event) {
        let (_, _, consumer, status, service, fault, us, [per_consumer, codes, latency, bandwidth]) = *event;
        self.add("gateward_requests_total", &[Fault::ALL[fault].outcome()], 1.0);
        let consumer = consumer.filter(|_| per_consumer).map_or("", |at| CONSUMERS[at]);
        if codes {
            let source = if service { "service" } else { "kong" };
            let labels = ["s", route, &status.to_string(), source, "default", consumer];
            self.add("kong_http_requests_total", &labels, 1.0);
        }
        if bandwidth {
            self.add("kong_bandwidth_bytes", &["s", route, "ingress", "default", consumer], 3.0);
            self.add("kong_bandwidth_bytes", &["s", route, "egress", "default", consumer], us as f64 + 1.0);
        }
        if latency {
            self.add("kong_request_latency_ms_count", &["s", route, "default"], 1.0);
            for le in [25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10000, 30000, 60000] {
                let within = f64::from(u8::from(us <= le * 1000));
                self.add("kong_request_latency_ms_bucket", &["s", route, "default", &le.to_string()], within);
            }
        }
    }
}

fn record_all(telemetry: &Arc<Telemetry>, events: &[Event]) -> Reference {
    let routes = ["a", "b", "c", "d"];
    let series = routes.map(|route| telemetry.series("s", route));
    let workers = [0, 1, 2].map(|index| telemetry.worker(index));
    let mut reference = Reference::default();
    for event in events {
        let (worker, route, consumer, status, service, fault, us, groups) = *event;
        let [per_consumer, status_code, latency, bandwidth] = groups;
        workers[worker].record(&Sample {
            status,
            source: if service { Source::Service } else { Source::Error },
            fault: Fault::ALL[fault],
            request_us: us,
            bytes_in: 3,
            bytes_out: us + 1,
            groups: Groups { per_consumer, status_code, latency, bandwidth },
            consumer: consumer.map(|at| CONSUMERS[at]),
            ..sample(series[route])
        });
        reference.record(routes[route], event);
    }
    reference
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_scrape_is_the_sum_of_its_requests(events in events()) {
        let telemetry = Telemetry::new(3, Limits::default());
        let reference = record_all(&telemetry, &events);
        let (_, parsed) = scrape(&telemetry, &node());
        let mut found = BTreeMap::new();
        for (name, labels, value) in parsed.into_values().flat_map(|family| family.samples) {
            let key = (name, labels.into_iter().map(|(_, value)| value).collect::<Vec<_>>());
            found.insert(key, value);
        }
        for (key, value) in &reference.samples {
            prop_assert_eq!(found.get(key), Some(value), "{:?}", key);
        }
        let exported = |name| found.keys().filter(|(have, _)| have == name).count();
        let expected = |name| reference.samples.keys().filter(|(have, _)| have == name).count();
        for name in ["kong_http_requests_total", "kong_bandwidth_bytes", "kong_request_latency_ms_count"] {
            prop_assert_eq!(exported(name), expected(name), "{}", name);
        }
        let live = telemetry.live();
        prop_assert_eq!(live.requests_total, events.len() as u64);
        prop_assert_eq!(live.good_total + live.bad_total + live.client_faults_total, live.requests_total);
    }

    #[test]
    fn quantiles_of_a_merge_are_within_six_percent(values in proptest::collection::vec(10..90_000_000_u64, 1..300), q in 0.0..1.0_f64) {
        let telemetry = Telemetry::new(2, Limits::default());
        let workers = [telemetry.worker(0), telemetry.worker(1)];
        for (at, us) in values.iter().enumerate() {
            workers[at % 2].record(&Sample { request_us: *us, ..sample(SeriesId::NONE) });
        }
        let mut sorted = values;
        sorted.sort_unstable();
        let rank = ((q * sorted.len() as f64).ceil() as usize).max(1);
        let exact = sorted[rank - 1] as f64;
        let reported = telemetry.snapshot().latency.request.quantile_us(q).expect("values were recorded");
        prop_assert!((reported - exact).abs() <= 0.06 * exact, "{} reported as {}", exact, reported);
    }
}
