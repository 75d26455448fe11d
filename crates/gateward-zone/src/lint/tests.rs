//! Each rule with a zone that breaks it.

use super::*;
use crate::zonefile::parse_zone;

const HEAD: &str =
    "$TTL 3600\n@ SOA ns1 hostmaster 1 7200 900 1209600 300\n@ NS ns1\n@ NS ns.example.net.\nns1 A 192.0.2.53\n";

fn findings(text: &str) -> Vec<Problem> {
    let origin = "example.com".parse().expect("a name");
    let zone = parse_zone(text.as_bytes(), &origin, "z", &|_| Err(String::new())).expect(text);
    let found = lint(&zone);
    let names = zone.records().iter().map(|record| record.owner.clone()).collect();
    let again: Vec<_> = lint_names(&zone, &names).into_iter().map(|problem| (problem.rule, problem.message)).collect();
    let same: Vec<_> = found.iter().map(|problem| (problem.rule, problem.message.clone())).collect();
    assert_eq!(again, same, "{text}");
    found
}

/// Findings of a zone with a good head, as `line severity rule`; the head has five lines.
fn check(text: &str, expected: &[&str]) {
    check_whole(&format!("{HEAD}{text}"), expected);
}

fn check_whole(text: &str, expected: &[&str]) {
    let found = findings(text);
    let short: Vec<String> = found
        .iter()
        .map(|problem| {
            format!("{} {} {}", problem.line, if problem.is_error() { "error" } else { "warning" }, problem.rule)
        })
        .collect();
    assert_eq!(short, expected, "{text}\n{found:#?}");
    assert!(found.iter().all(|problem| problem.remedy.is_some()), "{found:#?}");
}

#[test]
fn a_good_zone_has_no_findings() {
    check(
        "www A 192.0.2.1\nwww AAAA 2001:db8::1\nalias CNAME www\n@ MX 10 mail\nmail A 192.0.2.2\n@ MX 20 mail.example.net.\n\
         _sip._tcp SRV 0 0 5060 www\n_none._tcp SRV 0 0 0 .\nchild NS ns.child\nns.child A 192.0.2.3\nchild NS ns1\nchild DS 1 8 2 00\n\
         *.wild A 192.0.2.4\nto-wild CNAME any.wild\n@ HTTPS 1 . alpn=h2\n@ CAA 0 issue \"ca.example\"\nlink DNAME example.net.\n\
         into-child CNAME x.child\n",
        &[],
    );
}

#[test]
fn rfc_1035_5_2_one_soa_at_the_apex() {
    check_whole("@ 60 NS ns.example.net.\n@ 60 NS ns.example.org.\n", &["0 error soa-missing"]);
    check("@ SOA ns2 hostmaster 1 7200 900 1209600 300\n", &["2 error soa-several"]);
    check("sub SOA ns2 hostmaster 1 7200 900 1209600 300\n", &["6 error soa-not-at-apex"]);
}

#[test]
fn rfc_1912_2_2_soa_timers() {
    let zone = |timers: &str| {
        format!("@ 60 SOA ns.example.net. hostmaster 1 {timers}\n@ 60 NS ns.example.net.\n@ 60 NS ns.example.org.\n")
    };
    check_whole(&zone("7200 900 1209600 86400"), &[]);
    check_whole(&zone("10 900 1209600 300"), &["1 warning soa-timers"; 2]);
    check_whole(&zone("7200 7200 1209600 300"), &["1 warning soa-timers"]);
    check_whole(&zone("7200 900 3600 300"), &["1 warning soa-timers"]);
    check_whole(&zone("7200 900 1209600 86401"), &["1 warning soa-timers"]);
}

#[test]
fn rfc_1034_4_1_servers_at_the_apex() {
    let soa = "@ 60 SOA ns.example.net. hostmaster 1 7200 900 1209600 300\n";
    check_whole(soa, &["1 error apex-ns-missing"]);
    check_whole(&format!("{soa}@ 60 NS ns.example.net.\n"), &["2 warning apex-ns-single"]);
}

#[test]
fn rfc_1034_3_6_2_aliases_stand_alone() {
    check("a CNAME www.example.net.\na A 192.0.2.1\na TXT x\n", &["6 error cname-and-other-data"]);
    check("@ CNAME www.example.net.\n", &["6 error cname-at-apex"]);
    check("a CNAME b.example.net.\na CNAME c.example.net.\n", &["6 error cname-several"]);
    check("a CNAME b\nb CNAME a\n", &["6 error cname-loop", "7 error cname-loop"]);
    check("a CNAME a\n", &["6 error cname-loop"]);
    check("a CNAME b.example.net.\na RRSIG CNAME 8 3 60 20300101000000 20200101000000 1 example.com. AQAB\n", &[]);
}

#[test]
fn rfc_6672_2_dname() {
    check("d DNAME a.\nd DNAME b.\n", &["6 error dname-several"]);
    check("d DNAME a.\nx.d A 192.0.2.1\ny.x.d A 192.0.2.1\n", &["7 error below-dname", "8 error below-dname"]);
    check("d DNAME a.\nd NS ns.example.net.\n", &["6 error dname-and-ns"]);
    check("*.d DNAME a.\n", &["6 warning wildcard-dname"]);
    check("d DNAME a.\nd TXT x\n", &[]);
    check("@ DNAME a.\n", &["5 error below-dname"]);
}

#[test]
fn rfc_2181_10_3_targets_are_no_aliases() {
    check("c CNAME ns1\nd NS c\n", &["7 error target-is-cname"]);
    check("c CNAME ns1\n@ MX 1 c\n_s._tcp SRV 1 1 1 c\n", &["7 warning target-is-cname", "8 warning target-is-cname"]);
}

#[test]
fn targets_in_the_zone_exist() {
    check("a CNAME nothing\n", &["6 warning target-missing"]);
    check("@ MX 1 nothing\n", &["6 warning target-missing"]);
    check("t TXT x\n_s._tcp SRV 1 1 1 t\n", &["7 warning target-missing"]);
    check("d NS nothing\n", &["6 error target-missing"]);
    check("@ NS ns9\n", &["3 error target-missing"]);
    check("_8443._https.a HTTPS 0 nothing\n", &["6 warning target-missing"]);
}

#[test]
fn rfc_9471_delegations_have_glue() {
    check("d NS ns.d\n", &["6 error glue-missing"]);
    check("d NS d\nd A 192.0.2.1\n", &[]);
    // In a sibling that is delegated itself, another zone knows the address.
    check("d NS ns.e\ne NS ns.example.net.\n", &[]);
}

#[test]
fn records_below_a_delegation_are_hidden() {
    check("d NS ns.d\nns.d A 192.0.2.1\nx.d A 192.0.2.1\nns.d TXT x\n", &["9 warning occluded", "8 warning occluded"]);
    check(
        "d NS ns.example.net.\nd A 192.0.2.1\nd MX 1 mail.example.net.\n",
        &["7 warning occluded", "8 warning occluded"],
    );
    check("d NS ns.example.net.\nx.d NS ns.x.d\n", &["7 warning occluded"]);
    check("d DS 1 8 2 00\n", &["6 warning ds-without-ns"]);
}

#[test]
fn rfc_4592_4_2_wildcards_are_not_delegated() {
    check("*.w NS ns.example.net.\n", &["6 warning wildcard-ns"]);
}

#[test]
fn rfc_2181_8_ttls_have_31_bits() {
    check("a 2147483647 A 192.0.2.1\n", &[]);
    check("a 2147483648 A 192.0.2.1\n", &["6 error ttl-too-large"]);
}

#[test]
fn rfc_1123_2_1_host_names() {
    check("a_b A 192.0.2.1\n-c A 192.0.2.1\n*.ok A 192.0.2.1\n", &["7 warning host-name", "6 warning host-name"]);
    check("@ MX 1 a_b.example.net.\n_any.thing TXT x\n", &["6 warning host-name"]);
}

#[test]
fn rfc_9460_alias_mode_and_protocols() {
    check("a HTTPS 0 b.example.net. port=1\n", &["6 warning svcb-alias"]);
    check("a HTTPS 0 b.example.net.\na HTTPS 1 .\n", &["6 warning svcb-alias"]);
    check("a HTTPS 1 . no-default-alpn\n", &["6 error svcb-alpn"]);
}

#[test]
fn types_of_messages_are_no_data() {
    check("a TYPE255 \\# 0\n", &["6 error meta-type"]);
    check("a OPT \\# 0\n", &["6 error meta-type"]);
}
