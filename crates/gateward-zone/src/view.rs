//! How a zone is looked at, whoever stores it, and how a change to it is written down.

use domain::base::iana::Rtype;

use crate::name::Name;
use crate::record::{Record, RecordSet};

/// A version of a zone that can be read: what guardrails, differences and plans need to know of it.
pub trait ZoneView {
    /// The zone's apex.
    fn origin(&self) -> &Name;
    /// The serial number of its SOA record.
    fn serial(&self) -> u32;
    /// How many records it has, the SOA included.
    fn record_count(&self) -> usize;
    /// The sets of records at `name`, ordered by type; empty if there are none.
    fn sets_at(&self, name: &Name) -> Vec<RecordSet>;
    /// The set of `rtype` at `name`.
    fn set(&self, name: &Name, rtype: Rtype) -> Option<RecordSet> {
        self.sets_at(name).into_iter().find(|set| set.rtype == rtype)
    }
    /// Every record: the SOA first, then by name in no particular order.
    fn for_each_record(&self, visit: &mut dyn FnMut(Record));
}

/// One step from a version of a zone to the next. A list of them is a difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// The record is there no more.
    Remove(Record),
    /// The record is there now.
    Add(Record),
}

impl Change {
    /// The record that comes or goes.
    #[must_use]
    pub fn record(&self) -> &Record {
        match self {
            Change::Remove(record) | Change::Add(record) => record,
        }
    }
}
