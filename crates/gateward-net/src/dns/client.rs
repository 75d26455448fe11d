//! One look-up: which names and kinds of records to ask for, in which order, and what the answers come to.
//!
//! What answered last time is asked first. Where that fails nothing else is tried: a server that is down for a moment
//! must not turn a name known by its SRV records into one known by its A records. That there are no such records is
//! an answer, and leads on to the next kind.

use super::course::{Endpoint, Outcome};
use super::hosts::Hosts;
use super::settings::{DnsError, DnsSettings, RecordKind};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Refusal, NetError};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use rustc_hash::FxHashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

/// Places used of one answer.
const ENDPOINTS: usize = 1_000;
/// Hosts of SRV records looked up at the same time, for one name.
const AT_ONCE: usize = 16;
/// How long what the hosts file says is used before it is looked at again.
const HOSTS_TTL: Duration = Duration::from_secs(5);
/// The port of DNS.
const PORT: u16 = 53;
/// Longest time of a look-up, whatever servers and search domains add up to.
const LOOK_UP: Duration = Duration::from_secs(30);

/// Asks.
pub(super) struct Client {
    resolver: TokioResolver,
    hosts: Hosts,
    order: Vec<RecordKind>,
    search: Vec<Name>,
    ndots: usize,
}

/// What earlier look-ups of a name found, for the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The full name and the kind that answered last.
    last: Option<(Name, RecordKind)>,
    /// Addresses of hosts that SRV records named.
    hosts: FxHashMap<Name, Vec<IpAddr>>,
}

/// What a question came to.
enum Reply {
    Found(Vec<Endpoint>, Duration),
    Nothing,
    Failed(String),
}

impl Client {
    /// # Errors
    /// When `resolv.conf` is there and cannot be used.
    pub(super) fn new(settings: &DnsSettings) -> Result<Self, DnsError> {
        let (config, options) = configuration(settings)?;
        let search = config.search().to_vec();
        let ndots = options.ndots;
        let resolver = Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| DnsError::Resolver(error.to_string()))?;
        let hosts = Hosts::new(settings.hosts_file.clone());
        Ok(Self { resolver, hosts, order: settings.order.clone(), search, ndots })
    }

    /// Look `host` up once.
    pub(super) async fn look_up(&self, host: &str, memory: &mut Memory) -> Outcome {
        if let Some(addresses) = self.hosts.addresses(host) {
            return Outcome::Found(addresses.into_iter().map(plain).collect(), HOSTS_TTL);
        }
        let Ok(name) = Name::from_ascii(host) else { return Outcome::NotFound };
        match tokio::time::timeout(LOOK_UP, self.ask(&name, memory)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed(format!("no answer within {} s", LOOK_UP.as_secs())),
        }
    }

    async fn ask(&self, name: &Name, memory: &mut Memory) -> Outcome {
        let last = memory.last.clone();
        let mut failed = None;
        for (name, kind) in questions(candidates(name, &self.search, self.ndots), &self.order, last.as_ref()) {
            let reply = match kind {
                RecordKind::Srv => self.services(&name, memory).await,
                RecordKind::Aaaa => self.addresses(&name, RecordType::AAAA).await,
                _ => self.addresses(&name, RecordType::A).await,
            };
            match reply {
                Reply::Found(endpoints, ttl) => {
                    if kind != RecordKind::Srv {
                        memory.hosts.clear();
                    }
                    memory.last = Some((name, kind));
                    return Outcome::Found(endpoints, ttl);
                }
                Reply::Nothing => {}
                Reply::Failed(reason) if last.as_ref().is_some_and(|last| *last == (name.clone(), kind)) => {
                    return Outcome::Failed(reason);
                }
                Reply::Failed(reason) => failed = failed.or(Some(reason)),
            }
        }
        failed.map_or(Outcome::NotFound, Outcome::Failed)
    }

    async fn addresses(&self, name: &Name, kind: RecordType) -> Reply {
        match self.resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => {
                let addresses = lookup.answers().iter().filter_map(|record| address(&record.data));
                let endpoints: Vec<Endpoint> = addresses.map(plain).take(ENDPOINTS).collect();
                if endpoints.is_empty() { Reply::Nothing } else { Reply::Found(endpoints, ttl(&lookup)) }
            }
            Err(error) => refused(&error),
        }
    }

    /// Hosts of the SRV records of least priority, with their ports and weights.
    async fn services(&self, name: &Name, memory: &mut Memory) -> Reply {
        let lookup = match self.resolver.lookup(name.clone(), RecordType::SRV).await {
            Ok(lookup) => lookup,
            Err(error) => return refused(&error),
        };
        let records = lookup.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(service) => Some(service),
            _ => None,
        });
        let services = preferred(records);
        if services.is_empty() {
            return Reply::Nothing;
        }
        let mut hosts = self.hosts_of(&services, &lookup).await;
        memory.hosts.retain(|host, _| hosts.contains_key(host));
        let mut least = ttl(&lookup);
        let mut failed = None;
        let mut endpoints = Vec::new();
        for service in services {
            let addresses = match hosts.remove(&service.target) {
                Some(Ok((addresses, ttl))) => {
                    least = least.min(ttl);
                    memory.hosts.insert(service.target.clone(), addresses);
                    memory.hosts.get(&service.target)
                }
                Some(Err(Some(reason))) => {
                    failed = Some(reason);
                    memory.hosts.get(&service.target)
                }
                Some(Err(None)) => {
                    memory.hosts.remove(&service.target);
                    None
                }
                // A host that several records name.
                None => memory.hosts.get(&service.target),
            };
            endpoints.extend(places(service, addresses.map_or(&[][..], Vec::as_slice)));
        }
        endpoints.truncate(ENDPOINTS);
        match (endpoints.is_empty(), failed) {
            (true, Some(reason)) => Reply::Failed(reason),
            (true, None) => Reply::Nothing,
            (false, _) => Reply::Found(endpoints, least),
        }
    }

    /// The addresses of each host that `services` name: those that came along with `lookup`, else by asking. An error
    /// without a reason says that there are none.
    async fn hosts_of(&self, services: &[&SRV], lookup: &Lookup) -> FxHashMap<Name, HostReply> {
        let mut replies = FxHashMap::default();
        let mut asking = tokio::task::JoinSet::new();
        for service in services {
            let host = service.target.clone();
            if replies.contains_key(&host) {
                continue;
            }
            if let Some(known) = self.at_hand(&host, lookup) {
                replies.insert(host, Ok(known));
                continue;
            }
            // Taken by the first record that names it; its own reply takes the place.
            replies.insert(host.clone(), Err(None));
            while asking.len() >= AT_ONCE {
                replies.extend(asking.join_next().await.and_then(Result::ok));
            }
            let (resolver, kinds) = (self.resolver.clone(), self.address_kinds());
            asking.spawn(async move {
                let reply = host_addresses(&resolver, &host, &kinds).await;
                (host, reply)
            });
        }
        while let Some(reply) = asking.join_next().await {
            replies.extend(reply.ok());
        }
        replies
    }

    /// Addresses of a host that need no question.
    fn at_hand(&self, host: &Name, lookup: &Lookup) -> Option<(Vec<IpAddr>, Duration)> {
        let text = host.to_ascii();
        if let Ok(literal) = text.trim_end_matches('.').parse() {
            return Some((vec![literal], ttl(lookup)));
        }
        if let Some(addresses) = self.hosts.addresses(&text) {
            return Some((addresses, HOSTS_TTL));
        }
        self.address_kinds().into_iter().find_map(|kind| {
            let glue =
                lookup.additionals().iter().filter(|record| record.name == *host && record.record_type() == kind);
            let found: Vec<(IpAddr, u32)> =
                glue.filter_map(|record| Some((address(&record.data)?, record.ttl))).collect();
            let least = found.iter().map(|(_, ttl)| *ttl).min()?;
            Some((found.into_iter().map(|(ip, _)| ip).collect(), Duration::from_secs(least.into())))
        })
    }

    /// Kinds of addresses in their order; IPv4, then IPv6, where the order has none.
    fn address_kinds(&self) -> Vec<RecordType> {
        let mut kinds = Vec::new();
        for kind in &self.order {
            let kind = match kind {
                RecordKind::A | RecordKind::Cname => RecordType::A,
                RecordKind::Aaaa => RecordType::AAAA,
                RecordKind::Last | RecordKind::Srv => continue,
            };
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        if kinds.is_empty() { vec![RecordType::A, RecordType::AAAA] } else { kinds }
    }
}

/// Addresses of a host and for how long; else the reason, or none where the host has no addresses.
type HostReply = Result<(Vec<IpAddr>, Duration), Option<String>>;

async fn host_addresses(resolver: &TokioResolver, host: &Name, kinds: &[RecordType]) -> HostReply {
    let mut failed = None;
    for kind in kinds {
        match resolver.lookup(host.clone(), *kind).await {
            Ok(lookup) => {
                let found: Vec<IpAddr> = lookup.answers().iter().filter_map(|record| address(&record.data)).collect();
                if !found.is_empty() {
                    return Ok((found, ttl(&lookup)));
                }
            }
            Err(error) => {
                if let Reply::Failed(reason) = refused(&error) {
                    failed = Some(reason);
                }
            }
        }
    }
    Err(failed)
}

/// Servers and options: those of `resolv.conf`, but for what is set.
fn configuration(settings: &DnsSettings) -> Result<(ResolverConfig, ResolverOpts), DnsError> {
    let unusable = |reason: String| DnsError::ResolvConf { path: settings.resolv_conf.clone(), reason };
    let text = match std::fs::read_to_string(&settings.resolv_conf) {
        Ok(text) => text,
        // Like the C library, which then asks this machine.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(unusable(error.to_string())),
    };
    let parsed = resolv_conf::Config::parse(&text).map_err(|error| unusable(error.to_string()))?;
    let mut options = ResolverOpts::default();
    options.ndots = parsed.ndots as usize;
    options.timeout = Duration::from_secs(parsed.timeout.into());
    options.attempts = parsed.attempts as usize;
    options.edns0 = parsed.edns0;
    options.use_hosts_file = ResolveHosts::Never;
    // Answers are kept by who asks, and aliases count for their time to live.
    options.cache_size = 0;
    options.preserve_intermediates = true;
    let mut servers = settings.servers.clone();
    if servers.is_empty() {
        servers.extend(parsed.nameservers.iter().map(|ip| SocketAddr::new(ip.into(), PORT)));
    }
    if servers.is_empty() {
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
    }
    let mut search: Vec<String> = parsed.get_last_search_or_domain().cloned().collect();
    if search.is_empty() {
        search.extend(parsed.get_system_domain());
    }
    let full = |domain: &String| {
        Name::from_ascii(domain).ok().map(|mut name| {
            name.set_fqdn(true);
            name
        })
    };
    let search = search.iter().filter_map(full).collect();
    Ok((ResolverConfig::from_parts(None, search, servers.iter().map(server).collect()), options))
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// Full names that `name` may be short for, most likely first (resolv.conf(5): `ndots` and `search`).
fn candidates(name: &Name, search: &[Name], ndots: usize) -> Vec<Name> {
    let mut full = name.clone();
    full.set_fqdn(true);
    if name.is_fqdn() {
        return vec![full];
    }
    let mut names: Vec<Name> = Vec::with_capacity(search.len() + 1);
    names.extend(search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()));
    let dots = usize::from(name.num_labels()).saturating_sub(1);
    names.insert(if dots >= ndots { 0 } else { names.len() }, full);
    names
}

/// What to ask, in order: what answered last, then the kinds in their order for each name.
fn questions(names: Vec<Name>, order: &[RecordKind], last: Option<&(Name, RecordKind)>) -> Vec<(Name, RecordKind)> {
    let mut kinds: Vec<RecordKind> = Vec::new();
    for kind in order {
        let kind = match kind {
            RecordKind::Last => continue,
            RecordKind::Cname => RecordKind::A,
            kind => *kind,
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() {
        kinds.push(RecordKind::A);
    }
    // Without LAST the kinds keep their order; the name that answered still comes first.
    let first = last.filter(|_| order.contains(&RecordKind::Last)).cloned();
    let mut names = names;
    if let Some((known, _)) = last
        && let Some(at) = names.iter().position(|name| name == known)
    {
        names[..=at].rotate_right(1);
    }
    let all = names.iter().flat_map(|name| kinds.iter().map(move |kind| (name.clone(), *kind)));
    let rest = all.filter(|question| first.as_ref() != Some(question));
    first.iter().cloned().chain(rest).collect()
}

/// The records of the least priority. A target of `.` says that the service is not offered (RFC 2782).
fn preferred<'a>(records: impl Iterator<Item = &'a SRV>) -> Vec<&'a SRV> {
    let mut services: Vec<&SRV> = records.filter(|service| !service.target.is_root()).collect();
    let least = services.iter().map(|service| service.priority).min();
    services.retain(|service| Some(service.priority) == least);
    services
}

/// What a record comes to when its host has these addresses: its weight is theirs together. A weight of 0 counts as 1,
/// as in Kong (kong/runloop/balancer).
fn places(service: &SRV, addresses: &[IpAddr]) -> impl Iterator<Item = Endpoint> {
    let count = u16::try_from(addresses.len()).unwrap_or(u16::MAX).max(1);
    let weight = NonZeroU16::new(service.weight / count).unwrap_or(NonZeroU16::MIN);
    let port = NonZeroU16::new(service.port);
    let host: Arc<str> = service.target.to_ascii().trim_end_matches('.').into();
    addresses.iter().map(move |ip| Endpoint { ip: *ip, port, weight: Some(weight), host: Some(host.clone()) })
}

fn plain(ip: IpAddr) -> Endpoint {
    Endpoint { ip, port: None, weight: None, host: None }
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
    .filter(|ip: &IpAddr| *ip != IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// How long an answer is good for: the least of its records' times, the aliases on the way among them.
fn ttl(lookup: &Lookup) -> Duration {
    Duration::from_secs(lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0).into())
}

fn refused(error: &NetError) -> Reply {
    match error {
        NetError::Dns(Refusal::NoRecordsFound(_)) => Reply::Nothing,
        error => Reply::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[test]
    fn short_names_are_completed_as_resolv_conf_says() {
        let search = [name("ns.svc.test."), name("svc.test.")];
        for (host, ndots, expected) in [
            ("api.test.", 5, "api.test."),
            ("api", 1, "api.ns.svc.test. api.svc.test. api."),
            ("api.ns", 1, "api.ns. api.ns.ns.svc.test. api.ns.svc.test."),
            ("api.ns", 5, "api.ns.ns.svc.test. api.ns.svc.test. api.ns."),
        ] {
            let names: Vec<String> = candidates(&name(host), &search, ndots).iter().map(Name::to_ascii).collect();
            assert_eq!(names.join(" "), expected, "{host} {ndots}");
        }
    }

    #[test]
    fn what_answered_last_is_asked_first() {
        use RecordKind::{A, Aaaa, Cname, Last, Srv};
        let names = || vec![name("a.x."), name("a.")];
        let check = |order: &[RecordKind], last: Option<(&str, RecordKind)>, expected: &str| {
            let last = last.map(|(host, kind)| (name(host), kind));
            let asked = questions(names(), order, last.as_ref());
            let texts: Vec<String> = asked.iter().map(|(name, kind)| format!("{name}{kind:?}")).collect();
            assert_eq!(texts.join(" "), expected);
        };
        check(&[Last, Srv, A, Cname], None, "a.x.Srv a.x.A a.Srv a.A");
        check(&[Last, Srv, A, Cname], Some(("a.", A)), "a.A a.Srv a.x.Srv a.x.A");
        check(&[Srv, A], Some(("a.", A)), "a.Srv a.A a.x.Srv a.x.A");
        check(&[Aaaa, Cname], None, "a.x.Aaaa a.x.A a.Aaaa a.A");
        check(&[Last], None, "a.x.A a.A");
        check(&[Last, A], Some(("elsewhere.", Srv)), "elsewhere.Srv a.x.A a.A");
    }

    #[test]
    fn only_records_of_the_least_priority_count() {
        let records = [
            SRV::new(10, 5, 80, name("b.")),
            SRV::new(1, 7, 81, name("a.")),
            SRV::new(0, 7, 81, Name::root()),
            SRV::new(1, 0, 0, name("c.")),
        ];
        let services = preferred(records.iter());
        assert_eq!(services.iter().map(|service| service.target.to_ascii()).collect::<Vec<_>>(), ["a.", "c."]);
        let of = |service: &SRV, ips: &[&str]| -> Vec<(String, u16, u16)> {
            let addresses: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            let places = places(service, &addresses);
            places.map(|it| (it.ip.to_string(), it.port.map_or(0, NonZeroU16::get), it.weight.unwrap().get())).collect()
        };
        assert_eq!(of(services[0], &["::1", "10.0.0.1"]), [("::1".into(), 81, 3), ("10.0.0.1".into(), 81, 3)]);
        assert_eq!(of(services[1], &["10.0.0.1"]), [("10.0.0.1".into(), 0, 1)], "no port of its own, and the least");
        assert!(of(services[0], &[]).is_empty());
    }

    #[test]
    fn servers_come_from_the_settings_or_the_systems_file() {
        let file = std::env::temp_dir().join(format!("gateward-resolv-{}", std::process::id()));
        std::fs::write(&file, "search a.test b.test\noptions ndots:3 timeout:2 attempts:4\nnameserver 10.0.0.53\n")
            .unwrap();
        let mut settings = DnsSettings { resolv_conf: file.clone(), ..DnsSettings::default() };
        let (config, options) = configuration(&settings).unwrap();
        assert_eq!((options.ndots, options.timeout, options.attempts), (3, Duration::from_secs(2), 4));
        assert_eq!(config.name_servers()[0].ip, IpAddr::from([10, 0, 0, 53]));
        settings.servers = vec!["[::1]:5353".parse().unwrap()];
        let (config, _) = configuration(&settings).unwrap();
        assert_eq!(config.search().len(), 2);
        let server = &config.name_servers()[0];
        assert!(server.connections.iter().all(|connection| connection.port == 5353) && server.ip.is_ipv6());
        settings.servers.clear();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(configuration(&settings).unwrap().0.name_servers()[0].ip, IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
}
