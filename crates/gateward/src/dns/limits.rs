//! Limits of queries that policies set, handed to the workers as they change.

use std::sync::Arc;

use gateward_dns::authority::{Authority, Happened};
use gateward_zone::Name;
use tokio::sync::broadcast::error::RecvError;

/// Gives every zone its limit, now and whenever its policy changes, divided among `workers`.
pub(super) fn keep(authority: &Arc<Authority>, workers: usize) {
    let workers = u32::try_from(workers.max(1)).unwrap_or(u32::MAX);
    let mut events = authority.subscribe();
    set_all(authority, workers);
    let authority = Arc::clone(authority);
    tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(event) if matches!(event.what, Happened::Added(_) | Happened::Policy) => {
                    set(&authority, &event.origin, workers);
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => set_all(&authority, workers),
                Err(RecvError::Closed) => return,
            }
        }
    });
}

fn set_all(authority: &Authority, workers: u32) {
    for (origin, _) in authority.all() {
        set(authority, &origin, workers);
    }
}

fn set(authority: &Authority, origin: &Name, workers: u32) {
    if let Some(slot) = authority.zones().map().slot(origin) {
        // A limit of its own for each worker, because they share nothing; at least one, as 0 is no limit.
        let limit = authority.policy(origin).limits.queries_per_second;
        slot.set_limit_qps(limit.map_or(0, |limit| limit.div_ceil(workers).max(1)));
    }
}
