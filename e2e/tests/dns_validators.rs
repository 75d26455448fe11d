//! Zonemaster and DNSViz, the field's examiners, walk from a root to every level of a domain and find nothing to complain about.
//!
//! They insist on port 53 and on addresses of the world outside, so the test makes a network for itself.

use gateward_e2e::names::Island;

/// Two addresses in different networks for every level.
const ADDRESSES: [&str; 6] = ["193.0.14.1", "198.41.0.1", "185.3.0.1", "31.13.64.1", "62.5.128.1", "77.88.55.1"];

fn soa(primary: &str) -> String {
    format!("$TTL 3600\n@ SOA {primary} hostmaster.example.com. 2026112901 14400 3600 1209600 3600\n")
}

fn zones() -> Vec<(&'static str, String)> {
    let [root1, root2, com1, com2, prod1, prod2] = ADDRESSES;
    let ns = "@ NS ns1\n@ NS ns2\n";
    let mail = "@ MX 10 mail.example.com.\n";
    let reverse = |address: &str| address.split('.').rev().collect::<Vec<_>>().join(".");
    let pointers = [
        (com1, "ns1.example.com."),
        (com2, "ns2.example.com."),
        (prod1, "ns1.prod.example.com."),
        (prod2, "ns2.prod.example.com."),
    ];
    let pointers: String =
        pointers.iter().map(|(address, name)| format!("{}.in-addr.arpa. PTR {name}\n", reverse(address))).collect();
    vec![
        (
            "@.zone",
            format!(
                "{}@ NS a.root.\n@ NS b.root.\na.root. A {root1}\nb.root. A {root2}\ncom. NS a.root.\ncom. NS b.root.\narpa. NS a.root.\narpa. NS b.root.\n",
                soa("a.root.")
            ),
        ),
        ("arpa.zone", format!("{}@ NS a.root.\n@ NS b.root.\n{pointers}", soa("a.root."))),
        (
            "com.zone",
            format!(
                "{}@ NS a.root.\n@ NS b.root.\nexample NS ns1.example\nexample NS ns2.example\nns1.example A {com1}\nns2.example A {com2}\n",
                soa("a.root.")
            ),
        ),
        (
            "example.com.zone",
            format!(
                "{}{ns}{mail}ns1 A {com1}\nns2 A {com2}\nmail A {com1}\nprod NS ns1.prod\nprod NS ns2.prod\nns1.prod A {prod1}\nns2.prod A {prod2}\n",
                soa("ns1.example.com.")
            ),
        ),
        (
            "prod.example.com.zone",
            format!(
                "{}{ns}{mail}ns1 A {prod1}\nns2 A {prod2}\nus-east-1 NS ns1\nus-east-1 NS ns2\neu-west-1 NS ns1\neu-west-1 NS ns2\n",
                soa("ns1.prod.example.com.")
            ),
        ),
        (
            "us-east-1.prod.example.com.zone",
            format!(
                "{}@ NS ns1.prod.example.com.\n@ NS ns2.prod.example.com.\n{mail}api A 192.0.2.1\n",
                soa("ns1.prod.example.com.")
            ),
        ),
        (
            "eu-west-1.prod.example.com.zone",
            format!(
                "{}@ NS ns1.prod.example.com.\n@ NS ns2.prod.example.com.\n{mail}api A 192.0.2.2\n",
                soa("ns1.prod.example.com.")
            ),
        ),
    ]
}

const LEVELS: [&str; 4] =
    ["example.com", "prod.example.com", "us-east-1.prod.example.com", "eu-west-1.prod.example.com"];

fn world() -> Island {
    let zones = zones();
    let files: Vec<(&str, &str)> = zones.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let mut island = Island::new(&ADDRESSES);
    // Who serves the root answers for every name, which a company's servers must not.
    let (registry, company) = files.split_at(3);
    island.serve(registry, &ADDRESSES[..2]);
    island.serve(company, &ADDRESSES[2..]);
    island
}

/// The same levels, made by `gateward domain apply` on empty servers: one for the root, one for the environment and below.
fn declared_world() -> Island {
    let [_, _, com1, com2, prod1, prod2] = ADDRESSES;
    let zones = zones();
    let files: Vec<(&str, &str)> = zones.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let mut island = Island::new(&ADDRESSES);
    island.serve(&files[..3], &ADDRESSES[..2]);
    island.serve_with(&[], &ADDRESSES[2..4], &["--control-listen", "127.0.0.1:8053"]);
    island.serve_with(&[], &ADDRESSES[4..], &["--control-listen", "127.0.0.1:8054"]);
    let group = |port: u16, zone: &str, first: &str, second: &str| {
        format!(
            "    control: http://127.0.0.1:{port}\n    servers:\n      - {{ name: ns1.{zone}, addresses: [{first}] }}\n      \
             - {{ name: ns2.{zone}, addresses: [{second}] }}\n"
        )
    };
    let mail = "records: { '@': { MX: 10 mail.example.com. } }";
    let region = |name: &str, address: &str| {
        format!(
            "      {name}:\n        {mail}\n        services:\n          api: {{ owner: api-team, runtime: static, records: \
             {{ '@': {{ A: {address} }} }} }}\n"
        )
    };
    let text = format!(
        "version: 1\nroot: example.com\nowner: platform\nserved_by: core\nname_servers:\n  core:\n{}  prod:\n{}\
         defaults: {{ soa: {{ refresh: 4h, retry: 1h, negative_ttl: 1h }} }}\n\
         records: {{ '@': {{ MX: 10 mail }}, mail: {{ A: {com1} }} }}\n\
         environments:\n  prod:\n    served_by: prod\n    {mail}\n    regions:\n{}{}",
        group(8053, "example.com", com1, com2),
        group(8054, "prod.example.com", prod1, prod2),
        region("us-east-1", "192.0.2.1"),
        region("eu-west-1", "192.0.2.2"),
    );
    let (file, plan) = (island.write("domain.yaml", &text), island.write("plan.json", ""));
    let planned = island.gateward(&["domain", "plan", &file, "--out", &plan]);
    let applied = island.gateward(&["domain", "apply", &file, "--plan", &plan]);
    assert!(applied.contains("everything was applied"), "{planned}\n{applied}");
    let verified = island.gateward(&["domain", "verify", &file, "--wait", "30"]);
    assert!(verified.contains(" 0 unknown, 0 wrong"), "{verified}");
    island
}

#[test]
fn zonemaster_finds_nothing() {
    zonemaster(&world());
}

#[test]
fn zonemaster_finds_nothing_in_what_a_declaration_made() {
    zonemaster(&declared_world());
}

#[test]
fn dnsviz_finds_nothing() {
    dnsviz(&world());
}

#[test]
fn dnsviz_finds_nothing_in_what_a_declaration_made() {
    dnsviz(&declared_world());
}

#[track_caller]
fn zonemaster(island: &Island) {
    let hints = format!(
        ". 3600000 IN NS a.root.\n. 3600000 IN NS b.root.\na.root. 3600000 IN A {}\nb.root. 3600000 IN A {}\n",
        ADDRESSES[0], ADDRESSES[1]
    );
    let hints = island.write("hints", &hints);
    for level in LEVELS {
        let report = island.run(
            "zonemaster-cli",
            &["--hints", &hints, "--no-ipv6", "--level", "NOTICE", "--show-testcase", "--no-progress", level],
        );
        assert!(report.contains("Seconds"), "{level}: {report}");
        let found: Vec<&str> = report
            .lines()
            .filter(|line| ["WARNING", "ERROR", "CRITICAL"].iter().any(|level| line.contains(level)))
            .collect();
        assert!(found.is_empty(), "{level}:\n{report}");
    }
}

#[track_caller]
fn dnsviz(island: &Island) {
    let servers = format!(".+:a.root={},b.root={}", ADDRESSES[0], ADDRESSES[1]);
    for level in LEVELS {
        let file = island.write("probe.json", "");
        island.run("dnsviz", &["probe", "-A", "-4", "-a", ".", "-x", &servers, "-o", &file, level]);
        let everything = island.run("dnsviz", &["grok", "-l", "info", "-r", &file]);
        assert!(everything.contains(&format!("\"{level}.\"")), "{level}: {everything}");
        let report = island.run("dnsviz", &["grok", "-l", "warning", "-r", &file]);
        assert!(!report.contains("\"description\""), "{level}: {report}");
    }
}
