//! Rules on a single set of records.

use domain::base::iana::Rtype;

use super::{Lint, targets};
use crate::name::Name;
use crate::rdata::{self, svcb};
use crate::record::RecordSet;

/// RFC 2181, 8: the highest bit is not used.
const LARGEST_TTL: u32 = i32::MAX as u32;

impl Lint<'_> {
    pub(super) fn data(&mut self, name: &Name, set: &RecordSet) {
        let rtype = set.rtype;
        if set.ttl > LARGEST_TTL {
            let message = format!("the TTL of {name} {rtype} is {}", set.ttl);
            self.error("ttl-too-large", name, rtype, message, "give it at most 2147483647 seconds; a day is plenty");
        }
        if is_of_a_message(rtype) {
            let message = format!("{name} has a record of type {rtype}, which exists in messages only");
            self.error("meta-type", name, rtype, message, "remove it");
        }
        if let Some(bad) = set.data.iter().find_map(|data| rdata::check(rtype, data.as_wire()).err()) {
            self.error("bad-data", name, rtype, format!("{name} {rtype}: {bad}"), "correct the record");
        }
        self.host_names(name, set);
        if matches!(rtype, Rtype::SVCB | Rtype::HTTPS) {
            self.service_bindings(name, set);
        }
    }

    /// RFC 952, RFC 1123, 2.1.
    fn host_names(&mut self, name: &Name, set: &RecordSet) {
        if matches!(set.rtype, Rtype::A | Rtype::AAAA | Rtype::MX) && !is_host_name(name) {
            let message = format!("{name} has {} records, but is not a host name", set.rtype);
            self.warning(
                "host-name",
                name,
                set.rtype,
                message,
                "use letters, digits and hyphens; some software refuses others",
            );
        }
        if matches!(set.rtype, Rtype::NS | Rtype::MX | Rtype::SRV) {
            for target in targets::of(set).iter().filter(|target| !is_host_name(target)) {
                let message =
                    format!("the {} record of {name} points at {target}, which is not a host name", set.rtype);
                self.warning(
                    "host-name",
                    name,
                    set.rtype,
                    message,
                    "use letters, digits and hyphens; some software refuses others",
                );
            }
        }
    }

    /// RFC 9460, 2.4 and 7.1.
    fn service_bindings(&mut self, name: &Name, set: &RecordSet) {
        let mut aliases = 0;
        for data in set.data.iter().map(crate::record::Rdata::as_wire) {
            let Some(target) = rdata::names(set.rtype, data).into_iter().next() else { continue };
            let params = svcb::params(&data[target.end..]).unwrap_or_default();
            let has = |key| params.iter().any(|(found, _)| *found == key);
            if data[..2] == [0, 0] {
                aliases += 1;
                if !params.is_empty() {
                    let message = format!("{name} {}: a record in alias mode (priority 0) has parameters", set.rtype);
                    self.warning("svcb-alias", name, set.rtype, message, "remove them: clients ignore them");
                }
            } else if has(svcb::NO_DEFAULT_ALPN) && !has(svcb::ALPN) {
                let message = format!("{name} {}: `no-default-alpn` without `alpn`", set.rtype);
                self.error(
                    "svcb-alpn",
                    name,
                    set.rtype,
                    message,
                    "add `alpn=`: no protocol is left otherwise (RFC 9460, 7.1.1)",
                );
            }
        }
        if aliases > 0 && set.data.len() > 1 {
            let message = format!("{name} {} has a record in alias mode and others beside it", set.rtype);
            self.warning(
                "svcb-alias",
                name,
                set.rtype,
                message,
                "keep the alias or the others: clients ignore one of them",
            );
        }
    }
}

/// Types that stand for a question or go with one message.
fn is_of_a_message(rtype: Rtype) -> bool {
    matches!(rtype, Rtype::OPT) || (128..=255).contains(&rtype.to_int()) || rtype.to_int() == 0
}

/// Letters, digits and hyphens, none of these at an end; a first label `*` counts as well.
fn is_host_name(name: &Name) -> bool {
    name.labels().enumerate().all(|(index, label)| {
        let good = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'-';
        (index == 0 && label == b"*")
            || (label.iter().all(good) && label.first() != Some(&b'-') && label.last() != Some(&b'-'))
    })
}
