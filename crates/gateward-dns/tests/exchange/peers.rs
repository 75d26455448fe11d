//! Ours with others: clients of BIND, dnspython, and named, knotd and nsd on the other side of transfers.

use std::net::SocketAddr;

use gateward_dns::catalog::{self, Member};
use gateward_dns::secondary::Primary;
use gateward_zone::{Rtype, Soa};

use crate::memory::{KEYS, SECRET, TestServer, eventually, name, zone};
use crate::tools::{Daemon, dig, has, key_argument, nsupdate, run};

const LINES: &[&str] = &[
    "@ 300 SOA ns hostmaster 7 3600 600 86400 300",
    "@ 300 NS ns",
    "ns 300 A 192.0.2.53",
    "www 300 A 192.0.2.1",
    "a 300 TXT a",
    "b 300 TXT b",
    "c 300 TXT c",
];

fn served() -> TestServer {
    TestServer::start(vec![zone("example.com", LINES)])
}

fn sha256() -> String {
    key_argument("hmac-sha256", "sha256.key")
}

#[tokio::test(flavor = "multi_thread")]
async fn nsupdate_signs_with_every_algorithm() {
    if !has("nsupdate") {
        return;
    }
    let server = served();
    for (index, (key, algorithm)) in KEYS.into_iter().enumerate() {
        let short = algorithm.as_str().split('.').next().expect("a word");
        let argument = key_argument(short, key);
        let owner = format!("_acme-challenge.{}", key.replace('.', "-"));
        let add = format!("update add {owner}.example.com. 60 TXT \"token {index}\"");
        let said = nsupdate(server.address(), &argument, index % 2 == 0, &[&add]);
        assert_eq!(said, "", "{key}");
        let data = server.data("example.com", &format!("{owner}.example.com"), Rtype::TXT);
        assert_eq!(data, [format!("\"token {index}\"")]);
        assert_eq!(server.last_requester().map(|requester| requester.key), Some(name(key)));
    }
    assert_eq!(server.serial("example.com"), Some(13));
}

#[tokio::test(flavor = "multi_thread")]
async fn nsupdate_changes_a_zone() {
    if !has("nsupdate") {
        return;
    }
    let server = served();
    let update = |lines: &[&str]| nsupdate(server.address(), &sha256(), true, lines);
    // As external-dns replaces a record: the old value out, the new one in. Its TTL of 0 becomes the zone's least.
    let said = update(&[
        "prereq yxrrset www.example.com. A",
        "update delete www.example.com. 0 A 192.0.2.1",
        "update add www.example.com. 0 A 192.0.2.2",
        "update add WWW.example.com. 0 AAAA 2001:db8::2",
    ]);
    assert_eq!(said, "");
    assert_eq!(server.data("example.com", "www.example.com", Rtype::A), ["192.0.2.2"]);
    assert!(dig(server.address(), &["www.example.com", "AAAA"]).contains("30\tIN\tAAAA\t2001:db8::2"));
    assert_eq!(server.serial("example.com"), Some(8));
    // The same once more is no change.
    assert_eq!(update(&["update add www.example.com. 0 A 192.0.2.2"]), "");
    assert_eq!(server.serial("example.com"), Some(8));
    for (line, rcode) in [
        ("prereq nxdomain www.example.com.", "YXDOMAIN"),
        ("prereq yxdomain nothing.example.com.", "NXDOMAIN"),
        ("prereq nxrrset www.example.com. A", "YXRRSET"),
        ("prereq yxrrset www.example.com. A 192.0.2.9", "NXRRSET"),
    ] {
        let said = update(&[line, "update delete www.example.com."]);
        assert!(said.contains(rcode), "{line}: {said}");
    }
    assert_eq!(server.serial("example.com"), Some(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn nsupdate_is_told_why_it_is_refused() {
    if !has("nsupdate") {
        return;
    }
    let server = served();
    let add = "update add new.example.com. 60 A 192.0.2.9";
    let with = |key: &str, line: &str| nsupdate(server.address(), key, true, &[line]);
    let wrong_secret = "hmac-sha256:sha256.key:d3Jvbmc=";
    for (key, word) in [
        (wrong_secret, "BADSIG"),
        ("hmac-sha256:unknown.key:d3Jvbmc=", "BADKEY"),
        ("hmac-sha512:sha256.key:d3Jvbmc=", "BADKEY"),
        (&key_argument("hmac-md5", "md5.key"), "REFUSED"),
    ] {
        let said = with(key, add);
        assert!(said.contains(word), "{key}: {said}");
    }
    let unsigned = format!("server 127.0.0.1 {}\nzone example.com\n{add}\nsend\n", server.address().port());
    assert!(run("nsupdate", &["-t", "5"], &unsigned).contains("REFUSED"));
    let other_zone = format!(
        "server 127.0.0.1 {}\nzone example.net\nupdate add a.example.net. 1 A 192.0.2.1\nsend\n",
        server.address().port()
    );
    assert!(run("nsupdate", &["-t", "5", "-y", &sha256()], &other_zone).contains("NOTAUTH"));
    assert_eq!(server.serial("example.com"), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn dig_transfers_and_verifies() {
    if !has("dig") {
        return;
    }
    let mut lines: Vec<String> = LINES.iter().map(|line| (*line).to_owned()).collect();
    lines.extend((0..3_000).map(|index| format!("host{index} 300 A 192.0.2.{}", index % 256)));
    let large = zone("example.com", &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let server = TestServer::start(vec![large]);
    for (key, algorithm) in KEYS {
        let short = algorithm.as_str().split('.').next().expect("a word");
        let said = dig(server.address(), &["-y", &key_argument(short, key), "example.com", "AXFR", "+nostats"]);
        let records = said.lines().filter(|line| line.contains("\tIN\t")).count();
        assert_eq!(records, lines.len() + 1, "{key}: {said}");
        assert!(!said.contains("could not be validated") && !said.contains("verify failure"), "{key}: {said}");
    }
    server.add("example.com", "new 300 A 192.0.2.9");
    let said = dig(server.address(), &["-y", &sha256(), "example.com", "IXFR=7"]);
    assert_eq!(said.lines().filter(|line| line.contains("\tIN\t")).count(), 5, "{said}");
    let said = dig(server.address(), &["-y", &sha256(), "example.com", "IXFR=8"]);
    assert_eq!(said.lines().filter(|line| line.contains("\tIN\t")).count(), 1, "{said}");
    let said = dig(server.address(), &["example.com", "AXFR"]);
    assert!(said.contains("Transfer failed"), "{said}");
    // A signed query like any other, over both transports, with an answer that dig can verify.
    for transport in ["+notcp", "+tcp"] {
        let said = dig(server.address(), &["-y", &sha256(), transport, "www.example.com", "A"]);
        assert!(said.contains("192.0.2.1") && said.contains("TSIG"), "{said}");
        assert!(!said.contains("couldn't verify") && !said.contains("Couldn't verify"), "{said}");
    }
}

/// dnspython is what octodns and certbot speak with; it wants every message signed.
#[tokio::test(flavor = "multi_thread")]
async fn dnspython_updates_and_transfers() {
    let python = "/usr/bin/python3";
    if !has(python) {
        return;
    }
    let server = served();
    let program = format!(
        r#"
import dns.message, dns.query, dns.rcode, dns.tsig, dns.update, dns.xfr, dns.zone
port = {port}
key = dns.tsig.Key("sha224.key.", "{SECRET}", "hmac-sha224.")
zone = dns.zone.Zone("example.com.")
query, serial = dns.xfr.make_query(zone, keyring={{key.name: key}}, keyname=key.name, keyalgorithm=key.algorithm)
dns.query.inbound_xfr("127.0.0.1", zone, query, port=port)
print("records", sum(len(rds) for _, rds in zone.iterate_rdatasets()))
update = dns.update.UpdateMessage("example.com.", keyring=key)
update.replace("www", 300, "A", "192.0.2.7")
update.add("_acme-challenge", 60, "TXT", "token")
for send in (dns.query.tcp, dns.query.udp):
    print(dns.rcode.to_text(send(update, "127.0.0.1", port=port, timeout=5).rcode()))
query, serial = dns.xfr.make_query(zone, keyring={{key.name: key}}, keyname=key.name, keyalgorithm=key.algorithm)
print("from", serial)
dns.query.inbound_xfr("127.0.0.1", zone, query, port=port)
print(zone.find_rdataset("www", "A")[0], zone.find_rdataset("@", "SOA")[0].serial)
"#,
        port = server.address().port()
    );
    let said = run(python, &["-"], &program);
    assert_eq!(said, "records 7\nNOERROR\nNOERROR\nfrom 7\n192.0.2.7 8\n");
}

const NAMED: &[&str] = &["-g", "-n", "1", "-c", "CONF"];

fn named_options(folder: &str, port: u16) -> String {
    format!(
        r#"options {{ directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
pid-file "{folder}/pid"; session-keyfile "{folder}/session"; recursion no; dnssec-validation no; allow-new-zones yes; notify-delay 0; serial-query-rate 100; }};
controls {{ }};
key "sha256.key" {{ algorithm hmac-sha256; secret "{SECRET}"; }};
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn named_is_our_secondary() {
    if !has("named") {
        return;
    }
    let server = served();
    let port = server.address().port();
    let named = Daemon::start("named", NAMED, |folder, own| {
        let zone = format!(
            r#"zone "example.com" {{ type secondary; file "z"; masterfile-format text; primaries {{ 127.0.0.1 port {port} key "sha256.key"; }}; }};"#
        );
        vec![("conf", named_options(folder, own) + &zone)]
    });
    secondary_of(&server, &named);
    assert!(named.log().contains("1 messages, 5 records"), "an incremental transfer: {}", named.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn knotd_is_our_secondary() {
    if !has("knotd") {
        return;
    }
    let server = served();
    let port = server.address().port();
    let knot = Daemon::start("knotd", &["-c", "CONF"], |folder, own| {
        vec![(
            "conf",
            knot_options(folder, own, port) + "zone:\n  - domain: example.com\n    master: other\n    acl: key\n",
        )]
    });
    secondary_of(&server, &knot);
    assert!(knot.log().contains("IXFR, incoming"), "an incremental transfer: {}", knot.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn nsd_is_our_secondary() {
    if !has("nsd") {
        return;
    }
    let server = served();
    let port = server.address().port();
    let nsd = Daemon::start("nsd", &["-d", "-c", "CONF"], |folder, own| {
        let zone = format!(
            "zone:\n  name: example.com\n  zonefile: z\n  request-xfr: 127.0.0.1@{port} sha256.key\n  allow-notify: 127.0.0.1 sha256.key\n"
        );
        vec![("conf", nsd_options(folder, own) + &zone)]
    });
    secondary_of(&server, &nsd);
}

/// It has the zone, and then a change of it, because it is told.
#[track_caller]
fn secondary_of(server: &TestServer, other: &Daemon) {
    server.tell(other.address, Some("sha256.key"));
    other.will_answer("www.example.com", "A", "192.0.2.1");
    server.add("example.com", "new 300 A 192.0.2.9");
    other.will_answer("new.example.com", "A", "192.0.2.9");
    assert_eq!(other.answers("c.example.com", "TXT"), "\"c\"");
}

fn knot_options(folder: &str, own: u16, other: u16) -> String {
    format!(
        "server:\n    listen: 127.0.0.1@{own}\n    rundir: {folder}\n\
log:\n  - target: stderr\n    any: info\n\
database:\n    storage: {folder}\n\
key:\n  - id: sha256.key\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
remote:\n  - id: other\n    address: 127.0.0.1@{other}\n    key: sha256.key\n\
acl:\n  - id: key\n    key: sha256.key\n    action: [notify, transfer, update]\n\
template:\n  - id: default\n    storage: {folder}\n"
    )
}

fn nsd_options(folder: &str, own: u16) -> String {
    format!(
        "server:\n  ip-address: 127.0.0.1@{own}\n  zonesdir: {folder}\n  pidfile: {folder}/pid\n  xfrdfile: {folder}/xfrd\n  xfrdir: {folder}\n  \
zonelistfile: {folder}/list\n  database: \"\"\n  username: \"\"\n  server-count: 1\n  rrl-ratelimit: 0\n  verbosity: 2\n\
remote-control:\n  control-enable: no\n\
key:\n  name: sha256.key\n  algorithm: hmac-sha256\n  secret: {SECRET}\n"
    )
}

const ZONE_FILE: &str = "$ORIGIN example.com.\n$TTL 300\n@ SOA ns hostmaster 7 3600 600 86400 300\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.1\n";

/// We have its zone, and then a change that a client made there.
#[track_caller]
fn primary_of(server: &TestServer, other: &Daemon) {
    eventually("the first transfer", || server.serial("example.com") == Some(7));
    let said = nsupdate(other.address, &sha256(), true, &["update add new.example.com. 300 A 192.0.2.9"]);
    assert_eq!(said, "");
    eventually("the change", || server.data("example.com", "new.example.com", Rtype::A) == ["192.0.2.9"]);
    assert_eq!(server.arrivals(), ["whole", "changes"], "{}", other.log());
}

fn follow(server: &TestServer, address: SocketAddr) {
    server.follow("example.com", Primary { address, key: Some(name("sha256.key")) }, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn named_is_our_primary() {
    if !has("named") {
        return;
    }
    let server = TestServer::start(Vec::new());
    let port = server.address().port();
    let named = Daemon::start("named", NAMED, |folder, own| {
        let zone = format!(
            r#"zone "example.com" {{ type primary; file "z"; allow-transfer {{ key "sha256.key"; }}; allow-update {{ key "sha256.key"; }};
notify explicit; also-notify {{ 127.0.0.1 port {port} key "sha256.key"; }}; }};"#
        );
        vec![("conf", named_options(folder, own) + &zone), ("z", ZONE_FILE.to_owned())]
    });
    follow(&server, named.address);
    primary_of(&server, &named);
}

#[tokio::test(flavor = "multi_thread")]
async fn knotd_is_our_primary() {
    if !has("knotd") {
        return;
    }
    let server = TestServer::start(Vec::new());
    let port = server.address().port();
    let knot = Daemon::start("knotd", &["-c", "CONF"], |folder, own| {
        let zone = "zone:\n  - domain: example.com\n    file: z\n    notify: other\n    acl: key\n";
        vec![("conf", knot_options(folder, own, port) + zone), ("z", ZONE_FILE.to_owned())]
    });
    follow(&server, knot.address);
    primary_of(&server, &knot);
}

/// NSD does not sign every message of a transfer.
#[tokio::test(flavor = "multi_thread")]
async fn nsd_is_our_primary() {
    if !has("nsd") {
        return;
    }
    let server = TestServer::start(Vec::new());
    let nsd = Daemon::start("nsd", &["-d", "-c", "CONF"], |folder, own| {
        let zone = "zone:\n  name: example.com\n  zonefile: z\n  provide-xfr: 127.0.0.1 sha256.key\n";
        let hosts = (0..60_000).map(|index| format!("host{index} A 192.0.2.{}\n", index % 256));
        let file = ZONE_FILE.to_owned() + &hosts.collect::<String>();
        vec![("conf", nsd_options(folder, own) + zone), ("z", file)]
    });
    follow(&server, nsd.address);
    eventually("the transfer", || server.serial("example.com") == Some(7));
    let records = server.served("example.com").map(|zone| gateward_zone::ZoneView::record_count(&*zone));
    assert_eq!(records, Some(60_004));
}

/// RFC 9432: named serves what our catalog lists.
#[tokio::test(flavor = "multi_thread")]
async fn named_reads_our_catalog() {
    if !has("named") {
        return;
    }
    let timers =
        Soa { mname: name("."), rname: name("."), serial: 0, refresh: 60, retry: 10, expire: 86_400, minimum: 0 };
    let records = catalog::records(&name("catalog.invalid"), 1, &timers, &[]).expect("not broken");
    let listed = gateward_dns::store::Zone::build(&name("catalog.invalid"), records).expect("a zone");
    let server = TestServer::start(vec![listed, zone("example.com", LINES)]);
    let port = server.address().port();
    let named = Daemon::start("named", NAMED, |folder, own| {
        let primaries = format!(r#"{{ 127.0.0.1 port {port} key "sha256.key"; }}"#);
        let options = named_options(folder, own).replace(
            "recursion no;",
            &format!(r#"recursion no; catalog-zones {{ zone "catalog.invalid" default-primaries {primaries} zone-directory "{folder}" min-update-interval 1; }};"#),
        );
        let zone = format!(r#"zone "catalog.invalid" {{ type secondary; file "catalog"; primaries {primaries}; }};"#);
        vec![("conf", options + &zone)]
    });
    server.tell(named.address, Some("sha256.key"));
    assert_eq!(named.answers("www.example.com", "A"), "");
    let list = |members: &[Member]| {
        server.change("catalog.invalid", |served| catalog::changes(served, members).expect("not broken"));
    };
    list(&[Member::new(name("example.com"), 0)]);
    named.will_answer("www.example.com", "A", "192.0.2.1");
    list(&[]);
    named.will_answer("www.example.com", "A", "");
}
