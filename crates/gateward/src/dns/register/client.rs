//! HTTP to the control API and to health URLs.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use gateward_model::Secret;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const ANSWER_BYTES: usize = 1 << 20;

/// Why a request led to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The server does not want it, and will not later.
    #[error("{0}")]
    Refused(String),
    /// It may work later.
    #[error("{0}")]
    Away(String),
}

/// A server.
pub(super) struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    /// `http://HOST:PORT`
    base: String,
    authority: String,
    token: Option<Secret>,
    actor: String,
}

impl Client {
    /// The control API at a URL.
    ///
    /// # Errors
    /// It is no such URL, or the token cannot be read.
    pub(super) fn new(url: &str, token_file: Option<&Path>, actor: &str) -> Result<Self> {
        let (mut client, _) = Self::of_url(url)?;
        if let Some(file) = token_file {
            let token =
                std::fs::read_to_string(file).with_context(|| format!("--control-token-file {}", file.display()))?;
            client.token = Some(Secret::new(token.trim()));
        }
        actor.clone_into(&mut client.actor);
        Ok(client)
    }

    /// The server of a URL, and the rest of the URL.
    ///
    /// # Errors
    /// It is not an `http` URL.
    pub(super) fn of_url(url: &str) -> Result<(Self, String)> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
        let authority = authority.ok_or_else(|| anyhow!("{url} is not of the form http://HOST:PORT"))?.to_string();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let pool = Pool::builder(TokioExecutor::new()).build_http();
        let base = format!("http://{authority}");
        Ok((Client { pool, base, authority, token: None, actor: String::new() }, path))
    }

    /// Registers or renews; gives the time at which the lease ends.
    pub(super) async fn put(&self, path: &str, lease: &Value) -> Result<String, Failure> {
        let answer = self.send(Method::PUT, path, lease.to_string()).await?;
        Ok(answer["expires"].as_str().unwrap_or_default().to_owned())
    }

    /// Gives a lease up.
    pub(super) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(Method::DELETE, path, String::new()).await.map(drop)
    }

    /// Whether GET is answered with 2xx.
    pub(super) async fn answers(&self, path: &str) -> bool {
        let request = Request::get(format!("{}{path}", self.base)).body(Full::default());
        let Ok(request) = request else { return false };
        self.pool.request(request).await.is_ok_and(|response| response.status().is_success())
    }

    /// The address of this machine from which the server is reached.
    pub(super) async fn own_address(&self) -> Result<IpAddr, Failure> {
        let away = |error: std::io::Error| Failure::Away(format!("{}: {error}", self.authority));
        let address = if self.authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            self.authority.clone()
        } else {
            format!("{}:80", self.authority)
        };
        let connected = tokio::net::TcpStream::connect(address).await.map_err(away)?;
        connected.local_addr().map(|local| local.ip().to_canonical()).map_err(away)
    }

    async fn send(&self, method: Method, path: &str, body: String) -> Result<Value, Failure> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        request = request.header(CONTENT_TYPE, "application/json").header("x-gateward-actor", &self.actor);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request = request.body(Full::from(body)).map_err(|error| Failure::Refused(error.to_string()))?;
        let away = |error: String| Failure::Away(format!("{}: {error}", self.authority));
        let exchange = async {
            let response = self.pool.request(request).await.map_err(|error| away(chain(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
            Ok((status, body.map_err(|error| away(error.to_string()))?.to_bytes()))
        };
        let (status, body) =
            tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| away("no answer in time".to_owned()))??;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        match status {
            status if status.is_success() => Ok(answer),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Err(away(format!("{status} {}", reasons(&answer))))
            }
            status if status.is_client_error() => Err(Failure::Refused(format!("{status} {}", reasons(&answer)))),
            status => Err(away(format!("{status} {}", reasons(&answer)))),
        }
    }
}

/// An error and what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// The errors of an answer, each with what to do about it.
fn reasons(answer: &Value) -> String {
    let errors = answer["errors"].as_array().into_iter().flatten();
    let reason = |error: &Value| {
        let message = error["message"].as_str().unwrap_or_default();
        error["remedy"].as_str().map_or_else(|| message.to_owned(), |remedy| format!("{message}; {remedy}"))
    };
    errors.map(reason).collect::<Vec<_>>().join(". ")
}

/// Text as one segment of a path (RFC 3986, 3.3).
pub(super) fn segment(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, octet| {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            out.push(char::from(octet));
        } else {
            let _ = write!(out, "%{octet:02X}");
        }
        out
    })
}
