//! Connections: accepted, limited, answered.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gateward_net::tls::Server;
use gateward_net::{Drain, Listener, Stream};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, SERVER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::body::{Bodies, Limits, Refuse};
use crate::{ApiRequest, ApiResponse};

/// Connections at once; the next ones wait.
const CONNECTIONS: usize = 256;
/// Time for a request head, idle time of a connection included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after accepting failed, e.g. for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come in.
pub struct Door {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Server>,
    drain: Drain,
}

impl Door {
    /// A listener of the gateway, with `tls` where its flags say so, until another process has the socket.
    ///
    /// # Errors
    /// When the socket cannot be tied to this runtime.
    pub fn new(listener: Listener, tls: Option<Server>, drain: Drain) -> io::Result<Self> {
        let tls = tls.filter(|_| listener.flags().ssl);
        let address = listener.local_addr()?;
        Ok(Door { listener: listener.into_tokio()?, address, tls, drain })
    }

    /// An address of this process alone, in the clear.
    ///
    /// # Errors
    /// What the operating system said.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
        let listener = TcpListener::bind(address).await.map_err(named)?;
        let address = listener.local_addr()?;
        Ok(Door { listener, address, tls: None, drain: Drain::new() })
    }

    /// Its address, with the port the system chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Instead of an answer: the connection is to be reset. The control side never does; a backend for tests may.
#[derive(Debug)]
pub struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the connection is reset on purpose")
    }
}

impl std::error::Error for Reset {}

/// Serve whole requests until the task is dropped, which ends the connections too, or another process has the socket.
pub async fn serve<F>(
    door: Door,
    limits: Limits,
    refuse: Refuse,
    handler: impl Fn(ApiRequest) -> F + Send + Sync + 'static,
) where
    F: Future<Output = ApiResponse> + Send,
{
    serve_admitted(door, limits, refuse, |_| Ok(()), handler).await;
}

/// As [`serve`], for requests that `admit` lets in. It sees a request before anything of its content is read, so that who is not let in costs no
/// memory and takes nobody's place.
pub async fn serve_admitted<F>(
    door: Door,
    limits: Limits,
    refuse: Refuse,
    admit: impl Fn(&ApiRequest) -> Result<(), ApiResponse> + Send + Sync + 'static,
    handler: impl Fn(ApiRequest) -> F + Send + Sync + 'static,
) where
    F: Future<Output = ApiResponse> + Send,
{
    let served = Arc::new((admit, handler));
    let bodies = Arc::new(Bodies::new(limits, refuse));
    accept(door, move |request| {
        let (served, bodies) = (served.clone(), bodies.clone());
        async move { Ok(respond(request, &bodies, &served.0, &served.1).await) }
    })
    .await;
}

/// Accept connections and answer their requests with `answer`. Once another process has the socket, the connections
/// end with their next response, so that a prober with a kept connection gets to see the new process, too.
pub async fn accept<F>(door: Door, answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static)
where
    F: Future<Output = Result<Response<Full<Bytes>>, Reset>> + Send,
{
    let Door { listener, address, tls, drain } = door;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // What is open when the task is dropped ends with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.handover().given(address) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (answer, drain, tls) = (answer.clone(), drain.clone(), tls.clone());
                connections.spawn(async move {
                    connection(stream, tls, answer, || drain.handover().has(address)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection of the control side failed; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// `is_last`: whether the connection ends with the response that is being made. An idle one is not closed for that,
/// because a request may be on its way.
async fn connection<F>(
    stream: TcpStream,
    tls: Option<Server>,
    answer: impl Fn(Request<Incoming>) -> F,
    is_last: impl Fn() -> bool,
) where
    F: Future<Output = Result<Response<Full<Bytes>>, Reset>>,
{
    let _ = stream.set_nodelay(true);
    let stream = match tls {
        None => Stream::plain(stream),
        Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, Stream::accept_tls(&tls, stream, false)).await {
            Ok(Ok(stream)) => stream,
            failed => {
                let reason = failed.ok().and_then(Result::err).map_or("tls_timeout", |(_, error)| error.reason);
                return tracing::debug!(reason, "a TLS handshake of the control side failed");
            }
        },
    };
    let is_last = &is_last;
    let is_reset = &AtomicBool::new(false);
    let service = service_fn(|request| {
        let response = answer(request);
        async move {
            let mut response = response.await.inspect_err(|Reset| is_reset.store(true, Ordering::Relaxed))?;
            if is_last() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Reset>(response)
        }
    });
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let served = (&mut connection).await;
    if is_reset.load(Ordering::Relaxed) {
        connection.into_parts().io.into_inner().reset_on_close();
    } else if let Err(error) = served {
        tracing::debug!(%error, "a connection of the control side ended early");
    }
}

async fn respond<F>(
    request: Request<Incoming>,
    bodies: &Bodies,
    admit: &impl Fn(&ApiRequest) -> Result<(), ApiResponse>,
    handler: &impl Fn(ApiRequest) -> F,
) -> Response<Full<Bytes>>
where
    F: Future<Output = ApiResponse>,
{
    let head_only = request.method() == Method::HEAD;
    let mut read = ApiRequest::of_head(&request);
    let response = match admit(&read) {
        Err(response) => response,
        Ok(()) => match bodies.read(request).await {
            Err(response) => response,
            // The place is kept until the answer is there.
            Ok((body, _place)) => {
                read.body = body;
                handler(read).await
            }
        },
    };
    let mut out = Response::new(if head_only { Full::default() } else { Full::new(response.body) });
    *out.status_mut() = response.status;
    let headers = out.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static(concat!("gateward/", env!("CARGO_PKG_VERSION"))));
    headers.extend(response.headers.into_iter().map(|(name, value)| (Some(name), value)));
    out
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use hyper::StatusCode;

    const PATIENCE: Duration = Duration::from_secs(25);
    const LIMITS: Limits = Limits { body_bytes: 1 << 20, bodies_bytes: 1 << 20 };

    /// A server that says how long a body was, to who does not say `x-stranger`.
    async fn server() -> SocketAddr {
        let door = Door::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = door.address();
        let admit = |head: &ApiRequest| match head.header("x-stranger") {
            None => Ok(()),
            Some(_) => Err(ApiResponse::message(StatusCode::UNAUTHORIZED, "no")),
        };
        let handler = |request: ApiRequest| async move {
            ApiResponse::message(StatusCode::OK, &format!("{} octets", request.body.len()))
        };
        tokio::spawn(serve_admitted(door, LIMITS, ApiResponse::message, admit, handler));
        address
    }

    async fn send(address: SocketAddr, head: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{head}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        stream
    }

    /// The beginning of the answer, up to the end of its status.
    async fn status(stream: &mut TcpStream) -> String {
        let mut start = [0; 12];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut start)).await.expect("an answer in time").unwrap();
        String::from_utf8_lossy(&start[9..]).into_owned()
    }

    #[tokio::test]
    async fn strangers_are_sent_away_before_their_bodies_are_read() {
        let address = server().await;
        // More than there is room for, and none of it sent.
        let mut strangers = Vec::new();
        for _ in 0..4 {
            strangers.push(send(address, "X-Stranger: 1\r\nContent-Length: 1000000", b"").await);
        }
        for stranger in &mut strangers {
            assert_eq!(status(stranger).await, "401");
        }
        let body = vec![b'x'; 1_000_000];
        assert_eq!(status(&mut send(address, "Content-Length: 1000000", &body).await).await, "200");
    }

    #[tokio::test]
    async fn small_bodies_that_are_slow_do_not_keep_a_large_one_waiting() {
        let address = server().await;
        let mut slow = Vec::new();
        for _ in 0..8 {
            slow.push(send(address, "Content-Length: 10", b"12345").await);
            slow.push(send(address, "Transfer-Encoding: chunked", b"5\r\n12345\r\n").await);
        }
        let body = vec![b'x'; 1 << 20];
        assert_eq!(status(&mut send(address, "Content-Length: 1048576", &body).await).await, "200");
        let mut chunked = b"100000\r\n".to_vec();
        chunked.extend(&body);
        chunked.extend(b"\r\n0\r\n\r\n");
        assert_eq!(status(&mut send(address, "Transfer-Encoding: chunked", &chunked).await).await, "200");
        chunked.splice(..8, *b"100001\r\nx");
        assert_eq!(status(&mut send(address, "Transfer-Encoding: chunked", &chunked).await).await, "413");
        for stream in &mut slow {
            stream.write_all(b"67890").await.unwrap();
        }
        assert_eq!(status(&mut slow[0]).await, "200");
    }
}
