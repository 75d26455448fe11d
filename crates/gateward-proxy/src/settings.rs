//! What the operator sets for the data plane, and every limit it keeps.

use gateward_balance::LimitRule;
use gateward_http::HeadLimits;
use gateward_model::RouterFlavor;
use gateward_net::PoolSettings;
use gateward_net::dns::DnsSettings;
use gateward_net::tls::TlsSettings;
use ipnet::IpNet;
use std::time::Duration;

/// Settings of the data plane; fixed while the process runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which rules select routes.
    pub flavor: RouterFlavor,
    /// Peers whose `X-Forwarded-*` and real-IP header are believed (Kong: `trusted_ips`).
    pub trusted: Vec<IpNet>,
    /// Where a trusted peer says the client's address (Kong: `real_ip_header`).
    pub real_ip: RealIp,
    /// Skip trusted addresses from the right of a list (Kong: `real_ip_recursive`).
    pub real_ip_recursive: bool,
    /// Beginning of the gateway's own header names; Kong's `X-Kong`.
    pub header_prefix: String,
    /// Which of its own headers the gateway adds (Kong: `headers`, `headers_upstream`).
    pub tokens: HeaderTokens,
    /// Idle upstream connections.
    pub pool: PoolSettings,
    /// Requests on one client connection; 0: no limit (Kong: `nginx_http_keepalive_requests`).
    pub keepalive_requests: u32,
    /// Protocols besides WebSocket that a request may ask to switch to (`Upgrade`).
    pub upgrades: Vec<String>,
    /// What happens to request fields with an underscore in their name.
    pub underscores: Underscores,
    /// Answer the `Kong-Debug: 1` header with route and service names (Kong: `allow_debug_header`).
    pub allow_debug_header: bool,
    /// Requests at the same time, per worker; over it, those of low priority are turned away first. `None`: no limit.
    pub concurrency: Option<LimitRule>,
    /// Milliseconds after which a client connection is told to go with its next response, so that clients spread anew
    /// over the nodes; each gets up to a fifth less, at random. 0: never.
    pub max_connection_age_ms: u64,
    /// Idle time after which the kernel probes the other side of client and upstream connections. `None`: never.
    pub tcp_keepalive: Option<Duration>,
    /// How names of services and targets are resolved.
    pub dns: DnsSettings,
    /// There are listeners for streams.
    pub streams: bool,
    /// TLS with clients and upstreams.
    pub tls: TlsSettings,
    /// Bounds.
    pub limits: Limits,
}

/// Where a trusted peer says the client's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RealIp {
    /// In a request field of this name.
    Header(String),
    /// In the PROXY header of the connection.
    ProxyProtocol,
}

impl RealIp {
    /// Kong's text for it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Header(name) => name,
            Self::ProxyProtocol => "proxy_protocol",
        }
    }
}

impl Default for RealIp {
    fn default() -> Self {
        Self::Header("X-Real-IP".into())
    }
}

/// What happens to request fields with an underscore in their name. Backends that read `_` as `-` cannot tell
/// `X_Forwarded_For` from the field the gateway wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Underscores {
    /// They pass (Kong: `underscores_in_headers on`), except aliases of fields the gateway writes or guards.
    #[default]
    Allow,
    /// They are removed (nginx's default).
    Drop,
    /// The request is refused with 400.
    Refuse,
}

/// Which of its own headers the gateway adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderTokens {
    /// `Server` on own responses and `Via` on proxied ones.
    pub server: bool,
    /// `<prefix>-Proxy-Latency`, `-Upstream-Latency`, `-Response-Latency`.
    pub latency: bool,
    /// `<prefix>-Request-Id` on responses.
    pub request_id_downstream: bool,
    /// `<prefix>-Request-Id` on requests to the upstream.
    pub request_id_upstream: bool,
}

/// Bounds of the data plane. Times are milliseconds, sizes bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bounds on heads, both sides.
    pub head: HeadLimits,
    /// Longest request body; 0: no limit (Kong: `client_max_body_size`).
    pub body_bytes: u64,
    /// Longest body buffered for a plugin, either direction.
    pub body_buffer_bytes: usize,
    /// Whole request head, from its first byte.
    pub header_timeout_ms: u64,
    /// Whole TLS handshake with a client.
    pub tls_handshake_timeout_ms: u64,
    /// TLS handshakes with clients at once, per worker.
    pub tls_handshakes: usize,
    /// Between two reads of a request body.
    pub body_timeout_ms: u64,
    /// Least average rate of a request body after `body_timeout_ms`; bytes per second, 0: none.
    pub body_rate: u64,
    /// Between two writes to a client.
    pub send_timeout_ms: u64,
    /// Idle client connection.
    pub keepalive_timeout_ms: u64,
    /// Unread request body that is drained to keep a connection.
    pub drain_bytes: u64,
    /// Client connections per worker.
    pub connections: usize,
    /// Client connections per address on the node; 0: no limit.
    pub connections_per_address: u32,
    /// Requests at a time on one HTTP/2 connection, those included whose work still goes on after the client gave
    /// them up (nginx: `http2_max_concurrent_streams`).
    pub http2_streams: u32,
    /// The hello by which a stream that passes through unread finds its route (nginx: `preread_timeout`).
    pub preread_timeout_ms: u64,
    /// UDP sessions per worker.
    pub udp_sessions: usize,
    /// Entries of this gateway in `Via` before a request is taken for a loop.
    pub via_hops: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flavor: RouterFlavor::default(),
            trusted: Vec::new(),
            real_ip: RealIp::default(),
            real_ip_recursive: false,
            header_prefix: "X-Kong".into(),
            tokens: HeaderTokens::default(),
            pool: PoolSettings::default(),
            keepalive_requests: 10_000,
            upgrades: Vec::new(),
            underscores: Underscores::default(),
            allow_debug_header: false,
            concurrency: None,
            max_connection_age_ms: 0,
            tcp_keepalive: Some(Duration::from_secs(60)),
            dns: DnsSettings::default(),
            streams: false,
            tls: TlsSettings::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for HeaderTokens {
    fn default() -> Self {
        Self { server: true, latency: true, request_id_downstream: true, request_id_upstream: true }
    }
}

impl Default for Limits {
    /// nginx's and Kong's figures where they have one.
    fn default() -> Self {
        Self {
            head: HeadLimits::default(),
            body_bytes: 0,
            body_buffer_bytes: 8 * 1024 * 1024,
            header_timeout_ms: 60_000,
            tls_handshake_timeout_ms: 10_000,
            tls_handshakes: 4_096,
            body_timeout_ms: 60_000,
            body_rate: 64,
            send_timeout_ms: 60_000,
            keepalive_timeout_ms: 75_000,
            drain_bytes: 256 * 1024,
            connections: 65_536,
            connections_per_address: 0,
            http2_streams: 128,
            preread_timeout_ms: 30_000,
            udp_sessions: 16_384,
            via_hops: 8,
        }
    }
}
