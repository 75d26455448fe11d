//! The pseudocode of RFC 2136, 3.4.2.7, word by word on a flat list of records, to compare with. Where later RFCs say more, it does too:
//! a set has one TTL (RFC 2181, 5.2), DNAME is replaced as CNAME is (RFC 6672, 5.2).

use gateward_zone::rdata::canonical;
use gateward_zone::{Name, Rdata, Record, Rtype, Soa, ZoneView, is_newer, next_serial, with_serial};

use super::message::{Data, Update};
use crate::wire::{CLASS_ANY, CLASS_IN};

/// A zone as a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Zone {
    origin: Name,
    records: Vec<Record>,
}

fn same(rtype: Rtype, a: &Rdata, b: &Rdata) -> bool {
    canonical(rtype, a.as_wire()) == canonical(rtype, b.as_wire())
}

impl Zone {
    pub(super) fn of(view: &dyn ZoneView) -> Self {
        let mut records = Vec::new();
        view.for_each_record(&mut |record| records.push(record));
        Zone { origin: view.origin().clone(), records }
    }

    /// Its records in an order of their own, names in data in lower case.
    pub(super) fn sorted(&self) -> Vec<Record> {
        let lower = |record: &Record| {
            let rdata = Rdata::from_wire(canonical(record.rtype, record.rdata.as_wire()).into_owned());
            Record { rdata, ..record.clone() }
        };
        let mut records: Vec<Record> = self.records.iter().map(lower).collect();
        records.sort();
        records
    }

    fn soa(&mut self) -> &mut Record {
        self.records.iter_mut().find(|record| record.rtype == Rtype::SOA).expect("a zone has one")
    }

    fn serial(&mut self) -> u32 {
        Soa::read(&self.soa().rdata).expect("SOA data").serial
    }

    pub(super) fn apply(&mut self, update: &Update) {
        let before = self.sorted();
        let old_serial = self.serial();
        for rr in &update.entries {
            match (rr.class, &rr.data) {
                (CLASS_IN, Data::Record(rdata)) => {
                    self.add(&Record { owner: rr.owner.clone(), rtype: rr.rtype, ttl: rr.ttl, rdata: rdata.clone() });
                }
                (CLASS_ANY, _) => self.records.retain(|zrr| {
                    let is_apex_lock = zrr.owner == self.origin && matches!(zrr.rtype, Rtype::SOA | Rtype::NS);
                    zrr.owner != rr.owner || (rr.rtype != Rtype::ANY && zrr.rtype != rr.rtype) || is_apex_lock
                }),
                (_, Data::Record(rdata)) => self.delete(&rr.owner, rr.rtype, rdata),
                _ => unreachable!("the section was looked through"),
            }
        }
        if self.sorted() != before && !is_newer(self.serial(), old_serial) {
            let soa = self.soa();
            soa.rdata = with_serial(&soa.rdata, next_serial(old_serial)).expect("SOA data");
        }
    }

    fn delete(&mut self, owner: &Name, rtype: Rtype, rdata: &Rdata) {
        if rtype == Rtype::SOA {
            return;
        }
        let set = self.records.iter().filter(|zrr| zrr.owner == *owner && zrr.rtype == rtype).count();
        if rtype == Rtype::NS && *owner == self.origin && set == 1 {
            return;
        }
        self.records.retain(|zrr| !(zrr.owner == *owner && zrr.rtype == rtype && same(rtype, &zrr.rdata, rdata)));
    }

    fn add(&mut self, rr: &Record) {
        let at_name =
            |wanted: &dyn Fn(Rtype) -> bool| self.records.iter().any(|zrr| zrr.owner == rr.owner && wanted(zrr.rtype));
        if rr.rtype == Rtype::CNAME {
            if at_name(&|rtype| rtype != Rtype::CNAME) {
                return;
            }
        } else if at_name(&|rtype| rtype == Rtype::CNAME) {
            return;
        }
        if rr.rtype == Rtype::SOA {
            let serial = Soa::read(&rr.rdata).expect("SOA data").serial;
            if !at_name(&|rtype| rtype == Rtype::SOA) || !(serial == self.serial() || is_newer(serial, self.serial())) {
                return;
            }
        }
        for zrr in self.records.iter_mut().filter(|zrr| zrr.owner == rr.owner && zrr.rtype == rr.rtype) {
            zrr.ttl = rr.ttl;
        }
        for zrr in self.records.iter_mut().filter(|zrr| zrr.owner == rr.owner && zrr.rtype == rr.rtype) {
            let replaces = match rr.rtype {
                Rtype::CNAME | Rtype::DNAME | Rtype::SOA => true,
                Rtype::WKS => zrr.rdata.as_wire()[..5] == rr.rdata.as_wire()[..5],
                _ => same(rr.rtype, &zrr.rdata, &rr.rdata),
            };
            if replaces {
                *zrr = rr.clone();
                return;
            }
        }
        self.records.push(rr.clone());
    }
}
