//! Records and sets of records, with their data in uncompressed wire format.

use domain::base::iana::Rtype;

use crate::name::Name;

/// A record's data: uncompressed wire format, letter case as it was written; at most 65,535 octets.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rdata(Box<[u8]>);

impl Rdata {
    /// Data that is known to have the form its type asks for.
    #[must_use]
    pub fn from_wire(octets: impl Into<Box<[u8]>>) -> Self {
        Rdata(octets.into())
    }

    /// Uncompressed wire format.
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Rdata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// One record of class IN.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// The name it stands at.
    pub owner: Name,
    /// Its type.
    pub rtype: Rtype,
    /// Seconds a cache may keep it (RFC 2181, 8: at most 2^31 - 1).
    pub ttl: u32,
    /// Its data.
    pub rdata: Rdata,
}

/// The records of one type at one name: they have one time to live (RFC 2181, 5.2) and no data twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSet {
    /// Their type.
    pub rtype: Rtype,
    /// Seconds a cache may keep them.
    pub ttl: u32,
    /// Their data, at least one; in the order of the file or of the updates.
    pub data: Vec<Rdata>,
}

impl RecordSet {
    /// The sets of records at one name that are sorted by type.
    pub(crate) fn group(at_name: &[Record]) -> Vec<RecordSet> {
        let sets = at_name.chunk_by(|a, b| a.rtype == b.rtype).map(|set| RecordSet {
            rtype: set[0].rtype,
            ttl: set[0].ttl,
            data: set.iter().map(|record| record.rdata.clone()).collect(),
        });
        sets.collect()
    }
}
