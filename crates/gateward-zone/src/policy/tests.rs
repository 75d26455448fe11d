//! The policy file, and each rule with changes that break it and changes that do not.

use super::*;
use crate::diff::{diff, digest as digest_of_changes, removal};
use crate::force::{Claims, SigningKey, VerifiedForce, approve, issue, verify_force};
use crate::view::{Change, ZoneView};
use crate::zonefile::{ZoneText, parse_zone};

const NOW: i64 = 1_800_000_000;

fn origin() -> Name {
    "example.com".parse().expect("a name")
}

fn zone(text: &str) -> ZoneText {
    let text = format!("$TTL 300\n@ SOA ns1 hostmaster 1 7200 900 1209600 300\n@ NS ns1\n@ NS ns2\n{text}");
    parse_zone(text.as_bytes(), &origin(), "z", &|_| Err(String::new())).expect(&text)
}

fn policy(yaml: &str) -> Policy {
    Policy::from_yaml(yaml.as_bytes(), &origin(), "p").expect(yaml)
}

fn actor(kind: ActorKind) -> Actor {
    let key = (kind == ActorKind::Update).then(|| "external-dns".parse().expect("a name"));
    Actor { name: "alice".to_owned(), key, kind }
}

fn rules(verdict: &Verdict) -> Vec<&'static str> {
    verdict.refusals.iter().map(|refusal| refusal.rule).collect()
}

/// The rules that a change from one version to another breaks.
fn check_as(actor: &Actor, yaml: &str, before: &str, after: &str, expected: &[&str]) -> Verdict {
    let (before, after) = (zone(before), zone(after));
    let changes = diff(&before, &after);
    let verdict = check(&policy(yaml), &origin(), Some(&before), Step::Write(&changes), actor, NOW, None);
    assert_eq!(rules(&verdict), expected, "{yaml}\n{verdict:#?}");
    assert!(
        verdict.refusals.iter().all(|refusal| !refusal.message.is_empty() && refusal.remedy.len() > 10),
        "{verdict:#?}"
    );
    verdict
}

fn check_change(yaml: &str, before: &str, after: &str, expected: &[&str]) -> Verdict {
    check_as(&actor(ActorKind::Api), yaml, before, after, expected)
}

fn check_deletion(yaml: &str, before: &str, expected: &[&str]) {
    let verdict = check(&policy(yaml), &origin(), Some(&zone(before)), Step::Delete, &actor(ActorKind::Api), NOW, None);
    assert_eq!(rules(&verdict), expected, "{yaml}");
}

/// The SOA record belongs to the zone, whoever has a part of it; what the server does to the serial is nobody's change.
#[test]
fn rights_hold_for_the_soa_record_too() {
    let soa = |serial: u32, refresh: u32| {
        let text = format!("$TTL 300\n@ SOA ns1 hostmaster {serial} {refresh} 900 1209600 300\n@ NS ns1\n");
        parse_zone(text.as_bytes(), &origin(), "z", &|_| Err(String::new())).expect("a zone")
    };
    let yaml = "lock_apex: false\nprincipals: [bob]\n\
                keys: [{key: external-dns, types: [A]}]\n";
    let granted = yaml.replace("[A]", "[A, SOA]").replace("bob", "alice");
    for (serial, refresh, is_decided) in [(2, 7200, false), (2, 60, true), (3, 7200, true), (1, 60, true)] {
        let (before, after) = (soa(1, 7200), soa(serial, refresh));
        let changes = diff(&before, &after);
        for (kind, rule) in [(ActorKind::Api, "owner"), (ActorKind::Lease, "owner"), (ActorKind::Update, "key")] {
            let verdict = |yaml: &str| {
                check(&policy(yaml), &origin(), Some(&before), Step::Write(&changes), &actor(kind), NOW, None)
            };
            let expected: &[&str] = if is_decided { &[rule] } else { &[] };
            assert_eq!(rules(&verdict(yaml)), expected, "{serial} {refresh} {kind:?}");
            assert!(verdict(&granted).is_allowed(), "{serial} {refresh} {kind:?}");
        }
    }
}

#[test]
fn a_policy_says_all_of_it_and_is_written_as_it_is_read() {
    let key = SigningKey::from_seed(&[1; 32]).expect("32 octets").public_key().to_base64();
    let text = format!(
        "owner: platform\nprincipals: [alice, ci]\n\
         subtrees: [{{subtree: team-a, owner: team-a, principals: [bob], types: [A, AAAA]}}]\n\
         keys:\n- {{key: external-dns, subtree: k8s, types: [A, TXT]}}\n- {{key: cert, labels: [_ACME-challenge], types: [TXT]}}\n\
         transfers: {{keys: [second], networks: [192.0.2.0/24, 2001:db8::1]}}\n\
         secondaries: [{{address: 192.0.2.53, key: second}}, {{address: '2001:db8::53', port: 5353}}]\n\
         protected: true\nprotected_names: [www, '@ MX']\nnever_empty: [api A]\nmax_deleted_percent: 20\nmax_changed_percent: 40\n\
         percent_floor: 5\nlock_apex: false\nttl: {{min: 30, max: 1d, clamp: true}}\naddresses: [10.0.0.0/8]\n\
         targets: ['@', elb.example.net.]\n\
         freezes: [{{start: 2026-12-20T00:00:00Z, end: 2027-01-04T00:00:00+01:00, reason: holidays}}]\n\
         force: {{keys: {{alice: '{key}'}}, signatures: 1, max_hours: 2}}\n\
         limits: {{queries_per_second: 20000, records: 500}}\n"
    );
    let read = policy(&text);
    assert_eq!(read.ttl, TtlBounds { min: Some(30), max: Some(86_400), clamp: true });
    assert_eq!(read.never_empty[0].to_string(), "api.example.com. A");
    assert_eq!((read.freezes[0].start, read.freezes[0].end), (1_797_724_800, 1_799_017_200));
    assert_eq!(read.freezes[0].except, [ActorKind::Lease]);
    assert_eq!(read.secondaries[0].port, 53);
    assert_eq!(read.targets[0], origin());
    assert_eq!(read.keys[1].labels, ["_acme-challenge"]);
    assert_eq!((read.force.signatures, read.force.max_seconds, read.force.keys.len()), (1, 7_200, 1));
    assert_eq!((read.limits.queries_per_second, read.limits.updates_per_second), (Some(20_000), None));
    assert_eq!(policy(&read.to_json().to_string()), read);
    assert_eq!(policy(""), Policy::default());
    assert_eq!(policy(&Policy::default().to_json().to_string()), Policy::default());
}

#[test]
fn every_mistake_in_a_policy_is_told_with_its_line() {
    let text = "ownr: x\nprincipals: alice\nsubtrees: [{owner: y}]\nkeys: [{key: 'a..b', subtree: other.net.}]\nprotected: perhaps\n\
                max_deleted_percent: 101\nttl: {min: 60, max: 30}\naddresses: [10.0.0.0/33]\ntargets: [a..b]\n\
                freezes: [{start: yesterday, end: 2026-01-01T00:00:00Z, except: [nobody]}]\n\
                force: {keys: {a: short}, signatures: 3}\nnever_empty: [www NOTYPE]\nsecondaries: [{address: x}]\n";
    let problems = Policy::from_yaml(text.as_bytes(), &origin(), "p").expect_err("all lines are wrong");
    let lines: std::collections::BTreeSet<u32> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, (1..=13).collect(), "{problems:#?}");
    assert!(problems.iter().any(|problem| problem.message.contains("did you mean 'owner'")), "{problems:#?}");
    let broken = Policy::from_yaml(b"a: [", &origin(), "p").expect_err("no YAML");
    assert_eq!(broken.len(), 1);
}

#[test]
fn updates_need_a_key_with_a_grant() {
    let yaml = "keys: [{key: external-dns, subtree: k8s, types: [A, TXT]}, {key: external-dns, labels: [_acme-challenge], types: [TXT]}]";
    let update = actor(ActorKind::Update);
    check_as(&update, yaml, "", "a.k8s A 192.0.2.1\nk8s TXT x\n_acme-challenge.www TXT x\n", &[]);
    let verdict = check_as(
        &update,
        yaml,
        "",
        "a.k8s A 192.0.2.1\nwww A 192.0.2.1\nb.k8s AAAA ::1\n_acme-challenge A 192.0.2.1\n",
        &["key"],
    );
    assert_eq!(verdict.refusals[0].names.len(), 3);
    check_as(&update, "", "", "a A 192.0.2.1\n", &["key"]);
    check_as(&Actor { key: None, ..update.clone() }, yaml, "", "a.k8s A 192.0.2.1\n", &["key"]);
    // Without a list of types, delegations are not among them.
    check_as(&update, "keys: [{key: external-dns}]", "", "a A 192.0.2.1\n", &[]);
    check_as(&update, "keys: [{key: external-dns}]", "", "a NS ns1\n", &["key"]);
    check_as(&update, "keys: [{key: external-dns, types: [NS]}]", "", "a NS ns1\n", &[]);
}

#[test]
fn subtrees_belong_to_their_principals() {
    let yaml = "owner: platform\nprincipals: [alice]\nsubtrees:\n- {subtree: a, owner: team-a, principals: [bob], types: [A]}\n\
                - {subtree: alice.a, principals: [alice]}\n";
    let as_person = |name: &str| Actor { name: name.to_owned(), ..actor(ActorKind::Plan) };
    check_as(&as_person("alice"), yaml, "", "www A 192.0.2.1\nx.alice.a MX 1 mail\n", &[]);
    let verdict = check_as(&as_person("alice"), yaml, "", "x.a A 192.0.2.1\n", &["owner"]);
    assert!(verdict.refusals[0].message.contains("team-a"), "{verdict:?}");
    check_as(&as_person("bob"), yaml, "", "x.a A 192.0.2.1\n", &[]);
    check_as(&as_person("bob"), yaml, "", "x.a TXT x\n", &["subtree-types"]);
    check_as(&as_person("bob"), yaml, "", "www A 192.0.2.1\n", &["owner"]);
    check_as(&as_person("eve"), "", "", "www A 192.0.2.1\n", &[]);
    check_as(&actor(ActorKind::File), "principals: [nobody]", "", "www A 192.0.2.1\n", &[]);
    check_deletion("principals: [bob]", "", &["owner"]);
}

#[test]
fn who_registers_a_lease_stands_behind_it_and_nobody_has_to_stand_behind_its_end() {
    let yaml = "principals: [bob]\nnever_empty: [www]\nsubtrees: [{subtree: team, principals: [carol], types: [A]}]\n";
    let (both, one) = ("www A 192.0.2.1\nwww A 192.0.2.2\na.team TXT x\n", "www A 192.0.2.1\n");
    check_as(&actor(ActorKind::Expiry), yaml, both, one, &[]);
    check_as(&actor(ActorKind::Lease), yaml, both, one, &["owner", "owner"]);
    check_as(&actor(ActorKind::Expiry), yaml, one, "", &["never-empty"]);
    let record = |text: &str| crate::parse_record(text, &origin(), None).expect("a record");
    for (name, text, expected) in [
        ("bob", "www 60 A 192.0.2.1", &[][..]),
        ("alice", "www 60 A 192.0.2.1", &["owner"]),
        ("bob", "a.team 60 A 192.0.2.1", &["owner"]),
        ("carol", "a.team 60 A 192.0.2.1", &[]),
        ("carol", "a.team 60 TXT x", &["subtree-types"]),
    ] {
        let actor = Actor { name: name.to_owned(), ..actor(ActorKind::Lease) };
        let found = check_actor(&policy(yaml), &origin(), &[record(text)], &actor);
        assert_eq!(found.iter().map(|refusal| refusal.rule).collect::<Vec<_>>(), expected, "{name} {text}");
    }
}

#[test]
fn protected_zones_and_names_stay() {
    check_deletion("", "", &[]);
    check_deletion("protected: true", "", &["protected-zone"]);
    check_deletion("protected_names: [www]", "", &[]);
    check_deletion("protected_names: [www]", "www A 192.0.2.1\n", &["protected-names"]);
    let before = "www A 192.0.2.1\nwww TXT x\n";
    check_change("protected_names: [www A]", before, "www TXT x\n", &["protected-names"]);
    check_change("protected_names: [www]", before, "www A 192.0.2.1\nwww TXT y\n", &["protected-names"]);
    check_change("protected_names: [www A]", before, "www A 192.0.2.1\n", &[]);
    check_change("protected_names: [www]", before, "www A 192.0.2.1\nwww A 192.0.2.2\nwww TXT x\n", &[]);
    // Another TTL or letter case removes nothing.
    check_change("protected_names: [www]", "www CNAME a\n", "www 60 CNAME A\n", &[]);
}

#[test]
fn some_names_never_become_empty() {
    let before = "www A 192.0.2.1\nwww A 192.0.2.2\nwww TXT x\n";
    check_change("never_empty: [www A]", before, "www A 192.0.2.2\n", &[]);
    check_change("never_empty: [www A]", before, "www A 192.0.2.3\n", &[]);
    check_change("never_empty: [www A]", before, "www TXT x\n", &["never-empty"]);
    check_change("never_empty: [www]", before, "www TXT x\n", &[]);
    check_change("never_empty: [www]", before, "", &["never-empty"]);
    check_change("never_empty: [api]", before, "", &[]);
    check_change("never_empty: [www A]", before, "www AAAA ::1\n", &["never-empty"]);
    check_deletion("never_empty: [www]", before, &["never-empty"]);
}

fn hosts(range: std::ops::Range<u8>) -> String {
    range.map(|number| format!("h{number} A 192.0.2.{number}\n")).collect()
}

#[test]
fn octodns_thirty_percent_from_ten_records_on() {
    // Ten records beside the SOA: two NS and eight hosts.
    let before = hosts(0..8);
    check_change("", &before, &hosts(0..5), &[]);
    check_change("", &before, &hosts(0..4), &["max-deleted", "max-changed"]);
    check_change("", &before, &before.replace("192.0.2.", "192.0.3."), &["max-changed"]);
    check_change("", &before, &format!("$TTL 60\n{before}"), &["max-changed"]);
    check_change("", &before, &hosts(0..200), &[]);
    check_change("max_deleted_percent: 100\nmax_changed_percent: 100", &before, "", &[]);
    check_change("max_deleted_percent: 0", &before, &hosts(0..7), &["max-deleted"]);
    // Nine records are too few for percentages.
    check_change("", &hosts(0..7), "", &[]);
    check_change("percent_floor: 1", &hosts(0..7), &hosts(0..4), &["max-deleted", "max-changed"]);
}

#[test]
fn the_apex_is_locked() {
    let write = |yaml: &str, from: (&str, &str), to: (&str, &str)| {
        let zone = |(serial, servers): (&str, &str)| {
            let text = format!("$TTL 300\n@ SOA ns1 hostmaster {serial} 7200 900 1209600 300\n{servers}");
            parse_zone(text.as_bytes(), &origin(), "z", &|_| Err(String::new())).expect("a zone")
        };
        let (before, after) = (zone(from), zone(to));
        let changes = diff(&before, &after);
        rules(&check(
            &policy(yaml),
            &origin(),
            Some(&before),
            Step::Write(&changes),
            &actor(ActorKind::File),
            NOW,
            None,
        ))
    };
    let two = "@ NS ns1\n@ NS ns2\n";
    assert_eq!(write("", ("1", two), ("2", two)), Vec::<&str>::new());
    assert_eq!(write("", ("1", two), ("2", "@ NS ns1\n@ NS ns3\n")), ["apex-lock"]);
    assert_eq!(write("", ("1", two), ("2", &format!("$TTL 60\n{two}"))), ["apex-lock"]);
    assert_eq!(write("", ("1", two), ("2", &format!("{two}www NS ns1\n"))), Vec::<&str>::new());
    let other_soa = "$TTL 300\n@ SOA ns9 hostmaster 2 7200 900 1209600 300\n@ NS ns1\n@ NS ns2\n";
    let before = zone("");
    let after = parse_zone(other_soa.as_bytes(), &origin(), "z", &|_| Err(String::new())).expect("a zone");
    let changes = diff(&before, &after);
    let verdict = |yaml: &str, before: Option<&dyn ZoneView>| {
        rules(&check(&policy(yaml), &origin(), before, Step::Write(&changes), &actor(ActorKind::Api), NOW, None))
    };
    assert_eq!(verdict("", Some(&before)), ["apex-lock"]);
    assert_eq!(verdict("lock_apex: false", Some(&before)), Vec::<&str>::new());
    assert_eq!(verdict("", None), Vec::<&str>::new());
}

#[test]
fn ttls_addresses_and_targets_have_bounds() {
    check_change("ttl: {min: 60, max: 1h}", "", "a 60 A 192.0.2.1\nb 3600 A 192.0.2.1\n", &[]);
    check_change("ttl: {min: 60}", "", "a 59 A 192.0.2.1\n", &["ttl"]);
    check_change("ttl: {max: 1h}", "", "a 3601 A 192.0.2.1\n", &["ttl"]);
    check_change("ttl: {min: 1d}", "", "", &[]);
    let clamping = policy("ttl: {min: 60, max: 1h, clamp: true}");
    assert_eq!([0, 60, 9_999].map(|ttl| clamping.clamp_ttl(Rtype::A, ttl)), [60, 60, 3_600]);
    assert_eq!(clamping.clamp_ttl(Rtype::SOA, 0), 0);
    assert_eq!(policy("ttl: {min: 60}").clamp_ttl(Rtype::A, 0), 0);
    let allowed = "addresses: [192.0.2.0/25, '2001:db8::/32']";
    check_change(allowed, "", "a A 192.0.2.127\na AAAA 2001:db8::1\n", &[]);
    check_change(allowed, "", "a A 192.0.2.128\n", &["addresses"]);
    check_change(allowed, "", "a AAAA ::1\n", &["addresses"]);
    check_change(allowed, "a A 10.0.0.1\n", "", &[]);
    let allowed = "targets: ['@', elb.example.net.]";
    check_change(allowed, "", "a CNAME b\nc CNAME x.elb.example.net.\n", &[]);
    check_change(allowed, "", "a CNAME xelb.example.net.\n", &["targets"]);
    check_change(allowed, "", "a DNAME example.org.\n", &["targets"]);
    check_change(allowed, "", "a MX 1 mail.example.org.\n", &[]);
}

#[test]
fn nothing_changes_while_frozen_but_leases() {
    let freeze = |start: i64, end: i64, except: &str| {
        let time = |seconds| jiff::Timestamp::from_second(seconds).expect("in range").to_string();
        format!("freezes: [{{start: '{}', end: '{}', reason: holidays{except}}}]", time(NOW + start), time(NOW + end))
    };
    for kind in [ActorKind::Api, ActorKind::File, ActorKind::Plan] {
        let verdict = check_as(&actor(kind), &freeze(0, 1, ""), "", "a A 192.0.2.1\n", &["freeze"]);
        assert!(verdict.refusals[0].message.contains("holidays"), "{verdict:?}");
    }
    check_as(&actor(ActorKind::Lease), &freeze(0, 1, ""), "", "a A 192.0.2.1\n", &[]);
    check_as(&actor(ActorKind::Lease), &freeze(0, 1, ", except: []"), "", "a A 192.0.2.1\n", &["freeze"]);
    check_as(&actor(ActorKind::Expiry), &freeze(0, 1, ""), "a A 192.0.2.1\n", "", &[]);
    check_as(&actor(ActorKind::Expiry), &freeze(0, 1, ", except: []"), "a A 192.0.2.1\n", "", &["freeze"]);
    check_as(&actor(ActorKind::Plan), &freeze(0, 1, ", except: [plan]"), "", "a A 192.0.2.1\n", &[]);
    check_change(&freeze(-2, 0, ""), "", "a A 192.0.2.1\n", &[]);
    check_change(&freeze(1, 2, ""), "", "a A 192.0.2.1\n", &[]);
    check_deletion(&freeze(0, 1, ""), "", &["freeze"]);
}

fn forced(policy: &Policy, changes: &[Change], rules: &[&str]) -> VerifiedForce {
    let key = |seed| SigningKey::from_seed(&[seed; 32]).expect("32 octets");
    let claims = Claims {
        zone: origin().to_string(),
        rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
        reason: "outage".to_owned(),
        issued_by: "alice".to_owned(),
        approved_by: Some("bob".to_owned()),
        not_before: NOW,
        expires: NOW + 60,
        changes: digest_of_changes(&origin(), changes),
    };
    let token = issue(&claims, &key(1)).and_then(|token| approve(&token, &key(2))).expect("good claims");
    verify_force(&token, &policy.force, &origin(), &digest_of_changes(&origin(), changes), NOW).expect("a good token")
}

#[test]
fn a_force_token_lifts_the_rules_that_it_lists_and_no_other() {
    let key = |seed| SigningKey::from_seed(&[seed; 32]).expect("32 octets").public_key().to_base64();
    let yaml = format!(
        "never_empty: [www]\nttl: {{min: 60}}\nprotected: true\nforce: {{keys: {{alice: '{}', bob: '{}'}}}}",
        key(1),
        key(2)
    );
    let policy = policy(&yaml);
    let (before, after) = (zone("www A 192.0.2.1\n"), zone("a 1 A 192.0.2.1\n"));
    let changes = diff(&before, &after);
    let verdict = |actor: &Actor, step, force: &VerifiedForce| {
        let verdict = check(&policy, &origin(), Some(&before), step, actor, NOW, Some(force));
        let overridden: Vec<_> = verdict.overridden.iter().map(|refusal| refusal.rule).collect();
        (rules(&verdict), overridden)
    };
    let (one, both) =
        (forced(&policy, &changes, &["never-empty"]), forced(&policy, &changes, &["never-empty", "ttl", "key"]));
    let write = Step::Write(&changes);
    assert_eq!(verdict(&actor(ActorKind::Api), write, &one), (vec!["ttl"], vec!["never-empty"]));
    assert_eq!(verdict(&actor(ActorKind::Api), write, &both), (vec![], vec!["never-empty", "ttl"]));
    // What keys may do is not a rule that can be lifted.
    assert_eq!(verdict(&actor(ActorKind::Update), write, &both), (vec!["key"], vec!["never-empty", "ttl"]));
    let deletion = forced(&policy, &removal(&before), &["protected-zone", "never-empty"]);
    assert_eq!(
        verdict(&actor(ActorKind::Api), Step::Delete, &deletion),
        (vec![], vec!["protected-zone", "never-empty"])
    );
    let refusal =
        &check(&policy, &origin(), Some(&before), Step::Delete, &actor(ActorKind::Api), NOW, None).refusals[0];
    assert!(refusal.remedy.contains("force token for the rule `protected-zone`"), "{refusal:?}");
    let json = serde_json::to_value(refusal).expect("plain data");
    assert_eq!(json["names"][0], "example.com.");
    assert_eq!(crate::problem::Problem::from(refusal.clone()).rule, "protected-zone");
}

/// The rules that a new policy in the place of an old one breaks, and what they say.
fn replaced(old: &str, new: &str, force: Option<&VerifiedForce>) -> (Vec<&'static str>, String) {
    let verdict = check_policy(&policy(old), &origin(), &policy(new), "0ff", &actor(ActorKind::Api), NOW, force);
    (
        rules(&verdict),
        verdict.refusals.iter().map(|refusal| format!("{}; {}", refusal.message, refusal.remedy)).collect(),
    )
}

#[test]
fn the_old_policy_says_who_may_replace_it() {
    let check =
        |old: &str, new: &str, expected: &[&str]| assert_eq!(replaced(old, new, None).0, expected, "{old} -> {new}");
    check("principals: [alice]", "principals: [alice, eve]", &[]);
    check("principals: [bob]", "principals: [bob, alice]", &["owner"]);
    check("principals: [bob]", "principals: [bob]", &[]);
    let frozen = "freezes: [{start: 2020-01-01T00:00:00Z, end: 2040-01-01T00:00:00Z}]";
    check(frozen, "", &["freeze"]);
    check(frozen, &format!("{frozen}\nowner: x"), &["freeze"]);
    check("protected: true\nnever_empty: [www]", "", &[]);
}

#[test]
fn nobody_loosens_alone_a_policy_that_names_two_people_who_sign() {
    let key = |seed| SigningKey::from_seed(&[seed; 32]).expect("32 octets").public_key().to_base64();
    let force = format!("force: {{keys: {{alice: '{}', bob: '{}'}}}}\n", key(1), key(2));
    for (old, new, field) in [
        ("principals: [alice]", "principals: [alice, eve]", "principals"),
        ("principals: [alice]", "", "principals"),
        ("subtrees: [{subtree: a, principals: [x]}]", "", "subtrees"),
        ("protected: true", "", "protected"),
        ("protected_names: [www]", "protected_names: [www A]", "protected_names"),
        ("never_empty: [www A]", "", "never_empty"),
        ("", "max_deleted_percent: 31", "max_deleted_percent"),
        ("", "max_changed_percent: 100", "max_changed_percent"),
        ("", "percent_floor: 1000", "percent_floor"),
        ("", "lock_apex: false", "lock_apex"),
        ("ttl: {min: 60}", "ttl: {min: 59}", "ttl"),
        ("ttl: {max: 60}", "", "ttl"),
        ("addresses: [10.0.0.0/8]", "addresses: [0.0.0.0/0]", "addresses"),
        ("targets: ['@']", "", "targets"),
        ("freezes: [{start: 2039-01-01T00:00:00Z, end: 2040-01-01T00:00:00Z}]", "", "freezes"),
    ] {
        let (rules, said) = replaced(&format!("{force}{old}"), &format!("{force}{new}"), None);
        assert!(
            rules == ["policy"] && said.contains(&format!("strict than before in {field};")) && said.contains("0ff"),
            "{old} -> {new}: {said}"
        );
        let (rules, said) = replaced(&format!("{force}{new}"), &format!("{force}{old}"), None);
        assert!(rules.is_empty() || field == "subtrees", "what tightens needs no leave: {new} -> {old}: {said}");
    }
    let fewer = format!("force: {{keys: {{alice: '{}'}}}}", key(1));
    assert_eq!(replaced(&force, &fewer, None).0, ["policy"], "or the next one could be put by anybody");
    assert_eq!(replaced(&force, "", None).0, ["policy"]);
    assert_eq!(replaced(&fewer, "lock_apex: false", None).0, [""; 0], "nobody could sign");
    let routine = "owner: x\nkeys: [{key: k, subtree: a}]\ntransfers: {keys: [k]}\nlimits: {records: 5}";
    assert_eq!(replaced(&force, &format!("{force}{routine}"), None).0, [""; 0]);
    let past = "freezes: [{start: 2020-01-01T00:00:00Z, end: 2021-01-01T00:00:00Z}]";
    assert_eq!(replaced(&format!("{force}{past}"), &force, None).0, [""; 0], "it is over");
    let token = forced(&policy(&force), &[], &["policy"]);
    assert_eq!(replaced(&force, "", Some(&token)).0, [""; 0]);
    let other = forced(&policy(&force), &[], &["freeze"]);
    assert_eq!(replaced(&force, "", Some(&other)).0, ["policy"]);
}

#[test]
fn a_zone_whose_policy_names_people_who_sign_goes_with_their_leave() {
    let key = |seed| SigningKey::from_seed(&[seed; 32]).expect("32 octets").public_key().to_base64();
    let force = format!("force: {{keys: {{alice: '{}', bob: '{}'}}}}\n", key(1), key(2));
    let before = zone("www A 192.0.2.1\n");
    for kind in [ActorKind::Api, ActorKind::Plan, ActorKind::File] {
        let verdict = |yaml: &str, force: Option<&VerifiedForce>| {
            check(&policy(yaml), &origin(), Some(&before), Step::Delete, &actor(kind), NOW, force)
        };
        let alone = verdict(&force, None);
        assert_eq!(rules(&alone), ["policy"], "the guardrails would go with the zone");
        assert!(alone.refusals[0].remedy.contains("force token for the rule `policy`"), "{alone:?}");
        assert_eq!(
            rules(&verdict(&format!("{force}protected: true"), None)),
            ["protected-zone"],
            "one leave is enough"
        );
        assert_eq!(
            rules(&verdict(&format!("force: {{keys: {{alice: '{}'}}}}", key(1)), None)),
            [""; 0],
            "nobody could sign"
        );
        let token = |rule| forced(&policy(&force), &removal(&before), &[rule]);
        assert!(verdict(&force, Some(&token("policy"))).is_allowed());
        assert_eq!(rules(&verdict(&force, Some(&token("protected-zone")))), ["policy"]);
    }
}

#[test]
fn the_guide_shows_a_good_policy() {
    let guide = include_str!("../../../../docs/guide/zone-files.md");
    let key = SigningKey::from_seed(&[1; 32]).expect("32 octets").public_key().to_base64();
    let yaml = guide.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let read = policy(&yaml.replace("BASE64", &key));
    assert_eq!((read.keys.len(), read.force.keys.len()), (2, 2));
    // The defaults that the guide states.
    let Policy { max_deleted_percent, max_changed_percent, percent_floor, lock_apex, .. } = read;
    let default = Policy::default();
    assert_eq!((max_deleted_percent, max_changed_percent), (default.max_deleted_percent, default.max_changed_percent));
    assert_eq!((percent_floor, lock_apex), (default.percent_floor, default.lock_apex));
}
