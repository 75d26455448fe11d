//! Targets of upstreams as one worker balances over them. The state lives beside the plan, so that counts and
//! averages survive a configuration change.

use crate::plan::{Plan, TargetPlan, UpstreamPlan};
use gateward_balance::{Balancer, TargetSpec, Ticket};
use gateward_model::{Algorithm, EntityId};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::rc::Rc;

/// One upstream on one worker.
pub(crate) struct WorkerUpstream {
    plan: UpstreamPlan,
    balancer: Balancer,
}

/// Shared by requests of old and new generations.
pub(crate) type UpstreamHandle = Rc<RefCell<WorkerUpstream>>;

impl WorkerUpstream {
    fn new(plan: UpstreamPlan, seed: u64) -> Self {
        let balancer = Balancer::new(algorithm(&plan), &specs(&plan), seed);
        Self { plan, balancer }
    }

    fn update(&mut self, plan: &UpstreamPlan) {
        if self.plan != *plan {
            self.balancer.update(algorithm(plan), &specs(plan));
            self.plan = plan.clone();
        }
    }

    /// The target for a request.
    pub(crate) fn pick(&mut self, hash: Option<u64>, excluded: &[usize], now_us: u64) -> Option<(Ticket, &TargetPlan)> {
        let ticket = self.balancer.pick(hash, excluded, |_| true, now_us)?;
        let target = self.plan.targets.get(ticket.index())?;
        Some((ticket, target))
    }

    pub(crate) fn entity(&self) -> &gateward_model::Upstream {
        &self.plan.entity
    }

    pub(crate) fn started(&mut self, ticket: Ticket, now_us: u64) {
        self.balancer.started(ticket, now_us);
    }

    pub(crate) fn finished(&mut self, ticket: Ticket, latency_us: Option<u64>, now_us: u64) {
        self.balancer.finished(ticket, latency_us, now_us);
    }
}

/// The upstreams of `plan`, keeping the state of those that were there before.
pub(crate) fn adopt(
    plan: &Plan,
    known: &mut FxHashMap<EntityId, UpstreamHandle>,
    mut seed: impl FnMut() -> u64,
) -> Vec<UpstreamHandle> {
    let mut next = FxHashMap::default();
    let mut handles = Vec::with_capacity(plan.upstreams.len());
    for upstream in &plan.upstreams {
        let handle = match known.remove(&upstream.entity.id) {
            Some(handle) => {
                handle.borrow_mut().update(upstream);
                handle
            }
            None => Rc::new(RefCell::new(WorkerUpstream::new(upstream.clone(), seed()))),
        };
        next.insert(upstream.entity.id, handle.clone());
        handles.push(handle);
    }
    *known = next;
    handles
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
