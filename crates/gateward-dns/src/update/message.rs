//! An update as it stands in a message (RFC 2136, 2). A message is at most 65,535 octets and an entry at least 11, so that
//! there are never more than 5,957 of them.

use gateward_zone::{Name, Opcode, Rcode, Rdata, Rtype};

use super::Refusal;
use crate::wire::{CLASS_IN, CLASS_NONE, Header, Reader, WireError};

/// An UPDATE message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The zone it is about.
    pub zone: Name,
    /// What must hold.
    pub prerequisites: Vec<Entry>,
    /// What shall change.
    pub entries: Vec<Entry>,
}

/// An entry of the prerequisite or the update section. What its class says of it is looked at later: which error is answered
/// depends on the entries before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name it is about.
    pub owner: Name,
    /// The type, or ANY.
    pub rtype: Rtype,
    /// IN, ANY or NONE; others are errors.
    pub class: u16,
    /// Seconds to live of what is added.
    pub ttl: u32,
    /// The data.
    pub data: Data,
}

/// An entry's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// No octets, and the class or type does not want any.
    Empty,
    /// In the form of the entry's type.
    Record(Rdata),
    /// Octets without that form, or where there must be none.
    Malformed,
}

/// Reads an UPDATE message. Its additional section (OPT, TSIG, glue) is not looked at.
///
/// # Errors
/// [`Refusal`] with FORMERR: it is malformed, or its zone section does not name one zone (RFC 2136, 3.1.1). With NOTAUTH: a class other than IN.
pub fn parse(message: &[u8]) -> Result<Update, Refusal> {
    let malformed = |error: WireError| Refusal::new(Rcode::FORMERR, error.to_string());
    let header = Header::read(message).map_err(malformed)?;
    if header.opcode() != Opcode::UPDATE.to_int() {
        return Err(Refusal::new(Rcode::FORMERR, "the message is not an update"));
    }
    if header.counts[0] != 1 {
        return Err(Refusal::new(Rcode::FORMERR, "the zone section must name one zone"));
    }
    let mut reader = Reader::new(message);
    let zone = reader.question().map_err(malformed)?;
    if zone.rtype != Rtype::SOA {
        return Err(Refusal::new(Rcode::FORMERR, "the type in the zone section must be SOA"));
    }
    let prerequisites = entries(&mut reader, header.counts[1], false).map_err(malformed)?;
    let entries = entries(&mut reader, header.counts[2], true).map_err(malformed)?;
    for _ in 0..header.counts[3] {
        reader.record().map_err(malformed)?;
    }
    reader.end().map_err(malformed)?;
    if zone.class != CLASS_IN {
        return Err(Refusal::new(Rcode::NOTAUTH, "only zones of class IN are served"));
    }
    Ok(Update { zone: zone.name, prerequisites, entries })
}

fn entries(reader: &mut Reader<'_>, count: u16, in_update_section: bool) -> Result<Vec<Entry>, WireError> {
    (0..count)
        .map(|_| {
            let record = reader.record()?;
            let has_data = record.class == CLASS_IN || (record.class == CLASS_NONE && in_update_section);
            let data = match record.rdata(reader.message()) {
                Ok(rdata) if has_data => Data::Record(rdata),
                _ if record.data.is_empty() && !has_data => Data::Empty,
                _ => Data::Malformed,
            };
            // A time to live with its highest bit set counts as 0 (RFC 2181, 8).
            let ttl = if has_data && record.ttl > i32::MAX.cast_unsigned() { 0 } else { record.ttl };
            Ok(Entry { owner: record.owner, rtype: record.rtype, class: record.class, ttl, data })
        })
        .collect()
}
