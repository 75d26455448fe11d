//! Health of targets, for the whole node: what is known, who tells, and what survives.
//!
//! [`HealthRegistry`] holds one [`UpstreamHealth`] per upstream of the configuration and one
//! [`gateward_balance::TargetHealth`] per target. A new configuration makes new upstream records around the old
//! targets' health: adding a target, changing a weight or a check leaves what is known of the others alone. Active
//! checks ([`active`]), requests ([`UpstreamHealth::report`]) and the Admin API all end in the same places.

pub(crate) mod active;
mod probe;
mod rules;

use crate::plan::{Plan, UpstreamPlan};
use gateward_balance::{Ejection, Outcome, SlowStart, TargetHealth, Turned, outlier};
use gateward_model::EntityId;
use gateward_net::monotonic_us;
use rules::{Judgement, Rules};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
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
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Active, Self::Passive, Self::Outlier, Self::Manual];

    /// Name in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::Outlier => "outlier",
            Self::Manual => "manual",
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

/// Health of one upstream's targets under one configuration.
#[derive(Debug)]
pub struct UpstreamHealth {
    name: String,
    rules: Rules,
    targets: Vec<Watched>,
    ejections: Mutex<Vec<Ejection>>,
    /// Less of the weight is available than the threshold asks for.
    short: AtomicBool,
    turns: Arc<Turns>,
}

/// A target and its health.
#[derive(Debug, Clone)]
struct Watched {
    name: String,
    host: String,
    port: u16,
    weight: u16,
    health: Arc<TargetHealth>,
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

impl UpstreamHealth {
    fn new(plan: &UpstreamPlan, before: Option<&Self>, turns: Arc<Turns>, now_us: u64) -> Self {
        let targets: Vec<Watched> = plan
            .targets
            .iter()
            .enumerate()
            .map(|(index, target)| Watched {
                name: target.entity.target.clone(),
                host: target.host.clone(),
                port: target.port,
                weight: target.entity.weight,
                health: match before {
                    Some(before) => before
                        .health_of(&target.entity.target, index)
                        .unwrap_or_else(|| Arc::new(TargetHealth::newcomer(now_us))),
                    None => Arc::default(),
                },
            })
            .collect();
        // What was remembered of ejections goes with the target.
        let ejection = |target: &Watched| {
            let before = before?;
            let index = before.targets.iter().position(|other| other.name == target.name)?;
            lock(&before.ejections).get(index).copied()
        };
        let ejections = targets.iter().map(|target| ejection(target).unwrap_or_default()).collect();
        let health = Self {
            name: plan.entity.name.clone(),
            rules: Rules::of(&plan.entity),
            targets,
            ejections: Mutex::new(ejections),
            short: AtomicBool::new(false),
            turns,
        };
        health.weigh();
        health
    }

    /// Whether nothing that matters differs in `plan`.
    fn is_of(&self, plan: &UpstreamPlan) -> bool {
        let same = |(watched, target): (&Watched, &crate::plan::TargetPlan)| {
            watched.name == target.entity.target && watched.weight == target.entity.weight
        };
        self.name == plan.entity.name
            && self.targets.len() == plan.targets.len()
            && self.targets.iter().zip(&plan.targets).all(same)
            && self.rules == Rules::of(&plan.entity)
    }

    /// Health of the target called `name`, which probably is the one at `index`.
    pub(crate) fn health_of(&self, name: &str, index: usize) -> Option<Arc<TargetHealth>> {
        let named = |target: &&Watched| target.name == name;
        let found = self.targets.get(index).filter(named).or_else(|| self.targets.iter().find(named));
        found.map(|target| target.health.clone())
    }

    /// State of the target called `name`; `None`: there is none.
    pub fn state(&self, name: &str) -> Option<TargetState> {
        let target = self.targets.iter().find(|target| target.name == name)?;
        Some(match (target.health.is_available(), self.rules.is_checked()) {
            (false, _) => TargetState::Unhealthy,
            (true, true) => TargetState::Healthy,
            (true, false) => TargetState::Off,
        })
    }

    /// Whether enough of the weight is available; `None`: nothing is checked.
    pub fn is_available(&self) -> Option<bool> {
        self.rules.is_checked().then(|| {
            let any = self.targets.iter().any(|target| target.weight > 0 && target.health.is_available());
            any && !self.is_short()
        })
    }

    /// Less of the weight is available than the threshold asks for, so that no target may be chosen.
    pub(crate) fn is_short(&self) -> bool {
        self.short.load(Relaxed)
    }

    /// How new and returning targets get their share.
    pub(crate) fn slow_start(&self) -> Option<&SlowStart> {
        self.rules.slow_start.as_ref()
    }

    /// Make a target healthy or not by hand; whether there is one of this name.
    pub fn set(&self, name: &str, healthy: bool) -> bool {
        let Some(target) = self.targets.iter().find(|target| target.name == name) else { return false };
        let turned = target.health.set(healthy, monotonic_us());
        self.turned(&target.name, turned, Reason::Manual);
        true
    }

    /// What a request to a target tells about it.
    pub(crate) fn report(&self, target: &TargetHealth, name: &str, attempt: Attempt) {
        if let Some(passive) = &self.rules.passive
            && let Some(outcome) = passive.judge(attempt)
        {
            self.turned(name, target.report(outcome, &passive.limits, monotonic_us()), Reason::Passive);
        }
        if let Some(outlier) = &self.rules.outlier {
            let failed = !matches!(attempt, Attempt::Status(..500));
            if target.attempted(failed, &outlier.rules) {
                self.eject(name);
            }
        }
    }

    /// Too many failures in a row.
    fn eject(&self, name: &str) {
        let Some(outlier) = &self.rules.outlier else { return };
        let Some(index) = self.targets.iter().position(|target| target.name == name) else { return };
        let mut ejections = lock(&self.ejections);
        let pairs: Vec<_> = self.targets.iter().map(|target| &*target.health).zip(ejections.iter_mut()).collect();
        if let Some(ejection) = outlier::eject(&pairs, index, &outlier.rules, monotonic_us()) {
            ejections[index] = ejection;
            drop(ejections);
            self.turned(name, Some(Turned::Unhealthy), Reason::Outlier);
        }
    }

    /// Let ejected targets back whose time is over; at the end of an interval, compare the success rates.
    fn tick(&self, interval_over: bool) {
        let Some(outlier) = &self.rules.outlier else { return };
        let mut ejections = lock(&self.ejections);
        let mut pairs: Vec<_> = self.targets.iter().map(|target| &*target.health).zip(ejections.iter_mut()).collect();
        let turned = outlier::tick(&mut pairs, &outlier.rules, interval_over, monotonic_us());
        drop(ejections);
        for (index, turned) in turned {
            self.turned(&self.targets[index].name, Some(turned), Reason::Outlier);
        }
    }

    fn turned(&self, target: &str, turned: Option<Turned>, reason: Reason) {
        let Some(turned) = turned else { return };
        self.weigh();
        self.turns.of(reason, turned).fetch_add(1, Relaxed);
        let (upstream, reason) = (&self.name, reason.label());
        match turned {
            Turned::Healthy => tracing::info!(upstream, target, reason, "target is healthy: it gets requests again"),
            Turned::Unhealthy => tracing::warn!(upstream, target, reason, "target is unhealthy: it gets no requests"),
        }
    }

    /// See whether the available weight reaches the threshold.
    fn weigh(&self) {
        if self.rules.threshold <= 0.0 {
            return;
        }
        let weight = |target: &Watched| u64::from(target.weight);
        let total: u64 = self.targets.iter().map(weight).sum();
        let available: u64 = self.targets.iter().filter(|target| target.health.is_available()).map(weight).sum();
        self.short.store((available as f64) * 100.0 < self.rules.threshold * total as f64, Relaxed);
    }
}

impl Judgement {
    /// What an attempt says; `None`: nothing.
    fn judge(&self, attempt: Attempt) -> Option<Outcome> {
        match attempt {
            Attempt::Broken => Some(Outcome::TcpFailure),
            Attempt::Late => Some(Outcome::Timeout),
            Attempt::Status(_) if !self.by_status => None,
            Attempt::Status(status) if self.healthy.contains(&status) => Some(Outcome::Success),
            Attempt::Status(status) if self.unhealthy.contains(&status) => Some(Outcome::HttpFailure),
            Attempt::Status(_) => None,
        }
    }
}

/// Nothing that holds these locks leaves things half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
