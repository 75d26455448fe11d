//! Plans over providers in memory: what they hold, the order they are applied in, and what happens when something is
//! in the way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gateward_domain::declaration::SecretSource;
use gateward_domain::plan::{Action, Document, Op, Options, Plan, make, to_markdown, to_text};
use gateward_domain::provider::{By, Fleet, MemoryProvider, Provider, ProviderError};
use gateward_domain::{Account, Author, Current, Declaration, Desired, Error, Secrets, State, Tokens, apply};
use gateward_model::Secret;
use gateward_zone::force::{Claims, SigningKey, approve, issue};
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

/// A second of January 2027.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// The voice domain without guardrails.
fn loose() -> String {
    let none = "guardrails: { max_deleted_percent: 100, max_changed_percent: 100, lock_apex: false, deletion_protection: false }";
    VOICE.replace("guardrails: { max_deleted_percent: 20 }", none)
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
        self.apply_as(document, &Author::new("tester"))
    }

    fn apply_as(&self, document: &Document, author: &Author) -> Result<Account, Error> {
        apply(document, &self.declaration, &self.fleet(), &Fixed, author, now())
    }

    /// Everything declared is served, and alice and bob sign exceptions; with the declaration's text. `more` guardrails end with a comma.
    fn with_signers(more: &str) -> (Self, String) {
        let people =
            [("alice", 1), ("bob", 2)].map(|(name, seed)| format!("{name}: '{}'", key(seed).public_key().to_base64()));
        let keys = people.join(", ");
        let guarded = format!("guardrails: {{ max_deleted_percent: 20, {more}force: {{ keys: {{ {keys} }} }} }}");
        let text = VOICE.replace("guardrails: { max_deleted_percent: 20 }", &guarded);
        (Self::bootstrapped(&text), text)
    }

    /// A region of the declaration goes, and another one comes.
    fn with_a_region_moved(self, text: &str) -> Self {
        let moved = text.replace(
            "      eu-west-1:\n        services:\n          sip:",
            "      ap-south-1:\n        services:\n          sip:",
        );
        Self { declaration: declare(&moved), ..self }
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
    // One environment at a time; with the root, which is not there yet and without which nothing leads anywhere.
    let only = Options { environment: Some("dev".to_owned()), ..Options::default() };
    let plan = world.plan(&only).expect("one environment");
    let origins: Vec<&str> = plan.zones.iter().map(|zone| zone.origin.as_str()).collect();
    assert_eq!(origins, ["messaging.example.", "dev.messaging.example.", "us-east-1.dev.messaging.example."]);
    assert_eq!(plan.blast_radius.environments, ["dev"]);
    assert!(changed(&plan).iter().all(|line| !line.contains("prod")), "{:#?}", changed(&plan));
    let keys: Vec<&str> = plan.keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(keys, ["external-dns.dev", "transfer.core"], "keys of other environments are not made");
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
    let document = world.document();
    let before = world.server.log();
    let gone = document.plan.zones.iter().find(|zone| zone.action == Action::Delete).expect("a zone that goes");
    let rules: Vec<&str> = gone.needs.iter().flat_map(|need| &need.rules).map(|broken| broken.rule.as_str()).collect();
    assert_eq!((gone.origin.as_str(), &rules[..]), ("eu-west-1.prod.voice.example.", &["protected-zone"][..]));
    let text = to_text(&document);
    assert!(text.contains("deletion_protection: false") && text.contains("REFUSED (delete, protected-zone)"), "{text}");
    assert!(text.contains("nobody can give leave for it"), "{text}");
    // Nothing is begun that would be stopped half-way: the delegation stays too.
    match world.apply(&document) {
        Err(Error::NeedsLeave { steps }) => assert_eq!(steps.len(), 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.server.log(), before);
}

/// The private key of somebody who signs force tokens.
fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).expect("32 octets")
}

fn claims(zone: &str, changes: &str, rules: &[&str]) -> Claims {
    Claims {
        zone: zone.to_owned(),
        rules: rules.iter().map(ToString::to_string).collect(),
        reason: "ticket 42".to_owned(),
        issued_by: "alice".to_owned(),
        approved_by: Some("bob".to_owned()),
        not_before: 1_800_000_000,
        expires: 1_800_003_600,
        changes: changes.to_owned(),
    }
}

/// Claims with two signatures, by the keys of these seeds.
fn signed(claims: &Claims, issuer: u8, approver: u8) -> String {
    approve(&issue(claims, &key(issuer)).expect("plain data"), &key(approver)).expect("it waits for approval")
}

fn token(zone: &str, changes: &str, rules: &[&str]) -> String {
    signed(&claims(zone, changes, rules), 1, 2)
}

#[test]
fn a_token_goes_to_the_changes_that_it_is_for_and_to_nothing_else() {
    let (world, text) = World::with_signers("");
    let world = world.with_a_region_moved(&text);
    let document = world.document();
    let gone = document.plan.zones.iter().find(|zone| zone.action == Action::Delete).expect("a zone that goes");
    let need = &gone.needs[0];
    assert_eq!(need.signers, ["alice", "bob"]);
    assert!(
        to_text(&document)
            .contains(&format!("--zone {} --changes {} --rule protected-zone", gone.origin, need.changes))
    );
    let author = |tokens: &[String]| Author {
        actor: "tester".to_owned(),
        tokens: Tokens::read(tokens.iter().map(String::as_str)).expect("tokens"),
    };
    let right = token(&gone.origin, &need.changes, &["protected-zone"]);
    let right_claims = claims(&gone.origin, &need.changes, &["protected-zone"]);
    let over = Claims { not_before: 1_700_000_000, expires: 1_700_003_600, ..right_claims.clone() };
    let late = signed(&over, 1, 2);
    for wrong in [
        token("voice.example.", &need.changes, &["protected-zone"]),
        token(&gone.origin, &"0".repeat(64), &["protected-zone"]),
        token(&gone.origin, &need.changes, &["freeze"]),
        issue(&right_claims, &key(1)).expect("plain data"),
        signed(&right_claims, 1, 3),
        signed(&over, 1, 2),
    ] {
        let refused = world.apply_as(&document, &author(&[wrong]));
        assert!(matches!(refused, Err(Error::NeedsLeave { .. })), "{refused:?}");
    }
    let other = token("voice.example.", &"1".repeat(64), &["ttl"]);
    let account = world.apply_as(&document, &author(&[other, late, right.clone()])).expect("leave is given");
    assert!(account.is_complete(), "{}", account.to_text());
    assert_eq!(world.server.forced(), [format!("delete {} {right}", gone.origin)]);
    assert!(Tokens::read(["v1.x"]).is_err());
}

#[test]
fn a_zone_that_nothing_protects_goes_with_the_leave_of_those_whom_its_policy_names() {
    let (world, text) = World::with_signers("deletion_protection: false, ");
    let world = world.with_a_region_moved(&text);
    let document = world.document();
    let gone = document.plan.zones.iter().find(|zone| zone.action == Action::Delete).expect("a zone that goes");
    let need = &gone.needs[0];
    let rules: Vec<(&str, &str)> = need.rules.iter().map(|one| (one.rule.as_str(), one.remedy.as_str())).collect();
    assert_eq!((need.step.as_str(), &rules[..]), ("delete", &[("policy", "keep the zone")][..]));
    assert!(matches!(world.apply(&document), Err(Error::NeedsLeave { .. })));
    let leave = token(&gone.origin, &need.changes, &["policy"]);
    let author = Author { actor: "tester".to_owned(), tokens: Tokens::read([leave.as_str()]).expect("a token") };
    let account = world.apply_as(&document, &author).expect("leave is given");
    assert!(account.is_complete(), "{}", account.to_text());
    assert_eq!(world.server.forced(), [format!("delete {} {leave}", gone.origin)]);
}

#[test]
fn guardrails_are_loosened_by_those_only_who_may_give_leave() {
    let (world, text) = World::with_signers("");
    // Stricter ones need nobody's leave.
    let stricter = World { declaration: declare(&text.replace("percent: 20", "percent: 10")), ..world };
    assert!(stricter.document().plan.zones.iter().all(|zone| zone.needs.is_empty()));
    let world = World { declaration: declare(&text.replace("percent: 20", "percent: 90")), ..stricter };
    let document = world.document();
    let needs: Vec<_> =
        document.plan.zones.iter().flat_map(|zone| zone.needs.iter().map(move |need| (zone, need))).collect();
    assert!(!needs.is_empty());
    for (_, need) in &needs {
        assert_eq!((need.step.as_str(), need.rules[0].rule.as_str()), ("policy", "policy"));
        assert_eq!(need.signers, ["alice", "bob"]);
    }
    match world.apply(&document) {
        Err(Error::NeedsLeave { steps }) => assert_eq!(steps.len(), needs.len()),
        other => panic!("{other:?}"),
    }
    let tokens: Vec<String> =
        needs.iter().map(|(zone, need)| token(&zone.origin, &need.changes, &["policy"])).collect();
    let author =
        Author { actor: "tester".to_owned(), tokens: Tokens::read(tokens.iter().map(String::as_str)).expect("tokens") };
    let account = world.apply_as(&document, &author).expect("leave is given");
    assert!(account.is_complete(), "{}", account.to_text());
    let forced = needs.iter().zip(&tokens).map(|((zone, _), token)| format!("policy {} {token}", zone.origin));
    assert_eq!(BTreeSet::from_iter(world.server.forced()), BTreeSet::from_iter(forced));
}

#[test]
fn new_name_servers_of_a_locked_apex_are_refused_before_anything_is_done() {
    let world = World::bootstrapped(VOICE);
    let moved =
        VOICE.replace("ns2.voice.example, addresses: [203.0.113.2]", "ns3.voice.example, addresses: [203.0.113.3]");
    let world = World { declaration: declare(&moved), ..world };
    let text = to_text(&world.document());
    assert!(text.contains("REFUSED (change, apex-lock)") && text.contains("lock_apex: false"), "{text}");
    assert!(matches!(world.apply(&world.document()), Err(Error::NeedsLeave { .. })));
}

#[test]
fn a_frozen_zone_is_not_begun_with() {
    let frozen = loose().replace(
        "lock_apex: false",
        "lock_apex: false, freezes: [{ start: '2027-01-01T00:00:00Z', end: '2027-02-01T00:00:00Z', reason: fair }]",
    );
    let world = World::bootstrapped(&frozen);
    let world = World { declaration: declare(&frozen.replace("203.0.113.80", "203.0.113.81")), ..world };
    match world.apply(&world.document()) {
        Err(Error::NeedsLeave { steps }) => assert_eq!(steps[0].need.rules[0].rule, "freeze"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_policy_that_somebody_changed_makes_a_plan_stale() {
    let text = loose();
    let world = World::bootstrapped(&text);
    let at = text.find("  dev:").expect("the last environment");
    let world = World {
        declaration: declare(&text[..at].replace("max_changed_percent: 100", "max_changed_percent: 90")),
        ..world
    };
    let document = world.document();
    let before = world.server.log();
    for origin in ["dev.voice.example.", "voice.example."] {
        let origin = name(origin);
        let was = world.server.policy(&origin).expect("in memory").expect("a policy");
        world.server.put_policy(&origin, Some(&was), "protected: true\n", &by()).expect("it is the one");
        let Err(Error::Stale { zones }) = world.apply(&document) else { panic!("not refused") };
        assert!(zones.len() == 1 && zones[0].other_policy && zones[0].origin == origin.to_string(), "{zones:?}");
        let stale = Some("protected: true\n");
        assert_eq!(world.server.put_policy(&origin, Some("x"), "", &by()), Err(ProviderError::Conflict));
        world.server.put_policy(&origin, stale, &was, &by()).expect("it is the one");
    }
    assert_eq!(
        world.server.log().iter().filter(|line| !line.starts_with("policy")).count(),
        before.iter().filter(|line| !line.starts_with("policy")).count()
    );
    assert!(world.apply(&document).expect("as it was").is_complete());
}

#[test]
fn what_leads_to_a_zone_is_not_changed_when_the_zone_could_not_be() {
    let other = "name_servers:\n  other:\n    control: http://127.0.0.1:8053\n    servers:\n      - { name: ns9.example.net, addresses: [203.0.113.9] }\n";
    let text = loose().replace("name_servers:\n", other);
    let world = World::bootstrapped(&text);
    let at = text.find("      us-east-1:\n").expect("the first region") + "      us-east-1:\n".len();
    let moved = format!("{}        served_by: other\n{}", &text[..at], &text[at..]);
    let world = World { declaration: declare(&moved), ..world };
    let region = name("us-east-1.prod.voice.example.");
    let delegation = || {
        let of_region = |record: &Record| record.rtype == Rtype::NS && record.owner == region;
        world.records("prod.voice.example.").into_iter().filter(of_region).collect::<Vec<_>>()
    };
    let before = delegation();
    world.server.set_broken(&region, true);
    let document = world.document();
    let account = world.apply(&document).expect("it begins");
    assert_eq!(delegation(), before, "{}", account.to_text());
    assert!(
        account.to_text().contains("'change' of us-east-1.prod.voice.example. was not done"),
        "{}",
        account.to_text()
    );
    world.server.set_broken(&region, false);
    assert!(world.apply(&document).expect("it continues").is_complete());
    assert_eq!(delegation().len(), 1);
}

#[test]
fn environments_can_be_made_one_after_the_other() {
    let world = World::new(MESSAGING);
    for environment in ["prod", "dev"] {
        let only = Options { environment: Some(environment.to_owned()), ..Options::default() };
        let account = world.apply(&Document::new(world.plan(&only).expect("one environment"))).expect("applied");
        assert!(account.is_complete(), "{}", account.to_text());
        let root = world.records("messaging.example.");
        let delegated = |of: &str| root.iter().any(|one| one.rtype == Rtype::NS && one.owner == name(of));
        assert!(
            delegated("prod.messaging.example.") && root.iter().any(|one| one.owner == name("www.messaging.example."))
        );
        assert_eq!(delegated("dev.messaging.example."), environment == "dev");
    }
    assert!(world.plan(&everywhere()).unwrap().is_empty(), "nothing is left out");
}

/// A plan that says less of itself than it does.
#[test]
fn environments_are_counted_by_what_changes() {
    let world = World::new(MESSAGING);
    let mut plan = world.plan(&everywhere()).unwrap();
    plan.allow_cross_environment = false;
    plan.blast_radius.environments.clear();
    plan.zones.iter_mut().for_each(|zone| zone.environment = None);
    assert!(matches!(world.apply(&Document::new(plan)), Err(Error::CrossEnvironment { .. })));
}

#[test]
fn a_level_that_moves_takes_along_what_was_registered() {
    let other = "name_servers:\n  other:\n    control: http://127.0.0.1:8054\n    servers:\n      - { name: ns9.example.net, addresses: [203.0.113.9] }\n";
    let text = loose().replace("name_servers:\n", other);
    let at = text.find("      us-east-1:\n").expect("the first region") + "      us-east-1:\n".len();
    let moved = declare(&format!("{}        served_by: other\n{}", &text[..at], &text[at..]));
    let (here, there) = (MemoryProvider::new(), MemoryProvider::new());
    let mut fleet = Fleet::new();
    fleet.add(CONTROL, &here);
    fleet.add("http://127.0.0.1:8054", &there);
    let run = |declaration: &Declaration| {
        let current = Current::read(declaration, &fleet).expect("in memory");
        let document = Document::new(make(declaration, &current, &everywhere()).expect("a plan"));
        let account = apply(&document, declaration, &fleet, &Fixed, &Author::new("tester"), now()).expect("applied");
        assert!(account.is_complete(), "{}", account.to_text());
        document
    };
    run(&declare(&text));
    let region = name("us-east-1.prod.voice.example.");
    let registered = record("media.us-east-1.prod.voice.example. 30 IN A 10.0.0.3");
    here.change(&region, 1, &[Change::Add(registered.clone())], &by()).expect("changed");
    let document = run(&moved);
    assert!(
        document.plan.notes.iter().any(|note| note.contains("1 records that runtimes registered")),
        "{:?}",
        document.plan.notes
    );
    let zone = there.zone(&region).expect("in memory").expect("it is there");
    assert!(zone.records.contains(&registered) && zone.serial == 3, "the serial rises: {}", zone.serial);
    assert!(here.zone(&region).expect("in memory").is_some(), "caches still ask the old servers");
    // Somebody registers at the old place: it stays until that is known at the new one.
    let late = record("media.us-east-1.prod.voice.example. 30 IN A 10.0.0.4");
    here.change(&region, 2, &[Change::Add(late.clone())], &by()).expect("changed");
    let document = run(&moved);
    assert!(document.plan.is_empty() && document.plan.notes[0].contains("media.us-east-1"), "{:?}", document.plan);
    there.change(&region, 3, &[Change::Add(late)], &by()).expect("changed");
    // Its old policy speaks for the old copy.
    let was = here.policy(&region).expect("in memory");
    here.put_policy(&region, was.as_deref(), "protected: true\n", &by()).expect("it is the one");
    let current = Current::read(&moved, &fleet).expect("in memory");
    let text = to_text(&Document::new(make(&moved, &current, &everywhere()).expect("a plan")));
    assert!(text.contains("it moved away from http://127.0.0.1:8053"), "{text}");
    here.put_policy(&region, Some("protected: true\n"), was.as_deref().unwrap_or_default(), &by())
        .expect("it is the one");
    run(&moved);
    assert!(here.zone(&region).expect("in memory").is_none());
    assert!(run(&moved).plan.is_empty());
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
    let text = loose();
    let world = World::bootstrapped(&text);
    let moved =
        text.replace("ns2.voice.example, addresses: [203.0.113.2]", "ns3.voice.example, addresses: [203.0.113.3]");
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
    assert_eq!(world.server.rollback(&name("voice.example."), 2, 1, &by()).unwrap(), 3);
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
        let world = World::bootstrapped(&loose());
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
