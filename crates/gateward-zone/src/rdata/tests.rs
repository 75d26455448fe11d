//! The table of types against another implementation and the vectors of RFCs.

use domain::zonefile::inplace::{Entry, Zonefile};

use super::*;
use crate::name::Name;
use crate::presentation::{parse_rdata, rdata_to_text};
use crate::record::Rdata;

fn origin() -> Name {
    "example.com".parse().expect("a name")
}

fn check_text(rtype: Rtype, text: &str, wire: &[u8]) {
    let data = parse_rdata(rtype, text, &origin()).expect(text);
    assert_eq!(data.as_wire().escape_ascii().to_string(), wire.escape_ascii().to_string(), "{text}");
    let written = rdata_to_text(rtype, &data);
    assert_eq!(parse_rdata(rtype, &written, &Name::root()), Ok(data), "{text} is written as {written}");
}

fn check_refused(rtype: Rtype, text: &str) {
    assert!(parse_rdata(rtype, text, &origin()).is_err(), "{rtype} {text}");
}

/// Every type that both know, read by both.
#[test]
fn the_domain_crate_reads_the_same() {
    let mut compared = std::collections::BTreeSet::new();
    for line in include_str!("../../tests/data/types.zone").replace("(\n", "( ").lines() {
        let mut file = Zonefile::from(
            format!("$ORIGIN example.com.\n$TTL 1\n{}\n", line.split(';').next().unwrap_or("")).as_bytes(),
        );
        file.set_default_class(domain::base::iana::Class::IN);
        let Ok(Some(Entry::Record(record))) = file.next_entry() else { continue };
        let mut wire = Vec::new();
        domain::base::rdata::ComposeRecordData::compose_rdata(record.data(), &mut wire)
            .expect("a vector takes everything");
        let text = line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
        let rtype = record.rtype();
        let ours = parse_rdata(rtype, &text, &origin()).expect(line);
        assert_eq!(ours.as_wire().escape_ascii().to_string(), wire.escape_ascii().to_string(), "{line}");
        assert_eq!(check(rtype, &wire), Ok(()), "{line}");
        compared.insert(rtype.to_string());
    }
    assert!(compared.len() >= 25, "only {compared:?}");
}

/// RFC 9460, D.1 and D.2.
#[test]
fn rfc_9460_d_service_bindings() {
    for (text, wire) in [
        ("0 foo.example.com.", &b"\0\0\x03foo\x07example\x03com\0"[..]),
        ("1 .", b"\0\x01\0"),
        ("16 foo.example.com. port=53", b"\0\x10\x03foo\x07example\x03com\0\0\x03\0\x02\0\x35"),
        ("1 foo.example.com. key667=hello", b"\0\x01\x03foo\x07example\x03com\0\x02\x9b\0\x05hello"),
        (r#"1 foo.example.com. key667="hello\210qoo""#, b"\0\x01\x03foo\x07example\x03com\0\x02\x9b\0\x09hello\xd2qoo"),
        (
            r#"1 foo.example.com. ipv6hint="2001:db8::1,2001:db8::53:1""#,
            b"\0\x01\x03foo\x07example\x03com\0\0\x06\0\x20\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\x53\0\x01",
        ),
        (
            "16 foo.example.org. alpn=h2,h3-19 mandatory=ipv4hint,alpn ipv4hint=192.0.2.1",
            b"\0\x10\x03foo\x07example\x03org\0\0\0\0\x04\0\x01\0\x04\0\x01\0\x09\x02h2\x05h3-19\0\x04\0\x04\xc0\0\x02\x01",
        ),
        (
            r#"16 foo.example.org. alpn="f\\\\oo\\,bar,h2""#,
            b"\0\x10\x03foo\x07example\x03org\0\0\x01\0\x0c\x08f\\oo,bar\x02h2",
        ),
        (r"16 foo.example.org. alpn=f\\\092oo\092,bar,h2", b"\0\x10\x03foo\x07example\x03org\0\0\x01\0\x0c\x08f\\oo,bar\x02h2"),
    ] {
        check_text(Rtype::SVCB, text, wire);
    }
}

/// RFC 9460, D.3.
#[test]
fn rfc_9460_d_3_wrong_service_bindings() {
    for text in [
        "1 foo.example.com. key123=abc key123=def",
        "1 foo.example.com. mandatory",
        "1 foo.example.com. alpn",
        "1 foo.example.com. port",
        "1 foo.example.com. ipv4hint",
        "1 foo.example.com. ipv6hint",
        "1 foo.example.com. no-default-alpn=abc",
        "1 foo.example.com. mandatory=key123",
        "1 foo.example.com. mandatory=mandatory",
        "1 foo.example.com. mandatory=key123,key123 key123=abc",
        "1 foo.example.com. nokey=1",
        "1 foo.example.com. key01=1",
        "1 foo.example.com. alpn=,h2",
    ] {
        check_refused(Rtype::SVCB, text);
    }
}

/// RFC 1876, appendix A; the octets follow from section 2.
#[test]
fn rfc_1876_places() {
    check_text(
        Rtype::LOC,
        "42 21 54 N 71 06 18 W -24m 30m",
        b"\0\x33\x16\x13\x89\x17\x2d\xd0\x70\xbe\x15\xf0\0\x98\x8d\x20",
    );
    check_text(Rtype::LOC, "0 N 0 E 0", b"\0\x12\x16\x13\x80\0\0\0\x80\0\0\0\0\x98\x96\x80");
    for text in
        ["91 N 0 E 0", "0 N 181 E 0", "0 60 N 0 E 0", "0 N 0 N 0", "0 N 0 E", "0 N 0 E -100001m", "0 N 0 E 0 0 0 0 0"]
    {
        check_refused(Rtype::LOC, text);
    }
}

#[test]
fn data_without_the_form_of_its_type_is_refused() {
    for (rtype, text) in [
        (Rtype::CAA, "0 is-sue x"),
        (Rtype::CAA, "256 issue x"),
        (Rtype::DS, "1 8 2 xyz"),
        (Rtype::DS, "1 8 2"),
        (Rtype::DNSKEY, "256 3 8 ?"),
        (Rtype::NSEC3, "1 0 0 - -"),
        (Rtype::EUI48, "00-00-5e-00-53"),
        (Rtype::NID, "10 0014:4fff:ff20"),
        (Rtype::NSAP, "47"),
        (Rtype::APL, "1:192.0.2.0/33"),
        (Rtype::APL, "3:192.0.2.0/3"),
        (Rtype::IPSECKEY, "10 4 2 x AQAB"),
        (Rtype::IPSECKEY, "10 1 2 2001:db8::1 AQAB"),
        (Rtype::AMTRELAY, "10 2 0 ."),
        (Rtype::HIP, "2 zz AQAB"),
        (Rtype::SRV, "0 0 65536 a"),
        (Rtype::TXT, ""),
        (Rtype::A, "1.2.3"),
        (Rtype::A, "01.2.3.4"),
        (Rtype::ANY, "x"),
        (Rtype::NSEC, "a NOTYPE"),
    ] {
        check_refused(rtype, text);
    }
    let long = "a".repeat(256);
    let problem = parse_rdata(Rtype::TXT, &long, &origin()).expect_err("too long");
    assert!(problem.message.contains("256 octets") && problem.remedy.is_some(), "{problem}");
}

#[test]
fn names_are_found_in_the_data() {
    for (rtype, text, found) in [
        (Rtype::NS, "a.b.", &[(0, 5)][..]),
        (Rtype::MX, "10 a.b.", &[(2, 7)][..]),
        (Rtype::SOA, "a. b. 1 2 3 4 5", &[(0, 3), (3, 6)]),
        (Rtype::SRV, "1 2 3 a.", &[(6, 9)][..]),
        (Rtype::HTTPS, "1 a. port=1", &[(2, 5)][..]),
        (Rtype::NAPTR, "1 2 \"\" \"\" \"\" a.", &[(7, 10)][..]),
        (Rtype::IPSECKEY, "10 3 0 a.", &[(3, 6)][..]),
        (Rtype::IPSECKEY, "10 1 0 192.0.2.1", &[]),
        (Rtype::AMTRELAY, "10 1 3 a.", &[(2, 5)][..]),
        (Rtype::TXT, "a.", &[]),
    ] {
        let data = parse_rdata(rtype, text, &origin()).expect(text);
        let ends: Vec<_> = names(rtype, data.as_wire()).into_iter().map(|name| (name.start, name.end)).collect();
        assert_eq!(ends, found, "{rtype} {text}");
    }
    assert_eq!(names(Rtype::MX, b"\0\x0a\x01a"), Vec::<Range<usize>>::new());
}

/// RFC 3597, 4: nothing newer than RFC 1035 may be compressed.
#[test]
fn rfc_3597_4_only_the_old_types_compress() {
    // RFC 1035, 3.3: every type with names in its data.
    let old = ["NS", "MD", "MF", "CNAME", "SOA", "MB", "MG", "MR", "PTR", "MINFO", "MX"];
    let old = old.map(|rtype| rtype.parse::<Rtype>().expect(rtype));
    for rtype in (0..=u16::MAX).map(Rtype::from_int) {
        assert_eq!(compressible(rtype).is_some(), old.contains(&rtype), "{rtype}");
    }
    for rtype in old {
        let Compressible { names_at, names } = compressible(rtype).expect("it is in the list");
        let fields = shape(rtype).expect("it is in the table");
        let first = fields.iter().position(|field| *field == Field::Name).expect("it has a name");
        assert!(fields[first..first + names].iter().all(|field| *field == Field::Name), "{rtype}");
        assert!(!fields[first + names..].contains(&Field::Name), "{rtype}");
        assert_eq!(names_at, first * 2, "{rtype}: nothing but a preference stands before names");
    }
}

#[test]
fn case_matters_in_names_only_for_their_looks() {
    let (upper, lower) = (Rdata::from_wire(*b"\0\x0a\x01A\0"), Rdata::from_wire(*b"\0\x0a\x01a\0"));
    assert_eq!(canonical(Rtype::MX, upper.as_wire()), lower.as_wire());
    assert_eq!(&*canonical(Rtype::TXT, b"\x01A"), b"\x01A");
}
