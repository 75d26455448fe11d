//! What the operator sets of name resolution, with Kong's defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How names are resolved (Kong: `dns_*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// Servers to ask; empty: those of `resolv_conf`.
    pub servers: Vec<SocketAddr>,
    /// Where search domains, `ndots`, time-outs and the default servers stand.
    pub resolv_conf: PathBuf,
    /// Names that are not asked for.
    pub hosts_file: PathBuf,
    /// Kinds of records in the order in which they are asked for.
    pub order: Vec<RecordKind>,
    /// Time to live of every answer instead of its own.
    pub valid_ttl: Option<Duration>,
    /// How long past its time an answer is used while asking fails.
    pub stale_ttl: Duration,
    /// How long it is remembered that a name does not exist or has no records.
    pub not_found_ttl: Duration,
    /// How long a failure to ask is remembered.
    pub error_ttl: Duration,
    /// Names kept besides those of the configuration.
    pub cache_size: usize,
}

impl Default for DnsSettings {
    fn default() -> Self {
        use RecordKind::{A, Cname, Last, Srv};
        Self {
            servers: Vec::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            hosts_file: "/etc/hosts".into(),
            order: vec![Last, Srv, A, Cname],
            valid_ttl: None,
            stale_ttl: Duration::from_secs(3600),
            not_found_ttl: Duration::from_secs(30),
            error_ttl: Duration::from_secs(1),
            cache_size: 10_000,
        }
    }
}

/// An entry of `dns_order`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// Whichever answered last time.
    Last,
    /// Hosts with ports and weights.
    Srv,
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Aliases. They are followed wherever they turn up, so that this asks for nothing more than `A`.
    Cname,
}

impl RecordKind {
    /// By Kong's name for it, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_uppercase().as_str() {
            "LAST" => Self::Last,
            "SRV" => Self::Srv,
            "A" => Self::A,
            "AAAA" => Self::Aaaa,
            "CNAME" => Self::Cname,
            _ => return None,
        })
    }
}

/// Why names cannot be resolved at all.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The system's file cannot be used.
    #[error("cannot use {path}: {reason}; correct it, or name the servers with --dns-resolver")]
    ResolvConf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The resolver cannot be made.
    #[error("cannot set up name resolution: {0}")]
    Resolver(String),
}
