//! Targets of upstreams as one worker balances over them. The state lives beside the plan, so that counts and
//! averages survive a configuration change.

use crate::plan::{Plan, TargetPlan, UpstreamPlan};
use gateward_balance::{Balancer, TargetSpec, Ticket};
use gateward_model::{Algorithm, EntityId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;

/// One upstream on one worker.
pub(crate) struct WorkerUpstream {
    plan: UpstreamPlan,
    /// Of the configuration it was last brought to.
    configuration: u64,
    /// The plan's targets, to be held by requests under way.
    targets: Vec<Rc<TargetPlan>>,
    balancer: Balancer,
}

/// Shared by requests of old and new generations.
pub(crate) type UpstreamHandle = Rc<RefCell<WorkerUpstream>>;

impl WorkerUpstream {
    fn new(plan: UpstreamPlan, configuration: u64, seed: u64) -> Self {
        let balancer = Balancer::new(algorithm(&plan), &specs(&plan), seed);
        let targets = plan.targets.iter().cloned().map(Rc::new).collect();
        Self { plan, configuration, targets, balancer }
    }

    /// Follow `plan`, unless a request that began under an earlier configuration brings it.
    fn update(&mut self, plan: &UpstreamPlan, configuration: u64) {
        if configuration <= self.configuration {
            return;
        }
        self.configuration = configuration;
        if self.plan != *plan {
            self.balancer.update(algorithm(plan), &specs(plan));
            self.targets = plan.targets.iter().cloned().map(Rc::new).collect();
            self.plan = plan.clone();
        }
    }

    /// The target for a request.
    pub(crate) fn pick(
        &mut self,
        hash: Option<u64>,
        excluded: &[usize],
        now_us: u64,
    ) -> Option<(Ticket, Rc<TargetPlan>)> {
        let ticket = self.balancer.pick(hash, excluded, |_| true, now_us)?;
        let target = self.targets.get(ticket.index())?;
        Some((ticket, target.clone()))
    }

    /// Changes when the targets do: indices from before mean nothing then.
    pub(crate) fn generation(&self) -> u64 {
        self.balancer.generation()
    }

    pub(crate) fn entity(&self) -> &Arc<gateward_model::Upstream> {
        &self.plan.entity
    }

    pub(crate) fn started(&mut self, ticket: Ticket, now_us: u64) {
        self.balancer.started(ticket, now_us);
    }

    pub(crate) fn finished(&mut self, ticket: Ticket, latency_us: Option<u64>, now_us: u64) {
        self.balancer.finished(ticket, latency_us, now_us);
    }
}

/// The upstreams a worker has used, made at first use, kept while the configuration has them.
#[derive(Default)]
pub(crate) struct Known {
    handles: RefCell<FxHashMap<EntityId, UpstreamHandle>>,
}

impl Known {
    /// The state of an upstream by its index in `plan`, as that or a later plan has it.
    pub(crate) fn handle(&self, plan: &Plan, index: usize, seed: impl FnOnce() -> u64) -> UpstreamHandle {
        let (plan, configuration) = (&plan.upstreams[index], plan.snapshot.generation);
        match self.handles.borrow_mut().entry(plan.entity.id) {
            Entry::Occupied(known) => {
                known.get().borrow_mut().update(plan, configuration);
                known.get().clone()
            }
            Entry::Vacant(place) => {
                let made = WorkerUpstream::new(plan.clone(), configuration, seed());
                place.insert(Rc::new(RefCell::new(made))).clone()
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

fn specs(plan: &UpstreamPlan) -> Vec<TargetSpec> {
    let spec = |target: &TargetPlan| TargetSpec { name: target.entity.target.clone(), weight: target.entity.weight };
    plan.targets.iter().map(spec).collect()
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
                let handle = known.handle(plan, 0, || 0);
                let (_, target) = handle.borrow_mut().pick(None, &[], 0).unwrap();
                assert_eq!(target.port, port);
            }
        });
    }
}
