//! Health of targets, for the whole node: what is known, who tells, and what survives.
//!
//! [`HealthRegistry`] holds one [`UpstreamHealth`] per upstream of the configuration and one
//! [`gateward_balance::TargetHealth`] per address of a target. A new configuration, and a name that leads elsewhere
//! ([`follow_names`]), make new upstream records around the old healths: adding a target, changing a weight or a check,
//! an address more or less leave what is known of the others alone. Active checks ([`active`]), requests ([`UpstreamHealth::report`]) and the Admin API all end in the same places.

pub(crate) mod active;
mod grpc;
mod members;
mod probe;
mod rules;
mod upstream;

pub(crate) use grpc::serving_status;
pub(crate) use members::Member;
pub use upstream::{TargetAddress, UpstreamHealth};

use crate::plan::Plan;
use gateward_balance::{Outcome, Turned};
use gateward_model::EntityId;
use gateward_net::dns::Names;
use gateward_net::monotonic_us;
use rules::Judgement;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use upstream::Making;

/// Changes of names are taken together over this time.
const GATHERING: Duration = Duration::from_millis(5);

/// Who found that a target changed sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A check of the gateway's own.
    Active,
    /// Requests.
    Passive,
    /// Outlier detection.
    Outlier,
    /// An operator, through the Admin API.
    Manual,
    /// A new configuration that checks nothing any more, so that nothing could bring the target back.
    Configuration,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Active, Self::Passive, Self::Outlier, Self::Manual, Self::Configuration];

    /// Name in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::Outlier => "outlier",
            Self::Manual => "manual",
            Self::Configuration => "configuration",
        }
    }
}

/// State of a target as Kong names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetState {
    /// Nothing is checked.
    Off,
    /// Requests go there.
    Healthy,
    /// None do: unhealthy, or ejected as an outlier.
    Unhealthy,
    /// None can: its name has no address.
    Unresolved,
}

/// How a request to a target went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// An answer.
    Status(u16),
    /// A connection, whose content is not judged.
    Connected,
    /// No connection, or it broke.
    Broken,
    /// No answer in time.
    Late,
}

/// How often targets changed sides, by reason and side.
#[derive(Debug, Default)]
struct Turns([[AtomicU64; 2]; Reason::ALL.len()]);

/// Health of all upstreams of a node.
#[derive(Debug)]
pub struct HealthRegistry {
    upstreams: Mutex<HashMap<EntityId, Arc<UpstreamHealth>>>,
    /// Held while records are made.
    making: Mutex<()>,
    /// Where targets' names lead; `None`: nowhere.
    names: Option<Arc<Names>>,
    turns: Arc<Turns>,
    changed: watch::Sender<u64>,
}

impl HealthRegistry {
    /// With names looked up by `names`; without, only targets that are addresses are known.
    pub(crate) fn new(names: Option<Arc<Names>>) -> Self {
        Self {
            upstreams: Mutex::default(),
            making: Mutex::default(),
            names,
            turns: Arc::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// Follow `plan`, which is about to be served: keep what is known of the targets it still has.
    pub(crate) fn follow(&self, plan: &Plan) {
        if let Some(names) = &self.names {
            names.hold(plan.names());
        }
        let _one_at_a_time = lock(&self.making);
        let known = lock(&self.upstreams).clone();
        let making = Making { names: self.names.as_ref(), turns: &self.turns, now_us: monotonic_us() };
        let generation = plan.snapshot.generation;
        let mut made = Vec::new();
        let mut next = HashMap::with_capacity(plan.upstreams.len());
        for upstream in &plan.upstreams {
            let record = match known.get(&upstream.entity.id) {
                Some(before) if before.is_of(upstream) && !before.is_outdated() => before.clone(),
                before => {
                    let before = before.map(Arc::as_ref);
                    let record = Arc::new(UpstreamHealth::new(upstream, generation, before, &making));
                    made.push(record.clone());
                    record
                }
            };
            next.insert(upstream.entity.id, record);
        }
        let retired = std::mem::replace(&mut *lock(&self.upstreams), next);
        self.announce(&made);
        drop(retired);
    }

    /// Follow names that lead elsewhere than before.
    fn readdress(&self) {
        let _one_at_a_time = lock(&self.making);
        let outdated: Vec<Arc<UpstreamHealth>> =
            lock(&self.upstreams).values().filter(|record| record.is_outdated()).cloned().collect();
        let making = Making { names: self.names.as_ref(), turns: &self.turns, now_us: monotonic_us() };
        let make = |before: &Arc<UpstreamHealth>| {
            Arc::new(UpstreamHealth::new(&before.plan, before.configuration(), Some(before), &making))
        };
        let made: Vec<Arc<UpstreamHealth>> = outdated.iter().map(make).collect();
        lock(&self.upstreams).extend(made.iter().map(|record| (record.plan.entity.id, record.clone())));
        self.announce(&made);
    }

    fn announce(&self, made: &[Arc<UpstreamHealth>]) {
        made.iter().for_each(|record| record.announce());
        self.changed.send_modify(|generation| *generation += 1);
    }

    /// Where targets' names lead.
    pub(crate) fn names(&self) -> Option<&Arc<Names>> {
        self.names.as_ref()
    }

    /// The record of the upstream with this id as a worker that serves `configuration` may use it.
    pub(crate) fn record(&self, id: EntityId, configuration: u64) -> Option<Arc<UpstreamHealth>> {
        self.upstream(id).filter(|record| record.configuration() <= configuration)
    }

    /// Health of the upstream with this id.
    pub fn upstream(&self, id: EntityId) -> Option<Arc<UpstreamHealth>> {
        lock(&self.upstreams).get(&id).cloned()
    }

    /// How often targets changed sides since the start: (side, reason, count).
    pub fn turns(&self) -> impl Iterator<Item = (Turned, Reason, u64)> + '_ {
        Reason::ALL.into_iter().flat_map(|reason| {
            [Turned::Healthy, Turned::Unhealthy]
                .map(|turned| (turned, reason, self.turns.of(reason, turned).load(Relaxed)))
        })
    }
}

/// Have the upstreams of `registry` follow `names`, until the registry is gone.
pub(crate) async fn follow_names(registry: Weak<HealthRegistry>, names: Arc<Names>) {
    loop {
        names.changed().await;
        let Some(registry) = registry.upgrade() else { return };
        registry.readdress();
        drop(registry);
        tokio::time::sleep(GATHERING).await;
    }
}

impl Turns {
    fn of(&self, reason: Reason, turned: Turned) -> &AtomicU64 {
        &self.0[reason as usize][turned as usize]
    }
}

impl Judgement {
    /// What an attempt says; `None`: nothing.
    fn judge(&self, attempt: Attempt) -> Option<Outcome> {
        match attempt {
            Attempt::Broken => Some(Outcome::TcpFailure),
            Attempt::Late => Some(Outcome::Timeout),
            Attempt::Status(status) => self.judge_status(status),
            Attempt::Connected => (!self.by_status).then_some(Outcome::Success),
        }
    }

    /// What an answer with this status says.
    fn judge_status(&self, status: u16) -> Option<Outcome> {
        if !self.by_status {
            None
        } else if self.healthy.contains(&status) {
            Some(Outcome::Success)
        } else {
            self.unhealthy.contains(&status).then_some(Outcome::HttpFailure)
        }
    }
}

/// Nothing that holds these locks leaves things half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
