//! Transfers out: a series of records becomes a series of messages, made one at a time as the connection takes them.

use std::borrow::Borrow;
use std::iter::{Peekable, once};

use gateward_zone::{Name, Record, Rtype, ZoneView, is_newer};

use super::difference::{Difference, condense};
use super::request::{Kind, Request};
use crate::tsig::Signer;
use crate::wire::{CLASS_IN, MAX_MESSAGE, Section, Writer, flags};

/// Octets that a message is filled to: names can be pointed at up to here, and a slow reader holds no more at a time.
const TARGET_BYTES: usize = 16 * 1024;
/// What every asker can take in a datagram (RFC 1035, 4.2.1).
const LEAST_PAYLOAD: u16 = 512;

/// A record that no message can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {1} record of {0} is longer than a message can be")]
pub struct TooLarge(Name, Rtype);

/// How an IXFR request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// With the SOA record: the asker has this version, or a later one (RFC 1995, 2).
    Current,
    /// With what changed, condensed.
    Difference(Difference),
    /// With the whole zone: what changed is not known, or is more than the zone.
    Whole,
}

/// How a request is answered from a zone and the differences that led to it, oldest first.
#[must_use]
pub fn plan<'a>(zone: &dyn ZoneView, kind: Kind, history: impl IntoIterator<Item = &'a Difference>) -> Plan {
    let Kind::Ixfr { serial } = kind else { return Plan::Whole };
    if serial == zone.serial() || is_newer(serial, zone.serial()) {
        return Plan::Current;
    }
    let mut at = serial;
    let mut way = Vec::new();
    for difference in history {
        // The zone may have gone on since this version was taken.
        if at == zone.serial() {
            break;
        }
        if difference.from_serial() == at {
            at = difference.to_serial();
            way.push(difference);
        } else if !way.is_empty() {
            return Plan::Whole;
        }
    }
    if at != zone.serial() {
        return Plan::Whole;
    }
    match condense(way) {
        Some(difference) if difference.record_count() <= zone.record_count() => Plan::Difference(difference),
        _ => Plan::Whole,
    }
}

/// The records of a whole zone: the SOA first and last (RFC 5936, 2.2). `records` may have the SOA too.
pub fn axfr(soa: Record, records: impl Iterator<Item = Record>) -> impl Iterator<Item = Record> {
    let last = soa.clone();
    once(soa).chain(records.filter(|record| record.rtype != Rtype::SOA)).chain(once(last))
}

/// The records of a difference (RFC 1995, 4).
pub fn ixfr(difference: &Difference) -> impl Iterator<Item = &Record> {
    let Difference { from, to, removed, added } = difference;
    once(to).chain(once(from)).chain(removed).chain(once(to)).chain(added).chain(once(to))
}

/// The one record of an answer that nothing changed.
pub fn current(soa: &Record) -> impl Iterator<Item = &Record> {
    once(soa)
}

/// The answer over UDP: the SOA record, or that there is no room for it. `announced` is the most octets that this side takes and sends in a
/// datagram, `signature` what is going to be added.
#[must_use]
pub fn datagram(request: &Request, soa: &Record, announced: u16, signature: usize) -> Vec<u8> {
    let Request { id, zone, kind, payload } = request;
    let room = usize::from(payload.unwrap_or(LEAST_PAYLOAD).max(LEAST_PAYLOAD).min(announced));
    let written = |bits: u16, answers: &[&Record]| {
        let mut writer = Writer::new(*id, flags::QR | flags::AA | bits, room.saturating_sub(signature));
        writer.question(zone, kind.rtype(), CLASS_IN);
        let fits = answers.iter().all(|record| put(&mut writer, record));
        let opt =
            |writer: &mut Writer| writer.record(Section::Additional, &Name::root(), Rtype::OPT, announced, 0, &[]);
        (fits && (payload.is_none() || opt(&mut writer))).then(|| writer.finish())
    };
    written(0, &[soa]).or_else(|| written(flags::TC, &[])).unwrap_or_else(|| {
        let mut writer = Writer::new(*id, flags::QR | flags::AA | flags::TC, room);
        writer.question(zone, kind.rtype(), CLASS_IN);
        writer.finish()
    })
}

/// The messages of a transfer.
pub struct Outgoing<I: Iterator> {
    request: Request,
    announced: u16,
    records: Peekable<I>,
    signer: Option<Signer>,
    is_first: bool,
}

impl<I: Iterator> Outgoing<I>
where
    I::Item: Borrow<Record>,
{
    /// The answer to `request` with `records`; every message is signed when there is a signer. Askers who speak EDNS are told that this
    /// side takes `announced` octets in a datagram.
    pub fn new(request: Request, announced: u16, records: I, signer: Option<Signer>) -> Self {
        Outgoing { request, announced, records: records.peekable(), signer, is_first: true }
    }

    /// The next message; `None` after the last one. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`TooLarge`]: the transfer cannot go on.
    pub fn next_message(&mut self, now: u64) -> Option<Result<Vec<u8>, TooLarge>> {
        self.records.peek()?;
        let signature = self.signer.as_ref().map_or(0, Signer::signature_len);
        let Request { id, zone, kind, payload } = &self.request;
        let mut writer = Writer::new(*id, flags::QR | flags::AA, TARGET_BYTES);
        if self.is_first {
            // Later messages may leave the question out (RFC 5936, 2.2.1); they do.
            writer.question(zone, kind.rtype(), CLASS_IN);
        }
        let has_opt = payload.is_some() && self.is_first;
        self.is_first = false;
        while let Some(record) = self.records.peek() {
            if !put(&mut writer, record.borrow()) {
                if writer.counts()[1] > 0 {
                    break;
                }
                // One record that is longer than the target alone.
                writer.raise_limit(MAX_MESSAGE - signature);
                if !put(&mut writer, record.borrow()) {
                    let Record { owner, rtype, .. } = record.borrow();
                    return Some(Err(TooLarge(owner.clone(), *rtype)));
                }
            }
            self.records.next();
        }
        if has_opt {
            writer.raise_limit(MAX_MESSAGE - signature);
            // It is left out where it does not fit, which says the same as an old server would.
            let _ = writer.record(Section::Additional, &Name::root(), Rtype::OPT, self.announced, 0, &[]);
        }
        let mut message = writer.finish();
        if let Some(signer) = &mut self.signer {
            signer.sign(&mut message, now);
        }
        Some(Ok(message))
    }
}

fn put(writer: &mut Writer, record: &Record) -> bool {
    writer.record(Section::Answer, &record.owner, record.rtype, CLASS_IN, record.ttl, record.rdata.as_wire())
}
