//! Which plugin instance runs for a request: Kong's precedence, prepared per route.
//!
//! Of each plugin name exactly one instance runs, the most specific one: route+service+consumer, route+consumer,
//! service+consumer, route+service, consumer, route, service, global. The consumer is known only once
//! authentication ran, so a link keeps maps by consumer beside the one that applies to everybody.

use crate::instance::Instance;
use gateward_model::EntityId;
use gateward_plugin::Needs;
use rustc_hash::FxHashMap;
use std::collections::HashMap;
use std::sync::Arc;

/// Instances by consumer.
type ByConsumer = Arc<FxHashMap<EntityId, u32>>;

/// The plugins that may run for a route, in order.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub(crate) links: Vec<Link>,
    /// What any of their instances needs.
    pub(crate) needs: Needs,
}

/// One plugin name.
#[derive(Debug)]
pub(crate) struct Link {
    /// The instance that runs for everybody, where no other may.
    only: Option<u32>,
    /// Where that depends on the consumer.
    choices: Vec<Choice>,
}

#[derive(Debug)]
enum Choice {
    Consumers(ByConsumer),
    Everybody(u32),
}

impl Link {
    /// A link that runs the same instance for everybody.
    pub(crate) fn always(instance: u32) -> Self {
        Self { only: Some(instance), choices: Vec::new() }
    }

    fn of(choices: Vec<Choice>) -> Self {
        match choices[..] {
            [Choice::Everybody(instance)] => Self::always(instance),
            _ => Self { only: None, choices },
        }
    }

    /// The instance for `consumer`.
    pub(crate) fn select(&self, consumer: Option<EntityId>) -> Option<u32> {
        self.only.or_else(|| {
            self.choices.iter().find_map(|choice| match choice {
                Choice::Everybody(instance) => Some(*instance),
                Choice::Consumers(instances) => consumer.and_then(|consumer| instances.get(&consumer).copied()),
            })
        })
    }
}

/// All instances by name and scope.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    /// In order of execution.
    names: Vec<Name>,
}

#[derive(Debug, Default)]
struct Name {
    everybody: HashMap<Scope, u32>,
    consumers: HashMap<Scope, ByConsumer>,
    needs: Needs,
}

/// Route and service of an instance.
type Scope = (Option<EntityId>, Option<EntityId>);

impl Scopes {
    /// Sort those `instances` (already in order of execution) that are `wanted` by name and scope.
    pub(crate) fn new(instances: &[Instance], wanted: impl Fn(&Instance) -> bool) -> Self {
        let mut names: Vec<(&str, Name)> = Vec::new();
        for (index, instance) in instances.iter().enumerate().filter(|(_, instance)| wanted(instance)) {
            if names.last().is_none_or(|(name, _)| *name != instance.entity.name) {
                names.push((&instance.entity.name, Name::default()));
            }
            let (_, name) = names.last_mut().expect("one was pushed when there was none");
            let scope = (instance.entity.route, instance.entity.service);
            name.needs = name.needs.union(instance.needs);
            match instance.entity.consumer {
                None => {
                    name.everybody.insert(scope, index as u32);
                }
                Some(consumer) => {
                    let map = name.consumers.entry(scope).or_default();
                    Arc::make_mut(map).insert(consumer, index as u32);
                }
            }
        }
        Self { names: names.into_iter().map(|(_, name)| name).collect() }
    }

    /// Whether any instance is scoped to this route.
    pub(crate) fn routes_with_plugins(&self) -> std::collections::HashSet<EntityId> {
        self.names
            .iter()
            .flat_map(|name| name.everybody.keys().chain(name.consumers.keys()))
            .filter_map(|(route, _)| *route)
            .collect()
    }

    /// The chain of a route and service, or of requests without either.
    pub(crate) fn chain(&self, route: Option<EntityId>, service: Option<EntityId>) -> Chain {
        let mut chain = Chain::default();
        for name in &self.names {
            let choices = name.choices(route, service);
            if !choices.is_empty() {
                chain.needs = chain.needs.union(name.needs);
                chain.links.push(Link::of(choices));
            }
        }
        chain
    }
}

impl Name {
    /// The instances in order of precedence, up to the first that applies to everybody.
    fn choices(&self, route: Option<EntityId>, service: Option<EntityId>) -> Vec<Choice> {
        let both = route.is_some() && service.is_some();
        let precedence = [
            (both, (route, service), true),
            (route.is_some(), (route, None), true),
            (service.is_some(), (None, service), true),
            (both, (route, service), false),
            (true, (None, None), true),
            (route.is_some(), (route, None), false),
            (service.is_some(), (None, service), false),
            (true, (None, None), false),
        ];
        let mut choices = Vec::new();
        for (applies, scope, for_consumers) in precedence {
            if !applies {
                continue;
            }
            if for_consumers {
                choices.extend(self.consumers.get(&scope).cloned().map(Choice::Consumers));
            } else if let Some(instance) = self.everybody.get(&scope) {
                choices.push(Choice::Everybody(*instance));
                break;
            }
        }
        choices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateward_model::PluginConfig;
    use gateward_plugin::{Needs, Phases, Plugin};

    struct Nothing;
    impl Plugin for Nothing {
        fn needs(&self) -> Needs {
            Needs::default()
        }
    }

    fn id(text: &str) -> EntityId {
        EntityId::derived("test", text)
    }

    fn instance(name: &str, route: bool, service: bool, consumer: bool) -> Instance {
        let entity = PluginConfig {
            route: route.then(|| id("r")),
            service: service.then(|| id("s")),
            consumer: consumer.then(|| id("c")),
            ..PluginConfig::new(id(&format!("{name}{route}{service}{consumer}")), name, serde_json::Value::Null)
        };
        Instance { plugin: Arc::new(Nothing), needs: Needs::default(), entity: Arc::new(entity) }
    }

    #[test]
    fn the_most_specific_instance_runs() {
        // (route, service, consumer) from most to least specific, as Kong orders them.
        let order = [
            (true, true, true),
            (true, false, true),
            (false, true, true),
            (true, true, false),
            (false, false, true),
            (true, false, false),
            (false, true, false),
            (false, false, false),
        ];
        for first in 0..order.len() {
            let instances: Vec<_> = order[first..].iter().map(|(r, s, c)| instance("p", *r, *s, *c)).collect();
            let chain = Scopes::new(&instances, |_| true).chain(Some(id("r")), Some(id("s")));
            assert_eq!(chain.links[0].select(Some(id("c"))), Some(0), "with {:?}", order[first]);
        }
    }

    #[test]
    fn a_chain_needs_what_any_of_its_instances_needs_and_no_more() {
        let with = |name, route, consumer, phases| {
            let needs = Needs { phases, request_body: consumer, response_body: false };
            Instance { needs, ..instance(name, route, false, consumer) }
        };
        let access = Phases { access: true, ..Phases::default() };
        let both = Phases { access: true, log: true, ..Phases::default() };
        let log = Phases { log: true, ..Phases::default() };
        let instances = [with("p", false, false, access), with("q", true, false, log), with("q", false, true, access)];
        let scopes = Scopes::new(&instances, |_| true);
        let needs = scopes.chain(Some(id("r")), None).needs;
        assert_eq!(needs, Needs { phases: both, request_body: true, response_body: false });
        assert_eq!(Scopes::new(&instances[..1], |_| true).chain(None, None).needs.phases, access);
        assert_eq!(Scopes::new(&[], |_| true).chain(None, None).needs, Needs::default());
    }

    #[test]
    fn others_do_not_get_an_instance_of_somebody_else() {
        let instances = [instance("p", false, false, true), instance("q", true, false, false)];
        let scopes = Scopes::new(&instances, |_| true);
        let chain = scopes.chain(Some(id("r")), Some(id("s")));
        assert_eq!(chain.links[0].select(Some(id("other"))), None);
        assert_eq!(chain.links[0].select(None), None);
        assert_eq!(chain.links[1].select(None), Some(1));
        assert_eq!(scopes.chain(Some(id("another route")), None).links.len(), 1);
    }
}
