//! A snapshot compiled for the request path: routes to an index, plugins to instances and chains, services to
//! where they lead. Compiled off the request path, immutable, swapped whole.

use crate::chain::{Chain, Scopes};
use crate::families;
use crate::filters::{FilterChains, filter_chains};
use crate::instance::{ChainId, Instance};
use crate::settings::Settings;
use crate::tls_plan::{TlsPlan, TlsPlanError};
use gateward_balance::Priority;
use gateward_model::{Directory, EntityId, PluginConfig, Protocol, Route, Service, Snapshot, Target, Upstream};
use gateward_net::resolve::literal;
use gateward_net::tls::{Client, Context};
use gateward_plugin::{BuildContext, BuildError, Definition, PluginEnv, PluginHost, WorkerStart, definitions};
use gateward_route::{RouteEntry, Router, StreamRouter};
use gateward_telemetry::{SeriesId, Telemetry};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A compiled snapshot.
pub struct Plan {
    /// What it was made from.
    pub snapshot: Arc<Snapshot>,
    pub(crate) router: Router,
    /// Parallel to the router's routes.
    pub(crate) routes: Vec<RoutePlan>,
    pub(crate) stream_router: StreamRouter,
    /// Parallel to the routes of the router for streams.
    pub(crate) stream_routes: Vec<RoutePlan>,
    /// What of the configuration does nothing on streams.
    stream_warnings: Vec<String>,
    pub(crate) instances: Vec<Instance>,
    pub(crate) chains: Vec<Chain>,
    pub(crate) global_chain: ChainId,
    /// Global plugins with a say in TLS handshakes, in their order.
    pub(crate) certificate_plugins: Vec<u32>,
    pub(crate) upstreams: Vec<Arc<UpstreamPlan>>,
    pub(crate) tls: TlsPlan,
    starts: Vec<Box<dyn WorkerStart>>,
}

/// What a route needs beyond its entity.
#[derive(Debug)]
pub(crate) struct RoutePlan {
    pub(crate) series: SeriesId,
    pub(crate) chain: ChainId,
    pub(crate) backend: Option<Backend>,
    /// How the service's upstream is spoken to when that is over TLS.
    pub(crate) tls: Option<Arc<Client>>,
    /// Requests in the clear are told to use TLS.
    pub(crate) https_only: bool,
    /// Whom to turn away first when not all can be served.
    pub(crate) priority: Priority,
    /// For gRPC.
    pub(crate) grpc: bool,
    /// For gRPC over TLS only.
    pub(crate) grpcs_only: bool,
}

/// Where a service leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// To the targets of an upstream, by index.
    Upstream(u32),
    /// To the service's own host; its address when it is one.
    Host(Option<IpAddr>),
}

/// An upstream with its targets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UpstreamPlan {
    pub(crate) entity: Arc<Upstream>,
    pub(crate) targets: Vec<Arc<TargetPlan>>,
    /// How active checks are made when that is over TLS.
    pub(crate) check_tls: Option<Arc<Client>>,
}

/// A target, its address taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TargetPlan {
    pub(crate) entity: Arc<Target>,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The host when it is an address: nothing to resolve.
    pub(crate) literal: Option<IpAddr>,
}

/// Why a snapshot cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A route's rules cannot be compiled.
    #[error(transparent)]
    Route(#[from] gateward_route::CompileError),
    /// A plugin cannot be made from its configuration.
    #[error(transparent)]
    Plugin(#[from] BuildError),
    /// Something of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsPlanError),
    /// A target is not `host:port`.
    #[error("target '{target}' of upstream '{upstream}' is not host:port")]
    Target {
        /// Name of the upstream.
        upstream: String,
        /// The text.
        target: String,
    },
}

impl Plan {
    /// Compile `snapshot`; every problem at once.
    ///
    /// # Errors
    /// All routes, plugins and targets that cannot be compiled.
    pub fn compile(
        snapshot: Arc<Snapshot>,
        settings: &Settings,
        env: &PluginEnv,
        host: &dyn PluginHost,
        telemetry: &Telemetry,
        tls: &Arc<Context>,
    ) -> Result<Self, Vec<CompileError>> {
        let config = &snapshot.config;
        let mut errors = Vec::new();
        let router = Router::compile(config, settings.flavor)
            .map_err(|found| errors.extend(found.into_iter().map(CompileError::Route)));
        let stream_router = StreamRouter::compile(config, settings.flavor)
            .map_err(|found| errors.extend(found.into_iter().map(CompileError::Route)));
        errors.extend(families::errors(config).map(CompileError::Route));
        let mut instances = instances(&snapshot, env, host, &mut errors);
        let tls = TlsPlan::compile(&snapshot.config, tls)
            .map_err(|found| errors.extend(found.into_iter().map(CompileError::Tls)));
        let upstreams = upstreams(&snapshot, tls.as_ref().ok(), &mut errors);
        let (Ok(router), Ok(stream_router), Ok(tls)) = (router, stream_router, tls) else { return Err(errors) };
        if !errors.is_empty() {
            return Err(errors);
        }
        let http_scopes = Scopes::new(&instances, |instance| families::has_http(&instance.entity.protocols));
        let stream_scopes = Scopes::new(&instances, families::acts_on_streams);
        let mut unbuilt = Vec::new();
        let filters = filter_chains(&snapshot, env, host, &mut instances, &mut unbuilt);
        errors.extend(unbuilt.into_iter().map(CompileError::Plugin));
        if !errors.is_empty() {
            return Err(errors);
        }
        let no_filters = FilterChains::default();
        let mut chains = Chains::new(&http_scopes, &filters, Vec::new());
        let by_name: HashMap<&str, u32> = upstreams
            .iter()
            .enumerate()
            .map(|(index, upstream)| (upstream.entity.name.as_str(), index as u32))
            .collect();
        let routes =
            router.routes().iter().map(|entry| route_plan(entry, &by_name, &mut chains, telemetry, &tls)).collect();
        let global_chain = chains.of(None, None);
        let mut chains = Chains::new(&stream_scopes, &no_filters, chains.chains);
        let stream_routes = stream_router
            .routes()
            .iter()
            .map(|entry| route_plan(entry, &by_name, &mut chains, telemetry, &tls))
            .collect();
        let chains = chains.chains;
        let certificate_plugins = certificate_plugins(&instances);
        let stream_warnings = families::warnings(stream_router.routes(), &instances, settings.streams);
        Ok(Self {
            router,
            routes,
            stream_router,
            stream_routes,
            stream_warnings,
            instances,
            chains,
            global_chain,
            certificate_plugins,
            upstreams,
            tls,
            starts: host.worker_start(&snapshot, env),
            snapshot,
        })
    }

    /// What a worker does before it serves this plan.
    pub(crate) fn start_worker(&self) {
        self.starts.iter().for_each(|start| start.start());
    }

    /// What it does when it ends.
    pub(crate) async fn stop_worker(&self) {
        for start in &self.starts {
            start.stop().await;
        }
    }

    /// What an operator should know about this plan's streams, if anything.
    pub fn stream_warnings(&self) -> &[String] {
        &self.stream_warnings
    }

    /// Names that lead somewhere: hosts of targets, and of services that go to no upstream.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let targets = self.upstreams.iter().flat_map(|upstream| &upstream.targets);
        let targets = targets.filter(|target| target.literal.is_none()).map(|target| target.host.as_str());
        let routes = self.routes.iter().zip(self.router.routes());
        let streams = self.stream_routes.iter().zip(self.stream_router.routes());
        let plain = routes.chain(streams).filter(|(plan, _)| plan.backend == Some(Backend::Host(None)));
        targets.chain(plain.filter_map(|(_, entry)| Some(entry.service.as_ref()?.host.as_str())))
    }

    /// What an operator should know about this plan's TLS at `now` (seconds since 1970).
    pub fn tls_warnings(&self, now: u64) -> Vec<String> {
        self.tls.warnings(now)
    }

    /// Certificates that are out of their time at `now` (seconds since 1970), and how.
    pub fn lapsed_certificates(&self, now: u64) -> Vec<(EntityId, String)> {
        self.tls.lapsed(now)
    }
}

/// Make every enabled plugin, in order of execution: priority, then name, both descending, whatever language it is in.
fn instances(
    snapshot: &Snapshot,
    env: &PluginEnv,
    host: &dyn PluginHost,
    errors: &mut Vec<CompileError>,
) -> Vec<Instance> {
    let directory = Arc::new(Directory::new(&snapshot.config));
    let native: HashMap<&str, &Definition> = definitions().iter().map(|native| (native.name, native)).collect();
    let mut entities: Vec<_> = snapshot.config.plugins.iter().filter(|entity| entity.enabled).collect();
    entities.sort_by_cached_key(|entity| {
        let definition = native.get(entity.name.as_str());
        let priority = definition.map_or_else(|| host.priority(&entity.name), |definition| definition.priority);
        Reverse((priority, entity.name.clone()))
    });
    let mut instances = Vec::new();
    for entity in entities {
        let made = match native.get(entity.name.as_str()) {
            Some(definition) => (definition.build)(&BuildContext { entity, directory: &directory, env }),
            None => host.build(entity, snapshot, env),
        };
        match made {
            Ok(plugin) => {
                instances.push(Instance { needs: plugin.needs(), plugin: plugin.into(), entity: entity.clone() });
            }
            Err(error) => errors.push(error.into()),
        }
    }
    instances
}

fn certificate_plugins(instances: &[Instance]) -> Vec<u32> {
    let is_global =
        |entity: &PluginConfig| entity.route.is_none() && entity.service.is_none() && entity.consumer.is_none();
    let has_a_say = |instance: &Instance| instance.needs.phases.certificate && is_global(&instance.entity);
    instances.iter().enumerate().filter(|(_, it)| has_a_say(it)).map(|(index, _)| index as u32).collect()
}

fn upstreams(snapshot: &Snapshot, tls: Option<&TlsPlan>, errors: &mut Vec<CompileError>) -> Vec<Arc<UpstreamPlan>> {
    let mut targets: HashMap<EntityId, Vec<Arc<TargetPlan>>> = HashMap::new();
    let mut broken = Vec::new();
    for target in &snapshot.config.targets {
        match split_host_port(&target.target) {
            Some((host, port)) => {
                let (literal, host) = (literal(host), host.to_owned());
                let plan = Arc::new(TargetPlan { entity: target.clone(), host, port, literal });
                targets.entry(target.upstream).or_default().push(plan);
            }
            None => broken.push(target),
        }
    }
    let name_of = |id| snapshot.config.upstreams.iter().find(|upstream| upstream.id == id).map(|it| it.name.clone());
    errors.extend(broken.into_iter().map(|target| CompileError::Target {
        upstream: name_of(target.upstream).unwrap_or_default(),
        target: target.target.clone(),
    }));
    let plan = |entity: &Arc<Upstream>| {
        let targets = targets.remove(&entity.id).unwrap_or_default();
        let check_tls = tls.and_then(|tls| tls.checks(entity.id));
        Arc::new(UpstreamPlan { entity: entity.clone(), targets, check_tls })
    };
    snapshot.config.upstreams.iter().map(plan).collect()
}

/// `host:port` with IPv6 in brackets.
fn split_host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some(())?;
    Some((host, port.parse().ok()?))
}

fn route_plan(
    entry: &RouteEntry,
    upstreams: &HashMap<&str, u32>,
    chains: &mut Chains<'_>,
    telemetry: &Telemetry,
    tls: &TlsPlan,
) -> RoutePlan {
    let RouteEntry { route, service } = entry;
    let backend = service.as_ref().map(|service| match upstreams.get(service.host.as_str()) {
        Some(index) => Backend::Upstream(*index),
        None => Backend::Host(literal(&service.host)),
    });
    RoutePlan {
        series: telemetry.series(&service_label(service.as_deref()), &route_label(route)),
        chain: chains.of(Some(route.id), service.as_ref().map(|service| service.id)),
        backend,
        grpc: route.protocols.iter().any(|protocol| matches!(protocol, Protocol::Grpc | Protocol::Grpcs)),
        grpcs_only: route.protocols.contains(&Protocol::Grpcs) && !route.protocols.contains(&Protocol::Grpc),
        tls: service.as_ref().and_then(|service| tls.client(service.id)),
        https_only: !route.protocols.contains(&Protocol::Http) && route.protocols.contains(&Protocol::Https),
        priority: priority(route),
    }
}

/// The priority of a route's requests, from a tag `gateward:priority=high`.
fn priority(route: &Route) -> Priority {
    let tags = route.tags.iter().flatten();
    tags.filter_map(|tag| Priority::parse(tag.strip_prefix("gateward:priority=")?)).next().unwrap_or_default()
}

/// Kong labels metrics with names, and with ids where there is none.
fn service_label(service: Option<&Service>) -> String {
    service.map(|service| service.name.clone().unwrap_or_else(|| service.id.to_string())).unwrap_or_default()
}

fn route_label(route: &Route) -> String {
    route.name.clone().unwrap_or_else(|| route.id.to_string())
}

/// Chains under construction. Routes without plugins of their own share the chain of their service.
struct Chains<'a> {
    scopes: &'a Scopes,
    filters: &'a FilterChains,
    own: std::collections::HashSet<EntityId>,
    shared: HashMap<Option<EntityId>, ChainId>,
    chains: Vec<Chain>,
}

impl<'a> Chains<'a> {
    /// More chains behind those that are there.
    fn new(scopes: &'a Scopes, filters: &'a FilterChains, chains: Vec<Chain>) -> Self {
        let mut own = scopes.routes_with_plugins();
        own.extend(filters.routes());
        Self { scopes, filters, own, shared: HashMap::new(), chains }
    }

    fn of(&mut self, route: Option<EntityId>, service: Option<EntityId>) -> ChainId {
        let route = route.filter(|route| self.own.contains(route));
        if route.is_none()
            && let Some(chain) = self.shared.get(&service)
        {
            return *chain;
        }
        let id = ChainId(self.chains.len() as u32);
        let mut chain = self.scopes.chain(route, service);
        self.filters.append(route, service, &mut chain);
        self.chains.push(chain);
        if route.is_none() {
            self.shared.insert(service, id);
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_apart() {
        for (text, expected) in [
            ("a.b:8000", Some(("a.b", 8000))),
            ("[::1]:80", Some(("::1", 80))),
            ("a.b", None),
            (":80", None),
            ("a:99999", None),
        ] {
            assert_eq!(split_host_port(text), expected, "{text}");
        }
    }
}
