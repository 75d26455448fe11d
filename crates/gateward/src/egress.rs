//! HTTP requests of plugins: how log batches leave the node.
//!
//! Connections live on the control runtime, so that the runtime of the plugins' queues holds nothing but queues and its
//! end can be waited for. https endpoints are always verified, against the node's authorities: log records hold what
//! must not be told to strangers. hyper does HTTP, gateward-net TLS.

use bytes::Bytes;
use gateward_net::{Stream, tls};
use gateward_plugin::{HttpPost, PostRequest};
use http_body_util::{BodyExt, Full, Limited};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;
use tower_service::Service;

/// Longest answer that is read to keep a connection; a longer one costs the connection.
const ANSWER_BYTES: usize = 64 * 1024;
/// Idle connections per host.
const IDLE_PER_HOST: usize = 8;
/// Keep-alive times in use at once that have a client of their own; beyond, they share one of 60 s.
const CLIENTS: usize = 16;
const SHARED_KEEPALIVE_MS: u64 = 60_000;

type HttpClient = Client<Connector, Full<Bytes>>;

/// Sends requests for plugins.
pub(crate) struct Egress {
    runtime: Handle,
    connector: Connector,
    /// By keep-alive time: it is a property of a client's pool.
    clients: Mutex<HashMap<u64, HttpClient>>,
}

impl Egress {
    /// With connections on `runtime`, and with TLS as `tls` has it.
    pub(crate) fn new(runtime: Handle, tls: Arc<tls::Context>) -> Self {
        Self { runtime, connector: Connector::new(tls), clients: Mutex::default() }
    }

    fn client(&self, keepalive_ms: u64) -> HttpClient {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let known = clients.contains_key(&keepalive_ms) || clients.len() < CLIENTS;
        let keepalive_ms = if known { keepalive_ms } else { SHARED_KEEPALIVE_MS };
        let build = || {
            Client::builder(On(self.runtime.clone()))
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(Duration::from_millis(keepalive_ms))
                .pool_max_idle_per_host(if keepalive_ms == 0 { 0 } else { IDLE_PER_HOST })
                .build(self.connector.clone())
        };
        clients.entry(keepalive_ms).or_insert_with(build).clone()
    }
}

impl HttpPost for Egress {
    fn post(&self, request: PostRequest) -> Pin<Box<dyn Future<Output = Result<u16, String>> + Send + '_>> {
        Box::pin(async move {
            let timeout = Duration::from_millis(request.timeout_ms);
            let client = self.client(request.keepalive_ms);
            let exchange = exchange(client, request);
            match tokio::time::timeout(timeout, exchange).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
            }
        })
    }
}

async fn exchange(client: HttpClient, request: PostRequest) -> Result<u16, String> {
    let method = Method::from_bytes(request.method.as_bytes()).map_err(|error| error.to_string())?;
    let mut builder = Request::builder().method(method).uri(&request.url);
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    let request = builder.body(Full::from(request.body)).map_err(|error| error.to_string())?;
    let response = client.request(request).await.map_err(|error| chain(&error))?;
    let status = response.status().as_u16();
    // Read so that the connection can be used again; its content does not matter.
    let _ = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
    Ok(status)
}

/// An error with its causes: hyper's own text alone says little.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Opens connections, in the clear or with TLS as the URL says.
#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    tls: Arc<tls::Context>,
    /// Made when first needed: it may read the system's authorities.
    client: Arc<OnceLock<Result<Arc<tls::Client>, String>>>,
}

impl Connector {
    fn new(tls: Arc<tls::Context>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        Self { tcp, tls, client: Arc::default() }
    }

    fn client(&self) -> Result<Arc<tls::Client>, String> {
        let make = || {
            let options = tls::ClientOptions { verify: Some(true), ..tls::ClientOptions::default() };
            self.tls.client(options).map_err(|error| error.to_string())
        };
        self.client.get_or_init(make).clone()
    }
}

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = (uri.scheme_str() == Some("https")).then(|| self.client());
        let connecting = self.tcp.call(uri.clone());
        Box::pin(async move {
            let tls = tls.transpose()?;
            let tcp = connecting.await?.into_inner();
            let Some(tls) = tls else { return Ok(Wire(TokioIo::new(Stream::plain(tcp)))) };
            let ip = tcp.peer_addr()?.ip();
            let name = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            Ok(Wire(TokioIo::new(Stream::plain(tcp).into_tls(&tls, ip, name).await?)))
        })
    }
}

/// A stream as hyper's pool wants it.
struct Wire(TokioIo<Stream>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buf)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Spawns on a runtime, whichever runtime asks.
#[derive(Clone)]
pub(crate) struct On(pub(crate) Handle);

impl<F> hyper::rt::Executor<F> for On
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn egress() -> Egress {
        let tls = tls::Context::new(tls::TlsSettings::default()).unwrap();
        Egress::new(Handle::current(), Arc::new(tls))
    }

    fn request(url: String) -> PostRequest {
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        PostRequest { method: "POST".into(), url, headers, body: b"{}".to_vec(), timeout_ms: 2000, keepalive_ms: 1000 }
    }

    #[tokio::test]
    async fn a_batch_is_sent_and_its_status_returned() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/log?x=1", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = vec![0; 4096];
            let mut length = 0;
            while !seen[..length].ends_with(b"\r\n\r\n{}") {
                length += stream.read(&mut seen[length..]).await.unwrap();
            }
            stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            String::from_utf8(seen[..length].to_vec()).unwrap()
        });
        let egress = egress();
        assert_eq!(egress.post(request(url)).await, Ok(202));
        let seen = server.await.unwrap();
        assert!(seen.starts_with("POST /log?x=1 HTTP/1.1\r\n"), "{seen}");
        assert!(seen.to_ascii_lowercase().contains("content-type: application/json"), "{seen}");
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = format!("https://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 This is no TLS\r\n\r\n").await.unwrap();
        });
        let egress = egress();
        for (url, expected) in [
            ("https://127.0.0.1:1/", "refused"),
            (&plain, "corrupt"),
            ("http://127.0.0.1:1/", "refused"),
            ("nonsense", ""),
        ] {
            let error = egress.post(request((*url).to_owned())).await.unwrap_err();
            assert!(error.contains(expected), "{url}: {error}");
        }
    }
}
