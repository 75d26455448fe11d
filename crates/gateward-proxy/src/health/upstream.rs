//! Health of one upstream's targets: who is told of what, and what follows from it.
//!
//! There is one record per configuration, and [`Shared`] holds what all records of an upstream have in common: a
//! worker that still serves an earlier configuration sees, and changes, the same state.

use super::rules::{Outlier, Rules};
use super::{Attempt, Reason, TargetState, Turns, lock};
use crate::plan::{TargetPlan, UpstreamPlan};
use gateward_balance::outlier::{self, Sign};
use gateward_balance::{Ejection, SlowStart, TargetHealth, Turned};
use gateward_net::monotonic_us;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, TryLockError};
use tokio::sync::Notify;

/// Health of one upstream's targets under one configuration.
#[derive(Debug)]
pub struct UpstreamHealth {
    name: String,
    pub(super) rules: Rules,
    pub(super) targets: Vec<Watched>,
    ejections: Mutex<Vec<Ejection>>,
    pub(super) shared: Arc<Shared>,
    turns: Arc<Turns>,
}

/// A target and its health.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) weight: u16,
    pub(super) health: Arc<TargetHealth>,
}

/// What outlives configurations.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// What the current configuration has to weigh.
    weights: Mutex<Weights>,
    /// No more of the weight is healthy than the threshold, so that no target may be chosen.
    short: AtomicBool,
    /// Counts changes of sides.
    changes: AtomicU64,
    /// Told when a target was ejected.
    pub(super) ejected: Notify,
}

#[derive(Debug, Default)]
struct Weights {
    threshold: f64,
    targets: Vec<(u16, Arc<TargetHealth>)>,
}

impl UpstreamHealth {
    /// The record for `plan`. What `before` knows of targets that stay is kept; new ones appear at `now_us`.
    pub(super) fn new(plan: &UpstreamPlan, before: Option<&Self>, turns: Arc<Turns>, now_us: u64) -> Self {
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
            rules: Rules::of(plan),
            targets,
            ejections: Mutex::new(ejections),
            shared: before.map(|before| before.shared.clone()).unwrap_or_default(),
            turns,
        };
        health.shared.weigh_from_now_on(&health);
        health.let_go_of_what_is_over(before, now_us);
        health
    }

    /// Whether nothing that matters differs in `plan`.
    pub(super) fn is_of(&self, plan: &UpstreamPlan) -> bool {
        let same = |(watched, target): (&Watched, &TargetPlan)| {
            watched.name == target.entity.target && watched.weight == target.entity.weight
        };
        self.name == plan.entity.name
            && self.targets.len() == plan.targets.len()
            && self.targets.iter().zip(&plan.targets).all(same)
            && self.rules == Rules::of(plan)
    }

    /// Where checks or detection were switched off, nothing would ever bring back whom they took out.
    fn let_go_of_what_is_over(&self, before: Option<&Self>, now_us: u64) {
        let unchecked = !self.rules.is_checked() && before.is_some_and(|before| before.rules.is_checked());
        for target in &self.targets {
            if self.rules.outlier.is_none() {
                self.turned(&target.name, target.health.let_back(now_us), Reason::Configuration);
            }
            if unchecked {
                self.turned(&target.name, target.health.set(true, now_us), Reason::Configuration);
            }
        }
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

    /// Whether requests find a target; `None`: nothing is checked.
    pub fn is_available(&self) -> Option<bool> {
        self.rules.is_checked().then(|| {
            let any = self.targets.iter().any(|target| target.weight > 0 && target.health.is_healthy());
            any && !self.is_short()
        })
    }

    /// No more of the weight is healthy than the threshold, so that no target may be chosen.
    pub(crate) fn is_short(&self) -> bool {
        self.shared.short.load(Relaxed)
    }

    /// Changes whenever a target changes sides.
    pub(crate) fn changes(&self) -> u64 {
        self.shared.changes.load(Relaxed)
    }

    /// How new and returning targets get their share.
    pub(crate) fn slow_start(&self) -> Option<&SlowStart> {
        self.rules.slow_start.as_ref()
    }

    /// Make a target healthy or not by hand; whether there is one of this name.
    pub fn set(&self, name: &str, healthy: bool) -> bool {
        let Some(target) = self.targets.iter().find(|target| target.name == name) else { return false };
        let now = monotonic_us();
        // An operator's word is above what a comparison found.
        let back = if healthy { target.health.let_back(now) } else { None };
        self.turned(&target.name, target.health.set(healthy, now).or(back), Reason::Manual);
        true
    }

    /// What a request to a target tells about it.
    pub(crate) fn report(&self, target: &TargetHealth, name: &str, attempt: Attempt) {
        if let Some(passive) = &self.rules.passive
            && let Some(outcome) = passive.judge(attempt)
        {
            self.turned(name, target.report(outcome, &passive.limits, monotonic_us), Reason::Passive);
        }
        if let Some(outlier) = &self.rules.outlier {
            let sign = match attempt {
                Attempt::Status(status) => Sign::of_status(status),
                Attempt::Broken | Attempt::Late => Sign::GatewayFailure,
            };
            if target.attempted(sign, &outlier.rules) {
                self.eject(name, outlier);
            }
        }
    }

    /// Too many failures in a row. Never waits: where somebody else is at it, the next failure asks again.
    fn eject(&self, name: &str, outlier: &Outlier) {
        let Some(index) = self.targets.iter().position(|target| target.name == name) else { return };
        let mut ejections = match self.ejections.try_lock() {
            Ok(ejections) => ejections,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let pairs: Vec<_> = self.targets.iter().map(|target| &*target.health).zip(ejections.iter_mut()).collect();
        if let Some(ejection) = outlier::eject(&pairs, index, &outlier.rules, monotonic_us()) {
            ejections[index] = ejection;
            drop(ejections);
            self.turned(name, Some(Turned::Unhealthy), Reason::Outlier);
            self.shared.ejected.notify_one();
        }
    }

    /// Let ejected targets back whose time is over; at the end of an interval, compare the success rates.
    pub(super) fn tick(&self, interval_over: bool) {
        let Some(outlier) = &self.rules.outlier else { return };
        let mut ejections = lock(&self.ejections);
        let mut pairs: Vec<_> = self.targets.iter().map(|target| &*target.health).zip(ejections.iter_mut()).collect();
        let turned = outlier::tick(&mut pairs, &outlier.rules, interval_over, monotonic_us());
        drop(ejections);
        for (index, turned) in turned {
            self.turned(&self.targets[index].name, Some(turned), Reason::Outlier);
        }
    }

    /// When the next ejected target is let back, on the monotonic clock.
    pub(super) fn next_return(&self) -> Option<u64> {
        let mut ejections = lock(&self.ejections);
        let pairs: Vec<_> = self.targets.iter().map(|target| &*target.health).zip(ejections.iter_mut()).collect();
        outlier::next_return(&pairs)
    }

    /// A target changed sides, or did not.
    pub(super) fn turned(&self, target: &str, turned: Option<Turned>, reason: Reason) {
        let Some(turned) = turned else { return };
        self.shared.weigh();
        self.turns.of(reason, turned).fetch_add(1, Relaxed);
        let (upstream, reason) = (&self.name, reason.label());
        match turned {
            Turned::Healthy => tracing::info!(upstream, target, reason, "target is healthy: it gets requests again"),
            Turned::Unhealthy => tracing::warn!(upstream, target, reason, "target is unhealthy: it gets no requests"),
        }
    }
}

impl Shared {
    fn weigh_from_now_on(&self, health: &UpstreamHealth) {
        let targets = health.targets.iter().map(|target| (target.weight, target.health.clone())).collect();
        *lock(&self.weights) = Weights { threshold: health.rules.threshold, targets };
        self.weigh();
    }

    /// See whether the healthy weight is above the threshold, which it must be by however little: so it is in Kong
    /// (kong/runloop/balancer/balancers.lua, `updateStatus`).
    fn weigh(&self) {
        // Under the lock, so that of two who turn targets at the same time the second has the last word.
        let weights = lock(&self.weights);
        let all = |healthy: bool| -> u64 {
            let counted = weights.targets.iter().filter(|(_, health)| !healthy || health.is_healthy());
            counted.map(|(weight, _)| u64::from(*weight)).sum()
        };
        let short = weights.threshold > 0.0 && all(true) as f64 * 100.0 <= weights.threshold * all(false) as f64;
        self.short.store(short, Relaxed);
        self.changes.fetch_add(1, Relaxed);
    }
}
