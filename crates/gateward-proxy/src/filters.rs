//! Filter chains: Wasm filters that run after the plugins of a route, those of its service first.

use crate::chain::{Chain, Link};
use crate::instance::Instance;
use gateward_model::{EntityId, GenericEntity, PluginConfig, Snapshot};
use gateward_plugin::{BuildError, Needs, PluginEnv, PluginHost};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// Filters of routes and of services, as indices of instances.
#[derive(Debug, Default)]
pub(crate) struct FilterChains {
    /// What the instances need, by their index.
    needs: HashMap<u32, Needs>,
    routes: HashMap<EntityId, Vec<u32>>,
    services: HashMap<EntityId, Vec<u32>>,
}

/// The entity, as far as it matters here.
#[derive(Deserialize)]
struct FilterChain {
    enabled: bool,
    route: Option<EntityId>,
    service: Option<EntityId>,
    filters: Vec<Filter>,
}

#[derive(Deserialize)]
struct Filter {
    name: String,
    enabled: bool,
    config: Option<Value>,
}

/// Make the filters of every enabled chain; they are added to `instances`.
pub(crate) fn filter_chains(
    snapshot: &Snapshot,
    env: &PluginEnv,
    host: &dyn PluginHost,
    instances: &mut Vec<Instance>,
    errors: &mut Vec<BuildError>,
) -> FilterChains {
    let mut chains = FilterChains::default();
    for entity in snapshot.config.others.get("filter_chains").into_iter().flatten() {
        // The schema lets nothing else through.
        let Ok(chain) = FilterChain::deserialize(Value::Object(entity.fields.clone())) else { continue };
        if !chain.enabled {
            continue;
        }
        let filters = match (chain.route, chain.service) {
            (Some(route), _) => chains.routes.entry(route).or_default(),
            (None, Some(service)) => chains.services.entry(service).or_default(),
            (None, None) => continue,
        };
        for filter in chain.filters.into_iter().filter(|filter| filter.enabled) {
            let entity = Arc::new(plugin(entity, filter, chain.route, chain.service));
            match host.build(&entity, snapshot, env) {
                Ok(plugin) => {
                    let index = instances.len() as u32;
                    filters.push(index);
                    chains.needs.insert(index, plugin.needs());
                    instances.push(Instance { needs: plugin.needs(), plugin: plugin.into(), entity });
                }
                Err(error) => errors.push(error),
            }
        }
    }
    chains
}

/// The filter as a plugin entity with the chain's id.
fn plugin(chain: &GenericEntity, filter: Filter, route: Option<EntityId>, service: Option<EntityId>) -> PluginConfig {
    PluginConfig { route, service, ..PluginConfig::new(chain.id, filter.name, filter.config.unwrap_or_default()) }
}

impl FilterChains {
    /// Routes with filters of their own.
    pub(crate) fn routes(&self) -> impl Iterator<Item = EntityId> + '_ {
        self.routes.keys().copied()
    }

    /// Put the filters of `service` and then of `route` at the end of `chain`.
    pub(crate) fn append(&self, route: Option<EntityId>, service: Option<EntityId>, chain: &mut Chain) {
        let of_service = service.and_then(|service| self.services.get(&service));
        let of_route = route.and_then(|route| self.routes.get(&route));
        for filter in of_service.into_iter().chain(of_route).flatten() {
            let needs = self.needs.get(filter).copied().unwrap_or_default();
            chain.needs = chain.needs.union(needs);
            chain.links.push(Link::always(*filter));
        }
    }
}
