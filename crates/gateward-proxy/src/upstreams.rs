//! Targets of upstreams as one worker balances over them: every address of each. The state lives beside the plan, so
//! that counts and averages survive a configuration change, and a name that leads elsewhere.

use crate::error::ProxyError;
use crate::health::{Attempt, HealthRegistry, Member, UpstreamHealth};
use crate::plan::{Plan, UpstreamPlan};
use crate::protection::{Protection, Registry};
use gateward_balance::{Balancer, TargetSpec, Ticket};
use gateward_model::{Algorithm, EntityId};
use gateward_net::{Deadline, monotonic_us};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;

/// An address of a target as requests hold it: a worker's own copy, because a count shared between cores would be
/// fought over.
pub(crate) type WorkerTarget = Member;

/// One upstream on one worker.
pub(crate) struct WorkerUpstream {
    plan: Arc<UpstreamPlan>,
    health: Arc<UpstreamHealth>,
    /// How many records there were before `health` was taken; 0: take it again to be sure.
    record: u64,
    /// Changes of health that the shares take account of.
    weighed: u64,
    /// Shares grow with time.
    ramping: bool,
    /// Of the configuration it was last brought to.
    configuration: u64,
    /// The members of `health`, to be held by requests under way.
    targets: Vec<Rc<WorkerTarget>>,
    balancer: Balancer,
    protection: Option<Rc<Protection>>,
}

/// Shared by requests of old and new generations.
pub(crate) type UpstreamHandle = Rc<RefCell<WorkerUpstream>>;

impl WorkerUpstream {
    fn new(plan: Arc<UpstreamPlan>, registries: Registries<'_>, configuration: u64, seed: u64) -> Self {
        let health = registries.record(&plan, configuration);
        let targets = targets(&health);
        let (specs, ramping) = specs(&plan, &targets, &health);
        let balancer = Balancer::new(algorithm(&plan), &specs, seed);
        let protection = protection(&plan, registries, None);
        Self { plan, health, record: 0, weighed: 0, ramping, configuration, targets, balancer, protection }
    }

    /// Follow `plan`, unless a request that began under an earlier configuration brings it.
    fn update(&mut self, plan: &Arc<UpstreamPlan>, registries: Registries<'_>, configuration: u64) {
        if configuration <= self.configuration {
            return;
        }
        self.configuration = configuration;
        if self.plan.entity.resilience != plan.entity.resilience {
            self.protection = protection(plan, registries, self.protection.as_ref());
        }
        self.plan = plan.clone();
        let health = registries.record(plan, configuration);
        self.record = 0;
        self.take(health);
    }

    /// Follow the names of its targets. Costs a load while nothing changed.
    pub(crate) fn follow_names(&mut self, registries: Registries<'_>) {
        // Read first: what comes meanwhile is taken the next time.
        let records = self.health.records();
        if records != self.record
            && let Some(health) = registries.health.record(self.plan.entity.id, self.configuration)
        {
            self.record = records;
            self.take(health);
        }
    }

    fn take(&mut self, health: Arc<UpstreamHealth>) {
        if !Arc::ptr_eq(&self.health, &health) {
            self.targets = targets(&health);
            self.health = health;
        }
        self.weigh();
    }

    /// What is known of its targets.
    pub(crate) fn health(&self) -> &Arc<UpstreamHealth> {
        &self.health
    }

    /// Give every target the share it has now: less than its weight while it starts slowly.
    pub(crate) fn weigh(&mut self) {
        let (specs, ramping) = specs(&self.plan, &self.targets, &self.health);
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
        if self.health.is_short() {
            return None;
        }
        if self.health.slow_start().is_some() && self.health.changes() != self.weighed {
            // Somebody is back, and starts small from the first request on.
            self.weighed = self.health.changes();
            self.weigh();
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
        self.health.report(&target.health, &target.name, attempt);
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

/// What `pick` gives for an upstream that had no target, as soon as the names of its targets have been looked up.
/// `deadline` is armed: it says how long that may take.
pub(crate) async fn pick_when_resolved<T>(
    handle: &UpstreamHandle,
    deadline: &Deadline,
    mut pick: impl FnMut() -> Result<T, ProxyError>,
) -> Result<T, ProxyError> {
    loop {
        let health = handle.borrow().health().clone();
        let mut renewed = health.renewed();
        match pick() {
            Err(ProxyError::NoTarget) => {}
            picked => return picked,
        }
        let health = handle.borrow().health().clone();
        if !health.is_pending() {
            return Err(if health.is_unresolved() { ProxyError::NameResolution } else { ProxyError::NoTarget });
        }
        let waited = deadline.guard(Box::pin(renewed.changed())).await;
        waited.map_err(|_| ProxyError::NameResolution)?.map_err(|_| ProxyError::NameResolution)?;
    }
}

/// What the node knows of all upstreams.
#[derive(Clone, Copy)]
pub(crate) struct Registries<'a> {
    pub(crate) health: &'a HealthRegistry,
    pub(crate) protections: &'a Registry,
}

impl Registries<'_> {
    /// The record of an upstream under this configuration.
    fn record(&self, plan: &Arc<UpstreamPlan>, configuration: u64) -> Arc<UpstreamHealth> {
        self.health
            .record(plan.entity.id, configuration)
            .unwrap_or_else(|| Arc::new(UpstreamHealth::apart(plan, configuration, self.health.names())))
    }
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

pub(crate) fn algorithm(plan: &UpstreamPlan) -> gateward_balance::Algorithm {
    match plan.entity.algorithm {
        Algorithm::RoundRobin => gateward_balance::Algorithm::RoundRobin,
        Algorithm::LeastConnections => gateward_balance::Algorithm::LeastConnections,
        Algorithm::ConsistentHashing => gateward_balance::Algorithm::ConsistentHashing { slots: plan.entity.slots },
        Algorithm::Latency => gateward_balance::Algorithm::Latency,
    }
}

fn targets(health: &UpstreamHealth) -> Vec<Rc<WorkerTarget>> {
    health.members().iter().map(|member| Rc::new(member.clone())).collect()
}

/// While shares grow, all weights are this many times what they are, so that small ones can be divided too.
const FINER: u16 = 100;

/// The targets with their shares, and whether any of these still grows. Consistent hashing keeps whole weights: others
/// would move hashes back and forth.
pub(crate) fn specs(
    plan: &UpstreamPlan,
    targets: &[impl std::borrow::Borrow<WorkerTarget>],
    health: &UpstreamHealth,
) -> (Vec<TargetSpec>, bool) {
    let targets: Vec<&WorkerTarget> = targets.iter().map(std::borrow::Borrow::borrow).collect();
    let whole = plan.entity.algorithm == Algorithm::ConsistentHashing;
    let slow_start = health.slow_start().filter(|_| !whole);
    let now_us = monotonic_us();
    let growing = |target: &WorkerTarget| {
        let since_us = target.health.since_us();
        let elapsed_us = now_us.saturating_sub(since_us);
        slow_start.filter(|slow| since_us > 0 && !slow.is_over(elapsed_us)).map(|slow| (slow, elapsed_us))
    };
    let any = targets.iter().any(|target| growing(target).is_some());
    let most = targets.iter().map(|target| target.weight).max().unwrap_or(0).max(1);
    let factor = if any { FINER.min(u16::MAX / most) } else { 1 };
    let spec = |target: &&WorkerTarget| {
        let full = target.weight * factor;
        let weight = growing(target).map_or(full, |(slow, elapsed_us)| slow.weight(full, elapsed_us));
        TargetSpec { name: target.name.to_string(), weight }
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
                let (health, protections) = (HealthRegistry::new(None), Registry::default());
                let registries = Registries { health: &health, protections: &protections };
                let handle = known.handle(plan, 0, registries, || 0);
                let (_, target) = handle.borrow_mut().pick(None, &[], 0).unwrap();
                assert_eq!(target.address.port(), port);
            }
        });
    }

    /// An upstream `u` of two targets as one worker has it, and its health.
    fn with_slow_start(algorithm: &str, weights: [u16; 2]) -> (UpstreamHandle, Arc<UpstreamHealth>) {
        let telemetry = Telemetry::new(1, Limits::default());
        let [left, right] = weights;
        let config = format!(
            "_format_version: '3.0'\nupstreams:\n- {{name: u, algorithm: {algorithm}, resilience: {{slow_start: {{window: 3600, min_weight_percent: 20}}}}, targets: [{{target: '10.0.0.1:1', weight: {left}}}, {{target: '10.0.0.2:1', weight: {right}}}]}}\n"
        );
        let plan = plan(&config, 1, &Settings::default(), &telemetry);
        let (health, protections) = (HealthRegistry::new(None), Registry::default());
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
                counts[usize::from(*target.name == *"10.0.0.2:1")] += 1;
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
                    health.set("10.0.0.2:1", None, false);
                    assert_eq!(shares(&handle, 60), [60, 0], "{algorithm}");
                    health.set("10.0.0.2:1", None, true);
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
            health.set("10.0.0.2:1", None, false);
            assert!(owners().iter().all(|index| *index == 0));
            health.set("10.0.0.2:1", None, true);
            assert_eq!(owners(), before);
        });
    }
}
