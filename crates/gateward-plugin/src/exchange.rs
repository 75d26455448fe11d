//! One request and its response, as plugins see and change them.

use crate::context::Context;
use crate::origin::ProxyOrigin;
use crate::{ClientTls, RecordChanges, TlsAuthorities, TlsIdentity, Try};
use gateward_http::uri::split_authority;
use gateward_http::{Headers, Method, RequestHead};
use gateward_model::{Consumer, EntityId, Route, Service};
use std::any::Any;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

/// State of one exchange. A connection reuses the value: [`Exchange::reset`] keeps the memory.
pub struct Exchange {
    /// Request id: 32 hex digits.
    pub id: String,
    /// Unix milliseconds when the request line arrived.
    pub started_at_ms: u64,
    /// Who sent it and what they asked for, after trusted `X-Forwarded-*` were considered.
    pub client: Client,
    /// The request as it came. Changes to `headers` go upstream.
    pub request: RequestHead,
    /// Normalised path the route was found with.
    pub path: String,
    /// The matched route.
    pub route: Option<Arc<Route>>,
    /// The matched route's service.
    pub service: Option<Arc<Service>>,
    /// What the route's regex captured.
    pub captures: Captures,
    /// What will be asked of the upstream. Set before `access`, changed by plugins.
    pub upstream: UpstreamRequest,
    /// Who the caller is, as authentication plugins found.
    pub auth: Authentication,
    /// The request body when a plugin needs it buffered; replace it to change what goes upstream.
    pub body: Option<Vec<u8>>,
    /// Fields after the request's body; there with its last piece.
    pub request_trailers: Headers,
    /// Most bytes of a request's body that a plugin may hold back. Set by the gateway.
    pub held_body_max: usize,
    /// Refuse a longer request body with 413 while it streams; bytes.
    pub request_body_max: Option<u64>,
    /// The response; valid from the response phases on. `response.early` may be set in any phase.
    pub response: ResponseState,
    /// Attempts to reach the upstream, in order; what is there before a plugin's phase was made before it.
    pub tries: Vec<Try>,
    /// Metrics to record beyond the always-on ones, switched on by the prometheus plugin.
    pub metrics: MetricGroups,
    /// What plugins change in the record.
    pub changes: RecordChanges,
    context: Context,
    /// Route and service of the request before, kept because the next one on a connection often has the same.
    previous: Option<(Arc<Route>, Option<Arc<Service>>)>,
}

/// URI scheme of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are the schemes")]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The caller's side of the connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// The TCP peer, or the client behind it that a trusted PROXY header named.
    pub peer: SocketAddr,
    /// The address to act on: the peer, or what a trusted peer forwarded.
    pub ip: IpAddr,
    /// Scheme of the connection to the gateway.
    pub scheme: Scheme,
    /// The connection's TLS session, if it has one.
    pub tls: Option<Arc<ClientTls>>,
    /// The address it came in on.
    pub local_ip: IpAddr,
    /// Port of the listener.
    pub port: u16,
    /// Serial number of the connection among those of the process, from 1; 0: nobody counted.
    pub connection: u64,
    /// Which request of its connection it is, from 1; 0: nobody counted.
    pub number: u32,
    /// What a trusted PROXY header said about the connection; `None` without one.
    pub origin: Option<Arc<ProxyOrigin>>,
    /// Whether the peer is within `trusted_ips`.
    pub trusted: bool,
    /// X-Forwarded-Proto as sent upstream.
    pub forwarded_proto: Scheme,
    /// X-Forwarded-Host of a trusted peer; empty for none, see [`Exchange::forwarded_host`].
    pub forwarded_host: String,
    /// X-Forwarded-Port as sent upstream.
    pub forwarded_port: u16,
    /// X-Forwarded-Path of a trusted peer; empty for none, see [`Exchange::forwarded_path`].
    pub forwarded_path: String,
    /// X-Forwarded-Prefix as sent upstream; empty for none.
    pub forwarded_prefix: String,
}

/// What a regex path captured.
#[derive(Debug, Clone, Default)]
pub struct Captures {
    /// Groups by number; 0 is the whole match. Empty when the route has no regex path.
    pub unnamed: Vec<String>,
    /// Named groups.
    pub named: Vec<(String, String)>,
}

impl Captures {
    /// A group by name or by number written in digits.
    pub fn get(&self, key: &str) -> Option<&str> {
        if let Ok(number) = key.parse::<usize>() {
            return self.unnamed.get(number).map(String::as_str);
        }
        self.named.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// The request line and Host that go upstream.
#[derive(Debug, Clone, Default)]
pub struct UpstreamRequest {
    /// A method other than the request's.
    pub method: Option<Method>,
    /// Path, escaped, starting with `/`.
    pub path: String,
    /// Query without `?`. `Some("")` sends a bare `?`.
    pub query: Option<String>,
    /// A Host other than the one the balancer would set.
    pub host: Option<String>,
    /// What else is not as the service says; seldom anything.
    pub detour: Option<Box<Detour>>,
}

/// What a plugin wants otherwise than the service says, for one request. `None`: as the service says.
#[derive(Debug, Clone, Default)]
pub struct Detour {
    /// Host and port to go to, past the balancer.
    pub target: Option<(String, u16)>,
    /// Name of the upstream whose targets are balanced over.
    pub upstream: Option<String>,
    /// With or without TLS.
    pub scheme: Option<Scheme>,
    /// Tries after the first.
    pub retries: Option<u16>,
    /// Milliseconds to connect, between two writes and between two reads.
    pub timeouts_ms: Option<[u32; 3]>,
    /// Verify the upstream's certificate.
    pub tls_verify: Option<bool>,
    /// Most intermediate certificates.
    pub tls_verify_depth: Option<u8>,
    /// What its certificate is verified against.
    pub tls_authorities: Option<Rc<TlsAuthorities>>,
    /// The certificate that the upstream is shown.
    pub tls_identity: Option<Rc<TlsIdentity>>,
    /// Asked before a try that follows a failed one, where no upstream is balanced over.
    pub before_retry: Option<Rc<dyn BeforeRetry>>,
}

/// Says where the next try goes.
pub trait BeforeRetry: Debug {
    /// Change what `exchange` has of the way to the upstream; whether the next try goes by it.
    fn ask(&self, exchange: &mut Exchange) -> bool;
}

impl UpstreamRequest {
    /// The detour, to change.
    pub fn detour_mut(&mut self) -> &mut Detour {
        self.detour.get_or_insert_default()
    }
}

/// Who the caller is.
#[derive(Debug, Clone, Default)]
pub struct Authentication {
    /// The consumer.
    pub consumer: Option<Arc<Consumer>>,
    /// The credential it came with; `None` for the anonymous consumer.
    pub credential: Option<Credential>,
    /// Groups an authentication plugin asserts without a consumer.
    pub groups: Option<Vec<String>>,
}

/// A credential that was accepted.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its id.
    pub id: EntityId,
    /// What `X-Credential-Identifier` carries when it is not the id: the user name.
    pub identifier: Option<String>,
}

/// The response under way.
#[derive(Debug, Default)]
pub struct ResponseState {
    /// Fields to set on the response, whoever makes it: applied right before `header_filter`.
    pub early: Headers,
    /// Status code.
    pub status: u16,
    /// Fields as they will be sent; those that the upstream sent are marked.
    pub headers: Headers,
    /// The whole body when a plugin needs it buffered. What `header_filter` puts here is sent in the body's place.
    pub body: Option<Vec<u8>>,
    /// Fields after the body; there with its last piece, in `body_filter`.
    pub trailers: Headers,
    /// The status of a gRPC call that a plugin translates, which then says whether the call went well.
    pub grpc_status: Option<u8>,
    /// Who made it.
    pub source: Source,
    /// Break the exchange off, so that the client notices: it gets a reset.
    pub broken: bool,
    /// A plugin wants the upstream's whole body in `held` before `header_filter`, as far as the gateway holds bodies.
    pub hold: bool,
    /// The body as it came from the upstream.
    pub held: Option<Vec<u8>>,
    /// Status of the upstream's response, whatever it is now; 0: there was none.
    pub upstream_status: u16,
    /// The head is on its way to the client: nothing can take the response's place any more.
    pub started: bool,
}

/// Who made a response, in Kong's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// A plugin answered (`exit`).
    Exit,
    /// The gateway answered because something failed (`error`).
    #[default]
    Error,
    /// The upstream answered (`service`).
    Service,
}

impl Source {
    /// Kong's word: `exit`, `error`, `service`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Error => "error",
            Self::Service => "service",
        }
    }

    /// Kong's word in log records and metrics: `kong` or `upstream`.
    pub fn side(self) -> &'static str {
        match self {
            Self::Service => "upstream",
            Self::Exit | Self::Error => "kong",
        }
    }
}

/// Optional metric groups, in the terms of Kong's prometheus plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "Kong's setting names")]
pub struct MetricGroups {
    pub per_consumer: bool,
    pub status_code_metrics: bool,
    pub latency_metrics: bool,
    pub bandwidth_metrics: bool,
}

impl Exchange {
    /// A blank exchange. Also what tests of plugins start from.
    pub fn new() -> Self {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self {
            id: String::new(),
            started_at_ms: 0,
            client: Client {
                peer: nowhere,
                ip: nowhere.ip(),
                scheme: Scheme::Http,
                tls: None,
                local_ip: nowhere.ip(),
                port: 0,
                connection: 0,
                number: 0,
                origin: None,
                trusted: false,
                forwarded_proto: Scheme::Http,
                forwarded_host: String::new(),
                forwarded_port: 0,
                forwarded_path: String::new(),
                forwarded_prefix: String::new(),
            },
            request: RequestHead::default(),
            path: String::new(),
            route: None,
            service: None,
            captures: Captures::default(),
            upstream: UpstreamRequest::default(),
            auth: Authentication::default(),
            body: None,
            request_trailers: Headers::default(),
            held_body_max: 0,
            request_body_max: None,
            response: ResponseState::default(),
            tries: Vec::new(),
            metrics: MetricGroups::default(),
            changes: RecordChanges::default(),
            context: Context::default(),
            previous: None,
        }
    }

    /// Forget the request but keep the memory and what belongs to the connection (`client.peer`, `scheme`, `tls`, `port`).
    pub fn reset(&mut self) {
        self.id.clear();
        self.client.forwarded_host.clear();
        self.client.forwarded_path.clear();
        self.client.forwarded_prefix.clear();
        self.path.clear();
        if let Some(route) = self.route.take() {
            self.previous = Some((route, self.service.take()));
        }
        self.service = None;
        self.captures.unnamed.clear();
        self.captures.named.clear();
        self.upstream.method = None;
        self.upstream.path.clear();
        self.upstream.query = None;
        self.upstream.host = None;
        self.upstream.detour = None;
        self.auth.consumer = None;
        self.auth.credential = None;
        self.auth.groups = None;
        self.body = None;
        self.request_trailers.clear();
        self.request_body_max = None;
        self.response.early.clear();
        self.response.status = 0;
        self.response.headers.clear();
        self.response.body = None;
        self.response.trailers.clear();
        self.response.grpc_status = None;
        self.response.source = Source::Error;
        self.response.broken = false;
        self.response.started = false;
        self.response.hold = false;
        self.response.held = None;
        self.response.upstream_status = 0;
        self.tries.clear();
        self.metrics = MetricGroups::default();
        self.changes.clear();
        self.context.clear();
    }

    /// Set route and service; the service must be the route's.
    pub fn matched(&mut self, route: &Arc<Route>, service: Option<&Arc<Service>>) {
        match self.previous.take() {
            Some((previous, its_service)) if Arc::ptr_eq(&previous, route) => {
                (self.route, self.service) = (Some(previous), its_service);
            }
            _ => (self.route, self.service) = (Some(route.clone()), service.cloned()),
        }
    }

    /// X-Forwarded-Host as sent upstream: what a trusted peer said, or the host the request is for.
    pub fn forwarded_host(&self) -> &str {
        match self.client.forwarded_host.as_str() {
            "" => split_authority(&self.request.authority).0,
            forwarded => forwarded,
        }
    }

    /// X-Forwarded-Path as sent upstream: what a trusted peer said, or the path of the request as it came.
    pub fn forwarded_path(&self) -> &str {
        match self.client.forwarded_path.as_str() {
            "" => self.request.raw_path(),
            forwarded => forwarded,
        }
    }

    /// Keep `value` for later phases of the same plugin: one value per type, which is private to the plugin.
    pub fn put<T: Any>(&mut self, value: T) {
        self.context.put(value);
    }

    /// The value kept by [`Exchange::put`].
    pub fn kept<T: Any>(&self) -> Option<&T> {
        self.context.kept()
    }

    /// Likewise, to change.
    pub fn kept_mut<T: Any>(&mut self) -> Option<&mut T> {
        self.context.kept_mut()
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}
