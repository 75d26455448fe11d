//! Health of targets, for the whole node: what is known, who tells, and what survives.
//!
//! [`HealthRegistry`] holds one [`UpstreamHealth`] per upstream of the configuration and one
//! [`gateward_balance::TargetHealth`] per target. A new configuration makes new upstream records around the old
//! targets' health: adding a target, changing a weight or a check leaves what is known of the others alone. Active
//! checks ([`active`]), requests ([`UpstreamHealth::report`]) and the Admin API all end in the same places.

pub(crate) mod active;
mod grpc;
mod probe;
mod rules;
mod upstream;

pub(crate) use grpc::serving_status;
pub use upstream::UpstreamHealth;

use crate::plan::Plan;
use gateward_balance::{Outcome, Turned};
use gateward_model::EntityId;
use gateward_net::monotonic_us;
use rules::Judgement;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

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
}

/// How a request to a target went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// An answer.
    Status(u16),
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
    turns: Arc<Turns>,
    changed: watch::Sender<u64>,
}

impl Default for HealthRegistry {
    fn default() -> Self {
        Self { upstreams: Mutex::default(), turns: Arc::default(), changed: watch::Sender::new(0) }
    }
}

impl HealthRegistry {
    /// Follow `plan`, which is about to be served: keep what is known of the targets it still has.
    pub(crate) fn follow(&self, plan: &Plan) {
        let now = monotonic_us();
        let mut upstreams = lock(&self.upstreams);
        let mut known = std::mem::take(&mut *upstreams);
        for upstream in &plan.upstreams {
            let before = known.remove(&upstream.entity.id);
            let next = match before {
                Some(before) if before.is_of(upstream) => before,
                before => Arc::new(UpstreamHealth::new(upstream, before.as_deref(), self.turns.clone(), now)),
            };
            upstreams.insert(upstream.entity.id, next);
        }
        drop(upstreams);
        self.changed.send_modify(|generation| *generation += 1);
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
