//! Rendered sets read back: records with uncompressed data, for transfers, updates and answers that cannot copy a set as it is.

use gateward_zone::rdata::compressible;
use gateward_zone::{Rdata, RecordSet};

use super::render::{QNAME_AT, QUESTION_TAIL, RECORD_HEAD};
use super::shard::Set;

/// Longest chain of pointers followed: a body's pointers lead to the owner or to a name before, which is shorter each time.
const MAX_POINTERS: usize = 128;

/// The data of each record of a rendered set, compressed as it stands there: where it starts and ends in the body.
pub(crate) fn records<'a>(set: &Set<'a>) -> impl Iterator<Item = std::ops::Range<usize>> + use<'a> {
    let body = set.body;
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + RECORD_HEAD;
        let length = body.get(start - 2..start)?;
        at = start + usize::from(u16::from_be_bytes([length[0], length[1]]));
        Some(start..at)
    })
}

/// The set as records.
pub(crate) fn record_set(set: &Set<'_>) -> RecordSet {
    let data = records(set).map(|range| {
        let mut octets = Vec::with_capacity(range.len() + 16);
        put_data(set, range, &mut |part| octets.extend_from_slice(part));
        Rdata::from_wire(octets)
    });
    RecordSet { rtype: set.rtype(), ttl: set.ttl, data: data.collect() }
}

/// Gives the data of one record, uncompressed, to `put` piece by piece.
pub(crate) fn put_data(set: &Set<'_>, range: std::ops::Range<usize>, put: &mut dyn FnMut(&[u8])) {
    let Some(layout) = compressible(set.rtype()) else { return put(&set.body[range]) };
    let mut at = range.start + layout.names_at;
    put(&set.body[range.start..at]);
    for _ in 0..layout.names {
        at = put_name(set, at, put);
    }
    put(&set.body[at..range.end]);
}

/// Gives the name at `at` of the body, uncompressed, to `put`; returns where it ends there.
pub(crate) fn put_name(set: &Set<'_>, at: usize, put: &mut dyn FnMut(&[u8])) -> usize {
    let behind = QNAME_AT + set.owner.len() + QUESTION_TAIL;
    let (mut octets, mut at, mut end) = (set.body, at, None);
    for _ in 0..MAX_POINTERS {
        let start = at;
        while (1..0xc0).contains(&octets[at]) {
            at += 1 + usize::from(octets[at]);
        }
        put(&octets[start..at]);
        if octets[at] == 0 {
            put(&[0]);
            return end.unwrap_or(at + 1);
        }
        let place = usize::from(u16::from_be_bytes([octets[at], octets[at + 1]]) & 0x3fff);
        end.get_or_insert(at + 2);
        (octets, at) = if place < behind { (set.owner, place - QNAME_AT) } else { (set.body, place - behind) };
    }
    unreachable!("pointers of a rendered set lead backwards")
}
