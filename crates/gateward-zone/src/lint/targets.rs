//! Names in data: whether what they point at is there, and is what the type asks for.

use domain::base::iana::Rtype;

use super::Lint;
use super::cuts::is_address;
use crate::name::Name;
use crate::rdata;
use crate::record::RecordSet;

/// The names in the data of a set, in its order.
pub(super) fn of(set: &RecordSet) -> Vec<Name> {
    let name = |data: &[u8], range| Name::from_wire(&data[range]).map(|(name, _)| name).ok();
    let in_data = |data: &[u8]| -> Vec<Name> {
        rdata::names(set.rtype, data).into_iter().filter_map(|range| name(data, range)).collect()
    };
    set.data.iter().flat_map(|data| in_data(data.as_wire())).collect()
}

impl Lint<'_> {
    pub(super) fn targets(&mut self, name: &Name, set: &RecordSet) {
        let checked =
            matches!(set.rtype, Rtype::NS | Rtype::MX | Rtype::SRV | Rtype::CNAME | Rtype::SVCB | Rtype::HTTPS);
        // What is hidden is told elsewhere; `.` says that there is no such service.
        if !checked || (set.rtype == Rtype::NS && self.is_hidden(name)) {
            return;
        }
        for target in of(set) {
            if !target.is_root() && target.is_in(self.origin()) {
                self.target(name, set.rtype, &target);
            }
        }
    }

    fn is_hidden(&mut self, name: &Name) -> bool {
        self.occluder(name).is_some()
    }

    fn target(&mut self, name: &Name, rtype: Rtype, target: &Name) {
        let sets = self.sets_for(target);
        let has_address = sets.iter().any(|set| is_address(set.rtype));
        if matches!(rtype, Rtype::NS | Rtype::MX | Rtype::SRV) && sets.iter().any(|set| set.rtype == Rtype::CNAME) {
            let message = format!("the {rtype} record of {name} points at {target}, which is an alias");
            let remedy = "point it at the name that has the addresses (RFC 2181, 10.3)";
            return if rtype == Rtype::NS {
                self.error("target-is-cname", name, rtype, message, remedy);
            } else {
                self.warning("target-is-cname", name, rtype, message, remedy);
            };
        }
        let delegated = self.delegated(target);
        match rtype {
            Rtype::NS if has_address => {}
            // In the delegated zone itself: nobody finds the server without its address from here (RFC 9471).
            Rtype::NS if name != self.origin() && target.is_in(name) => self.error(
                "glue-missing",
                name,
                rtype,
                format!("{name} is delegated to {target}, which is below it and has no address here"),
                "add its A and AAAA records to this zone as glue",
            ),
            _ if delegated => {}
            Rtype::NS => self.error(
                "target-missing",
                name,
                rtype,
                format!("the NS record of {name} points at {target}, which has no address"),
                "add A and AAAA records for it, or point at a server that exists",
            ),
            _ if sets.is_empty() => self.warning(
                "target-missing",
                name,
                rtype,
                format!("the {rtype} record of {name} points at {target}, which does not exist"),
                "add the target's records or correct its name; a name without a last dot is relative to the origin",
            ),
            Rtype::MX | Rtype::SRV if !has_address => self.warning(
                "target-missing",
                name,
                rtype,
                format!("the {rtype} record of {name} points at {target}, which has no address"),
                "add A and AAAA records for it",
            ),
            _ => {}
        }
    }

    /// Whether another zone says what `target` is.
    fn delegated(&mut self, target: &Name) -> bool {
        self.towards.occluder(self.view, target).is_some()
    }
}
