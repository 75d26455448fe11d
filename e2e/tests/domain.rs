//! A company's domain from its declaration to names that answer, with the real server and the real commands.

use gateward_e2e::names::NameServer;
use gateward_testkit::{TempDir, eventually, gateward_command};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server with a control API and a declaration that leads to it.
struct Company {
    server: NameServer,
    folder: TempDir,
}

impl Company {
    /// The messaging domain of the examples, its servers all at one.
    fn start() -> Self {
        let control = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let server = NameServer::start(&[], &["--control-listen", &control.to_string()]);
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/domains/messaging.yaml");
        let text = std::fs::read_to_string(example).expect("the example is there");
        let text = text
            .replace("127.0.0.1:8053", &control.to_string())
            .replace("127.0.0.1:5353", &server.address().to_string());
        let folder = TempDir::new().expect("a directory can be made");
        std::fs::write(folder.path().join("domain.yaml"), text).expect("files can be written");
        Company { server, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn change(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("domain.yaml")).expect("the declaration is there");
        assert!(text.contains(from), "{from}");
        std::fs::write(self.path("domain.yaml"), text.replace(from, to)).expect("files can be written");
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } =
            gateward_command().current_dir(self.folder.path()).arg("domain").args(args).output().expect("it runs");
        (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    }

    #[track_caller]
    fn must(&self, args: &[&str]) -> String {
        let (code, text) = self.run(args);
        assert_eq!(code, Some(0), "{args:?}: {text}");
        text
    }

    #[track_caller]
    fn bootstrap(&self) {
        self.must(&["plan", "--allow-cross-environment", "--out", "plan.json"]);
        self.must(&["apply", "--plan", "plan.json", "--keys-dir", "keys", "--allow-cross-environment"]);
    }

    fn short(&self, name: &str) -> String {
        self.server.dig(&[name, "+short"])
    }
}

#[test]
fn a_new_domain_answers_through_its_parents() {
    let company = Company::start();
    let plan = company.must(&["plan", "--allow-cross-environment", "--out", "plan.json"]);
    assert!(plan.contains("environments: dev, prod"), "{plan}");
    let began = Instant::now();
    company.must(&["apply", "--plan", "plan.json", "--keys-dir", "keys", "--allow-cross-environment"]);
    let verified = company.must(&["verify", "--wait", "5"]);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(verified.contains(" 0 wrong"), "{verified}");
    assert_eq!(company.short("smtp.us-east-1.prod.messaging.example"), "192.0.2.35\n192.0.2.36");
    assert_eq!(company.short("cold.archive.eu-west-1.prod.messaging.example"), "203.0.113.7");
    // Each level is a zone with its owner; a key is there for whoever writes.
    for (zone, owner) in [
        ("messaging.example", "platform-team"),
        ("dev.messaging.example", "messaging-devs"),
        ("eu-west-1.prod.messaging.example", "sre-eu"),
    ] {
        let mark = company.server.dig(&["TXT", &format!("_gateward.{zone}"), "+short"]);
        assert!(mark.contains(&format!("gateward/owner={owner}")), "{zone}: {mark}");
        assert!(company.server.dig(&[zone, "SOA"]).contains("flags: qr aa"), "{zone}");
    }
    assert!(std::fs::read_dir(company.path("keys")).expect("keys were written").count() >= 5);
    // Nothing is left to do, and nothing has drifted.
    assert!(company.must(&["plan"]).contains("nothing to do"));
    assert_eq!(company.run(&["drift"]).0, Some(0));
    let status = company.must(&["status"]);
    assert!(status.contains("archive.eu-west-1.prod.messaging.example."), "{status}");
}

#[test]
fn plans_cross_no_environment_unasked_and_do_not_apply_to_what_they_were_not_made_from() {
    let company = Company::start();
    let (code, text) = company.run(&["plan"]);
    assert!(code == Some(1) && text.contains("--allow-cross-environment"), "{code:?} {text}");
    company.bootstrap();
    company.change("192.0.2.35, 192.0.2.36", "192.0.2.35, 192.0.2.37");
    company.must(&["plan", "--out", "first.json"]);
    company.change("192.0.2.35, 192.0.2.37", "192.0.2.35, 192.0.2.38");
    company.must(&["plan", "--out", "second.json"]);
    company.must(&["apply", "--plan", "second.json"]);
    assert_eq!(company.short("smtp.us-east-1.prod.messaging.example"), "192.0.2.35\n192.0.2.38");
    let (code, text) = company.run(&["apply", "--plan", "first.json"]);
    assert!(code == Some(1) && text.contains("stale"), "{code:?} {text}");
    assert_eq!(company.short("smtp.us-east-1.prod.messaging.example"), "192.0.2.35\n192.0.2.38");
    // Back to the first version, under a serial that is higher than both.
    let zone = "us-east-1.prod.messaging.example";
    company.must(&["rollback", "--zone", zone, "--to", "1"]);
    assert_eq!(company.short("smtp.us-east-1.prod.messaging.example"), "192.0.2.35\n192.0.2.36");
    let soa = company.server.dig(&[zone, "SOA", "+short"]);
    assert_eq!(soa.split(' ').nth(2), Some("3"), "{soa}");
    // What was rolled back is drift now; repairing it brings the declaration back.
    assert_eq!(company.run(&["drift"]).0, Some(3));
    company.must(&["drift", "--repair"]);
    eventually(PATIENCE, || company.short("smtp.us-east-1.prod.messaging.example") == "192.0.2.35\n192.0.2.38");
    assert_eq!(company.run(&["drift"]).0, Some(0));
}
