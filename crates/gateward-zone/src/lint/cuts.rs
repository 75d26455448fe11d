//! Delegations: what stands at them and below them.

use domain::base::iana::Rtype;

use super::{Lint, Occluder, targets};
use crate::name::Name;
use crate::record::RecordSet;

impl Lint<'_> {
    /// Records that no query reaches, and records that belong to a delegation without one.
    pub(super) fn hidden(&mut self, name: &Name, sets: &[RecordSet]) {
        match self.occluder(name) {
            Some(Occluder::Dname(above)) => {
                let message = format!("{name} stands below {above}, which has a DNAME record");
                let rtype = sets[0].rtype;
                self.error(
                    "below-dname",
                    name,
                    rtype,
                    message,
                    "remove one of them: nothing may exist below a DNAME (RFC 6672, 2.4)",
                );
            }
            Some(Occluder::Cut(cut, servers)) => self.below_cut(name, sets, &cut, &servers),
            None if name != self.origin() => self.at_cut(name, sets),
            None => {}
        }
    }

    fn below_cut(&mut self, name: &Name, sets: &[RecordSet], cut: &Name, servers: &[Name]) {
        let is_glue = |set: &&RecordSet| is_address(set.rtype) && servers.contains(name);
        for set in sets.iter().filter(|set| !is_glue(set)) {
            self.warning(
                "occluded",
                name,
                set.rtype,
                format!("the {} record of {name} is never answered: {cut} is delegated", set.rtype),
                "move it into the delegated zone; only addresses of the delegation's name servers belong here",
            );
        }
    }

    fn at_cut(&mut self, name: &Name, sets: &[RecordSet]) {
        let Some(ns) = sets.iter().find(|set| set.rtype == Rtype::NS) else {
            if sets.iter().any(|set| set.rtype == Rtype::DS) {
                let message = format!("{name} has a DS record, but is not delegated");
                self.warning(
                    "ds-without-ns",
                    name,
                    Rtype::DS,
                    message,
                    "add the NS records of the delegation or remove the DS (RFC 4035, 2.4)",
                );
            }
            return;
        };
        if name.is_wildcard() {
            let message = format!("{name} is a wildcard with NS records");
            self.warning(
                "wildcard-ns",
                name,
                Rtype::NS,
                message,
                "delegate names one by one: what this means is not defined (RFC 4592, 4.2)",
            );
        }
        let servers = targets::of(ns);
        for set in sets {
            let belongs = matches!(set.rtype, Rtype::NS | Rtype::DS | Rtype::RRSIG | Rtype::NSEC | Rtype::DNAME)
                || (is_address(set.rtype) && servers.contains(name));
            if !belongs {
                self.warning(
                    "occluded",
                    name,
                    set.rtype,
                    format!("the {} record of {name} is never answered: the name is delegated", set.rtype),
                    "move it to the apex of the delegated zone",
                );
            }
        }
    }
}

pub(super) fn is_address(rtype: Rtype) -> bool {
    matches!(rtype, Rtype::A | Rtype::AAAA)
}
