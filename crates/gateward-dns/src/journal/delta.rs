//! One step of a zone from a serial to the next, as octets.

use gateward_zone::{Change, Name, Rdata, Record, Rtype};

/// A step of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The serial before.
    pub from: u32,
    /// The serial after.
    pub to: u32,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// Who did it.
    pub actor: String,
    /// The digest of the zone afterwards.
    pub digest: u128,
    /// What changed: every record that went, every record that came, the SOA among them.
    pub changes: Vec<Change>,
}

impl Delta {
    /// What leads back.
    #[must_use]
    pub fn undone(&self) -> Vec<Change> {
        let (gone, come): (Vec<&Change>, Vec<&Change>) =
            self.changes.iter().partition(|change| matches!(change, Change::Add(_)));
        let gone = gone.into_iter().map(|change| Change::Remove(change.record().clone()));
        gone.chain(come.into_iter().map(|change| Change::Add(change.record().clone()))).collect()
    }

    /// Records that came, and records that went.
    #[must_use]
    pub fn counts(&self) -> (u32, u32) {
        let added = self.changes.iter().filter(|change| matches!(change, Change::Add(_))).count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        (count(added), count(self.changes.len() - added))
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.from.to_le_bytes());
        out.extend(self.to.to_le_bytes());
        out.extend(self.time_ms.to_le_bytes());
        out.extend(self.digest.to_le_bytes());
        // An actor's name is bounded where it comes in; a longer one is cut rather than refused here.
        let actor = &self.actor.as_bytes()[..self.actor.floor_char_boundary(MAX_ACTOR)];
        out.extend(u16::try_from(actor.len()).expect("it was cut").to_le_bytes());
        out.extend(actor);
        out.extend(u32::try_from(self.changes.len()).expect("a frame is bounded").to_le_bytes());
        for change in &self.changes {
            let record = change.record();
            out.push(u8::from(matches!(change, Change::Add(_))));
            out.extend(record.owner.as_wire());
            out.extend(record.rtype.to_int().to_le_bytes());
            out.extend(record.ttl.to_le_bytes());
            let data = record.rdata.as_wire();
            out.extend(u16::try_from(data.len()).expect("data has at most 65,535 octets").to_le_bytes());
            out.extend(data);
        }
    }

    /// Reads what [`Self::put`] wrote, all of it.
    pub(super) fn read(octets: &[u8]) -> Option<Delta> {
        let mut octets = octets;
        let reader = &mut octets;
        let delta = Delta::take(reader)?;
        reader.is_empty().then_some(delta)
    }

    fn take(reader: &mut &[u8]) -> Option<Delta> {
        let from = u32::from_le_bytes(array(reader)?);
        let to = u32::from_le_bytes(array(reader)?);
        let time_ms = u64::from_le_bytes(array(reader)?);
        let digest = u128::from_le_bytes(array(reader)?);
        let actor = usize::from(u16::from_le_bytes(array(reader)?));
        let actor = String::from_utf8(take(reader, actor)?.to_vec()).ok()?;
        let count = u32::from_le_bytes(array(reader)?);
        let mut changes = Vec::new();
        for _ in 0..count {
            let [adds] = array::<1>(reader)?;
            let (owner, used) = Name::from_wire(reader).ok()?;
            *reader = &reader[used..];
            let rtype = Rtype::from_int(u16::from_le_bytes(array(reader)?));
            let ttl = u32::from_le_bytes(array(reader)?);
            let len = usize::from(u16::from_le_bytes(array(reader)?));
            let rdata = Rdata::from_wire(take(reader, len)?);
            let record = Record { owner, rtype, ttl, rdata };
            changes.push(if adds == 1 { Change::Add(record) } else { Change::Remove(record) });
        }
        Some(Delta { from, to, time_ms, actor, digest, changes })
    }
}

/// Longest name of an actor that is kept, in octets.
const MAX_ACTOR: usize = 1_024;

fn take<'a>(reader: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = reader.split_at_checked(len)?;
    *reader = rest;
    Some(taken)
}

fn array<const N: usize>(reader: &mut &[u8]) -> Option<[u8; N]> {
    take(reader, N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_written_and_read() {
        let record = |last: u8| Record {
            owner: "www.example.com".parse().expect("a name"),
            rtype: Rtype::A,
            ttl: 60,
            rdata: Rdata::from_wire([192, 0, 2, last]),
        };
        let delta = Delta {
            from: 1,
            to: u32::MAX,
            time_ms: 1_700_000_000_123,
            actor: "é".repeat(600),
            digest: 1 << 100,
            changes: vec![Change::Remove(record(1)), Change::Add(record(2))],
        };
        let mut octets = Vec::new();
        delta.put(&mut octets);
        let read = Delta::read(&octets).expect("it was written");
        assert_eq!(read.actor, "é".repeat(512));
        assert_eq!(Delta { actor: delta.actor.clone(), ..read }, delta);
        assert_eq!(delta.undone(), [Change::Remove(record(2)), Change::Add(record(1))]);
        assert_eq!(delta.counts(), (1, 1));
        for cut in 0..octets.len() {
            assert_eq!(Delta::read(&octets[..cut]), None);
        }
    }
}
