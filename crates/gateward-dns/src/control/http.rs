//! The small HTTP/1.1 server of the control side: whole requests in, whole responses out. hyper does the protocol.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Longest request body.
pub(crate) const BODY_BYTES: usize = 64 << 20;
/// MiB of bodies in memory at once; the next ones wait.
const BODIES_MIB: u32 = 256;
/// Connections at once; the next ones wait.
const CONNECTIONS: usize = 256;
/// Time for a request head, idle time of a connection included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a request body.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause after accepting failed, e.g. for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct ApiRequest {
    pub(crate) method: Method,
    /// Segments of the path, percent-decoded.
    pub(crate) path: Vec<String>,
    /// Fields of the query, percent-decoded.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl ApiRequest {
    pub(crate) fn new(method: Method, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.split('/').filter(|segment| !segment.is_empty()).map(decode);
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "true")));
        ApiRequest {
            method,
            path: path.collect(),
            query: pairs.map(|(name, value)| (decode(name), decode(value))).collect(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// A field of the query.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// A header, as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// Whether the client wants JSON.
    pub(crate) fn wants_json(&self) -> bool {
        self.header(ACCEPT.as_str()).is_some_and(|accept| accept.contains("json"))
    }

    pub(crate) fn content_type(&self) -> &str {
        self.header(CONTENT_TYPE.as_str()).unwrap_or_default()
    }

    pub(crate) fn if_match(&self) -> Option<&str> {
        self.header(IF_MATCH.as_str())
    }

    pub(crate) fn if_none_match(&self) -> Option<&str> {
        self.header(IF_NONE_MATCH.as_str())
    }

    /// The token of `Authorization: Bearer`.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header(AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// The host that the client thinks it speaks to, without the port.
    pub(crate) fn host(&self) -> Option<&str> {
        let host = self.header(HOST.as_str())?;
        let is_port = |port: &str| port.bytes().all(|octet| octet.is_ascii_digit());
        Some(host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(host, _)| host))
    }
}

/// A response.
#[derive(Debug, Clone)]
pub(crate) struct ApiResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
}

impl ApiResponse {
    /// A value as JSON.
    pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::bytes(status, "application/json", body),
            Err(error) => Self::bytes(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string().into_bytes()),
        }
    }

    /// Any content.
    pub(crate) fn bytes(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Self {
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static(content_type))];
        ApiResponse { status, headers, body: body.into() }
    }

    /// No content.
    pub(crate) fn empty(status: StatusCode) -> Self {
        ApiResponse { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// With one more field.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }
}

/// Serves a listener until the task is dropped.
pub(crate) async fn serve<F>(listener: TcpListener, handler: impl Fn(ApiRequest) -> F + Send + Sync + 'static)
where
    F: Future<Output = ApiResponse> + Send + 'static,
{
    let handler = Arc::new(handler);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let bodies = Arc::new(Semaphore::new(usize::try_from(BODIES_MIB).unwrap_or(usize::MAX)));
    // What is still open ends with the listener.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (handler, bodies) = (handler.clone(), bodies.clone());
                connections.spawn(async move {
                    connection(stream, &handler, &bodies).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection of the control API failed; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<F>(stream: TcpStream, handler: &Arc<impl Fn(ApiRequest) -> F>, bodies: &Semaphore)
where
    F: Future<Output = ApiResponse>,
{
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| async move { Ok::<_, Infallible>(respond(request, &**handler, bodies).await) });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the control API ended early");
    }
}

async fn respond<F>(
    request: Request<Incoming>,
    handler: &impl Fn(ApiRequest) -> F,
    bodies: &Semaphore,
) -> Response<Full<Bytes>>
where
    F: Future<Output = ApiResponse>,
{
    let head_only = request.method() == Method::HEAD;
    let mebibytes = request
        .body()
        .size_hint()
        .upper()
        .map_or(BODY_BYTES >> 20, |bytes| usize::try_from(bytes >> 20).unwrap_or(usize::MAX).min(BODY_BYTES >> 20));
    let room = bodies.acquire_many(u32::try_from(mebibytes).unwrap_or(BODIES_MIB) + 1).await;
    let response = match read(request).await {
        Ok(request) => handler(request).await,
        Err(response) => response,
    };
    drop(room);
    let mut out = Response::new(if head_only { Full::default() } else { Full::new(response.body) });
    *out.status_mut() = response.status;
    out.headers_mut().extend(response.headers.into_iter().map(|(name, value)| (Some(name), value)));
    out
}

async fn read(request: Request<Incoming>) -> Result<ApiRequest, ApiResponse> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    // Handlers know GET; HEAD is the same without content.
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let mut read = ApiRequest::new(method, target);
    read.headers = request.headers().clone();
    let failed = |status, message: &str| super::errors(status, &[super::plain(message)]);
    let too_long =
        || failed(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body is longer than {} MiB", BODY_BYTES >> 20));
    // Answered at once where the length is known: a client that waits for an answer need not send it all.
    if request.body().size_hint().lower() > BODY_BYTES as u64 {
        return Err(too_long());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(request.into_body(), BODY_BYTES).collect()).await {
        Ok(Ok(body)) => read.body = body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_long()),
        Ok(Err(error)) => return Err(failed(StatusCode::BAD_REQUEST, &error.to_string())),
        Err(_) => return Err(failed(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
    Ok(read)
}

/// Binds the address of an API.
///
/// # Errors
/// Those of the operating system.
pub(crate) async fn bind(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

/// Percent-decoded; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |offset: usize| bytes.get(at + offset).and_then(|digit| char::from(*digit).to_digit(16));
        match (bytes[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 2;
            }
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
        let request = ApiRequest::new(Method::GET, "/v1/zones/0%2F25.2.0.192.in-addr.arpa?dry_run&after=a%20b%zz");
        assert_eq!(request.path, ["v1", "zones", "0/25.2.0.192.in-addr.arpa"]);
        assert_eq!((request.field("dry_run"), request.field("after")), (Some("true"), Some("a b%zz")));
        let mut request = ApiRequest::new(Method::GET, "/");
        for (host, name) in [("a:80", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a", "a")] {
            request.headers.insert(HOST, HeaderValue::from_static(host));
            assert_eq!(request.host(), Some(name));
        }
        request.headers.insert(AUTHORIZATION, HeaderValue::from_static("bearer  x "));
        assert_eq!(request.bearer(), Some("x"));
    }
}
