//! A company's domain from its declaration to names that answer, with the real server and the real commands.

use gateward_e2e::names::NameServer;
use gateward_testkit::{TempDir, eventually, free_port, free_port_of, gateward_command};
use std::net::{Ipv4Addr, SocketAddr};
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
        let control = free_port();
        let server = NameServer::start(&[], &["--control-listen", &control.to_string()]);
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/domains/messaging.yaml");
        let text = std::fs::read_to_string(example).expect("the example is there");
        let text = text
            .replace("127.0.0.1:8053", &control.to_string())
            .replace("127.0.0.1:5300", &server.address().to_string());
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
        domain(self.folder.path(), args)
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

/// Runs a command of `gateward domain` in a folder: its exit code and what it says.
fn domain(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        gateward_command().current_dir(folder).arg("domain").args(args).output().expect("it runs");
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
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
    assert_eq!(company.run(&["drift", "--adopt"]).0, Some(2));
    company.change("198.51.100.77", "198.51.100.78");
    let (code, text) = company.run(&["drift", "--repair"]);
    assert!(code == Some(1) && text.contains("touches 2 environments (dev, prod)"), "{code:?} {text}");
    company.must(&["drift", "--repair", "--environment", "dev"]);
    // A plan in a file says itself what it may touch.
    company.must(&["plan", "--environment", "prod", "--out", "prod.json"]);
    for (flags, expected) in [
        (&["--environment", "dev"][..], "made for prod, not for dev"),
        (&["--allow-cross-environment"], "made without --allow-cross-environment"),
        (&["--adopt"], "made without --adopt"),
    ] {
        let (code, text) = company.run(&[&["apply", "--plan", "prod.json"], flags].concat());
        assert!(code == Some(1) && text.contains(expected), "{flags:?}: {code:?} {text}");
    }
    company.must(&["drift", "--repair"]);
    eventually(PATIENCE, || company.short("smtp.us-east-1.prod.messaging.example") == "192.0.2.35\n192.0.2.38");
    assert_eq!(company.run(&["drift"]).0, Some(0));
}

/// Root, environment and region at servers of their own, with addresses of their own.
struct Levels {
    folder: TempDir,
    addresses: [SocketAddr; 3],
    controls: [SocketAddr; 3],
}

impl Levels {
    fn new() -> Self {
        let folder = TempDir::new().expect("a directory can be made");
        let hosts = [11, 12, 13].map(|last| Ipv4Addr::new(127, 0, 0, last));
        let levels = Levels { folder, addresses: hosts.map(free_port_of), controls: hosts.map(free_port_of) };
        levels.declare(&["us-east-1", "eu-west-1"], "");
        levels
    }

    fn declare(&self, regions: &[&str], guardrails: &str) {
        let group = |index: usize, name: &str, zone: &str| {
            let (address, control) = (self.addresses[index], self.controls[index]);
            let server =
                format!("{{ name: ns1.{zone}example.com, addresses: [{}], query: '{address}' }}", address.ip());
            format!("  {name}: {{ control: 'http://{control}', servers: [{server}] }}\n")
        };
        let regions: String = regions
            .iter()
            .map(|region| {
                format!(
                    "      {region}:\n        served_by: regions\n        services:\n          www: {{ owner: web, runtime: static, \
                     records: {{ '@': {{ A: 192.0.2.1 }} }} }}\n"
                )
            })
            .collect();
        let text = format!(
            "version: 1\nroot: example.com\nowner: platform\nserved_by: core\nname_servers:\n{}{}{}{guardrails}environments:\n  \
             prod:\n    served_by: prod\n    regions:\n{regions}",
            group(0, "core", ""),
            group(1, "prod", "prod."),
            group(2, "regions", "use1."),
        );
        std::fs::write(self.path("domain.yaml"), text).expect("files can be written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, index: usize, flags: &[&str]) -> NameServer {
        let control = self.controls[index].to_string();
        NameServer::start_at(self.addresses[index], &[], &[&["--control-listen", &control], flags].concat())
    }

    #[track_caller]
    fn run(&self, args: &[&str], expected: i32) -> String {
        let (code, text) = domain(self.folder.path(), args);
        assert_eq!(code, Some(expected), "{args:?}: {text}");
        text
    }
}

#[test]
fn levels_at_servers_of_their_own_are_proved_by_their_referrals_alone() {
    let levels = Levels::new();
    let (root, prod) = (levels.start(0, &[]), levels.start(1, &[]));
    let regions = levels.start(2, &["--max-records", "3"]);
    levels.run(&["plan", "--out", "plan.json"], 0);
    // The regions' server takes nothing: nothing leads there, and the rest is made.
    let account = levels.run(&["apply", "--plan", "plan.json"], 1);
    assert!(account.contains("held back") && account.contains("max-records"), "{account}");
    assert!(prod.dig(&["prod.example.com", "SOA"]).contains("flags: qr aa"));
    assert!(prod.dig(&["us-east-1.prod.example.com", "NS"]).contains("NXDOMAIN"));
    let unfinished = levels.run(&["verify", "--query-timeout", "5000"], 1);
    assert!(unfinished.contains("is the zone delegated?"), "{unfinished}");
    // The same plan goes on where it stopped.
    drop(regions);
    let regions = levels.start(2, &[]);
    levels.run(&["apply", "--plan", "plan.json"], 0);
    let verified = levels.run(&["verify", "--wait", "20", "--query-timeout", "5000"], 0);
    assert!(verified.contains("example.com. -> prod.example.com. -> us-east-1.prod.example.com."), "{verified}");
    assert!(!verified.contains("by the control API"), "{verified}");
    let referral = root.dig(&["www.us-east-1.prod.example.com"]);
    assert!(!referral.contains("flags: qr aa") && referral.contains("ns1.prod.example.com."), "{referral}");
    assert!(levels.run(&["plan"], 0).contains("nothing to do"));
    // A server that is away is no proof.
    drop(regions);
    levels.run(&["verify", "--query-timeout", "500"], 1);
}

#[test]
fn two_people_let_a_protected_level_go_and_nothing_happens_without_them() {
    let levels = Levels::new();
    let servers = [0, 1, 2].map(|index| levels.start(index, &[]));
    let key = |person: &str| {
        let printed = levels.run(&["force-token", "keygen", "--out", &format!("{person}.key")], 0);
        printed.split('"').nth(1).expect("a key").to_owned()
    };
    let guardrails = format!(
        "defaults: {{ guardrails: {{ force: {{ keys: {{ alice: '{}', bob: '{}' }} }} }} }}\n",
        key("alice"),
        key("bob")
    );
    levels.declare(&["us-east-1", "eu-west-1"], &guardrails);
    levels.run(&["plan", "--out", "plan.json"], 0);
    levels.run(&["apply", "--plan", "plan.json"], 0);
    levels.declare(&["us-east-1"], &guardrails);
    let plan = levels.run(&["plan", "--out", "plan.json"], 0);
    assert!(plan.contains("REFUSED (delete, protected-zone)"), "{plan}");
    let refused = levels.run(&["apply", "--plan", "plan.json"], 1);
    assert!(refused.contains("nothing of it was done") && refused.contains("force-token issue"), "{refused}");
    let region = "eu-west-1.prod.example.com";
    assert!(servers[1].dig(&[region, "NS"]).contains("ns1.use1.example.com."), "the delegation stays");
    // The plan prints the command.
    let command =
        plan.lines().find_map(|line| line.split_once("gateward domain force-token issue ")).expect("it is said").1;
    let blanks = [("'WHY'", "closed"), ("NAME", "alice"), ("NAME", "bob"), ("FILE", "alice.key")];
    let command = blanks.iter().fold(command.to_owned(), |command, (blank, with)| command.replacen(blank, with, 1));
    let mut issue = vec!["force-token", "issue"];
    issue.extend(command.split(' '));
    std::fs::write(levels.path("token"), levels.run(&issue, 0)).expect("files can be written");
    assert!(levels.run(&["force-token", "show", "--token-file", "token"], 0).contains("protected-zone"));
    let approved = levels.run(&["force-token", "approve", "--token-file", "token", "--key", "bob.key"], 0);
    let token = approved.split_whitespace().find(|word| word.starts_with("v1.")).expect("a token").to_owned();
    levels.run(&["apply", "--plan", "plan.json", "--force-token", &token], 0);
    assert!(servers[2].dig(&[region, "SOA"]).contains("REFUSED"));
    assert!(servers[1].dig(&[region, "NS"]).contains("NXDOMAIN"));
    levels.run(&["verify", "--wait", "20", "--query-timeout", "5000"], 0);
}
