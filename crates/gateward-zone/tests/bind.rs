//! Zone files as BIND reads them: `named-compilezone` writes out what it understood, and that must be what we understood.

use std::io::Write;
use std::process::{Command, Stdio};

use gateward_zone::{Name, Rtype, ZoneText, parse_zone, render_zone};

const SOA: &str = "@ 3600 SOA ns1 hostmaster 1 7200 900 1209600 300\nns1 300 A 192.0.2.53\n";
/// Owners in `types.zone` that BIND 9.18 does not read: newer types and keys, and digests of a length that it checks.
const NEWER: &[&str] = &["ds", "dsync", "ipseckey", "resinfo", "svcb", "ta", "wallet"];

fn origin() -> Name {
    "example.com".parse().expect("a name")
}

fn parse(text: &str) -> ZoneText {
    parse_zone(text.as_bytes(), &origin(), "z", &|_| Err(String::new()))
        .unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
}

/// What BIND makes of a zone file; `None` when it is not there and `GATEWARD_SKIP` says that this is fine.
fn compiled(text: &str) -> Option<String> {
    const NAME: &str = "named-compilezone";
    let mut command = Command::new(NAME);
    command.args(["-k", "ignore", "-n", "ignore", "-m", "ignore", "-M", "ignore", "-S", "ignore", "-i", "none"]);
    command.args(["-s", "full", "-o", "-", "example.com", "/dev/stdin"]);
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        let skipped =
            std::env::var("GATEWARD_SKIP").is_ok_and(|list| list.split(',').any(|entry| entry.trim() == NAME));
        assert!(skipped, "{NAME} is not installed; install it, or set GATEWARD_SKIP={NAME} to skip its tests");
        return None;
    };
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads its input");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{text}");
    Some(String::from_utf8(output.stdout).expect("zone files are ASCII"))
}

#[track_caller]
fn check(text: &str) {
    let ours = parse(text);
    for text in [text, &render_zone(&ours)] {
        let Some(theirs) = compiled(text) else { return };
        let theirs = parse(&theirs);
        // Within a set, BIND keeps another order.
        let sorted = |zone: &ZoneText| {
            let mut records = zone.records().to_vec();
            records.sort();
            records
        };
        assert_eq!(sorted(&theirs), sorted(&ours), "{text}");
    }
}

#[test]
fn types() {
    let text = include_str!("data/types.zone");
    let known = text.lines().filter(|line| !NEWER.contains(&line.split(' ').next().unwrap_or_default()));
    let text = SOA.to_owned() + &known.collect::<Vec<_>>().join("\n") + "\n";
    assert!(parse(&text).records().iter().any(|record| record.rtype == Rtype::LOC));
    check(&text);
}

#[test]
fn generate_ttl_and_origin() {
    check(&format!(
        "$TTL 1h30m\n{SOA}@ NS ns1\nttl 1W2D3H4M5S A 192.0.2.1\n$GENERATE 1-3 host-$ A 192.0.2.$\n$GENERATE 0-8/4 ${{0,2,x}}.r CNAME h${{10}}\n\
         $GENERATE 1-2 $.n A 192.0.2.${{100,3,d}}\n$GENERATE 17-18 ${{0,7,n}}.ip CNAME x\n$GENERATE 17-18 ${{0,2,n}}.ip2 CNAME x\n\
         $GENERATE 17-18 ${{0,1,N}}.ip3 CNAME x\n$GENERATE 250-250 ${{0,9,N}}.ip4 CNAME x${{-5}}\n$GENERATE 1-2 m$ MX \"10 mail-$\"\n\
         $GENERATE 1-2 t$ TXT \"a $$ \\$ $\"\n$GENERATE 1-2 q$ TXT \"\\\"a $$ \\$ $\\\"\"\n$GENERATE 1-2 u$ 60 IN TXT one$\n\
         $GENERATE 8-9 o${{0,4,o}} IN A 192.0.2.1\n$ORIGIN sub\n@ ( TXT ; a comment\n \"x;y\" z\\\"\\065 )\n\tIN 60 AAAA 2001:db8::1\nw CNAME @\n"
    ));
}
