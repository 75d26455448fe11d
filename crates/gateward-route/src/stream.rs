//! Routes of streams: TCP connections, TLS connections by their server name, UDP sessions.
//!
//! A stream has no host and no path, so the index is another one than that of requests: routes are filed under their
//! server names, or else under the ports of their destinations. What a stream leads to is tried in the order of
//! priority, and the order of the file decides among equals; as for requests, the index never decides who wins.

use crate::compile::{error_of, net_rules};
use crate::expression::{self, Program};
use crate::matcher::{NetRule, is_stream};
use crate::{CompileError, Input, RouteEntry, Scheme, priority};
use gateward_http::Headers;
use gateward_model::{Config, EntityId, Protocol, Route, RouterFlavor, Service};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;

/// What carries a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamProtocol {
    /// A TCP connection.
    Tcp,
    /// A TLS connection that ends at the gateway.
    Tls,
    /// A TLS connection that passes through unread.
    TlsPassthrough,
    /// Datagrams of one client address.
    Udp,
}

impl StreamProtocol {
    /// Kong's name for it, also the value of `net.protocol`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::TlsPassthrough => "tls_passthrough",
            Self::Udp => "udp",
        }
    }

    /// Whether a route with `protocols` may serve it.
    fn is_among(self, protocols: &[Protocol]) -> bool {
        protocols.contains(&match self {
            Self::Tcp => Protocol::Tcp,
            Self::Tls => Protocol::Tls,
            Self::TlsPassthrough => Protocol::TlsPassthrough,
            Self::Udp => Protocol::Udp,
        })
    }
}

/// What stream routes are selected by.
#[derive(Debug, Clone, Copy)]
pub struct StreamInput<'a> {
    /// What carries the stream.
    pub protocol: StreamProtocol,
    /// The server name of the TLS handshake, without a dot at its end.
    pub sni: Option<&'a str>,
    /// The VPC endpoint that a trusted PROXY header named.
    pub vpce_id: Option<&'a str>,
    /// The client's address.
    pub src: SocketAddr,
    /// The address the stream came in on.
    pub dst: SocketAddr,
}

/// The stream routes of a configuration, ready to be found.
#[derive(Debug)]
pub struct StreamRouter {
    entries: Vec<RouteEntry>,
    /// From the highest priority down; the lists below name their positions, in rising order.
    matchers: Vec<Matcher>,
    by_name: FxHashMap<String, Vec<u32>>,
    by_port: FxHashMap<u16, Vec<u32>>,
    others: Vec<u32>,
    /// Of which protocols there are routes.
    protocols: Vec<Protocol>,
    /// Streams have none.
    headers: Headers,
}

/// One route.
#[derive(Debug)]
struct Matcher {
    /// Position in the entries.
    entry: u32,
    protocols: Vec<Protocol>,
    rule: Rule,
}

/// What it asks. Empty lists ask nothing.
#[derive(Debug)]
enum Rule {
    Fields { names: Vec<Name>, sources: Vec<NetRule>, destinations: Vec<NetRule> },
    Expression(Program),
}

/// A server name, in lower case.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    Exact(String),
    /// `*.example.com`: what ends so.
    Suffix(String),
    /// `example.*`: what begins so.
    Prefix(String),
}

impl StreamRouter {
    /// Compile every stream route of an enabled service and every one without service.
    ///
    /// # Errors
    /// Every route that cannot be compiled.
    pub fn compile(config: &Config, flavor: RouterFlavor) -> Result<Self, Vec<CompileError>> {
        let services: FxHashMap<EntityId, &Arc<Service>> = config.services.iter().map(|it| (it.id, it)).collect();
        let (mut entries, mut ranked, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for route in config.routes.iter().filter(|route| is_stream(&route.protocols)) {
            let service = route.service.and_then(|id| services.get(&id)).copied();
            if service.is_some_and(|service| !service.enabled) {
                continue;
            }
            let entry = entries.len() as u32;
            match rule_of(route, flavor) {
                Ok((priority, rule)) => {
                    ranked.push((priority, Matcher { entry, protocols: route.protocols.clone(), rule }));
                }
                Err(message) => errors.push(error_of(route, message)),
            }
            entries.push(RouteEntry { route: Arc::clone(route), service: service.cloned() });
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        ranked.sort_by_key(|(priority, matcher)| (Reverse(*priority), matcher.entry));
        Ok(Self::index(entries, ranked.into_iter().map(|(_, matcher)| matcher).collect()))
    }

    fn index(entries: Vec<RouteEntry>, matchers: Vec<Matcher>) -> Self {
        let (mut by_name, mut by_port, mut others) = (FxHashMap::default(), FxHashMap::default(), Vec::new());
        let mut protocols: Vec<Protocol> = Vec::new();
        for (position, matcher) in matchers.iter().enumerate() {
            let position = position as u32;
            protocols.extend(matcher.protocols.iter().copied());
            match matcher.key() {
                Key::Names(names) => names.into_iter().for_each(|name| file(&mut by_name, name, position)),
                Key::Ports(ports) => ports.into_iter().for_each(|port| file(&mut by_port, port, position)),
                Key::Any => others.push(position),
            }
        }
        protocols.sort_unstable();
        protocols.dedup();
        Self { entries, matchers, by_name, by_port, others, protocols, headers: Headers::default() }
    }

    /// The routes that can be found, with their services.
    pub fn routes(&self) -> &[RouteEntry] {
        &self.entries
    }

    /// Whether there is a route for this protocol.
    pub fn serves(&self, protocol: StreamProtocol) -> bool {
        protocol.is_among(&self.protocols)
    }

    /// The position in [`Self::routes`] of the route of a stream.
    pub fn find(&self, stream: &StreamInput<'_>) -> Option<usize> {
        let name = stream.sni.map(str::to_ascii_lowercase);
        let input = Input {
            method: "",
            host: "",
            port: None,
            local_port: stream.dst.port(),
            path: "",
            query: None,
            headers: &self.headers,
            scheme: Scheme::Stream(stream.protocol),
            sni: stream.sni,
            vpce_id: stream.vpce_id,
            src: stream.src,
            dst: stream.dst,
        };
        let named = name.as_ref().and_then(|name| self.by_name.get(name));
        let lists = [named, self.by_port.get(&stream.dst.port()), Some(&self.others)];
        let first = |list: &Vec<u32>| {
            list.iter().copied().find(|position| self.matchers[*position as usize].matches(&input, name.as_deref()))
        };
        let position = lists.into_iter().flatten().filter_map(first).min()?;
        Some(self.matchers[position as usize].entry as usize)
    }
}

/// Rising order and no doubles: a route may name a port twice.
fn file<K: std::hash::Hash + Eq>(lists: &mut FxHashMap<K, Vec<u32>>, key: K, position: u32) {
    let list = lists.entry(key).or_default();
    if list.last() != Some(&position) {
        list.push(position);
    }
}

fn rule_of(route: &Route, flavor: RouterFlavor) -> Result<(u64, Rule), String> {
    match (&route.expression, flavor) {
        (Some(_), RouterFlavor::TraditionalCompatible) => Err("`expression` is not known to the router flavour \
             `traditional_compatible`; set `router_flavor` to `expressions`, or use `sources`, `destinations` and `snis`"
            .to_owned()),
        (Some(text), RouterFlavor::Expressions) => {
            let compiled = expression::parse_stream(text).and_then(|tree| Program::compile(&tree));
            let program = compiled.map_err(|problem| format!("`expression` cannot be used: {problem}"))?;
            Ok((priority::of_expression(route.priority.unwrap_or(0)), Rule::Expression(program)))
        }
        (None, _) => {
            let names: Vec<Name> = route.snis.iter().flatten().map(|name| Name::parse(name)).collect();
            let sources = net_rules("sources", route.sources.as_deref().unwrap_or_default())?;
            let destinations = net_rules("destinations", route.destinations.as_deref().unwrap_or_default())?;
            if names.is_empty() && sources.is_empty() && destinations.is_empty() {
                return Err("the route has no rule, so nothing would select it; set one of `sources`, `destinations` \
                     or `snis`"
                    .to_owned());
            }
            Ok((priority::of_stream_fields(route), Rule::Fields { names, sources, destinations }))
        }
    }
}

/// Where a rule is filed.
enum Key {
    Names(Vec<String>),
    Ports(Vec<u16>),
    Any,
}

impl Matcher {
    fn key(&self) -> Key {
        let Rule::Fields { names, destinations, .. } = &self.rule else { return Key::Any };
        let exact = names.iter().map(|name| match name {
            Name::Exact(name) => Some(name.clone()),
            _ => None,
        });
        let ports = destinations.iter().map(|rule| rule.port);
        // Names are asked of encrypted streams only.
        let named = self.protocols.iter().all(|protocol| matches!(protocol, Protocol::Tls | Protocol::TlsPassthrough));
        match (exact.collect::<Option<Vec<_>>>(), ports.collect::<Option<Vec<_>>>()) {
            (_, Some(ports)) if !ports.is_empty() => Key::Ports(ports),
            (Some(names), _) if named && !names.is_empty() => Key::Names(names),
            _ => Key::Any,
        }
    }

    /// `name` is the input's server name in lower case.
    fn matches(&self, input: &Input<'_>, name: Option<&str>) -> bool {
        let Scheme::Stream(protocol) = input.scheme else { return false };
        protocol.is_among(&self.protocols)
            && match &self.rule {
                Rule::Expression(program) => program.run(input, "").is_some(),
                Rule::Fields { names, sources, destinations } => {
                    // As for requests, a server name is asked of encrypted streams only.
                    let asked = input.scheme.is_tls() && !names.is_empty();
                    let named = name.is_some_and(|name| names.iter().any(|it| it.matches(name)));
                    (!asked || named) && any(sources, input.src) && any(destinations, input.dst)
                }
            }
    }
}

fn any(rules: &[NetRule], address: SocketAddr) -> bool {
    rules.is_empty() || rules.iter().any(|rule| rule.matches(address.ip(), address.port()))
}

impl Name {
    fn parse(text: &str) -> Self {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(suffix), _) => Self::Suffix(suffix.to_owned()),
            (None, Some(prefix)) => Self::Prefix(prefix.to_owned()),
            (None, None) => Self::Exact(text),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Suffix(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
            Self::Prefix(prefix) => name.len() > prefix.len() && name.starts_with(prefix.as_str()),
        }
    }
}
