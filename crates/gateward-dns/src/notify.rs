//! NOTIFY (RFC 1996), without IO: when to tell which secondary of a zone's new version, and what a primary's message says.
//!
//! [`Notifier`] has one entry per zone and target, so that a zone that changes all the time costs a target one message at a time,
//! and a target that does not answer costs nobody anything.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use gateward_zone::{Name, Opcode, Rcode, Record, Rtype, Soa, is_newer};

use crate::wire::{CLASS_IN, Header, Reader, Section, WireError, Writer, flags, read_question};

/// How often one version is told to one target (RFC 1996, 3.6).
const ATTEMPTS: u32 = 5;
/// Wait for an answer to the first message; doubled with each.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Least time between two versions told to one target.
const SPACING: Duration = Duration::from_secs(1);
/// Entries, of all zones and targets; more are not told, their secondaries find out at their next refresh.
const MAX_ENTRIES: usize = 200_000;

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// To whom.
    pub target: SocketAddr,
    /// The key to sign it with.
    pub key: Option<Name>,
    /// The zone it is about.
    pub zone: Name,
    /// The message, unsigned.
    pub message: Vec<u8>,
}

/// What became of telling a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It knows.
    Told,
    /// It answered with an error; it is not asked again.
    Refused(Rcode),
    /// The answer does not belong to anything that was sent.
    Unknown,
}

/// One zone and target.
struct Entry {
    key: Option<Name>,
    /// The newest version.
    soa: Record,
    /// The version the last message told, and its number.
    sent: Option<(u16, Record)>,
    attempts: u32,
    due: Option<Instant>,
    /// Before this nothing new is told.
    not_before: Instant,
}

/// Tells secondaries of new versions.
#[derive(Default)]
pub struct Notifier {
    entries: BTreeMap<(Name, SocketAddr), Entry>,
    next_id: u16,
    /// Zones and targets that gave no answer to any attempt.
    given_up: u64,
}

impl Notifier {
    /// A zone has a new version: `target` shall know. `seed` makes the numbers of messages hard to guess.
    pub fn changed(
        &mut self,
        zone: &Name,
        soa: &Record,
        target: SocketAddr,
        key: Option<&Name>,
        seed: u16,
        now: Instant,
    ) {
        self.next_id ^= seed;
        let place = (zone.clone(), target);
        if self.entries.len() >= MAX_ENTRIES && !self.entries.contains_key(&place) {
            return;
        }
        let entry = self.entries.entry(place).or_insert_with(|| Entry {
            key: None,
            soa: soa.clone(),
            sent: None,
            attempts: 0,
            due: None,
            not_before: now,
        });
        entry.key = key.cloned();
        entry.soa = soa.clone();
        // A version under way is left alone: its answer brings the next one.
        if entry.sent.is_none() {
            entry.attempts = 0;
            entry.due = Some(entry.not_before.max(now));
        }
    }

    /// Nobody is told of this zone any more.
    pub fn forget(&mut self, zone: &Name) {
        self.entries.retain(|(of, _), _| of != zone);
    }

    /// The messages that are due. Call it at [`Notifier::deadline`] and after every other call.
    pub fn poll(&mut self, now: Instant) -> Vec<Send> {
        let mut messages = Vec::new();
        let mut silent = Vec::new();
        for (place, entry) in &mut self.entries {
            if entry.due.is_none_or(|due| due > now) {
                continue;
            }
            if entry.attempts >= ATTEMPTS {
                silent.push(place.clone());
                continue;
            }
            self.next_id = self.next_id.wrapping_mul(0x6255).wrapping_add(0x3619);
            let (zone, target) = place;
            messages.push(Send {
                target: *target,
                key: entry.key.clone(),
                zone: zone.clone(),
                message: write(self.next_id, zone, &entry.soa),
            });
            entry.sent = Some((self.next_id, entry.soa.clone()));
            entry.due = Some(now + FIRST_WAIT * 2_u32.pow(entry.attempts));
            entry.attempts += 1;
            entry.not_before = now + SPACING;
        }
        self.given_up += silent.len() as u64;
        for place in silent {
            self.entries.remove(&place);
        }
        // What was told and has rested is needed no more.
        self.entries.retain(|_, entry| entry.due.is_some() || entry.not_before > now);
        messages
    }

    /// When [`Notifier::poll`] has something to do next; `None`: not before the next call.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.due).min()
    }

    /// An answer came.
    pub fn answered(&mut self, from: SocketAddr, message: &[u8], now: Instant) -> Outcome {
        let (Ok(header), Ok(question)) = (Header::read(message), read_question(message)) else {
            return Outcome::Unknown;
        };
        if !header.is_answer() || header.opcode() != Opcode::NOTIFY.to_int() {
            return Outcome::Unknown;
        }
        let Some(entry) = self.entries.get_mut(&(question.name, from)) else { return Outcome::Unknown };
        let Some((_, told)) = entry.sent.take_if(|(id, _)| *id == header.id) else { return Outcome::Unknown };
        entry.attempts = 0;
        entry.due = (told != entry.soa).then(|| entry.not_before.max(now));
        match Rcode::masked_from_int(header.rcode()) {
            Rcode::NOERROR => Outcome::Told,
            rcode => Outcome::Refused(rcode),
        }
    }

    /// How many targets were given up on because they never answered.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.given_up
    }
}

/// A NOTIFY message with the new SOA record as a hint (RFC 1996, 3.7).
fn write(id: u16, zone: &Name, soa: &Record) -> Vec<u8> {
    let opcode = u16::from(Opcode::NOTIFY.to_int()) << flags::OPCODE_SHIFT;
    let mut writer = Writer::new(id, opcode | flags::AA, 1024);
    writer.question(zone, Rtype::SOA, CLASS_IN);
    let fits = writer.record(Section::Answer, zone, Rtype::SOA, CLASS_IN, soa.ttl, soa.rdata.as_wire());
    debug_assert!(fits, "two names and five numbers fit");
    writer.finish()
}

/// A primary's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The zone that may have changed.
    pub zone: Name,
    /// The serial it says the zone has now. A hint: only the primary's answer to a query counts (RFC 1996, 3.11).
    pub serial: Option<u32>,
}

/// Reads a NOTIFY message.
///
/// # Errors
/// [`WireError`]: FORMERR. Records of other types in it are passed over.
pub fn parse(message: &[u8]) -> Result<Notice, WireError> {
    let header = Header::read(message)?;
    let question = read_question(message)?;
    if question.rtype != Rtype::SOA || question.class != CLASS_IN {
        return Err(WireError::Misplaced(question.rtype));
    }
    let mut reader = Reader::new(message);
    reader.question()?;
    let mut serial = None;
    for _ in 0..header.counts[1] {
        let record = reader.record()?;
        if record.rtype == Rtype::SOA && record.owner == question.name {
            serial = Soa::read(&record.rdata(message)?).ok().map(|soa| soa.serial);
        }
    }
    for _ in 0..u32::from(header.counts[2]) + u32::from(header.counts[3]) {
        reader.record()?;
    }
    reader.end()?;
    Ok(Notice { zone: question.name, serial })
}

/// What becomes of a [`Notice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The zone is to be checked: NOERROR.
    Refresh,
    /// The version it tells of is there already: NOERROR, nothing to do.
    Known,
    /// Not from a primary of the zone: REFUSED (RFC 1996, 3.10).
    NotAPrimary,
}

/// Decides about a notice for a zone whose primaries are `primaries` with the keys they share. A primary with a key is known by the
/// key alone, from whatever address; one without by its address, and the notice must not be signed with another's key.
#[must_use]
pub fn judge(
    notice: &Notice,
    from: IpAddr,
    signed_with: Option<&Name>,
    primaries: &[(SocketAddr, Option<Name>)],
    served: Option<u32>,
) -> Verdict {
    let is_primary = primaries.iter().any(|(address, key)| match key {
        Some(key) => signed_with == Some(key),
        None => address.ip().to_canonical() == from.to_canonical(),
    });
    match (is_primary, notice.serial, served) {
        (false, ..) => Verdict::NotAPrimary,
        (true, Some(told), Some(served)) if !is_newer(told, served) => Verdict::Known,
        _ => Verdict::Refresh,
    }
}

/// The answer to a NOTIFY message: its header and question with a response code (RFC 1996, 4.7).
#[must_use]
pub fn answer(request: &[u8], rcode: Rcode) -> Option<Vec<u8>> {
    let header = Header::read(request).ok()?;
    let bits = flags::QR | flags::AA | header.flags & flags::OPCODE | u16::from(rcode.to_int());
    let mut writer = Writer::new(header.id, bits, 1024);
    if let Ok(question) = read_question(request) {
        writer.question(&question.name, question.rtype, question.class);
    }
    Some(writer.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateward_zone::parse_record;

    fn name(text: &str) -> Name {
        text.parse().expect(text)
    }

    fn soa(serial: u32) -> Record {
        parse_record(&format!("@ 300 SOA ns hostmaster {serial} 1 1 1 1"), &name("example.com"), None)
            .expect("a record")
    }

    fn target(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 53))
    }

    const ZONE: &str = "example.com";

    /// The serial that a message tells.
    fn told(send: &Send) -> u32 {
        let notice = parse(&send.message).expect("well-formed");
        assert_eq!(notice.zone, send.zone);
        notice.serial.expect("a hint")
    }

    fn reply(send: &Send, rcode: Rcode) -> Vec<u8> {
        answer(&send.message, rcode).expect("an answer")
    }

    #[test]
    fn rfc1996_3_6_five_attempts_further_and_further_apart() {
        let start = Instant::now();
        let mut notifier = Notifier::default();
        notifier.changed(&name(ZONE), &soa(7), target(1), None, 1, start);
        let mut sent_after = Vec::new();
        while let Some(due) = notifier.deadline() {
            if !notifier.poll(due).is_empty() {
                sent_after.push((due - start).as_secs());
            }
        }
        assert_eq!(sent_after, [0, 2, 6, 14, 30]);
        assert_eq!(notifier.given_up(), 1);
        assert!(notifier.entries.is_empty());
    }

    #[test]
    fn an_answer_ends_it() {
        let now = Instant::now();
        for (rcode, outcome) in [(Rcode::NOERROR, Outcome::Told), (Rcode::REFUSED, Outcome::Refused(Rcode::REFUSED))] {
            let mut notifier = Notifier::default();
            notifier.changed(&name(ZONE), &soa(7), target(1), Some(&name("key")), 1, now);
            let sent = notifier.poll(now);
            assert_eq!(sent.len(), 1);
            assert_eq!((told(&sent[0]), sent[0].key.clone()), (7, Some(name("key"))));
            // From elsewhere, with another number, or of another kind: not an answer.
            assert_eq!(notifier.answered(target(2), &reply(&sent[0], rcode), now), Outcome::Unknown);
            let mut other = reply(&sent[0], rcode);
            other[0] ^= 1;
            assert_eq!(notifier.answered(target(1), &other, now), Outcome::Unknown);
            assert_eq!(notifier.answered(target(1), &sent[0].message, now), Outcome::Unknown);
            assert_eq!(notifier.answered(target(1), &reply(&sent[0], rcode), now), outcome);
            assert_eq!(notifier.deadline(), None);
        }
    }

    #[test]
    fn many_changes_are_one_message_at_a_time() {
        let start = Instant::now();
        let mut notifier = Notifier::default();
        let mut messages = 0;
        let mut last = 0;
        // 500 changes in a second, each answered at once.
        for index in 0..500 {
            let now = start + Duration::from_millis(index * 2);
            notifier.changed(&name(ZONE), &soa(u32::try_from(index).expect("small")), target(1), None, 1, now);
            for send in notifier.poll(now) {
                messages += 1;
                last = told(&send);
                notifier.answered(target(1), &reply(&send, Rcode::NOERROR), now);
            }
        }
        assert_eq!((messages, last), (1, 0));
        let due = notifier.deadline().expect("the last version is yet to be told");
        assert_eq!(due, start + SPACING);
        let sent = notifier.poll(due);
        assert_eq!((sent.len(), told(&sent[0])), (1, 499));
    }

    #[test]
    fn a_version_that_comes_while_one_is_under_way_is_told_after_it() {
        let now = Instant::now();
        let mut notifier = Notifier::default();
        notifier.changed(&name(ZONE), &soa(7), target(1), None, 1, now);
        let first = notifier.poll(now);
        notifier.changed(&name(ZONE), &soa(8), target(1), None, 1, now);
        assert!(notifier.poll(now).is_empty());
        // A repetition already tells the new version.
        let again = notifier.poll(now + FIRST_WAIT);
        assert_eq!(told(&again[0]), 8);
        assert_eq!(notifier.answered(target(1), &reply(&first[0], Rcode::NOERROR), now + FIRST_WAIT), Outcome::Unknown);
        assert_eq!(notifier.answered(target(1), &reply(&again[0], Rcode::NOERROR), now + FIRST_WAIT), Outcome::Told);
        assert_eq!(notifier.deadline(), None);
        // One target's silence does not hold up another's.
        notifier.changed(&name(ZONE), &soa(9), target(1), None, 1, now + Duration::from_mins(1));
        notifier.changed(&name(ZONE), &soa(9), target(2), None, 1, now + Duration::from_mins(1));
        assert_eq!(notifier.poll(now + Duration::from_mins(1)).len(), 2);
        notifier.forget(&name(ZONE));
        assert_eq!(notifier.deadline(), None);
    }

    #[test]
    fn rfc1996_3_10_only_primaries_count() {
        let notice = |serial| Notice { zone: name(ZONE), serial };
        let keyless = [(target(1), None)];
        let keyed = [(target(1), Some(name("key")))];
        let verdict = |notice: &Notice, last: u8, key: Option<&str>, primaries: &[_], served| {
            judge(notice, target(last).ip(), key.map(name).as_ref(), primaries, served)
        };
        assert_eq!(verdict(&notice(Some(8)), 1, None, &keyless, Some(7)), Verdict::Refresh);
        assert_eq!(verdict(&notice(None), 1, None, &keyless, Some(7)), Verdict::Refresh);
        assert_eq!(verdict(&notice(Some(8)), 1, None, &keyless, None), Verdict::Refresh);
        assert_eq!(verdict(&notice(Some(7)), 1, None, &keyless, Some(7)), Verdict::Known);
        assert_eq!(verdict(&notice(Some(6)), 1, None, &keyless, Some(7)), Verdict::Known);
        assert_eq!(verdict(&notice(Some(8)), 2, None, &keyless, Some(7)), Verdict::NotAPrimary);
        assert_eq!(verdict(&notice(Some(8)), 1, None, &keyed, Some(7)), Verdict::NotAPrimary);
        assert_eq!(verdict(&notice(Some(8)), 1, Some("other"), &keyed, Some(7)), Verdict::NotAPrimary);
        assert_eq!(verdict(&notice(Some(8)), 9, Some("key"), &keyed, Some(7)), Verdict::Refresh);
        assert_eq!(verdict(&notice(Some(8)), 1, None, &[], Some(7)), Verdict::NotAPrimary);
        let mapped = "::ffff:192.0.2.1".parse().expect("an address");
        assert_eq!(judge(&notice(None), mapped, None, &keyless, None), Verdict::Refresh);
    }

    #[test]
    fn messages_that_are_no_notices_are_refused() {
        let good = write(1, &name(ZONE), &soa(7));
        assert_eq!(parse(&good), Ok(Notice { zone: name(ZONE), serial: Some(7) }));
        for len in 0..good.len() {
            assert!(parse(&good[..len]).is_err(), "{len} octets");
        }
        let mut writer = Writer::new(1, 0x2400, 512);
        writer.question(&name(ZONE), Rtype::A, CLASS_IN);
        assert!(parse(&writer.finish()).is_err());
        let mut writer = Writer::new(1, 0x2400, 512);
        writer.question(&name(ZONE), Rtype::SOA, CLASS_IN);
        assert_eq!(parse(&writer.finish()), Ok(Notice { zone: name(ZONE), serial: None }));
    }
}
