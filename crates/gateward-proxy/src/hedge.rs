//! Tries of a protected upstream, watched while they wait: given up for another after `per_try_timeout`, accompanied by a
//! second one after the hedging delay, and repeated when the answer's status says so.
//!
//! A watched try is the same future as any other. It can be dropped at any moment because everything it does lives in
//! the session; so only requests are watched whose body is short and wholly at hand. The second try runs on a session of
//! its own with a copy of the request; should it win, the two sessions exchange what came from the upstream. Nothing here
//! is reached by requests of upstreams without a `resilience` record.

use crate::body::Encoder;
use crate::client::Connection;
use crate::error::ProxyError;
use crate::protection::Protection;
use crate::repeat;
use crate::session::{Arrival, Role, Session, WatchedTry};
use crate::upstream::{self, Again, Answered, Asking, Failed, Tries, body_limit, is_idempotent};
use gateward_http::BodyFraming;
use gateward_telemetry::{Counter, WorkerMetrics};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Longest body of a watched request.
const BODY_BYTES: usize = 32 * 1024;

type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Box<Answered>, Failed>> + 'a>>;

/// One try, or two beside each other.
pub(crate) async fn attempt(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    protection: &Protection,
    tries: &mut Tries,
) -> Result<Box<Answered>, Failed> {
    let answered = if protection.watches() && can_watch(connection) {
        watched(connection, asking, protection, tries).await?
    } else {
        upstream::attempt(connection, asking, tries.fresh_only).await?
    };
    if let Some(latency_us) = answered.link.latency_us() {
        protection.observe(latency_us);
    }
    let session = &mut *connection.session;
    let unwelcome = protection.repeats_status(session.response_head.status) && tries.left > 0;
    if !unwelcome || !is_idempotent(connection) || !connection.session.upload.can_rewind() {
        return Ok(answered);
    }
    if !protection.may_repeat(&connection.worker.metrics) {
        return Ok(answered);
    }
    let session = &mut *connection.session;
    session.download.input.reset();
    (session.times.answered, session.upstream_status) = (None, None);
    if let Some(attempt) = session.exchange.tries.last_mut() {
        (attempt.failure, attempt.status) = (Some("failed"), Some(session.response_head.status));
    }
    Err(Failed { error: ProxyError::UpstreamClosed, sent: true, stale: false, again: Again::Paid })
}

/// Whether a try of this request can be dropped and made again.
fn can_watch(connection: &Connection<'_>) -> bool {
    let session = &*connection.session;
    let at_hand = match (&session.exchange.body, session.exchange.request.framing) {
        (Some(body), _) => body.len() <= BODY_BYTES,
        (None, BodyFraming::None) => true,
        // Only the end of an HTTP/2 stream is the end of its message, whatever length it announced.
        (None, BodyFraming::Length(length)) if !connection.client.ends_messages() => {
            length <= BODY_BYTES as u64 && length <= session.upload.input.len() as u64
        }
        (None, _) => false,
    };
    // Another protocol is for one upstream connection to agree to.
    at_hand && session.upgrade.is_none() && is_idempotent(connection) && session.upload.can_rewind()
}

/// What a race came to.
enum Raced {
    First(Box<Answered>),
    Second(Box<Answered>),
}

async fn watched(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    protection: &Protection,
    tries: &mut Tries,
) -> Result<Box<Answered>, Failed> {
    let worker = connection.worker;
    let hedge_after = protection.hedge_after().filter(|_| asking.has_alternatives(worker));
    let mut copy = hedge_after.map(|_| copy(connection));
    let try_one = Rc::new(WatchedTry::default());
    connection.session.role = Role::First(try_one.clone());
    // Of both: what the second spends the request has not any more.
    let left = Cell::new(tries.left);
    let watch = Watch::new(connection, asking, protection, &left, hedge_after, &try_one);
    let own_deadline = worker.deadlines.register();
    let raced = {
        let (client, served, age) = (connection.client, connection.served, connection.age);
        let first: Attempt<'_> = Box::pin(upstream::attempt(connection, asking, tries.fresh_only));
        let second = copy.as_deref_mut().map(|session| {
            let target = &try_one.target;
            let (deadline, left) = (&own_deadline, &left);
            move || -> Attempt<'_> {
                session.excluded.extend(target.get());
                session.role = Role::Second(target.get());
                Box::pin(async move {
                    let connection = Connection { worker, client, deadline, session, served, age };
                    second_try(connection, asking, left).await
                })
            }
        });
        watch.race(first, second).await
    };
    connection.session.role = Role::Only;
    tries.left = left.get();
    let answered = match raced {
        Ok(Raced::Second(answered)) => {
            worker.metrics.count(Counter::UpstreamHedgesWon);
            // A body that was sent once decodes again.
            let most = body_limit(connection);
            connection.session.upload.rewind();
            let _ = connection.session.upload.discard(most);
            if let Some(copy) = &mut copy {
                take_over(connection.session, copy);
            }
            Ok(answered)
        }
        Ok(Raced::First(answered)) => Ok(answered),
        Err(failed) => {
            connection.session.download.input.reset();
            Err(failed)
        }
    };
    if let Some(copy) = copy {
        note_loser(connection.session, &copy);
        worker.give_back(copy);
    }
    answered
}

/// When what happens to a try.
struct Watch<'a> {
    metrics: &'a WorkerMetrics,
    protection: &'a Protection,
    first: &'a WatchedTry,
    left: &'a Cell<u16>,
    hedge_at: Option<Instant>,
    per_try: Option<Duration>,
    /// When the service's own time is over, whatever is still going on.
    ends: Instant,
}

impl<'a> Watch<'a> {
    fn new(
        connection: &Connection<'a>,
        asking: &Asking<'_>,
        protection: &'a Protection,
        left: &'a Cell<u16>,
        hedge_after: Option<Duration>,
        first: &'a WatchedTry,
    ) -> Self {
        let worker = connection.worker;
        let now = Instant::now();
        let since_us = connection.session.times.forwarded.map_or(0, |began| worker.now_us().saturating_sub(began));
        let service = asking.service;
        let whole = Duration::from_millis(u64::from(service.connect_timeout) + u64::from(service.read_timeout));
        Self {
            metrics: &worker.metrics,
            protection,
            first,
            left,
            hedge_at: hedge_after.map(|after| now + after),
            per_try: protection.per_try(),
            ends: now + whole.saturating_sub(Duration::from_micros(since_us)),
        }
    }

    /// Run `first`, and `second` beside it when its time comes; the first response head wins. Dropping the loser closes
    /// its connection.
    async fn race<'f>(
        mut self,
        mut first: Attempt<'f>,
        mut second: Option<impl FnOnce() -> Attempt<'f>>,
    ) -> Result<Raced, Failed> {
        let metrics = self.metrics;
        let mut beside: Option<Attempt<'f>> = None;
        let mut failed: Option<Failed> = None;
        let mut try_ends = self.per_try.map(|per_try| Instant::now() + per_try);
        loop {
            let hedge_at = self.hedge_at.filter(|_| second.is_some()).unwrap_or(self.ends);
            let next = try_ends.unwrap_or(self.ends).min(hedge_at).min(self.ends);
            tokio::select! {
                biased;
                outcome = &mut first, if failed.is_none() => match outcome {
                    Ok(answered) => return Ok(Raced::First(answered)),
                    Err(error) if beside.is_none() => return Err(error),
                    Err(error) => failed = Some(error),
                },
                outcome = either(&mut beside) => {
                    beside = None;
                    match (outcome, failed.take()) {
                        (Ok(answered), _) => return Ok(Raced::Second(answered)),
                        (Err(_), Some(failed)) => return Err(failed),
                        (Err(_), None) => {}
                    }
                }
                () = sleep_until(next) => {
                    let now = Instant::now();
                    if now >= self.ends {
                        return Err(self.give_up(Again::No));
                    }
                    if now >= hedge_at && let Some(start) = second.take() {
                        self.hedge_at = None;
                        if self.protection.may_hedge(metrics) {
                            metrics.count(Counter::UpstreamHedges);
                            beside = Some(start());
                            // The second has its own time.
                            try_ends = self.per_try.map(|per_try| now + per_try);
                        }
                    } else if try_ends.is_some_and(|ends| now >= ends) {
                        try_ends = None;
                        if self.left.get() > 0 && self.protection.may_repeat(metrics) {
                            metrics.count(Counter::UpstreamTriesAbandoned);
                            return Err(self.give_up(Again::Paid));
                        }
                    }
                }
            }
        }
    }
}

impl Watch<'_> {
    /// The first try took too long.
    fn give_up(&self, again: Again) -> Failed {
        self.first.given_up.set(true);
        Failed { error: ProxyError::UpstreamTimeout, sent: true, stale: false, again }
    }
}

/// The try beside the first. One that fails while the first still hangs is made again elsewhere, as the first would be:
/// otherwise the request would have to wait for the target that made it late. `left`: tries that the request has left.
async fn second_try(
    mut connection: Connection<'_>,
    asking: &Asking<'_>,
    left: &Cell<u16>,
) -> Result<Box<Answered>, Failed> {
    let mut tries = Tries { left: left.get(), fresh_only: false };
    loop {
        match upstream::attempt(&mut connection, asking, tries.fresh_only).await {
            Ok(answered) => return Ok(answered),
            Err(failed) => repeat::prepare(&mut connection, asking, &mut tries, failed)?,
        }
        left.set(tries.left);
        connection.session.download.input.reset();
    }
}

/// The other try; without one, nothing ever.
async fn either(beside: &mut Option<Attempt<'_>>) -> Result<Box<Answered>, Failed> {
    match beside {
        Some(attempt) => attempt.await,
        None => std::future::pending().await,
    }
}

/// A session with the request of `connection`, for a second try.
fn copy(connection: &Connection<'_>) -> Box<Session> {
    let session = &*connection.session;
    let client = &session.exchange.client;
    let (origin, tls) = (client.origin.clone(), client.tls.clone());
    let arrival = Arrival { number: client.connection, peer: client.peer, local: session.local, origin, tls };
    let mut copy = connection.worker.session(&arrival);
    copy.peer.clone_from(&session.peer);
    copy.direct.clone_from(&session.direct);
    copy.route = session.route;
    copy.role = Role::Second(None);
    copy.excluded.clone_from(&session.excluded);
    copy.excluded_of = session.excluded_of;
    copy.times = session.times;
    let (from, to) = (&session.exchange, &mut copy.exchange);
    to.id.clone_from(&from.id);
    to.started_at_ms = from.started_at_ms;
    to.client.clone_from(&from.client);
    to.request.clone_from(&from.request);
    to.path.clone_from(&from.path);
    to.route.clone_from(&from.route);
    to.service.clone_from(&from.service);
    to.upstream.clone_from(&from.upstream);
    to.request_body_max = from.request_body_max;
    to.body.clone_from(&from.body);
    to.request_trailers.clone_from(&from.request_trailers);
    let framing = match (&from.body, from.request.framing) {
        (None, BodyFraming::Length(length)) => {
            let body = &session.upload.input.filled()[..length as usize];
            copy.upload.input.space(BODY_BYTES)[..body.len()].copy_from_slice(body);
            copy.upload.input.fill(body.len());
            from.request.framing
        }
        _ => BodyFraming::None,
    };
    copy.upload.begin(framing, Encoder::Raw);
    copy
}

/// What came from the upstream on `copy` is the answer.
fn take_over(session: &mut Session, copy: &mut Session) {
    session.download.input.reset();
    std::mem::swap(&mut session.download, &mut copy.download);
    std::mem::swap(&mut session.response_head, &mut copy.response_head);
    std::mem::swap(&mut session.exchange.tries, &mut copy.exchange.tries);
    session.times.answered = copy.times.answered;
    session.upstream_status = copy.upstream_status;
}

/// Keep account of both tries: for the log, and so that a later one goes elsewhere.
fn note_loser(session: &mut Session, copy: &Session) {
    for attempt in &copy.exchange.tries {
        let mut attempt = attempt.clone();
        attempt.failure.get_or_insert("cancelled");
        session.exchange.tries.insert(session.exchange.tries.len().saturating_sub(1), attempt);
    }
    if session.excluded_of == copy.excluded_of {
        session.excluded.extend(
            copy.excluded.iter().filter(|index| !session.excluded.contains(index)).copied().collect::<Vec<_>>(),
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::Settings;
    use crate::testing::{ask, backend, local, measured_gateway, read_until};
    use gateward_telemetry::{Counter, Telemetry};
    use std::cell::Cell;
    use std::net::SocketAddr;
    use std::rc::Rc;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// A backend that gives the `answer` to every request, and nothing when it is empty; its port, how many requests it
    /// got, and how many of its connections were closed on it.
    async fn target(answer: &'static str) -> (u16, Rc<Cell<u32>>, Rc<Cell<u32>>) {
        let (asked, closed) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let counts = (asked.clone(), closed.clone());
        let port = backend(async move |mut stream: TcpStream| {
            while read_until(&mut stream, "\r\n\r\n").await.ends_with("\r\n\r\n") {
                counts.0.set(counts.0.get() + 1);
                match answer {
                    "" => drop(stream.read_u8().await),
                    "reset" => {
                        stream.set_zero_linger().unwrap();
                        return;
                    }
                    answer => stream.write_all(answer.as_bytes()).await.unwrap(),
                }
            }
            counts.1.set(counts.1.get() + 1);
        })
        .await;
        (port, asked, closed)
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno";

    /// A gateway whose upstream has these targets, in the order in which they are tried first.
    fn start(ports: &[u16], resilience: &str, service: &str) -> (SocketAddr, Arc<Telemetry>) {
        // Of equal weights the smooth order starts anywhere: a heavy first target is always the first.
        let weights = std::iter::once(1000).chain(std::iter::repeat(1));
        let targets: Vec<String> = ports
            .iter()
            .zip(weights)
            .map(|(port, weight)| format!("{{target: '127.0.0.1:{port}', weight: {weight}}}"))
            .collect();
        let config = format!(
            "_format_version: '3.0'\nupstreams:\n- {{name: u, resilience: {{{resilience}}}, targets: [{}]}}\nservices:\n- {{name: s, host: u{service}, routes: [{{name: r, paths: [/]}}]}}\n",
            targets.join(", ")
        );
        measured_gateway(&config, Settings::default())
    }

    async fn get(gateway: SocketAddr) -> String {
        ask(gateway, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await
    }

    async fn post(gateway: SocketAddr, method: &str) -> String {
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody");
        ask(gateway, request.as_bytes()).await
    }

    fn counts(telemetry: &Telemetry) -> [u64; 5] {
        let snapshot = telemetry.snapshot();
        [
            Counter::UpstreamRetries,
            Counter::UpstreamRetriesOverBudget,
            Counter::UpstreamTriesAbandoned,
            Counter::UpstreamHedges,
            Counter::UpstreamHedgesWon,
        ]
        .map(|counter| snapshot.counter(counter))
    }

    #[test]
    fn a_second_try_wins_against_a_silent_target_whose_connection_is_closed() {
        local(async {
            let ((slow, asked, closed), (fast, ..)) = (target("").await, target(OK).await);
            let (gateway, telemetry) = start(&[slow, fast], "hedging: {delay_ms: 30}", "");
            for _ in 0..3 {
                assert!(get(gateway).await.ends_with("ok"));
            }
            let answer = post(gateway, "PUT").await;
            assert!(answer.ends_with("ok"), "{answer}");
            while closed.get() < asked.get() {
                tokio::task::yield_now().await;
            }
            assert_eq!((asked.get(), counts(&telemetry)), (4, [0, 0, 0, 4, 4]));
        });
    }

    #[test]
    fn a_second_try_that_fails_is_made_again_while_the_first_still_hangs() {
        local(async {
            let ((slow, ..), (dead, reset, _), (fast, ..)) =
                (target("").await, target("reset").await, target(OK).await);
            let (gateway, telemetry) =
                start(&[slow, dead, fast], "hedging: {delay_ms: 30}", ", read_timeout: 3000, connect_timeout: 3000");
            for _ in 0..4 {
                assert!(get(gateway).await.ends_with("ok"));
            }
            assert!(reset.get() > 0, "targets of equal weight take turns");
            assert_eq!(counts(&telemetry), [u64::from(reset.get()), 0, 0, 4, 4]);
        });
    }

    #[test]
    fn both_tries_together_make_no_more_than_the_service_allows() {
        local(async {
            let ((slow, asked, _), (dead, reset, _)) = (target("").await, target("reset").await);
            let service = ", retries: 2, read_timeout: 600, connect_timeout: 1";
            let (gateway, telemetry) = start(&[slow, dead], "hedging: {delay_ms: 30}, per_try_timeout: 200", service);
            assert!(get(gateway).await.starts_with("HTTP/1.1 504 "));
            assert_eq!((asked.get(), reset.get(), counts(&telemetry)), (1, 3, [2, 0, 0, 1, 0]));
        });
    }

    #[test]
    fn a_second_try_that_fails_leaves_the_first_where_no_retry_is_allowed() {
        local(async {
            let ((slow, ..), (dead, reset, _)) = (target("").await, target("reset").await);
            let service = ", retries: 0, read_timeout: 300, connect_timeout: 1";
            let (gateway, telemetry) = start(&[slow, dead], "hedging: {delay_ms: 30}", service);
            assert!(get(gateway).await.starts_with("HTTP/1.1 504 "));
            assert_eq!((reset.get(), counts(&telemetry)), (1, [0, 0, 0, 1, 0]));
        });
    }

    #[test]
    fn a_body_goes_with_the_second_try_and_the_connection_to_the_client_stays_in_order() {
        local(async {
            let (slow, ..) = target("").await;
            let fast = backend(async |mut stream: TcpStream| {
                let got = read_until(&mut stream, "body").await;
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{}", &got[got.len() - 4..]);
                stream.write_all(answer.as_bytes()).await.unwrap();
            })
            .await;
            let (gateway, _) = start(&[slow, fast], "hedging: {delay_ms: 30}", "");
            let mut client = TcpStream::connect(gateway).await.unwrap();
            let request = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
            client.write_all(&[&request[..], &request[..]].concat()).await.unwrap();
            for _ in 0..2 {
                let answer = read_until(&mut client, "\r\n\r\nbody").await;
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            }
        });
    }

    #[test]
    fn what_must_not_be_sent_twice_is_not_hedged() {
        local(async {
            let ((slow, ..), (fast, asked, _)) = (target("").await, target(OK).await);
            let (gateway, telemetry) =
                start(&[slow, fast], "hedging: {delay_ms: 10}, per_try_timeout: 20", ", read_timeout: 200");
            let answer = post(gateway, "POST").await;
            assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
            assert_eq!((asked.get(), counts(&telemetry)), (0, [0; 5]));
        });
    }

    #[test]
    fn a_single_target_is_not_asked_twice() {
        local(async {
            let (slow, asked, _) = target("").await;
            let (gateway, telemetry) = start(&[slow], "hedging: {delay_ms: 10}", ", read_timeout: 200, retries: 0");
            assert!(get(gateway).await.starts_with("HTTP/1.1 504 "));
            assert_eq!((asked.get(), counts(&telemetry)[3]), (1, 0));
        });
    }

    #[test]
    fn a_try_without_an_answer_is_given_up_for_another() {
        local(async {
            let ((slow, ..), (fast, ..)) = (target("").await, target(OK).await);
            let (gateway, telemetry) = start(&[slow, fast], "per_try_timeout: 30", "");
            assert!(get(gateway).await.ends_with("ok"));
            assert_eq!(counts(&telemetry), [1, 0, 1, 0, 0]);
        });
    }

    #[test]
    fn the_health_of_a_target_counts_tries_given_up() {
        local(async {
            let ((slow, asked, _), (fast, ..)) = (target("").await, target(OK).await);
            let (gateway, telemetry) =
                start(&[slow, fast], "per_try_timeout: 30, outlier_detection: {consecutive_failures: 2}", "");
            for _ in 0..5 {
                assert!(get(gateway).await.ends_with("ok"));
            }
            assert_eq!((asked.get(), counts(&telemetry)), (2, [2, 0, 2, 0, 0]), "ejected after two");
        });
    }

    #[test]
    fn the_last_try_has_what_is_left_of_the_services_time() {
        local(async {
            let (slow, asked, _) = target("").await;
            let (gateway, telemetry) =
                start(&[slow], "per_try_timeout: 30", ", retries: 2, read_timeout: 300, connect_timeout: 1");
            assert!(get(gateway).await.starts_with("HTTP/1.1 504 "));
            assert_eq!((asked.get(), counts(&telemetry)), (3, [2, 0, 2, 0, 0]));
        });
    }

    #[test]
    fn a_budget_bounds_retries_and_what_is_over_it_is_counted() {
        local(async {
            let (dead, asked, _) = target("reset").await;
            let budget = "retry_budget: {percent: 0, min_per_second: 0}";
            let (gateway, telemetry) = start(&[dead], budget, ", retries: 5");
            assert!(get(gateway).await.starts_with("HTTP/1.1 502 "));
            assert_eq!((asked.get(), counts(&telemetry)), (1, [0, 1, 0, 0, 0]));
        });
    }

    #[test]
    fn a_reset_before_the_answer_is_tried_again_if_the_method_allows_it() {
        local(async {
            let ((dead, ..), (alive, ..)) = (target("reset").await, target(OK).await);
            let (gateway, telemetry) = start(&[dead, alive], "", "");
            assert!(get(gateway).await.ends_with("ok"));
            assert_eq!(counts(&telemetry)[0], 1);
            let answer = post(gateway, "POST").await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        });
    }

    #[test]
    fn a_reset_of_a_reused_connection_costs_no_retry() {
        local(async {
            let connections = Rc::new(Cell::new(0));
            let count = connections.clone();
            let port = backend(async move |mut stream: TcpStream| {
                count.set(count.get() + 1);
                read_until(&mut stream, "\r\n\r\n").await;
                stream.write_all(OK.as_bytes()).await.unwrap();
                read_until(&mut stream, "\r\n\r\n").await;
                stream.set_zero_linger().unwrap();
            })
            .await;
            for resilience in ["", "per_try_timeout: 5000, hedging: {delay_ms: 5000}"] {
                let (gateway, telemetry) = start(&[port], resilience, ", retries: 0");
                connections.set(0);
                for _ in 0..4 {
                    assert!(get(gateway).await.ends_with("ok"));
                }
                assert_eq!((connections.get(), counts(&telemetry)), (4, [0; 5]));
            }
        });
    }

    #[test]
    fn statuses_are_tried_again_where_that_is_wanted() {
        local(async {
            let ((bad, asked, _), (good, ..)) = (target(BAD).await, target(OK).await);
            let (gateway, telemetry) = start(&[bad, good], "retry_on_statuses: [502, 503]", "");
            assert!(get(gateway).await.ends_with("ok"));
            assert_eq!((asked.get(), counts(&telemetry)[0]), (1, 1));
            assert!(post(gateway, "POST").await.ends_with("no"), "not repeated");
            let (gateway, _) = start(&[bad], "retry_on_statuses: [503]", ", retries: 2");
            let answer = get(gateway).await;
            assert!(
                answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("no"),
                "the last answer is passed on: {answer}"
            );
            let (gateway, _) = start(&[bad, good], "", "");
            assert!(get(gateway).await.ends_with("no"), "off by default");
        });
    }
}
