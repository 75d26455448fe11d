//! A number for the content of a zone, that follows from a change without looking at the rest.
//!
//! It is the sum of a hash of each record; the SOA's serial does not count. It tells whether a zone file holds a version that is
//! known. It does not protect against people who may write zone files and want two of them to look alike.

use std::hash::Hasher;

use gateward_zone::{Change, Record, Rtype, ZoneView, with_serial};
use siphasher::sip128::{Hasher128, SipHasher13};

/// The digest of a whole zone.
pub(super) fn of_zone(zone: &dyn ZoneView) -> u128 {
    let mut sum = 0_u128;
    zone.for_each_record(&mut |record| sum = sum.wrapping_add(of_record(&record)));
    sum
}

/// The digest after changes to a zone whose digest was `before`.
pub(super) fn after(before: u128, changes: &[Change]) -> u128 {
    changes.iter().fold(before, |sum, change| match change {
        Change::Add(record) => sum.wrapping_add(of_record(record)),
        Change::Remove(record) => sum.wrapping_sub(of_record(record)),
    })
}

fn of_record(record: &Record) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write(record.owner.as_wire());
    hasher.write(&record.rtype.to_int().to_be_bytes());
    hasher.write(&record.ttl.to_be_bytes());
    match (record.rtype, with_serial(&record.rdata, 0)) {
        (Rtype::SOA, Some(rdata)) => hasher.write(rdata.as_wire()),
        _ => hasher.write(record.rdata.as_wire()),
    }
    hasher.finish128().into()
}
