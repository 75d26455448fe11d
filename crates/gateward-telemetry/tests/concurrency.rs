//! Scrapes and configuration compiles while workers record: nothing is lost, nothing goes backwards.

use gateward_telemetry::{Fault, Groups, Limits, NodeInfo, Sample, SeriesId, Source, Telemetry, prometheus};
use std::sync::atomic::{AtomicBool, Ordering};

const WORKERS: usize = 3;
const REQUESTS: u64 = 20_000;

fn sample(series: SeriesId, n: u64, consumer: &str) -> Sample<'_> {
    Sample {
        series,
        status: 200 + (n % 5) as u16,
        source: Source::Service,
        fault: if n.is_multiple_of(10) { Fault::Upstream } else { Fault::None },
        request_us: n * 37 % 100_000,
        gateway_us: n % 200,
        upstream_us: Some(n * 31 % 90_000),
        bytes_in: 1,
        bytes_out: 2,
        groups: Groups { per_consumer: true, status_code: true, latency: true, bandwidth: true },
        consumer: n.is_multiple_of(2).then_some(consumer),
    }
}

/// Scrapes until told to stop; each scrape must show at least what the last one did.
fn scrape_until(telemetry: &Telemetry, stop: &AtomicBool) {
    let (mut last_requests, mut last_series) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let snapshot = telemetry.snapshot();
        let series: u64 = snapshot.series.iter().map(|series| series.requests()).sum();
        assert!(snapshot.requests() >= last_requests && series >= last_series, "a counter went backwards");
        (last_requests, last_series) = (snapshot.requests(), series);
        let mut text = String::new();
        prometheus::render(&snapshot, &NodeInfo::default(), &mut text);
        assert!(text.ends_with('\n'));
    }
}

#[test]
fn scraping_while_recording_loses_nothing() {
    let telemetry = Telemetry::new(WORKERS, Limits::default());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let scraper = scope.spawn(|| scrape_until(&telemetry, &stop));
        let workers: Vec<_> = (0..WORKERS)
            .map(|index| {
                let (worker, telemetry) = (telemetry.worker(index), &telemetry);
                scope.spawn(move || {
                    for n in 0..REQUESTS {
                        // New routes and consumers keep appearing, as during reloads.
                        let series = telemetry.series("s", &format!("r{}", n / 500));
                        worker.record(&sample(series, n, &format!("c{}", n % 50)));
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().expect("a worker ends"));
        stop.store(true, Ordering::Relaxed);
        scraper.join().expect("the scraper ends");
    });
    let (total, snapshot) = (WORKERS as u64 * REQUESTS, telemetry.snapshot());
    assert_eq!(snapshot.requests(), total);
    assert_eq!(snapshot.series.iter().map(|series| series.requests()).sum::<u64>(), total);
    assert_eq!(snapshot.latency.request.count(), total);
    let traffic = snapshot.series.iter().flat_map(|series| &series.consumers).map(|consumer| &consumer.traffic);
    let bytes = traffic.fold((0, 0), |(read, sent), traffic| (read + traffic.bytes_in, sent + traffic.bytes_out));
    assert_eq!(bytes, (total, 2 * total));
    let live = telemetry.live();
    assert_eq!((live.requests_total, live.bad_total), (total, total / 10));
}
