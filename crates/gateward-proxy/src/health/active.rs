//! The node's own checks: tasks beside the workers, for each upstream that wants some.
//!
//! A task follows its upstream through configurations and keeps its rhythm: however often targets come and go, checks
//! are made when they are due, and one that is under way comes to its end.

use super::rules::Active;
use super::{HealthRegistry, Reason, UpstreamHealth, lock, probe};
use gateward_model::EntityId;
use gateward_net::monotonic_us;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Checks under way at a time on a node, whatever the upstreams add up to.
const CHECKS: usize = 512;

/// An upstream as its tasks see it.
type Current = watch::Receiver<Arc<UpstreamHealth>>;

/// What is done for an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    /// Ask the targets that are healthy.
    Healthy,
    /// Ask those that are not.
    Unhealthy,
    /// Compare targets, and let ejected ones back.
    Outliers,
}

impl Duty {
    const ALL: [Self; 3] = [Self::Healthy, Self::Unhealthy, Self::Outliers];

    /// How often; `None`: never.
    fn interval(self, health: &UpstreamHealth) -> Option<Duration> {
        let active = health.rules.active.as_ref();
        match self {
            Self::Healthy => active.and_then(|active| active.healthy_every),
            Self::Unhealthy => active.and_then(|active| active.unhealthy_every),
            Self::Outliers => health.rules.outlier.map(|outlier| outlier.interval),
        }
    }
}

/// The tasks of one upstream.
struct Watch {
    current: watch::Sender<Arc<UpstreamHealth>>,
    tasks: [Option<AbortHandle>; 3],
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.tasks.iter().flatten().for_each(AbortHandle::abort);
    }
}

/// Check what `registry` holds, following its changes, until it is dropped or the runtime ends.
pub async fn check_health(registry: Arc<HealthRegistry>) {
    let mut changes = registry.changed.subscribe();
    let permits = Arc::new(Semaphore::new(CHECKS));
    let mut tasks = JoinSet::new();
    let mut watches: HashMap<EntityId, Watch> = HashMap::new();
    loop {
        let upstreams = lock(&registry.upstreams).clone();
        watches.retain(|id, _| upstreams.contains_key(id));
        for (id, health) in upstreams {
            let watch = watches.entry(id).or_insert_with(|| {
                let current = watch::Sender::new(health.clone());
                Watch { current, tasks: [const { None }; 3] }
            });
            watch.current.send_if_modified(|current| {
                let changed = !Arc::ptr_eq(current, &health);
                *current = health.clone();
                changed
            });
            for (duty, task) in Duty::ALL.into_iter().zip(&mut watch.tasks) {
                match (duty.interval(&health).is_some(), &task) {
                    (true, None) => {
                        let (current, permits) = (watch.current.subscribe(), permits.clone());
                        *task = Some(match duty {
                            Duty::Outliers => tasks.spawn(compare(current)),
                            _ => tasks.spawn(check(current, duty, permits)),
                        });
                    }
                    (false, Some(_)) => task.take().iter().for_each(AbortHandle::abort),
                    _ => {}
                }
            }
        }
        // Ended tasks are those that were aborted.
        while tasks.try_join_next().is_some() {}
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Ask the targets of one kind at their interval, at once for the first time.
async fn check(mut current: Current, duty: Duty, permits: Arc<Semaphore>) {
    let mut last: Option<Instant> = None;
    loop {
        let health = current.borrow_and_update().clone();
        let (Some(active), Some(every)) = (&health.rules.active, duty.interval(&health)) else { return };
        let due = last.map_or_else(Instant::now, |last| last + every);
        tokio::select! {
            () = sleep_until(due) => {}
            changed = current.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        // A round that takes longer than the interval is not made up for.
        let began = Instant::now();
        round(&health, active, duty, &permits).await;
        last = Some(if began + every > Instant::now() { began } else { Instant::now() });
    }
}

/// Ask all targets of a kind, a bounded number at a time.
async fn round(health: &Arc<UpstreamHealth>, active: &Active, duty: Duty, permits: &Arc<Semaphore>) {
    let wanted = |index: &usize| {
        let target = &health.members[*index];
        target.weight > 0 && target.health.is_healthy() == (duty == Duty::Healthy)
    };
    let mut waiting = (0..health.members.len()).filter(wanted).collect::<Vec<_>>().into_iter();
    let mut asking = JoinSet::new();
    loop {
        while asking.len() < active.concurrency
            && let Some(index) = waiting.next()
        {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let (health, active) = (health.clone(), active.clone());
            asking.spawn(async move {
                let target = &health.members[index];
                if let Some(outcome) = probe::ask(target, &active).await {
                    let turned = target.health.report(outcome, &active.judgement.limits, monotonic_us);
                    health.turned(&target.name, turned, Reason::Active);
                }
                drop(permit);
            });
        }
        match asking.join_next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(%error, "a health check failed to run"),
            None => return,
        }
    }
}

/// Compare the targets' success rates at their interval, and let ejected ones back when their time is over.
async fn compare(mut current: Current) {
    let mut began = Instant::now();
    loop {
        let health = current.borrow_and_update().clone();
        let Some(every) = Duty::Outliers.interval(&health) else { return };
        let end = began + every;
        let back = health.next_return().map(|at| Instant::now() + micros_until(at));
        tokio::select! {
            () = sleep_until(back.map_or(end, |back| back.min(end))) => {}
            () = health.shared.ejected.notified() => continue,
            changed = current.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        let over = Instant::now() >= end;
        if over {
            began = Instant::now();
        }
        health.tick(over);
    }
}

/// From now to a moment of the monotonic clock.
fn micros_until(at_us: u64) -> Duration {
    Duration::from_micros(at_us.saturating_sub(monotonic_us()))
}
