//! Dynamic updates and transfers with the clients of others, against the real binary: keys, policies, durability.

use gateward_e2e::names::{NameServer, said};
use gateward_testkit::eventually;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

const ZONE: &str = "\
$TTL 300
@ SOA ns1 hostmaster 1 3600 600 86400 300
@ NS ns1
ns1 A 192.0.2.53
www A 192.0.2.1
";

const SECRET: &str = "c2VjcmV0IG9mIHRoZSB0ZXN0cywgbG9uZyBlbm91Z2g=";

fn keys() -> String {
    ["external-dns", "acme", "md5"]
        .iter()
        .map(|name| {
            let algorithm = if *name == "md5" { "hmac-md5" } else { "hmac-sha256" };
            format!("{name}: {{algorithm: {algorithm}, secret: {SECRET}}}\n")
        })
        .collect()
}

/// external-dns writes below `k8s`; cert-manager its challenges anywhere, with MD5 as its default is; both keys may copy the zone.
const POLICY: &str = "\
keys:
- {key: external-dns, subtree: k8s, types: [A, AAAA, CNAME, TXT]}
- {key: acme, labels: [_acme-challenge], types: [TXT]}
- {key: md5, labels: [_acme-challenge], types: [TXT]}
transfers: {keys: [external-dns]}
";

fn server() -> NameServer {
    NameServer::start(&[("example.com.zone", ZONE), ("example.com.policy.yaml", POLICY), ("keys.yaml", &keys())], &[])
}

/// What nsupdate says when it sends these lines.
#[track_caller]
fn update(server: &NameServer, key: &str, more: &[&str], lines: &[&str]) -> String {
    let algorithm = if key == "md5" { "hmac-md5" } else { "hmac-sha256" };
    let mut child = Command::new("nsupdate")
        .args(["-t", "10", "-y", &format!("{algorithm}:{key}:{SECRET}")])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nsupdate is installed by the set-up");
    let input = format!("server 127.0.0.1 {}\nzone example.com\n{}\nsend\n", server.address().port(), lines.join("\n"));
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
    said(&child.wait_with_output().expect("it ends"))
}

#[test]
fn keys_change_what_their_policy_grants() {
    let server = server();
    for more in [&[][..], &["-v"]] {
        let name = format!("app{}.k8s.example.com", more.len());
        assert_eq!(update(&server, "external-dns", more, &[&format!("update add {name} 60 A 10.1.2.3")]), "");
        assert_eq!(server.dig(&[&name, "+short"]), "10.1.2.3");
    }
    assert_eq!(update(&server, "acme", &[], &["update add _acme-challenge.www.example.com 60 TXT token"]), "");
    assert_eq!(server.dig(&["_acme-challenge.www.example.com", "TXT", "+short"]), "\"token\"");
    assert_eq!(update(&server, "md5", &[], &["update add _acme-challenge.api.example.com 60 TXT token"]), "");
    for (key, line) in [
        ("external-dns", "update add www.example.com 60 A 10.9.9.9"),
        ("external-dns", "update delete ns1.example.com A"),
        ("acme", "update add _acme-challenge.www.example.com 60 CNAME www.example.com"),
        ("acme", "update delete www.example.com"),
    ] {
        let said = update(&server, key, &[], &[line]);
        assert!(said.contains("REFUSED"), "{key}: {line}: {said}");
    }
    // Nothing of an update that is refused in part.
    let said = update(
        &server,
        "external-dns",
        &[],
        &["update add good.k8s.example.com 60 A 10.1.1.1", "update add www.example.com 60 A 10.1.1.1"],
    );
    assert!(said.contains("REFUSED"), "{said}");
    assert_eq!(server.dig(&["good.k8s.example.com", "+short"]), "");
    assert!(
        update(
            &server,
            "external-dns",
            &[],
            &["prereq nxdomain www.example.com", "update add x.k8s.example.com 60 A 10.1.1.1"]
        )
        .contains("YXDOMAIN")
    );
    let wrong = Command::new("nsupdate").args(["-y", "hmac-sha256:external-dns:AAAA"]).stdin(Stdio::null()).output();
    assert!(wrong.is_ok());
    let soa = server.dig(&["example.com", "SOA", "+short"]);
    assert_eq!(soa.split(' ').nth(2), Some("5"), "{soa}: one more for each update");
}

#[test]
fn transfers_are_for_those_who_may() {
    let server = server();
    let key = format!("hmac-sha256:external-dns:{SECRET}");
    let zone = server.dig(&["-y", &key, "example.com", "AXFR", "+noall", "+answer", "+onesoa"]);
    assert_eq!(zone.lines().count(), 4, "{zone}");
    assert!(server.dig(&["example.com", "AXFR"]).contains("Transfer failed"));
    assert_eq!(update(&server, "external-dns", &[], &["update add a.k8s.example.com 60 A 10.1.2.3"]), "");
    let steps = server.dig(&["-y", &key, "example.com", "IXFR=1", "+noall", "+answer"]);
    // New SOA, old SOA, new SOA, what came, new SOA: only the difference.
    assert_eq!(steps.lines().count(), 5, "{steps}");
    assert!(steps.contains("a.k8s.example.com.\t60\tIN\tA\t10.1.2.3"), "{steps}");
    assert!(!steps.contains("www.example.com."), "{steps}");
}

/// Whatever was acknowledged is there again after a `kill -9`, and nothing in half.
#[test]
fn no_acknowledged_update_is_lost() {
    let mut server = server();
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        for number in 0..20 {
            let name = format!("n{round}-{number}.k8s.example.com");
            assert_eq!(
                update(
                    &server,
                    "external-dns",
                    &[],
                    &[&format!("update add {name} 60 A 10.{round}.{number}.1"), &format!("update add {name} 60 TXT x")]
                ),
                ""
            );
            acknowledged.push(name);
        }
        let before = server.dig(&["example.com", "SOA", "+short"]);
        // One more is on its way when it dies: it is there whole, or not at all.
        let address = server.address();
        let late = std::thread::spawn(move || {
            let input = format!(
                "server 127.0.0.1 {}\nzone example.com\nupdate add late.k8s.example.com 60 A 10.0.0.1\nupdate add late.k8s.example.com 60 TXT x\nsend\n",
                address.port()
            );
            let mut child = Command::new("nsupdate")
                .args(["-t", "2", "-r", "0", "-y", &format!("hmac-sha256:external-dns:{SECRET}")])
                .stdin(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("nsupdate");
            child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
            let _ = child.wait();
        });
        server.signal("KILL");
        late.join().expect("it ends");
        server.restart();
        for name in &acknowledged {
            let found = server.dig(&[name, "+short"]);
            assert!(found.starts_with("10."), "{name} is lost (round {round}): {found:?}\n{}", server.log());
            assert_eq!(server.dig(&[name, "TXT", "+short"]), "\"x\"", "{name}");
        }
        let late = [
            server.dig(&["late.k8s.example.com", "A", "+short"]),
            server.dig(&["late.k8s.example.com", "TXT", "+short"]),
        ];
        assert!(late.iter().all(String::is_empty) || late.iter().all(|text| !text.is_empty()), "{late:?}");
        let serial = |soa: &str| soa.split(' ').nth(2).and_then(|serial| serial.parse::<u32>().ok()).expect("a serial");
        let after = server.dig(&["example.com", "SOA", "+short"]);
        assert!((serial(&before)..=serial(&before) + 1).contains(&serial(&after)), "{before} {after}");
    }
    eventually(PATIENCE, || server.dig(&["www.example.com", "+short"]) == "192.0.2.1");
}
