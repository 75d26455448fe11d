//! Declarations: what is read, and what is refused with its line.

use gateward_domain::Declaration;
use gateward_domain::declaration::{Level, Runtime};

const MESSAGING: &str = include_str!("../../../examples/domains/messaging.yaml");
const VOICE: &str = include_str!("../../../examples/domains/voice.yaml");

/// A declaration that is right; tests put something wrong into it.
const SMALL: &str = "\
version: 1
root: example.com
owner: platform
served_by: core
name_servers:
  core:
    control: http://127.0.0.1:8053
    servers:
      - { name: ns1.example.com, addresses: [192.0.2.1] }
keys:
  edns: {}
environments:
  prod:
    regions:
      us-east-1:
        services:
          api: { owner: api-team, runtime: kubernetes }
          web:
            owner: web-team
            runtime: static
            records: { '@': { A: 192.0.2.2 } }
";

fn read(text: &str) -> Declaration {
    Declaration::read(text.as_bytes()).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

/// Replaces a line of SMALL and gives every problem as text.
fn problems(from: &str, to: &str) -> Vec<String> {
    assert!(SMALL.contains(from), "{from}");
    let text = SMALL.replacen(from, to, 1);
    match Declaration::read(text.as_bytes()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

fn check(from: &str, to: &str, expected: &[&str]) {
    assert_eq!(problems(from, to), expected, "{to}");
}

#[test]
fn the_examples_are_read() {
    let messaging = read(MESSAGING);
    let zones: Vec<String> = messaging.zones.iter().map(|zone| zone.origin.to_string()).collect();
    assert_eq!(
        zones,
        [
            "messaging.example.",
            "prod.messaging.example.",
            "us-east-1.prod.messaging.example.",
            "eu-west-1.prod.messaging.example.",
            "archive.eu-west-1.prod.messaging.example.",
            "dev.messaging.example.",
            "us-east-1.dev.messaging.example.",
        ]
    );
    let services = |declaration: &Declaration| declaration.zones.iter().map(|zone| zone.services.len()).sum::<usize>();
    assert_eq!(services(&messaging), 11);
    assert_eq!(services(&read(VOICE)), 7);
}

#[test]
fn settings_are_inherited_and_overridden() {
    let messaging = read(MESSAGING);
    let zone = |name: &str| messaging.zone(&name.parse().unwrap()).unwrap();
    let region = zone("us-east-1.prod.messaging.example");
    assert_eq!((region.level, region.owner.as_str(), region.group.as_str()), (Level::Region, "sre-prod", "prod"));
    assert_eq!(region.settings.limits.queries_per_second, Some(50_000));
    assert_eq!(region.settings.limits.records, Some(10_000));
    assert_eq!(region.settings.guardrails.max_deleted_percent, Some(10));
    // Names are relative to their zone, and so not inherited.
    assert_eq!(zone("prod.messaging.example").settings.guardrails.never_empty, ["ns1"]);
    assert!(region.settings.guardrails.never_empty.is_empty());
    let archive = zone("archive.eu-west-1.prod.messaging.example");
    assert_eq!((archive.level, archive.owner.as_str()), (Level::Service, "archive-team"));
    assert_eq!(archive.services[0].runtime, Runtime::Vm);
    assert!(!zone("dev.messaging.example").settings.guardrails.deletion_protection);
}

#[test]
fn names_belong_to_their_service_or_zone() {
    let messaging = read(MESSAGING);
    let owner = |name: &str| {
        let name = name.parse().unwrap();
        messaging.zone_of(&name).unwrap().owner_of(&name).to_owned()
    };
    for (name, expected) in [
        ("messaging.example", "platform-team"),
        ("www.messaging.example", "platform-team"),
        ("status.prod.messaging.example", "sre-prod"),
        ("inbox.us-east-1.prod.messaging.example", "inbox-team"),
        ("a.b.inbox.us-east-1.prod.messaging.example", "inbox-team"),
        ("x.eu-west-1.prod.messaging.example", "sre-eu"),
        ("archive.eu-west-1.prod.messaging.example", "archive-team"),
    ] {
        assert_eq!(owner(name), expected, "{name}");
    }
}

#[test]
fn every_mistake_is_reported_at_once() {
    let text = SMALL
        .replace("version: 1", "version: 2")
        .replace("owner: api-team", "ownr: api-team")
        .replace("A: 192.0.2.2", "A: 192.0.2.256");
    let problems = Declaration::read(text.as_bytes()).unwrap_err();
    let lines: Vec<u32> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 17, 17, 21], "{problems:#?}");
}

#[test]
fn what_is_unknown_or_missing_is_named() {
    check("served_by: core\n", "", &["1:1: 'served_by' is missing: the group of name_servers that serves the root"]);
    check(
        "served_by: core",
        "served_by: cor",
        &["4:12: served_by: there is no group 'cor' under name_servers - did you mean 'core'?"],
    );
    check(
        "owner: api-team",
        "ownr: api-team",
        &[
            "17:16: environments.prod.regions.us-east-1.services.api: 'owner' is missing",
            "17:18: environments.prod.regions.us-east-1.services.api.ownr: unknown field - did you mean 'owner'?; \
             known here: zone, owner, runtime, writers, records, ttl",
        ],
    );
    check(
        "runtime: kubernetes",
        "runtime: k8s",
        &[
            "17:44: environments.prod.regions.us-east-1.services.api.runtime: 'k8s' is none of kubernetes, vm, ecs, static",
        ],
    );
    check(
        "            records: { '@': { A: 192.0.2.2 } }\n",
        "",
        &["19:13: environments.prod.regions.us-east-1.services.web: a static service needs 'records': \
           nothing else registers its addresses"],
    );
    check(
        "name: ns1.example.com, addresses: [192.0.2.1]",
        "name: ns1.example.com",
        &[
            "9:9: name_servers.core.servers[0]: ns1.example.com. is a name in example.com., so its addresses have to be \
           declared: give 'addresses'",
        ],
    );
    check(
        "edns: {}",
        "edns: { secret: hunter2 }",
        &["11:19: keys.edns.secret: a secret is not written here; say where it is: generate, env:NAME or file:PATH"],
    );
    check(
        "control: http://127.0.0.1:8053",
        "control: https://dns",
        &["7:14: name_servers.core.control: 'https://dns' is not http://HOST:PORT of a control API"],
    );
}

#[test]
fn bad_names_are_refused() {
    let label = "a level's name is one label of a domain name: lower-case letters, digits and hyphens within";
    check("us-east-1:", "US-East-1:", &[&format!("15:7: environments.prod.regions.US-East-1: {label}")]);
    check("api:", "a.b:", &[&format!("17:11: environments.prod.regions.us-east-1.services[\"a.b\"]: {label}")]);
    check(
        "root: example.com",
        "root: example..com",
        &["2:7: root: 'example..com' is not a domain name: a label is empty"],
    );
    check("api: {", "web: {", &["18:11: the key 'web' is given twice in this map (first at 17:11); remove one"]);
}

#[test]
fn a_name_has_one_owner() {
    let region = "      us-east-1:\n";
    check(
        region,
        "      us-east-1:\n        records: { www.api: { A: 192.0.2.9 } }\n",
        &[
            "16:34: environments.prod.regions.us-east-1.records[\"www.api\"].A: www.api.us-east-1.prod.example.com. belongs \
           to the service api.us-east-1.prod.example.com. of api-team; declare it there",
        ],
    );
    check(
        "environments:",
        "records: { x.prod: { A: 192.0.2.9 } }\nenvironments:",
        &[
            "12:25: records[\"x.prod\"].A: x.prod.example.com. is in the zone prod.example.com. of platform; declare it there",
        ],
    );
    check(
        "environments:",
        "records: { ns1: { A: 192.0.2.9 } }\nenvironments:",
        &["1:1: the addresses of the name server ns1.example.com. follow from name_servers; remove its records"],
    );
    check(
        region,
        "      us-east-1:\n        unmanaged: [x.api]\n",
        &[
            "16:9: environments.prod.regions.us-east-1: x.api.us-east-1.prod.example.com. is unmanaged, but it overlaps the \
           service api.us-east-1.prod.example.com. of api-team",
        ],
    );
    // external-dns keeps what it owns at a-NAME.
    check("          web:\n", "          a-api: { owner: x, runtime: vm }\n          web:\n", &[]);
    check(
        region,
        "      us-east-1:\n        writers: [{ key: edns, kind: external-dns, services: [api, web] }]\n",
        &[],
    );
    let text = SMALL
        .replace(region, "      us-east-1:\n        writers: [{ key: edns, kind: external-dns }]\n")
        .replace("web:\n", "a-api:\n");
    let problems = Declaration::read(text.as_bytes()).unwrap_err();
    assert!(problems[0].message.starts_with("external-dns keeps the ownership records of api."), "{problems:?}");
}

#[test]
fn records_follow_the_rules_of_dns() {
    let records = "records: { '@': { A: 192.0.2.2 } }";
    check(
        records,
        "records: { '@': { A: 192.0.2.2, CNAME: x } }",
        &["21:52: environments.prod.regions.us-east-1.services.web.records[\"@\"].CNAME: \
           web.us-east-1.prod.example.com. has other records too; a CNAME record stands alone"],
    );
    check(
        records,
        "records: { '@': { NS: ns.example.net. } }",
        &[
            "21:31: environments.prod.regions.us-east-1.services.web.records[\"@\"].NS: NS records follow from the hierarchy \
           and are not declared",
        ],
    );
    assert_eq!(problems(records, "records: { '@': { A: [192.0.2.2, 192.0.2.2] } }").len(), 1);
    assert_eq!(problems(records, "records: { '@': { MX: ten mail } }").len(), 1);
    assert_eq!(problems(records, "records: { x.example.org.: { A: 192.0.2.2 } }").len(), 1);
    assert_eq!(problems(records, "records: { '@': { ttl: 5m } }").len(), 1);
    check(records, "records: { '@': { A: 192.0.2.2, TXT: v=spf1 -all, ttl: 5m } }", &[]);
}

#[test]
fn writers_are_held_to_names_and_types() {
    let region = "      us-east-1:\n";
    let with = |writer: &str| problems(region, &format!("{region}        writers: [{writer}]\n"));
    assert_eq!(with("{ key: edns, kind: external-dns }"), [""; 0]);
    for (writer, message) in [
        ("{ key: nope, kind: external-dns }", "there is no key 'nope' under keys"),
        ("{ key: edns, kind: custom, names: [x] }", "a custom writer needs 'types'"),
        ("{ key: edns, kind: custom, names: [x], types: [NS] }", "NS records decide about delegation"),
        ("{ key: edns, kind: custom, types: [A] }", "there is nothing for it to write"),
        ("{ key: edns, kind: custom, types: [A], names: [x.example.org.] }", "x.example.org. is not in"),
        ("{ key: edns, kind: external-dns, services: [ap] }", "there is no service 'ap' here - did you mean 'api'?"),
        ("{ key: edns, kind: cert-manager, types: [TXT] }", "the types follow from the kind"),
    ] {
        let problems = with(writer);
        assert!(problems.len() == 1 && problems[0].contains(message), "{writer}: {problems:?}");
    }
}

#[test]
fn no_text_makes_it_panic() {
    for text in ["", "null", "[]", "x", "root: [", "version: 1\nroot: example.com\nenvironments: []\nname_servers: 3"] {
        assert!(Declaration::read(text.as_bytes()).is_err(), "{text}");
    }
    // Every line of the example replaced by something else.
    let lines: Vec<&str> = MESSAGING.lines().collect();
    for index in 0..lines.len() {
        for with in ["", "  - x", "{}", "      : :", "\u{0}"] {
            let mut lines = lines.clone();
            lines[index] = with;
            drop(Declaration::read(lines.join("\n").as_bytes()));
        }
    }
}
