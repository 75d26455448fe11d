//! What filters may call: the snapshot's services and upstreams by name, and hosts that were allowed.

use super::Destination;
use crate::callout::Upstreams;
use gateward_model::{Config, Protocol};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Names of what can be called.
#[derive(Debug, Default)]
pub(super) struct Known {
    services: BTreeSet<String>,
    upstreams: BTreeSet<String>,
    hosts: Vec<String>,
}

/// A host without a port is called on this one.
const DEFAULT_PORT: u16 = 80;

impl Known {
    /// What a snapshot knows, and `hosts` as `host` or `host:port`.
    pub(super) fn of(config: &Config, hosts: &[String]) -> Self {
        let services = config.services.iter().filter(|service| service.enabled && carries_calls(service.protocol));
        Self {
            services: services.filter_map(|service| service.name.clone()).collect(),
            upstreams: config.upstreams.iter().map(|upstream| upstream.name.clone()).collect(),
            hosts: hosts.to_vec(),
        }
    }

    /// A number over all of it. What stands behind a name is no part: callouts follow that by themselves.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.services.hash(&mut hasher);
        self.upstreams.hash(&mut hasher);
        self.hosts.hash(&mut hasher);
        hasher.finish()
    }

    /// Where a callout to `name` goes. Of a service and an upstream of the same name the service, which says more.
    pub(super) fn destination(&self, name: &str) -> Option<Destination> {
        if self.services.contains(name) {
            return Some(Destination::Service(name.to_owned()));
        }
        if self.upstreams.contains(name) {
            return Some(Destination::Upstream(name.to_owned()));
        }
        let asked = host_and_port(name)?;
        let allowed =
            |host: &String| *host == asked.0 || host_and_port(host).as_ref() == Some(&asked) && host.contains(':');
        let (host, port) = asked.clone();
        self.hosts.iter().any(allowed).then_some(Destination::Host { host, port })
    }
}

/// Whether services of this protocol can be asked over HTTP.
fn carries_calls(protocol: Protocol) -> bool {
    !matches!(protocol, Protocol::Tcp | Protocol::Tls | Protocol::Udp | Protocol::TlsPassthrough)
}

impl Upstreams for Known {
    fn knows(&self, upstream: &str) -> bool {
        self.destination(upstream).is_some()
    }
}

/// `host` or `host:port`, IPv6 in brackets.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, DEFAULT_PORT),
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_called_only_when_allowed() {
        let hosts = ["a.example".to_owned(), "b.example:8080".to_owned(), "[::1]:81".to_owned()];
        let known = Known::of(&Config::default(), &hosts);
        for (name, port) in [
            ("a.example", Some(80)),
            ("a.example:99", Some(99)),
            ("b.example:8080", Some(8080)),
            ("b.example", None),
            ("b.example:81", None),
            ("[::1]:81", Some(81)),
            ("c.example", None),
            ("a.example:x", None),
            ("", None),
        ] {
            let found = known.destination(name).map(|destination| match destination {
                Destination::Host { port, .. } => port,
                other => panic!("{other:?}"),
            });
            assert_eq!(found, port, "{name}");
        }
    }

    #[test]
    fn services_come_before_upstreams_and_both_before_hosts() {
        let known = Known {
            services: ["a".to_owned()].into(),
            upstreams: ["a".to_owned(), "b".to_owned()].into(),
            hosts: vec!["b".to_owned(), "c".to_owned()],
        };
        assert_eq!(known.destination("a"), Some(Destination::Service("a".to_owned())));
        assert_eq!(known.destination("b"), Some(Destination::Upstream("b".to_owned())));
        assert_eq!(known.destination("c"), Some(Destination::Host { host: "c".to_owned(), port: 80 }));
    }
}
