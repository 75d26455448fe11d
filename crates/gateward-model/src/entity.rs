//! The entities of Kong's declarative format, resolved: defaults filled, references turned into ids.
//!
//! Field names, units and defaults are Kong's (`kong/db/schema/entities/*.lua`), listed in the user guide.

use crate::{EntityId, Resilience, Secret};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Protocols a service speaks or a route accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the protocols")]
pub enum Protocol {
    #[default]
    Http,
    Https,
    Grpc,
    Grpcs,
    Tcp,
    Tls,
    Udp,
    TlsPassthrough,
    Ws,
    Wss,
}

/// A backend: where requests of its routes go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kong's field names; see the guide's entity tables")]
pub struct Service {
    pub id: EntityId,
    pub name: Option<String>,
    pub protocol: Protocol,
    /// Host name or IP address, or the name of an upstream.
    pub host: String,
    pub port: u16,
    pub path: Option<String>,
    pub retries: u16,
    /// Milliseconds.
    pub connect_timeout: u32,
    /// Milliseconds between two writes.
    pub write_timeout: u32,
    /// Milliseconds between two reads.
    pub read_timeout: u32,
    pub client_certificate: Option<EntityId>,
    pub tls_verify: Option<bool>,
    pub tls_verify_depth: Option<u8>,
    pub ca_certificates: Option<Vec<EntityId>>,
    /// Gateward's own: begin connections to the service with a PROXY header of this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// Gateward's own: offer HTTP/2 to an https service, which may choose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2: Option<bool>,
    pub enabled: bool,
    pub tags: Option<Vec<String>>,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds.
    pub updated_at: u64,
}

/// Which PROXY header a service gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocolVersion {
    /// A line of text.
    V1,
    /// Binary, with the VPC endpoint where one is known.
    V2,
}

/// How `Route::paths` and `Service::path` are joined; only `v0` exists in the default router flavour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "Kong's names")]
pub enum PathHandling {
    #[default]
    V0,
    V1,
}

/// Which rules select routes: Kong's `router_flavor` setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "Kong's names")]
pub enum RouterFlavor {
    #[default]
    TraditionalCompatible,
    Expressions,
}

/// An address pattern of a stream route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kong's field names")]
pub struct CidrPort {
    pub ip: Option<String>,
    pub port: Option<u16>,
}

/// Rules that select requests, and where those go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kong's field names; see the guide's entity tables")]
pub struct Route {
    pub id: EntityId,
    pub name: Option<String>,
    pub protocols: Vec<Protocol>,
    pub methods: Option<Vec<String>>,
    pub hosts: Option<Vec<String>>,
    /// `/prefix` or `~/regex`.
    pub paths: Option<Vec<String>>,
    pub headers: Option<BTreeMap<String, Vec<String>>>,
    pub snis: Option<Vec<String>>,
    pub sources: Option<Vec<CidrPort>>,
    pub destinations: Option<Vec<CidrPort>>,
    pub regex_priority: u32,
    pub strip_path: bool,
    pub preserve_host: bool,
    pub path_handling: PathHandling,
    pub https_redirect_status_code: u16,
    pub request_buffering: bool,
    pub response_buffering: bool,
    /// Only in the `expressions` flavour.
    pub expression: Option<String>,
    /// Only in the `expressions` flavour, with `expression`.
    pub priority: Option<u64>,
    pub service: Option<EntityId>,
    pub tags: Option<Vec<String>>,
    pub created_at: u64,
    pub updated_at: u64,
}

/// Balancing algorithm of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "Kong's names")]
pub enum Algorithm {
    #[default]
    RoundRobin,
    LeastConnections,
    ConsistentHashing,
    Latency,
}

/// Input of consistent hashing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "Kong's names")]
pub enum HashOn {
    #[default]
    None,
    Consumer,
    Ip,
    Header,
    Cookie,
    Path,
    QueryArg,
    UriCapture,
}

/// Kong's health-check settings, kept whole as validated JSON (defaults filled); read by the health checker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct HealthChecks(pub Value);

/// A set of targets under one name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kong's field names; see the guide's entity tables")]
pub struct Upstream {
    pub id: EntityId,
    pub name: String,
    pub algorithm: Algorithm,
    pub hash_on: HashOn,
    pub hash_fallback: HashOn,
    pub hash_on_header: Option<String>,
    pub hash_fallback_header: Option<String>,
    pub hash_on_cookie: Option<String>,
    pub hash_on_cookie_path: String,
    pub hash_on_query_arg: Option<String>,
    pub hash_fallback_query_arg: Option<String>,
    pub hash_on_uri_capture: Option<String>,
    pub hash_fallback_uri_capture: Option<String>,
    pub slots: u32,
    pub healthchecks: HealthChecks,
    pub host_header: Option<String>,
    pub client_certificate: Option<EntityId>,
    pub use_srv_name: bool,
    /// Gateward's own; absent: nothing of it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resilience: Option<Resilience>,
    pub tags: Option<Vec<String>>,
    pub created_at: u64,
    pub updated_at: u64,
}

/// One address (or name) of an upstream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kong's field names")]
pub struct Target {
    pub id: EntityId,
    pub upstream: EntityId,
    /// `host:port`, the port always present (8000 when the file gave none); IPv6 in brackets.
    pub target: String,
    /// 0 disables.
    pub weight: u16,
    pub tags: Option<Vec<String>>,
    pub created_at: u64,
    pub updated_at: u64,
}

/// A user of the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kong's field names")]
pub struct Consumer {
    pub id: EntityId,
    pub username: Option<String>,
    pub custom_id: Option<String>,
    pub tags: Option<Vec<String>>,
    pub created_at: u64,
    pub updated_at: u64,
}

/// An API key of a consumer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kong's field names")]
pub struct KeyAuthCredential {
    pub id: EntityId,
    pub consumer: EntityId,
    pub key: Secret,
    /// Seconds this credential lives; not enforced from a file.
    pub ttl: Option<u64>,
    pub tags: Option<Vec<String>>,
    pub created_at: u64,
}

/// A user name and password of a consumer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kong's field names")]
pub struct BasicAuthCredential {
    pub id: EntityId,
    pub consumer: EntityId,
    pub username: String,
    /// Hex SHA-1 of password followed by the consumer's id, as Kong stores it.
    pub password: Secret,
    pub tags: Option<Vec<String>>,
    pub created_at: u64,
}

/// Membership of a consumer in a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kong's field names")]
pub struct AclGroup {
    pub id: EntityId,
    pub consumer: EntityId,
    pub group: String,
    pub tags: Option<Vec<String>>,
    pub created_at: u64,
}

/// A plugin with its scope. At most one per (name, route, service, consumer).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kong's field names")]
pub struct PluginConfig {
    pub id: EntityId,
    pub name: String,
    pub instance_name: Option<String>,
    pub enabled: bool,
    pub protocols: Vec<Protocol>,
    pub route: Option<EntityId>,
    pub service: Option<EntityId>,
    pub consumer: Option<EntityId>,
    /// Validated against the plugin's schema, defaults filled, vault references resolved.
    pub config: Value,
    pub tags: Option<Vec<String>>,
    pub created_at: u64,
    pub updated_at: u64,
}

impl PluginConfig {
    /// An enabled plugin for everything, without more.
    pub fn new(id: EntityId, name: impl Into<String>, config: Value) -> Self {
        Self {
            id,
            name: name.into(),
            instance_name: None,
            enabled: true,
            protocols: Vec::new(),
            route: None,
            service: None,
            consumer: None,
            config,
            tags: None,
            created_at: 0,
            updated_at: 0,
        }
    }
}

/// A certificate with its key, and optionally a pair of the other key type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kong's field names")]
pub struct Certificate {
    pub id: EntityId,
    pub cert: String,
    pub key: Secret,
    pub cert_alt: Option<String>,
    pub key_alt: Option<Secret>,
    pub tags: Option<Vec<String>>,
    pub created_at: u64,
    pub updated_at: u64,
}

/// A server name that selects a certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kong's field names")]
pub struct Sni {
    pub id: EntityId,
    pub name: String,
    pub certificate: EntityId,
    pub tags: Option<Vec<String>>,
    pub created_at: u64,
    pub updated_at: u64,
}

/// A certificate authority to verify peers with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kong's field names")]
pub struct CaCertificate {
    pub id: EntityId,
    pub cert: String,
    pub cert_digest: String,
    pub tags: Option<Vec<String>>,
    pub created_at: u64,
    pub updated_at: u64,
}

/// Where `{vault://prefix/...}` references lead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kong's field names")]
pub struct Vault {
    pub id: EntityId,
    pub prefix: String,
    pub name: String,
    pub description: Option<String>,
    pub config: Value,
    pub tags: Option<Vec<String>>,
    pub created_at: u64,
    pub updated_at: u64,
}

/// An entity that no part of this build reads yet but that must survive a load and dump: validated JSON by
/// entity name (`jwt_secrets`, `hmacauth_credentials`, `keys`, `key_sets`, `filter_chains`, ...).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "an id and its fields")]
pub struct GenericEntity {
    pub id: EntityId,
    #[serde(flatten)]
    pub fields: serde_json::Map<String, Value>,
}
