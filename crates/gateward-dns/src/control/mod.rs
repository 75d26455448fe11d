//! The control API: zones, changes, policies, versions, keys and leases over HTTP, for people, plans and machines.
//!
//! `openapi.json` beside the crate's manifest describes it, is served, and is compared with its routes by a test. Without a token the API
//! listens on loopback only, and does not answer browsers that were led there.

mod answers;
mod keys;
mod leases;
mod server;
mod versions;
mod webhook;
mod zones;

use std::net::SocketAddr;
use std::sync::Arc;

use gateward_model::Secret;
use gateward_zone::Name;
use hyper::{Method, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

use crate::authority::{Actor, Authority, Base, Door};
use crate::keys::KeyFile;
use crate::leases::Leases;
pub(crate) use answers::{errors, plain, refused};
use gateward_api::{ApiRequest, ApiResponse, Door as Entrance, Limits};

/// What the API is about.
pub struct Control {
    /// The zones.
    pub authority: Arc<Authority>,
    /// The TSIG keys.
    pub keys: Arc<KeyFile>,
    /// The leases.
    pub leases: Arc<Leases>,
    /// Numbers of the servers, as Prometheus reads them.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Who has it may do everything.
    pub token: Option<Secret>,
}

/// Why an API does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Everybody could change every zone.
    #[error("the control API does not listen on {0} without a token: give --control-token-file, or listen on loopback")]
    Open(SocketAddr),
    /// The address cannot be had.
    #[error("the control API cannot listen: {0}")]
    Bind(#[from] std::io::Error),
}

/// An API that listens until it is dropped.
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Methods and paths, as the OpenAPI document writes them.
pub(crate) const ROUTES: &[(&str, &str)] = &[
    ("GET", "/healthz"),
    ("GET", "/metrics"),
    ("GET", "/v1/openapi.json"),
    ("GET", "/v1/audit"),
    ("GET", "/v1/zones"),
    ("GET", "/v1/zones/{origin}"),
    ("PUT", "/v1/zones/{origin}"),
    ("DELETE", "/v1/zones/{origin}"),
    ("POST", "/v1/zones/{origin}/changes"),
    ("GET", "/v1/zones/{origin}/policy"),
    ("PUT", "/v1/zones/{origin}/policy"),
    ("GET", "/v1/zones/{origin}/versions"),
    ("GET", "/v1/zones/{origin}/versions/{serial}"),
    ("POST", "/v1/zones/{origin}/rollback"),
    ("GET", "/v1/keys"),
    ("PUT", "/v1/keys/{name}"),
    ("DELETE", "/v1/keys/{name}"),
    ("GET", "/v1/leases/{zone}"),
    ("PUT", "/v1/leases/{zone}/{id}"),
    ("DELETE", "/v1/leases/{zone}/{id}"),
];

/// The description of the API.
pub const OPENAPI: &str = include_str!("../../openapi.json");

/// Zone files may be long; a few at once are enough.
const LIMITS: Limits = Limits { body_bytes: 64 << 20, bodies_bytes: 256 << 20 };
/// Longest name of an actor.
const MAX_ACTOR: usize = 256;

impl Control {
    /// Listens for the control API.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn listen(self: &Arc<Self>, address: SocketAddr) -> Result<Listening, ControlError> {
        if !address.ip().is_loopback() && self.token.is_none() {
            return Err(ControlError::Open(address));
        }
        let entrance = Entrance::bind(address).await?;
        let (control, guard) = (self.clone(), self.clone());
        let handler = move |request| {
            let control = control.clone();
            async move { control.route_or_say(&request).await }
        };
        Ok(listening(entrance, move |head| guard.admit(head), handler))
    }

    /// Listens for external-dns's webhook protocol; on loopback, because that protocol has no token.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn listen_webhook(self: &Arc<Self>, address: SocketAddr) -> Result<Listening, ControlError> {
        if !address.ip().is_loopback() {
            return Err(ControlError::Open(address));
        }
        let entrance = Entrance::bind(address).await?;
        let control = self.clone();
        let handler = move |request| {
            let control = control.clone();
            async move { webhook::answer(&control, &request).await }
        };
        Ok(listening(entrance, webhook::admit, handler))
    }

    /// What [`Self::listen`] does with a request.
    #[cfg(test)]
    async fn answer(&self, request: ApiRequest) -> ApiResponse {
        match self.admit(&request) {
            Ok(()) => self.route_or_say(&request).await,
            Err(response) => response,
        }
    }

    async fn route_or_say(&self, request: &ApiRequest) -> ApiResponse {
        let Some(route) = ROUTES.iter().map(|(_, route)| *route).find(|route| fits(route, &request.path)) else {
            let message = "there is no such path; GET /v1/openapi.json describes those that there are";
            return errors(StatusCode::NOT_FOUND, &[plain(message)]);
        };
        let allowed: Vec<&str> = ROUTES.iter().filter(|(_, path)| *path == route).map(|(method, _)| *method).collect();
        if !allowed.contains(&request.method.as_str()) {
            let message = format!("{route} has {}", allowed.join(", "));
            let response = errors(StatusCode::METHOD_NOT_ALLOWED, &[plain(message)]);
            return response.header(hyper::header::ALLOW, &allowed.join(", "));
        }
        self.route(route, request).await.unwrap_or_else(|response| response)
    }

    async fn route(&self, route: &str, request: &ApiRequest) -> Answer {
        let origin = || origin(&request.path[2]);
        let id = || request.path[3].as_str();
        match (request.method.as_str(), route) {
            (_, "/healthz") => Ok(server::health(self)),
            (_, "/metrics") => Ok(server::metrics(self)),
            (_, "/v1/openapi.json") => {
                Ok(ApiResponse::bytes(StatusCode::OK, "application/json", OPENAPI.as_bytes().to_vec()))
            }
            (_, "/v1/audit") => server::audit(self, request).await,
            (_, "/v1/zones") => Ok(zones::list(self)),
            ("GET", "/v1/zones/{origin}") => zones::show(self, request, &origin()?).await,
            ("PUT", "/v1/zones/{origin}") => zones::put(self, request, origin()?).await,
            ("DELETE", "/v1/zones/{origin}") => zones::delete(self, request, &origin()?).await,
            (_, "/v1/zones/{origin}/changes") => zones::change(self, request, origin()?).await,
            ("GET", "/v1/zones/{origin}/policy") => zones::policy(self, &origin()?).await,
            ("PUT", "/v1/zones/{origin}/policy") => zones::put_policy(self, request, &origin()?).await,
            (_, "/v1/zones/{origin}/versions") => versions::list(self, origin()?).await,
            (_, "/v1/zones/{origin}/versions/{serial}") => versions::show(self, request, origin()?).await,
            (_, "/v1/zones/{origin}/rollback") => versions::rollback(self, request, origin()?).await,
            (_, "/v1/keys") => Ok(keys::list(self)),
            ("PUT", "/v1/keys/{name}") => keys::put(self, request).await,
            ("DELETE", "/v1/keys/{name}") => keys::delete(self, request).await,
            (_, "/v1/leases/{zone}") => leases::list(self, &origin()?).await,
            ("PUT", "/v1/leases/{zone}/{id}") => leases::put(self, request, &origin()?, id()).await,
            (_, "/v1/leases/{zone}/{id}") => leases::delete(self, request, &origin()?, id()).await,
            _ => Err(errors(StatusCode::NOT_FOUND, &[plain("there is no such path")])),
        }
    }

    /// Whether the request is heard at all; its content has not been read then.
    fn admit(&self, head: &ApiRequest) -> Result<(), ApiResponse> {
        let Some(token) = &self.token else { return admit_own(head) };
        let digest = |text: &str| Sha256::digest(text.as_bytes());
        // Probes need no token, learn nothing but that the server runs, and send nothing.
        let is_probe =
            head.path == ["healthz"] && matches!(head.method, Method::GET | Method::HEAD) && !head.has_content();
        if is_probe || head.bearer().is_some_and(|given| digest(given) == digest(token.expose())) {
            return Ok(());
        }
        let response = errors(StatusCode::UNAUTHORIZED, &[plain("send the token as Authorization: Bearer TOKEN")]);
        Err(response.header(hyper::header::WWW_AUTHENTICATE, "Bearer"))
    }
}

/// Whether a request comes by address or as localhost: a page in a browser that was led here by a name of its own must not read or change zones.
fn admit_own(head: &ApiRequest) -> Result<(), ApiResponse> {
    let is_own = head.host().is_none_or(|host| {
        host.eq_ignore_ascii_case("localhost") || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
    });
    let message = "what has no token is asked by address or as localhost";
    if is_own { Ok(()) } else { Err(errors(StatusCode::MISDIRECTED_REQUEST, &[plain(message)])) }
}

/// Serves one of the APIs.
fn listening<F>(
    entrance: Entrance,
    admit: impl Fn(&ApiRequest) -> Result<(), ApiResponse> + Send + Sync + 'static,
    handler: impl Fn(ApiRequest) -> F + Send + Sync + 'static,
) -> Listening
where
    F: Future<Output = ApiResponse> + Send + 'static,
{
    let refuse = |status, message: &str| errors(status, &[plain(message)]);
    let address = entrance.address();
    let served = gateward_api::serve_admitted(entrance, LIMITS, refuse, admit, handler);
    Listening { address, task: tokio::spawn(served) }
}

/// Whether a path is of the form of a route, in which a word in braces stands for any segment.
fn fits(route: &str, path: &[String]) -> bool {
    let mut segments = path.iter();
    let fits =
        route[1..].split('/').all(|part| segments.next().is_some_and(|given| part.starts_with('{') || part == given));
    fits && segments.next().is_none()
}

/// An answer, or one that ends the handling early.
type Answer = Result<ApiResponse, ApiResponse>;

/// The zone of a path: with or without its last dot; `.` or `@` is the root.
fn origin(text: &str) -> Result<Name, ApiResponse> {
    let text = if text == "@" { "." } else { text };
    text.parse()
        .map_err(|error| errors(StatusCode::BAD_REQUEST, &[plain(format!("'{text}' is not a domain name: {error}"))]))
}

/// Who asks.
fn actor(request: &ApiRequest, door: Door) -> Result<Actor, ApiResponse> {
    let name = request.header("x-gateward-actor").unwrap_or_default();
    if name.len() > MAX_ACTOR || name.chars().any(char::is_control) {
        let message = format!("X-Gateward-Actor has at most {MAX_ACTOR} octets");
        return Err(errors(StatusCode::BAD_REQUEST, &[plain(message)]));
    }
    Ok(Actor::new(door, if name.is_empty() { "anonymous" } else { name }))
}

/// A token that lifts guardrails.
fn force(request: &ApiRequest) -> Option<String> {
    request.header("x-gateward-force").map(str::to_owned)
}

/// The version that the request is made for, by its conditions (RFC 9110, 13.1).
fn base(request: &ApiRequest) -> Result<Base, ApiResponse> {
    let bad = |message: &str| errors(StatusCode::BAD_REQUEST, &[plain(message)]);
    match (request.if_match(), request.if_none_match()) {
        (None, None) => Ok(Base::Any),
        (None, Some("*")) => Ok(Base::Absent),
        (Some(tag), None) if tag != "*" => {
            let serial = tag.trim_matches('"').parse().map_err(|_| bad("If-Match takes a serial: If-Match: \"42\""))?;
            Ok(Base::Serial(serial))
        }
        _ => Err(bad("give If-Match: \"SERIAL\" or If-None-Match: *")),
    }
}

/// JSON of a request, which says that it is JSON: browsers ask before they send that to a stranger.
fn json<T: serde::de::DeserializeOwned>(request: &ApiRequest) -> Result<T, ApiResponse> {
    if !request.content_type().starts_with("application/json") {
        let message = "send Content-Type: application/json";
        return Err(errors(StatusCode::UNSUPPORTED_MEDIA_TYPE, &[plain(message)]));
    }
    serde_json::from_slice(&request.body)
        .map_err(|error| errors(StatusCode::BAD_REQUEST, &[plain(format!("the body cannot be read: {error}"))]))
}

/// Does something that waits for the disk or takes long.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiResponse> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a request of the control API ended in a panic");
        errors(StatusCode::INTERNAL_SERVER_ERROR, &[plain("an internal error; the log has more")])
    })
}

#[cfg(test)]
mod tests;
