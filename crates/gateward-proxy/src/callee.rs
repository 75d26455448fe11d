//! Where calls of the gateway's own go: services and upstreams of the plan being served, with the health, weights, names
//! and TLS that requests have.
//!
//! Callers are on the control side. They share the health of targets with the workers, and have one balancer per
//! upstream for themselves, behind a lock that no worker takes. How many tries there are, and what is spoken on the connection,
//! is the caller's business. Where the number of an upstream's requests is limited, calls are among them.

use crate::health::{Attempt, Member, UpstreamHealth};
use crate::node::Node;
use crate::plan::{Plan, UpstreamPlan};
use crate::protection::CallPlace;
use crate::server_name::bare_host;
use crate::upstreams::{algorithm, specs};
use gateward_balance::{Balancer, Ticket};
use gateward_model::{EntityId, Protocol, Service};
use gateward_net::tls::{Client, Offer};
use gateward_net::{Resolver, monotonic_us};
use rustc_hash::FxHashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Tries and time to connect where no service says them: Kong's defaults for services.
const RETRIES: u16 = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// While shares of targets grow they are computed again after this time.
const WEIGH_AFTER_US: u64 = 1_000_000;

/// Whom to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalleeName<'a> {
    /// A service by name: its upstream or host, its TLS settings, its protocol.
    Service(&'a str),
    /// An upstream by name, in the clear.
    Upstream(&'a str),
    /// Any host, in the clear.
    Host(&'a str, u16),
}

/// Why nobody can be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalleeError {
    /// The configuration has no such service or upstream, or none that takes calls.
    #[error("there is no service or upstream '{0}' that can be called")]
    Unknown(String),
    /// All targets are unhealthy or have no weight.
    #[error("no target of '{0}' can be asked")]
    NoTarget(String),
    /// As many requests are under way there as its circuit breaker admits.
    #[error("'{0}' has as many requests under way as its circuit breaker admits")]
    Full(String),
    /// A name has no address.
    #[error("name resolution failed for '{0}'")]
    Unresolved(String),
    /// Calls have no client to announce.
    #[error("service '{0}' wants PROXY headers, which calls of the gateway's own do not have")]
    ProxyProtocol(String),
    /// The node is being torn down.
    #[error("the node is stopping")]
    Stopping,
}

/// Finds callees. One per node.
pub struct Callees {
    node: Weak<Node>,
    resolver: Mutex<Resolver>,
    directory: Mutex<Arc<Directory>>,
    upstreams: Mutex<FxHashMap<EntityId, Arc<Mutex<Balanced>>>>,
}

/// An address to call, counted as in use while this exists.
pub struct Callee {
    /// Where it is.
    pub address: SocketAddr,
    /// Whom it is asked for, with the port if it is not the protocol's own.
    pub authority: String,
    /// The name in TLS: the host without a port.
    pub server_name: String,
    /// How it is spoken to over TLS; `None`: in the clear.
    pub tls: Option<Arc<Client>>,
    /// What it may choose from; in the clear what is spoken.
    pub offer: Offer,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// Others to try when it cannot be connected to.
    pub retries: u16,
    share: Option<Share>,
}

/// The services and upstreams of one plan. It does not hold the plan: that would hold plugins which hold this.
#[derive(Default)]
struct Directory {
    /// `None`: of no plan yet.
    generation: Option<u64>,
    services: FxHashMap<String, Way>,
    upstreams: FxHashMap<String, Arc<UpstreamPlan>>,
}

/// How a service is called.
#[derive(Clone)]
struct Way {
    leads: Leads,
    tls: Option<Arc<Client>>,
    offer: Offer,
    connect_timeout: Duration,
    retries: u16,
    proxy_protocol: bool,
}

#[derive(Clone)]
enum Leads {
    Upstream(Arc<UpstreamPlan>),
    Host(String, u16),
}

/// An upstream as calls are spread over it.
struct Balanced {
    health: Arc<UpstreamHealth>,
    balancer: Balancer,
    /// Changes of health that the shares take account of.
    weighed: u64,
    weighed_at_us: u64,
    ramping: bool,
}

/// A target's part of a call.
struct Share {
    balanced: Arc<Mutex<Balanced>>,
    health: Arc<UpstreamHealth>,
    target: Member,
    ticket: Ticket,
    began_us: u64,
    latency_us: Option<u64>,
    _place: Option<CallPlace>,
}

impl Callees {
    /// Callees of what `node` serves, whichever configuration that is.
    pub fn new(node: &Arc<Node>) -> Self {
        Self {
            node: Arc::downgrade(node),
            resolver: Mutex::new(Resolver::new(node.names.clone())),
            directory: Mutex::default(),
            upstreams: Mutex::default(),
        }
    }

    /// Whom to call next, if possible none of those `tried`. `grpc`: HTTP/2 is a must. Waits until names that were never
    /// looked up have been; how long is the caller's business.
    ///
    /// # Errors
    /// Nobody can be called.
    pub async fn find(&self, name: CalleeName<'_>, grpc: bool, tried: &[SocketAddr]) -> Result<Callee, CalleeError> {
        let way = self.way(name)?;
        let (address, host, share) = match &way.leads {
            Leads::Host(host, port) => (self.resolve(host, *port, tried).await?, host.clone(), None),
            Leads::Upstream(plan) => {
                let share = self.share(plan, tried).await?;
                let host = plan.entity.host_header.as_deref().unwrap_or_else(|| share.target.host()).to_owned();
                (share.target.address, host, Some(share))
            }
        };
        let port = address.port();
        let default_port = if way.tls.is_some() { 443 } else { 80 };
        // An upstream's `host_header` may bring a port of its own.
        let own_port = host.rsplit_once(':').is_some_and(|(front, _)| !front.contains(':'));
        let authority = match host.contains(':') && !own_port && !host.starts_with('[') {
            true => format!("[{host}]"),
            false => host.clone(),
        };
        let authority = if port == default_port || own_port { authority } else { format!("{authority}:{port}") };
        Ok(Callee {
            address,
            authority,
            server_name: bare_host(&host).to_owned(),
            tls: way.tls,
            offer: if grpc { Offer::Http2 } else { way.offer },
            connect_timeout: way.connect_timeout,
            retries: way.retries,
            share,
        })
    }

    fn way(&self, name: CalleeName<'_>) -> Result<Way, CalleeError> {
        let unknown = |name: &str| CalleeError::Unknown(name.to_owned());
        match name {
            CalleeName::Service(name) => {
                let way = self.directory()?.services.get(name).cloned().ok_or_else(|| unknown(name))?;
                if way.proxy_protocol { Err(CalleeError::ProxyProtocol(name.to_owned())) } else { Ok(way) }
            }
            CalleeName::Upstream(name) => {
                let plan = self.directory()?.upstreams.get(name).cloned().ok_or_else(|| unknown(name))?;
                Ok(Way::in_the_clear(Leads::Upstream(plan)))
            }
            CalleeName::Host(host, port) => Ok(Way::in_the_clear(Leads::Host(host.to_owned(), port))),
        }
    }

    /// What the plan being served has.
    fn directory(&self) -> Result<Arc<Directory>, CalleeError> {
        let node = self.node.upgrade().ok_or(CalleeError::Stopping)?;
        let mut directory = lock(&self.directory);
        if directory.generation != Some(node.generation()) {
            let made = Directory::of(&node.plan());
            let there: Vec<EntityId> = made.upstreams.values().map(|plan| plan.entity.id).collect();
            lock(&self.upstreams).retain(|id, _| there.contains(id));
            *directory = Arc::new(made);
        }
        Ok(directory.clone())
    }

    async fn resolve(&self, host: &str, port: u16, tried: &[SocketAddr]) -> Result<SocketAddr, CalleeError> {
        let unresolved = || CalleeError::Unresolved(host.to_owned());
        loop {
            let name = {
                let resolver = lock(&self.resolver);
                if let Some(found) = resolver.at_hand(host, port, |address| tried.contains(&address)) {
                    return found.map_err(|_| unresolved());
                }
                resolver.learn(host).ok_or_else(unresolved)?
            };
            name.wait().await;
        }
    }

    /// A target of an upstream, as soon as the names of its targets have been looked up.
    async fn share(&self, plan: &Arc<UpstreamPlan>, tried: &[SocketAddr]) -> Result<Share, CalleeError> {
        loop {
            let health = self.health(plan)?;
            let mut renewed = health.renewed();
            let name = || plan.entity.name.clone();
            let place = self.admit(plan)?.ok_or_else(|| CalleeError::Full(name()))?;
            if let Some(share) = self.pick(plan, self.health(plan)?, tried, place) {
                return Ok(share);
            }
            if !health.is_pending() {
                let nobody = health.is_unresolved();
                return Err(if nobody { CalleeError::Unresolved(name()) } else { CalleeError::NoTarget(name()) });
            }
            drop(health);
            renewed.changed().await.map_err(|_| CalleeError::Unresolved(name()))?;
        }
    }

    fn health(&self, plan: &UpstreamPlan) -> Result<Arc<UpstreamHealth>, CalleeError> {
        let node = self.node.upgrade().ok_or(CalleeError::Stopping)?;
        node.health.upstream(plan.entity.id).ok_or_else(|| CalleeError::Unknown(plan.entity.name.clone()))
    }

    fn admit(&self, plan: &UpstreamPlan) -> Result<Option<Option<CallPlace>>, CalleeError> {
        let node = self.node.upgrade().ok_or(CalleeError::Stopping)?;
        Ok(node.protections.admit_call(plan.entity.id, plan.entity.resilience.as_ref()))
    }

    fn pick(
        &self,
        plan: &Arc<UpstreamPlan>,
        health: Arc<UpstreamHealth>,
        tried: &[SocketAddr],
        place: Option<CallPlace>,
    ) -> Option<Share> {
        let balanced = {
            let mut upstreams = lock(&self.upstreams);
            let make = || Arc::new(Mutex::new(Balanced::new(plan, health.clone())));
            upstreams.entry(plan.entity.id).or_insert_with(make).clone()
        };
        let now_us = monotonic_us();
        let (target, ticket) = {
            let mut balanced = lock(&balanced);
            balanced.follow(plan, &health, now_us);
            let (index, ticket) = balanced.pick(tried, now_us)?;
            balanced.balancer.started(ticket, now_us);
            (health.members().get(index)?.clone(), ticket)
        };
        Some(Share { balanced, health, target, ticket, began_us: now_us, latency_us: None, _place: place })
    }
}

impl Callee {
    /// It answered with this HTTP status.
    pub fn answered(&mut self, status: u16) {
        if let Some(share) = &mut self.share {
            share.latency_us = Some(monotonic_us().saturating_sub(share.began_us));
            share.report(Attempt::Status(status));
        }
    }

    /// It could not be connected to, or the connection broke before there was an answer.
    pub fn broke(&mut self) {
        if let Some(share) = &self.share {
            share.report(Attempt::Broken);
        }
    }
}

impl Share {
    fn report(&self, attempt: Attempt) {
        self.health.report(&self.target.health, &self.target.name, attempt);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        lock(&self.balanced).balancer.finished(self.ticket, self.latency_us, monotonic_us());
    }
}

impl Directory {
    fn of(plan: &Plan) -> Self {
        let upstreams: FxHashMap<String, Arc<UpstreamPlan>> =
            plan.upstreams.iter().map(|upstream| (upstream.entity.name.clone(), upstream.clone())).collect();
        let mut services = FxHashMap::default();
        for service in plan.snapshot.config.services.iter().filter(|service| service.enabled) {
            let (Some(name), Some(offer)) = (&service.name, offer(service)) else { continue };
            let leads = match upstreams.get(&service.host) {
                Some(upstream) => Leads::Upstream(upstream.clone()),
                None => Leads::Host(service.host.clone(), service.port),
            };
            let way = Way {
                leads,
                tls: plan.tls.client(service.id),
                offer,
                connect_timeout: Duration::from_millis(u64::from(service.connect_timeout)),
                retries: service.retries,
                proxy_protocol: service.proxy_protocol.is_some(),
            };
            services.insert(name.clone(), way);
        }
        Self { generation: Some(plan.snapshot.generation), services, upstreams }
    }
}

impl Way {
    fn in_the_clear(leads: Leads) -> Self {
        let (connect_timeout, retries) = (CONNECT_TIMEOUT, RETRIES);
        Self { leads, tls: None, offer: Offer::Http1, connect_timeout, retries, proxy_protocol: false }
    }
}

/// What is spoken to a service; `None`: nothing that carries calls.
fn offer(service: &Service) -> Option<Offer> {
    match service.protocol {
        Protocol::Grpc | Protocol::Grpcs => Some(Offer::Http2),
        Protocol::Https if service.http2 == Some(true) => Some(Offer::Either),
        Protocol::Http | Protocol::Https | Protocol::Ws | Protocol::Wss => Some(Offer::Http1),
        Protocol::Tcp | Protocol::Tls | Protocol::Udp | Protocol::TlsPassthrough => None,
    }
}

impl Balanced {
    fn new(plan: &UpstreamPlan, health: Arc<UpstreamHealth>) -> Self {
        let (specs, ramping) = specs(plan, health.members(), &health);
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let balancer = Balancer::new(algorithm(plan), &specs, seed);
        Self { weighed: health.changes(), weighed_at_us: monotonic_us(), health, balancer, ramping }
    }

    /// Follow changes of the configuration, of names, and of shares that grow.
    fn follow(&mut self, plan: &UpstreamPlan, health: &Arc<UpstreamHealth>, now_us: u64) {
        let changed = !Arc::ptr_eq(&self.health, health);
        let returned = health.slow_start().is_some() && health.changes() != self.weighed;
        let grown = self.ramping && now_us.saturating_sub(self.weighed_at_us) >= WEIGH_AFTER_US;
        if changed || returned || grown {
            (self.weighed, self.weighed_at_us) = (health.changes(), now_us);
            self.health = health.clone();
            let (specs, ramping) = specs(plan, health.members(), health);
            self.ramping = ramping;
            self.balancer.update(algorithm(plan), &specs);
        }
    }

    /// As for a request: an outlier only where there is nobody else.
    fn pick(&mut self, tried: &[SocketAddr], now_us: u64) -> Option<(usize, Ticket)> {
        if self.health.is_short() {
            return None;
        }
        let members = self.health.members();
        let excluded: Vec<usize> =
            (0..members.len()).filter(|index| tried.contains(&members[*index].address)).collect();
        let available = |index: usize| members.get(index).is_some_and(|target| target.health.is_available());
        let healthy = |index: usize| members.get(index).is_some_and(|target| target.health.is_healthy());
        let ticket = match self.balancer.pick(None, &excluded, available, now_us) {
            Some(ticket) => ticket,
            None => self.balancer.pick(None, &excluded, healthy, now_us)?,
        };
        Some((ticket.index(), ticket))
    }
}

/// Nothing that holds these locks leaves things half done.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::protection::Protection;
    use crate::testing::{local, plan};
    use gateward_net::dns::{DnsSettings, Names};
    use gateward_telemetry::{Limits, Telemetry};
    use std::collections::BTreeMap;

    fn node(config: &str) -> (Arc<Node>, Callees) {
        let (settings, telemetry) = (Settings::default(), Telemetry::new(1, Limits::default()));
        let plan = plan(&format!("_format_version: '3.0'\n{config}"), 1, &settings, &telemetry);
        let dns = DnsSettings { servers: vec![([127, 0, 0, 1], 1).into()], ..settings.dns.clone() };
        let names = Names::new(dns, tokio::runtime::Handle::current()).unwrap();
        let node = Node::new(settings, telemetry, None, names, plan);
        let callees = Callees::new(&node);
        (node, callees)
    }

    const UPSTREAM: &str = "upstreams:\n- {name: u, targets: [{target: '10.0.0.1:1', weight: 30}, {target: '10.0.0.2:2', weight: 10}, {target: '10.0.0.3:3', weight: 0}]}\n";

    async fn ports(callees: &Callees, name: CalleeName<'_>, calls: usize) -> BTreeMap<u16, usize> {
        let mut ports = BTreeMap::new();
        for _ in 0..calls {
            let callee = callees.find(name, false, &[]).await.unwrap();
            *ports.entry(callee.address.port()).or_default() += 1;
        }
        ports
    }

    #[test]
    fn calls_go_to_healthy_targets_by_their_weights() {
        local(async {
            let (node, callees) = node(&format!("{UPSTREAM}services:\n- {{name: s, host: u}}\n"));
            for name in [CalleeName::Upstream("u"), CalleeName::Service("s")] {
                assert_eq!(ports(&callees, name, 40).await, BTreeMap::from([(1, 30), (2, 10)]));
            }
            let health = node.health.upstream(node.plan().upstreams[0].entity.id).unwrap();
            health.set("10.0.0.1:1", None, false);
            assert_eq!(ports(&callees, CalleeName::Service("s"), 40).await, BTreeMap::from([(2, 40)]));
            health.set("10.0.0.2:2", None, false);
            let nobody = callees.find(CalleeName::Service("s"), false, &[]).await.err();
            assert_eq!(nobody, Some(CalleeError::NoTarget("u".to_owned())));
            health.set("10.0.0.1:1", None, true);
            assert_eq!(ports(&callees, CalleeName::Service("s"), 4).await, BTreeMap::from([(1, 4)]));
        });
    }

    #[test]
    fn calls_are_among_the_requests_that_a_circuit_breaker_counts() {
        local(async {
            let limited = |breaker: &str| {
                let resilience = format!("name: u, resilience: {{circuit_breaker: {{{breaker}}}}},");
                UPSTREAM.replace("name: u,", &resilience)
            };
            let full = Some(CalleeError::Full("u".to_owned()));
            let (node, callees) = node(&limited("max_requests: 2, max_pending: 1"));
            let find = async || callees.find(CalleeName::Upstream("u"), false, &[]).await;
            let (first, second) = (find().await.unwrap(), find().await.unwrap());
            assert_eq!(find().await.err(), full);
            drop(first);
            let third = find().await.unwrap();
            drop((second, third));
            // What a request takes is not there for a call, and calls do not overtake requests that wait.
            let plan = node.plan();
            let (id, rules) = (plan.upstreams[0].entity.id, plan.upstreams[0].entity.resilience.clone());
            let protection = Protection::new(rules.as_ref(), id, &node.protections, None).unwrap();
            let places = [protection.enter(0).await.unwrap(), protection.enter(0).await.unwrap()];
            assert_eq!(find().await.err(), full);
            let waiting = protection.clone();
            let waiting = tokio::task::spawn_local(async move { waiting.enter(60_000).await.map(drop).is_ok() });
            tokio::task::yield_now().await;
            let [one, other] = places;
            assert_eq!(find().await.err(), full);
            drop(one);
            assert!(waiting.await.unwrap());
            drop(other);
            let taken = (find().await.unwrap(), find().await.unwrap());
            assert!(protection.enter(0).await.is_err(), "nor for a request what calls take");
            drop(taken);
            // Nothing else is limited.
            node.swap(plan_of(&limited("max_connections: 1"), 2, &node));
            let many = (find().await.unwrap(), find().await.unwrap(), find().await.unwrap());
            drop(many);
        });
    }

    fn plan_of(config: &str, generation: u64, node: &Node) -> Plan {
        plan(&format!("_format_version: '3.0'\n{config}"), generation, &Settings::default(), &node.telemetry)
    }

    #[test]
    fn a_try_that_failed_goes_elsewhere() {
        local(async {
            let (_node, callees) = node(UPSTREAM);
            for _ in 0..10 {
                let first = callees.find(CalleeName::Upstream("u"), false, &[]).await.unwrap().address;
                let second = callees.find(CalleeName::Upstream("u"), false, &[first]).await.unwrap().address;
                assert_ne!(first, second);
            }
        });
    }

    #[test]
    fn what_calls_say_counts_for_the_health_of_targets() {
        local(async {
            let checks =
                "healthchecks: {passive: {unhealthy: {http_failures: 2, http_statuses: [500], tcp_failures: 2}}}";
            let (_node, callees) = node(&UPSTREAM.replace("name: u,", &format!("name: u, {checks},")));
            for tell in [|callee: &mut Callee| callee.answered(500), |callee: &mut Callee| callee.broke()] {
                let mut callee = callees.find(CalleeName::Upstream("u"), false, &[]).await.unwrap();
                tell(&mut callee);
                tell(&mut callee);
                let share = callee.share.as_ref().unwrap();
                assert!(!share.target.health.is_healthy());
            }
            let nobody = callees.find(CalleeName::Upstream("u"), false, &[]).await.err();
            assert_eq!(nobody, Some(CalleeError::NoTarget("u".to_owned())));
        });
    }

    #[test]
    fn services_say_what_is_spoken_and_under_which_name() {
        local(async {
            let config = "upstreams:\n- {name: h, host_header: 'b.test:99', targets: [{target: '10.0.0.1:443'}]}\nservices:\n\
                - {name: plain, url: 'http://10.0.0.1:8080'}\n- {name: six, url: 'http://[::1]:80'}\n\
                - {name: secure, url: 'https://10.0.0.1'}\n- {name: either, url: 'https://10.0.0.1', http2: true}\n\
                - {name: hosted, url: 'https://h'}\n- {name: calls, url: 'grpc://10.0.0.1:50051'}\n\
                - {name: off, url: 'http://10.0.0.1', enabled: false}\n- {name: raw, host: 10.0.0.1, port: 9, protocol: tcp}\n\
                - {name: told, url: 'http://10.0.0.1', proxy_protocol: v2}\n";
            let (_node, callees) = node(config);
            let found = async |name| {
                let callee = callees.find(CalleeName::Service(name), false, &[]).await?;
                Ok((callee.authority.clone(), callee.server_name.clone(), callee.tls.is_some(), callee.offer))
            };
            for (name, authority, server_name, tls, offer) in [
                ("plain", "10.0.0.1:8080", "10.0.0.1", false, Offer::Http1),
                ("six", "[::1]", "::1", false, Offer::Http1),
                ("secure", "10.0.0.1", "10.0.0.1", true, Offer::Http1),
                ("either", "10.0.0.1", "10.0.0.1", true, Offer::Either),
                ("hosted", "b.test:99", "b.test", true, Offer::Http1),
                ("calls", "10.0.0.1:50051", "10.0.0.1", false, Offer::Http2),
            ] {
                let expected = (authority.to_owned(), server_name.to_owned(), tls, offer);
                assert_eq!(found(name).await, Ok(expected), "{name}");
            }
            for name in ["off", "raw", "h"] {
                assert_eq!(found(name).await, Err(CalleeError::Unknown(name.to_owned())));
            }
            assert_eq!(found("told").await, Err(CalleeError::ProxyProtocol("told".to_owned())));
            let grpc = callees.find(CalleeName::Service("plain"), true, &[]).await.unwrap();
            assert_eq!(grpc.offer, Offer::Http2);
            assert!(callees.find(CalleeName::Host("127.0.0.1", 5), false, &[]).await.is_ok());
        });
    }

    #[test]
    fn the_configuration_being_served_is_the_one_that_counts() {
        local(async {
            let (node, callees) = node(UPSTREAM);
            assert_eq!(ports(&callees, CalleeName::Upstream("u"), 4).await.len(), 2);
            let next = "_format_version: '3.0'\nupstreams:\n- {name: u, targets: [{target: '10.0.0.9:9'}]}\n";
            node.swap(plan(next, 2, &Settings::default(), &node.telemetry));
            assert_eq!(ports(&callees, CalleeName::Upstream("u"), 4).await, BTreeMap::from([(9, 4)]));
            node.swap(plan("_format_version: '3.0'\n", 3, &Settings::default(), &node.telemetry));
            let gone = callees.find(CalleeName::Upstream("u"), false, &[]).await.err();
            assert_eq!(gone, Some(CalleeError::Unknown("u".to_owned())));
            assert!(lock(&callees.upstreams).is_empty());
        });
    }
}
