//! Both sides of a transfer against each other, and each against messages made by hand.

use std::sync::Arc;

use gateward_zone::{Change, Name, Rcode, Record, Rtype, ZoneView as _, parse_record};
use proptest::prelude::*;

use super::*;
use crate::store::Zone;
use crate::tsig::{Algorithm, Key, Keys, Signer, VerifyError, verify_request};
use crate::wire::{CLASS_IN, Header, Section, Writer};

const NOW: u64 = 1_700_000_000;

fn origin() -> Name {
    "example.com".parse().expect("a name")
}

fn record(line: &str) -> Record {
    parse_record(line, &origin(), None).expect(line)
}

fn soa(serial: u32) -> Record {
    record(&format!("@ 300 SOA ns hostmaster {serial} 3600 600 86400 300"))
}

fn zone(serial: u32, lines: &[String]) -> Zone {
    let records = lines.iter().map(|line| record(line)).chain([soa(serial), record("@ 300 NS ns")]).collect();
    Zone::build(&origin(), records).expect("a zone")
}

fn records(zone: &Zone) -> Vec<Record> {
    let mut records = Vec::new();
    zone.for_each_record(&mut |record| records.push(record));
    records
}

fn sorted(zone: &Zone) -> Vec<Record> {
    let mut records = records(zone);
    records.sort();
    records
}

fn key() -> Arc<Key> {
    Arc::new(Key::new("key".parse().expect("a name"), Algorithm::HmacSha256, *b"secret").expect("a key"))
}

/// All messages of the answer to `request`.
fn answer(request: &[u8], served: &Zone, history: &[Difference], signer: Option<Signer>) -> Vec<Vec<u8>> {
    let request = parse_request(request).expect("well-formed").expect("a transfer");
    let apex = soa(served.serial());
    match plan(served, request.kind, history) {
        Plan::Current => drain(Outgoing::new(request, 1400, current(&apex), signer)),
        Plan::Difference(difference) => drain(Outgoing::new(request, 1400, ixfr(&difference), signer)),
        Plan::Whole => drain(Outgoing::new(request, 1400, axfr(apex, records(served).into_iter()), signer)),
    }
}

/// RFC 1995, 2, within what the asker can take and this side sends.
#[test]
fn a_datagram_has_the_serial_or_says_that_there_is_more() {
    let long = format!("{}.", "a23456789.".repeat(20).trim_end_matches('.'));
    let long_soa = record(&format!("@ 300 SOA a.{long} b.c.{long} 7 3600 600 86400 300"));
    for (apex, payload, announced, signature, fits) in [
        (soa(7), None, 1232, 0, true),
        (soa(7), Some(4096), 4096, 100, true),
        (soa(7), None, 1232, 480, false),
        (long_soa.clone(), Some(1232), 1232, 0, true),
        (long_soa, Some(0), 512, 300, false),
    ] {
        let request = Request { id: 9, zone: origin(), kind: Kind::Ixfr { serial: 1 }, payload };
        let message = datagram(&request, &apex, announced, signature);
        let header = Header::read(&message).expect("a header");
        assert_eq!(header.counts[1], u16::from(fits), "{payload:?} {announced} {signature}");
        assert_eq!(header.flags & crate::wire::flags::TC == 0, fits);
        let room = usize::from(payload.unwrap_or(512).clamp(512, announced));
        assert!(!fits || message.len() + signature <= room, "{} octets", message.len());
    }
}

fn drain<I: Iterator>(mut outgoing: Outgoing<I>) -> Vec<Vec<u8>>
where
    I::Item: std::borrow::Borrow<Record>,
{
    std::iter::from_fn(|| outgoing.next_message(NOW)).map(|message| message.expect("records fit")).collect()
}

fn receive(incoming: &mut Incoming, messages: &[Vec<u8>]) -> Result<Received, TransferError> {
    let (last, others) = messages.split_last().expect("there is an answer");
    for message in others {
        assert_eq!(incoming.take(message, NOW)?, None);
    }
    Ok(incoming.take(last, NOW)?.expect("it is complete"))
}

/// RFC 5936: many messages with many records each, the SOA first and last, every one signed.
#[test]
fn rfc5936_a_zone_of_many_messages() {
    let lines: Vec<String> = (0..5_000).map(|index| format!("host{index} 300 A 192.0.2.{}", index % 256)).collect();
    let served = zone(7, &lines);
    let key = key();
    for signed in [false, true] {
        let (request, mut incoming) =
            Incoming::request(&origin(), None, 9, signed.then_some(&key), Limits::default(), NOW);
        let signer = verify_request(&request, &Keys::from_iter([Key::clone(&key)]), NOW)
            .expect("authentic")
            .map(crate::tsig::Signed::signer);
        assert_eq!(signer.is_some(), signed);
        let messages = answer(&request, &served, &[], signer);
        assert!((8..20).contains(&messages.len()), "{} messages", messages.len());
        for message in &messages {
            assert!(message.len() <= 16 * 1024 + key.signature_len());
            assert_eq!(Header::read(message).expect("a header").counts[3], u16::from(signed));
        }
        let Received::Zone(got) = receive(&mut incoming, &messages).expect("a transfer") else { panic!("a zone") };
        assert_eq!(got[0], soa(7));
        assert_eq!(sorted(&Zone::build(&origin(), got).expect("a zone")), sorted(&served));
    }
}

#[test]
fn a_record_longer_than_the_target_has_a_message_of_its_own() {
    let text = vec![format!("\"{}\"", "x".repeat(255)); 100].join(" ");
    let served = zone(7, &[format!("long 300 TXT {text}"), "a 300 A 192.0.2.1".to_owned()]);
    let (request, mut incoming) = Incoming::request(&origin(), None, 9, None, Limits::default(), NOW);
    let messages = answer(&request, &served, &[], None);
    let Received::Zone(got) = receive(&mut incoming, &messages).expect("a transfer") else { panic!("a zone") };
    assert_eq!(sorted(&Zone::build(&origin(), got).expect("a zone")), sorted(&served));
    let too_long = Record { rdata: gateward_zone::Rdata::from_wire(vec![0; 65_535]), ..record("a 1 TYPE65280 \\# 0") };
    let request = Request { id: 1, zone: origin(), kind: Kind::Axfr, payload: None };
    let mut outgoing = Outgoing::new(request, 1400, [soa(1), too_long].into_iter(), None);
    assert!(outgoing.next_message(NOW).expect("the SOA").is_ok());
    assert!(outgoing.next_message(NOW).expect("the record").is_err());
}

fn difference(from: u32, to: u32, removed: &[&str], added: &[&str]) -> Difference {
    let all = |lines: &[&str]| lines.iter().map(|line| record(line)).collect();
    Difference { from: soa(from), to: soa(to), removed: all(removed), added: all(added) }
}

/// RFC 1995, 2 and 4: the SOA alone, differences, or the whole zone.
#[test]
fn rfc1995_how_a_request_is_answered() {
    let lines: Vec<String> = (0..20).map(|index| format!("h{index} 300 A 192.0.2.1")).collect();
    let served = zone(9, &lines);
    let history = [
        difference(5, 7, &["gone 300 A 192.0.2.1"], &["h1 300 A 192.0.2.1", "brief 300 A 192.0.2.1"]),
        difference(7, 9, &["brief 300 A 192.0.2.1"], &["h2 300 A 192.0.2.1"]),
    ];
    let ask = |serial: u32, history: &[Difference]| plan(&served, Kind::Ixfr { serial }, history);
    assert_eq!(ask(9, &history), Plan::Current);
    assert_eq!(ask(10, &history), Plan::Current);
    assert_eq!(ask(7, &history), Plan::Difference(history[1].clone()));
    // Condensed: what came and went is not told (RFC 1995, 5).
    let condensed = difference(5, 9, &["gone 300 A 192.0.2.1"], &["h1 300 A 192.0.2.1", "h2 300 A 192.0.2.1"]);
    assert_eq!(ask(5, &history), Plan::Difference(condensed));
    assert_eq!(ask(6, &history), Plan::Whole);
    assert_eq!(ask(4, &history), Plan::Whole);
    assert_eq!(ask(5, &history[..1]), Plan::Whole);
    assert_eq!(ask(5, &[]), Plan::Whole);
    assert_eq!(plan(&served, Kind::Axfr, &history), Plan::Whole);
    // A difference that is longer than the zone.
    let many: Vec<String> = (0..50).map(|index| format!("x{index} 300 A 192.0.2.1")).collect();
    let long = difference(8, 9, &many.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    assert_eq!(ask(8, &[long]), Plan::Whole);
}

#[test]
fn rfc1995_4_the_order_of_a_difference() {
    let one = difference(5, 7, &["a 300 A 192.0.2.1"], &["b 300 A 192.0.2.1"]);
    let order: Vec<Record> = ixfr(&one).cloned().collect();
    let expected = [soa(7), soa(5), record("a 300 A 192.0.2.1"), soa(7), record("b 300 A 192.0.2.1"), soa(7)];
    assert_eq!(order, expected);
}

#[test]
fn requests_are_read() {
    let with = |rtype: Rtype, soa_record: Option<Record>| {
        let mut writer = Writer::new(3, 0, 512);
        writer.question(&origin(), rtype, CLASS_IN);
        if let Some(soa) = soa_record {
            assert!(writer.record(Section::Authority, &soa.owner, soa.rtype, CLASS_IN, 0, soa.rdata.as_wire()));
        }
        parse_request(&writer.finish()).map(|request| request.map(|request| request.kind))
    };
    assert_eq!(with(Rtype::AXFR, None), Ok(Some(Kind::Axfr)));
    assert_eq!(with(Rtype::IXFR, Some(soa(7))), Ok(Some(Kind::Ixfr { serial: 7 })));
    assert_eq!(with(Rtype::A, None), Ok(None));
    assert!(with(Rtype::IXFR, None).is_err());
    assert!(with(Rtype::IXFR, Some(record("other 1 SOA ns hostmaster 1 1 1 1 1"))).is_err());
}

/// Messages with these records, `per_message` each.
fn messages(kind: Kind, lines: &[Record], per_message: usize) -> Vec<Vec<u8>> {
    let write = |(index, chunk): (usize, &[Record])| {
        let mut writer = Writer::new(9, 0x8400, 65_535);
        if index == 0 {
            writer.question(&origin(), kind.rtype(), CLASS_IN);
        }
        for record in chunk {
            let Record { owner, rtype, ttl, rdata } = record;
            assert!(writer.record(Section::Answer, owner, *rtype, CLASS_IN, *ttl, rdata.as_wire()));
        }
        writer.finish()
    };
    lines.chunks(per_message).enumerate().map(write).collect()
}

/// What a transfer of these records brings to who has `have`, however they are spread over messages.
#[track_caller]
fn brings(have: Option<u32>, lines: &[Record]) -> Result<Option<Received>, TransferError> {
    let mut verdicts = Vec::new();
    for per_message in [1, 2, 100] {
        let (_, mut incoming) = Incoming::request(&origin(), have.map(soa).as_ref(), 9, None, Limits::default(), NOW);
        let kind = have.map_or(Kind::Axfr, |serial| Kind::Ixfr { serial });
        let mut verdict = Ok(None);
        for message in messages(kind, lines, per_message) {
            verdict = incoming.take(&message, NOW);
            if verdict != Ok(None) {
                break;
            }
        }
        verdicts.push(verdict);
    }
    // Records after the end are seen only where they share a message with it; without them the spread does not matter.
    let last = verdicts.pop().expect("three of them");
    assert!(last.is_err() || verdicts.iter().all(|verdict| *verdict == last), "{verdicts:?}");
    last
}

#[test]
fn answers_must_have_the_order_of_a_transfer() {
    let (a, b) = (record("a 300 A 192.0.2.1"), record("b 300 A 192.0.2.2"));
    let zone = |records: &[&Record]| Ok(Some(Received::Zone(records.iter().map(|record| (*record).clone()).collect())));
    let [s5, s6, s7] = [5, 6, 7].map(soa);
    let all = |records: &[&Record]| records.iter().map(|record| (*record).clone()).collect::<Vec<Record>>();
    assert_eq!(brings(None, &all(&[&s7, &a, &s7])), zone(&[&s7, &a]));
    assert_eq!(brings(None, &all(&[&s7, &s7])), zone(&[&s7]));
    assert_eq!(brings(None, &all(&[&s7, &a])), Ok(None));
    assert_eq!(brings(Some(5), &all(&[&s7, &a, &s7])), zone(&[&s7, &a]));
    assert_eq!(brings(Some(5), &all(&[&s7, &s7])), zone(&[&s7]));
    assert_eq!(brings(Some(7), &all(&[&s7])), Ok(Some(Received::Current)));
    assert_eq!(brings(Some(7), &all(&[&s5])), Ok(Some(Received::Current)));
    assert_eq!(brings(Some(5), &all(&[&s7])), Ok(None));
    let two = vec![
        difference(5, 6, &["a 300 A 192.0.2.1"], &["b 300 A 192.0.2.2"]),
        difference(6, 7, &[], &["a 300 A 192.0.2.1"]),
    ];
    assert_eq!(
        brings(Some(5), &all(&[&s7, &s5, &a, &s6, &b, &s6, &s7, &a, &s7])),
        Ok(Some(Received::Differences(two)))
    );
    for (have, records) in [
        (None, all(&[&a, &s7])),
        (None, all(&[&s7, &a, &s6])),
        (None, all(&[&s7, &s6, &s7])),
        (None, all(&[&s7, &a, &s7, &b])),
        (Some(5), all(&[&s7, &s6, &a, &s7])),
        (Some(5), all(&[&s7, &s5, &a, &s5])),
        (Some(5), all(&[&s7, &s5, &s6, &s5, &s7])),
        (Some(5), all(&[&s7, &s5, &s7, &s7, &a])),
    ] {
        assert!(matches!(brings(have, &records), Err(TransferError::Order(_))), "{have:?} {records:?}");
    }
    for foreign in ["x.example.net. 1 A 192.0.2.1", "sub 1 SOA ns hostmaster 1 1 1 1 1"] {
        assert!(
            matches!(brings(None, &all(&[&s7, &record(foreign), &s7])), Err(TransferError::Foreign(..))),
            "{foreign}"
        );
    }
}

#[test]
fn answers_must_answer_the_request() {
    let good = messages(Kind::Axfr, &[soa(7), soa(7)], 100).remove(0);
    let take =
        |message: &[u8]| Incoming::request(&origin(), None, 9, None, Limits::default(), NOW).1.take(message, NOW);
    assert!(take(&good).expect("a transfer").is_some());
    let changed = |at: usize, octet: u8| {
        let mut message = good.clone();
        message[at] = octet;
        take(&message)
    };
    assert_eq!(changed(3, 5), Err(TransferError::Refused(Rcode::REFUSED)));
    for (at, octet) in [(0, 1), (2, 0x04), (2, 0xa4), (2, 0x86), (5, 0), (5, 2), (13, b'f')] {
        assert!(changed(at, octet).is_err(), "octet {at}");
    }
    for len in 0..good.len() {
        assert!(take(&good[..len]).is_err(), "{len} octets");
    }
}

#[test]
fn transfers_are_bounded() {
    let lines: Vec<Record> =
        [soa(7)].into_iter().chain((0..100).map(|i| record(&format!("h{i} 1 A 192.0.2.1")))).collect();
    for limits in [Limits { records: 50, ..Limits::default() }, Limits { bytes: 1_000, ..Limits::default() }] {
        let (_, mut incoming) = Incoming::request(&origin(), None, 9, None, limits, NOW);
        let verdict =
            messages(Kind::Axfr, &lines, 10).iter().map(|message| incoming.take(message, NOW)).find(Result::is_err);
        assert!(matches!(verdict, Some(Err(TransferError::TooMuch(_)))));
    }
}

/// RFC 8945, 5.3.1: the first and the last message are signed, and nothing counts before.
#[test]
fn unsigned_answers_to_signed_requests_are_refused() {
    let key = key();
    let served = zone(7, &["a 300 A 192.0.2.1".to_owned()]);
    let request = || Incoming::request(&origin(), None, 9, Some(&key), Limits::default(), NOW);
    let (message, mut incoming) = request();
    let unsigned = answer(&message, &served, &[], None);
    assert_eq!(receive(&mut incoming, &unsigned), Err(TransferError::NotAuthentic(VerifyError::Unsigned)));
    // The first is signed, the last is not.
    let (message, mut incoming) = request();
    let signed =
        verify_request(&message, &Keys::from_iter([Key::clone(&key)]), NOW).expect("authentic").expect("signed");
    let mut parts = messages(Kind::Axfr, &[soa(7), soa(7)], 1);
    signed.signer().sign(&mut parts[0], NOW);
    assert_eq!(incoming.take(&parts[0], NOW), Ok(None));
    assert_eq!(incoming.take(&parts[1], NOW), Err(TransferError::NotAuthentic(VerifyError::Unsigned)));
    // An unsigned error is told as what it is.
    let (_, mut incoming) = request();
    let mut refused = messages(Kind::Axfr, &[], 1);
    refused.push(Writer::new(9, 0x8005, 512).finish());
    assert_eq!(incoming.take(&refused[0], NOW), Err(TransferError::Refused(Rcode::REFUSED)));
}

#[test]
fn differences_fit_the_zone_or_are_refused() {
    let have = zone(5, &["a 300 TXT x".to_owned(), "m 300 MX 1 Mail".to_owned()]);
    let fits = difference(5, 6, &["a 300 TXT x", "m 300 MX 1 mail"], &["b 300 TXT y"]);
    let changes = onto(&have, &[fits]).expect("it fits");
    let next = have.with(&changes).expect("it fits");
    assert_eq!((next.serial(), next.record_count()), (6, 3));
    let missing = difference(5, 6, &["a 300 TXT other"], &[]);
    assert_eq!(onto(&have, &[missing]), Err(NotThere::Record(record("a 1 TXT x").owner, Rtype::TXT)));
    assert_eq!(onto(&have, &[difference(4, 6, &[], &[])]), Err(NotThere::Serial { from: 4, zone: 5 }));
}

fn changes_between(from: &Zone, to: &Zone) -> Vec<Change> {
    let (old, new) = (sorted(from), sorted(to));
    let gone = old.iter().filter(|record| !new.contains(record)).cloned().map(Change::Remove);
    let come = new.iter().filter(|record| !old.contains(record)).cloned().map(Change::Add);
    gone.chain(come).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Versions after one another: whoever has one of them has the last one after an incremental transfer.
    #[test]
    fn whoever_has_an_old_version_gets_the_new_one(
        versions in prop::collection::vec(prop::collection::btree_set((0..8_u8, 0..4_u8), 0..20), 1..6),
        have in 0..6_usize,
    ) {
        let lines = |set: &std::collections::BTreeSet<(u8, u8)>| {
            set.iter().map(|(host, value)| format!("h{host} 300 TXT v{value}")).collect::<Vec<_>>()
        };
        let zones: Vec<Zone> = versions.iter().zip(u32::MAX - 2..=u32::MAX).chain(versions.iter().skip(3).zip(0..))
            .map(|(set, serial)| zone(serial, &lines(set))).collect();
        let history: Vec<Difference> = zones.windows(2)
            .map(|pair| Difference::from_changes(&origin(), &changes_between(&pair[0], &pair[1])).expect("serials differ"))
            .collect();
        let have = &zones[have % zones.len()];
        let last = zones.last().expect("at least one");
        let apex = soa(have.serial());
        let (request, mut incoming) = Incoming::request(&origin(), Some(&apex), 9, None, Limits::default(), NOW);
        let got = match receive(&mut incoming, &answer(&request, last, &history, None)).expect("a transfer") {
            Received::Current => sorted(have),
            Received::Zone(records) => sorted(&Zone::build(&origin(), records).expect("a zone")),
            Received::Differences(differences) => {
                let changes = onto(have, &differences).expect("they fit");
                sorted(&have.with(&changes).expect("they fit"))
            }
        };
        prop_assert_eq!(got, sorted(last));
    }
}
