//! Dynamic updates (RFC 2136): a message is parsed, its prerequisites are checked, and what it asks for becomes changes of a zone.
//!
//! All of it is a function of the message, the zone and a policy; nothing is stored here. Changes come out whole or not at all.

mod apply;
mod draft;
mod message;
mod prerequisites;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use gateward_zone::{Change, Name, Rcode, Rtype, ZoneView};

pub use message::{Data, Entry, Update, parse};

/// Why an update changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rcode}: {reason}")]
pub struct Refusal {
    /// What the answer says.
    pub rcode: Rcode,
    /// The same for people.
    pub reason: String,
}

impl Refusal {
    /// A refusal with a reason.
    pub fn new(rcode: Rcode, reason: impl Into<String>) -> Self {
        Refusal { rcode, reason: reason.into() }
    }
}

/// What `update` changes in `zone`, in the order of RFC 2136, 3: prerequisites, then the update section, which is looked
/// through before anything of it counts.
///
/// `permits` is asked for every set of records that the update names or would remove; the zone's serial, which is raised by any
/// change, is not asked for. The changes come as a difference does: the old SOA and what goes, then the new SOA and what comes.
/// None: everything is already as the update wants it.
///
/// # Errors
/// [`Refusal`]: nothing changes.
pub fn apply(
    zone: &dyn ZoneView,
    update: &Update,
    permits: &dyn Fn(&Name, Rtype) -> bool,
) -> Result<Vec<Change>, Refusal> {
    if update.zone != *zone.origin() {
        return Err(Refusal::new(Rcode::NOTAUTH, format!("{} is not a zone here", update.zone)));
    }
    prerequisites::check(zone, &update.prerequisites)?;
    apply::scan(zone.origin(), &update.entries, permits)?;
    apply::changes(zone, &update.entries, permits)
}
