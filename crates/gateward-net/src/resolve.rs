//! Names of services and targets to addresses, through the system's resolver.
//!
//! Answers are kept per worker. While an answer is fresh it costs a map look-up; when it is stale it is still
//! used while one look-up runs in the background; only the very first use of a name waits. A failed refresh keeps
//! the last answer, a failed first look-up is remembered briefly so that a dead name does not cause a storm.

use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

/// Milliseconds an answer is fresh. The system's resolver does not tell TTLs.
const FRESH_MS: u64 = 30_000;
/// Milliseconds a failed look-up is remembered (Kong: `dns_error_ttl` 1 s).
const FAILED_MS: u64 = 1_000;
/// Names remembered per worker; beyond that the map starts again.
const NAMES: usize = 10_000;
/// Addresses used of one answer.
const ADDRESSES: usize = 64;

/// A name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("name resolution failed for '{name}'")]
pub struct ResolveError {
    /// The name asked for.
    pub name: String,
}

#[derive(Debug)]
struct Answer {
    addresses: Vec<IpAddr>,
    at_ms: u64,
    next: Cell<usize>,
    refreshing: Cell<bool>,
}

/// The names one worker knows.
#[derive(Debug, Default)]
pub struct Resolver {
    names: RefCell<FxHashMap<String, Rc<Answer>>>,
}

impl Resolver {
    /// An address for `host`, taking turns when it has several. IP literals (IPv6 also in brackets) need no look-up.
    ///
    /// # Errors
    /// When the name has no address and never had one.
    pub async fn resolve(self: &Rc<Self>, host: &str, port: u16, now_ms: u64) -> Result<SocketAddr, ResolveError> {
        if let Some(literal) = literal(host) {
            return Ok(SocketAddr::new(literal, port));
        }
        let known = self.names.borrow().get(host).cloned();
        let answer = match known {
            Some(answer) if answer.is_usable(now_ms) => {
                self.refresh_when_stale(host, &answer, now_ms);
                answer
            }
            _ => self.look_up(host, now_ms).await,
        };
        let turn = answer.next.get();
        answer.next.set(turn.wrapping_add(1));
        answer
            .addresses
            .get(turn % answer.addresses.len().max(1))
            .map(|address| SocketAddr::new(*address, port))
            .ok_or_else(|| ResolveError { name: host.to_owned() })
    }

    fn refresh_when_stale(self: &Rc<Self>, host: &str, answer: &Answer, now_ms: u64) {
        if now_ms.saturating_sub(answer.at_ms) < FRESH_MS
            || answer.addresses.is_empty()
            || answer.refreshing.replace(true)
        {
            return;
        }
        let (resolver, host) = (self.clone(), host.to_owned());
        tokio::task::spawn_local(async move { resolver.look_up(&host, now_ms).await });
    }

    async fn look_up(&self, host: &str, now_ms: u64) -> Rc<Answer> {
        let found = tokio::net::lookup_host((host, 0)).await;
        let mut addresses: Vec<IpAddr> = match found {
            Ok(found) => found.map(|address| address.ip()).take(ADDRESSES).collect(),
            Err(error) => {
                tracing::warn!(name = host, %error, "name resolution failed");
                Vec::new()
            }
        };
        // Kong asks for A before AAAA (`dns_order`); use IPv6 only where there is no IPv4.
        if addresses.iter().any(IpAddr::is_ipv4) {
            addresses.retain(IpAddr::is_ipv4);
        }
        let mut names = self.names.borrow_mut();
        if addresses.is_empty()
            && let Some(previous) = names.get(host)
        {
            addresses.clone_from(&previous.addresses);
        }
        let answer = Rc::new(Answer { addresses, at_ms: now_ms, next: Cell::new(0), refreshing: Cell::new(false) });
        if names.len() >= NAMES {
            names.clear();
        }
        names.insert(host.to_owned(), answer.clone());
        answer
    }
}

impl Answer {
    /// A failure is used only while it is young; addresses are used however old, see the module's text.
    fn is_usable(&self, now_ms: u64) -> bool {
        !self.addresses.is_empty() || now_ms.saturating_sub(self.at_ms) < FAILED_MS
    }
}

/// The address when `host` is one.
pub fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn literals_need_no_look_up() {
        local(async {
            let resolver = Rc::new(Resolver::default());
            for (host, expected) in [("127.0.0.1", "127.0.0.1:80"), ("[::1]", "[::1]:80"), ("::1", "[::1]:80")] {
                assert_eq!(resolver.resolve(host, 80, 0).await.unwrap(), expected.parse().unwrap());
            }
        });
    }

    #[test]
    fn localhost_resolves_and_stays_known() {
        local(async {
            let resolver = Rc::new(Resolver::default());
            let address = resolver.resolve("localhost", 8000, 0).await.unwrap();
            assert!(address.ip().is_loopback());
            assert_eq!(resolver.resolve("localhost", 8000, FRESH_MS + 1).await.unwrap(), address);
        });
    }

    #[test]
    fn an_unknown_name_fails_and_the_failure_is_remembered_briefly() {
        local(async {
            let resolver = Rc::new(Resolver::default());
            let error = resolver.resolve("no-such-host.invalid", 80, 0).await.unwrap_err();
            assert_eq!(error.name, "no-such-host.invalid");
            assert!(resolver.names.borrow()["no-such-host.invalid"].is_usable(FAILED_MS - 1));
            assert!(!resolver.names.borrow()["no-such-host.invalid"].is_usable(FAILED_MS));
        });
    }
}
