//! A worker's view of names: which of a name's addresses the next connection goes to.
//!
//! A name that is known costs a map look-up and a pointer's load: no lock, no clock, no waiting, however old the
//! answer. Only what was never looked up is waited for, by everybody who needs it together; how long is the caller's
//! to decide. Addresses take turns, by their weights where SRV records say some, and a retry goes to another one.

use crate::dns::{Answer, Name, Names};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

/// Names a worker remembers; beyond that it starts again.
const NAMES: usize = 10_000;

/// A name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("name resolution failed for '{name}'")]
pub struct ResolveError {
    /// The name asked for.
    pub name: String,
}

/// The names one worker uses.
#[derive(Debug)]
pub struct Resolver {
    names: Arc<Names>,
    known: RefCell<FxHashMap<Box<str>, Known>>,
}

/// A name and whose turn it is.
#[derive(Debug)]
struct Known {
    name: Arc<Name>,
    turns: Option<Turns>,
}

/// Turns of an answer's places, in the smooth weighted order of nginx.
#[derive(Debug)]
struct Turns {
    answer: Arc<Answer>,
    /// Who has waited longest for its share, highest first.
    credit: Vec<i64>,
}

impl Resolver {
    /// Names are looked up by `names`.
    pub fn new(names: Arc<Names>) -> Self {
        Self { names, known: RefCell::default() }
    }

    /// Where `host` leads, taking turns when it has several addresses. `port` is for addresses that have none of their
    /// own. IP literals (IPv6 also in brackets) need no look-up.
    ///
    /// # Errors
    /// When the name has no address.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<SocketAddr, ResolveError> {
        match self.at_hand(host, port, |_| false) {
            Some(found) => found,
            None => self.wait(host, port).await,
        }
    }

    /// Likewise, if it takes no waiting; not to an address that `tried` knows, unless there are no others.
    pub fn at_hand(
        &self,
        host: &str,
        port: u16,
        tried: impl Fn(SocketAddr) -> bool,
    ) -> Option<Result<SocketAddr, ResolveError>> {
        if let Some(literal) = literal(host) {
            return Some(Ok(SocketAddr::new(literal, port)));
        }
        let mut known = self.known.borrow_mut();
        let entry = known.get_mut(host)?;
        if entry.name.is_gone() {
            known.remove(host);
            return None;
        }
        entry.name.want();
        let turns = entry.turns()?;
        Some(turns.next(port, tried).ok_or_else(|| ResolveError { name: host.to_owned() }))
    }

    /// Where `host` leads, when it was looked up.
    ///
    /// # Errors
    /// When the name has no address, or too many names are being looked up.
    pub async fn wait(&self, host: &str, port: u16) -> Result<SocketAddr, ResolveError> {
        let failed = || ResolveError { name: host.to_owned() };
        loop {
            let name = self.learn(host).ok_or_else(failed)?;
            // Gone: it was forgotten just now, and is asked for anew.
            if name.wait().await.is_some()
                && let Some(found) = self.at_hand(host, port, |_| false)
            {
                return found;
            }
            self.known.borrow_mut().remove(host);
        }
    }

    /// The name that `host` is, for [`Self::at_hand`] once it was looked up; `None`: too many names are known. Whoever shares
    /// a resolver between tasks waits for the name without holding the resolver.
    pub fn learn(&self, host: &str) -> Option<Arc<Name>> {
        let name = self.names.name(host)?;
        let mut known = self.known.borrow_mut();
        if known.len() >= NAMES {
            known.clear();
        }
        known.entry(host.into()).or_insert_with(|| Known { name: name.clone(), turns: None });
        Some(name)
    }
}

impl Known {
    /// Turns of what is known now; `None`: nothing is.
    fn turns(&mut self) -> Option<&mut Turns> {
        if !self.turns.as_ref().is_some_and(|turns| self.name.is_current(&turns.answer)) {
            self.turns = self.name.answer().map(Turns::of);
        }
        self.turns.as_mut()
    }
}

impl Turns {
    fn of(answer: Arc<Answer>) -> Self {
        let credit = vec![0; answer.endpoints().len()];
        Self { answer, credit }
    }

    fn next(&mut self, port: u16, tried: impl Fn(SocketAddr) -> bool) -> Option<SocketAddr> {
        self.choose(port, |address| !tried(address)).or_else(|| self.choose(port, |_| true))
    }

    fn choose(&mut self, port: u16, usable: impl Fn(SocketAddr) -> bool) -> Option<SocketAddr> {
        let mut best: Option<(usize, SocketAddr)> = None;
        let mut total = 0;
        for (index, endpoint) in self.answer.endpoints().iter().enumerate() {
            let address = SocketAddr::new(endpoint.ip, endpoint.port.map_or(port, NonZeroU16::get));
            if !usable(address) {
                continue;
            }
            let weight = i64::from(endpoint.weight.map_or(1, NonZeroU16::get));
            total += weight;
            self.credit[index] += weight;
            if best.is_none_or(|(other, _)| self.credit[index] > self.credit[other]) {
                best = Some((index, address));
            }
        }
        let (index, address) = best?;
        self.credit[index] -= total;
        Some(address)
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
    use crate::dns::{DnsSettings, Endpoint};
    use std::path::PathBuf;
    use std::rc::Rc;
    use tokio::runtime::Handle;

    fn local(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    fn resolver() -> (Resolver, Arc<Names>) {
        // Nothing listens there, and nothing has to: these tests ask nobody.
        let settings = DnsSettings { servers: vec!["127.0.0.1:1".parse().unwrap()], ..DnsSettings::default() };
        let names = Names::new(settings, Handle::current()).unwrap();
        (Resolver::new(names.clone()), names)
    }

    #[test]
    fn literals_need_no_look_up() {
        local(async {
            let (resolver, names) = resolver();
            for (host, expected) in [("127.0.0.1", "127.0.0.1:80"), ("[::1]", "[::1]:80"), ("::1", "[::1]:80")] {
                assert_eq!(resolver.resolve(host, 80).await.unwrap(), expected.parse().unwrap());
            }
            assert_eq!(names.counts(), crate::dns::NameCounts::default());
        });
    }

    #[test]
    fn localhost_resolves_and_stays_known() {
        local(async {
            let (resolver, names) = resolver();
            assert!(resolver.at_hand("localhost", 8000, |_| false).is_none());
            let address = resolver.resolve("localhost", 8000).await.unwrap();
            assert!(address.ip().is_loopback());
            assert_eq!(resolver.at_hand("localhost", 8000, |_| false), Some(Ok(address)));
            assert_eq!(names.counts().fresh, 1);
        });
    }

    #[test]
    fn a_name_that_does_not_exist_fails_and_the_failure_is_remembered() {
        local(async {
            let (resolver, names) = resolver();
            let host = "no-such-host.invalid.";
            let error = resolver.resolve(host, 80).await.unwrap_err();
            assert_eq!(error.name, host);
            assert_eq!(resolver.at_hand(host, 80, |_| false), Some(Err(error)));
            assert_eq!(names.stats().not_found.load(std::sync::atomic::Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn one_look_up_serves_everybody_who_waits() {
        local(async {
            let (resolver, names) = resolver();
            let resolver = Rc::new(resolver);
            let waits: Vec<_> = (0..20)
                .map(|_| {
                    let resolver = resolver.clone();
                    tokio::task::spawn_local(async move { resolver.resolve("localhost", 80).await })
                })
                .collect();
            for wait in waits {
                assert!(wait.await.unwrap().is_ok());
            }
            assert_eq!(names.stats().found.load(std::sync::atomic::Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn names_beyond_the_limit_are_refused_unless_the_configuration_has_them() {
        local(async {
            let settings = DnsSettings {
                servers: vec!["127.0.0.1:1".parse().unwrap()],
                hosts_file: PathBuf::from("/nonexistent"),
                cache_size: 1,
                ..DnsSettings::default()
            };
            let names = Names::new(settings, Handle::current()).unwrap();
            names.hold(["a.localhost", "b.localhost"]);
            let first = names.name("c.localhost").unwrap();
            first.want();
            assert!(first.wait().await.is_some());
            first.want();
            assert!(names.name("d.localhost").is_none());
            assert!(names.name("a.localhost").is_some());
            assert_eq!(names.stats().refused.load(std::sync::atomic::Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn places_take_turns_by_weight_and_a_retry_goes_elsewhere() {
        let endpoint = |last: u8, port: u16, weight: u16| Endpoint {
            ip: IpAddr::from([10, 0, 0, last]),
            port: NonZeroU16::new(port),
            weight: NonZeroU16::new(weight),
            host: None,
        };
        let mut turns =
            Turns::of(Arc::new(Answer::Found(vec![endpoint(1, 0, 0), endpoint(2, 0, 0), endpoint(3, 0, 0)].into())));
        let mut next = |tried: &[u8]| {
            let address =
                turns.next(80, |address| tried.iter().any(|last| address.ip() == IpAddr::from([10, 0, 0, *last])));
            match address.unwrap().ip() {
                IpAddr::V4(ip) => ip.octets()[3],
                IpAddr::V6(_) => 0,
            }
        };
        assert_eq!([next(&[]), next(&[]), next(&[]), next(&[])], [1, 2, 3, 1]);
        let (first, second) = (next(&[]), next(&[2]));
        assert!(first == 2 && second != 2);
        assert!(next(&[1, 2, 3]) > 0, "where all were tried, all may be tried again");

        let mut turns = Turns::of(Arc::new(Answer::Found(vec![endpoint(1, 81, 3), endpoint(2, 82, 1)].into())));
        let ports: Vec<u16> = (0..8).map(|_| turns.next(80, |_| false).unwrap().port()).collect();
        assert_eq!(ports, [81, 81, 82, 81, 81, 81, 82, 81]);
        assert!(Turns::of(Arc::new(Answer::Failed(crate::dns::Failure::Failed))).next(80, |_| false).is_none());
    }
}
