//! One try to ask the upstream: pick a target, get a connection, send the request, wait for the response head. What
//! follows when it fails is for `tries` to say.

mod choice;
mod connect;
mod heads;
mod http2;
mod link;
mod secure;

use crate::body::Encoder;
use crate::client::Connection;
use crate::error::ProxyError;
use crate::forward::{self, Authority};
use crate::plan::Backend;
use crate::protection::Protection;
use crate::pump::Pace;
use crate::worker::{Worker, WorkerPlan};
use choice::failed_attempt;
use connect::connect;
use gateward_model::Service;
use gateward_net::tls::Client;
use heads::send_and_wait;
use link::Link;
use std::rc::Rc;

/// An upstream that has answered: its response head is in the session, its body follows on the connection.
pub(crate) struct Answered {
    pub(crate) link: Link,
    /// Milliseconds between two reads and two writes.
    pub(crate) read_ms: u64,
    pub(crate) write_ms: u64,
}

/// A try that failed.
pub(crate) struct Failed {
    pub(crate) error: ProxyError,
    /// Bytes of the request went out.
    pub(crate) sent: bool,
    /// It died on a pooled connection without an answer.
    pub(crate) stale: bool,
    pub(crate) again: Again,
}

/// Whether another try may follow a failed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// If the request allows it and the retry budget has something left.
    Ask,
    /// It was decided that it does, and the budget has paid.
    Paid,
    /// There is no time left.
    No,
}

/// What is asked, the same for every try.
pub(crate) struct Asking<'a> {
    pub(crate) plan: &'a WorkerPlan,
    pub(crate) service: &'a Service,
    pub(crate) backend: Backend,
    pub(crate) hash: Option<u64>,
    /// How the upstream is spoken to when that is over TLS.
    pub(crate) tls: Option<&'a Client>,
    pub(crate) protection: Option<Rc<Protection>>,
}

impl Asking<'_> {
    /// Whether a second try can go elsewhere than the first.
    pub(crate) fn has_alternatives(&self, worker: &Worker) -> bool {
        match self.backend {
            Backend::Upstream(index) => self.plan.upstream(index, worker).borrow().has_alternatives(),
            Backend::Host(_) => false,
        }
    }
}

/// Tries to come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tries {
    pub(crate) left: u16,
    /// Pooled connections are not to be trusted any more.
    pub(crate) fresh_only: bool,
}

/// Whether the request as it goes upstream may be sent more than once.
pub(crate) fn is_idempotent(connection: &Connection<'_>) -> bool {
    let exchange = &connection.session.exchange;
    exchange.upstream.method.as_ref().unwrap_or(&exchange.request.method).is_idempotent()
}

/// One try.
pub(crate) async fn attempt(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    fresh_only: bool,
) -> Result<Box<Answered>, Failed> {
    let unsent = |error| Failed { error, sent: false, stale: false, again: Again::Ask };
    let service = asking.service;
    let began = connection.worker.now_us();
    connection.session.times.forwarded.get_or_insert(began);
    let place = match &asking.protection {
        None => None,
        Some(protection) => Box::pin(protection.enter(u64::from(service.connect_timeout))).await.map_err(unsent)?,
    };
    let mut destination = choice::choose(connection, asking, place, began).await.map_err(unsent)?;
    let peer = secure::peer(connection.session, destination.address, asking.tls, || {
        let (host, _, header) = destination.asked(service);
        header.unwrap_or(host)
    });
    let mut link = match connect(connection, asking, peer, fresh_only, began).await {
        Ok(link) => link,
        Err(error) => {
            if let Some(share) = &mut destination.share {
                share.load.attempt = failed_attempt(error);
            }
            return Err(unsent(error));
        }
    };
    if let Some(call) = connection.session.call
        && !call.pass_deadline(began, &mut connection.session.exchange.request.headers)
    {
        return Err(unsent(ProxyError::Deadline));
    }
    let (host, port, host_header) = destination.asked(service);
    let settings = &connection.worker.node.settings;
    let default_port = if asking.tls.is_some() { 443 } else { 80 };
    let authority = Authority { host, port: (port != default_port).then_some(port), header: host_header };
    forward::write_head(connection.session, settings, &connection.worker.own, authority);
    if link.channel().ends_messages() {
        connection.session.upload.encoder = Encoder::Raw;
    }
    link.load = destination.share.map(|share| share.load);
    let pace = upload_pace(connection, u64::from(service.read_timeout), u64::from(service.write_timeout));
    // Boxed, because it changes hands a dozen times from here to the end of the exchange.
    let answered = Box::new(Answered { link, read_ms: u64::from(service.read_timeout), write_ms: pace.write_ms });
    send_and_wait(connection, answered, pace, began, asking.plan).await
}

/// How the request's body may come in and go on. The messages of a gRPC call may come as seldom as those of its
/// response.
pub(crate) fn upload_pace(connection: &Connection<'_>, read_ms: u64, write_ms: u64) -> Pace {
    let limits = &connection.worker.node.settings.limits;
    let (read_ms, rate) = match connection.session.call {
        Some(_) => (read_ms.max(limits.body_timeout_ms), 0),
        None => (limits.body_timeout_ms, limits.body_rate),
    };
    Pace { read_ms, write_ms, rate, most: body_limit(connection) }
}

/// Longest body this request may have.
pub(crate) fn body_limit(connection: &Connection<'_>) -> u64 {
    let configured = match connection.worker.node.settings.limits.body_bytes {
        0 => u64::MAX,
        most => most,
    };
    configured.min(connection.session.exchange.request_body_max.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use crate::Settings;
    use crate::testing::{ask, backend, gateway, local, read_until};
    use std::cell::Cell;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// One service on `port` with more fields, and a route to it.
    fn service(port: u16, fields: &str) -> String {
        format!(
            "_format_version: '3.0'\nservices:\n- {{name: s, host: 127.0.0.1, port: {port}{fields}, routes: [{{name: r, paths: [/]}}]}}\n"
        )
    }

    #[test]
    fn an_upload_may_take_longer_than_the_upstream_may_be_silent() {
        local(async {
            let port = backend(async |mut stream: TcpStream| {
                read_until(&mut stream, "0\r\n\r\n").await;
                stream.write_all(OK).await.unwrap();
            })
            .await;
            let gateway = gateway(&service(port, ", read_timeout: 150, retries: 0"), Settings::default());
            let mut client = TcpStream::connect(gateway).await.unwrap();
            let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
            client.write_all(head).await.unwrap();
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                client.write_all(b"1\r\nx\r\n").await.unwrap();
            }
            client.write_all(b"0\r\n\r\n").await.unwrap();
            let answer = read_until(&mut client, "ok").await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        });
    }

    #[test]
    fn after_an_upload_the_upstream_has_its_whole_time_and_no_more() {
        local(async {
            let port = backend(async |mut stream: TcpStream| {
                let path = read_until(&mut stream, "\r\n\r\n").await;
                read_until(&mut stream, "0\r\n\r\n").await;
                let pause = if path.contains("/late") { 1500 } else { 250 };
                tokio::time::sleep(Duration::from_millis(pause)).await;
                let _ = stream.write_all(OK).await;
            })
            .await;
            let gateway = gateway(&service(port, ", read_timeout: 400, retries: 0"), Settings::default());
            for (path, status) in [("/", "200"), ("/late", "504")] {
                let mut client = TcpStream::connect(gateway).await.unwrap();
                let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
                client.write_all(head.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(300)).await;
                client.write_all(b"0\r\n\r\n").await.unwrap();
                let answer = read_until(&mut client, "\r\n").await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
            }
        });
    }

    #[test]
    fn an_answer_to_a_held_body_that_is_not_read_arrives() {
        local(async {
            let port = backend(async |mut stream: TcpStream| {
                read_until(&mut stream, "\r\n\r\n").await;
                stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
                std::future::pending::<()>().await;
            })
            .await;
            let plugin = "plugins:\n- {name: request-transformer, config: {add: {body: ['a:b']}}}\n";
            let config = service(port, ", write_timeout: 700, retries: 0") + plugin;
            let gateway = gateway(&config, Settings::default());
            let body = "x".repeat(7 * 1024 * 1024);
            let request = format!(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let answer = ask(gateway, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        });
    }

    #[test]
    fn a_stale_connection_does_not_move_a_hashed_request() {
        local(async {
            // Each answers once per connection, and dies at a second request.
            async fn once(name: &'static str) -> u16 {
                backend(async move |mut stream: TcpStream| {
                    read_until(&mut stream, "\r\n\r\n").await;
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{name}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    let _ = stream.read_u8().await;
                })
                .await
            }
            let (first, second) = (once("1").await, once("2").await);
            let config = format!(
                "_format_version: '3.0'\nupstreams:\n- {{name: u, algorithm: consistent-hashing, hash_on: path, targets: [{{target: '127.0.0.1:{first}'}}, {{target: '127.0.0.1:{second}'}}]}}\nservices:\n- {{name: s, host: u, retries: 0, routes: [{{name: r, paths: [/]}}]}}\n"
            );
            let gateway = gateway(&config, Settings::default());
            for path in 0..8 {
                let request = format!("GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                let answers = [ask(gateway, request.as_bytes()).await, ask(gateway, request.as_bytes()).await];
                assert_eq!(answers[0].chars().last(), answers[1].chars().last(), "{answers:?}");
            }
        });
    }

    #[test]
    fn an_endless_row_of_interim_responses_is_cut() {
        local(async {
            let port = backend(async |mut stream: TcpStream| {
                read_until(&mut stream, "\r\n\r\n").await;
                while stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await.is_ok() {}
            })
            .await;
            let gateway = gateway(&service(port, ", retries: 0"), Settings::default());
            let answer = ask(gateway, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            assert!(answer.contains("HTTP/1.1 502 "), "{}", answer.len());
        });
    }

    #[test]
    fn a_protocol_nobody_asked_for_is_refused_at_once() {
        local(async {
            let asked = std::rc::Rc::new(Cell::new(0));
            let count = asked.clone();
            let port = backend(async move |mut stream: TcpStream| {
                read_until(&mut stream, "\r\n\r\n").await;
                count.set(count.get() + 1);
                stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n").await.unwrap();
            })
            .await;
            let gateway = gateway(&service(port, ""), Settings::default());
            let answer = ask(gateway, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 502 ") && asked.get() == 1, "{answer}");
        });
    }
}
