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
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_ENCODING, HeaderValue, SERVER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{ApiRequest, ApiResponse};

/// Connections at once; the next ones wait.
const CONNECTIONS: usize = 256;
/// Time for a request head, idle time of a connection included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a request body.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);
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

/// What requests may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest body of one request.
    pub body_bytes: usize,
    /// Bodies in memory at once; requests that do not fit wait. At least `body_bytes`.
    pub bodies_bytes: usize,
}

/// Makes the response to a request that cannot be read.
pub type Refuse = fn(StatusCode, &str) -> ApiResponse;

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
    let handler = Arc::new(handler);
    let room = Arc::new(Semaphore::new(mebibytes(limits.bodies_bytes.max(limits.body_bytes)) as usize));
    accept(door, move |request| {
        let (handler, room) = (handler.clone(), room.clone());
        async move { Ok(respond(request, limits, refuse, &room, &*handler).await) }
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
    limits: Limits,
    refuse: Refuse,
    room: &Semaphore,
    handler: &impl Fn(ApiRequest) -> F,
) -> Response<Full<Bytes>>
where
    F: Future<Output = ApiResponse>,
{
    let head_only = request.method() == Method::HEAD;
    // A request without a body takes no room, so that probes are answered while large bodies come in.
    let longest = request.body().size_hint().upper().map_or(limits.body_bytes, saturating_usize);
    let taken = room.acquire_many(mebibytes(longest.min(limits.body_bytes))).await;
    let response = match read(request, limits, refuse).await {
        Ok(request) => handler(request).await,
        Err(response) => response,
    };
    drop(taken);
    let mut out = Response::new(if head_only { Full::default() } else { Full::new(response.body) });
    *out.status_mut() = response.status;
    let headers = out.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static(concat!("gateward/", env!("CARGO_PKG_VERSION"))));
    headers.extend(response.headers.into_iter().map(|(name, value)| (Some(name), value)));
    out
}

async fn read(request: Request<Incoming>, limits: Limits, refuse: Refuse) -> Result<ApiRequest, ApiResponse> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    // Handlers know GET; HEAD is the same without content.
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let mut read = ApiRequest::new(method, target);
    read.headers = request.headers().clone();
    if let Some(coding) = request.headers().get(CONTENT_ENCODING).filter(|coding| *coding != "identity") {
        let message = format!("Content-Encoding {coding:?} is not decoded here; send the body as it is");
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, &message));
    }
    let too_long = || {
        let message = format!("the body is longer than {} KiB", limits.body_bytes >> 10);
        refuse(StatusCode::PAYLOAD_TOO_LARGE, &message)
    };
    // Answered at once where the length is known: a client that waits for an answer need not send it all.
    if request.body().size_hint().lower() > limits.body_bytes as u64 {
        return Err(too_long());
    }
    let body = Limited::new(request.into_body(), limits.body_bytes).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => read.body = body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_long()),
        Ok(Err(error)) => return Err(refuse(StatusCode::BAD_REQUEST, &error.to_string())),
        Err(_) => return Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
    Ok(read)
}

fn saturating_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Begun MiB of some bytes, as permits of a semaphore.
fn mebibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX >> 3)
}
