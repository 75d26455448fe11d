//! Plugins that decide who may pass: authentication, groups, addresses, bots; how they combine; which instance
//! of a plugin applies.

use gateward_e2e::{echoed_header, one_route, with_plugins};
use gateward_testkit::{Backend, Gateway, RawResponse, eventually, http};
use std::time::Duration;

const CONSUMERS: &str = "\
consumers:
- username: alice
  custom_id: a-1
  keyauth_credentials: [{key: alice-key}]
  basicauth_credentials: [{username: alice, password: wonderland}]
  acls: [{group: admins}, {group: users}]
- username: bob
  keyauth_credentials: [{key: bob-key}]
  acls: [{group: users}]
- username: nobody
";
/// `alice:wonderland` and `alice:wrong`.
const ALICE: (&str, &str) = ("Authorization", "Basic YWxpY2U6d29uZGVybGFuZA==");
const ALICE_WRONG: (&str, &str) = ("Authorization", "Basic YWxpY2U6d3Jvbmc=");

fn start(plugins: &[&str]) -> (Gateway, Backend) {
    let backend = Backend::echo();
    let config = with_plugins(&one_route(&backend.url()), plugins) + CONSUMERS;
    (Gateway::start(&config), backend)
}

#[track_caller]
fn get(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> RawResponse {
    http(gateway.proxy(), &format!("GET {target}"), headers, b"")
}

#[track_caller]
fn check_header(response: &RawResponse, name: &str, expected: Option<&str>) {
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(echoed_header(response, name).as_deref(), expected, "{name}");
}

#[test]
fn key_auth() {
    let (gateway, backend) = start(&["{name: key-auth, config: {key_in_body: true, hide_credentials: true}}"]);
    for (target, headers) in [
        ("/", vec![]),
        ("/", vec![("apikey", "wrong")]),
        ("/?apikey=wrong", vec![]),
        ("/", vec![("apikey", "")]),
        ("/", vec![("apikey", "alice-key"), ("apikey", "bob-key")]),
        ("/", vec![("X-Consumer-ID", "1"), ("X-Consumer-Username", "alice")]),
    ] {
        let response = get(&gateway, target, &headers);
        assert_eq!(response.status, 401, "{target} {headers:?}");
        assert!(response.header("www-authenticate").is_some_and(|value| value.starts_with("Key")));
    }
    assert_eq!(backend.request_count(), 0);
    for (target, headers) in [("/", vec![("apikey", "alice-key")]), ("/?x=1&apikey=alice-key", vec![])] {
        let response = get(&gateway, target, &headers);
        check_header(&response, "x-consumer-username", Some("alice"));
        check_header(&response, "x-consumer-custom-id", Some("a-1"));
        assert!(echoed_header(&response, "x-consumer-id").is_some());
        assert!(echoed_header(&response, "x-credential-identifier").is_some());
        check_header(&response, "x-anonymous-consumer", None);
        assert!(!response.text().contains("alice-key"), "the key is hidden: {}", response.text());
    }
    let body = http(
        gateway.proxy(),
        "POST /",
        &[("Content-Type", "application/x-www-form-urlencoded")],
        b"a=b&apikey=bob-key",
    );
    check_header(&body, "x-consumer-username", Some("bob"));
    gateway.stop();
}

#[test]
fn basic_auth() {
    let (gateway, _backend) = start(&["{name: basic-auth, config: {hide_credentials: true}}"]);
    for headers in
        [vec![], vec![ALICE_WRONG], vec![("Authorization", "Basic ???")], vec![("Authorization", "Bearer x")]]
    {
        let response = get(&gateway, "/", &headers);
        assert_eq!(response.status, 401, "{headers:?}");
        assert!(response.header("www-authenticate").is_some_and(|value| value.starts_with("Basic")));
    }
    let response = get(&gateway, "/", &[ALICE]);
    check_header(&response, "x-consumer-username", Some("alice"));
    check_header(&response, "authorization", None);
    gateway.stop();
}

#[test]
fn acl() {
    let (gateway, _backend) = start(&["{name: key-auth}", "{name: acl, config: {allow: [admins]}}"]);
    assert_eq!(get(&gateway, "/", &[]).status, 401);
    let bob = get(&gateway, "/", &[("apikey", "bob-key")]);
    assert_eq!(bob.status, 403);
    assert_eq!(bob.json()["message"], "You cannot consume this service");
    let alice = get(&gateway, "/", &[("apikey", "alice-key")]);
    assert_eq!(alice.status, 200);
    let groups = echoed_header(&alice, "x-consumer-groups").expect("the groups are told");
    assert!(groups.contains("admins") && groups.contains("users"), "{groups}");
    gateway.stop();

    let (gateway, _backend) =
        start(&["{name: key-auth}", "{name: acl, config: {deny: [admins], hide_groups_header: true}}"]);
    assert_eq!(get(&gateway, "/", &[("apikey", "alice-key")]).status, 403);
    check_header(&get(&gateway, "/", &[("apikey", "bob-key")]), "x-consumer-groups", None);
    gateway.stop();
}

#[test]
fn without_anonymous_every_authentication_is_needed() {
    let (gateway, _backend) = start(&["{name: key-auth}", "{name: basic-auth}"]);
    assert_eq!(get(&gateway, "/", &[("apikey", "alice-key")]).status, 401);
    assert_eq!(get(&gateway, "/", &[ALICE]).status, 401);
    assert_eq!(get(&gateway, "/", &[ALICE, ("apikey", "alice-key")]).status, 200);
    gateway.stop();
}

#[test]
fn with_anonymous_one_authentication_is_enough() {
    let (gateway, _backend) =
        start(&["{name: key-auth, config: {anonymous: nobody}}", "{name: basic-auth, config: {anonymous: nobody}}"]);
    for (headers, username, anonymous) in [
        (vec![("apikey", "bob-key")], "bob", None),
        (vec![ALICE], "alice", None),
        (vec![("apikey", "bob-key"), ALICE], "bob", None),
        (vec![("apikey", "wrong")], "nobody", Some("true")),
        (vec![], "nobody", Some("true")),
        (vec![("X-Anonymous-Consumer", "false")], "nobody", Some("true")),
    ] {
        let response = get(&gateway, "/", &headers);
        check_header(&response, "x-consumer-username", Some(username));
        check_header(&response, "x-anonymous-consumer", anonymous);
    }
    gateway.stop();

    // The usual companion: the anonymous consumer itself is turned away.
    let backend = Backend::echo();
    let config = with_plugins(
        &one_route(&backend.url()),
        &[
            "{name: key-auth, config: {anonymous: nobody}}",
            "{name: basic-auth, config: {anonymous: nobody}}",
            "{name: request-termination, consumer: nobody, config: {status_code: 401, message: who are you}}",
        ],
    ) + CONSUMERS;
    let gateway = Gateway::start(&config);
    let refused = get(&gateway, "/", &[]);
    assert_eq!((refused.status, refused.json()["message"].as_str()), (401, Some("who are you")));
    assert_eq!(get(&gateway, "/", &[ALICE]).status, 200);
    gateway.stop();
}

#[test]
fn ip_restriction() {
    for (config, status) in [
        ("allow: [127.0.0.0/8]", 200),
        ("allow: [10.0.0.0/8, '::1']", 403),
        ("deny: [127.0.0.1]", 403),
        ("deny: [10.0.0.0/8]", 200),
        ("deny: [127.0.0.1], status: 418, message: no tea", 418),
    ] {
        let (gateway, _backend) = start(&[&format!("{{name: ip-restriction, config: {{{config}}}}}")]);
        let response = get(&gateway, "/", &[("X-Forwarded-For", "10.1.1.1"), ("X-Real-IP", "10.1.1.1")]);
        assert_eq!(response.status, status, "{config}");
        gateway.stop();
    }
    let backend = Backend::echo();
    let config = with_plugins(&one_route(&backend.url()), &["{name: ip-restriction, config: {allow: [10.1.1.1]}}"]);
    let gateway = Gateway::builder(&config).arg("--trusted-ips=127.0.0.1").start();
    assert_eq!(get(&gateway, "/", &[("X-Real-IP", "10.1.1.1")]).status, 200, "a trusted peer names the client");
    assert_eq!(get(&gateway, "/", &[("X-Real-IP", "10.1.1.2")]).status, 403);
    gateway.stop();
}

#[test]
fn bot_detection() {
    let (gateway, _backend) = start(&["{name: bot-detection, config: {deny: ['evil'], allow: ['good-evil']}}"]);
    for (agent, status) in [
        ("curl/8", 200),
        ("evil/1", 403),
        ("good-evil/1", 200),
        ("Googlebot/2.1", 200),
        ("facebookexternalhit/1.1", 200),
    ] {
        let response = get(&gateway, "/", &[("User-Agent", agent)]);
        if !matches!(agent, "Googlebot/2.1" | "facebookexternalhit/1.1") {
            assert_eq!(response.status, status, "{agent}");
        }
    }
    assert_eq!(get(&gateway, "/", &[]).status, 200, "no agent at all");
    gateway.stop();
}

/// The most specific instance of a plugin runs, and only that one.
#[test]
fn the_most_specific_instance_applies() {
    let backend = Backend::echo();
    let url = backend.url();
    let say = |text: &str, scope: &str| {
        format!("- {{name: response-transformer{scope}, config: {{add: {{headers: ['X-Scope:{text}']}}}}}}\n")
    };
    let config = format!(
        "_format_version: '3.0'\n\
         services:\n\
         - {{name: s1, url: '{url}', routes: [{{name: r1, paths: [/r1]}}, {{name: r2, paths: [/r2]}}]}}\n\
         - {{name: s2, url: '{url}', routes: [{{name: r3, paths: [/r3]}}, {{name: r4, paths: [/r4]}}]}}\n\
         - {{name: s3, url: '{url}', routes: [{{name: r5, paths: [/r5]}}]}}\n\
         plugins:\n\
         - {{name: key-auth, config: {{anonymous: nobody}}}}\n{}{}{}{}{}{}{}{}{CONSUMERS}",
        say("global", ""),
        say("service", ", service: s1"),
        say("route", ", route: r1"),
        say("consumer", ", consumer: alice"),
        say("route+consumer", ", route: r1, consumer: alice"),
        say("service+consumer", ", service: s2, consumer: alice"),
        say("service+route", ", service: s2, route: r3"),
        say("all", ", service: s2, route: r4, consumer: alice"),
    );
    let gateway = Gateway::start(&config);
    for (target, key, scope) in [
        ("/r1", "", "route"),
        ("/r2", "", "service"),
        ("/r3", "", "service+route"),
        ("/r4", "", "global"),
        ("/r5", "", "global"),
        ("/r1", "alice-key", "route+consumer"),
        ("/r2", "alice-key", "consumer"),
        ("/r3", "alice-key", "service+consumer"),
        ("/r4", "alice-key", "all"),
        ("/r5", "alice-key", "consumer"),
        ("/r1", "bob-key", "route"),
        ("/r5", "bob-key", "global"),
        ("/nowhere", "alice-key", "global"),
    ] {
        let response = get(&gateway, target, &[("apikey", key)]);
        assert_eq!(response.header_all("x-scope"), [scope], "{target} with {key:?}");
    }
    gateway.stop();
}

#[test]
fn a_refused_request_is_still_logged_and_filtered() {
    let backend = Backend::echo();
    let dir = std::env::temp_dir().join(format!("gateward-refused-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("directories can be made");
    let file = dir.join("access.log");
    let config = with_plugins(
        &one_route(&backend.url()),
        &[
            "{name: key-auth}",
            "{name: correlation-id, config: {echo_downstream: true, header_name: X-Id}}",
            "{name: response-transformer, config: {add: {headers: ['X-Filtered:yes']}}}",
            &format!("{{name: file-log, config: {{path: {}}}}}", file.display()),
        ],
    );
    let gateway = Gateway::start(&config);
    let response = get(&gateway, "/secret?apikey=hidden", &[("Authorization", "Basic hidden")]);
    assert_eq!((response.status, response.header("x-filtered")), (401, Some("yes")));
    assert!(response.header("x-id").is_some());
    let mut text = String::new();
    eventually(Duration::from_secs(5), || {
        text = std::fs::read_to_string(&file).unwrap_or_default();
        text.ends_with('\n')
    });
    let record: serde_json::Value = serde_json::from_str(text.trim()).expect("a line of JSON");
    assert_eq!(record["response"]["status"], 401, "{record}");
    assert_eq!(record["route"]["name"], "all", "{record}");
    assert!(!record["request"]["headers"].to_string().contains("Basic hidden"), "credentials are not logged: {record}");
    gateway.stop();
    std::fs::remove_dir_all(&dir).expect("the directory can be removed");
}
