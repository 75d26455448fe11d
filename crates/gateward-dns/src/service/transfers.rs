//! Transfers out: a zone is written message by message as its reader takes them.

use std::borrow::Borrow;
use std::sync::Arc;

use gateward_zone::{Rcode, Record, Rtype, ZoneView as _};

use super::{Asked, Inner, unix_seconds};
use crate::answer::Transport;
use crate::store::Zone;
use crate::transfer::{Kind, Outgoing, Plan, Request, axfr, current, ixfr, plan};

pub(super) async fn serve(inner: &Inner, asked: Asked, request: Request) {
    let over_udp = asked.transport == Transport::Udp;
    if over_udp && request.kind == Kind::Axfr {
        return asked.refuse(Rcode::FORMERR, "whole zones are transferred over TCP (RFC 5936, 4.2)").await;
    }
    let map = inner.shared.zones.map();
    let Some(slot) = map.slot(&request.zone) else {
        return asked.refuse(Rcode::NOTAUTH, "no such zone is served here").await;
    };
    if !inner.keeper.may_transfer(&request.zone, asked.client.ip(), asked.key_name()) {
        tracing::info!(zone = %request.zone, client = %asked.client, "a transfer is refused");
        return asked.refuse(Rcode::REFUSED, "the zone may not be copied by this client or key").await;
    }
    let Some(zone) = slot.zone() else {
        return asked.refuse(Rcode::SERVFAIL, "there is no valid version of the zone").await;
    };
    let Ok(_place) = inner.transfers.acquire().await else { return };
    write(inner, asked, request, &zone, over_udp).await;
}

async fn write(inner: &Inner, asked: Asked, request: Request, zone: &Arc<Zone>, over_udp: bool) {
    let Some(soa) = soa_of(zone) else { return };
    let Asked { signer, answers, client, .. } = asked;
    let (name, kind) = (request.zone.clone(), request.kind);
    // A datagram holds the serial; whoever wants more comes back over TCP (RFC 1995, 2).
    let plan = if over_udp {
        Plan::Current
    } else {
        let history = match request.kind {
            Kind::Ixfr { serial } if serial != zone.serial() => inner.keeper.history(&request.zone, serial).await,
            _ => Vec::new(),
        };
        plan(&**zone, request.kind, &history)
    };
    let sent = match &plan {
        Plan::Current => send(Outgoing::new(request, current(&soa), signer), &answers).await,
        Plan::Difference(difference) => send(Outgoing::new(request, ixfr(difference), signer), &answers).await,
        Plan::Whole => send(Outgoing::new(request, axfr(soa, zone.records()), signer), &answers).await,
    };
    match sent {
        Ok(messages) => tracing::info!(zone = %name, %client, serial = zone.serial(), ?kind, messages, "transferred"),
        Err(error) => {
            tracing::warn!(zone = %name, %client, serial = zone.serial(), ?kind, error, "a transfer broke off");
        }
    }
}

/// Sends all messages, one at a time as there is room.
async fn send<I>(mut outgoing: Outgoing<I>, answers: &tokio::sync::mpsc::Sender<Vec<u8>>) -> Result<usize, String>
where
    I: Iterator,
    I::Item: Borrow<Record>,
{
    let mut messages = 0;
    while let Some(message) = outgoing.next_message(unix_seconds()) {
        let message = message.map_err(|error| error.to_string())?;
        answers.send(message).await.map_err(|_| "the client is gone".to_owned())?;
        messages += 1;
    }
    Ok(messages)
}

/// The SOA record of a zone.
pub(super) fn soa_of(zone: &Zone) -> Option<Record> {
    let set = zone.set(zone.origin(), Rtype::SOA)?;
    let rdata = set.data.into_iter().next()?;
    Some(Record { owner: zone.origin().clone(), rtype: Rtype::SOA, ttl: set.ttl, rdata })
}
