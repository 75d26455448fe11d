//! Questions and answers as text, read by another implementation (`domain`) than the one that wrote them.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::sync::Arc;

use domain::base::iana::{Class, Rtype};
use domain::base::{Message, ParsedName};
use domain::rdata::AllRecordData;
use gateward_dns::answer::{Context, Settings, Transport, Verdict, respond};
use gateward_dns::cookies::CookieKeys;
use gateward_dns::store::{Zone, Zones};
use gateward_zone::{Name, Rdata, Record, parse_zone, rdata_to_text};

pub fn name(text: &str) -> Name {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub fn records(origin: &str, text: &str) -> Vec<Record> {
    let parsed = parse_zone(text.as_bytes(), &name(origin), "test.zone", &|_| Err("no files".into()));
    parsed.unwrap_or_else(|problems| panic!("{origin}: {problems:#?}")).into_records()
}

pub fn zone(origin: &str, text: &str) -> Arc<Zone> {
    Arc::new(Zone::build(&name(origin), records(origin, text)).unwrap_or_else(|error| panic!("{origin}: {error}")))
}

pub fn zones(all: &[(&str, &str)]) -> Zones {
    let zones = Zones::new();
    for (origin, text) in all {
        zones.put(zone(origin, text));
    }
    zones
}

/// A question as it goes out.
#[derive(Clone)]
pub struct Question {
    pub name: String,
    pub qtype: Rtype,
    pub class: u16,
    pub transport: Transport,
    /// Payload size of the OPT record; 0 sends none.
    pub payload: u16,
    pub options: Vec<(u16, Vec<u8>)>,
    pub version: u8,
    pub flags: [u8; 2],
}

pub fn question(name: &str, qtype: Rtype) -> Question {
    Question {
        name: name.into(),
        qtype,
        class: 1,
        transport: Transport::Udp,
        payload: 1232,
        options: Vec::new(),
        version: 0,
        flags: [0, 0],
    }
}

impl Question {
    pub fn tcp(self) -> Self {
        Question { transport: Transport::Tcp, ..self }
    }

    pub fn payload(self, payload: u16) -> Self {
        Question { payload, ..self }
    }

    pub fn wire(&self) -> Vec<u8> {
        let mut out = vec![0x12, 0x34, self.flags[0], self.flags[1], 0, 1, 0, 0, 0, 0, 0, u8::from(self.payload > 0)];
        for label in self.name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
            out.push(u8::try_from(label.len()).expect("a label"));
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
        out.extend(self.qtype.to_int().to_be_bytes());
        out.extend(self.class.to_be_bytes());
        if self.payload > 0 {
            let options: Vec<u8> = self
                .options
                .iter()
                .flat_map(|(code, data)| {
                    [&code.to_be_bytes()[..], &u16::try_from(data.len()).expect("an option").to_be_bytes(), data]
                        .concat()
                })
                .collect();
            out.extend([0, 0, 41]);
            out.extend(self.payload.to_be_bytes());
            out.extend([0, self.version, 0, 0]);
            out.extend(u16::try_from(options.len()).expect("options").to_be_bytes());
            out.extend(options);
        }
        out
    }
}

/// An answer as text.
#[derive(Debug, PartialEq, Eq, Clone, Default)]
pub struct Answer {
    pub rcode: u16,
    /// Of `aa`, `tc`, `rd`, `cd`, those that are set.
    pub flags: Vec<&'static str>,
    pub answer: Vec<String>,
    pub authority: Vec<String>,
    pub additional: Vec<String>,
    /// Code and data of each option; `None` without an OPT record.
    pub options: Option<Vec<(u16, Vec<u8>)>>,
    pub question: Vec<u8>,
    pub len: usize,
}

pub const CLIENT: [u8; 4] = [198, 51, 100, 7];
pub const NOW: u64 = 1_800_000_000;

pub fn settings() -> Settings {
    Settings { identity: b"ns1.test".to_vec(), version: b"gateward".to_vec(), ..Settings::default() }
}

/// What `zones` make of a message, with `room` octets left free behind the answer.
pub fn verdict(
    zones: &Zones,
    settings: &Settings,
    transport: Transport,
    room: usize,
    wire: &[u8],
) -> (Verdict, Vec<u8>) {
    let mut out = vec![0; 65_535];
    let (map, cookies) = (zones.map(), CookieKeys::new([7; 16], None));
    let context =
        Context { zones: &map, settings, cookies: &cookies, now: NOW, client: CLIENT.into(), transport, room };
    let verdict = respond(&context, wire, &mut out);
    if let Verdict::Reply(reply) = &verdict {
        out.truncate(reply.len);
    }
    (verdict, out)
}

/// What `zones` say to a message; `None` for silence, an error for what is served elsewhere.
pub fn raw(
    zones: &Zones,
    settings: &Settings,
    transport: Transport,
    wire: &[u8],
) -> Result<Option<Vec<u8>>, &'static str> {
    match verdict(zones, settings, transport, 0, wire) {
        (Verdict::Silent, _) => Ok(None),
        (Verdict::Elsewhere, _) => Err("elsewhere"),
        (Verdict::Reply(_), out) => Ok(Some(out)),
    }
}

pub fn ask(zones: &Zones, question: &Question) -> Answer {
    ask_with(zones, &settings(), question)
}

pub fn ask_with(zones: &Zones, settings: &Settings, question: &Question) -> Answer {
    let wire = question.wire();
    let out = raw(zones, settings, question.transport, &wire).expect("answered here").expect("answered");
    read(&out)
}

pub fn read(octets: &[u8]) -> Answer {
    let message = Message::from_octets(octets).expect("a message");
    let header = message.header();
    assert!(header.qr(), "an answer says so");
    let mut answer = Answer {
        rcode: u16::from(header.rcode().to_int()),
        flags: [
            ("aa", header.aa()),
            ("tc", header.tc()),
            ("rd", header.rd()),
            ("ra", header.ra()),
            ("ad", header.ad()),
            ("cd", header.cd()),
        ]
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect(),
        len: octets.len(),
        ..Answer::default()
    };
    let (questions, answers, authorities, additional) = message.sections().expect("sections");
    let start = 12;
    answer.question =
        octets[start..start + usize::from(octets.len() > 12) * question_len(octets, questions.count())].to_vec();
    for (section, lines) in
        [(answers, &mut answer.answer), (authorities, &mut answer.authority), (additional, &mut answer.additional)]
    {
        for record in section {
            let record = record.expect("a record");
            if record.rtype() == Rtype::OPT {
                assert_eq!(record.owner().to_string(), "", "OPT is at the root");
                let ttl = record.ttl().as_secs();
                answer.rcode |= u16::try_from(ttl >> 24).expect("eight bits") << 4;
                assert_eq!((ttl >> 16) & 0xff, 0, "our EDNS version is 0");
                assert_eq!(ttl & 0x7fff, 0, "Z bits are 0 (RFC 6891, 6.1.4)");
                let data = record.to_record::<domain::base::opt::Opt<_>>().expect("options").expect("OPT");
                let mut options = Vec::new();
                for option in data.data().iter::<domain::base::opt::UnknownOptData<_>>() {
                    let option = option.expect("an option");
                    options.push((option.code().to_int(), option.as_slice().to_vec()));
                }
                answer.options = Some(options);
                continue;
            }
            let class = record.class();
            let parsed = record.to_any_record::<AllRecordData<&[u8], ParsedName<&[u8]>>>().expect("well-formed data");
            let mut data = Vec::new();
            domain::base::rdata::ComposeRecordData::compose_rdata(parsed.data(), &mut data).expect("memory grows");
            let class = if class == Class::IN { String::new() } else { format!("{class} ") };
            let text = rdata_to_text(record.rtype(), &Rdata::from_wire(data));
            lines.push(format!("{}. {} {class}{} {text}", record.owner(), record.ttl().as_secs(), record.rtype()));
        }
    }
    answer
}

fn question_len(octets: &[u8], count: usize) -> usize {
    if count == 0 {
        return 0;
    }
    let mut at = 12;
    while octets[at] != 0 {
        at += 1 + usize::from(octets[at]);
    }
    at + 5 - 12
}

/// An authoritative answer with these records.
pub fn answered(lines: &[&str]) -> Answer {
    Answer { flags: vec!["aa"], answer: lines.iter().map(ToString::to_string).collect(), ..Answer::default() }
}

/// Compares what a resolver would look at.
pub fn same(got: &Answer, expected: &Answer, what: &str) {
    let sorted = |lines: &[String]| {
        let mut lines = lines.to_vec();
        lines.sort();
        lines
    };
    assert_eq!(
        (got.rcode, &got.flags, &got.answer, sorted(&got.authority), sorted(&got.additional)),
        (expected.rcode, &expected.flags, &expected.answer, sorted(&expected.authority), sorted(&expected.additional)),
        "{what}"
    );
}
