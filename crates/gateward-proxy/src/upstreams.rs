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
    /// Changes of health that the shares take account of.
    weighed: u64,
    /// Shares grow with time.
    ramping: bool,
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
        let (specs, ramping) = specs(&plan, &targets, health.as_deref());
        let balancer = Balancer::new(algorithm(&plan), &specs, seed);
        let protection = protection(&plan, registries, None);
        Self { plan, health, weighed: 0, ramping, configuration, targets, balancer, protection }
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
        let (specs, ramping) = specs(&self.plan, &self.targets, self.health.as_deref());
        self.ramping = ramping;
        self.balancer.update(algorithm(&self.plan), &specs);
    }

    /// The target for a request.
    pub(crate) fn pick(
        &mut self,
        hash: Option<u64>,
        excluded: &[usize],
        now_us: u64,
    ) -> Option<(Ticket, Rc<WorkerTarget>)> {
        if let Some(health) = &self.health {
            if health.is_short() {
                return None;
            }
            if health.slow_start().is_some() && health.changes() != self.weighed {
                // Somebody is back, and starts small from the first request on.
                self.weighed = health.changes();
                self.weigh();
            }
        }
        let targets = &self.targets;
        let available = |index: usize| targets.get(index).is_some_and(|target| target.health.is_available());
        let healthy = |index: usize| targets.get(index).is_some_and(|target| target.health.is_healthy());
        let ticket = match self.balancer.pick(hash, excluded, available, now_us) {
            Some(ticket) => ticket,
            // An outlier is worse than the others; where there are no others, it will do.
            None => self.balancer.pick(hash, excluded, healthy, now_us)?,
        };
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
            if upstream.ramping {
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

/// While shares grow, all weights are this many times what they are, so that small ones can be divided too.
const FINER: u16 = 100;

/// The targets with their shares, and whether any of these still grows. Consistent hashing keeps whole weights: others
/// would move hashes back and forth.
fn specs(
    plan: &UpstreamPlan,
    targets: &[Rc<WorkerTarget>],
    health: Option<&UpstreamHealth>,
) -> (Vec<TargetSpec>, bool) {
    let whole = plan.entity.algorithm == Algorithm::ConsistentHashing;
    let slow_start = health.and_then(UpstreamHealth::slow_start).filter(|_| !whole);
    let now_us = monotonic_us();
    let growing = |target: &WorkerTarget| {
        let since_us = target.health.since_us();
        let elapsed_us = now_us.saturating_sub(since_us);
        slow_start.filter(|slow| since_us > 0 && !slow.is_over(elapsed_us)).map(|slow| (slow, elapsed_us))
    };
    let any = targets.iter().any(|target| growing(target).is_some());
    let most = targets.iter().map(|target| target.entity.weight).max().unwrap_or(0).max(1);
    let factor = if any { FINER.min(u16::MAX / most) } else { 1 };
    let spec = |target: &Rc<WorkerTarget>| {
        let full = target.entity.weight * factor;
        let weight = growing(target).map_or(full, |(slow, elapsed_us)| slow.weight(full, elapsed_us));
        TargetSpec { name: target.entity.target.clone(), weight }
    };
    (targets.iter().map(spec).collect(), any)
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

    /// An upstream `u` of two targets as one worker has it, and its health.
    fn with_slow_start(algorithm: &str, weights: [u16; 2]) -> (UpstreamHandle, Arc<UpstreamHealth>) {
        let telemetry = Telemetry::new(1, Limits::default());
        let [left, right] = weights;
        let config = format!(
            "_format_version: '3.0'\nupstreams:\n- {{name: u, algorithm: {algorithm}, resilience: {{slow_start: {{window: 3600, min_weight_percent: 20}}}}, targets: [{{target: 'a:1', weight: {left}}}, {{target: 'b:1', weight: {right}}}]}}\n"
        );
        let plan = plan(&config, 1, &Settings::default(), &telemetry);
        let (health, protections) = (HealthRegistry::default(), Registry::default());
        health.follow(&plan);
        let registries = Registries { health: &health, protections: &protections };
        let handle = Known::default().handle(&plan, 0, registries, || 0);
        (handle, health.upstream(plan.upstreams[0].entity.id).unwrap())
    }

    /// How many of `requests` at a time go to each target.
    fn shares(handle: &UpstreamHandle, requests: usize) -> [usize; 2] {
        let mut counts = [0; 2];
        let mut upstream = handle.borrow_mut();
        let tickets: Vec<Ticket> = (0..requests)
            .map(|_| {
                let (ticket, target) = upstream.pick(None, &[], 0).unwrap();
                counts[usize::from(target.entity.target == "b:1")] += 1;
                upstream.started(ticket, 0);
                ticket
            })
            .collect();
        tickets.into_iter().for_each(|ticket| upstream.finished(ticket, Some(1_000), 0));
        counts
    }

    #[test]
    fn a_target_that_is_back_starts_small_at_once_whatever_its_weight() {
        local(async {
            for algorithm in ["round-robin", "least-connections", "latency"] {
                for weights in [[1, 1], [100, 100], [60_000, 60_000]] {
                    let (handle, health) = with_slow_start(algorithm, weights);
                    assert_eq!(shares(&handle, 60), [30, 30], "{algorithm}");
                    health.set("b:1", false);
                    assert_eq!(shares(&handle, 60), [60, 0], "{algorithm}");
                    health.set("b:1", true);
                    let [left, right] = shares(&handle, 60);
                    // A fifth of the other's weight; weights near the limit are not made finer.
                    assert!(left + right == 60 && (8..=12).contains(&right), "{algorithm} {weights:?}: {right}");
                }
            }
        });
    }

    #[test]
    fn hashes_stay_with_a_target_that_is_back() {
        local(async {
            let (handle, health) = with_slow_start("consistent-hashing, hash_on: ip", [100, 100]);
            let owners = || -> Vec<usize> {
                let mut upstream = handle.borrow_mut();
                (0..200).map(|hash| upstream.pick(Some(hash), &[], 0).unwrap().0.index()).collect()
            };
            let before = owners();
            health.set("b:1", false);
            assert!(owners().iter().all(|index| *index == 0));
            health.set("b:1", true);
            assert_eq!(owners(), before);
        });
    }
}
