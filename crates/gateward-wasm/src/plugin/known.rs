//! What filters may call: the snapshot's services and upstreams by name, and hosts that were allowed.

use super::Destination;
use crate::callout::Upstreams;
use gateward_model::{Config, Protocol};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Destinations by name.
#[derive(Debug, Default)]
pub(super) struct Known {
    by_name: BTreeMap<String, Vec<Destination>>,
    hosts: Vec<String>,
    turn: AtomicUsize,
}

/// A host without a port is called on this one.
const DEFAULT_PORT: u16 = 80;

impl Known {
    /// What a snapshot knows, and `hosts` as `host` or `host:port`.
    pub(super) fn of(config: &Config, hosts: &[String]) -> Self {
        let mut by_name: BTreeMap<String, Vec<Destination>> = BTreeMap::new();
        for upstream in &config.upstreams {
            let targets = config.targets.iter().filter(|target| target.upstream == upstream.id && target.weight > 0);
            let targets = targets.filter_map(|target| destination(&target.target));
            by_name.insert(upstream.name.clone(), targets.collect());
        }
        for service in config.services.iter().filter(|service| service.protocol == Protocol::Http) {
            let Some(name) = &service.name else { continue };
            let own = || vec![Destination { host: service.host.clone(), port: service.port }];
            let leads_to = by_name.get(&service.host).cloned().unwrap_or_else(own);
            by_name.entry(name.clone()).or_insert(leads_to);
        }
        Self { by_name, hosts: hosts.to_vec(), turn: AtomicUsize::new(0) }
    }

    /// A number over all of it.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.by_name.hash(&mut hasher);
        self.hosts.hash(&mut hasher);
        hasher.finish()
    }

    /// Where a callout to `name` goes now; targets take turns.
    pub(super) fn destination(&self, name: &str) -> Option<Destination> {
        if let Some(destinations) = self.by_name.get(name) {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            return destinations.get(turn % destinations.len().max(1)).cloned();
        }
        let asked = destination(name)?;
        let allowed =
            |host: &String| *host == asked.host || destination(host).as_ref() == Some(&asked) && host.contains(':');
        self.hosts.iter().any(allowed).then_some(asked)
    }
}

impl Upstreams for Known {
    fn knows(&self, upstream: &str) -> bool {
        self.destination(upstream).is_some()
    }
}

/// `host` or `host:port`, IPv6 in brackets.
fn destination(text: &str) -> Option<Destination> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, DEFAULT_PORT),
    };
    (!host.is_empty()).then(|| Destination { host: host.to_owned(), port })
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
            assert_eq!(known.destination(name).map(|destination| destination.port), port, "{name}");
        }
    }
}
