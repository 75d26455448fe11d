//! HTTP/1.1 for a command line: one call at a time, each on a connection of its own, in a bounded time.

use std::time::Duration;

use gateward_model::Secret;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use crate::provider::{Answer, By, ProviderError};

/// Octets of an answer that are read: a zone of some millions of records.
const MAX_ANSWER: usize = 1 << 30;

pub(super) struct Client {
    runtime: Runtime,
    /// `HOST:PORT`.
    authority: String,
    token: Option<Secret>,
    pub(super) timeout: Duration,
}

/// What is asked.
pub(super) struct Request<'a> {
    method: Method,
    pub(super) path: String,
    accept: &'static str,
    body: &'a str,
    headers: Vec<(&'static str, String)>,
}

/// What is answered.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Request { method, path: path.into(), accept: "application/json", body: "", headers: Vec::new() }
    }

    pub(super) fn accept(self, accept: &'static str) -> Self {
        Request { accept, ..self }
    }

    pub(super) fn body(self, content_type: &'static str, body: &'a str) -> Self {
        Request { body, ..self }.header("content-type", content_type)
    }

    pub(super) fn by(self, by: &By) -> Self {
        // Control characters have no place in a header.
        let actor =
            by.actor.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect::<String>();
        let request = self.header("x-gateward-actor", actor);
        match &by.force {
            Some(token) => request.header("x-gateward-force", token.expose()),
            None => request,
        }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Client {
    pub(super) fn new(control: &str, token: Option<Secret>) -> Answer<Self> {
        let authority = control.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let authority = authority.ok_or_else(|| unreachable(format!("'{control}' is not http://HOST:PORT")))?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(unreachable)?;
        Ok(Client { runtime, authority: authority.to_owned(), token, timeout: Duration::from_secs(30) })
    }

    pub(super) fn send(&self, request: &Request<'_>) -> Answer<Reply> {
        let within = async { tokio::time::timeout(self.timeout, self.exchange(request)).await };
        let late = || unreachable(format!("no answer within {} s", self.timeout.as_secs()));
        self.runtime.block_on(within).map_err(|_| late())?
    }

    async fn exchange(&self, request: &Request<'_>) -> Answer<Reply> {
        let stream = TcpStream::connect(&self.authority).await.map_err(unreachable)?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(unreachable)?;
        // Ends with the sender, which is dropped here.
        let driver = tokio::spawn(async move { drop(connection.await) });
        let mut head = hyper::Request::builder()
            .method(request.method.clone())
            .uri(&request.path)
            .header("host", &self.authority)
            .header("accept", request.accept);
        for (name, value) in &request.headers {
            head = head.header(*name, value);
        }
        if let Some(token) = &self.token {
            head = head.header("authorization", format!("Bearer {}", token.expose().trim()));
        }
        let message = head.body(Full::new(Bytes::copy_from_slice(request.body.as_bytes()))).map_err(unreachable)?;
        let answer = sender.send_request(message).await.map_err(unreachable)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| ProviderError::Protocol(format!("the answer broke off: {error}")))?.to_bytes();
        driver.abort();
        Ok(Reply { status, body })
    }
}

fn unreachable(error: impl std::fmt::Display) -> ProviderError {
    ProviderError::Unreachable(error.to_string())
}
