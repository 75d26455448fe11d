//! What zone files may hold, by the line of the RFC that says so.

use proptest::prelude::*;

use super::*;
use crate::presentation::{parse_record, render_zone, to_text};
use crate::view::ZoneView;

const SOA: &str = "@ 3600 IN SOA ns1 hostmaster 1 7200 900 1209600 300\n";

fn origin() -> Name {
    "example.com".parse().expect("a name")
}

fn no_files(name: &str) -> Result<Vec<u8>, String> {
    Err(format!("no file {name}"))
}

/// The records of a zone as lines, without the SOA.
fn lines(text: &str, include: &dyn Fn(&str) -> Result<Vec<u8>, String>) -> Vec<String> {
    let text = format!("{SOA}{text}");
    let zone = parse_zone(text.as_bytes(), &origin(), "example.com.zone", include).expect(&text);
    let records = zone.records().iter().filter(|record| record.rtype != Rtype::SOA);
    records.map(|record| to_text(record, &origin())).collect()
}

fn check(text: &str, expected: &[&str]) {
    assert_eq!(lines(text, &no_files), expected, "{text}");
}

/// Each problem as `line: message`.
fn check_refused(text: &str, expected: &[&str]) {
    let problems =
        parse_zone(text.as_bytes(), &origin(), "z", &no_files).map(|zone| zone.records().to_vec()).expect_err(text);
    let found: Vec<String> = problems.iter().map(|problem| format!("{}: {}", problem.line, problem.message)).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn rfc_1035_5_1_owner_ttl_and_class_may_be_left_out_and_change_places() {
    check(
        "a 60 IN A 192.0.2.1\n  IN 61 AAAA 2001:db8::1\n\t TXT x\nb A 192.0.2.2\n",
        &["a 60 IN A 192.0.2.1", "a 61 IN TXT \"x\"", "a 61 IN AAAA 2001:db8::1", "b 61 IN A 192.0.2.2"],
    );
}

#[test]
fn rfc_1035_5_1_parentheses_comments_quotes_and_escapes() {
    check(
        "a ( ; a comment (\n 60 IN\n TXT \"a;b\" ; another \"\n \"c d\" e\\;f \\101\\\"g )\nb\\.c 60 TXT \"\"\n",
        &[r#"a 60 IN TXT "a;b" "c d" "e;f" "e\"g""#, r#"b\.c 60 IN TXT """#],
    );
}

#[test]
fn rfc_1035_5_1_origin_at_and_absolute_names() {
    check(
        "@ 60 NS ns.other.\n$ORIGIN sub\na 60 CNAME b\n@ 60 MX 10 @\n$ORIGIN example.com.\nc 60 CNAME a.sub\n",
        &[
            "@ 60 IN NS ns.other.",
            "c 60 IN CNAME a.sub.example.com.",
            "sub 60 IN MX 10 sub.example.com.",
            "a.sub 60 IN CNAME b.sub.example.com.",
        ],
    );
}

#[test]
fn rfc_1035_5_1_an_include_has_an_origin_of_its_own_and_leaves_the_outer_one() {
    let files = |name: &str| match name {
        "inner file.zone" => Ok(b"a 60 A 192.0.2.1\n$ORIGIN deeper\nb 60 A 192.0.2.2\n".to_vec()),
        "plain" => Ok(b"\tTXT inherited\n".to_vec()),
        name => Err(format!("no file {name}")),
    };
    let text =
        "x 60 A 192.0.2.9\n$INCLUDE \"inner file.zone\" sub\n  60 A 192.0.2.8\n$include plain\ny 60 A 192.0.2.7\n";
    assert_eq!(
        lines(text, &files),
        [
            "a.sub 60 IN A 192.0.2.1",
            "b.deeper.sub 60 IN A 192.0.2.2",
            "x 60 IN A 192.0.2.9",
            "x 60 IN A 192.0.2.8",
            "x 60 IN TXT \"inherited\"",
            "y 60 IN A 192.0.2.7",
        ]
    );
}

#[test]
fn includes_that_fail_or_go_in_circles_are_errors_with_their_place() {
    let circle = |_: &str| Ok(b"\n$INCLUDE again\n".to_vec());
    let problems = parse_zone(b"$INCLUDE again\n", &origin(), "z", &circle).expect_err("a circle");
    assert_eq!(problems.len(), 1);
    assert_eq!((&*problems[0].file, problems[0].line), ("again", 2));
    assert!(problems[0].message.contains("more than 8 files"), "{problems:?}");
    check_refused(
        "$INCLUDE\n$INCLUDE nothing\n",
        &["1: the name of a file is missing", "2: cannot include `nothing`: no file nothing"],
    );
    let small = ZoneLimits { text_bytes: 40, ..ZoneLimits::default() };
    let problems =
        parse_zone_within(b"$INCLUDE a\n", &origin(), "z", &|_| Ok(vec![b'\n'; 40]), small).expect_err("too much");
    assert!(problems[0].message.contains("larger than 40 octets"), "{problems:?}");
    // What `$GENERATE` makes counts as well, however short what asks for it is.
    let line = |records: u32| format!("$GENERATE 1-{records} ${{0,60}} 60 A 192.0.2.1\n");
    let small = ZoneLimits { text_bytes: 1_000, ..ZoneLimits::default() };
    let read = |text: &str| parse_zone_within(text.as_bytes(), &origin(), "z", &|_| Ok(Vec::new()), small);
    read(&line(10)).expect("ten lines of less than 80 octets");
    let problems = read(&line(20)).expect_err("too much");
    assert!(problems[0].message.contains("larger than 1000 octets"), "{problems:?}");
    let wide = format!("$GENERATE 1-2 a 60 TXT {}\n", "${0,255}".repeat(100));
    assert!(read(&wide).expect_err("too much")[0].message.contains("larger than 1000 octets"));
}

#[test]
fn rfc_2308_4_the_default_ttl_is_that_of_the_directive() {
    check(
        "$TTL 1h30m\na A 192.0.2.1\nb 2d A 192.0.2.1\nc A 192.0.2.1\n$TTL 60\nd A 192.0.2.1\n",
        &["a 5400 IN A 192.0.2.1", "b 172800 IN A 192.0.2.1", "c 5400 IN A 192.0.2.1", "d 60 IN A 192.0.2.1"],
    );
    check_refused("a A 192.0.2.1\n", &["1: the record has no TTL"]);
    // A SOA record without one takes its minimum, and the others after it do as well.
    let zone = parse_zone(b"@ SOA a b 1 2 3 4 77\na A 192.0.2.1\n", &origin(), "z", &no_files).expect("a zone");
    assert!(zone.records().iter().all(|record| record.ttl == 77));
}

#[test]
fn rfc_3597_5_unknown_types_and_generic_data() {
    check(
        "a 60 CLASS1 TYPE731 \\# 6 abcd ( ef 01 23 45 )\nb 60 IN TYPE1 \\# 4 c0000201\nc 60 A \\# 4 C0000202\nd 60 TYPE62347 \\# 0\n",
        &[
            "a 60 IN TYPE731 \\# 6 ABCDEF012345",
            "b 60 IN A 192.0.2.1",
            "c 60 IN A 192.0.2.2",
            "d 60 IN TYPE62347 \\# 0",
        ],
    );
    check_refused(
        "a 60 TYPE731 x\nb 60 A \\# 3 010203\nc 60 TYPE731 \\# 2 ab\nd 60 TYPE731 \\# 2 abc\ne 60 NOTYPE x\nf 60 CH A 192.0.2.1\n",
        &[
            "1: the data of type TYPE731 is not known here",
            "2: the octets after `\\#` are not the data of a record of type A: wrong from octet 0",
            "3: 2 octets are announced, 1 follow",
            "4: `abc` is not hexadecimal digits",
            "5: `NOTYPE` is not a record type",
            "6: class CH is not served, only IN",
        ],
    );
}

#[test]
fn generate_makes_a_record_for_each_number() {
    check(
        "$GENERATE 1-3 host-$ 60 A 192.0.2.$\n",
        &["host-1 60 IN A 192.0.2.1", "host-2 60 IN A 192.0.2.2", "host-3 60 IN A 192.0.2.3"],
    );
    check(
        "$TTL 60\n$GENERATE 0-4/2 ${0,2,x}.r IN CNAME h${10}\n",
        &[
            "00.r 60 IN CNAME h10.example.com.",
            "02.r 60 IN CNAME h12.example.com.",
            "04.r 60 IN CNAME h14.example.com.",
        ],
    );
    check("$GENERATE 1-1 $ 60 MX \"10 mail-$\"\n", &["1 60 IN MX 10 mail-1.example.com."]);
    check("$GENERATE 1-1 a 60 TXT \"no $ \\$ $$\"\n", &["a 60 IN TXT \"no\" \"1\" \"$\" \"$\""]);
    check("$GENERATE 1-1 a 60 TXT \"\\\"no $, \\$ $$\\\"\"\n", &["a 60 IN TXT \"no 1, $ $\""]);
    check("$GENERATE 1-1 a 60 TXT no \"$ b\"\n", &["a 60 IN TXT \"no\" \"1 b\""]);
    check_refused(
        "$GENERATE 3-1 a 60 A 192.0.2.1\n$GENERATE 1-2/0 a 60 A 192.0.2.1\n$GENERATE 1-999 h$ 60 A 192.0.2.${250}\n\
         $GENERATE 1-2000000 a$ 60 A 192.0.2.1\n$GENERATE 1-2 ${x} 60 A 192.0.2.1\n$GENERATE 1-2 a 60 A\n",
        &[
            "1: `3-1` is not a range",
            "2: `1-2/0` is not a range",
            "3: `192.0.2.256` is not an IPv4 address",
            "4: `$GENERATE` lines make more than 1048576 records",
            "5: `${x}` holds a `${` without offset, width, base and `}`",
            "6: a right-hand side is missing",
        ],
    );
}

#[test]
fn every_error_is_told_with_its_line() {
    check_refused(
        "@ 60 SOA a b 1 2 3 4\na 60 A 192.0.2.256\nb 60 AAAA 192.0.2.1\nc 60 MX mail 10\nd..e 60 A 192.0.2.1\nf 60 TXT \"open\n\
         g 60 TXT (\n \"x\n )\nh 60 A 192.0.2.1 extra\ni.other. 60 A 192.0.2.1\n$NOPE\nj 60 60 A 192.0.2.1\n) k\nl 60 (\n A 192.0.2.1\n",
        &[
            "1: a time is missing",
            "2: `192.0.2.256` is not an IPv4 address",
            "3: `192.0.2.1` is not an IPv6 address",
            "4: `mail` is not a number from 0 to 65535",
            "5: `d..e` is not a domain name: a label is empty",
            "6: a quoted string does not end on its line",
            "8: a quoted string does not end on its line",
            "10: `extra` is more than the record can hold",
            "11: i.other. is not in the zone example.com.",
            "12: `$NOPE` is not known",
            "13: there are two TTLs",
            "14: `)` without `(` before it",
            "15: `(` is never closed; everything up to the end of the file was taken as one entry",
        ],
    );
    check_refused(" 60 A 192.0.2.1\n", &["1: the line begins with white space, but no record before it has a name"]);
    let endless = "x\n".repeat(5_000);
    let problems = parse_zone(endless.as_bytes(), &origin(), "z", &no_files).expect_err("all lines are wrong");
    assert_eq!(problems.len(), 1_001);
}

#[test]
fn rfc_2181_5_sets_have_no_record_twice_and_one_ttl() {
    let text = format!("{SOA}a 60 A 192.0.2.1\na 30 A 192.0.2.2\na 60 A 192.0.2.1\nb 60 CNAME C\nb 60 CNAME c\n");
    let zone = parse_zone(text.as_bytes(), &origin(), "z", &no_files).expect("warnings only");
    let found: Vec<_> = zone.warnings().iter().map(|warning| (warning.line, warning.rule)).collect();
    assert_eq!(found, [(4, "duplicate-record"), (6, "duplicate-record"), (2, "ttl-differs")]);
    assert_eq!(zone.record_count(), 4);
    let set = zone.set(&"a.example.com".parse().expect("a name"), Rtype::A).expect("there is one");
    assert_eq!((set.ttl, set.data.len()), (30, 2));
    assert_eq!(zone.place(&"b.example.com".parse().expect("a name"), Rtype::CNAME), ("z".into(), 5));
    assert_eq!(zone.serial(), 1);
}

#[test]
fn line_ends_of_other_systems_and_byte_order_marks_do_no_harm() {
    check("a 60 A 192.0.2.1\r\nb 60 TXT x\r\n", &["a 60 IN A 192.0.2.1", "b 60 IN TXT \"x\""]);
    assert!(parse_zone(b"\xef\xbb\xbfa 60 A 192.0.2.1", &origin(), "z", &no_files).is_ok());
    assert!(parse_zone(b"", &origin(), "z", &no_files).is_ok());
}

#[test]
fn one_record_is_read_by_itself() {
    let record = parse_record("www A 192.0.2.1 ; web", &origin(), Some(300)).expect("a record");
    assert_eq!(to_text(&record, &origin()), "www 300 IN A 192.0.2.1");
    assert_eq!(to_text(&record, &Name::root()), "www.example.com. 300 IN A 192.0.2.1");
    for wrong in [
        "",
        "www A 192.0.2.1",
        "www 60 A 192.0.2.1\nb 60 A 192.0.2.1",
        " 60 A 192.0.2.1",
        "www 60 A",
        "www 60 A (192.0.2.1",
    ] {
        assert!(parse_record(wrong, &origin(), None).is_err(), "{wrong}");
    }
}

/// A zone with everything that the tables of types know.
pub(crate) fn rich_zone() -> String {
    format!("{SOA}{}", include_str!("../../tests/data/types.zone"))
}

#[test]
fn a_rendered_zone_reads_back_as_the_same_zone() {
    let zone = parse_zone(rich_zone().as_bytes(), &origin(), "z", &no_files).expect("a good zone");
    let text = render_zone(&zone);
    let again = parse_zone(text.as_bytes(), &Name::root(), "z", &no_files).expect(&text);
    assert_eq!(again.records(), zone.records(), "{text}");
    for record in zone.records() {
        let line = to_text(record, &origin());
        assert_eq!(parse_record(&line, &origin(), None).as_ref(), Ok(record), "{line}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_octets_are_a_zone_or_errors(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        _ = parse_zone(&text, &origin(), "z", &no_files);
    }

    #[test]
    fn changed_zone_files_are_zones_or_errors(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..41, any::<u8>()), 1..12),
    ) {
        let mut text = rich_zone().into_bytes();
        for (at, kind, octet) in edits {
            let at = at.index(text.len());
            match if kind == 40 { 5 } else { kind % 5 } {
                0 => text[at] = octet,
                1 => _ = text.remove(at),
                2 => text.insert(at, octet),
                3 => text[at] = b" \n\"\\();$@"[usize::from(octet) % 9],
                4 => text.insert(at, b" \n\"\\();$@"[usize::from(octet) % 9]),
                _ => text.truncate(at.max(50)),
            }
        }
        if let Ok(zone) = parse_zone(&text, &origin(), "z", &no_files) {
            let rendered = render_zone(&zone);
            let again = parse_zone(rendered.as_bytes(), &Name::root(), "z", &no_files);
            let again = again.map_err(|problems| TestCaseError::fail(format!("{problems:?}\n{rendered}")))?;
            prop_assert_eq!(again.records(), zone.records());
        }
    }

    #[test]
    fn any_data_is_written_and_read_back(number in any::<u16>(), data in proptest::collection::vec(any::<u8>(), 0..80)) {
        for rtype in [Rtype::from_int(number), Rtype::from_int(number % 70), Rtype::from_int(256 + number % 6)] {
            let record = Record { owner: origin(), rtype, ttl: 1, rdata: crate::record::Rdata::from_wire(data.clone()) };
            if crate::rdata::check(rtype, &data).is_ok() {
                let line = to_text(&record, &origin());
                prop_assert_eq!(parse_record(&line, &origin(), None), Ok(record), "{}", line);
            }
        }
    }
}
