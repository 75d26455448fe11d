//! Policies that are put by the API: the one that is there decides.

use gateward_zone::force::{Claims, SigningKey, approve, issue};

use super::*;

fn rules(refused: Result<impl std::fmt::Debug, Refused>) -> Vec<&'static str> {
    match refused {
        Err(Refused::Rules(rules)) => rules.iter().map(|problem| problem.rule).collect(),
        other => panic!("{other:?}"),
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).expect("32 octets")
}

/// The part of a policy that names two people who sign.
fn people() -> String {
    let key = |seed| key(seed).public_key().to_base64();
    format!("force: {{keys: {{alice: '{}', bob: '{}'}}}}\n", key(1), key(2))
}

/// Their leave to break a rule with the changes of this digest.
fn signed(rule: &str, changes: String) -> Option<String> {
    let now = i64::try_from(turn::millis(SystemTime::now()) / 1_000).unwrap();
    let claims = Claims {
        zone: origin().to_string(),
        rules: vec![rule.to_owned()],
        reason: "outage".to_owned(),
        issued_by: "alice".to_owned(),
        approved_by: Some("bob".to_owned()),
        not_before: now - 60,
        expires: now + 600,
        changes,
    };
    issue(&claims, &key(1)).and_then(|token| approve(&token, &key(2))).ok()
}

#[test]
fn who_may_not_change_a_zone_does_not_change_its_policy() {
    let server = Server::new("policy");
    server.put(&zone_text(7, &[1])).unwrap();
    server.put_policy("principals: [alice]\nprotected: true", "alice", None).unwrap();
    assert_eq!(rules(server.put_policy("", "eve", None)), ["owner"]);
    assert_eq!(
        server.put_policy("principals: [alice, bob]", "alice plan:0123456789abcdef", None),
        Ok(()),
        "with a plan"
    );
    let frozen = "freezes: [{start: 2020-01-01T00:00:00Z, end: 2099-01-01T00:00:00Z}]";
    server.put_policy(frozen, "bob", None).unwrap();
    assert_eq!(rules(server.put_policy("", "bob", None)), ["freeze"]);
    assert_eq!(*server.authority.policy(&origin()), Policy::from_yaml(frozen.as_bytes(), &origin(), "p").unwrap());
    let replaced = server.authority.folder().versions_dir(&origin()).join("replaced.policy.yaml");
    assert_eq!(fs::read_to_string(replaced).unwrap(), "principals: [alice, bob]");
    let log = fs::read_to_string(server.authority.folder().audit_file()).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("\"refuse\"")).count(), 2);
    assert!(log.contains("alice plan:0123456789abcdef"));
}

#[test]
fn two_people_sign_for_a_policy_that_takes_guardrails_away() {
    let server = Server::new("signed");
    let people = people();
    server.put(&zone_text(7, &[1])).unwrap();
    server.put_policy(&format!("{people}never_empty: [www]"), "test", None).unwrap();
    let wanted = format!("{people}owner: x");
    assert_eq!(rules(server.put_policy(&wanted, "test", None)), ["policy"]);
    assert_eq!(rules(server.put_policy("", "test", None)), ["policy"], "nor the names of those who sign");
    let token = |text: &str| signed("policy", gateward_zone::policy::digest(&origin(), text.as_bytes()));
    assert_eq!(
        rules(server.put_policy(&wanted, "test", token(""))),
        ["force-token", "policy"],
        "it is for another text"
    );
    assert_eq!(server.put_policy(&wanted, "test", token(&wanted)), Ok(()));
    let log = fs::read_to_string(server.authority.folder().audit_file()).unwrap();
    assert!(log.lines().last().unwrap().contains("\"overridden\":[\"policy\"]"), "{log}");
}

#[test]
fn a_policy_that_waits_for_its_zone_holds_for_its_first_version() {
    let server = Server::new("waiting");
    let policy = server.authority.folder().policy_file(&origin());
    fs::write(&policy, "principals: [alice]\naddresses: [10.0.0.0/8]\n").unwrap();
    let put = |actor: &str, text: &str| {
        let mut proposal = replace(text, &server.authority, Door::Api);
        proposal.actor = Actor::new(Door::Api, actor);
        server.propose(proposal)
    };
    assert_eq!(rules(put("eve", &zone_text(7, &[1]))), ["owner", "addresses"]);
    assert!(server.served().is_none());
    let inside = zone_text(7, &[]).replace("192.0.2.", "10.0.0.");
    assert_eq!(put("alice", &inside), Ok(7));
    assert_eq!(server.authority.policy(&origin()).principals, ["alice"]);
    assert_eq!(rules(server.change(vec![Change::Add(www(1))])), ["owner", "addresses"]);
}

#[test]
fn a_policy_that_cannot_be_read_is_not_replaced_by_whoever_comes() {
    let mut server = Server::new("unreadable");
    server.put(&zone_text(7, &[1])).unwrap();
    let policy = server.authority.folder().policy_file(&origin());
    fs::write(&policy, "principals: [alice]\n").unwrap();
    assert_eq!(server.authority.reload(&origin()).problems, []);
    fs::write(&policy, "principals: {").unwrap();
    assert!(!server.authority.reload(&origin()).problems.is_empty());
    assert_eq!(rules(server.put_policy("", "eve", None)), ["owner"], "the one from before goes on");
    assert!(!server.restart().is_empty());
    assert_eq!(rules(server.put_policy("", "alice", None)), ["policy"], "and is not known any more");
    fs::write(&policy, "principals: [alice]\n").unwrap();
    assert_eq!(
        server.put_policy("principals: [bob]", "alice", None),
        Ok(()),
        "an edit holds before anybody looked at it"
    );
}

#[test]
fn a_zone_whose_policy_names_people_who_sign_goes_with_their_leave() {
    let server = Server::new("signed-removal");
    server.put(&zone_text(7, &[1])).unwrap();
    server.put_policy(&people(), "test", None).unwrap();
    let zone = server.authority.zone(&origin()).unwrap();
    let changes = gateward_zone::diff::digest(&origin(), &gateward_zone::diff::removal(&*zone));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let remove = |force: Option<String>| {
        let origin = origin();
        runtime.block_on(server.authority.remove(&origin, Base::Any, Actor::new(Door::Api, "test"), force))
    };
    assert_eq!(rules(remove(None)), ["policy"]);
    assert_eq!(rules(remove(signed("freeze", changes.clone()))), ["policy"]);
    assert_eq!(rules(remove(signed("policy", "0".repeat(64)))), ["force-token", "policy"]);
    fs::remove_file(server.file()).unwrap();
    assert_eq!(server.authority.reload(&origin()).problems[0].rule, "zone-file-gone");
    assert_eq!(server.served(), Some((7, vec![1])));
    assert_eq!(remove(signed("policy", changes)), Ok(()));
    assert!(server.served().is_none());
    let log = fs::read_to_string(server.authority.folder().audit_file()).unwrap();
    assert!(log.lines().last().unwrap().contains("\"overridden\":[\"policy\"]"), "{log}");
}

#[test]
fn the_policy_file_that_a_condition_was_held_against_is_the_one_that_is_replaced() {
    let server = Server::new("policy-read");
    server.put(&zone_text(7, &[1])).unwrap();
    server.put_policy("owner: a\n", "test", None).unwrap();
    let path = server.authority.folder().policy_file(&origin());
    let file = server.authority.policy_file(&origin()).unwrap();
    fs::write(&path, "owner: somebody\n").unwrap();
    let replace = move |authority: &Authority, line: &Line, state: &mut State| {
        let actor = Actor::new(Door::Api, "test");
        let put = policy::Put { text: b"owner: b\n", actor: &actor, force: None, now: SystemTime::now() };
        authority.replace_policy(line, state, file.as_ref(), &put)
    };
    let refused = server.authority.in_turn_blocking(&origin(), replace).expect("the zone's turn comes");
    assert_eq!(rules(refused), ["unread-file"]);
    assert_eq!(fs::read_to_string(path).unwrap(), "owner: somebody\n");
}
