//! Writing: a message record by record until it is full, names compressed.
//!
//! Names that were written are found again through a small table of offsets that is compared with the message itself: no name is
//! stored twice, and nothing is allocated per record.

use std::hash::Hasher as _;

use gateward_zone::rdata::{Compressible, compressible};
use gateward_zone::{Name, Rtype};
use rustc_hash::FxHasher;

use super::{HEADER_LEN, MAX_MESSAGE};

/// Slots of the table of names; used to three quarters, later names of a message stay uncompressed.
const SLOTS: usize = 4096;
const FULL: usize = SLOTS / 4 * 3;
/// Highest offset a pointer can name (RFC 1035, 4.1.4).
const MAX_POINTER: usize = 0x3fff;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Answers; of an update: prerequisites.
    Answer = 1,
    /// Authority; of an update: updates.
    Authority = 2,
    /// Additional.
    Additional = 3,
}

/// A message being written.
pub struct Writer {
    octets: Vec<u8>,
    counts: [u16; 4],
    limit: usize,
    slots: Box<[u16; SLOTS]>,
    used: usize,
}

impl Writer {
    /// A message of at most `limit` octets.
    #[must_use]
    pub fn new(id: u16, flags: u16, limit: usize) -> Self {
        let mut octets = Vec::with_capacity(limit.min(MAX_MESSAGE));
        octets.extend(id.to_be_bytes());
        octets.extend(flags.to_be_bytes());
        octets.resize(HEADER_LEN, 0);
        Writer { octets, counts: [0; 4], limit: limit.min(MAX_MESSAGE), slots: Box::new([0; SLOTS]), used: 0 }
    }

    /// Adds a question. Comes before all records.
    pub fn question(&mut self, name: &Name, rtype: Rtype, class: u16) {
        self.name(name.as_wire());
        self.octets.extend(rtype.to_int().to_be_bytes());
        self.octets.extend(class.to_be_bytes());
        self.counts[0] += 1;
    }

    /// Adds a record to a section, or leaves the message as it was and returns false when that would make it longer than the limit.
    #[must_use]
    pub fn record(&mut self, section: Section, owner: &Name, rtype: Rtype, class: u16, ttl: u32, data: &[u8]) -> bool {
        let before = self.octets.len();
        self.name(owner.as_wire());
        self.octets.extend(rtype.to_int().to_be_bytes());
        self.octets.extend(class.to_be_bytes());
        self.octets.extend(ttl.to_be_bytes());
        let len_at = self.octets.len();
        self.octets.extend([0; 2]);
        self.data(rtype, data);
        let count = &mut self.counts[section as usize];
        let len = u16::try_from(self.octets.len() - len_at - 2);
        match (len, count.checked_add(1)) {
            (Ok(len), Some(more)) if self.octets.len() <= self.limit => {
                self.octets[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
                *count = more;
                true
            }
            _ => {
                self.octets.truncate(before);
                self.forget_from(before);
                false
            }
        }
    }

    /// How many records and questions there are.
    #[must_use]
    pub fn counts(&self) -> [u16; 4] {
        self.counts
    }

    /// Octets so far.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always a header")]
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// Allows more octets.
    pub fn raise_limit(&mut self, limit: usize) {
        self.limit = limit.min(MAX_MESSAGE);
    }

    /// The message.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        for (index, count) in self.counts.iter().enumerate() {
            self.octets[4 + index * 2..6 + index * 2].copy_from_slice(&count.to_be_bytes());
        }
        self.octets
    }

    /// Data with its names compressed where the type allows it; as it is when it does not have its type's form.
    fn data(&mut self, rtype: Rtype, data: &[u8]) {
        let Some(Compressible { names_at, names }) = compressible(rtype) else {
            return self.octets.extend_from_slice(data);
        };
        let (head, mut rest) = data.split_at_checked(names_at).unwrap_or((data, &[][..]));
        self.octets.extend_from_slice(head);
        for _ in 0..names {
            let len = name_len(rest);
            let Some((name, tail)) = rest.split_at_checked(len).filter(|_| len > 0) else { break };
            self.name(name);
            rest = tail;
        }
        self.octets.extend_from_slice(rest);
    }

    /// An uncompressed name: labels until the rest of it was written before, then a pointer there.
    fn name(&mut self, wire: &[u8]) {
        let mut rest = wire;
        while rest[0] != 0 {
            match self.find(rest) {
                Ok(offset) => {
                    self.octets.extend((0xc000 | offset).to_be_bytes());
                    return;
                }
                Err(slot) => self.remember(slot),
            }
            let (label, tail) = rest.split_at(1 + usize::from(rest[0]));
            self.octets.extend_from_slice(label);
            rest = tail;
        }
        self.octets.push(0);
    }

    /// Where a name stands in the message, or the slot that would hold it.
    fn find(&self, name: &[u8]) -> Result<u16, usize> {
        let mut hasher = FxHasher::default();
        hasher.write(name);
        let mut slot = (hasher.finish() >> 20) as usize % SLOTS;
        while self.slots[slot] != 0 {
            if self.stands_at(usize::from(self.slots[slot]), name) {
                return Ok(self.slots[slot]);
            }
            slot = (slot + 1) % SLOTS;
        }
        Err(slot)
    }

    fn remember(&mut self, slot: usize) {
        let at = self.octets.len();
        if at <= MAX_POINTER && self.used < FULL {
            self.slots[slot] = u16::try_from(at).expect("at most 0x3fff");
            self.used += 1;
        }
    }

    /// Removes names at or after `offset`. Their slots cannot be emptied one by one without breaking the probing of others, so
    /// the whole table is: it happens once for a message, when it is full.
    fn forget_from(&mut self, offset: usize) {
        if self.slots.iter().any(|slot| usize::from(*slot) >= offset) {
            self.slots.fill(0);
            self.used = 0;
        }
    }

    /// Whether the name at `at` is `name`, octet for octet (letter case in data is kept).
    fn stands_at(&self, mut at: usize, mut name: &[u8]) -> bool {
        loop {
            // The name that is being written has no end yet.
            let Some(&octet) = self.octets.get(at) else { return false };
            if octet >= 0xc0 {
                at = usize::from(u16::from_be_bytes([octet & 0x3f, self.octets[at + 1]]));
                continue;
            }
            let len = 1 + usize::from(octet);
            if self.octets.get(at..at + len) != name.get(..len) {
                return false;
            }
            if octet == 0 {
                return true;
            }
            at += len;
            name = &name[len..];
        }
    }
}

/// Octets of the uncompressed name at the start of `data`; 0 if there is none.
fn name_len(data: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match data.get(at) {
            Some(0) if at < gateward_zone::MAX_NAME_LEN => return at + 1,
            Some(len @ 1..=63) => at += 1 + usize::from(*len),
            _ => return 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CLASS_IN, Header, Reader};

    fn name(text: &str) -> Name {
        text.parse().expect(text)
    }

    /// Many names, many types: what is read is what was written, and the message is shorter than the sum of its parts.
    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new(7, 0x8400, 16 * 1024);
        writer.question(&name("example.com"), Rtype::AXFR, CLASS_IN);
        let mut written = Vec::new();
        let data = |rtype: Rtype| {
            match rtype {
            Rtype::A => vec![192, 0, 2, 1],
            Rtype::NS => b"\x02NS\x07Example\x03com\0".to_vec(),
            Rtype::MX => b"\0\x0a\x04mail\x07example\x03com\0".to_vec(),
            Rtype::SRV => b"\0\0\0\0\0\x50\x03www\x07example\x03com\0".to_vec(),
            _ => b"\x02ns\x07example\x03com\0\x05admin\x07example\x03com\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05".to_vec(),
        }
        };
        for index in 0.. {
            let rtype = [Rtype::A, Rtype::NS, Rtype::MX, Rtype::SRV, Rtype::SOA][index % 5];
            let owner = name(&format!("host{index}.net{}.example.com", index % 7));
            if !writer.record(Section::Answer, &owner, rtype, CLASS_IN, 300, &data(rtype)) {
                break;
            }
            written.push((owner, rtype));
        }
        assert!(written.len() > 300, "only {} records fit", written.len());
        let message = writer.finish();
        assert!(message.len() <= 16 * 1024);
        let header = Header::read(&message).expect("a header");
        assert_eq!(usize::from(header.counts[1]), written.len());
        let mut reader = Reader::new(&message);
        reader.question().expect("the question");
        for (owner, rtype) in written {
            let record = reader.record().expect("a record");
            assert_eq!((&record.owner, record.rtype), (&owner, rtype));
            assert_eq!(record.rdata(&message).expect("data").as_wire(), data(rtype));
        }
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn data_that_lacks_its_form_is_sent_as_it_is() {
        for data in [&b""[..], b"\0", b"\xff", b"\0\x0a", b"\0\x0a\x40"] {
            let mut writer = Writer::new(1, 0, 512);
            assert!(writer.record(Section::Answer, &name("a"), Rtype::MX, CLASS_IN, 1, data));
            let message = writer.finish();
            let record = Reader::new(&message).record().expect("a record");
            assert_eq!(&message[record.data], data);
        }
    }

    /// A record that does not fit leaves no name behind that a later record could point at.
    #[test]
    fn a_record_that_does_not_fit_leaves_nothing() {
        let mut writer = Writer::new(1, 0, 64);
        assert!(!writer.record(Section::Answer, &name("long.example"), Rtype::TXT, CLASS_IN, 1, &[0; 64]));
        assert!(writer.record(Section::Answer, &name("b.long.example"), Rtype::A, CLASS_IN, 1, &[1; 4]));
        let message = writer.finish();
        assert_eq!(Reader::new(&message).record().expect("a record").owner, name("b.long.example"));
    }
}
