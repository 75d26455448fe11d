//! Transfers out: a zone is written message by message as its reader takes them.

use std::borrow::Borrow;
use std::sync::Arc;

use gateward_zone::{Rcode, Record, Rtype, ZoneView as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::pace::Pace;
use super::places::Client;
use super::{Asked, Inner, unix_seconds};
use crate::answer::Transport;
use crate::store::{Slot, Zone};
use crate::transfer::{Kind, Outgoing, Plan, Request, axfr, current, datagram, ixfr, plan};
use crate::tsig::Signer;

pub(super) async fn serve(inner: &Inner, asked: Asked, request: Request) {
    let over_udp = asked.transport == Transport::Udp;
    if over_udp && request.kind == Kind::Axfr {
        return asked.refuse(Rcode::FORMERR, "whole zones are transferred over TCP (RFC 5936, 4.2)").await;
    }
    let Some(slot) = inner.shared.zones.map().slot(&request.zone).cloned() else {
        return asked.refuse(Rcode::NOTAUTH, "no such zone is served here").await;
    };
    if !inner.keeper.may_transfer(&request.zone, asked.client.ip(), asked.key_name()) {
        if let Some(left_out) = inner.strangers.line(unix_seconds()) {
            tracing::info!(zone = %request.zone, client = %asked.client, left_out, "a transfer is refused");
        }
        return asked.refuse(Rcode::REFUSED, "the zone may not be copied by this client or key").await;
    }
    if over_udp { answer_serial(asked, &request, &slot).await } else { stream(inner, asked, request, &slot).await }
}

/// The one answer over UDP: it has the serial, and whoever wants more comes back over TCP (RFC 1995, 2).
async fn answer_serial(asked: Asked, request: &Request, slot: &Slot) {
    let Some(soa) = slot.zone().and_then(|zone| soa_of(&zone)) else { return no_version(asked).await };
    let signature = asked.signer.as_ref().map_or(0, Signer::signature_len);
    let message = datagram(request, &soa, asked.payload, signature);
    asked.answer(message).await;
}

async fn no_version(asked: Asked) {
    asked.refuse(Rcode::SERVFAIL, "there is no valid version of the zone").await;
}

/// Everything else, once there is a place.
async fn stream(inner: &Inner, asked: Asked, request: Request, slot: &Slot) {
    let place = tokio::select! {
        place = inner.transfers.enter(Client::at(asked.client.ip())) => place,
        () = asked.answers.closed() => return,
    };
    let Some(_place) = place else {
        return asked.refuse(Rcode::SERVFAIL, "too many transfers of this client are under way; try again later").await;
    };
    // The version that is served now, not when the wait began.
    let Some(zone) = slot.zone() else { return no_version(asked).await };
    write(inner, asked, request, &zone).await;
}

async fn write(inner: &Inner, asked: Asked, request: Request, zone: &Arc<Zone>) {
    let Some(soa) = soa_of(zone) else { return };
    let Asked { signer, answers, client, payload, .. } = asked;
    let (name, kind) = (request.zone.clone(), request.kind);
    let history = match request.kind {
        Kind::Ixfr { serial } if serial != zone.serial() => inner.keeper.history(&request.zone, serial).await,
        _ => Vec::new(),
    };
    let pace = Pace::since(Instant::now());
    let sent = match &plan(&**zone, request.kind, &history) {
        Plan::Current => send(Outgoing::new(request, payload, current(&soa), signer), &answers, pace).await,
        Plan::Difference(difference) => {
            send(Outgoing::new(request, payload, ixfr(difference), signer), &answers, pace).await
        }
        Plan::Whole => send(Outgoing::new(request, payload, axfr(soa, zone.records()), signer), &answers, pace).await,
    };
    match sent {
        Ok(messages) => tracing::info!(zone = %name, %client, serial = zone.serial(), ?kind, messages, "transferred"),
        Err(error) => {
            tracing::warn!(zone = %name, %client, serial = zone.serial(), ?kind, error, "a transfer broke off");
        }
    }
}

/// Sends all messages, one at a time as there is room.
async fn send<I>(mut outgoing: Outgoing<I>, answers: &mpsc::Sender<Vec<u8>>, mut pace: Pace) -> Result<usize, String>
where
    I: Iterator,
    I::Item: Borrow<Record>,
{
    let mut messages = 0;
    while let Some(message) = outgoing.next_message(unix_seconds()) {
        let message = message.map_err(|error| error.to_string())?;
        pace.passed(message.len());
        let taken = timeout_at(pace.deadline(), answers.send(message)).await;
        taken.map_err(|_| "the client reads too slowly")?.map_err(|_| "the client is gone")?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use gateward_zone::{Name, parse_record};
    use std::time::Duration;

    #[tokio::test]
    async fn who_reads_too_slowly_gets_no_more() {
        let origin: Name = "example.com".parse().expect("a name");
        let record = |line: &str| parse_record(line, &origin, None).expect(line);
        let text = format!("@ 60 TXT {}", "\"0123456789\" ".repeat(1_000));
        let records: Vec<Record> = (0..20).map(|_| record(&text)).collect();
        let request = || Request { id: 1, zone: origin.clone(), kind: Kind::Axfr, payload: None };
        let outgoing = || Outgoing::new(request(), 1232, records.clone().into_iter(), None);
        // The channel has room for two messages, and nobody takes them out.
        let (answers, mut taken) = mpsc::channel(2);
        let long_ago = Instant::now().checked_sub(Duration::from_hours(1)).expect("the machine is up for longer");
        let error = send(outgoing(), &answers, Pace::since(long_ago)).await.expect_err("nobody reads");
        assert_eq!(error, "the client reads too slowly");
        let reader = tokio::spawn(async move { while taken.recv().await.is_some() {} });
        let sent = send(outgoing(), &answers, Pace::since(Instant::now())).await;
        assert!(sent.is_ok_and(|messages| messages > 10));
        drop(answers);
        reader.await.expect("it ends");
    }
}
