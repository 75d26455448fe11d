//! A closed-loop load: connections that send a request, wait for the response and send the next.
//!
//! Made for "no request may fail while this happens" tests, so it is strict: once a request has been written,
//! anything but a complete response with a 2xx status is a failure. Only a connection found closed before the
//! request was written is quietly replaced, as any client does with an idle connection. Not a benchmark: the
//! client costs more than the gateway.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::raw::{RawClient, RawResponse};
use crate::wait::pause;

/// Failures described in the report; further ones are only counted.
const FAILURES_DESCRIBED: usize = 20;
/// Pause after a failure, so that a dead server does not fill the report in an instant.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(2);

/// What to send, and over how many connections.
#[derive(Debug, Clone)]
pub struct Load {
    addr: SocketAddr,
    request: Vec<u8>,
    method: String,
    connections: usize,
    interval: Duration,
    within: Duration,
}

/// A load under way; stops when dropped.
#[derive(Debug)]
pub struct RunningLoad {
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<LoadReport>>,
}

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct LoadReport {
    /// Requests answered completely with a 2xx status.
    pub ok: u64,
    /// All other requests, and connections that could not be made.
    pub failed: u64,
    /// Of these, answered with a 2xx status but too late.
    pub late: u64,
    /// Complete responses by status.
    pub by_status: BTreeMap<u16, u64>,
    /// The first failures of each connection, described.
    pub failures: Vec<String>,
    /// Connections made.
    pub connects: u64,
    /// Times from sending to the complete response.
    pub latencies: Latencies,
}

/// A histogram of times, exact to 1/16.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    /// Counts by bucket, see `bucket`.
    counts: BTreeMap<u64, u64>,
    total: u64,
    max_us: u64,
}

impl Load {
    /// `GET target` over one connection.
    pub fn get(addr: SocketAddr, target: &str) -> Self {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\n\r\n").into_bytes();
        Self::request(addr, "GET", request)
    }

    /// The given bytes, a complete request of this method, over one connection.
    pub fn request(addr: SocketAddr, method: &str, request: Vec<u8>) -> Self {
        Self {
            addr,
            request,
            method: method.to_owned(),
            connections: 1,
            interval: Duration::ZERO,
            within: Duration::MAX,
        }
    }

    /// How many connections, each on a thread of its own.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// A pause after each response, for a load that leaves connections idle in between.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long a client waits: an answer that takes longer is a failure.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Starts it, to run until [`RunningLoad::stop`].
    pub fn start(self) -> RunningLoad {
        let stopping = Arc::new(AtomicBool::new(false));
        let threads = (0..self.connections)
            .map(|_| {
                let (load, stopping) = (self.clone(), Arc::clone(&stopping));
                std::thread::spawn(move || load.drive(|| !stopping.load(Ordering::Relaxed)))
            })
            .collect();
        RunningLoad { stopping, threads }
    }

    /// Runs it for `duration`.
    ///
    /// # Panics
    /// As [`RunningLoad::stop`].
    pub fn run(self, duration: Duration) -> LoadReport {
        let running = self.start();
        pause(duration);
        running.stop()
    }

    /// Runs it until `requests` were sent over all connections together.
    ///
    /// # Panics
    /// As [`RunningLoad::stop`].
    pub fn run_requests(self, requests: u64) -> LoadReport {
        let left = AtomicU64::new(requests);
        let one_more = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        let mut total = LoadReport::default();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections).map(|_| scope.spawn(|| self.drive(one_more))).collect();
            for thread in threads {
                total.add(thread.join().expect("a load thread does not panic"));
            }
        });
        total
    }

    fn drive(&self, go_on: impl Fn() -> bool) -> LoadReport {
        let mut report = LoadReport::default();
        let mut connection: Option<(RawClient, u64)> = None;
        while go_on() {
            let started = Instant::now();
            match self.exchange(&mut connection, &mut report.connects) {
                Ok(response) => report.count(&response, started.elapsed(), self.within),
                Err(failure) => {
                    report.fail(failure);
                    connection = None;
                    pause(PAUSE_AFTER_FAILURE);
                }
            }
            if !self.interval.is_zero() {
                pause(self.interval);
            }
        }
        report
    }

    fn exchange(&self, connection: &mut Option<(RawClient, u64)>, connects: &mut u64) -> Result<RawResponse, String> {
        let reusable = connection.take().and_then(|(mut client, sent)| client.is_idle().then_some((client, sent)));
        let (mut client, sent) = match reusable {
            Some(reusable) => reusable,
            None => {
                *connects += 1;
                let client = RawClient::try_connect(self.addr).map_err(|error| format!("connecting: {error}"))?;
                (client, 0)
            }
        };
        let port = client.local_addr().port();
        let place = format!("request {} from port {port}", sent + 1);
        client.try_send(&self.request).map_err(|error| format!("{place}: sending: {error}"))?;
        loop {
            let response = client.try_read_response(&self.method).map_err(|error| format!("{place}: {error}"))?;
            if response.status < 200 {
                continue;
            }
            if !response.closes() {
                *connection = Some((client, sent + 1));
            }
            return Ok(response);
        }
    }
}

impl RunningLoad {
    /// Lets each connection finish its request and adds up.
    ///
    /// # Panics
    /// When a connection's thread panicked.
    pub fn stop(mut self) -> LoadReport {
        self.stopping.store(true, Ordering::Relaxed);
        let mut total = LoadReport::default();
        for thread in self.threads.drain(..) {
            total.add(thread.join().expect("a load thread does not panic"));
        }
        total
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

impl LoadReport {
    /// Asserts that there were requests and none failed.
    ///
    /// # Panics
    /// When one failed, or none was sent.
    #[track_caller]
    pub fn assert_all_ok(&self) {
        assert!(
            self.failed == 0 && self.ok > 0,
            "{} requests succeeded and {} failed (by status: {:?}); first failures:\n{}",
            self.ok,
            self.failed,
            self.by_status,
            self.failures.join("\n")
        );
    }

    fn count(&mut self, response: &RawResponse, latency: Duration, within: Duration) {
        *self.by_status.entry(response.status).or_default() += 1;
        self.latencies.record(latency);
        if (200..300).contains(&response.status) && latency > within {
            self.late += 1;
            self.fail(format!("status {} after {latency:?}", response.status));
        } else if (200..300).contains(&response.status) {
            self.ok += 1;
        } else {
            self.fail(format!("status {}: {}", response.status, response.text()));
        }
    }

    fn fail(&mut self, failure: String) {
        self.failed += 1;
        if self.failures.len() < FAILURES_DESCRIBED {
            self.failures.push(failure);
        }
    }

    fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.late += other.late;
        self.connects += other.connects;
        for (status, count) in other.by_status {
            *self.by_status.entry(status).or_default() += count;
        }
        self.failures.extend(other.failures);
        self.latencies.add(&other.latencies);
    }
}

impl Latencies {
    /// The time that a share `quantile` (0 to 1) of requests did not exceed; zero when there were none.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let rank = (self.total as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in &self.counts {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(bucket_end_us(*bucket).min(self.max_us));
            }
        }
        self.max()
    }

    /// The longest time.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_us)
    }

    fn record(&mut self, latency: Duration) {
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        *self.counts.entry(bucket(latency_us)).or_default() += 1;
        self.total += 1;
        self.max_us = self.max_us.max(latency_us);
    }

    fn add(&mut self, other: &Self) {
        for (bucket, count) in &other.counts {
            *self.counts.entry(*bucket).or_default() += count;
        }
        self.total += other.total;
        self.max_us = self.max_us.max(other.max_us);
    }
}

/// 16 buckets for each power of two; below 16 µs one for each microsecond.
fn bucket(latency_us: u64) -> u64 {
    let shift = u64::from(latency_us.max(16).ilog2()) - 4;
    shift * 16 + (latency_us >> shift)
}

/// The largest time in a bucket.
fn bucket_end_us(bucket: u64) -> u64 {
    let shift = (bucket / 16).saturating_sub(1);
    ((bucket - shift * 16 + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_every_time_to_a_sixteenth() {
        for latency_us in (0..5_000).chain([1 << 40, (1 << 40) + 12_345]) {
            let end_us = bucket_end_us(bucket(latency_us));
            assert!(end_us >= latency_us && end_us - latency_us <= latency_us / 16, "{latency_us}: {end_us}");
        }
    }

    #[test]
    fn quantiles() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), Duration::ZERO);
        for latency_us in 1..=1_000 {
            latencies.record(Duration::from_micros(latency_us));
        }
        let median_us = latencies.quantile(0.5).as_micros();
        assert!((500..=531).contains(&median_us), "{median_us}");
        assert_eq!(latencies.quantile(1.0), Duration::from_micros(1_000));
    }
}
