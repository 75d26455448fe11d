//! The life of a request, in order. Every other module is a leaf called from here.

use crate::client::Connection;
use crate::error::ProxyError;
use crate::outcome::{After, Local, Verdict};
use crate::worker::WorkerPlan;
use crate::{head, matching, phases, record, relay, reply, screening, shed, tries};
use gateward_http::RequestHead;

/// Serve one request that has begun to arrive, and say what becomes of the connection.
pub(crate) async fn serve(connection: &mut Connection<'_>) -> After {
    connection.session.begin();
    connection.session.times.started = connection.worker.now_us();
    match head::receive(connection).await {
        Ok(head::Received::Request) => {}
        Ok(head::Received::Nothing) => return After::Abort,
        Ok(head::Received::Http2) => return After::Http2,
        Err(error) => {
            let plan = connection.worker.plan();
            return Box::pin(refuse(connection, &plan, error)).await;
        }
    }
    let plan = connection.worker.plan();
    exchange(connection, &plan).await
}

/// Likewise from the head on.
pub(crate) async fn exchange(connection: &mut Connection<'_>, plan: &WorkerPlan) -> After {
    head::describe(connection);

    let verdict = match phases::rewrite(connection, plan).await {
        Verdict::Proxy => matching::find(connection, plan),
        ended => matching::Matched::ended(ended),
    };
    let mut admitted = None;
    let verdict = match verdict {
        matching::Matched::Route { chain } => match shed::admit(connection, plan) {
            Ok(admission) => {
                admitted = admission;
                match phases::access(connection, plan, chain).await {
                    Verdict::Proxy if connection.session.wanted.phases.screens_request() => {
                        screening::request(connection, plan).await
                    }
                    verdict => verdict,
                }
            }
            Err(error) => {
                phases::collect_global(connection, plan);
                Verdict::Fail(error)
            }
        },
        matching::Matched::Ended(verdict) => {
            phases::collect_global(connection, plan);
            verdict
        }
    };

    let answered = match verdict {
        Verdict::Proxy => tries::ask(connection, plan).await,
        Verdict::Respond(response) => Err(Local::Plugin(response)),
        Verdict::Fail(error) => Err(Local::Error(error)),
    };

    if connection.session.upstream_status == Some(101) {
        // A tunnel may be open for days; what it takes is bounded by connections.
        admitted = None;
    }
    let ended = match answered {
        Ok(upstream) => match relay::prepare(connection, plan, upstream).await {
            relay::Prepared::Stream(upstream) => relay::run(connection, plan, upstream).await,
            relay::Prepared::Replaced(local) => Box::pin(reply::send(connection, plan, local)).await,
        },
        Err(local) => Box::pin(reply::send(connection, plan, local)).await,
    };
    record::finish(connection, plan, &ended);
    if let Some(admission) = admitted {
        admission.finish(connection, &ended);
    }
    ended.after
}

/// Answer a request whose head cannot be used.
pub(crate) async fn refuse(connection: &mut Connection<'_>, plan: &WorkerPlan, error: ProxyError) -> After {
    if !matches!(error, ProxyError::Method | ProxyError::Loop | ProxyError::Underscore) {
        // What stands there is of an earlier request, maybe of another client.
        connection.session.exchange.request = RequestHead::default();
    }
    head::describe(connection);
    phases::collect_global(connection, plan);
    let ended = reply::send(connection, plan, Local::Error(error)).await;
    record::finish(connection, plan, &ended);
    ended.after
}

#[cfg(test)]
mod tests {
    use crate::Settings;
    use crate::testing::{gateway, local, read_until};
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;

    #[test]
    fn a_refused_request_is_not_taken_for_the_one_before() {
        local(async {
            let gateway = gateway("_format_version: '3.0'\n", Settings::default());
            let mut client = TcpStream::connect(gateway).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n").await.unwrap();
            let first = read_until(&mut client, "</html>\n").await;
            assert!(first.contains("404") && first.contains("text/html"), "{first}");
            client.write_all(b"G@T / HTTP/1.1\r\nHost: a\r\nb ad: x\r\n\r\n").await.unwrap();
            let second = read_until(&mut client, "\n}").await;
            assert!(second.starts_with("HTTP/1.1 400 ") && second.contains("application/json"), "{second}");
        });
    }

    #[test]
    fn a_chunked_body_that_came_with_its_head_costs_no_connection() {
        local(async {
            let gateway = gateway("_format_version: '3.0'\n", Settings::default());
            let mut client = TcpStream::connect(gateway).await.unwrap();
            for (body, connection) in [("4\r\nwiki\r\n0\r\n\r\n", "keep-alive"), ("4\r\nwikix", "close")] {
                let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
                client.write_all(request.as_bytes()).await.unwrap();
                let answer = read_until(&mut client, "\n}").await;
                assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains(connection), "{answer}");
            }
        });
    }

    #[test]
    fn what_an_answer_says_about_its_connection_is_done() {
        local(async {
            let gateway = gateway("_format_version: '3.0'\n", Settings::default());
            let mut client = TcpStream::connect(gateway).await.unwrap();
            let via = "1.1 gateward/1, ".repeat(20);
            let looping = format!("GET / HTTP/1.1\r\nHost: a\r\nVia: {via}\r\n\r\n");
            for _ in 0..2 {
                client.write_all(looping.as_bytes()).await.unwrap();
                let answer = read_until(&mut client, "\n}").await;
                assert!(answer.starts_with("HTTP/1.1 508 ") && answer.contains("keep-alive"), "{answer}");
            }
        });
    }
}
