//! The behaviour of an authoritative server, line by line: each test is named after what it says.

mod support;

use domain::base::iana::Rtype;
use gateward_dns::answer::{Settings, Transport, Verdict};
use gateward_dns::store::Zones;
use support::{Answer, answered, ask, ask_with, name, question, raw, read, same, settings, verdict, zone, zones};

const SOA: &str = "example.com. 300 SOA ns1.example.com. hostmaster.example.com. 7 3600 600 86400 300";

const EXAMPLE: &str = r#"
$TTL 3600
@           SOA   ns1 hostmaster 7 3600 600 86400 300
            NS    ns1
            NS    ns2.elsewhere.test.
            MX    10 mail
ns1         A     192.0.2.1
            AAAA  2001:db8::1
mail        A     192.0.2.2
www         A     192.0.2.3
            A     192.0.2.4
            TXT   "hello" "world"
alias       CNAME www
alias2      CNAME alias
outside     CNAME www.elsewhere.test.
dangling    CNAME nowhere
loop-a      CNAME loop-b
loop-b      CNAME loop-a
a.b.c       A     192.0.2.5
*.wild      A     192.0.2.6
            MX    10 mail
host.wild   TXT   "here"
sub.ent.wild TXT  "below an empty non-terminal"
*.cname     CNAME www
*.*.deep    A     192.0.2.9
prod        NS    ns.prod
            NS    ns2.prod
            NS    ns1
ns.prod     A     192.0.2.10
ns2.prod    AAAA  2001:db8::10
below.prod  A     192.0.2.99
secret.deeper.prod NS ns.elsewhere.test.
signed      NS    ns.elsewhere.test.
            DS    12345 13 2 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF
to-cut      CNAME host.prod
old         DNAME new
x.new       A     192.0.2.20
far         DNAME elsewhere.test.
_sip._tcp   SRV   1 2 5060 www
svc         HTTPS 1 . alpn=h2
            A     192.0.2.30
svc2        HTTPS 0 svc
strange     TYPE65400 \# 4 c00cdead
Upper       NS    Ns.UPPER
            NS    Target.Example.COM.
ns.upper    A     192.0.2.40
"#;

fn example() -> Zones {
    zones(&[("example.com", EXAMPLE)])
}

fn check(what: &str, qtype: Rtype, expected: &Answer) {
    same(&ask(&example(), &question(what, qtype)), expected, &format!("{what} {qtype}"));
    // Over TCP the same is said (RFC 7766, 4), and the case of a question changes nothing but itself.
    same(&ask(&example(), &question(what, qtype).tcp()), expected, &format!("{what} {qtype} over TCP"));
}

fn negative(rcode: u16) -> Answer {
    Answer { rcode, flags: vec!["aa"], authority: vec![SOA.into()], ..Answer::default() }
}

fn with_additional(answer: Answer, lines: &[&str]) -> Answer {
    Answer { additional: lines.iter().map(ToString::to_string).collect(), ..answer }
}

#[test]
fn an_exact_match_has_aa_and_nothing_beside() {
    check(
        "www.example.com",
        Rtype::A,
        &answered(&["www.example.com. 3600 A 192.0.2.3", "www.example.com. 3600 A 192.0.2.4"]),
    );
    check("www.example.com", Rtype::TXT, &answered(&[r#"www.example.com. 3600 TXT "hello" "world""#]));
    check(
        "example.com",
        Rtype::SOA,
        &answered(&["example.com. 3600 SOA ns1.example.com. hostmaster.example.com. 7 3600 600 86400 300"]),
    );
}

#[test]
fn data_that_names_hosts_brings_their_addresses() {
    let ns = answered(&["example.com. 3600 NS ns1.example.com.", "example.com. 3600 NS ns2.elsewhere.test."]);
    check(
        "example.com",
        Rtype::NS,
        &with_additional(ns, &["ns1.example.com. 3600 A 192.0.2.1", "ns1.example.com. 3600 AAAA 2001:db8::1"]),
    );
    let mx = answered(&["example.com. 3600 MX 10 mail.example.com."]);
    check("example.com", Rtype::MX, &with_additional(mx, &["mail.example.com. 3600 A 192.0.2.2"]));
    let srv = answered(&["_sip._tcp.example.com. 3600 SRV 1 2 5060 www.example.com."]);
    check(
        "_sip._tcp.example.com",
        Rtype::SRV,
        &with_additional(srv, &["www.example.com. 3600 A 192.0.2.3", "www.example.com. 3600 A 192.0.2.4"]),
    );
}

/// RFC 9460, 4.1: addresses of the TargetName; `.` in ServiceMode is the owner.
#[test]
fn rfc9460_service_bindings() {
    let zones = example();
    let answer = ask(&zones, &question("svc.example.com", Rtype::HTTPS));
    assert_eq!(answer.answer.len(), 1, "{answer:?}");
    assert_eq!(answer.additional, ["svc.example.com. 3600 A 192.0.2.30"]);
    let alias = ask(&zones, &question("svc2.example.com", Rtype::HTTPS));
    assert_eq!(alias.answer, ["svc2.example.com. 3600 HTTPS 0 svc.example.com."]);
    assert_eq!(alias.additional, ["svc.example.com. 3600 A 192.0.2.30"]);
}

/// RFC 2308, 2.2 and 3: the SOA with the lesser of its TTL and MINIMUM.
#[test]
fn rfc2308_nodata_and_nxdomain() {
    check("www.example.com", Rtype::AAAA, &negative(0));
    check("nowhere.example.com", Rtype::A, &negative(3));
    check("a.very.deep.nowhere.example.com", Rtype::A, &negative(3));
    // An unknown type is a type (RFC 3597).
    check("www.example.com", Rtype::from_int(4711), &negative(0));
}

/// RFC 8020 and RFC 4592, 2.2.2: a name with something below it exists.
#[test]
fn rfc4592_empty_non_terminals_are_nodata() {
    for existing in ["c.example.com", "b.c.example.com", "_tcp.example.com", "wild.example.com", "ent.wild.example.com"]
    {
        check(existing, Rtype::A, &negative(0));
    }
    check("x.c.example.com", Rtype::A, &negative(3));
}

/// RFC 4592, 2.2.1 and 3.3.
#[test]
fn rfc4592_wildcards() {
    check("any.wild.example.com", Rtype::A, &answered(&["any.wild.example.com. 3600 A 192.0.2.6"]));
    check("x.y.z.wild.example.com", Rtype::A, &answered(&["x.y.z.wild.example.com. 3600 A 192.0.2.6"]));
    let mx = answered(&["any.wild.example.com. 3600 MX 10 mail.example.com."]);
    check("any.wild.example.com", Rtype::MX, &with_additional(mx, &["mail.example.com. 3600 A 192.0.2.2"]));
    // A type the wildcard has not.
    check("any.wild.example.com", Rtype::TXT, &negative(0));
    // An existing name hides the wildcard, for itself and for what is below it; so does an empty non-terminal.
    check("host.wild.example.com", Rtype::A, &negative(0));
    check("below.host.wild.example.com", Rtype::A, &negative(3));
    check("ent.wild.example.com", Rtype::A, &negative(0));
    check("other.ent.wild.example.com", Rtype::A, &negative(3));
    // The wildcard's own name, and an asterisk in the middle, are literal.
    check("*.wild.example.com", Rtype::A, &answered(&["*.wild.example.com. 3600 A 192.0.2.6"]));
    check("x.*.deep.example.com", Rtype::A, &answered(&["x.*.deep.example.com. 3600 A 192.0.2.9"]));
    check("x.y.deep.example.com", Rtype::A, &negative(0));
}

#[test]
fn rfc4592_a_wildcard_cname_is_followed() {
    let lines = [
        "q.cname.example.com. 3600 CNAME www.example.com.",
        "www.example.com. 3600 A 192.0.2.3",
        "www.example.com. 3600 A 192.0.2.4",
    ];
    check("q.cname.example.com", Rtype::A, &answered(&lines));
    check("q.cname.example.com", Rtype::CNAME, &answered(&lines[..1]));
}

/// RFC 1034, 4.3.2 step 3a; RFC 6604: the code is that of the last name.
#[test]
fn rfc1034_chains_of_cnames() {
    let chain = [
        "alias2.example.com. 3600 CNAME alias.example.com.",
        "alias.example.com. 3600 CNAME www.example.com.",
        "www.example.com. 3600 A 192.0.2.3",
        "www.example.com. 3600 A 192.0.2.4",
    ];
    check("alias2.example.com", Rtype::A, &answered(&chain));
    check("alias2.example.com", Rtype::CNAME, &answered(&chain[..1]));
    check("alias2.example.com", Rtype::ANY, &answered(&chain[..1]));
    check("outside.example.com", Rtype::A, &answered(&["outside.example.com. 3600 CNAME www.elsewhere.test."]));
    let dangling =
        Answer { answer: vec!["dangling.example.com. 3600 CNAME nowhere.example.com.".into()], ..negative(3) };
    check("dangling.example.com", Rtype::A, &dangling);
    let no_data = Answer { answer: vec![chain[1].into()], ..negative(0) };
    check("alias.example.com", Rtype::AAAA, &no_data);
    check(
        "loop-a.example.com",
        Rtype::A,
        &answered(&[
            "loop-a.example.com. 3600 CNAME loop-b.example.com.",
            "loop-b.example.com. 3600 CNAME loop-a.example.com.",
        ]),
    );
}

fn to_prod() -> Answer {
    Answer {
        authority: ["ns.prod.example.com.", "ns2.prod.example.com.", "ns1.example.com."]
            .map(|ns| format!("prod.example.com. 3600 NS {ns}"))
            .into(),
        additional: vec![
            "ns.prod.example.com. 3600 A 192.0.2.10".into(),
            "ns2.prod.example.com. 3600 AAAA 2001:db8::10".into(),
            "ns1.example.com. 3600 A 192.0.2.1".into(),
            "ns1.example.com. 3600 AAAA 2001:db8::1".into(),
        ],
        ..Answer::default()
    }
}

/// RFC 1034, 4.3.2 step 3b: at and below a cut, for any type, without AA; what is below does not count, nor do deeper cuts.
#[test]
fn rfc1034_referrals() {
    for below in [
        "prod.example.com",
        "x.prod.example.com",
        "below.prod.example.com",
        "ns.prod.example.com",
        "a.secret.deeper.prod.example.com",
    ] {
        for qtype in [Rtype::A, Rtype::NS, Rtype::SOA, Rtype::ANY] {
            check(below, qtype, &to_prod());
        }
    }
}

#[test]
fn a_cname_to_a_delegated_name_brings_the_referral() {
    let expected = Answer {
        flags: vec!["aa"],
        answer: vec!["to-cut.example.com. 3600 CNAME host.prod.example.com.".into()],
        ..to_prod()
    };
    check("to-cut.example.com", Rtype::A, &expected);
}

/// RFC 4035, 3.1.4.1: DS at a cut is the parent's.
#[test]
fn rfc4035_ds_belongs_to_the_parent() {
    let line =
        "signed.example.com. 3600 DS 12345 13 2 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF";
    check("signed.example.com", Rtype::DS, &answered(&[line]));
    check("prod.example.com", Rtype::DS, &negative(0));
    check(
        "below.signed.example.com",
        Rtype::DS,
        &Answer { authority: vec!["signed.example.com. 3600 NS ns.elsewhere.test.".into()], ..Answer::default() },
    );
}

const PROD: &str = "@ 60 SOA ns hostmaster 1 3600 600 86400 60\n@ 60 NS ns\nns 60 A 192.0.2.10\nhost 60 A 192.0.2.50\n";

#[test]
fn a_child_served_here_answers_itself_but_for_ds() {
    let both = zones(&[("example.com", EXAMPLE), ("prod.example.com", PROD)]);
    same(
        &ask(&both, &question("host.prod.example.com", Rtype::A)),
        &answered(&["host.prod.example.com. 60 A 192.0.2.50"]),
        "the child",
    );
    same(&ask(&both, &question("prod.example.com", Rtype::DS)), &negative(0), "DS at the apex is asked of the parent");
    let alone = zones(&[("prod.example.com", PROD)]);
    let soa = "prod.example.com. 60 SOA ns.prod.example.com. hostmaster.prod.example.com. 1 3600 600 86400 60";
    same(
        &ask(&alone, &question("prod.example.com", Rtype::DS)),
        &Answer { authority: vec![soa.into()], ..negative(0) },
        "without the parent",
    );
}

/// RFC 6672, 3: the DNAME, a CNAME made from it with its TTL, and on from there.
#[test]
fn rfc6672_dname() {
    let dname = "old.example.com. 3600 DNAME new.example.com.";
    check(
        "x.old.example.com",
        Rtype::A,
        &answered(&[dname, "x.old.example.com. 3600 CNAME x.new.example.com.", "x.new.example.com. 3600 A 192.0.2.20"]),
    );
    check("x.old.example.com", Rtype::CNAME, &answered(&[dname, "x.old.example.com. 3600 CNAME x.new.example.com."]));
    check(
        "y.old.example.com",
        Rtype::A,
        &Answer {
            answer: vec![dname.into(), "y.old.example.com. 3600 CNAME y.new.example.com.".into()],
            ..negative(3)
        },
    );
    // All types are what stands there: the CNAME, which is not followed, as where it was written by hand.
    let lines = [dname, "x.old.example.com. 3600 CNAME x.new.example.com."];
    check("x.old.example.com", Rtype::ANY, &answered(&lines));
    check("old.example.com", Rtype::ANY, &answered(&lines[..1]));
    // The owner itself is not renamed (RFC 6672, 2.3).
    check("old.example.com", Rtype::A, &negative(0));
    check("old.example.com", Rtype::DNAME, &answered(&[dname]));
    check(
        "x.far.example.com",
        Rtype::A,
        &answered(&["far.example.com. 3600 DNAME elsewhere.test.", "x.far.example.com. 3600 CNAME x.elsewhere.test."]),
    );
}

/// RFC 6672, 2.2: YXDOMAIN when the new name would be too long.
#[test]
fn rfc6672_too_long() {
    let long = ["a".repeat(60), "b".repeat(60), "c".repeat(60)].join(".");
    let zones = zones(&[(
        "example.com",
        &format!("@ 60 SOA ns h 1 1 1 1 1\n@ 60 NS ns.elsewhere.test.\nd 60 DNAME {long}.far.test.\n"),
    )]);
    let question = question(&format!("{}.{}.d.example.com", "x".repeat(50), "y".repeat(50)), Rtype::A);
    let answer = ask(&zones, &question);
    assert_eq!((answer.rcode, answer.answer.len()), (6, 1), "{answer:?}");
}

#[test]
fn rfc6672_a_dname_at_the_apex_and_one_after_another() {
    let zones = zones(&[
        (
            "example.com",
            "@ 60 SOA ns.elsewhere.test. h 1 1 1 1 1\n@ 60 NS ns.elsewhere.test.\n@ 60 DNAME other.test.\n",
        ),
        (
            "chain.test",
            "@ 60 SOA ns.elsewhere.test. h 1 1 1 1 1\n@ 60 NS ns.elsewhere.test.\none 60 DNAME two\ntwo 60 DNAME three\nx.three 60 A 192.0.2.1\n",
        ),
    ]);
    same(
        &ask(&zones, &question("www.example.com", Rtype::A)),
        &answered(&["example.com. 60 DNAME other.test.", "www.example.com. 60 CNAME www.other.test."]),
        "apex",
    );
    same(
        &ask(&zones, &question("x.one.chain.test", Rtype::A)),
        &answered(&[
            "one.chain.test. 60 DNAME two.chain.test.",
            "x.one.chain.test. 60 CNAME x.two.chain.test.",
            "two.chain.test. 60 DNAME three.chain.test.",
            "x.two.chain.test. 60 CNAME x.three.chain.test.",
            "x.three.chain.test. 60 A 192.0.2.1",
        ]),
        "two in a row",
    );
}

#[test]
fn a_name_of_no_zone_is_refused_with_an_extended_error() {
    let answer = ask(&example(), &question("www.elsewhere.test", Rtype::A));
    assert_eq!((answer.rcode, &answer.flags[..]), (5, &[][..]));
    assert!(answer.authority.is_empty());
    assert_eq!(answer.options, Some(vec![(15, vec![0, 20])]));
}

#[test]
fn a_zone_without_valid_data_is_servfail_with_an_extended_error() {
    let zones = example();
    zones.put_empty(&name("example.com"));
    let answer = ask(&zones, &question("www.example.com", Rtype::A));
    assert_eq!((answer.rcode, answer.options), (2, Some(vec![(15, vec![0, 24])])));
    zones.put(zone("example.com", EXAMPLE));
    assert_eq!(ask(&zones, &question("www.example.com", Rtype::A)).answer.len(), 2);
}

/// RFC 9619 and RFC 1035, 4.1.1.
#[test]
fn malformed_messages_get_formerr_or_silence() {
    let zones = example();
    let good = question("www.example.com", Rtype::A).wire();
    let send = |wire: &[u8]| raw(&zones, &settings(), Transport::Udp, wire).expect("here");
    let mut two = good.clone();
    two[5] = 2;
    let mut none = question("", Rtype::A).payload(0).wire()[..12].to_vec();
    none[5] = 0;
    let mut pointer = good[..12].to_vec();
    pointer.extend([0xc0, 0x0c, 0, 1, 0, 1]);
    pointer[11] = 0;
    let mut long_label = good[..12].to_vec();
    long_label.extend([64]);
    long_label.extend([b'a'; 64]);
    long_label.extend([0, 0, 1, 0, 1]);
    let trailing = [&good[..], b"x"].concat();
    for (what, wire) in [
        ("two questions", &two),
        ("none", &none),
        ("a pointer", &pointer),
        ("a long label", &long_label),
        ("octets behind the end", &trailing),
    ] {
        let answer = send(wire).unwrap_or_else(|| panic!("{what}: silence"));
        assert_eq!((answer[..2].to_vec(), answer[3] & 15, answer.len()), (wire[..2].to_vec(), 1, 12), "{what}");
    }
    for cut in 12..good.len() {
        assert_eq!(send(&good[..cut]).map(|answer| answer[3] & 15), Some(1), "cut at {cut}");
    }
    // Answers, and less than a header, are met with silence: two servers must not talk each other to death.
    let mut answer = good.clone();
    answer[2] |= 0x80;
    assert_eq!(send(&answer), None);
    assert_eq!(send(&good[..11]), None);
    assert_eq!(send(b""), None);
}

#[test]
fn unknown_operations_are_not_implemented() {
    let mut wire = question("www.example.com", Rtype::A).wire();
    for opcode in [1, 2, 3, 6, 15] {
        wire[2] = opcode << 3;
        let answer = raw(&example(), &settings(), Transport::Udp, &wire).expect("here").expect("an answer");
        assert_eq!((answer[2] >> 3 & 15, answer[3] & 15, answer.len()), (opcode, 4, 12));
    }
    // What stands behind the header is that operation's matter (RFC 8490, 5.4: DSO has no sections).
    let dso = [&[0x12, 0x34, 6 << 3, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 1]].concat();
    let answer = raw(&example(), &settings(), Transport::Tcp, &dso).expect("here").expect("an answer");
    assert_eq!((answer[2] >> 3 & 15, answer[3] & 15, answer.len()), (6, 4, 12));
    for opcode in [4, 5] {
        wire[2] = opcode << 3;
        assert!(raw(&example(), &settings(), Transport::Udp, &wire).is_err(), "NOTIFY and UPDATE are served elsewhere");
    }
}

#[test]
fn classes_and_types_of_other_worlds() {
    let zones = example();
    let class = |name: &str, qtype, class| ask(&zones, &support::Question { class, ..question(name, qtype) });
    let chaos = class("version.bind", Rtype::TXT, 3);
    assert_eq!((chaos.rcode, chaos.answer), (0, vec!["version.bind. 0 CH TXT \"gateward\"".into()]));
    assert_eq!(class("id.server", Rtype::TXT, 3).answer, ["id.server. 0 CH TXT \"ns1.test\""]);
    assert_eq!(class("www.example.com", Rtype::A, 3).rcode, 5);
    assert_eq!(
        ask_with(&zones, &Settings::default(), &support::Question { class: 3, ..question("version.bind", Rtype::TXT) })
            .rcode,
        5
    );
    assert_eq!(class("www.example.com", Rtype::A, 4).rcode, 5, "HESIOD");
    let any = class("www.example.com", Rtype::A, 255);
    assert_eq!((any.rcode, any.answer.len(), any.flags.len()), (0, 2, 0), "any class: no AA");
    for (qtype, rcode) in [(249, 4), (253, 4), (254, 4), (41, 1), (252, 1)] {
        assert_eq!(
            ask(&zones, &question("www.example.com", Rtype::from_int(qtype))).rcode,
            rcode,
            "type {qtype} over UDP"
        );
    }
    let transfer = question("example.com", Rtype::AXFR).tcp();
    assert!(raw(&zones, &settings(), Transport::Tcp, &transfer.wire()).is_err(), "transfers are served elsewhere");
}

/// RFC 6891.
#[test]
fn rfc6891_edns() {
    let zones = example();
    let base = question("www.example.com", Rtype::A);
    assert_eq!(ask(&zones, &base.clone().payload(0)).options, None, "no OPT without one asked");
    assert_eq!(ask(&zones, &base).options, Some(Vec::new()));
    let future = ask(&zones, &support::Question { version: 1, ..base.clone() });
    assert_eq!((future.rcode, future.answer.len(), future.options), (16, 0, Some(Vec::new())), "BADVERS");
    let unknown = ask(&zones, &support::Question { options: vec![(65_001, vec![1, 2, 3])], ..base.clone() });
    assert_eq!((unknown.rcode, unknown.options), (0, Some(Vec::new())), "unknown options are ignored, not echoed");
    // Two OPT records, one not at the root, an option that ends too early.
    let mut two = base.wire();
    let opt = two[two.len() - 11..].to_vec();
    two.extend(&opt);
    two[11] = 2;
    let mut elsewhere = base.wire();
    let at = elsewhere.len() - 11;
    elsewhere.splice(at..=at, [1, b'a', 0]);
    let mut short = support::Question { options: vec![(3, vec![])], ..base.clone() }.wire();
    let len = short.len();
    short[len - 1] = 9;
    for wire in [two, elsewhere, short] {
        let answer = raw(&zones, &settings(), Transport::Udp, &wire).expect("here").expect("an answer");
        assert_eq!((answer[3] & 15, answer.len()), (1, 12));
    }
    // DO comes back, as do RD and CD; RA and AD do not.
    let mut flags = support::Question { flags: [1, 0x30], ..base }.wire();
    let len = flags.len();
    flags[len - 4] = 0x80;
    let answer = raw(&zones, &settings(), Transport::Udp, &flags).expect("here").expect("an answer");
    assert_eq!(answer[answer.len() - 4], 0x80, "DO");
    assert_eq!((answer[2], answer[3]), (0x85, 0x10), "AA and RD, CD");
}

#[test]
fn rfc5001_nsid_and_rfc7828_keepalive() {
    let zones = example();
    let base = question("www.example.com", Rtype::A);
    let nsid = support::Question { options: vec![(3, vec![])], ..base.clone() };
    assert_eq!(ask(&zones, &nsid).options, Some(vec![(3, b"ns1.test".to_vec())]));
    assert_eq!(ask_with(&zones, &Settings::default(), &nsid).options, Some(Vec::new()));
    let keepalive = support::Question { options: vec![(11, vec![])], ..base };
    assert_eq!(ask(&zones, &keepalive).options, Some(Vec::new()), "not over UDP");
    assert_eq!(ask(&zones, &keepalive.tcp()).options, Some(vec![(11, vec![1, 44])]));
}

/// RFC 7830 with RFC 8467: padding only where it hides something.
#[test]
fn rfc7830_padding() {
    let zones = example();
    let padded = support::Question { options: vec![(12, vec![0; 8])], ..question("www.example.com", Rtype::A) };
    assert_eq!(ask(&zones, &padded.clone().tcp()).options, Some(Vec::new()));
    let tls = ask(&zones, &support::Question { transport: Transport::Tls, ..padded });
    assert_eq!(tls.len % 468, 0, "{tls:?}");
}

/// RFC 7873, 5.2 and 5.4.
#[test]
fn rfc7873_cookies() {
    let zones = example();
    let with =
        |cookie: Vec<u8>| support::Question { options: vec![(10, cookie)], ..question("www.example.com", Rtype::A) };
    let cookie_of = |answer: &Answer| {
        answer.options.clone().expect("OPT").into_iter().find(|(code, _)| *code == 10).expect("a cookie").1
    };
    let first = ask(&zones, &with(vec![1, 2, 3, 4, 5, 6, 7, 8]));
    let cookie = cookie_of(&first);
    assert_eq!(
        (first.rcode, first.answer.len(), &cookie[..8], cookie.len()),
        (0, 2, &[1, 2, 3, 4, 5, 6, 7, 8][..], 24)
    );
    let strict = Settings { require_cookies: true, ..settings() };
    let refused = ask_with(&zones, &strict, &with(vec![9; 8]));
    assert_eq!((refused.rcode, refused.answer.len(), cookie_of(&refused).len()), (23, 0, 24), "BADCOOKIE");
    assert_eq!(ask_with(&zones, &strict, &with(cookie)).rcode, 0);
    assert_eq!(ask_with(&zones, &strict, &with(vec![9; 8]).tcp()).rcode, 0, "over TCP nobody is asked");
    let malformed =
        raw(&zones, &settings(), Transport::Udp, &with(vec![1; 7]).wire()).expect("here").expect("an answer");
    assert_eq!((malformed[3] & 15, malformed.len()), (1, 12));
    // Only the cookie is asked for: no question.
    let whole = with(vec![1; 8]).wire();
    let mut bare = whole[..12].to_vec();
    bare[5] = 0;
    bare.extend(&whole[whole.len() - 11 - 12..]);
    let answer = read(&raw(&zones, &settings(), Transport::Udp, &bare).expect("here").expect("an answer"));
    assert_eq!((answer.rcode, cookie_of(&answer).len()), (0, 24));
}

/// The question comes back as it was spelt, and in the owner of answers; the data keeps its own spelling.
#[test]
fn draft_0x20_case_is_preserved() {
    let zones = example();
    let asked = question("wWw.ExAmPlE.cOm", Rtype::A);
    let answer = ask(&zones, &asked);
    assert_eq!(answer.question[..17], asked.wire()[12..29]);
    assert_eq!(answer.answer, ["wWw.ExAmPlE.cOm. 3600 A 192.0.2.3", "wWw.ExAmPlE.cOm. 3600 A 192.0.2.4"]);
    let mx = ask(&zones, &question("EXAMPLE.com", Rtype::MX));
    assert_eq!(mx.answer, ["EXAMPLE.com. 3600 MX 10 mail.example.com."]);
    let alias = ask(&zones, &question("ALIAS.example.COM", Rtype::A));
    assert_eq!(
        alias.answer[..2],
        ["ALIAS.example.COM. 3600 CNAME www.example.com.", "www.example.com. 3600 A 192.0.2.3"]
    );
    let nothing = ask(&zones, &question("NoWhere.Example.com", Rtype::A));
    assert_eq!(nothing.authority, [SOA.replacen("example.com.", "Example.com.", 1)]);
    for spelling in ["a.upper.example.com", "A.UPPER.example.com"] {
        let referral = ask(&zones, &question(spelling, Rtype::A));
        let data: Vec<&str> = referral.authority.iter().filter_map(|line| line.split("NS ").nth(1)).collect();
        assert_eq!(data, ["Ns.UPPER.example.com.", "Target.Example.COM."], "{spelling}");
        assert!(referral.additional[0].eq_ignore_ascii_case("ns.upper.example.com. 3600 A 192.0.2.40"), "{referral:?}");
    }
}

/// RFC 8482, 4.1 over UDP; everything over TCP.
#[test]
fn rfc8482_any() {
    let zones = example();
    assert_eq!(ask(&zones, &question("www.example.com", Rtype::ANY)).answer.len(), 2, "one set");
    let all = ask(&zones, &question("www.example.com", Rtype::ANY).tcp());
    assert_eq!(all.answer.len(), 3, "{all:?}");
    same(&ask(&zones, &question("c.example.com", Rtype::ANY)), &negative(0), "an empty non-terminal");
    let wild = ask(&zones, &question("w.wild.example.com", Rtype::ANY).tcp());
    assert_eq!(
        wild.answer,
        ["w.wild.example.com. 3600 A 192.0.2.6", "w.wild.example.com. 3600 MX 10 mail.example.com."]
    );
}

/// RFC 3597: data of unknown types is opaque, even where it looks like a pointer.
#[test]
fn rfc3597_unknown_types() {
    let answer = raw(
        &example(),
        &settings(),
        Transport::Udp,
        &question("strange.example.com", Rtype::from_int(65_400)).payload(0).wire(),
    );
    let answer = answer.expect("here").expect("an answer");
    assert_eq!(answer[answer.len() - 6..], [0, 4, 0xc0, 0x0c, 0xde, 0xad]);
}

fn large() -> Zones {
    let mut text = "@ 60 SOA ns h 1 1 1 1 1\n@ 60 NS ns.elsewhere.test.\n".to_owned();
    for index in 0..100 {
        text.push_str(&format!(
            "big 60 A 192.0.2.{index}\nmx 60 MX 10 host-{index:03}\nhost-{index:03} 60 A 192.0.2.{index}\n"
        ));
        text.push_str(&format!("cut 60 NS a-rather-long-server-name-{index}.cut\na-rather-long-server-name-{index}.cut 60 A 192.0.2.{index}\n"));
    }
    for index in 0..20 {
        text.push_str(&format!("small-cut 60 NS ns{index}.small-cut\nns{index}.small-cut 60 A 192.0.2.{index}\nns{index}.small-cut 60 AAAA 2001:db8::{index}\n"));
    }
    for index in 0..6 {
        text.push_str(&format!("some 60 MX 10 host-{index:03}\n"));
    }
    zones(&[("example.com", &text)])
}

/// RFC 2181, 9; RFC 9471, 3.1; DNS flag day 2020: 1232 octets over UDP, whole sets only.
#[test]
fn truncation() {
    let zones = large();
    for (payload, limit) in [(0, 512), (100, 512), (512, 512), (1000, 1000), (1232, 1232), (4096, 1232)] {
        let answer = ask(&zones, &question("big.example.com", Rtype::A).payload(payload));
        assert!(answer.len <= limit, "{payload}: {}", answer.len);
        assert_eq!(
            (answer.answer.len(), answer.flags.contains(&"tc"), answer.options.is_some()),
            (0, true, payload > 0),
            "{payload}"
        );
    }
    let whole = ask(&zones, &question("big.example.com", Rtype::A).tcp());
    assert_eq!((whole.answer.len(), &whole.flags[..]), (100, &["aa"][..]));
    // Addresses that are only helpful are left out without a word.
    let mx = ask(&zones, &question("some.example.com", Rtype::MX).payload(0));
    assert_eq!((mx.answer.len(), &mx.flags[..]), (6, &["aa"][..]));
    let mx = ask(&zones, &question("mx.example.com", Rtype::MX).tcp());
    assert_eq!((mx.answer.len(), mx.additional.len()), (100, 100));
    // Addresses of servers within the delegated zone are owed.
    let referral = ask(&zones, &question("x.small-cut.example.com", Rtype::A).payload(0));
    assert!(referral.flags.contains(&"tc") && referral.len <= 512, "{referral:?}");
    let referral = ask(&zones, &question("x.small-cut.example.com", Rtype::A).tcp());
    assert_eq!((referral.authority.len(), referral.additional.len(), referral.flags.len()), (20, 40, 0));
    let referral = ask(&zones, &question("x.cut.example.com", Rtype::A).tcp());
    assert_eq!((referral.authority.len(), referral.additional.len(), referral.flags.len()), (100, 100, 0));
}

/// What stands at or below a cut is another server's to tell, except as glue of name servers; what stands below a DNAME is nobody's.
#[test]
fn hidden_names_are_not_told_in_the_additional_section() {
    let text = "@ 60 SOA ns h 1 1 1 1 1\n@ 60 NS ns.cut\n@ 60 NS ns.dname\n\
        @ 60 MX 1 ns.cut\n@ 60 MX 2 cut\n@ 60 MX 3 ns.dname\n@ 60 MX 4 dname\n@ 60 MX 5 seen\n\
        cut 60 NS ns.cut\ncut 60 NS ns.sibling\ncut 60 NS ns.dname\ncut 60 A 192.0.2.1\nns.cut 60 A 192.0.2.2\n\
        sibling 60 NS ns.sibling\nns.sibling 60 A 192.0.2.3\n\
        dname 60 DNAME elsewhere.test.\ndname 60 A 192.0.2.4\nns.dname 60 A 192.0.2.5\nseen 60 A 192.0.2.6\n";
    let zones = zones(&[("example.com", text)]);
    let additional = |name: &str, qtype| {
        let mut lines = ask(&zones, &question(name, qtype).tcp()).additional;
        lines.sort();
        lines
    };
    assert_eq!(
        additional("example.com", Rtype::MX),
        ["dname.example.com. 60 A 192.0.2.4", "seen.example.com. 60 A 192.0.2.6"]
    );
    assert_eq!(additional("example.com", Rtype::NS), ["ns.cut.example.com. 60 A 192.0.2.2"]);
    assert_eq!(
        additional("x.cut.example.com", Rtype::A),
        ["ns.cut.example.com. 60 A 192.0.2.2", "ns.sibling.example.com. 60 A 192.0.2.3"]
    );
}

/// What a flood of random names brings must have one subject, or each of its answers has credits of its own.
#[test]
fn names_that_are_made_up_have_the_zone_as_their_subject() {
    let zones = example();
    let subject = |name: &str, qtype| {
        let wire = question(name, qtype).wire();
        let (Verdict::Reply(reply), _) = verdict(&zones, &settings(), Transport::Udp, 0, &wire) else {
            panic!("{name}: no answer")
        };
        reply.subject
    };
    let zone = subject("nowhere.example.com", Rtype::A);
    for (made_up, qtype) in [
        ("x1.wild.example.com", Rtype::A),
        ("x2.wild.example.com", Rtype::A),
        ("x3.wild.example.com", Rtype::TXT),
        ("x4.wild.example.com", Rtype::ANY),
        ("x5.cname.example.com", Rtype::A),
        ("x6.old.example.com", Rtype::A),
        ("x7.far.example.com", Rtype::A),
        ("x8.prod.example.com", Rtype::A),
    ] {
        assert_eq!(subject(made_up, qtype), zone, "{made_up}");
    }
    assert_ne!(subject("www.example.com", Rtype::A), zone);
    assert_ne!(subject("www.example.com", Rtype::A), subject("mail.example.com", Rtype::A));
}

/// RFC 8945, 5.3: a signature fits behind an answer, or the answer is cut.
#[test]
fn rfc8945_room_for_a_signature() {
    let zones = large();
    let settings = Settings { identity: vec![b'i'; 255], ..settings() };
    let names = ["big.example.com", "some.example.com", "x.small-cut.example.com", "nowhere.example.com", "x.test"];
    for (name, payload) in names.iter().flat_map(|name| [0, 512, 1000, 1232].map(|payload| (name, payload))) {
        let plain = question(name, Rtype::MX).payload(payload);
        for asked in [plain.clone(), support::Question { options: vec![(3, vec![]), (10, vec![1; 8])], ..plain }] {
            for room in [0, 61, 100, 371] {
                let (verdict, out) = verdict(&zones, &settings, Transport::Udp, room, &asked.wire());
                let Verdict::Reply(reply) = verdict else { panic!("{name}: no answer") };
                assert!(reply.len + room <= usize::from(payload.max(512)), "{name}, {payload}: {} + {room}", reply.len);
                read(&out);
            }
        }
    }
    let wire = question("some.example.com", Rtype::MX).payload(0).wire();
    let (Verdict::Reply(reply), _) = verdict(&zones, &settings, Transport::Udp, 0, &wire) else { panic!("no answer") };
    let (Verdict::Reply(reply), _) = verdict(&zones, &settings, Transport::Udp, 513 - reply.len, &wire) else {
        panic!("no answer")
    };
    assert!(!reply.truncated, "addresses that are only helpful make room");
}

#[test]
fn the_longest_origin_serves_and_the_root_serves_what_is_left() {
    let root = "@ 60 SOA a.root. h.root. 1 1 1 1 1\n@ 60 NS a.root.\na.root. 60 A 192.0.2.1\ncom 60 NS a.gtld.com.\na.gtld.com. 60 A 192.0.2.2\n";
    let zones = zones(&[(".", root), ("example.com", EXAMPLE), ("prod.example.com", PROD)]);
    assert_eq!(
        ask(&zones, &question("host.prod.example.com", Rtype::A)).answer,
        ["host.prod.example.com. 60 A 192.0.2.50"]
    );
    assert_eq!(ask(&zones, &question("a.root", Rtype::A)).answer, ["a.root. 60 A 192.0.2.1"]);
    assert_eq!(ask(&zones, &question("other.com", Rtype::A)).additional, ["a.gtld.com. 60 A 192.0.2.2"]);
    assert_eq!(ask(&zones, &question("", Rtype::SOA)).answer.len(), 1);
    assert_eq!(ask(&zones, &question("nothing", Rtype::A)).rcode, 3);
    zones.remove(&name("prod.example.com"));
    same(
        &ask(&zones, &question("host.prod.example.com", Rtype::A)),
        &to_prod(),
        "the parent's referral once the child is gone",
    );
}
