//! Updates rule by rule after RFC 2136, as messages on the wire; and at random against the RFC's pseudocode in `model.rs`.

use gateward_zone::{Change, Name, Rcode, Rtype, ZoneView as _, parse_rdata, parse_record, to_text};
use proptest::prelude::*;

use super::{Refusal, apply, model, parse};
use crate::store::Zone;
use crate::wire::{CLASS_ANY, CLASS_IN, CLASS_NONE, Section, Writer};

const ZONE: &[&str] = &[
    "@ 3600 SOA ns hostmaster 7 3600 600 86400 300",
    "@ 3600 NS ns",
    "@ 300 MX 10 mail",
    "ns 3600 A 192.0.2.53",
    "www 300 A 192.0.2.1",
    "www 300 A 192.0.2.2",
    "www 300 TXT hello",
    "alias 300 CNAME Www",
    "a.ent 300 A 192.0.2.3",
];

fn origin() -> Name {
    "example.com".parse().expect("a name")
}

fn name(text: &str) -> Name {
    Name::parse_in(text, &origin()).expect(text)
}

fn zone(lines: &[&str]) -> Zone {
    let records = lines.iter().map(|line| parse_record(line, &origin(), None).expect(line)).collect();
    Zone::build(&origin(), records).expect("a zone")
}

/// A message from lines such as those of `nsupdate`: `prereq nxrrset www A`, `add www 300 A 192.0.2.1`, `delete www A`.
fn message(lines: &[&str]) -> Vec<u8> {
    let mut writer = Writer::new(1, 5 << 11, 65_535);
    writer.question(&origin(), Rtype::SOA, CLASS_IN);
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let (section, words) = match words[0] {
            "prereq" => (Section::Answer, &words[1..]),
            _ => (Section::Authority, &words[..]),
        };
        let owner = name(words[1]);
        let ttl = if words[0] == "add" { words[2].parse().expect("a TTL") } else { 0 };
        let rest = &words[if words[0] == "add" { 3 } else { 2 }..];
        let rtype: Rtype = rest.first().map_or(Rtype::ANY, |text| text.parse().expect("a type"));
        let data = (rest.len() > 1).then(|| parse_rdata(rtype, &rest[1..].join(" "), &origin()).expect(line));
        let class = match (words[0], &data) {
            ("add", _) | ("yxrrset", Some(_)) => CLASS_IN,
            ("nxdomain" | "nxrrset", _) | ("delete", Some(_)) => CLASS_NONE,
            _ => CLASS_ANY,
        };
        assert!(writer.record(section, &owner, rtype, class, ttl, data.as_ref().map_or(&[], |data| data.as_wire())));
    }
    writer.finish()
}

fn shown(changes: &[Change]) -> Vec<String> {
    let text = |change: &Change| {
        let sign = if matches!(change, Change::Add(_)) { '+' } else { '-' };
        format!("{sign} {}", to_text(change.record(), &origin()))
    };
    changes.iter().map(text).collect()
}

fn applied(zone: &Zone, message: &[u8]) -> Result<Vec<Change>, Refusal> {
    apply(zone, &parse(message)?, &|_, _| true)
}

/// What an update of the zone above changes besides the serial, which it raises by one if anything.
#[track_caller]
fn check(lines: &[&str], expected: &[&str]) {
    let served = zone(ZONE);
    let changes = applied(&served, &message(lines)).expect("accepted");
    let mut shown = shown(&changes);
    if !changes.is_empty() {
        let soa = |sign, serial| {
            format!("{sign} @ 3600 IN SOA ns.example.com. hostmaster.example.com. {serial} 3600 600 86400 300")
        };
        assert!(shown.contains(&soa('-', 7)) && shown.contains(&soa('+', 8)), "{shown:?}");
        shown.retain(|line| !line.contains("SOA"));
        assert_eq!(served.with(&changes).expect("they fit").serial(), 8);
    }
    assert_eq!(shown, expected, "{lines:?}");
}

#[track_caller]
fn refused(lines: &[&str], rcode: Rcode) {
    assert_eq!(applied(&zone(ZONE), &message(lines)).map_err(|refusal| refusal.rcode), Err(rcode), "{lines:?}");
}

#[test]
fn rfc2136_2_4_prerequisites() {
    for (line, rcode) in [
        ("prereq yxdomain www", None),
        ("prereq yxdomain nothing", Some(Rcode::NXDOMAIN)),
        ("prereq yxdomain ent", Some(Rcode::NXDOMAIN)),
        ("prereq nxdomain nothing", None),
        ("prereq nxdomain ent", None),
        ("prereq nxdomain WWW", Some(Rcode::YXDOMAIN)),
        ("prereq yxrrset www A", None),
        ("prereq yxrrset www AAAA", Some(Rcode::NXRRSET)),
        ("prereq nxrrset www AAAA", None),
        ("prereq nxrrset www A", Some(Rcode::YXRRSET)),
        ("prereq yxrrset www TXT hello", None),
        ("prereq yxrrset www A 192.0.2.1", Some(Rcode::NXRRSET)),
        ("prereq yxrrset alias CNAME WWW", None),
        ("prereq yxdomain www.example.net.", Some(Rcode::NOTZONE)),
    ] {
        let lines = [line, "add new 60 A 192.0.2.9"];
        match rcode {
            None => check(&lines, &["+ new 60 IN A 192.0.2.9"]),
            Some(rcode) => refused(&lines, rcode),
        }
    }
    // A set is compared as a whole, in any order.
    check(
        &["prereq yxrrset www A 192.0.2.2", "prereq yxrrset www A 192.0.2.1", "delete www TXT"],
        &["- www 300 IN TXT \"hello\""],
    );
    // The first that fails answers, but sets with data are compared last (RFC 2136, 3.2.5).
    refused(&["prereq nxdomain www", "prereq yxrrset www AAAA"], Rcode::YXDOMAIN);
    refused(&["prereq yxrrset www A 192.0.2.1", "prereq nxdomain www"], Rcode::YXDOMAIN);
}

#[test]
fn rfc2136_3_2_malformed_prerequisites() {
    let with = |class, rtype, ttl, data: &[u8]| {
        let mut writer = Writer::new(1, 5 << 11, 512);
        writer.question(&origin(), Rtype::SOA, CLASS_IN);
        assert!(writer.record(Section::Answer, &name("www"), rtype, class, ttl, data));
        applied(&zone(ZONE), &writer.finish()).map_err(|refusal| refusal.rcode)
    };
    assert_eq!(with(CLASS_ANY, Rtype::A, 0, &[]), Ok(Vec::new()));
    for (class, rtype, ttl, data) in [
        (CLASS_ANY, Rtype::A, 1, &[][..]),
        (CLASS_ANY, Rtype::A, 0, &[192, 0, 2, 1]),
        (CLASS_NONE, Rtype::A, 0, &[192, 0, 2, 1]),
        (CLASS_IN, Rtype::A, 0, &[]),
        (CLASS_IN, Rtype::A, 0, &[1, 2, 3]),
        (CLASS_IN, Rtype::ANY, 0, &[]),
        (CLASS_ANY, Rtype::AXFR, 0, &[]),
        (3, Rtype::A, 0, &[]),
    ] {
        assert_eq!(with(class, rtype, ttl, data), Err(Rcode::FORMERR), "{class} {rtype} {ttl} {data:?}");
    }
}

#[test]
fn rfc2136_3_1_zone_section() {
    let with = |questions: &[(&str, Rtype, u16)]| {
        let mut writer = Writer::new(1, 5 << 11, 512);
        for (zone, rtype, class) in questions {
            writer.question(&name(zone), *rtype, *class);
        }
        applied(&zone(ZONE), &writer.finish()).map_err(|refusal| refusal.rcode)
    };
    assert_eq!(with(&[("@", Rtype::SOA, CLASS_IN)]), Ok(Vec::new()));
    assert_eq!(with(&[]), Err(Rcode::FORMERR));
    assert_eq!(with(&[("@", Rtype::SOA, CLASS_IN), ("@", Rtype::SOA, CLASS_IN)]), Err(Rcode::FORMERR));
    assert_eq!(with(&[("@", Rtype::A, CLASS_IN)]), Err(Rcode::FORMERR));
    assert_eq!(with(&[("@", Rtype::SOA, 3)]), Err(Rcode::NOTAUTH));
    assert_eq!(with(&[("www", Rtype::SOA, CLASS_IN)]), Err(Rcode::NOTAUTH));
}

#[test]
fn rfc2136_3_4_1_the_update_section_is_looked_through_first() {
    let with = |owner: &str, class, rtype, ttl, data: &[u8]| {
        let mut writer = Writer::new(1, 5 << 11, 512);
        writer.question(&origin(), Rtype::SOA, CLASS_IN);
        assert!(writer.record(Section::Authority, &name("new"), Rtype::A, CLASS_IN, 60, &[192, 0, 2, 9]));
        assert!(writer.record(Section::Authority, &name(owner), rtype, class, ttl, data));
        applied(&zone(ZONE), &writer.finish()).map_err(|refusal| refusal.rcode)
    };
    assert!(with("www", CLASS_ANY, Rtype::A, 0, &[]).is_ok());
    assert_eq!(with("www.example.net.", CLASS_ANY, Rtype::A, 0, &[]), Err(Rcode::NOTZONE));
    for (class, rtype, ttl, data) in [
        (CLASS_IN, Rtype::ANY, 0, &[][..]),
        (CLASS_IN, Rtype::AXFR, 0, &[]),
        (CLASS_IN, Rtype::OPT, 0, &[]),
        (CLASS_IN, Rtype::A, 60, &[]),
        (CLASS_IN, Rtype::A, 60, &[1, 2, 3, 4, 5]),
        (CLASS_IN, Rtype::MX, 60, &[0, 10, 0xc0, 0xff]),
        (CLASS_ANY, Rtype::A, 60, &[]),
        (CLASS_ANY, Rtype::A, 0, &[192, 0, 2, 1]),
        (CLASS_ANY, Rtype::AXFR, 0, &[]),
        (CLASS_NONE, Rtype::A, 60, &[192, 0, 2, 1]),
        (CLASS_NONE, Rtype::ANY, 0, &[]),
        (CLASS_NONE, Rtype::A, 0, &[]),
        (3, Rtype::A, 0, &[192, 0, 2, 1]),
    ] {
        assert_eq!(with("www", class, rtype, ttl, data), Err(Rcode::FORMERR), "{class} {rtype} {ttl} {data:?}");
    }
}

#[test]
fn rfc2136_3_4_2_2_adding() {
    check(&["add new 60 A 192.0.2.9"], &["+ new 60 IN A 192.0.2.9"]);
    check(&["add www 300 A 192.0.2.9"], &["+ www 300 IN A 192.0.2.9"]);
    // What is there already, in whatever spelling, is no change and raises no serial.
    check(&["add www 300 A 192.0.2.1", "add ALIAS 300 CNAME WWW"], &[]);
    // Another TTL is the TTL of the whole set (RFC 2181, 5.2).
    let set =
        ["- www 300 IN A 192.0.2.1", "- www 300 IN A 192.0.2.2", "+ www 60 IN A 192.0.2.1", "+ www 60 IN A 192.0.2.2"];
    check(&["add www 60 A 192.0.2.1"], &set);
    // A TTL with its highest bit set counts as 0 (RFC 2181, 8).
    check(&["add new 4294967295 A 192.0.2.9"], &["+ new 0 IN A 192.0.2.9"]);
}

#[test]
fn rfc2136_3_4_2_2_cname_and_other_data() {
    check(&["add www 300 CNAME mail"], &[]);
    check(&["add alias 300 A 192.0.2.9"], &[]);
    check(
        &["add alias 300 CNAME mail"],
        &["- alias 300 IN CNAME Www.example.com.", "+ alias 300 IN CNAME mail.example.com."],
    );
    // Entries see what those before them did.
    check(
        &["delete alias", "add alias 300 A 192.0.2.9"],
        &["- alias 300 IN CNAME Www.example.com.", "+ alias 300 IN A 192.0.2.9"],
    );
    check(&["add new 1 CNAME a", "add new 1 A 192.0.2.9", "add new 1 CNAME b"], &["+ new 1 IN CNAME b.example.com."]);
}

#[test]
fn rfc6672_5_2_dname() {
    check(&["add new 1 DNAME a.", "add new 1 DNAME b."], &["+ new 1 IN DNAME b."]);
    check(&["add alias 1 DNAME a."], &[]);
    check(&["add new 1 DNAME a.", "add new 1 CNAME b."], &["+ new 1 IN DNAME a."]);
}

#[test]
fn rfc2136_3_4_2_3_deleting_sets() {
    check(&["delete www A"], &["- www 300 IN A 192.0.2.1", "- www 300 IN A 192.0.2.2"]);
    check(&["delete www"], &["- www 300 IN A 192.0.2.1", "- www 300 IN A 192.0.2.2", "- www 300 IN TXT \"hello\""]);
    check(&["delete nothing", "delete nothing A", "delete ent"], &[]);
    // Of the apex SOA and NS stay.
    check(&["delete @"], &["- @ 300 IN MX 10 mail.example.com."]);
    check(&["delete @ NS", "delete @ SOA"], &[]);
}

#[test]
fn rfc2136_3_4_2_4_deleting_records() {
    // By data; a delete has no TTL to compare.
    check(&["delete www A 192.0.2.1"], &["- www 300 IN A 192.0.2.1"]);
    check(&["delete www A 192.0.2.9", "delete alias CNAME mail"], &[]);
    check(&["delete alias CNAME WWW"], &["- alias 300 IN CNAME Www.example.com."]);
    // The last NS of the apex stays, one with another beside it does not.
    check(&["delete @ NS ns"], &[]);
    check(
        &["add @ 3600 NS ns2", "delete @ NS ns"],
        &["- @ 3600 IN NS ns.example.com.", "+ @ 3600 IN NS ns2.example.com."],
    );
    check(&["delete @ SOA ns hostmaster 7 3600 600 86400 300"], &[]);
    // Other than the apex's last NS, the last NS of a delegation goes.
    check(&["add sub 1 NS ns", "delete sub NS ns"], &[]);
}

/// What external-dns sends as an update: old values out, new values in.
#[test]
fn a_replacement_is_one_difference() {
    check(
        &["delete www A 192.0.2.1", "delete www A 192.0.2.2", "add www 300 A 192.0.2.2", "add www 300 A 192.0.2.3"],
        &["- www 300 IN A 192.0.2.1", "+ www 300 IN A 192.0.2.3"],
    );
    check(&["delete www", "add www 300 A 192.0.2.2", "add www 300 A 192.0.2.1", "add www 300 TXT hello"], &[]);
}

#[test]
fn rfc2136_3_6_serials() {
    let serial = |lines: &[&str]| {
        let served = zone(ZONE);
        let changes = applied(&served, &message(lines)).expect("accepted");
        served.with(&changes).expect("they fit").serial()
    };
    let soa = |serial: u32| format!("add @ 3600 SOA ns hostmaster {serial} 3600 600 86400 300");
    assert_eq!(serial(&["add new 1 A 192.0.2.9", "add other 1 A 192.0.2.9"]), 8);
    assert_eq!(serial(&["add www 300 A 192.0.2.1"]), 7);
    // A higher serial in the update counts, and is not raised again.
    assert_eq!(serial(&[&soa(20)]), 20);
    assert_eq!(serial(&[&soa(20), "add new 1 A 192.0.2.9"]), 20);
    assert_eq!(serial(&[&soa(20), &soa(30)]), 30);
    assert_eq!(serial(&[&soa(30), &soa(20)]), 30);
    // A lower one, or one that is neither (RFC 1982, 3.2), does not.
    for lower in [6, 0x8000_0007, 0xffff_ffff] {
        assert_eq!(serial(&[&soa(lower)]), 7, "{lower}");
        assert_eq!(serial(&[&soa(lower), "add new 1 A 192.0.2.9"]), 8, "{lower}");
    }
    // The same serial with other data is a change.
    assert_eq!(serial(&["add @ 3600 SOA ns other 7 3600 600 86400 300"]), 8);
    // Not at other names.
    assert_eq!(serial(&["add new 1 SOA ns hostmaster 20 1 1 1 1"]), 7);
}

#[test]
fn policies_are_asked_for_every_set() {
    let served = zone(ZONE);
    let with = |lines: &[&str], permits: &dyn Fn(&Name, Rtype) -> bool| {
        let update = parse(&message(lines)).expect("well-formed");
        apply(&served, &update, permits).map(|changes| shown(&changes).len()).map_err(|refusal| refusal.rcode)
    };
    let only_txt = |_: &Name, rtype: Rtype| rtype == Rtype::TXT;
    assert_eq!(with(&["add _acme-challenge.www 60 TXT token"], &only_txt), Ok(3));
    assert_eq!(with(&["delete www TXT"], &only_txt), Ok(3));
    assert_eq!(with(&["delete a.ent TXT"], &only_txt), Ok(0));
    for line in ["add www 60 A 192.0.2.1", "delete www A", "delete nothing A", "delete www A 192.0.2.9", "delete www"] {
        assert_eq!(with(&["add x 60 TXT token", line], &only_txt), Err(Rcode::REFUSED), "{line}");
    }
    // What the update itself put there goes too.
    assert_eq!(with(&["add x 60 TXT token", "delete x"], &only_txt), Ok(0));
    let below_www = |name_: &Name, _: Rtype| name_.is_in(&name("www"));
    assert_eq!(with(&["delete www", "add x.www 60 A 192.0.2.1"], &below_www), Ok(6));
    assert_eq!(with(&["delete @"], &below_www), Err(Rcode::REFUSED));
}

#[test]
fn what_is_cut_off_is_malformed() {
    let whole = message(&["prereq yxdomain www", "add new 60 MX 10 mail.example.com.", "delete www A"]);
    assert!(parse(&whole).is_ok());
    for len in 0..whole.len() {
        assert_eq!(parse(&whole[..len]).map_err(|refusal| refusal.rcode), Err(Rcode::FORMERR), "{len} octets");
    }
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(parse(&longer).map_err(|refusal| refusal.rcode), Err(Rcode::FORMERR));
    let mut query = whole;
    query[2] = 0;
    assert_eq!(parse(&query).map_err(|refusal| refusal.rcode), Err(Rcode::FORMERR));
}

fn any_line() -> impl Strategy<Value = String> {
    let owner = prop::sample::select(vec!["@", "a", "b", "A.b", "*.a"]);
    let record = prop::sample::select(vec![
        "A 192.0.2.1",
        "A 192.0.2.2",
        "TXT x",
        "TXT y",
        "NS ns",
        "NS NS2",
        "CNAME a",
        "CNAME B",
        "DNAME a.",
        "DNAME b.",
        "SOA ns hostmaster 6 1 1 1 1",
        "SOA ns hostmaster 7 1 1 1 1",
        "SOA ns Hostmaster 7 1 1 1 2",
        "SOA ns hostmaster 9 1 1 1 1",
        "WKS \\# 7 c0000201060040",
        "WKS \\# 7 c0000201060080",
        "WKS \\# 7 c0000201110040",
        "TYPE65280 \\# 2 4142",
        "TYPE65280 \\# 2 6162",
    ]);
    let ttl = prop::sample::select(vec![60, 300]);
    let verb = prop::sample::select(vec!["add", "add", "add", "delete value", "delete set", "delete name"]);
    (verb, owner, ttl, record).prop_map(|(verb, owner, ttl, record)| match verb {
        "add" => format!("add {owner} {ttl} {record}"),
        "delete value" => format!("delete {owner} {record}"),
        "delete set" => format!("delete {owner} {}", record.split(' ').next().expect("a type")),
        _ => format!("delete {owner}"),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Random updates, one after the other, leave what RFC 2136, 3.4.2.7 leaves.
    #[test]
    fn updates_do_what_the_pseudocode_does(messages in prop::collection::vec(prop::collection::vec(any_line(), 1..8), 1..5)) {
        let mut served = zone(&["@ 300 SOA ns hostmaster 7 1 1 1 1", "@ 300 NS ns", "a 300 A 192.0.2.1", "b 60 CNAME a"]);
        let mut model = model::Zone::of(&served);
        for lines in &messages {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let update = parse(&message(&lines)).expect("well-formed");
            let changes = apply(&served, &update, &|_, _| true).expect("accepted");
            model.apply(&update);
            served = served.with(&changes).expect("changes fit the zone they were made from");
            prop_assert_eq!(model::Zone::of(&served).sorted(), model.sorted(), "{:?}", lines);
        }
    }
}
