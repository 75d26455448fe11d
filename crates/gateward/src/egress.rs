//! HTTP requests of plugins: how log batches leave the node.
//!
//! Plain HTTP only, like the rest of this build. Connections live on the control runtime, so that the runtime of
//! the log queues holds nothing but queues and its end can be waited for.

use bytes::Bytes;
use gateward_plugin::{HttpPost, PostRequest};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// Longest answer that is read to keep a connection; a longer one costs the connection.
const ANSWER_BYTES: usize = 64 * 1024;
/// Idle connections per host.
const IDLE_PER_HOST: usize = 8;
/// Keep-alive times in use at once that have a client of their own; beyond, they share one of 60 s.
const CLIENTS: usize = 16;
const SHARED_KEEPALIVE_MS: u64 = 60_000;

type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// Sends requests for plugins.
pub(crate) struct Egress {
    runtime: Handle,
    /// By keep-alive time: it is a property of a client's pool.
    clients: Mutex<HashMap<u64, HttpClient>>,
}

impl Egress {
    /// With connections on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { runtime, clients: Mutex::default() }
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
                .build(HttpConnector::new())
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
    if request.url.starts_with("https:") {
        return Err("https is not served by this build; use an http URL".to_owned());
    }
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
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Spawns on a runtime, whichever runtime asks.
#[derive(Clone)]
struct On(Handle);

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
        let egress = Egress::new(Handle::current());
        assert_eq!(egress.post(request(url)).await, Ok(202));
        let seen = server.await.unwrap();
        assert!(seen.starts_with("POST /log?x=1 HTTP/1.1\r\n"), "{seen}");
        assert!(seen.to_ascii_lowercase().contains("content-type: application/json"), "{seen}");
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_said() {
        let egress = Egress::new(Handle::current());
        for (url, expected) in
            [("https://a.example/", "https is not"), ("http://127.0.0.1:1/", "refused"), ("nonsense", "")]
        {
            let error = egress.post(request(url.to_owned())).await.unwrap_err();
            assert!(error.contains(expected), "{url}: {error}");
        }
    }
}
