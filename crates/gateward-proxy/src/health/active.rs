//! The node's own checks: one task per upstream that wants some, beside the workers.
//!
//! Tasks of upstreams that a new configuration leaves alone go on as they were.

use super::rules::{Active, Outlier};
use super::{Attempt, HealthRegistry, Reason, UpstreamHealth, lock, probe};
use gateward_balance::Outcome;
use gateward_model::EntityId;
use gateward_net::monotonic_us;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// How often ejected targets are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Check what `registry` holds, following its changes, until it is dropped or the runtime ends.
pub async fn check_health(registry: Arc<HealthRegistry>) {
    let mut changes = registry.changed.subscribe();
    let mut tasks = JoinSet::new();
    let mut running: HashMap<EntityId, (Arc<UpstreamHealth>, Vec<AbortHandle>)> = HashMap::new();
    loop {
        let current = lock(&registry.upstreams).clone();
        running.retain(|id, (health, handles)| {
            let stays = current.get(id).is_some_and(|now| Arc::ptr_eq(now, health));
            if !stays {
                handles.iter().for_each(AbortHandle::abort);
            }
            stays
        });
        for (id, health) in current {
            running.entry(id).or_insert_with(|| {
                let active = health.rules.active.clone().map(|active| tasks.spawn(check(health.clone(), active)));
                let outlier = health.rules.outlier.map(|outlier| tasks.spawn(compare(health.clone(), outlier)));
                let handles = active.into_iter().chain(outlier).collect();
                (health, handles)
            });
        }
        // Ended tasks are those that were aborted.
        while tasks.try_join_next().is_some() {}
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Ask the targets of one upstream at their intervals.
async fn check(health: Arc<UpstreamHealth>, active: Active) {
    let mut due =
        [active.healthy_every, active.unhealthy_every].map(|every| every.map(|every| (every, Instant::now())));
    loop {
        let Some(next) = due.iter().flatten().map(|(_, at)| *at).min() else { return };
        sleep_until(next).await;
        let now = Instant::now();
        let over = due.map(|kind| kind.is_some_and(|(_, at)| at <= now));
        round(&health, &active, over).await;
        let now = Instant::now();
        for (every, at) in due.iter_mut().flatten() {
            // A round that took longer than the interval is not made up for.
            while *at <= now {
                *at += *every;
            }
        }
    }
}

/// Ask healthy targets, unhealthy ones, or both, a bounded number at a time.
async fn round(health: &Arc<UpstreamHealth>, active: &Active, [healthy, unhealthy]: [bool; 2]) {
    let wanted = |index: &usize| {
        let target = &health.targets[*index];
        target.weight > 0 && if target.health.is_healthy() { healthy } else { unhealthy }
    };
    let mut waiting = (0..health.targets.len()).filter(wanted).collect::<Vec<_>>().into_iter();
    let mut asking = JoinSet::new();
    loop {
        while asking.len() < active.concurrency
            && let Some(index) = waiting.next()
        {
            let (health, active) = (health.clone(), active.clone());
            asking.spawn(async move { (index, probe::ask(&health.targets[index], &active).await) });
        }
        match asking.join_next().await {
            Some(Ok((index, attempt))) => health.checked(index, attempt, active),
            Some(Err(error)) => tracing::error!(%error, "a health check failed to run"),
            None => return,
        }
    }
}

impl UpstreamHealth {
    /// A check of the target at `index` came back.
    fn checked(&self, index: usize, attempt: Attempt, active: &Active) {
        let outcome = match attempt {
            Attempt::Status(0) => Some(Outcome::Success),
            attempt => active.judgement.judge(attempt),
        };
        let Some(outcome) = outcome else { return };
        let target = &self.targets[index];
        let turned = target.health.report(outcome, &active.judgement.limits, monotonic_us());
        self.turned(&target.name, turned, Reason::Active);
    }
}

/// Compare the targets' success rates at their interval, and let ejected ones back.
async fn compare(health: Arc<UpstreamHealth>, outlier: Outlier) {
    let mut looks = interval(LOOK.min(outlier.interval));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut end = Instant::now() + outlier.interval;
    loop {
        let now = looks.tick().await;
        let over = now >= end;
        if over {
            end = now + outlier.interval;
        }
        health.tick(over);
    }
}
