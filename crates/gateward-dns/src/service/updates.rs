//! Updates: signed by a key that may change something, checked, made durable, answered.

use gateward_zone::{Rcode, ZoneView};

use super::keeper::Requester;
use super::{Asked, Inner};
use crate::update::{self, Data};
use crate::wire::CLASS_IN;

pub(super) async fn serve(inner: &Inner, asked: Asked) {
    let mut update = match update::parse(&asked.octets) {
        Ok(update) => update,
        Err(refusal) => return asked.refuse(refusal.rcode, &refusal.reason).await,
    };
    let map = inner.shared.zones.map();
    if map.slot(&update.zone).is_none() {
        return asked.refuse(Rcode::NOTAUTH, "no such zone is served here").await;
    }
    let Some(key) = asked.key_name().cloned() else {
        return asked.refuse(Rcode::REFUSED, "updates must be signed with a key").await;
    };
    let Some(permits) = inner.keeper.may_update(&update.zone, &key) else {
        tracing::info!(zone = %update.zone, %key, client = %asked.client, "an update is refused: the key may change nothing");
        return asked.refuse(Rcode::REFUSED, "the key may change nothing in this zone").await;
    };
    // Before the update is compared with the zone, so that what is only clamped again is no change.
    for entry in &mut update.entries {
        if entry.class == CLASS_IN && matches!(entry.data, Data::Record(_)) {
            entry.ttl = inner.keeper.ttl(&update.zone, entry.rtype, entry.ttl);
        }
    }
    let zone = update.zone.clone();
    let make = Box::new(move |served: &dyn ZoneView| update::apply(served, &update, &*permits));
    let requester = Requester { key, client: asked.client };
    match inner.keeper.update(&zone, make, requester).await {
        Ok(()) => asked.accept().await,
        Err(refusal) => {
            tracing::info!(%zone, client = %asked.client, %refusal, "an update is refused");
            asked.refuse(refusal.rcode, &refusal.reason).await;
        }
    }
}
