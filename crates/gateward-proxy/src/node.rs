//! What all workers of a node share: settings, the current plan, telemetry, the stage of a shutdown.

use crate::health::{HealthRegistry, follow_names};
use crate::plan::Plan;
use crate::protection::Registry;
use crate::settings::Settings;
use crate::upstreams::Registries;
use arc_swap::ArcSwap;
use gateward_net::dns::Names;
use gateward_net::{AddressCounts, Drain};
use gateward_telemetry::{AccessLog, Telemetry};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a retired plan is kept for exchanges that still use it; a later end drops it where it happens.
const RETIRE_WITHIN: Duration = Duration::from_secs(60);
/// How often a retired plan is looked at.
const RETIRE_LOOK: Duration = Duration::from_millis(100);

/// A node's shared state.
pub struct Node {
    /// Settings of the data plane.
    pub settings: Settings,
    /// Metrics.
    pub telemetry: Arc<Telemetry>,
    /// Where access log lines go, if anywhere.
    pub access_log: Option<AccessLog>,
    /// Stage of the shutdown.
    pub drain: Drain,
    /// Names and where they lead.
    pub names: Arc<Names>,
    /// What is known of targets.
    pub health: Arc<HealthRegistry>,
    pub(crate) addresses: AddressCounts,
    pub(crate) protections: Registry,
    plan: ArcSwap<Plan>,
    generation: AtomicU64,
    /// Connections that were numbered.
    numbered: AtomicU64,
}

impl Node {
    /// A node that starts with `plan`. Its names begin to be looked up.
    pub fn new(
        settings: Settings,
        telemetry: Arc<Telemetry>,
        access_log: Option<AccessLog>,
        names: Arc<Names>,
        plan: Plan,
    ) -> Arc<Self> {
        let generation = AtomicU64::new(plan.snapshot.generation);
        let addresses = AddressCounts::new(settings.limits.connections_per_address);
        let health = Arc::new(HealthRegistry::new(Some(names.clone())));
        health.follow(&plan);
        names.runtime().spawn(follow_names(Arc::downgrade(&health), names.clone()));
        Arc::new(Self {
            settings,
            names,
            health,
            telemetry,
            access_log,
            drain: Drain::new(),
            addresses,
            protections: Registry::default(),
            plan: ArcSwap::from_pointee(plan),
            generation,
            numbered: AtomicU64::new(0),
        })
    }

    /// Serve `plan` from the next request of each worker on. Exchanges under way keep theirs.
    pub fn swap(&self, plan: Plan) {
        let generation = plan.snapshot.generation;
        self.health.follow(&plan);
        let retired = self.plan.swap(Arc::new(plan));
        self.generation.store(generation, Ordering::Release);
        retire(retired);
    }

    /// The serial number of a connection that begins, from 1. As nginx's `$connection` it is one row for all workers.
    pub(crate) fn number_connection(&self) -> u64 {
        self.numbered.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn registries(&self) -> Registries<'_> {
        Registries { health: &self.health, protections: &self.protections }
    }

    /// The plan being served.
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Generation of the plan being served: what workers compare per request, so that they need not touch the plan.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// Keep `plan` until no worker uses it, so that tearing down a large one never falls to a worker.
fn retire(plan: Arc<Plan>) {
    let wait = move || {
        let patience = Instant::now() + RETIRE_WITHIN;
        while Arc::strong_count(&plan) > 1 && Instant::now() < patience {
            std::thread::park_timeout(RETIRE_LOOK);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("retire-plan".into()).spawn(wait) {
        tracing::warn!(%error, "no thread for a retired configuration; a worker will drop it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Node>();
    }
}
