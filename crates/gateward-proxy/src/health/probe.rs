//! One active check of one target: connect, and ask.
//!
//! What happens is told apart as lua-resty-healthcheck does (`run_single_check`): no connection, or one that breaks, is
//! a failure of TCP; silence a timeout; an answer that makes no sense a failure of HTTP.

use super::grpc;
use super::members::Member;
use super::rules::{Active, CheckTls, Probe};
use crate::server_name::bare_host;
use gateward_balance::Outcome;
use gateward_http::{HeadLimits, Method, Parsed, ResponseHead, parse_response_head};
use gateward_net::Stream;
use gateward_net::tls::{HTTP_2, Offer};
use std::fmt::Write;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes of a response head taken; what follows is not read.
const HEAD_BYTES: usize = 16 * 1024;

/// A connection, whatever carries it.
pub(super) trait Line: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Line for T {}

/// Ask `target`; what it came to, if that counts.
pub(super) async fn ask(target: &Member, active: &Active) -> Option<Outcome> {
    match timeout(active.timeout, attempt(target, active)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Some(Outcome::Timeout),
        Ok(Err(_)) => Some(Outcome::TcpFailure),
        Err(_) => Some(Outcome::Timeout),
    }
}

async fn attempt(target: &Member, active: &Active) -> io::Result<Option<Outcome>> {
    let line = connect(target, active).await?;
    match active.probe {
        Probe::Tcp => Ok(Some(Outcome::Success)),
        Probe::Http => http(line, target, active).await,
        Probe::Grpc => {
            let scheme = if active.tls.is_some() { "https" } else { "http" };
            let serving = grpc::is_serving(line, scheme, host(target, active), &active.headers).await?;
            Ok(Some(if serving { Outcome::Success } else { Outcome::HttpFailure }))
        }
    }
}

async fn connect(target: &Member, active: &Active) -> io::Result<Box<dyn Line>> {
    let stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    Ok(match &active.tls {
        None => Box::new(stream),
        Some(tls) => {
            let secured = secure(stream, tls, target, active).await;
            let target = &*target.name;
            secured.inspect_err(|error| tracing::warn!(target, %error, "TLS handshake of a health check failed"))?
        }
    })
}

/// Do the handshake, and agree on what the check speaks.
async fn secure(stream: TcpStream, tls: &CheckTls, target: &Member, active: &Active) -> io::Result<Box<dyn Line>> {
    let name = tls.name.as_deref().unwrap_or_else(|| bare_host(host(target, active)));
    let offer = if active.probe == Probe::Grpc { Offer::Http2 } else { Offer::Http1 };
    let stream = Stream::plain(stream).negotiate_tls(&tls.client, target.address.ip(), name, offer).await?;
    if offer == Offer::Http2 && stream.alpn() != Some(HTTP_2) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "HTTP/2 was not agreed on"));
    }
    Ok(Box::new(stream))
}

async fn http(mut line: Box<dyn Line>, target: &Member, active: &Active) -> io::Result<Option<Outcome>> {
    line.write_all(request(target, active).as_bytes()).await?;
    let mut received = Vec::with_capacity(1024);
    let limits = HeadLimits { head_bytes: HEAD_BYTES, ..HeadLimits::default() };
    let mut head = ResponseHead::default();
    loop {
        match parse_response_head(&received, &limits, &Method::Get, &mut head) {
            Ok(Parsed::Complete(_)) if head.status >= 200 => return Ok(active.judgement.judge_status(head.status)),
            Ok(Parsed::Complete(length)) => drop(received.drain(..length)),
            Ok(Parsed::Partial) => {
                if line.read_buf(&mut received).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(_) => return Ok(Some(Outcome::HttpFailure)),
        }
    }
}

fn request(target: &Member, active: &Active) -> String {
    let mut request = format!("GET {} HTTP/1.1\r\n", active.path);
    let mut header = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = write!(request, "{name}: {value}\r\n");
    };
    if !active.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        header("Host", host(target, active));
    }
    active.headers.iter().for_each(|(name, value)| header(name, value));
    header("Connection", "close");
    request.push_str("\r\n");
    request
}

/// Whom to ask for: the upstream's `host_header`, else the target's host, without a port as in Kong.
fn host<'a>(target: &'a Member, active: &'a Active) -> &'a str {
    active.host_header.as_deref().unwrap_or_else(|| target.host())
}

#[cfg(test)]
mod tests {
    use super::super::UpstreamHealth;
    use super::super::rules::Rules;
    use super::*;
    use crate::Settings;
    use crate::testing::plan;
    use gateward_telemetry::{Limits, Telemetry};
    use serde_json::json;
    use tokio::net::TcpListener;

    fn active(fields: &serde_json::Value) -> Active {
        let upstream = json!({ "name": "u", "host_header": "pool.test", "healthchecks": { "active": fields } });
        let config = json!({ "_format_version": "3.0", "upstreams": [upstream] }).to_string();
        let plan = plan(&config, 1, &Settings::default(), &Telemetry::new(1, Limits::default()));
        Rules::of(&plan.upstreams[0]).active.expect("it is checked")
    }

    /// The only member of an upstream.
    fn member(port: u16) -> Member {
        let upstream = json!({ "name": "u", "targets": [{ "target": format!("127.0.0.1:{port}") }] });
        let config = json!({ "_format_version": "3.0", "upstreams": [upstream] }).to_string();
        let plan = plan(&config, 1, &Settings::default(), &Telemetry::new(1, Limits::default()));
        UpstreamHealth::apart(&plan.upstreams[0], 1, None).members()[0].clone()
    }

    /// Ask a server that does `answer` to its only connection.
    async fn asked(fields: serde_json::Value, answer: impl AsyncFnOnce(TcpStream)) -> Option<Outcome> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = member(port);
        let active = active(&fields);
        let serve = async { answer(listener.accept().await.unwrap().0).await };
        tokio::join!(ask(&target, &active), serve).0
    }

    fn plain() -> serde_json::Value {
        json!({ "timeout": 0.5, "http_path": "/up", "headers": { "X-Check": ["a", "b"] },
            "healthy": { "interval": 1, "http_statuses": [200] },
            "unhealthy": { "http_statuses": [500] } })
    }

    #[tokio::test]
    async fn what_is_asked_and_what_is_made_of_answers() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Some(Outcome::Success)),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 500 Oops\r\n\r\n", Some(Outcome::HttpFailure)),
            ("HTTP/1.1 404 Not Found\r\n\r\n", None),
            ("SSH-2.0-OpenSSH\r\n\r\n", Some(Outcome::HttpFailure)),
            ("", Some(Outcome::TcpFailure)),
            ("HTTP/1.1 200 OK\r\n", Some(Outcome::TcpFailure)),
        ] {
            let outcome = asked(plain(), async |mut stream| {
                let mut got = Vec::new();
                while !got.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut got).await.unwrap();
                }
                let wanted =
                    "GET /up HTTP/1.1\r\nHost: pool.test\r\nX-Check: a\r\nX-Check: b\r\nConnection: close\r\n\r\n";
                assert_eq!(String::from_utf8(got).unwrap(), wanted);
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
            assert_eq!(outcome.await, expected, "{answer}");
        }
    }

    #[tokio::test]
    async fn silence_is_a_timeout_and_an_endless_head_is_cut() {
        let silent = asked(plain(), async |mut stream| {
            let mut end = Vec::new();
            stream.read_to_end(&mut end).await.unwrap();
        });
        assert_eq!(silent.await, Some(Outcome::Timeout));
        let endless = asked(plain(), async |mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
            while stream.write_all(&[b'a'; 1024]).await.is_ok() {}
        });
        assert_eq!(endless.await, Some(Outcome::HttpFailure));
    }

    #[tokio::test]
    async fn tcp_checks_ask_nothing() {
        let fields = json!({ "type": "tcp", "healthy": { "interval": 1 } });
        let outcome = asked(fields, async |mut stream| {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            assert!(got.is_empty());
        });
        assert_eq!(outcome.await, Some(Outcome::Success));
    }

    #[tokio::test]
    async fn grpc_checks_ask_the_health_service() {
        for (status, expected) in [(1, Outcome::Success), (2, Outcome::HttpFailure)] {
            let fields = json!({ "type": "grpc", "timeout": 5, "healthy": { "interval": 1 } });
            let outcome = asked(fields, async |stream| {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let (request, mut respond) = connection.accept().await.unwrap().unwrap();
                assert_eq!(request.uri(), "http://pool.test/grpc.health.v1.Health/Check");
                let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                body.send_data(vec![0, 0, 0, 0, 2, 8, status].into(), false).unwrap();
                let trailers = [(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))];
                body.send_trailers(trailers.into_iter().collect()).unwrap();
                while let Some(Ok(_)) = connection.accept().await {}
            });
            assert_eq!(outcome.await, Some(expected));
        }
        let plain = json!({ "type": "grpc", "timeout": 5, "healthy": { "interval": 1 } });
        let outcome = asked(plain, async |mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        });
        assert_eq!(outcome.await, Some(Outcome::TcpFailure), "no HTTP/2");
    }
}
