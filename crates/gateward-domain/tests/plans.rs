//! Plans over providers in memory: what they hold, the order they are applied in, and what happens when something is
//! in the way.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateward_domain::declaration::SecretSource;
use gateward_domain::plan::{Action, Document, Op, Options, Plan, make, to_markdown, to_text};
use gateward_domain::provider::{By, Fleet, MemoryProvider, Provider};
use gateward_domain::{Account, Current, Declaration, Desired, Error, Secrets, State, apply};
use gateward_model::Secret;
use gateward_zone::{Change, Name, Record, Rtype, parse_record};
use proptest::prelude::*;

const MESSAGING: &str = include_str!("../../../examples/domains/messaging.yaml");
const VOICE: &str = include_str!("../../../examples/domains/voice.yaml");
const CONTROL: &str = "http://127.0.0.1:8053";

/// A declaration and the one server that all its groups share.
struct World {
    declaration: Declaration,
    server: Arc<MemoryProvider>,
}

struct Fixed;

impl Secrets for Fixed {
    fn secret(&self, key: &str, source: &SecretSource) -> Result<Secret, String> {
        match source {
            SecretSource::Generate => Ok(Secret::new("c2VjcmV0")),
            _ => Err(format!("no secret for {key}")),
        }
    }
}

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

fn record(text: &str) -> Record {
    parse_record(text, &Name::root(), None).unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

fn by() -> By {
    By { actor: "tester".to_owned(), force: None }
}

fn everywhere() -> Options {
    Options { allow_cross_environment: true, ..Options::default() }
}

impl World {
    fn new(text: &str) -> Self {
        World { declaration: declare(text), server: Arc::default() }
    }

    fn fleet(&self) -> Fleet<'_> {
        let mut fleet = Fleet::new();
        fleet.add(CONTROL, &*self.server);
        fleet
    }

    fn current(&self) -> Current {
        Current::read(&self.declaration, &self.fleet()).expect("in memory")
    }

    fn plan(&self, options: &Options) -> Result<Plan, Error> {
        make(&self.declaration, &self.current(), options)
    }

    fn document(&self) -> Document {
        Document::new(self.plan(&everywhere()).expect("a plan"))
    }

    fn apply(&self, document: &Document) -> Result<Account, Error> {
        apply(document, &self.declaration, &self.fleet(), &Fixed, &by())
    }

    /// Everything declared is served.
    fn bootstrapped(text: &str) -> Self {
        let world = World::new(text);
        let account = world.apply(&world.document()).expect("applied");
        assert!(account.is_complete(), "{}", account.to_text());
        world
    }

    /// Changes a zone behind the declaration's back.
    fn meddle(&self, origin: &str, changes: &[Change]) {
        let origin = name(origin);
        let serial = self.server.zone(&origin).expect("in memory").expect("a zone").serial;
        self.server
            .change(&origin, serial, changes, &By { actor: "somebody".to_owned(), force: None })
            .expect("changed");
    }

    fn records(&self, origin: &str) -> BTreeSet<Record> {
        self.server.zone(&name(origin)).expect("in memory").expect(origin).records.into_iter().collect()
    }
}

fn declare(text: &str) -> Declaration {
    Declaration::read(text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn changed(plan: &Plan) -> Vec<String> {
    let zones = plan.zones.iter();
    let lines = zones.flat_map(|zone| {
        zone.changes.iter().map(|change| {
            let sign = if change.op == Op::Add { '+' } else { '-' };
            format!("{sign} {}", change.record)
        })
    });
    lines.collect()
}

#[test]
fn a_new_domain_is_planned_whole() {
    let world = World::new(MESSAGING);
    let plan = world.plan(&everywhere()).expect("a plan");
    assert_eq!(plan.zones.len(), 7);
    assert!(plan.zones.iter().all(|zone| zone.action == Action::Create && zone.base_serial.is_none()));
    assert_eq!(plan.blast_radius.environments, ["dev", "prod"]);
    assert_eq!(plan.blast_radius.regions, ["dev/us-east-1", "prod/eu-west-1", "prod/us-east-1"]);
    assert_eq!(plan.keys.len(), 6);
    let root = &plan.zones[0];
    let records: Vec<&str> = root.changes.iter().map(|change| change.record.as_str()).collect();
    for expected in [
        "messaging.example. 3600 IN NS ns1.messaging.example.",
        "ns1.messaging.example. 3600 IN A 192.0.2.1",
        "ns2.messaging.example. 3600 IN AAAA 2001:db8:2::1",
        "prod.messaging.example. 3600 IN NS ns2.prod.messaging.example.",
        "ns2.prod.messaging.example. 3600 IN A 198.51.100.11",
        "messaging.example. 60 IN TXT \"v=spf1 mx -all\"",
        "www.messaging.example. 60 IN CNAME messaging.example.",
        "_gateward.messaging.example. 3600 IN TXT \"heritage=gateward,gateward/root=messaging.example.,gateward/level=root,gateward/owner=platform-team\"",
    ] {
        assert!(records.contains(&expected), "{expected} is not in {records:#?}");
    }
    let delegation = root.changes.iter().find(|change| change.record.starts_with("prod.messaging.example. 3600 IN NS"));
    assert_eq!(delegation.unwrap().owner, "sre-prod", "a delegation is its child's");
}

#[test]
fn children_are_made_before_their_parents() {
    let world = World::bootstrapped(MESSAGING);
    let created: Vec<String> = world.server.log().into_iter().filter(|line| line.starts_with("create")).collect();
    let at = |zone: &str| created.iter().position(|line| *line == format!("create {zone}")).expect(zone);
    assert!(at("archive.eu-west-1.prod.messaging.example.") < at("eu-west-1.prod.messaging.example."));
    assert!(at("eu-west-1.prod.messaging.example.") < at("prod.messaging.example."));
    assert!(at("prod.messaging.example.") < at("messaging.example."));
    assert!(world.plan(&everywhere()).unwrap().is_empty(), "the second plan has nothing to do");
}

#[test]
fn environments_are_not_crossed_without_saying_so() {
    let world = World::new(MESSAGING);
    match world.plan(&Options::default()) {
        Err(Error::CrossEnvironment { environments }) => assert_eq!(environments, ["dev", "prod"]),
        other => panic!("{other:?}"),
    }
    // One environment at a time; the root's own part belongs to none.
    let only = Options { environment: Some("dev".to_owned()), ..Options::default() };
    let plan = world.plan(&only).expect("one environment");
    let origins: Vec<&str> = plan.zones.iter().map(|zone| zone.origin.as_str()).collect();
    assert_eq!(origins, ["dev.messaging.example.", "us-east-1.dev.messaging.example."]);
    let keys: Vec<&str> = plan.keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(keys, ["external-dns.dev"], "keys of other environments are not made");
    let nowhere = Options { environment: Some("stage".to_owned()), ..Options::default() };
    assert!(matches!(world.plan(&nowhere), Err(Error::NoEnvironment { .. })));

    let world = World::bootstrapped(MESSAGING);
    let moved = MESSAGING.replace("192.0.2.11]", "192.0.2.12]");
    let world = World { declaration: declare(&moved), ..world };
    let plan = world.plan(&Options::default()).expect("prod only");
    assert_eq!(plan.blast_radius.environments, ["prod"]);
    assert_eq!(plan.zones.len(), 2, "glue and the address itself: {:#?}", changed(&plan));
    let dev = Options { environment: Some("dev".to_owned()), ..Options::default() };
    assert!(world.plan(&dev).expect("nothing of dev").is_empty());
}

#[test]
fn a_plan_that_was_not_allowed_to_cross_is_not_applied() {
    let world = World::new(MESSAGING);
    let mut plan = world.plan(&everywhere()).unwrap();
    plan.allow_cross_environment = false;
    assert!(matches!(world.apply(&Document::new(plan)), Err(Error::CrossEnvironment { .. })));
    assert!(world.server.log().is_empty());
}

#[test]
fn what_runtimes_registered_stays() {
    let world = World::bootstrapped(MESSAGING);
    let region = "us-east-1.prod.messaging.example.";
    let registered = [
        "inbox.us-east-1.prod.messaging.example. 300 IN A 10.0.0.1",
        "deep.down.inbox.us-east-1.prod.messaging.example. 300 IN A 10.0.0.2",
        "a-inbox.us-east-1.prod.messaging.example. 300 IN TXT \"heritage=external-dns\"",
        "relay.us-east-1.prod.messaging.example. 30 IN A 10.0.0.3",
    ];
    world.meddle(region, &registered.map(|text| Change::Add(record(text))));
    assert!(world.plan(&everywhere()).unwrap().is_empty());
    // What is not theirs is drift: another type beside, a static service's name, a delegation.
    let drift = [
        "a-inbox.us-east-1.prod.messaging.example. 300 IN A 10.0.0.4",
        "smtp.us-east-1.prod.messaging.example. 30 IN A 10.0.0.5",
        "x.inbox.us-east-1.prod.messaging.example. 300 IN NS ns.example.org.",
    ];
    world.meddle(region, &drift.map(|text| Change::Add(record(text))));
    let plan = world.plan(&everywhere()).unwrap();
    let mut expected = drift.map(|text| format!("- {text}")).to_vec();
    let mut found = changed(&plan);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let smtp = plan.zones[0].changes.iter().find(|change| change.record.starts_with("smtp")).unwrap();
    assert_eq!(smtp.owner, "edge-team");
}

#[test]
fn a_stale_plan_is_refused_and_says_what_changed() {
    let world = World::bootstrapped(VOICE);
    let world = World { declaration: declare(&VOICE.replace("203.0.113.80", "203.0.113.81")), ..world };
    let document = world.document();
    world.meddle("voice.example.", &[Change::Add(record("extra.voice.example. 60 IN A 203.0.113.5"))]);
    let before = world.server.log();
    let Err(Error::Stale { zones }) = world.apply(&document) else { panic!("not refused") };
    assert_eq!(zones.len(), 1);
    assert_eq!((zones[0].planned, zones[0].served), (Some(1), Some(2)));
    assert_eq!(zones[0].changes, ["+ extra.voice.example. 60 IN A 203.0.113.5"]);
    assert_eq!(zones[0].actors, ["somebody"]);
    assert_eq!(world.server.log(), before, "nothing was done");
}

#[test]
fn a_plan_is_its_checksum() {
    let world = World::new(VOICE);
    let document = world.document();
    assert_eq!(document, world.document(), "the same state gives the same plan");
    let text = document.to_json();
    assert_eq!(Document::from_json(text.as_bytes()).unwrap(), document);
    for (from, to) in [("203.0.113.80", "203.0.113.66"), ("gateward.plan/1", "gateward.plan/9"), ("\"op\"", "\"no\"")] {
        assert!(text.contains(from));
        let error = Document::from_json(text.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert!(matches!(error, Error::BadPlan { .. }), "{from}: {error}");
    }
    assert!(Document::from_json(&text.as_bytes()[..text.len() / 2]).is_err());
    let other = World::new(MESSAGING);
    assert!(matches!(other.apply(&document), Err(Error::BadPlan { .. })), "a plan of another root");
}

#[test]
fn a_failed_zone_holds_back_what_leads_to_it_and_nothing_else() {
    let world = World::new(VOICE);
    let region = name("us-east-1.prod.voice.example.");
    world.server.set_broken(&region, true);
    let document = world.document();
    let account = world.apply(&document).expect("it begins");
    assert!(!account.is_complete());
    let zone = |origin: &str| account.zones.iter().find(|zone| zone.origin == origin).unwrap();
    assert!(matches!(zone("us-east-1.prod.voice.example.").steps[0].state, State::Failed(_)));
    let prod = world.records("prod.voice.example.");
    let delegations: Vec<String> =
        prod.iter().filter(|record| record.rtype == Rtype::NS).map(|record| record.owner.to_string()).collect();
    assert!(!delegations.contains(&region.to_string()), "nothing leads to what is not there: {delegations:?}");
    assert!(delegations.contains(&"eu-west-1.prod.voice.example.".to_owned()));
    assert!(!world.records("us-east-1.dev.voice.example.").is_empty(), "others went on");
    // Once the cause is gone, the same plan continues.
    world.server.set_broken(&region, false);
    let account = world.apply(&document).expect("it continues");
    assert!(account.is_complete(), "{}", account.to_text());
    assert!(world.plan(&everywhere()).unwrap().is_empty());
    // And a third time there is nothing left to do.
    let before = world.server.log();
    assert!(world.apply(&document).expect("done already").is_complete());
    let changes = |log: &[String]| log.iter().filter(|line| !line.starts_with("policy")).count();
    assert_eq!(changes(&world.server.log()), changes(&before));
}

#[test]
fn what_goes_is_left_only_when_nothing_leads_to_it() {
    let world = World::bootstrapped(VOICE);
    let at = VOICE.find("  dev:").expect("the last environment");
    let world = World { declaration: declare(&VOICE[..at]), ..world };
    let before = world.server.log().len();
    let plan = world.plan(&Options::default()).expect("one environment");
    assert_eq!(plan.blast_radius.environments, ["dev"]);
    let account = world.apply(&Document::new(plan)).expect("applied");
    assert!(account.is_complete(), "{}", account.to_text());
    assert_eq!(
        world.server.log()[before..],
        [
            "change voice.example.",
            "change dev.voice.example.",
            "delete us-east-1.dev.voice.example.",
            "delete dev.voice.example."
        ]
    );
    assert!(world.plan(&everywhere()).unwrap().is_empty());
}

#[test]
fn removing_what_is_protected_is_announced() {
    let world = World::bootstrapped(VOICE);
    let text = VOICE.replace(
        "      eu-west-1:\n        services:\n          sip:",
        "      ap-south-1:\n        services:\n          sip:",
    );
    let world = World { declaration: declare(&text), ..world };
    let plan = world.plan(&everywhere()).expect("a plan");
    let note = "eu-west-1.prod.voice.example. is protected against deletion; applying this needs --force-token";
    assert!(plan.notes.contains(&note.to_owned()), "{:?}", plan.notes);
}

#[test]
fn a_zone_stays_as_long_as_its_parent_leads_to_it() {
    let world = World::bootstrapped(VOICE);
    let at = VOICE.find("  dev:").expect("the last environment");
    let world = World { declaration: declare(&VOICE[..at]), ..world };
    world.server.set_broken(&name("voice.example."), true);
    let account = world.apply(&world.document()).expect("it begins");
    let dev = account.zones.iter().find(|zone| zone.origin == "dev.voice.example.").unwrap();
    assert!(matches!(&dev.steps.last().unwrap().state, State::Skipped(reason) if reason.contains("voice.example.")));
    assert!(!world.records("dev.voice.example.").is_empty());
}

#[test]
fn name_servers_are_replaced_without_a_gap() {
    let world = World::bootstrapped(VOICE);
    let moved =
        VOICE.replace("ns2.voice.example, addresses: [203.0.113.2]", "ns3.voice.example, addresses: [203.0.113.3]");
    let world = World { declaration: declare(&moved), ..world };
    let document = world.document();
    let before = world.server.log().len();
    assert!(world.apply(&document).unwrap().is_complete());
    let log = world.server.log()[before..].to_vec();
    let rounds: Vec<&String> = log.iter().filter(|line| **line == "change voice.example.").collect();
    assert_eq!(rounds.len(), 2, "new servers are added before old ones go: {log:?}");
    assert_eq!(log.iter().position(|line| line == "change voice.example."), Some(5), "children come first: {log:?}");
    assert!(world.plan(&everywhere()).unwrap().is_empty());
}

#[test]
fn zones_of_others_are_not_taken_over_silently() {
    let world = World::new(VOICE);
    let text = "@ 60 IN SOA a. b. 7 3600 900 1209600 60\n@ 60 IN NS ns.example.org.\nold 60 IN A 192.0.2.1\n";
    world.server.create_zone(&name("voice.example."), text, &by()).unwrap();
    world.server.create_zone(&name("legacy.voice.example."), text, &by()).unwrap();
    match world.plan(&everywhere()) {
        Err(Error::NotOurs { zones }) => assert_eq!(zones, [name("voice.example.")]),
        other => panic!("{other:?}"),
    }
    let adopt = Options { adopt: true, ..everywhere() };
    let plan = world.plan(&adopt).expect("said so");
    assert_eq!(plan.zones[0].base_serial, Some(7));
    assert!(changed(&plan).contains(&"- old.voice.example. 60 IN A 192.0.2.1".to_owned()));
    assert!(plan.notes[0].starts_with("legacy.voice.example. is served but not declared"));
    assert!(plan.zones.iter().all(|zone| zone.origin != "legacy.voice.example."));
}

#[test]
fn rollback_gives_old_content_a_new_serial() {
    let world = World::bootstrapped(VOICE);
    let before = world.records("voice.example.");
    world.meddle("voice.example.", &[Change::Add(record("x.voice.example. 60 IN A 192.0.2.1"))]);
    assert_eq!(world.server.rollback(&name("voice.example."), 1, &by()).unwrap(), 3);
    let plain =
        |records: BTreeSet<Record>| records.into_iter().filter(|one| one.rtype != Rtype::SOA).collect::<Vec<_>>();
    assert_eq!(plain(world.records("voice.example.")), plain(before));
}

#[test]
fn plans_can_be_read_by_people() {
    let world = World::bootstrapped(VOICE);
    let empty = world.document();
    assert_eq!(to_text(&empty), "nothing to do: what is served is what is declared\n");
    let world = World { declaration: declare(&VOICE.replace("203.0.113.80", "203.0.113.81")), ..world };
    let document = world.document();
    let text = to_text(&document);
    for line in [
        "change zone voice.example. (root, voice-platform, serial 1)",
        "  - voice.example. 30 IN A 203.0.113.80  ; voice-platform",
        "  + voice.example. 30 IN A 203.0.113.81  ; voice-platform",
        &format!("plan {}", document.checksum),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let markdown = to_markdown(&document);
    assert!(markdown.contains("| `voice.example.` | change | 1 | 1 | 1 | 1 | voice-platform |"), "{markdown}");
    assert!(markdown.contains("- voice.example. 30 IN A 203.0.113.80"), "{markdown}");
}

/// Records that somebody may have left in a zone.
fn clutter() -> impl Strategy<Value = Vec<(usize, String)>> {
    let label = prop_oneof![Just("sip"), Just("media"), Just("dialplan"), Just("a-dialplan"), Just("zz"), Just("@")];
    let below = prop_oneof![Just(""), Just("deep."), Just("_acme-challenge.")];
    let data = prop_oneof![
        (0_u8..4).prop_map(|host| format!("A 10.0.0.{host}")),
        (0_u8..4).prop_map(|host| format!("TXT \"t{host}\"")),
        Just("NS ns.example.org.".to_owned()),
        Just("CAA 0 issue \"ca.example\"".to_owned()),
    ];
    let one = (0_usize..7, below, label, prop_oneof![Just(30), Just(60)], data);
    proptest::collection::vec(
        one.prop_map(|(zone, below, label, ttl, data)| (zone, format!("{below}{label} {ttl} IN {data}"))),
        0..40,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is served, applying the plan gives what is declared and what runtimes may keep, and nothing else.
    #[test]
    fn applying_a_plan_gives_what_is_desired(clutter in clutter(), removed in proptest::collection::vec((0_usize..7, 0_usize..20), 0..20)) {
        let world = World::bootstrapped(VOICE);
        let desired = Desired::of(&world.declaration);
        for (zone, text) in clutter {
            let origin = &desired.zones[zone % desired.zones.len()].origin;
            let text = text.replacen("@ ", &format!("{origin} "), 1).replace(".@", "");
            if let Ok(record) = parse_record(&text.replace("deep.voice", "deep.x.voice"), origin, None) && record.owner.is_in(origin) {
                world.meddle(&origin.to_string(), &[Change::Add(record)]);
            }
        }
        for (zone, nth) in removed {
            let origin = &desired.zones[zone % desired.zones.len()].origin;
            let records = world.records(&origin.to_string());
            let victim = records.iter().filter(|one| one.rtype != Rtype::SOA).nth(nth % records.len());
            if let Some(victim) = victim.cloned() {
                let mark = victim.owner.first_label() == Some(b"_gateward");
                if !mark {
                    world.meddle(&origin.to_string(), &[Change::Remove(victim)]);
                }
            }
        }
        let expected: Vec<BTreeSet<Record>> = desired.zones.iter().map(|zone| {
            let current: Vec<Record> = world.records(&zone.origin.to_string()).into_iter().collect();
            zone.target(&current).into_iter().filter(|one| one.rtype != Rtype::SOA).collect()
        }).collect();
        let account = world.apply(&world.document()).expect("applied");
        prop_assert!(account.is_complete(), "{}", account.to_text());
        for (zone, expected) in desired.zones.iter().zip(expected) {
            let found: BTreeSet<Record> =
                world.records(&zone.origin.to_string()).into_iter().filter(|one| one.rtype != Rtype::SOA).collect();
            prop_assert_eq!(&found, &expected);
            prop_assert!(found.is_superset(&zone.records), "everything declared is there");
            prop_assert!(found.iter().all(|one| zone.records.contains(one) || zone.leaves_alone(one)), "and nothing of others");
        }
        prop_assert!(world.plan(&everywhere()).expect("a plan").is_empty(), "a second plan has nothing to do");
    }
}
