//! Targets of upstreams as one worker balances over them. The state lives beside the plan, so that counts and
//! averages survive a configuration change.

use crate::health::{Attempt, HealthRegistry, UpstreamHealth};
use crate::plan::{Plan, TargetPlan, UpstreamPlan};
use crate::protection::{Protection, Registry};
use gateward_balance::{Balancer, TargetHealth, TargetSpec, Ticket};
use gateward_model::{Algorithm, EntityId};
use gateward_net::monotonic_us;
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// A target as requests hold it.
pub(crate) struct WorkerTarget {
    plan: TargetPlan,
    /// Shared by the workers.
    health: Arc<TargetHealth>,
}

impl Deref for WorkerTarget {
    type Target = TargetPlan;

    fn deref(&self) -> &TargetPlan {
        &self.plan
    }
}

/// One upstream on one worker.
pub(crate) struct WorkerUpstream {
    plan: UpstreamPlan,
    health: Option<Arc<UpstreamHealth>>,
    /// Of the configuration it was last brought to.
    configuration: u64,
    /// The plan's targets, to be held by requests under way.
    targets: Vec<Rc<WorkerTarget>>,
    balancer: Balancer,
    protection: Option<Rc<Protection>>,
}

/// Shared by requests of old and new generations.
pub(crate) type UpstreamHandle = Rc<RefCell<WorkerUpstream>>;

impl WorkerUpstream {
    fn new(plan: UpstreamPlan, registries: Registries<'_>, configuration: u64, seed: u64) -> Self {
        let health = registries.health.upstream(plan.entity.id);
        let targets = targets(&plan, health.as_deref());
        let balancer = Balancer::new(algorithm(&plan), &specs(&plan, &targets, health.as_deref()), seed);
        let protection = protection(&plan, registries, None);
        Self { plan, health, configuration, targets, balancer, protection }
    }

    /// Follow `plan`, unless a request that began under an earlier configuration brings it.
    fn update(&mut self, plan: &UpstreamPlan, registries: Registries<'_>, configuration: u64) {
        if configuration <= self.configuration {
            return;
        }
        self.configuration = configuration;
        self.health = registries.health.upstream(plan.entity.id);
        if self.plan != *plan {
            self.targets = targets(plan, self.health.as_deref());
            if self.plan.entity.resilience != plan.entity.resilience {
                self.protection = protection(plan, registries, self.protection.as_ref());
            }
            self.plan = plan.clone();
            self.weigh();
        }
    }

    /// Give every target the share it has now: less than its weight while it starts slowly.
    pub(crate) fn weigh(&mut self) {
        let specs = specs(&self.plan, &self.targets, self.health.as_deref());
        self.balancer.update(algorithm(&self.plan), &specs);
    }

    /// Whether shares change with time.
    pub(crate) fn starts_slowly(&self) -> bool {
        self.health.as_ref().is_some_and(|health| health.slow_start().is_some())
    }

    /// The target for a request.
    pub(crate) fn pick(
        &mut self,
        hash: Option<u64>,
        excluded: &[usize],
        now_us: u64,
    ) -> Option<(Ticket, Rc<WorkerTarget>)> {
        if self.health.as_ref().is_some_and(|health| health.is_short()) {
            return None;
        }
        let targets = &self.targets;
        let available = |index: usize| targets.get(index).is_some_and(|target| target.health.is_available());
        let ticket = self.balancer.pick(hash, excluded, available, now_us)?;
        let target = self.targets.get(ticket.index())?;
        Some((ticket, target.clone()))
    }

    /// What a request to `target` tells about its health.
    pub(crate) fn report(&self, target: &WorkerTarget, attempt: Attempt) {
        if let Some(health) = &self.health {
            health.report(&target.health, &target.plan.entity.target, attempt);
        }
    }

    /// Changes when the targets do: indices from before mean nothing then.
    pub(crate) fn generation(&self) -> u64 {
        self.balancer.generation()
    }

    pub(crate) fn entity(&self) -> &Arc<gateward_model::Upstream> {
        &self.plan.entity
    }

    /// Whether there is more than one target.
    pub(crate) fn has_alternatives(&self) -> bool {
        self.targets.len() > 1
    }

    pub(crate) fn protection(&self) -> Option<Rc<Protection>> {
        self.protection.clone()
    }

    pub(crate) fn started(&mut self, ticket: Ticket, now_us: u64) {
        self.balancer.started(ticket, now_us);
    }

    pub(crate) fn finished(&mut self, ticket: Ticket, latency_us: Option<u64>, now_us: u64) {
        self.balancer.finished(ticket, latency_us, now_us);
    }
}

/// What the node knows of all upstreams.
#[derive(Clone, Copy)]
pub(crate) struct Registries<'a> {
    pub(crate) health: &'a HealthRegistry,
    pub(crate) protections: &'a Registry,
}

fn protection(
    plan: &UpstreamPlan,
    registries: Registries<'_>,
    before: Option<&Rc<Protection>>,
) -> Option<Rc<Protection>> {
    Protection::new(plan.entity.resilience.as_ref(), plan.entity.id, registries.protections, before)
}

/// The upstreams a worker has used, made at first use, kept while the configuration has them.
#[derive(Default)]
pub(crate) struct Known {
    handles: RefCell<FxHashMap<EntityId, UpstreamHandle>>,
}

impl Known {
    /// The state of an upstream by its index in `plan`, as that or a later plan has it.
    pub(crate) fn handle(
        &self,
        plan: &Plan,
        index: usize,
        registries: Registries<'_>,
        seed: impl FnOnce() -> u64,
    ) -> UpstreamHandle {
        let (plan, configuration) = (&plan.upstreams[index], plan.snapshot.generation);
        match self.handles.borrow_mut().entry(plan.entity.id) {
            Entry::Occupied(known) => {
                known.get().borrow_mut().update(plan, registries, configuration);
                known.get().clone()
            }
            Entry::Vacant(place) => {
                let made = WorkerUpstream::new(plan.clone(), registries, configuration, seed());
                place.insert(Rc::new(RefCell::new(made))).clone()
            }
        }
    }

    /// Let the shares of targets that start slowly grow. Call about once a second.
    pub(crate) fn weigh(&self) {
        for handle in self.handles.borrow().values() {
            let mut upstream = handle.borrow_mut();
            if upstream.starts_slowly() {
                upstream.weigh();
            }
        }
    }

    /// Forget what `plan` has no more.
    pub(crate) fn retain(&self, plan: &Plan) {
        let mut handles = self.handles.borrow_mut();
        if !handles.is_empty() {
            let there: FxHashSet<EntityId> = plan.upstreams.iter().map(|upstream| upstream.entity.id).collect();
            handles.retain(|id, _| there.contains(id));
        }
    }
}

fn algorithm(plan: &UpstreamPlan) -> gateward_balance::Algorithm {
    match plan.entity.algorithm {
        Algorithm::RoundRobin => gateward_balance::Algorithm::RoundRobin,
        Algorithm::LeastConnections => gateward_balance::Algorithm::LeastConnections,
        Algorithm::ConsistentHashing => gateward_balance::Algorithm::ConsistentHashing { slots: plan.entity.slots },
        Algorithm::Latency => gateward_balance::Algorithm::Latency,
    }
}

fn targets(plan: &UpstreamPlan, health: Option<&UpstreamHealth>) -> Vec<Rc<WorkerTarget>> {
    let target = |(index, target): (usize, &TargetPlan)| {
        let health = health.and_then(|health| health.health_of(&target.entity.target, index));
        Rc::new(WorkerTarget { plan: target.clone(), health: health.unwrap_or_default() })
    };
    plan.targets.iter().enumerate().map(target).collect()
}

/// The targets with their shares. Consistent hashing keeps whole weights: others would move hashes back and forth.
fn specs(plan: &UpstreamPlan, targets: &[Rc<WorkerTarget>], health: Option<&UpstreamHealth>) -> Vec<TargetSpec> {
    let whole = plan.entity.algorithm == Algorithm::ConsistentHashing;
    let slow_start = health.and_then(UpstreamHealth::slow_start).filter(|_| !whole);
    let now_us = monotonic_us();
    let share = |target: &WorkerTarget| {
        let (full, since_us) = (target.entity.weight, target.health.since_us());
        match slow_start {
            Some(slow) if since_us > 0 => slow.weight(full, now_us.saturating_sub(since_us)),
            _ => full,
        }
    };
    let spec = |target: &Rc<WorkerTarget>| TargetSpec { name: target.entity.target.clone(), weight: share(target) };
    targets.iter().map(spec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::testing::{local, plan};
    use gateward_telemetry::{Limits, Telemetry};

    #[test]
    fn a_request_of_an_old_plan_does_not_bring_old_targets_back() {
        local(async {
            let telemetry = Telemetry::new(1, Limits::default());
            let plan = |target: &str, generation| {
                let config = format!(
                    "_format_version: '3.0'\nupstreams:\n- {{name: u, targets: [{{target: '127.0.0.1:{target}'}}]}}\n"
                );
                plan(&config, generation, &Settings::default(), &telemetry)
            };
            let (old, new) = (plan("1", 1), plan("2", 2));
            let known = Known::default();
            for (plan, port) in [(&old, 1), (&new, 2), (&old, 2), (&new, 2)] {
                let (health, protections) = (HealthRegistry::default(), Registry::default());
                let registries = Registries { health: &health, protections: &protections };
                let handle = known.handle(plan, 0, registries, || 0);
                let (_, target) = handle.borrow_mut().pick(None, &[], 0).unwrap();
                assert_eq!(target.port, port);
            }
        });
    }
}
