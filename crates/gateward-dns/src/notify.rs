//! NOTIFY (RFC 1996), without IO: when to tell which secondary of a zone's new version, and what a primary's message says.
//!
//! [`Notifier`] has one entry per zone and target, so that a zone that changes all the time costs a target one message at a time,
//! and a target that does not answer costs nobody anything. What is due stands in order, so that nothing here looks at all entries.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use gateward_zone::{Name, Opcode, Rcode, Record, Rtype, Soa, is_newer};

use crate::tsig::{ClientSession, VerifyError};
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
    /// The key to sign it with; what verifies the answer is given to [`Notifier::signed`].
    pub key: Option<Name>,
    /// The zone it is about.
    pub zone: Name,
    /// The message, unsigned.
    pub message: Vec<u8>,
}

/// What [`Notifier::poll`] found due.
#[derive(Debug, Default)]
pub struct Due {
    /// Messages to send.
    pub messages: Vec<Send>,
    /// Zones and targets that answered none of the attempts; they are given up until the zone changes again.
    pub silent: Vec<(Name, SocketAddr)>,
}

/// What became of telling a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It knows.
    Told,
    /// It answered with an error; it is not asked again.
    Refused(Rcode),
    /// The answer is not signed as the message was. It counts for nothing: anybody may have sent it.
    NotAuthentic(VerifyError),
    /// The answer does not belong to anything that was sent.
    Unknown,
}

type Place = (Name, SocketAddr);

/// One zone and target.
struct Entry {
    key: Option<Name>,
    /// The newest version.
    soa: Record,
    sent: Option<Sent>,
    attempts: u32,
    due: Option<Instant>,
    /// Before this nothing new is told.
    not_before: Instant,
}

/// The last message.
struct Sent {
    id: u16,
    /// The version it told.
    soa: Record,
    /// What verifies its answer; `None` until it is signed.
    session: Option<ClientSession>,
}

/// Tells secondaries of new versions.
#[derive(Default)]
pub struct Notifier {
    entries: BTreeMap<Place, Entry>,
    /// The entries that have something to do, by when.
    due: BTreeSet<(Instant, Place)>,
    /// The others, by when they are needed no more.
    resting: BTreeSet<(Instant, Place)>,
    next_id: u16,
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
        let mut entry = match self.take(&place) {
            Some(entry) => entry,
            None if self.entries.len() >= MAX_ENTRIES => return,
            None => Entry { key: None, soa: soa.clone(), sent: None, attempts: 0, due: None, not_before: now },
        };
        entry.key = key.cloned();
        entry.soa = soa.clone();
        // A version under way is left alone: its answer brings the next one.
        if entry.sent.is_none() {
            entry.attempts = 0;
            entry.due = Some(entry.not_before.max(now));
        }
        self.put(place, entry);
    }

    /// Nobody is told of this zone any more.
    pub fn forget(&mut self, zone: &Name) {
        let lowest = (zone.clone(), SocketAddr::from(([0, 0, 0, 0], 0)));
        let of_zone = self.entries.range(lowest..).take_while(|((of, _), _)| of == zone);
        let places: Vec<Place> = of_zone.map(|(place, _)| place.clone()).collect();
        for place in places {
            self.take(&place);
        }
    }

    /// What is due, at most so many messages; more are due at once then. Call it at [`Notifier::deadline`] and after every other call.
    pub fn poll(&mut self, now: Instant, most: usize) -> Due {
        let mut found = Due::default();
        while found.messages.len() < most
            && let Some((_, place)) = self.due.first().filter(|(at, _)| *at <= now).cloned()
            && let Some(mut entry) = self.take(&place)
        {
            if entry.attempts >= ATTEMPTS {
                // What came after the last message was never told.
                if entry.sent.as_ref().is_none_or(|sent| sent.soa == entry.soa) {
                    found.silent.push(place);
                    continue;
                }
                entry.attempts = 0;
            }
            self.next_id = self.next_id.wrapping_mul(0x6255).wrapping_add(0x3619);
            let (zone, target) = place.clone();
            let message = write(self.next_id, &zone, &entry.soa);
            found.messages.push(Send { target, key: entry.key.clone(), zone, message });
            entry.sent = Some(Sent { id: self.next_id, soa: entry.soa.clone(), session: None });
            entry.due = Some(now + FIRST_WAIT * 2_u32.pow(entry.attempts));
            entry.attempts += 1;
            entry.not_before = now + SPACING;
            self.put(place, entry);
        }
        // What was told and has rested is needed no more.
        while let Some((_, place)) = self.resting.first().filter(|(at, _)| *at <= now).cloned() {
            self.take(&place);
        }
        found
    }

    /// The last message to a target was signed: only an answer that `session` verifies counts.
    pub fn signed(&mut self, zone: &Name, target: SocketAddr, session: ClientSession) {
        if let Some(sent) = self.entries.get_mut(&(zone.clone(), target)).and_then(|entry| entry.sent.as_mut()) {
            sent.session = Some(session);
        }
    }

    /// When [`Notifier::poll`] has something to do next; `None`: not before the next call.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// An answer came; `unix_seconds` is the time that signatures are held against.
    pub fn answered(&mut self, from: SocketAddr, message: &[u8], now: Instant, unix_seconds: u64) -> Outcome {
        let (Ok(header), Ok(question)) = (Header::read(message), read_question(message)) else {
            return Outcome::Unknown;
        };
        if !header.is_answer() || header.opcode() != Opcode::NOTIFY.to_int() {
            return Outcome::Unknown;
        }
        let place = (question.name, from);
        let Some(entry) = self.entries.get(&place) else { return Outcome::Unknown };
        let Some(sent) = entry.sent.as_ref().filter(|sent| sent.id == header.id) else { return Outcome::Unknown };
        // On a copy: a forged answer must not spoil what the true one is verified with.
        let verified = match (&sent.session, &entry.key) {
            (Some(session), _) => session.clone().verify(message, unix_seconds).map(drop),
            (None, Some(_)) => Err(VerifyError::Unsigned),
            (None, None) => Ok(()),
        };
        if let Err(error) = verified {
            return Outcome::NotAuthentic(error);
        }
        if let Some(mut entry) = self.take(&place) {
            let told = entry.sent.take().map(|sent| sent.soa);
            entry.attempts = 0;
            entry.due = (told.as_ref() != Some(&entry.soa)).then(|| entry.not_before.max(now));
            self.put(place, entry);
        }
        match Rcode::masked_from_int(header.rcode()) {
            Rcode::NOERROR => Outcome::Told,
            rcode => Outcome::Refused(rcode),
        }
    }

    /// Takes an entry out, and off the list that it stands on.
    fn take(&mut self, place: &Place) -> Option<Entry> {
        let (place, entry) = self.entries.remove_entry(place)?;
        let (list, at) = match entry.due {
            Some(due) => (&mut self.due, due),
            None => (&mut self.resting, entry.not_before),
        };
        list.remove(&(at, place));
        Some(entry)
    }

    fn put(&mut self, place: Place, entry: Entry) {
        let (list, at) = match entry.due {
            Some(due) => (&mut self.due, due),
            None => (&mut self.resting, entry.not_before),
        };
        list.insert((at, place.clone()));
        self.entries.insert(place, entry);
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
        let id = Header::read(&send.message).expect("a header").id;
        let opcode = u16::from(Opcode::NOTIFY.to_int()) << flags::OPCODE_SHIFT;
        let mut writer = Writer::new(id, flags::QR | flags::AA | opcode | u16::from(rcode.to_int()), 1024);
        writer.question(&send.zone, Rtype::SOA, CLASS_IN);
        writer.finish()
    }

    impl Notifier {
        /// All that is due.
        fn all(&mut self, now: Instant) -> Vec<Send> {
            self.poll(now, usize::MAX).messages
        }

        fn told(&mut self, last: u8, message: &[u8], now: Instant) -> Outcome {
            self.answered(target(last), message, now, UNIX)
        }
    }

    const UNIX: u64 = 1_700_000_000;

    #[test]
    fn rfc1996_3_6_five_attempts_further_and_further_apart() {
        let start = Instant::now();
        let mut notifier = Notifier::default();
        notifier.changed(&name(ZONE), &soa(7), target(1), None, 1, start);
        let (mut sent_after, mut silent) = (Vec::new(), Vec::new());
        while let Some(due) = notifier.deadline() {
            let found = notifier.poll(due, usize::MAX);
            silent.extend(found.silent);
            if !found.messages.is_empty() {
                sent_after.push((due - start).as_secs());
            }
        }
        assert_eq!(sent_after, [0, 2, 6, 14, 30]);
        assert_eq!(silent, [(name(ZONE), target(1))]);
        assert!(notifier.entries.is_empty());
    }

    #[test]
    fn a_version_that_comes_after_the_last_attempt_is_told() {
        let start = Instant::now();
        let mut notifier = Notifier::default();
        notifier.changed(&name(ZONE), &soa(7), target(1), None, 1, start);
        for _ in 0..ATTEMPTS {
            let due = notifier.deadline().expect("more attempts");
            assert_eq!(notifier.poll(due, usize::MAX).messages.len(), 1);
        }
        notifier.changed(&name(ZONE), &soa(8), target(1), None, 1, notifier.deadline().expect("the last wait"));
        let (mut versions, mut silent) = (Vec::new(), 0);
        while let Some(due) = notifier.deadline() {
            let found = notifier.poll(due, usize::MAX);
            versions.extend(found.messages.iter().map(told));
            silent += found.silent.len();
        }
        assert_eq!((versions, silent), (vec![8; ATTEMPTS as usize], 1));
    }

    #[test]
    fn an_answer_ends_it() {
        let now = Instant::now();
        for (rcode, outcome) in [(Rcode::NOERROR, Outcome::Told), (Rcode::REFUSED, Outcome::Refused(Rcode::REFUSED))] {
            let mut notifier = Notifier::default();
            notifier.changed(&name(ZONE), &soa(7), target(1), None, 1, now);
            let sent = notifier.all(now);
            assert_eq!(sent.len(), 1);
            assert_eq!(told(&sent[0]), 7);
            // From elsewhere, with another number, or of another kind: not an answer.
            assert_eq!(notifier.told(2, &reply(&sent[0], rcode), now), Outcome::Unknown);
            let mut other = reply(&sent[0], rcode);
            other[0] ^= 1;
            assert_eq!(notifier.told(1, &other, now), Outcome::Unknown);
            assert_eq!(notifier.told(1, &sent[0].message, now), Outcome::Unknown);
            assert_eq!(notifier.told(1, &reply(&sent[0], rcode), now), outcome);
            assert_eq!(notifier.deadline(), None);
        }
    }

    /// Where a key is set, an answer without it is nobody's; and a forged one leaves the true one its effect.
    #[test]
    fn answers_are_signed_as_the_message_was() {
        use crate::tsig::{Algorithm, Key, Keys, sign_request, verify_request};
        let now = Instant::now();
        let key = Key::new(name("key"), Algorithm::HmacSha256, *b"secret").expect("a key");
        let keys = Keys::from_iter([key.clone()]);
        let mut notifier = Notifier::default();
        notifier.changed(&name(ZONE), &soa(7), target(1), Some(&name("key")), 1, now);
        let mut sent = notifier.all(now).remove(0);
        assert_eq!(sent.key, Some(name("key")));
        let unsigned = reply(&sent, Rcode::NOERROR);
        let nobody = Outcome::NotAuthentic(VerifyError::Unsigned);
        assert_eq!(notifier.told(1, &unsigned, now), nobody, "its session is not there yet");
        let session = sign_request(&std::sync::Arc::new(key), &mut sent.message, UNIX);
        notifier.signed(&name(ZONE), target(1), session);
        assert_eq!(notifier.told(1, &unsigned, now), nobody);
        let signer = verify_request(&sent.message, &keys, UNIX).expect("authentic").expect("signed").signer();
        let signed = |rcode| {
            let mut message = reply(&sent, rcode);
            signer.clone().sign(&mut message, UNIX);
            message
        };
        let mut forged = signed(Rcode::NOERROR);
        forged[3] ^= 5;
        assert!(matches!(notifier.told(1, &forged, now), Outcome::NotAuthentic(VerifyError::Mine(_))));
        assert_eq!(notifier.told(1, &signed(Rcode::NOERROR), now), Outcome::Told);
        assert_eq!(notifier.deadline(), None);
    }

    #[test]
    fn a_thousand_zones_are_told_in_portions() {
        let now = Instant::now();
        let mut notifier = Notifier::default();
        let zones: Vec<Name> = (0..1_000).map(|index| name(&format!("z{index}.example"))).collect();
        for zone in &zones {
            notifier.changed(zone, &soa(7), target(1), None, 1, now);
        }
        let mut told = BTreeSet::new();
        for _ in 0..20 {
            assert_eq!(notifier.deadline(), Some(now), "there are more");
            let found = notifier.poll(now, 50).messages;
            assert_eq!(found.len(), 50);
            told.extend(found.into_iter().map(|send| send.zone));
        }
        assert_eq!(told.len(), 1_000);
        assert_eq!(notifier.deadline(), Some(now + FIRST_WAIT), "nothing but repetitions");
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
            for send in notifier.all(now) {
                messages += 1;
                last = told(&send);
                notifier.told(1, &reply(&send, Rcode::NOERROR), now);
            }
        }
        assert_eq!((messages, last), (1, 0));
        let due = notifier.deadline().expect("the last version is yet to be told");
        assert_eq!(due, start + SPACING);
        let sent = notifier.all(due);
        assert_eq!((sent.len(), told(&sent[0])), (1, 499));
    }

    #[test]
    fn a_version_that_comes_while_one_is_under_way_is_told_after_it() {
        let now = Instant::now();
        let mut notifier = Notifier::default();
        notifier.changed(&name(ZONE), &soa(7), target(1), None, 1, now);
        let first = notifier.all(now);
        notifier.changed(&name(ZONE), &soa(8), target(1), None, 1, now);
        assert!(notifier.all(now).is_empty());
        // A repetition already tells the new version.
        let again = notifier.all(now + FIRST_WAIT);
        assert_eq!(told(&again[0]), 8);
        assert_eq!(notifier.told(1, &reply(&first[0], Rcode::NOERROR), now + FIRST_WAIT), Outcome::Unknown);
        assert_eq!(notifier.told(1, &reply(&again[0], Rcode::NOERROR), now + FIRST_WAIT), Outcome::Told);
        assert_eq!(notifier.deadline(), None);
        // One target's silence does not hold up another's.
        notifier.changed(&name(ZONE), &soa(9), target(1), None, 1, now + Duration::from_mins(1));
        notifier.changed(&name(ZONE), &soa(9), target(2), None, 1, now + Duration::from_mins(1));
        assert_eq!(notifier.all(now + Duration::from_mins(1)).len(), 2);
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
