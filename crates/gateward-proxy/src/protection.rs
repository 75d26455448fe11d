//! What an upstream's `resilience` record amounts to at run time: bounds on what goes on at the same time, the retry
//! budget, and when an answer is late.
//!
//! Counts are the node's, so that a bound means the same however many workers there are: one atomic each, touched only
//! by upstreams that set it. Waiting is a worker's own affair: a request that waits is woken when another of the same
//! worker ends, and looks every [`LOOK_MS`] for what other workers gave back. What is absent from the record costs
//! nothing; without a record there is no [`Protection`].

use crate::error::{Limit, ProxyError};
use crate::h2_client::Http2Pool;
use gateward_balance::{BudgetRules, RecentLatencies};
use gateward_model::{CircuitBreaker, EntityId, Resilience, RetryBudget};
use gateward_net::{Deadlines, Gate, Lease, Peer, Pool, UpstreamConnection, monotonic_us};
use gateward_telemetry::{Counter, WorkerMetrics};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// What hedging may cost where no budget is set.
const HEDGE_BUDGET: RetryBudget = RetryBudget { percent: 20.0, min_per_second: 10 };
/// How often a waiting request looks whether another worker made room; milliseconds.
const LOOK_MS: u64 = 20;

/// Counts of one upstream on the node.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    requests: Gate,
    pending: Gate,
    connections: Gate,
    budget: gateward_balance::RetryBudget,
}

/// Counts of all protected upstreams, kept while a worker uses them. Touched when a worker meets an upstream or a new
/// configuration of it, never by requests.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    counts: Mutex<HashMap<EntityId, Weak<Counts>>>,
}

impl Registry {
    fn counts(&self, upstream: EntityId) -> Arc<Counts> {
        let mut known = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = known.get(&upstream).and_then(Weak::upgrade) {
            return counts;
        }
        known.retain(|_, counts| counts.strong_count() > 0);
        let counts = Arc::new(Counts::default());
        known.insert(upstream, Arc::downgrade(&counts));
        counts
    }
}

/// A place of a call of the gateway's own among the requests of an upstream; given back when dropped.
pub(crate) struct CallPlace {
    _lease: Lease,
    _counts: Arc<Counts>,
}

impl Registry {
    /// A place for a call of the gateway's own, which does not wait for one and does not overtake requests that do. `Some(None)`: the
    /// upstream's requests are not limited. `None`: there is none.
    pub(crate) fn admit_call(&self, upstream: EntityId, rules: Option<&Resilience>) -> Option<Option<CallPlace>> {
        let breaker = rules.and_then(|rules| rules.circuit_breaker).filter(|breaker| breaker.max_requests > 0);
        let Some(breaker) = breaker else { return Some(None) };
        let counts = self.counts(upstream);
        if breaker.max_pending > 0 && counts.pending.inside() > 0 {
            return None;
        }
        let lease = counts.requests.enter(breaker.max_requests)?;
        Some(Some(CallPlace { _lease: lease, _counts: counts }))
    }
}

/// An upstream's protection on one worker.
pub(crate) struct Protection {
    rules: Resilience,
    counts: Arc<Counts>,
    latencies: RefCell<RecentLatencies>,
    room: Notify,
}

/// How to get a connection where their number is limited.
pub(crate) enum Opening {
    /// This one became idle.
    Idle(UpstreamConnection),
    /// A new one may be made.
    New(Lease),
}

/// The idle connections of a worker.
#[derive(Clone, Copy)]
pub(crate) struct Connections<'a> {
    pool: &'a Pool,
    http2: &'a Http2Pool,
    clock: &'a Deadlines,
}

impl<'a> Connections<'a> {
    pub(crate) fn new(pool: &'a Pool, http2: &'a Http2Pool, clock: &'a Deadlines) -> Self {
        Self { pool, http2, clock }
    }
}

/// A place among the requests of an upstream; given back when dropped.
pub(crate) struct Place {
    lease: Option<Lease>,
    protection: Rc<Protection>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Room first, then the news of it.
        self.lease = None;
        if self.protection.breaker().is_some_and(|breaker| breaker.max_pending > 0) {
            self.protection.room.notify_one();
        }
    }
}

impl Protection {
    /// The protection `rules` ask for, if they do. `before`: what the worker had until now.
    pub(crate) fn new(
        rules: Option<&Resilience>,
        upstream: EntityId,
        registry: &Registry,
        before: Option<&Rc<Self>>,
    ) -> Option<Rc<Self>> {
        let rules = rules?;
        let counts = before.map_or_else(|| registry.counts(upstream), |before| before.counts.clone());
        let latencies = before.map(|before| before.latencies.borrow().clone()).unwrap_or_default();
        Some(Rc::new(Self { rules: rules.clone(), counts, latencies: RefCell::new(latencies), room: Notify::new() }))
    }

    /// A request (not a repeat) begins.
    pub(crate) fn begin(&self) {
        if self.rules.retry_budget.is_some() || self.rules.hedging.is_some() {
            self.counts.budget.deposit(now_s());
        }
    }

    /// Whether one more repeat is within the budget, which then pays for it. One that is not is counted.
    pub(crate) fn may_repeat(&self, metrics: &WorkerMetrics) -> bool {
        self.rules.retry_budget.is_none_or(|budget| self.pay(budget, metrics))
    }

    /// Likewise for a second try beside a first, which never goes without a budget.
    pub(crate) fn may_hedge(&self, metrics: &WorkerMetrics) -> bool {
        self.pay(self.rules.retry_budget.unwrap_or(HEDGE_BUDGET), metrics)
    }

    fn pay(&self, budget: RetryBudget, metrics: &WorkerMetrics) -> bool {
        let rules = BudgetRules { percent: budget.percent, min_per_second: budget.min_per_second };
        let allowed = self.counts.budget.withdraw(rules, now_s());
        if !allowed {
            metrics.count(Counter::UpstreamRetriesOverBudget);
        }
        allowed
    }

    /// Whether an answer with this status is to be tried again.
    pub(crate) fn repeats_status(&self, status: u16) -> bool {
        self.rules.retry_on_statuses.as_ref().is_some_and(|statuses| statuses.contains(&status))
    }

    /// Time a try has for its response head.
    pub(crate) fn per_try(&self) -> Option<Duration> {
        self.rules.per_try_timeout.map(|ms| Duration::from_millis(u64::from(ms)))
    }

    /// After how long without a response head a second try starts beside the first; `None`: never, or not yet known.
    pub(crate) fn hedge_after(&self) -> Option<Duration> {
        let hedging = self.rules.hedging?;
        let known_us = hedging.percentile.and_then(|percent| self.latencies.borrow().percentile_us(percent));
        let fixed = hedging.delay_ms.map(|ms| Duration::from_millis(u64::from(ms)));
        known_us.map(Duration::from_micros).or(fixed)
    }

    /// Whether tries are watched while they wait for their answer.
    pub(crate) fn watches(&self) -> bool {
        self.rules.hedging.is_some() || self.rules.per_try_timeout.is_some()
    }

    /// A response head came after this time.
    pub(crate) fn observe(&self, latency_us: u64) {
        if self.rules.hedging.is_some_and(|hedging| hedging.percentile.is_some()) {
            self.latencies.borrow_mut().observe(latency_us);
        }
    }

    fn breaker(&self) -> Option<CircuitBreaker> {
        self.rules.circuit_breaker
    }

    /// A place among the requests under way, waiting for one where that is allowed and for at most `wait_ms`.
    pub(crate) async fn enter(self: &Rc<Self>, wait_ms: u64) -> Result<Option<Place>, ProxyError> {
        let Some(breaker) = self.breaker() else { return Ok(None) };
        let most = unlimited(breaker.max_requests);
        let lease = self.pass(breaker, wait_ms, Limit::Requests, || self.counts.requests.enter(most)).await?;
        Ok(Some(Place { lease: Some(lease), protection: self.clone() }))
    }

    /// A connection to `peer` that became idle, or a place among the open connections, likewise. An idle connection
    /// to another target makes room.
    pub(crate) async fn open(
        &self,
        at: Connections<'_>,
        peer: &Peer,
        fresh_only: bool,
        wait_ms: u64,
    ) -> Result<Option<Opening>, ProxyError> {
        let Some(breaker) = self.breaker().filter(|breaker| breaker.max_connections > 0) else { return Ok(None) };
        let connections = &self.counts.connections;
        let open = || connections.enter(breaker.max_connections).map(Opening::New);
        let ours = |lease: Option<&Lease>| lease.is_some_and(|lease| connections.owns(lease));
        let idle = || match fresh_only {
            true => None,
            false => at.pool.take(peer, true, at.clock.now_ms()).0.map(Opening::Idle),
        };
        let evict = || at.pool.evict(|idle| ours(idle.lease.as_ref())) || at.http2.evict(|lease| ours(Some(lease)));
        let make_room = || evict().then(open).flatten();
        let try_it = || open().or_else(idle).or_else(make_room);
        self.pass(breaker, wait_ms, Limit::Connections, try_it).await.map(Some)
    }

    /// What `enter` gives, at once or after waiting.
    async fn pass<T>(
        &self,
        breaker: CircuitBreaker,
        wait_ms: u64,
        limit: Limit,
        enter: impl Fn() -> Option<T>,
    ) -> Result<T, ProxyError> {
        // Who comes later must not overtake who waits.
        let mut may_enter = breaker.max_pending == 0 || self.counts.pending.inside() == 0;
        if may_enter && let Some(entered) = enter() {
            return Ok(entered);
        }
        let full = if breaker.max_pending == 0 { limit } else { Limit::Pending };
        let _pending = self.counts.pending.enter(breaker.max_pending).ok_or(ProxyError::Limited(full))?;
        let deadline = Instant::now() + Duration::from_millis(wait_ms);
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // Registered before looking: room that is made in between is not missed.
            room.as_mut().enable();
            if may_enter && let Some(entered) = enter() {
                return Ok(entered);
            }
            may_enter = true;
            let now = Instant::now();
            if now >= deadline {
                return Err(ProxyError::Limited(Limit::PendingTimeout));
            }
            let _ = timeout_at(deadline.min(now + Duration::from_millis(LOOK_MS)), room).await;
        }
    }
}

/// 0 stands for no limit.
fn unlimited(limit: u32) -> u32 {
    if limit == 0 { u32::MAX } else { limit }
}

/// Seconds on a clock that all workers share.
fn now_s() -> u64 {
    monotonic_us() / 1_000_000
}

#[cfg(test)]
mod tests {
    use crate::Settings;
    use crate::testing::{ask, backend, local, measured_gateway, read_until};
    use gateward_telemetry::{Gauge, Telemetry};
    use std::net::SocketAddr;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;
    use tokio::sync::Semaphore;
    use tokio::task::spawn_local;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// A backend that answers as often as it is allowed to; its port and the permission.
    async fn held() -> (u16, Rc<Semaphore>) {
        let answers = Rc::new(Semaphore::new(0));
        let allowed = answers.clone();
        let port = backend(async move |mut stream: TcpStream| {
            while read_until(&mut stream, "\r\n\r\n").await.ends_with("\r\n\r\n") {
                allowed.acquire().await.unwrap().forget();
                stream.write_all(OK).await.unwrap();
            }
        })
        .await;
        (port, answers)
    }

    fn start(ports: &[u16], breaker: &str, service: &str) -> (SocketAddr, Arc<Telemetry>) {
        let targets: Vec<String> = ports.iter().map(|port| format!("{{target: '127.0.0.1:{port}'}}")).collect();
        let config = format!(
            "_format_version: '3.0'\nupstreams:\n- {{name: u, resilience: {{circuit_breaker: {{{breaker}}}}}, targets: [{}]}}\nservices:\n- {{name: s, host: u{service}, routes: [{{name: r, paths: [/]}}]}}\n",
            targets.join(", ")
        );
        measured_gateway(&config, Settings::default())
    }

    async fn get(gateway: SocketAddr) -> String {
        ask(gateway, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await
    }

    /// Wait until so many requests are being served.
    async fn in_flight(telemetry: &Telemetry, count: i64) {
        while telemetry.snapshot().gauge(Gauge::UpstreamConnectionsActive) != count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn refused(telemetry: &Telemetry) -> Vec<(&'static str, u64)> {
        telemetry.snapshot().refusals.iter().map(|(reason, count)| (*reason, *count)).collect()
    }

    #[test]
    fn over_the_limit_requests_are_refused_at_once_and_counted() {
        local(async {
            let (port, answers) = held().await;
            let (gateway, telemetry) = start(&[port], "max_requests: 2", "");
            let served: Vec<_> = (0..2).map(|_| spawn_local(get(gateway))).collect();
            in_flight(&telemetry, 2).await;
            let answer = get(gateway).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            answers.add_permits(3);
            for task in served {
                assert!(task.await.unwrap().ends_with("ok"));
            }
            assert!(get(gateway).await.ends_with("ok"), "places are given back");
            assert_eq!(refused(&telemetry), [("breaker_max_requests", 1)]);
        });
    }

    #[test]
    fn a_bounded_number_waits_and_is_served_in_turn() {
        local(async {
            let (port, answers) = held().await;
            let (gateway, telemetry) = start(&[port], "max_requests: 1, max_pending: 2", "");
            let served: Vec<_> = (0..4).map(|_| spawn_local(get(gateway))).collect();
            while refused(&telemetry).is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            answers.add_permits(3);
            let mut ok = 0;
            for task in served {
                ok += u32::from(task.await.unwrap().ends_with("ok"));
            }
            assert_eq!((ok, refused(&telemetry)), (3, vec![("breaker_max_pending", 1)]));
        });
    }

    #[test]
    fn waiting_ends_with_the_time_for_connecting() {
        local(async {
            let (port, _answers) = held().await;
            let (gateway, telemetry) = start(&[port], "max_requests: 1, max_pending: 5", ", connect_timeout: 50");
            let _held = spawn_local(get(gateway));
            in_flight(&telemetry, 1).await;
            assert!(get(gateway).await.starts_with("HTTP/1.1 503 "));
            assert_eq!(refused(&telemetry), [("breaker_pending_timeout", 1)]);
        });
    }

    #[test]
    fn idle_connections_count_and_make_room_for_others() {
        local(async {
            let ((first, answers), (second, more)) = (held().await, held().await);
            answers.add_permits(100);
            more.add_permits(100);
            let (gateway, telemetry) = start(&[first, second], "max_connections: 1", "");
            for _ in 0..6 {
                // Round robin: every request finds the connection of the other target.
                assert!(get(gateway).await.ends_with("ok"));
            }
            assert!(refused(&telemetry).is_empty());
        });
    }

    #[test]
    fn connections_in_use_are_not_exceeded() {
        local(async {
            let (port, answers) = held().await;
            let (gateway, telemetry) = start(&[port], "max_connections: 1", "");
            let first = spawn_local(get(gateway));
            in_flight(&telemetry, 1).await;
            assert!(get(gateway).await.starts_with("HTTP/1.1 503 "));
            answers.add_permits(1);
            assert!(first.await.unwrap().ends_with("ok"));
            assert_eq!(refused(&telemetry), [("breaker_max_connections", 1)]);
        });
    }

    #[test]
    fn who_waits_for_a_connection_gets_the_one_that_becomes_idle() {
        local(async {
            let (port, answers) = held().await;
            let (gateway, telemetry) = start(&[port], "max_connections: 1, max_pending: 10", "");
            let served: Vec<_> = (0..5).map(|_| spawn_local(get(gateway))).collect();
            in_flight(&telemetry, 1).await;
            answers.add_permits(5);
            for task in served {
                assert!(task.await.unwrap().ends_with("ok"));
            }
            let connects = telemetry.snapshot().counter(gateward_telemetry::Counter::UpstreamConnects);
            assert_eq!(connects, 1);
        });
    }

    #[test]
    fn a_client_that_goes_away_leaves_no_place_taken() {
        local(async {
            let (port, answers) = held().await;
            let (gateway, telemetry) = start(&[port], "max_requests: 1", ", read_timeout: 100, retries: 0");
            let mut client = TcpStream::connect(gateway).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            in_flight(&telemetry, 1).await;
            client.set_zero_linger().unwrap();
            drop(client);
            in_flight(&telemetry, 0).await;
            answers.add_permits(2);
            assert!(get(gateway).await.ends_with("ok"));
        });
    }
}
