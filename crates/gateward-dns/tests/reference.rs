//! Random zones and questions: the server says what a slow, obvious implementation of the rules says, however the zone came to be.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::base::iana::Rtype;
use gateward_dns::store::{Zone, Zones};
use gateward_zone::{Change, Name, Rdata, Record, ZoneView, to_text};
use proptest::prelude::*;
use support::{Answer, ask, name, question, same};

const ORIGIN: &str = "example.com";

/// A zone as a map, and the rules of RFC 1034 4.3.2, RFC 4592 and RFC 6672 as they are written.
struct Reference {
    origin: Name,
    sets: BTreeMap<(Name, u16), Vec<Record>>,
    existing: BTreeSet<Name>,
}

impl Reference {
    fn new(records: &[Record]) -> Self {
        let origin = name(ORIGIN);
        let mut sets: BTreeMap<(Name, u16), Vec<Record>> = BTreeMap::new();
        let mut existing = BTreeSet::new();
        for record in records {
            sets.entry((record.owner.clone(), record.rtype.to_int())).or_default().push(record.clone());
            let mut above = Some(record.owner.clone());
            while let Some(name) = above.filter(|name| name.is_in(&origin)) {
                above = name.parent();
                existing.insert(name);
            }
        }
        Reference { origin, sets, existing }
    }

    fn set(&self, name: &Name, rtype: Rtype) -> Option<&Vec<Record>> {
        self.sets.get(&(name.clone(), rtype.to_int()))
    }

    fn lines(&self, records: &[Record], owner: &Name) -> Vec<String> {
        records.iter().map(|record| text(&Record { owner: owner.clone(), ..record.clone() })).collect()
    }

    /// The names from the apex down to `name`.
    fn path(&self, name: &Name) -> Vec<Name> {
        let mut path = Vec::new();
        let mut above = Some(name.clone());
        while let Some(name) = above.filter(|name| name.is_in(&self.origin)) {
            above = name.parent();
            path.push(name);
        }
        path.reverse();
        path
    }

    fn answer(&self, asked: &Name, qtype: Rtype) -> Answer {
        let mut answer = Answer { flags: vec!["aa"], ..Answer::default() };
        let mut name = asked.clone();
        let mut seen = BTreeSet::new();
        for step in 0..=16 {
            if !name.is_in(&self.origin) || !seen.insert(name.clone()) {
                return answer;
            }
            if let Some(next) = self.step(&name, qtype, step == 0, &mut answer) {
                name = next;
            } else {
                return answer;
            }
            if matches!(qtype, Rtype::CNAME | Rtype::ANY) {
                return answer;
            }
        }
        answer
    }

    /// What stands at one name; where it leads on.
    fn step(&self, name: &Name, qtype: Rtype, first: bool, answer: &mut Answer) -> Option<Name> {
        for above in self.path(name) {
            let is_name = above == *name;
            if above != self.origin && self.set(&above, Rtype::NS).is_some() && !(is_name && qtype == Rtype::DS) {
                return self.referral(&above, first, answer);
            }
            if !is_name && let Some(dname) = self.set(&above, Rtype::DNAME) {
                answer.answer.extend(self.lines(dname, &above));
                let (target, _) = Name::from_wire(dname[0].rdata.as_wire()).expect("a name");
                let mut made = target;
                let labels: Vec<&[u8]> = name.labels().take(name.label_count() - above.label_count()).collect();
                for label in labels.iter().rev() {
                    let Ok(longer) = made.child(label) else {
                        answer.rcode = 6;
                        return None;
                    };
                    made = longer;
                }
                answer.answer.push(text(&Record {
                    owner: name.clone(),
                    rtype: Rtype::CNAME,
                    ttl: dname[0].ttl,
                    rdata: Rdata::from_wire(made.as_wire()),
                }));
                return Some(made);
            }
        }
        let source = if self.existing.contains(name) {
            name.clone()
        } else {
            let encloser =
                self.path(name).into_iter().rfind(|above| self.existing.contains(above)).expect("the apex exists");
            let wildcard = encloser.child(b"*").expect("short enough");
            if !self.existing.contains(&wildcard) {
                return self.negative(3, answer);
            }
            wildcard
        };
        if qtype == Rtype::ANY {
            let all: Vec<&Vec<Record>> =
                self.sets.range((source.clone(), 0)..=(source, u16::MAX)).map(|(_, set)| set).collect();
            answer.answer.extend(all.iter().flat_map(|set| self.lines(set, name)));
            return if all.is_empty() { self.negative(0, answer) } else { None };
        }
        if let Some(set) = self.set(&source, qtype) {
            answer.answer.extend(self.lines(set, name));
            self.addresses(set, None, answer);
            return None;
        }
        if let Some(cname) = self.set(&source, Rtype::CNAME) {
            answer.answer.extend(self.lines(cname, name));
            return Some(Name::from_wire(cname[0].rdata.as_wire()).expect("a name").0);
        }
        self.negative(0, answer)
    }

    fn negative(&self, rcode: u16, answer: &mut Answer) -> Option<Name> {
        answer.rcode = rcode;
        let soa = &self.set(&self.origin, Rtype::SOA).expect("a SOA")[0];
        let minimum =
            u32::from_be_bytes(soa.rdata.as_wire()[soa.rdata.as_wire().len() - 4..].try_into().expect("four octets"));
        answer.authority.push(text(&Record { ttl: soa.ttl.min(minimum), ..soa.clone() }));
        None
    }

    fn referral(&self, cut: &Name, first: bool, answer: &mut Answer) -> Option<Name> {
        if first {
            answer.flags.clear();
        }
        let set = self.set(cut, Rtype::NS).expect("a cut has NS");
        answer.authority.extend(self.lines(set, cut));
        self.addresses(set, Some(cut), answer);
        None
    }

    /// Whether the records of a name may be told beside an answer: not below a DNAME, and at or below a cut as glue only.
    fn is_told(&self, name: &Name, as_glue: bool) -> bool {
        for above in self.path(name) {
            if above != self.origin && self.set(&above, Rtype::NS).is_some() {
                return as_glue;
            }
            if above != *name && self.set(&above, Rtype::DNAME).is_some() {
                return false;
            }
        }
        true
    }

    /// The addresses of the names that a set leads to; `cut` is where a referral leads.
    fn addresses(&self, set: &[Record], cut: Option<&Name>, answer: &mut Answer) {
        let skip = match set[0].rtype {
            Rtype::NS => 0,
            Rtype::MX => 2,
            Rtype::SRV => 6,
            _ => return,
        };
        for record in set {
            let (target, _) = Name::from_wire(&record.rdata.as_wire()[skip..]).expect("a name");
            let is_owed = cut.is_some_and(|cut| target.is_in(cut));
            if !is_owed && !self.is_told(&target, record.rtype == Rtype::NS) {
                continue;
            }
            for rtype in [Rtype::A, Rtype::AAAA] {
                if let Some(set) = self.set(&target, rtype).filter(|_| target.is_in(&self.origin)) {
                    answer.additional.extend(self.lines(set, &target));
                }
            }
        }
        answer.additional.sort();
        answer.additional.dedup();
    }
}

/// As `support::read` writes records.
fn text(record: &Record) -> String {
    let whole = to_text(record, &Name::root());
    let mut fields = whole.split_whitespace();
    let (_, _, class) = (fields.next(), fields.next(), fields.next());
    assert_eq!(class, Some("IN"), "{whole}");
    let rest: Vec<&str> = fields.collect();
    format!("{} {} {}", record.owner, record.ttl, rest.join(" "))
}

/// Few labels, so that names meet.
fn relative() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof![4 => "[abc]", 1 => Just("*".to_owned())], 1..5)
        .prop_map(|labels| labels.join("."))
}

fn absolute() -> impl Strategy<Value = String> {
    prop_oneof![8 => relative().prop_map(|name| format!("{name}.{ORIGIN}.")), 1 => Just(format!("{ORIGIN}.")), 1 => Just("a.elsewhere.test.".to_owned())]
}

fn data() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (1..5_u8).prop_map(|octet| format!("A 192.0.2.{octet}")),
        1 => (1..3_u8).prop_map(|octet| format!("AAAA 2001:db8::{octet}")),
        1 => (1..3_u8).prop_map(|octet| format!("TXT \"t{octet}\"")),
        2 => absolute().prop_map(|target| format!("NS {target}")),
        1 => absolute().prop_map(|target| format!("MX 10 {target}")),
        1 => absolute().prop_map(|target| format!("SRV 1 1 53 {target}")),
        2 => absolute().prop_map(|target| format!("CNAME {target}")),
        1 => absolute().prop_map(|target| format!("DNAME {target}")),
        1 => Just("DS 1 13 2 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF".to_owned()),
    ]
}

fn lines() -> impl Strategy<Value = Vec<(String, String)>> {
    proptest::collection::vec((relative(), data()), 0..14)
}

/// Records of a zone that could be loaded: one CNAME or DNAME at a name, a CNAME alone there, no data twice.
fn records(lines: &[(String, String)]) -> Vec<Record> {
    let mut text = format!(
        "$ORIGIN {ORIGIN}.\n@ 60 SOA ns1 h 1 2 3 4 30\n@ 60 NS ns1\n@ 60 NS ns.elsewhere.test.\nns1 60 A 192.0.2.53\n"
    );
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (owner, data) in lines {
        let kind = data.split(' ').next().expect("a type");
        let kinds = kinds.entry(owner).or_default();
        let fits = match kind {
            "CNAME" => kinds.is_empty(),
            "DNAME" => !kinds.contains(&"DNAME") && !kinds.contains(&"CNAME"),
            _ => !kinds.contains(&"CNAME"),
        };
        // What a wildcard's NS or DNAME means is not defined (RFC 4592, 4.2 and 4.4); the linter refuses it.
        if fits && !(owner.starts_with('*') && matches!(kind, "NS" | "DNAME")) {
            kinds.push(kind);
            text.push_str(&format!("{owner} 60 {data}\n"));
        }
    }
    support::records(ORIGIN, &text)
}

fn compare(zones: &Zones, records: &[Record], asked: &str, qtype: Rtype) {
    let reference = Reference::new(records);
    let expected = reference.answer(&name(asked), qtype);
    let got = ask(zones, &question(asked, qtype).tcp());
    let dump: Vec<String> = records.iter().map(text).collect();
    // Names of the data that are in the question come back in its spelling, which is lower case here; sets keep their order.
    same(&got, &expected, &format!("{asked} {qtype} in\n{}", dump.join("\n")));
}

const TYPES: [Rtype; 10] = [
    Rtype::A,
    Rtype::AAAA,
    Rtype::NS,
    Rtype::MX,
    Rtype::CNAME,
    Rtype::DNAME,
    Rtype::DS,
    Rtype::SRV,
    Rtype::SOA,
    Rtype::ANY,
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_the_reference(lines in lines(), asked in proptest::collection::vec((absolute(), 0..TYPES.len()), 20)) {
        let records = records(&lines);
        let zones = Zones::new();
        zones.put(Arc::new(Zone::build(&name(ORIGIN), records.clone()).expect("a zone")));
        for (asked, qtype) in asked.iter().filter(|(asked, _)| asked.ends_with(&format!("{ORIGIN}."))) {
            compare(&zones, &records, asked, TYPES[*qtype]);
        }
    }

    #[test]
    fn a_zone_changed_step_by_step_is_the_zone_built_at_once(from in lines(), to in lines(), asked in proptest::collection::vec((absolute(), 0..TYPES.len()), 10)) {
        let (from, to) = (records(&from), records(&to));
        let zone = Zone::build(&name(ORIGIN), from.clone()).expect("a zone");
        let mut changes: Vec<Change> = from.iter().filter(|record| !to.contains(record)).cloned().map(Change::Remove).collect();
        changes.extend(to.iter().filter(|record| !from.contains(record)).cloned().map(Change::Add));
        let changed = zone.with(&changes).expect("changes that fit");
        let built = Zone::build(&name(ORIGIN), to.clone()).expect("a zone");
        prop_assert_eq!(all(&changed), all(&built));
        prop_assert_eq!((changed.name_count(), changed.record_count(), changed.serial()), (built.name_count(), built.record_count(), built.serial()));
        let zones = Zones::new();
        zones.put(Arc::new(changed));
        let mut sorted = to;
        // Sets in the order in which the changes left them.
        let order = all_in_order(&zones);
        sorted.sort_by_key(|record| order.iter().position(|other| other == record));
        for (asked, qtype) in asked.iter().filter(|(asked, _)| asked.ends_with(&format!("{ORIGIN}."))) {
            compare(&zones, &sorted, asked, TYPES[*qtype]);
        }
    }
}

fn all(zone: &Zone) -> BTreeSet<String> {
    let mut records = BTreeSet::new();
    zone.for_each_record(&mut |record| {
        records.insert(text(&record));
    });
    records
}

fn all_in_order(zones: &Zones) -> Vec<Record> {
    let zone = zones.map().slot(&name(ORIGIN)).expect("served").zone().expect("a zone");
    let mut records = Vec::new();
    zone.for_each_record(&mut |record| records.push(record));
    records
}
