//! Names of services and targets to addresses, through the system's resolver.
//!
//! Answers are kept per worker. While an answer is fresh it costs a map look-up; when it is stale it is still
//! used while one look-up runs in the background; only the very first use of a name waits. A failed refresh keeps
//! the last answer, a failed first look-up is remembered briefly. However many requests need a name, one look-up
//! of it is under way, so that a dead name does not cause a storm. How long to wait is the caller's to decide.

use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::watch;

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
}

/// Where the answer of a look-up under way appears.
type Pending = watch::Receiver<Option<Rc<Answer>>>;

/// The names one worker knows.
#[derive(Debug, Default)]
pub struct Resolver {
    names: RefCell<FxHashMap<String, Rc<Answer>>>,
    /// Look-ups under way; no more than the configuration has names.
    pending: RefCell<FxHashMap<String, Pending>>,
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
            _ => self.wait_for(host, now_ms).await.ok_or_else(|| ResolveError { name: host.to_owned() })?,
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
        if now_ms.saturating_sub(answer.at_ms) >= FRESH_MS && !answer.addresses.is_empty() {
            self.begin(host, now_ms);
        }
    }

    /// `None` only when the runtime ends meanwhile.
    async fn wait_for(self: &Rc<Self>, host: &str, now_ms: u64) -> Option<Rc<Answer>> {
        let mut pending = self.begin(host, now_ms);
        pending.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// The look-up of `host` that is under way, or a new one. It goes on when nobody waits for it any more.
    fn begin(self: &Rc<Self>, host: &str, now_ms: u64) -> Pending {
        let mut pending = self.pending.borrow_mut();
        if let Some(pending) = pending.get(host) {
            return pending.clone();
        }
        let (sender, receiver) = watch::channel(None);
        pending.insert(host.to_owned(), receiver.clone());
        let (resolver, host) = (self.clone(), host.to_owned());
        tokio::task::spawn_local(async move {
            let answer = resolver.look_up(&host, now_ms).await;
            resolver.pending.borrow_mut().remove(&host);
            sender.send_replace(Some(answer));
        });
        receiver
    }

    async fn look_up(&self, host: &str, now_ms: u64) -> Rc<Answer> {
        let began = Instant::now();
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
        // The age counts from the end: a look-up that took long to fail has failed just now.
        let at_ms = now_ms.saturating_add(began.elapsed().as_millis() as u64);
        let answer = Rc::new(Answer { addresses, at_ms, next: Cell::new(0) });
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
            let failed_at = resolver.names.borrow()["no-such-host.invalid"].at_ms;
            assert!(resolver.names.borrow()["no-such-host.invalid"].is_usable(failed_at + FAILED_MS - 1));
            assert!(!resolver.names.borrow()["no-such-host.invalid"].is_usable(failed_at + FAILED_MS));
        });
    }

    #[test]
    fn one_look_up_serves_everybody_who_waits() {
        local(async {
            let resolver = Rc::new(Resolver::default());
            let (first, second) = (resolver.begin("localhost", 0), resolver.begin("localhost", 5));
            assert_eq!(resolver.pending.borrow().len(), 1);
            assert!(first.same_channel(&second));
            assert!(resolver.resolve("localhost", 80, 0).await.is_ok());
            assert!(resolver.pending.borrow().is_empty());
        });
    }
}
