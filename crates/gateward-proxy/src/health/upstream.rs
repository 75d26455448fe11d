//! Health of one upstream's targets: who is told of what, and what follows from it.
//!
//! There is one record per configuration and per change of what its targets' names lead to, and [`Shared`] holds what
//! all records of an upstream have in common: a worker that still uses an earlier one sees, and changes, the same state.

use super::members::{Member, Named, Place, places};
use super::rules::{Outlier, Rules};
use super::{Attempt, Reason, TargetState, Turns, lock};
use crate::plan::UpstreamPlan;
use gateward_balance::outlier::{self, Sign};
use gateward_balance::{Ejection, SlowStart, TargetHealth, Turned};
use gateward_net::dns::Names;
use gateward_net::monotonic_us;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, TryLockError};
use tokio::sync::{Notify, watch};

/// Health of one upstream's targets under one configuration.
#[derive(Debug)]
pub struct UpstreamHealth {
    pub(super) plan: Arc<UpstreamPlan>,
    /// Number of the configuration it was made for.
    configuration: u64,
    pub(super) rules: Rules,
    pub(super) members: Vec<Member>,
    /// Names among the targets.
    named: Vec<Named>,
    ejections: Mutex<Vec<Ejection>>,
    pub(super) shared: Arc<Shared>,
    turns: Arc<Turns>,
}

/// An address of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetAddress {
    /// Where.
    pub address: SocketAddr,
    /// Its share.
    pub weight: u16,
    /// Its own state.
    pub state: TargetState,
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
    /// Counts records.
    records: AtomicU64,
    /// Told of each.
    renewed: watch::Sender<()>,
}

/// What all records of a node are made with.
pub(super) struct Making<'a> {
    pub(super) names: Option<&'a Arc<Names>>,
    pub(super) turns: &'a Arc<Turns>,
    pub(super) now_us: u64,
}

#[derive(Debug, Default)]
struct Weights {
    threshold: f64,
    targets: Vec<(u16, Arc<TargetHealth>)>,
}

impl UpstreamHealth {
    /// The record for `plan`. What `before` knows of members that stay is kept.
    pub(super) fn new(
        plan: &Arc<UpstreamPlan>,
        configuration: u64,
        before: Option<&Self>,
        making: &Making<'_>,
    ) -> Self {
        let (places, named) = places(plan, making.names);
        let health_of = |(index, place): (usize, &Place)| match before {
            // Where nobody was before, all begin alike.
            Some(before) if !before.members.is_empty() => {
                before.health_of(&place.name, index).unwrap_or_else(|| Arc::new(TargetHealth::newcomer(making.now_us)))
            }
            _ => Arc::default(),
        };
        let healths: Vec<Arc<TargetHealth>> = places.iter().enumerate().map(health_of).collect();
        let member = |(place, health): (Place, Arc<TargetHealth>)| {
            let Place { name, plan, address, weight, srv_host } = place;
            Member { name, plan, address, weight, srv_host, health }
        };
        let members: Vec<Member> = places.into_iter().zip(healths).map(member).collect();
        // What was remembered of ejections goes with the member.
        let ejection = |member: &Member| {
            let before = before?;
            let index = before.members.iter().position(|other| other.name == member.name)?;
            lock(&before.ejections).get(index).copied()
        };
        let ejections = members.iter().map(|member| ejection(member).unwrap_or_default()).collect();
        let health = Self {
            plan: plan.clone(),
            configuration,
            rules: Rules::of(plan),
            members,
            named,
            ejections: Mutex::new(ejections),
            shared: before.map(|before| before.shared.clone()).unwrap_or_default(),
            turns: making.turns.clone(),
        };
        health.shared.weigh_from_now_on(&health);
        health.let_go_of_what_is_over(before, making.now_us);
        health
    }

    /// A record that only its worker sees: of an upstream which the node's configuration has no more.
    pub(crate) fn apart(plan: &Arc<UpstreamPlan>, configuration: u64, names: Option<&Arc<Names>>) -> Self {
        Self::new(plan, configuration, None, &Making { names, turns: &Arc::default(), now_us: monotonic_us() })
    }

    /// Whether nothing that matters differs in `plan`.
    pub(super) fn is_of(&self, plan: &UpstreamPlan) -> bool {
        self.plan.targets == plan.targets
            && self.plan.entity.name == plan.entity.name
            && self.plan.entity.use_srv_name == plan.entity.use_srv_name
            && self.rules == Rules::of(plan)
    }

    /// Whether a name of its targets leads elsewhere now.
    pub(super) fn is_outdated(&self) -> bool {
        self.named.iter().any(Named::is_outdated)
    }

    /// Number of the configuration it was made for.
    pub(super) fn configuration(&self) -> u64 {
        self.configuration
    }

    /// Whether some names of its targets have not been looked up yet. They are, soon.
    pub(crate) fn is_pending(&self) -> bool {
        let mut pending = self.named.iter().filter(|named| named.is_pending()).peekable();
        let any = pending.peek().is_some();
        pending.for_each(Named::want);
        any
    }

    /// Whether there is nobody to ask because names have no address.
    pub(crate) fn is_unresolved(&self) -> bool {
        self.members.is_empty() && !self.named.is_empty()
    }

    /// Who may be asked.
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Counts this upstream's records.
    pub(crate) fn records(&self) -> u64 {
        self.shared.records.load(Acquire)
    }

    /// Told when there is another record of this upstream.
    pub(crate) fn renewed(&self) -> watch::Receiver<()> {
        self.shared.renewed.subscribe()
    }

    /// Tell that this record is there for all to see.
    pub(super) fn announce(&self) {
        self.shared.records.fetch_add(1, Release);
        self.shared.renewed.send_replace(());
    }

    /// Where checks or detection were switched off, nothing would ever bring back whom they took out.
    fn let_go_of_what_is_over(&self, before: Option<&Self>, now_us: u64) {
        let unchecked = !self.rules.is_checked() && before.is_some_and(|before| before.rules.is_checked());
        for target in &self.members {
            if self.rules.outlier.is_none() {
                self.turned(&target.name, target.health.let_back(now_us), Reason::Configuration);
            }
            if unchecked {
                self.turned(&target.name, target.health.set(true, now_us), Reason::Configuration);
            }
        }
    }

    /// Health of the member called `name`, which probably is the one at `index`.
    pub(crate) fn health_of(&self, name: &str, index: usize) -> Option<Arc<TargetHealth>> {
        let named = |member: &&Member| *member.name == *name;
        let found = self.members.get(index).filter(named).or_else(|| self.members.iter().find(named));
        found.map(|member| member.health.clone())
    }

    /// State of the target called `name`, which is that of its best address; `None`: there is none.
    pub fn state(&self, name: &str) -> Option<TargetState> {
        let target = self.plan.targets.iter().find(|target| target.entity.target == name)?;
        let none = if target.entity.weight > 0 { TargetState::Unresolved } else { TargetState::Off };
        let mut states = self.addresses(name).map(|address| address.state);
        let Some(first) = states.next() else { return Some(none) };
        Some(std::iter::once(first).chain(states).find(|state| *state != TargetState::Unhealthy).unwrap_or(first))
    }

    /// Every address of the target called `name`.
    pub fn addresses(&self, name: &str) -> impl Iterator<Item = TargetAddress> {
        let checked = self.rules.is_checked();
        let members = self.members.iter().filter(move |member| member.plan.entity.target == name);
        members.map(move |member| TargetAddress {
            address: member.address,
            weight: member.weight,
            state: match (member.health.is_available(), checked) {
                (false, _) => TargetState::Unhealthy,
                (true, true) => TargetState::Healthy,
                (true, false) => TargetState::Off,
            },
        })
    }

    /// Whether requests find a target; `None`: nothing is checked.
    pub fn is_available(&self) -> Option<bool> {
        self.rules.is_checked().then(|| {
            let any = self.members.iter().any(|target| target.weight > 0 && target.health.is_healthy());
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

    /// Make a target healthy or not by hand, with all its addresses or one; whether there are any.
    pub fn set(&self, name: &str, address: Option<SocketAddr>, healthy: bool) -> bool {
        let now = monotonic_us();
        let mut any = false;
        for member in self.members.iter().filter(|member| member.plan.entity.target == name) {
            if address.is_some_and(|address| address != member.address) {
                continue;
            }
            any = true;
            // An operator's word is above what a comparison found.
            let back = if healthy { member.health.let_back(now) } else { None };
            self.turned(&member.name, member.health.set(healthy, now).or(back), Reason::Manual);
        }
        any
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
                Attempt::Connected => Sign::Fine,
                Attempt::Broken | Attempt::Late => Sign::GatewayFailure,
            };
            if target.attempted(sign, &outlier.rules) {
                self.eject(name, outlier);
            }
        }
    }

    /// Too many failures in a row. Never waits: where somebody else is at it, the next failure asks again.
    fn eject(&self, name: &str, outlier: &Outlier) {
        let Some(index) = self.members.iter().position(|member| *member.name == *name) else { return };
        let mut ejections = match self.ejections.try_lock() {
            Ok(ejections) => ejections,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let pairs: Vec<_> = self.members.iter().map(|target| &*target.health).zip(ejections.iter_mut()).collect();
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
        let mut pairs: Vec<_> = self.members.iter().map(|target| &*target.health).zip(ejections.iter_mut()).collect();
        let turned = outlier::tick(&mut pairs, &outlier.rules, interval_over, monotonic_us());
        drop(ejections);
        for (index, turned) in turned {
            self.turned(&self.members[index].name, Some(turned), Reason::Outlier);
        }
    }

    /// When the next ejected target is let back, on the monotonic clock.
    pub(super) fn next_return(&self) -> Option<u64> {
        let mut ejections = lock(&self.ejections);
        let pairs: Vec<_> = self.members.iter().map(|target| &*target.health).zip(ejections.iter_mut()).collect();
        outlier::next_return(&pairs)
    }

    /// A target changed sides, or did not.
    pub(super) fn turned(&self, target: &str, turned: Option<Turned>, reason: Reason) {
        let Some(turned) = turned else { return };
        self.shared.weigh();
        self.turns.of(reason, turned).fetch_add(1, Relaxed);
        let (upstream, reason) = (&self.plan.entity.name, reason.label());
        match turned {
            Turned::Healthy => tracing::info!(upstream, target, reason, "target is healthy: it gets requests again"),
            Turned::Unhealthy => tracing::warn!(upstream, target, reason, "target is unhealthy: it gets no requests"),
        }
    }
}

impl Shared {
    fn weigh_from_now_on(&self, health: &UpstreamHealth) {
        let targets = health.members.iter().map(|member| (member.weight, member.health.clone())).collect();
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
