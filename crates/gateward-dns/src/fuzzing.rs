//! The properties that fuzzing checks: the fuzz targets and the replay of the committed corpora call the same code. Panics when a property
//! does not hold. Not part of the API.

use std::sync::LazyLock;

use domain::base::{Message, ParsedName};
use domain::rdata::AllRecordData;
use gateward_zone::{Name, Rtype, ZoneView as _, is_newer, parse_record};

use crate::answer::{Context, Settings, Transport, Verdict, refuse, respond, slip};
use crate::cookies::CookieKeys;
use crate::store::{Zone, Zones};
use crate::transfer::{Incoming, Limits, Received, onto};
use crate::{notify, transfer, tsig, update};

static ZONE: LazyLock<Zone> = LazyLock::new(|| {
    let origin: Name = "example.com".parse().expect("a name");
    let lines = [
        "@ 3600 SOA ns hostmaster 7 3600 600 86400 300",
        "@ 3600 NS ns",
        "@ 300 MX 10 mail",
        "ns 3600 A 192.0.2.53",
        "www 300 A 192.0.2.1",
        "www 300 TXT hello",
        "alias 300 CNAME Www",
        "sub 300 DNAME www",
    ];
    let records = lines.iter().map(|line| parse_record(line, &origin, None).expect(line)).collect();
    Zone::build(&origin, records).expect("a zone")
});

static ZONES: LazyLock<Zones> = LazyLock::new(|| {
    let origin: Name = "example.com".parse().expect("a name");
    let mut records = Vec::new();
    ZONE.for_each_record(&mut |record| records.push(record));
    let more = [
        "*.wild 300 MX 10 mail",
        "a.b.c 300 A 192.0.2.2",
        "loop 300 CNAME loop2",
        "loop2 300 CNAME loop",
        "cut 300 NS ns.cut",
        "cut 300 NS www",
        "ns.cut 300 A 192.0.2.3",
        "to-cut 300 CNAME x.cut",
        "renamed 300 DNAME sub2",
        "_x._tcp 300 SRV 1 2 3 www",
        "svc 300 HTTPS 1 . alpn=h2",
    ];
    records.extend(more.iter().map(|line| parse_record(line, &origin, None).expect(line)));
    for number in 0..200 {
        let line = format!("big 300 MX {number} host-{number}");
        records.push(parse_record(&line, &origin, None).expect("a record"));
    }
    let zones = Zones::new();
    zones.put(Zone::build(&origin, records).expect("a zone").into());
    zones
});

/// Every message gets silence, or an answer to it that another implementation reads, no longer than the asker can take; and so does what
/// is left of the answer when it is limited.
pub fn query(message: &[u8]) {
    let zones = ZONES.map();
    let settings = Settings { identity: b"fuzz".to_vec(), version: b"fuzz".to_vec(), ..Settings::default() };
    let cookies = CookieKeys::new([7; 16], None);
    let mut out = vec![0; 65_535];
    for (transport, room) in
        [(Transport::Udp, 0), (Transport::Udp, 200), (Transport::Tcp, 0), (Transport::Tcp, 200), (Transport::Tls, 0)]
    {
        let context = Context {
            zones: &zones,
            settings: &settings,
            cookies: &cookies,
            now: 1,
            client: [192, 0, 2, 1].into(),
            transport,
            room,
        };
        let Verdict::Reply(reply) = respond(&context, message, &mut out) else { continue };
        assert!(reply.len + room <= if transport == Transport::Udp { 1232 } else { 65_535 });
        assert_eq!(readable(message, &out[..reply.len])[3], u16::from(reply.opt_at < reply.len));
        for cut in [slip, refuse] {
            let (mut reply, mut answer) = (reply.clone(), out[..reply.len].to_vec());
            cut(&mut reply, &mut answer);
            let [answers, authorities, additional, opt] = readable(message, &answer[..reply.len]);
            assert_eq!((answers, authorities, additional), (0, 0, opt));
        }
    }
}

/// Counts of records in the sections of an answer to `message`, and of OPT records among them.
fn readable(message: &[u8], answer: &[u8]) -> [u16; 4] {
    assert_eq!((&answer[..2], answer[2] & 0x80), (&message[..2], 0x80));
    let parsed = Message::from_octets(answer).expect("a header");
    let (_, answers, authorities, additional) = parsed.sections().expect("sections");
    let mut counts = [0; 4];
    for (section, count) in [answers, authorities, additional].into_iter().zip(0..) {
        for record in section {
            let record = record.expect("a record");
            counts[count] += 1;
            counts[3] += u16::from(record.rtype() == Rtype::OPT);
            record.to_any_record::<AllRecordData<&[u8], ParsedName<&[u8]>>>().expect("well-formed data");
        }
    }
    counts
}

/// An update is refused, or its changes fit the zone and leave one: a SOA, NS records at the apex, CNAME records alone, and a
/// higher serial if and only if something changed.
pub fn update(message: &[u8]) {
    let _ = tsig::verify_request(message, &tsig::Keys::default(), 0);
    let _ = notify::parse(message);
    let _ = transfer::parse_request(message);
    let Ok(parsed) = update::parse(message) else { return };
    let Ok(changes) = update::apply(&*ZONE, &parsed, &|_, _| true) else { return };
    let next = match ZONE.with(&changes) {
        Ok(next) => next,
        // A set may grow longer than a message; the store refuses it.
        Err(crate::store::ZoneError::Set(..)) => return,
        Err(error) => panic!("{error}: {changes:?}"),
    };
    assert_eq!(changes.is_empty(), next.serial() == ZONE.serial());
    assert!(changes.is_empty() || is_newer(next.serial(), ZONE.serial()));
    assert!(next.set(next.origin(), Rtype::NS).is_some());
    next.for_each_record(&mut |record| {
        assert!(record.owner.is_in(next.origin()));
        if record.rtype == Rtype::CNAME {
            let beside = next.sets_at(&record.owner);
            assert!(beside.iter().all(|set| set.rtype != Rtype::CNAME || set.data.len() == 1), "{beside:?}");
        }
    });
}

/// The messages of an answer to a request for a transfer, each behind its length: an error, or something that is a zone or
/// fits one.
pub fn transfer(data: &[u8]) {
    let soa = ZONE.set(ZONE.origin(), Rtype::SOA).map(|set| gateward_zone::Record {
        owner: ZONE.origin().clone(),
        rtype: Rtype::SOA,
        ttl: set.ttl,
        rdata: set.data[0].clone(),
    });
    for have in [None, soa.as_ref()] {
        let (_, mut incoming) = Incoming::request(ZONE.origin(), have, 0, None, Limits::default(), 0);
        let mut rest = data;
        while let Some((len, tail)) = rest.split_at_checked(2) {
            let len = usize::from(u16::from_be_bytes([len[0], len[1]])).min(tail.len());
            let (message, tail) = tail.split_at(len);
            rest = tail;
            match incoming.take(message, 0) {
                Err(_) => break,
                Ok(None) => {}
                Ok(Some(Received::Current)) => assert!(have.is_some()),
                Ok(Some(Received::Zone(records))) => {
                    assert_eq!(records[0].rtype, Rtype::SOA);
                    let _ = Zone::build(ZONE.origin(), records);
                }
                Ok(Some(Received::Differences(differences))) => {
                    assert!(!differences.is_empty());
                    if let Ok(changes) = onto(&*ZONE, &differences) {
                        let _ = ZONE.with(&changes);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    fn replay(target: &str, check: fn(&[u8])) {
        gateward_testkit::corpus(target, 5).for_each(|input| check(&input));
    }

    #[test]
    fn the_corpora_pass() {
        replay("dns_query", super::query);
        replay("dns_update", super::update);
        replay("dns_transfer", super::transfer);
    }
}
