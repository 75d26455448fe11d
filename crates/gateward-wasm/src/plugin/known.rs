//! What filters may call: the snapshot's services and upstreams by name, and hosts that were allowed.

use super::Destination;
use crate::callout::Upstreams;
use gateward_model::{Config, Protocol};
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

/// What one filter may call.
#[derive(Debug, Default)]
pub(super) struct Known {
    names: RwLock<Arc<Names>>,
    hosts: Vec<String>,
}

/// Names of a snapshot.
#[derive(Debug, Default)]
pub(super) struct Names {
    services: BTreeSet<String>,
    upstreams: BTreeSet<String>,
}

impl Names {
    pub(super) fn of(config: &Config) -> Self {
        let services = config.services.iter().filter(|service| service.enabled && carries_calls(service.protocol));
        Self {
            services: services.filter_map(|service| service.name.clone()).collect(),
            upstreams: config.upstreams.iter().map(|upstream| upstream.name.clone()).collect(),
        }
    }
}

/// A host without a port is called on this one.
const DEFAULT_PORT: u16 = 80;

impl Known {
    /// The `names` of a snapshot, and `hosts` as `host` or `host:port`.
    pub(super) fn new(names: Names, hosts: &[String]) -> Self {
        Self { names: RwLock::new(Arc::new(names)), hosts: hosts.to_vec() }
    }

    /// Follow the next snapshot. What stands behind names, callouts follow by themselves.
    pub(super) fn follow(&self, names: Names) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }

    /// Where a callout to `name` goes. Of a service and an upstream of the same name the service, which says more.
    pub(super) fn destination(&self, name: &str) -> Option<Destination> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner).clone();
        if names.services.contains(name) {
            return Some(Destination::Service(name.to_owned()));
        }
        if names.upstreams.contains(name) {
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
        let known = Known::new(Names::default(), &hosts);
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
        let names = Names { services: ["a".to_owned()].into(), upstreams: ["a".to_owned(), "b".to_owned()].into() };
        let known = Known::new(names, &["b".to_owned(), "c".to_owned()]);
        assert_eq!(known.destination("a"), Some(Destination::Service("a".to_owned())));
        assert_eq!(known.destination("b"), Some(Destination::Upstream("b".to_owned())));
        assert_eq!(known.destination("c"), Some(Destination::Host { host: "c".to_owned(), port: 80 }));
        known.follow(Names { services: BTreeSet::new(), upstreams: ["a".to_owned()].into() });
        assert_eq!(known.destination("a"), Some(Destination::Upstream("a".to_owned())));
    }
}
