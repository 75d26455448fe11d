//! Load shedding: under a concurrency limit, requests are turned away before any work is done for them, those of low
//! priority first.
//!
//! A route says its requests' priority with a tag, `gateward:priority=critical|high|normal|low`. The limit is a worker's
//! own: nothing is shared, and each core protects itself. Off unless the operator sets it.

use crate::client::Connection;
use crate::error::{Limit, ProxyError};
use crate::outcome::Ended;
use crate::worker::{Worker, WorkerPlan};
use gateward_balance::Priority;
use std::rc::Rc;

/// Seconds after which a client that was turned away should come again.
const RETRY_AFTER_S: &str = "1";

/// A request that was let in; it makes room when dropped.
pub(crate) struct Admission {
    worker: Rc<Worker>,
    latency_us: Option<u64>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(limit) = &self.worker.concurrency {
            limit.borrow_mut().ended(self.latency_us);
        }
    }
}

impl Admission {
    /// The request is over: how long it took its upstream to answer moves the limit.
    pub(crate) fn finish(mut self, connection: &Connection<'_>, ended: &Ended) {
        let times = &connection.session.times;
        let late = matches!(ended.error, Some(ProxyError::UpstreamTimeout | ProxyError::ConnectTimeout));
        let until = times.answered.or_else(|| late.then(|| connection.worker.now_us()));
        self.latency_us = until.map(|until| until.saturating_sub(times.started));
    }
}

/// Let the request in, or turn it away. `Ok(None)`: there is no limit.
pub(crate) fn admit(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Result<Option<Admission>, ProxyError> {
    let Some(limit) = &connection.worker.concurrency else { return Ok(None) };
    let priority = connection.session.route.map_or(Priority::Normal, |route| plan.shared.routes[route].priority);
    if limit.borrow_mut().admit(priority) {
        return Ok(Some(Admission { worker: connection.worker.clone(), latency_us: None }));
    }
    connection.session.exchange.response.early.set("Retry-After", RETRY_AFTER_S);
    Err(ProxyError::Limited(Limit::Concurrency(priority)))
}

#[cfg(test)]
mod tests {
    use crate::Settings;
    use crate::testing::{backend, local, measured_gateway, read_until};
    use gateward_balance::LimitRule;
    use std::rc::Rc;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;
    use tokio::sync::Semaphore;

    #[test]
    fn low_priorities_are_turned_away_first() {
        local(async {
            let answers = Rc::new(Semaphore::new(0));
            let allowed = answers.clone();
            let port = backend(async move |mut stream: TcpStream| {
                while read_until(&mut stream, "\r\n\r\n").await.ends_with("\r\n\r\n") {
                    allowed.acquire().await.unwrap().forget();
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                }
            })
            .await;
            let routes: String = ["low", "normal", "high", "critical"]
                .map(|name| format!("{{name: {name}, paths: [/{name}], tags: ['gateward:priority={name}']}}, "))
                .concat();
            let config = format!(
                "_format_version: '3.0'\nservices:\n- {{name: s, host: 127.0.0.1, port: {port}, routes: [{routes}{{name: r, paths: [/]}}]}}\n"
            );
            let settings = Settings { concurrency: Some(LimitRule::Fixed(10)), ..Settings::default() };
            let (gateway, telemetry) = measured_gateway(&config, settings);
            // (path, of so many requests so many are served)
            let mut waiting = Vec::new();
            for (path, sent, served) in [("/low", 6, 5), ("/none", 4, 3), ("/high", 2, 1), ("/critical", 2, 1)] {
                let mut clients = Vec::new();
                for _ in 0..sent {
                    let mut client = TcpStream::connect(gateway).await.unwrap();
                    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                    client.write_all(request.as_bytes()).await.unwrap();
                    clients.push(client);
                    while telemetry.snapshot().gauge(gateward_telemetry::Gauge::UpstreamConnectionsActive) as usize
                        != waiting.len() + clients.len().min(served)
                    {
                        tokio::task::yield_now().await;
                    }
                }
                for mut refused in clients.drain(served..) {
                    let answer = read_until(&mut refused, "\n}").await;
                    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1\r\n"), "{answer}");
                }
                waiting.append(&mut clients);
            }
            answers.add_permits(waiting.len());
            for client in &mut waiting {
                assert!(read_until(client, "ok").await.starts_with("HTTP/1.1 200 "));
            }
            let refused: Vec<_> = telemetry.snapshot().refusals.into_iter().collect();
            assert_eq!(refused, [("shed_critical", 1), ("shed_high", 1), ("shed_low", 1), ("shed_normal", 1)]);
        });
    }
}
