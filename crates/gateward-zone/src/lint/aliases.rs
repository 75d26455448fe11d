//! CNAME and DNAME: what may stand beside them and where they may lead.

use domain::base::iana::Rtype;

use super::{Lint, targets};
use crate::name::Name;
use crate::record::RecordSet;

/// CNAME records that are followed before it is called a circle; resolvers give up at about as many.
const LONGEST_CHAIN: usize = 16;

impl Lint<'_> {
    pub(super) fn aliases(&mut self, name: &Name, sets: &[RecordSet]) {
        for set in sets {
            match set.rtype {
                Rtype::CNAME => self.cname(name, set, sets),
                Rtype::DNAME => self.dname(name, set, sets),
                Rtype::SOA if name != self.origin() => self.error(
                    "soa-not-at-apex",
                    name,
                    Rtype::SOA,
                    format!("{name} has a SOA record, but the zone is {}", self.origin()),
                    "remove it; a zone of its own gets a file of its own and NS records here",
                ),
                _ => {}
            }
        }
    }

    /// RFC 1034, 3.6.2; RFC 2181, 10.1.
    fn cname(&mut self, name: &Name, set: &RecordSet, sets: &[RecordSet]) {
        // Signatures and proofs go with everything (RFC 4034, 2.5).
        let beside = |other: &&RecordSet| {
            !matches!(other.rtype, Rtype::CNAME | Rtype::RRSIG | Rtype::NSEC | Rtype::NSEC3 | Rtype::KEY)
        };
        let others: Vec<String> = sets.iter().filter(beside).map(|other| other.rtype.to_string()).collect();
        if name == self.origin() {
            self.error(
                "cname-at-apex",
                name,
                Rtype::CNAME,
                format!("{name} is the zone's apex and cannot be an alias: it has SOA and NS records"),
                "use A and AAAA records, or an HTTPS record in alias mode",
            );
        } else if !others.is_empty() {
            self.error(
                "cname-and-other-data",
                name,
                Rtype::CNAME,
                format!("{name} is an alias and has other records as well: {}", others.join(", ")),
                "remove the CNAME record or the others (RFC 1034, 3.6.2)",
            );
        }
        if set.data.len() > 1 {
            self.error(
                "cname-several",
                name,
                Rtype::CNAME,
                format!("{name} has {} CNAME records", set.data.len()),
                "keep one; use several A or AAAA records to spread load",
            );
        }
        if self.runs_in_a_circle(name, set) {
            self.error(
                "cname-loop",
                name,
                Rtype::CNAME,
                format!("following the CNAME records from {name} comes to no end"),
                "let one of them end at a name with addresses",
            );
        }
    }

    fn runs_in_a_circle(&self, name: &Name, set: &RecordSet) -> bool {
        let mut next = targets::of(set).into_iter().next();
        for _ in 0..LONGEST_CHAIN {
            let Some(target) = next.filter(|target| target.is_in(self.origin())) else { return false };
            if target == *name {
                return true;
            }
            next = self.view.set(&target, Rtype::CNAME).and_then(|set| targets::of(&set).into_iter().next());
        }
        next.is_some()
    }

    /// RFC 6672, 2.3 and 2.4.
    fn dname(&mut self, name: &Name, set: &RecordSet, sets: &[RecordSet]) {
        if set.data.len() > 1 {
            let message = format!("{name} has {} DNAME records", set.data.len());
            self.error("dname-several", name, Rtype::DNAME, message, "keep one (RFC 6672, 2.4)");
        }
        if name != self.origin() && sets.iter().any(|other| other.rtype == Rtype::NS) {
            let message = format!("{name} is delegated and has a DNAME record");
            self.error(
                "dname-and-ns",
                name,
                Rtype::DNAME,
                message,
                "remove one of them, or put the DNAME into the delegated zone (RFC 6672, 2.3)",
            );
        }
        if name.is_wildcard() {
            let message = format!("{name} is a wildcard with a DNAME record");
            self.warning(
                "wildcard-dname",
                name,
                Rtype::DNAME,
                message,
                "remove it: what it means is not defined (RFC 6672, 3.3)",
            );
        }
    }
}
