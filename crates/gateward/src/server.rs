//! The small HTTP server of the control side: whole requests in, whole responses out.
//!
//! hyper does the protocol; proxied traffic never comes here. Handlers are functions from [`ApiRequest`] to
//! [`ApiResponse`], so that they are tested without sockets.

use bytes::Bytes;
use gateward_net::tls::Server;
use gateward_net::{Drain, Listener, Stream};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, SERVER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Longest request body where a whole declarative file may come.
pub(crate) const FILE_BYTES: usize = 256 << 20;
/// Longest request body elsewhere: nothing there has any.
pub(crate) const SMALL_BYTES: usize = 64 << 10;
/// Connections at once.
const CONNECTIONS: usize = 256;
/// Time for a request head, idle time of a connection included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a request body.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause after accepting failed, e.g. for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request of the control side.
#[derive(Debug, Clone)]
pub(crate) struct ApiRequest {
    /// The method.
    pub(crate) method: Method,
    /// Segments of the path, percent-decoded, empty ones left out.
    pub(crate) path: Vec<String>,
    /// Fields of the query, percent-decoded.
    pub(crate) query: Vec<(String, String)>,
    /// `Content-Type`, or empty.
    pub(crate) content_type: String,
    /// Content.
    pub(crate) body: Bytes,
}

impl ApiRequest {
    /// A request with this target; content to be added.
    pub(crate) fn new(method: Method, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.split('/').filter(|segment| !segment.is_empty()).map(|segment| decode(segment, false));
        Self {
            method,
            path: path.collect(),
            query: form_fields(query),
            content_type: String::new(),
            body: Bytes::new(),
        }
    }

    /// A field of the query.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Whether a field of the query is set and does not say no.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.field(name).is_some_and(|value| !matches!(value, "0" | "false" | "off"))
    }
}

/// A response of the control side.
#[derive(Debug, Clone)]
pub(crate) struct ApiResponse {
    /// The status.
    pub(crate) status: StatusCode,
    /// `Content-Type`.
    pub(crate) content_type: &'static str,
    /// Further fields.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Content.
    pub(crate) body: Bytes,
}

impl ApiResponse {
    /// A value as JSON.
    pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::bytes(status, "application/json; charset=utf-8", body),
            Err(error) => Self::message(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// `{"message": ...}`.
    pub(crate) fn message(status: StatusCode, message: &str) -> Self {
        let body = serde_json::json!({ "message": message }).to_string();
        Self::bytes(status, "application/json; charset=utf-8", body.into_bytes())
    }

    /// Any content.
    pub(crate) fn bytes(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into() }
    }

    /// No content.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self::bytes(status, "", Vec::new())
    }

    /// With one more field.
    pub(crate) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// Kong's answer to a path or entity that does not exist.
    pub(crate) fn not_found() -> Self {
        Self::message(StatusCode::NOT_FOUND, "Not found")
    }

    /// Kong's answer to a method that a path does not have.
    pub(crate) fn method_not_allowed() -> Self {
        Self::message(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
    }
}

/// Instead of an answer: the connection is to be reset. The control side never does; a backend for tests may.
#[derive(Debug)]
pub(crate) struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the connection is reset on purpose")
    }
}

impl std::error::Error for Reset {}

/// Serve `listener`, with `tls` where its flags say so, until the task is dropped or another process has the socket; bodies up to
/// `body_limit` bytes.
///
/// # Errors
/// When the socket cannot be tied to this runtime.
pub(crate) async fn serve<F>(
    listener: Listener,
    tls: Server,
    drain: Drain,
    body_limit: usize,
    handler: impl Fn(ApiRequest) -> F + Send + Sync + 'static,
) -> io::Result<()>
where
    F: Future<Output = ApiResponse> + Send,
{
    let handler = Arc::new(handler);
    accept(listener, Some(tls), drain, move |request| {
        let handler = handler.clone();
        async move { Ok(respond(request, body_limit, &*handler).await) }
    })
    .await
}

/// Accept connections and answer their requests with `answer`. Once another process has the socket, the connections
/// end with their next response, so that a prober with a kept connection gets to see the new process, too.
///
/// # Errors
/// When the socket cannot be tied to this runtime.
pub(crate) async fn accept<F>(
    listener: Listener,
    tls: Option<Server>,
    drain: Drain,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> io::Result<()>
where
    F: Future<Output = Result<Response<Full<Bytes>>, Reset>> + Send,
{
    let tls = tls.filter(|_| listener.flags().ssl);
    let address = listener.local_addr()?;
    let listener = listener.into_tokio()?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.handover().given(address) => return Ok(()),
        };
        match accepted {
            Ok((stream, _)) => {
                let (answer, drain, tls) = (answer.clone(), drain.clone(), tls.clone());
                tokio::spawn(async move {
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
    body_limit: usize,
    handler: &impl Fn(ApiRequest) -> F,
) -> Response<Full<Bytes>>
where
    F: Future<Output = ApiResponse>,
{
    let head_only = request.method() == Method::HEAD;
    let response = match read(request, body_limit).await {
        Ok(request) => handler(request).await,
        Err(response) => response,
    };
    let mut out = Response::new(if head_only { Full::default() } else { Full::new(response.body) });
    *out.status_mut() = response.status;
    let headers = out.headers_mut();
    if !response.content_type.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(response.content_type));
    }
    headers.insert(SERVER, HeaderValue::from_static(concat!("gateward/", env!("CARGO_PKG_VERSION"))));
    headers.extend(response.headers.into_iter().map(|(name, value)| (Some(name), value)));
    out
}

async fn read(request: Request<Incoming>, body_limit: usize) -> Result<ApiRequest, ApiResponse> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    // Handlers know GET; HEAD is the same without content.
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let mut read = ApiRequest::new(method, target);
    if let Some(content_type) = request.headers().get(CONTENT_TYPE) {
        read.content_type = String::from_utf8_lossy(content_type.as_bytes()).into_owned();
    }
    if let Some(coding) = request.headers().get(CONTENT_ENCODING).filter(|coding| *coding != "identity") {
        let message = format!("Content-Encoding {coding:?} is not decoded here; send the body as it is");
        return Err(ApiResponse::message(StatusCode::UNSUPPORTED_MEDIA_TYPE, &message));
    }
    let too_long = || {
        let message = format!("the body is longer than {} KiB", body_limit >> 10);
        ApiResponse::message(StatusCode::PAYLOAD_TOO_LARGE, &message)
    };
    // Answered at once where the length is known: a client that waits for an answer need not send it all.
    if request.body().size_hint().lower() > body_limit as u64 {
        return Err(too_long());
    }
    let body = Limited::new(request.into_body(), body_limit).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => read.body = body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => return Err(too_long()),
        Ok(Err(error)) => return Err(ApiResponse::message(StatusCode::BAD_REQUEST, &error.to_string())),
        Err(_) => return Err(ApiResponse::message(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
    Ok(read)
}

/// Fields of `application/x-www-form-urlencoded`, decoded.
pub(crate) fn form_fields(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| (decode(name, true), decode(value, true))).collect()
}

/// Percent-decoded; what is not valid stays as it is. `form`: a plus is a space.
fn decode(text: &str, form: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |offset: usize| bytes.get(at + offset).and_then(|digit| char::from(*digit).to_digit(16));
        match (bytes[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', _, _) if form => out.push(b' '),
            (byte, _, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_apart() {
        let request = ApiRequest::new(Method::GET, "//services/a%2Fb%zz/?size=2&tags=a+b&check_hash");
        assert_eq!(request.path, ["services", "a/b%zz"]);
        assert_eq!((request.field("size"), request.field("tags"), request.field("x")), (Some("2"), Some("a b"), None));
        assert!(request.flag("check_hash") && !request.flag("x"));
        assert!(!ApiRequest::new(Method::GET, "/?a=0").flag("a"));
    }
}
