//! Limits of queries that policies set, handed to the server as they change.

use std::sync::Arc;

use gateward_dns::authority::{Authority, Happened};
use gateward_zone::Name;
use tokio::sync::broadcast::error::RecvError;

/// Gives every zone its limit, now and whenever its policy changes.
pub(super) fn keep(authority: &Arc<Authority>) {
    let mut events = authority.subscribe();
    set_all(authority);
    let authority = Arc::clone(authority);
    tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(event) if matches!(event.what, Happened::Added(_) | Happened::Policy) => {
                    set(&authority, &event.origin);
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => set_all(&authority),
                Err(RecvError::Closed) => return,
            }
        }
    });
}

fn set_all(authority: &Authority) {
    for (origin, _) in authority.all() {
        set(authority, &origin);
    }
}

fn set(authority: &Authority, origin: &Name) {
    if let Some(slot) = authority.zones().map().slot(origin) {
        // 0 would be no limit.
        slot.set_limit_qps(authority.policy(origin).limits.queries_per_second.map_or(0, |limit| limit.max(1)));
    }
}
