//! What asks for a transfer.

use gateward_zone::{Name, Record, Rtype, Soa};

use crate::wire::{CLASS_IN, Header, Reader, Section, WireError, Writer, read_question};

/// A whole zone, or what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The whole zone.
    Axfr,
    /// What changed since the version with this serial.
    Ixfr {
        /// The version that the asker has.
        serial: u32,
    },
}

impl Kind {
    pub(super) fn rtype(self) -> Rtype {
        match self {
            Kind::Axfr => Rtype::AXFR,
            Kind::Ixfr { .. } => Rtype::IXFR,
        }
    }
}

/// A request for a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its number, which all messages of the answer repeat.
    pub id: u16,
    /// The zone.
    pub zone: Name,
    /// How much of it.
    pub kind: Kind,
    /// What the asker can take in a datagram; `None` without EDNS.
    pub payload: Option<u16>,
}

/// Reads a request of type AXFR or IXFR; `None` for other questions.
///
/// # Errors
/// [`WireError`]: FORMERR. An IXFR request names the version it has in a SOA record (RFC 1995, 3).
pub fn parse_request(message: &[u8]) -> Result<Option<Request>, WireError> {
    let header = Header::read(message)?;
    let question = read_question(message)?;
    let is_ixfr = question.rtype == Rtype::IXFR;
    if question.class != CLASS_IN || !(is_ixfr || question.rtype == Rtype::AXFR) {
        return Ok(None);
    }
    let mut reader = Reader::new(message);
    reader.question()?;
    let mut serial = None;
    for _ in 0..header.counts[1] {
        reader.record()?;
    }
    for _ in 0..header.counts[2] {
        let record = reader.record()?;
        if record.rtype == Rtype::SOA && record.owner == question.name && serial.is_none() {
            let soa = Soa::read(&record.rdata(message)?).map_err(|_| WireError::Data(Rtype::SOA))?;
            serial = Some(soa.serial);
        }
    }
    let mut payload = None;
    for _ in 0..header.counts[3] {
        let record = reader.record()?;
        if record.rtype == Rtype::OPT {
            payload = Some(record.class);
        }
    }
    reader.end()?;
    let kind = match (is_ixfr, serial) {
        (false, _) => Kind::Axfr,
        (true, Some(serial)) => Kind::Ixfr { serial },
        (true, None) => return Err(WireError::Misplaced(Rtype::SOA)),
    };
    Ok(Some(Request { id: header.id, zone: question.name, kind, payload }))
}

/// The message that asks for a transfer; `soa` is the record of the version that is there, for IXFR.
pub(super) fn write_request(id: u16, zone: &Name, kind: Kind, soa: Option<&Record>) -> Vec<u8> {
    let mut writer = Writer::new(id, 0, 1024);
    writer.question(zone, kind.rtype(), CLASS_IN);
    if let Some(soa) = soa {
        let fits = writer.record(Section::Authority, zone, Rtype::SOA, CLASS_IN, soa.ttl, soa.rdata.as_wire());
        debug_assert!(fits, "two names and five numbers fit");
    }
    writer.finish()
}
