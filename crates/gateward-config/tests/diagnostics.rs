//! File in, diagnostics out: what is refused, where, and in which words.

mod support;

use gateward_config::{Format, Severity, load};
use gateward_model::RouterFlavor;
use support::{check, check_flavor, load_yaml, options, show};

/// Diagnostics of a whole text.
fn check_text(text: &[u8], format: Format, expected: &[&str]) {
    let problems = load(text, format, &options(RouterFlavor::TraditionalCompatible)).expect_err("refused");
    assert_eq!(show(&problems), expected);
}

#[test]
fn the_file_itself() {
    check_text(b"", Format::Yaml, &["1:1: the file is empty; it needs at least _format_version"]);
    check_text(b"[]", Format::Yaml, &["1:1: expected a map with _format_version and entities; found a list"]);
    check_text(b"{}", Format::Json, &["1:1: _format_version: required field is missing; add _format_version: \"3.0\""]);
    check_text(
        b"_format_version: 3.0",
        Format::Yaml,
        &["1:18: _format_version: expected a string; found a number; put it in quotes: \"3.0\""],
    );
    check_text(
        b"_format_version: \"4.0\"",
        Format::Yaml,
        &["1:18: _format_version: not a known version; expected \"1.1\", \"2.1\" or \"3.0\""],
    );
    check_text(b"a\n\xff", Format::Yaml, &["2:1: the file is not UTF-8; save it in that encoding"]);
    check_text(b"{\"a\":1,}", Format::Json, &["1:8: expected a key in double quotes"]);
}

#[test]
fn top_level_keys() {
    check("servces: []", &["2:1: servces: unknown entity - did you mean 'services'?"]);
    check("services: {a: b}", &["2:11: services: expected a list of services; found a map"]);
    check("services: [x]", &["2:12: services[0]: expected a map with the fields of one of services; found a string"]);
    check("services: ~\nroutes: {}\n_comment: x\n_ignore: [1, a]", &[]);
    check("_comment: 3", &["2:11: _comment: expected a string; found an integer"]);
    check("_transform: 3", &["2:13: _transform: expected a boolean; found an integer"]);
    check(
        "_info: {select_tags: [a]}\n_workspace: default\nsessions: []",
        &[
            "2:1: _info: warning: ignored: nothing in this gateway reads it",
            "3:1: _workspace: warning: ignored: nothing in this gateway reads it",
            "4:1: sessions: warning: ignored: run-time state is not loaded from a file",
        ],
    );
}

#[test]
fn fields_and_types() {
    check(
        "services:\n- name: a\n  host: h\n  protcol: http\n  port: '80'\n  retries: 1.5\n  tags: [x, x]\n  enabled: maybe\n",
        &[
            "5:3: services[0].protcol: unknown field - did you mean 'protocol'?",
            "6:9: services[0].port: expected an integer; found the string '80'; remove the quotes if it is one",
            "7:12: services[0].retries: expected an integer; found the number 1.5",
            "8:13: services[0].tags[1]: repeats an earlier element; remove one",
            "9:12: services[0].enabled: expected a boolean; found the string 'maybe'",
        ],
    );
    check(
        "services: [{name: 12, host: h}]",
        &["2:19: services[0].name: expected a string; found the integer 12; put it in quotes"],
    );
    check(
        "services: [{name: a, host: h, plugin: []}]",
        &["2:31: services[0].plugin: unknown field - did you mean 'plugins'?"],
    );
    check("services: [{name: a}]", &["2:12: services[0].host: required field is missing"]);
    check("services: [{host: h, enabled: off, retries: 3.0}]", &[]);
    check(
        "services: [{id: x, host: 'a b'}]",
        &[
            "2:17: services[0].id: 'x' is not a UUID",
            "2:26: services[0].host: not a valid host name or IP address (without port)",
        ],
    );
    check(
        "consumers: [{username: a, keyauth_credentials: [{key: 12345}]}]",
        &["2:55: consumers[0].keyauth_credentials[0].key: expected a string; found an integer; put it in quotes"],
    );
    check(
        "services: [{host: h, connect_timeout: 0}]",
        &["2:39: services[0].connect_timeout: 0 is not between 1 and 2147483646"],
    );
}

#[test]
fn url_shorthand() {
    check("services: [{url: 'http://h:81/p'}]", &[]);
    check(
        "services:\n- name: realtime\n  url: http://h/socket\n  protocol: ws\n",
        &["5:13: services[0].protocol: warning: ignored, because 'url' is given and sets this field; remove one"],
    );
    check("services: [{url: nonsense}]", &["2:18: services[0].url: not a URL; expected protocol://host[:port][/path]"]);
    check(
        "services: [{url: 'ftp://h'}]",
        &[
            "2:13: services[0].protocol: 'ftp' is not one of: 'grpc', 'grpcs', 'http', 'https', 'tcp', 'tls', 'tls_passthrough', 'udp'",
        ],
    );
    check("services: [{url: 'http://h/a//b'}]", &["2:13: services[0].path: must not have empty segments ('//')"]);
}

#[test]
fn references() {
    check(
        "services: [{name: billing, host: h}]\nroutes: [{paths: [/a], service: biling}]",
        &["3:33: routes[0].service: there is no 'biling' in services - did you mean 'billing'?"],
    );
    check(
        "services:\n- {name: a, host: h, routes: [{paths: [/], service: a}]}",
        &["3:53: services[0].routes[0].service: nested under its service and naming one as well; remove 'service'"],
    );
    check(
        "routes: [{paths: [/], service: [a]}]",
        &["2:32: routes[0].service: expected a name, an id, or a map with 'id' or 'name'; found a list"],
    );
    check(
        "routes: [{paths: [/], service: {x: 1}}]",
        &["2:32: routes[0].service: expected a name, an id, or a map with 'id' or 'name'"],
    );
    check(
        "acls: [{group: g}]",
        &["2:8: acls[0].consumer: required field is missing; nest this under its consumer or name one"],
    );
    check("targets: [{target: a, upstream: nope}]", &["2:33: targets[0].upstream: there is no 'nope' in upstreams"]);
    // One mistake, one message: the service that is wrong still is there to be referred to.
    check(
        "services: [{name: a}]\nroutes: [{paths: [/], service: a}]",
        &["2:12: services[0].host: required field is missing"],
    );
}

#[test]
fn uniqueness() {
    // Ids made of references that lead nowhere are no repetition.
    check(
        "plugins: [{name: cors, service: a}, {name: cors, service: b}]",
        &[
            "2:33: plugins[0].service: there is no 'a' in services",
            "2:59: plugins[1].service: there is no 'b' in services",
        ],
    );
    check(
        "services: [{name: a, host: h}]\nupstreams: []\nconsumers: [{username: x}, {username: x}]",
        &["4:39: consumers[1].username: the username 'x' is already used by the entity at 4:13"],
    );
    check(
        "consumers: [{username: x, custom_id: c}, {username: y, custom_id: c}]",
        &["2:67: consumers[1].custom_id: the custom_id 'c' is already used by the entity at 2:13"],
    );
    check(
        "consumers: [{username: x, keyauth_credentials: [{key: s3}, {key: s3}], acls: [{group: g}, {group: g}]}]",
        &[
            "2:66: consumers[0].keyauth_credentials[1].key: the key is already used by the entity at 2:49",
            "2:99: consumers[0].acls[1].group: the group 'g' with the same consumer is already used by the entity at 2:79",
        ],
    );
    check(
        "plugins: [{name: cors}, {name: cors}]",
        &[
            "2:32: plugins[1].name: the name 'cors' with the same route, service, consumer is already used by the entity at 2:11",
        ],
    );
    // What an alias repeats is repeated, although it is written once.
    check(
        "services: [&s {host: h, routes: [{name: r, paths: [/]}]}, *s]",
        &["2:41: services[1].routes[0].name: the name 'r' is already used by the entity at 2:34"],
    );
    let id = "0dc6f45b-8f8d-40d2-a504-473544ee190b";
    check(
        &format!("services: [{{id: {id}, host: a}}, {{id: {id}, host: b}}]"),
        &[&format!("2:70: services[1].id: the id {id} is already used at 2:12")],
    );
    check(
        "upstreams:\n- {name: u, targets: [{target: a}, {target: 'a:8000'}]}",
        &[
            "3:45: upstreams[0].targets[1].target: the target 'a:8000' with the same upstream is already used by the entity at 3:23",
        ],
    );
}

#[test]
fn routes() {
    check(
        "routes: [{name: r}]",
        &["2:10: routes[0]: must set one of methods, hosts, headers, paths, snis when 'protocols' is http, https"],
    );
    check(
        "routes: [{name: r, paths: [], protocols: [http]}]",
        &["2:10: routes[0]: must set one of methods, hosts, headers, paths when 'protocols' is http"],
    );
    check(
        "routes: [{paths: [/a//b, x, '~/(?=a)', '/%41']}]",
        &[
            "2:19: routes[0].paths[0]: not normalised, so it would never match; write '/a/b'",
            "2:26: routes[0].paths[1]: must start with '/' (a prefix) or '~' (a regular expression)",
            "2:29: routes[0].paths[2]: this regular expression uses look-around, which is not supported; rewrite it without",
            "2:40: routes[0].paths[3]: not normalised, so it would never match; write '/A'",
        ],
    );
    check(
        "routes: [{paths: ['/a/\\d+$']}]",
        &[
            "2:19: routes[0].paths[0]: warning: looks like a regular expression but is matched as a prefix; begin it with '~'",
        ],
    );
    check(
        "routes: [{hosts: [a.com, '*.a.com', 'a.*:80', 'a.*.b', '*', 'x y']}]",
        &[
            "2:47: routes[0].hosts[3]: not a valid host; one '*' may stand for the first or the last label: '*.x' or 'x.*'",
            "2:56: routes[0].hosts[4]: not a valid host; one '*' may stand for the first or the last label: '*.x' or 'x.*'",
            "2:61: routes[0].hosts[5]: not a valid host; expected a host name or address, perhaps with ':port'",
        ],
    );
    check(
        "routes: [{headers: {Host: [a], x-a: [], x-b: ['~*('], 'x c': [d]}}]",
        &[
            "2:21: routes[0].headers.Host: the host cannot be matched as a header; use 'hosts'",
            "2:37: routes[0].headers.x-a: must have at least 1 element",
            "2:55: routes[0].headers[\"x c\"]: not a valid header name",
        ],
    );
    check(
        "routes: [{headers: {x-b: ['~*(']}}]",
        &["2:27: routes[0].headers.x-b[0]: not a regular expression: unclosed group"],
    );
    check(
        "routes: [{methods: [GET, get]}]",
        &["2:26: routes[0].methods[1]: not a valid method; methods are written in capital letters"],
    );
    check(
        "routes: [{paths: [/], protocols: [http, tcp], https_redirect_status_code: 200}]",
        &[
            "2:41: routes[0].protocols[1]: protocols of different kinds; a route has one of: http/https, grpc/grpcs, tcp/tls/udp, tls_passthrough",
            "2:75: routes[0].https_redirect_status_code: 200 is not one of: 426, 301, 302, 307, 308",
        ],
    );
    check(
        "routes: [{paths: [/], expression: 'true'}]",
        &["2:35: routes[0].expression: needs router_flavor=expressions"],
    );
    check(
        "routes: [{paths: [/], path_handling: v1}]",
        &[
            "2:38: routes[0].path_handling: warning: 'v1' has no effect with router_flavor=traditional_compatible; paths are joined as 'v0'",
        ],
    );
}

#[test]
fn expression_routes() {
    let flavor = RouterFlavor::Expressions;
    check_flavor("routes: [{expression: 'http.path == \"/\"', priority: 3}, {paths: [/]}]", flavor, &[]);
    check_flavor(
        "routes: [{expression: 'true', paths: [/]}]",
        flavor,
        &["2:38: routes[0].paths: must not be set together with 'expression'"],
    );
    check_flavor(
        "routes: [{paths: [/], priority: 3}]",
        flavor,
        &["2:33: routes[0].priority: is for routes with an 'expression'; use 'regex_priority'"],
    );
}

#[test]
fn upstreams_and_targets() {
    check(
        "upstreams: [{name: 1.2.3.4}, {name: 'a:80'}]",
        &[
            "2:20: upstreams[0].name: not a valid host name (no IP address, no port)",
            "2:37: upstreams[1].name: not a valid host name (no IP address, no port)",
        ],
    );
    check(
        "upstreams: [{name: u, hash_on: header}]",
        &["2:13: upstreams[0]: 'hash_on_header' must be set when 'hash_on' is 'header'"],
    );
    check(
        "upstreams: [{name: u, hash_fallback: ip}]",
        &["2:38: upstreams[0].hash_fallback: must be 'none' when 'hash_on' is 'none'"],
    );
    check(
        "upstreams: [{name: u, hash_on: ip, hash_fallback: ip}]",
        &["2:51: upstreams[0].hash_fallback: must differ from 'hash_on'"],
    );
    check(
        "upstreams: [{name: u, hash_on: ip, algorithm: latency}]",
        &[
            "2:47: upstreams[0].algorithm: warning: ignored: 'hash_on' sets the algorithm to consistent-hashing; remove one of them",
        ],
    );
    check(
        "upstreams: [{name: u, slots: 9, healthchecks: {active: {typ: x}}}]",
        &[
            "2:30: upstreams[0].slots: 9 is not between 10 and 65536",
            "2:57: upstreams[0].healthchecks.active.typ: unknown field - did you mean 'type'?",
        ],
    );
    check(
        "upstreams: [{name: u, targets: [{target: 'http://x'}, {target: a, weight: 65536}]}]",
        &[
            "2:42: upstreams[0].targets[0].target: not a valid target; expected 'host' or 'host:port'",
            "2:75: upstreams[0].targets[1].weight: 65536 is not between 0 and 65535",
        ],
    );
}

#[test]
fn plugins() {
    check(
        "plugins: [{name: key-atuh}]",
        &["2:18: plugins[0].name: there is no plugin 'key-atuh' - did you mean 'key-auth'?"],
    );
    check(
        "plugins: [{name: zipkin}]",
        &["2:18: plugins[0].name: the plugin 'zipkin' is bundled with Kong but not served by this build; remove it"],
    );
    check(
        "plugins: [{name: key-auth, config: {key_name: [a]}}]",
        &["2:37: plugins[0].config.key_name: unknown field - did you mean 'key_names'?"],
    );
    check("plugins: [{name: key-auth, config: 3}]", &["2:36: plugins[0].config: expected a map; found an integer"]);
    check("plugins: [{name: acl}]", &["2:11: plugins[0].config: exactly one of these must be set: allow, deny"]);
    check(
        "plugins: [{name: acl, config: {allow: [a], deny: [b]}}]",
        &["2:50: plugins[0].config.deny: exactly one of these must be set: allow, deny"],
    );
    check(
        "consumers: [{username: a, plugins: [{name: key-auth}]}]",
        &["2:37: consumers[0].plugins[0]: cannot be applied to a consumer"],
    );
    check(
        "plugins: [{name: rate-limiting, config: {minute: 0, names: [a, a], policy: rediss}}]",
        &[
            "2:50: plugins[0].config.minute: 0 is not greater than 0",
            "2:64: plugins[0].config.names[1]: repeats an earlier element; remove one",
            "2:76: plugins[0].config.policy: 'rediss' is not one of: 'local', 'redis' - did you mean 'redis'?",
        ],
    );
    check(
        "plugins: [{name: rate-limiting, config: {redis_host: a, redis: {host: b}}}]",
        &[
            "2:42: plugins[0].config.redis_host: warning: deprecated: use redis.host",
            "2:71: plugins[0].config.redis.host: differs from the deprecated 'redis_host', which means the same; remove 'redis_host'",
        ],
    );
    check(
        "plugins: [{name: rate-limiting, config: {redis_host: a, redis: {host: a}}}]",
        &["2:42: plugins[0].config.redis_host: warning: deprecated: use redis.host"],
    );
}

#[test]
fn vault_references() {
    check(
        "plugins: [{name: rate-limiting, config: {redis: {password: '{vault://env/nope}'}}}]",
        &[
            "2:60: plugins[0].config.redis.password: the environment variable NOPE that this vault reference names is not set",
        ],
    );
    check(
        "plugins: [{name: rate-limiting, config: {redis: {host: '{vault://env/nope}'}}}]",
        &[
            "2:56: plugins[0].config.redis.host: warning: this field does not resolve vault references; the text is taken as it is",
        ],
    );
    check("vaults: [{name: aws, prefix: my-aws}]", &["2:17: vaults[0].name: 'aws' is not one of: 'env'"]);
}

#[test]
fn credentials() {
    let generated = "required in a file: one that was generated would differ on every node and reload";
    check(
        "consumers: [{username: a, keyauth_credentials: [{}]}]",
        &[&format!("2:49: consumers[0].keyauth_credentials[0].key: {generated}")],
    );
    check("consumers: [{tags: [a]}]", &["2:13: consumers[0]: at least one of these is needed: username, custom_id"]);
    check(
        "consumers: [{username: a, jwt_secrets: [{key: k, algorithm: RS256}]}]",
        &[
            "2:41: consumers[0].jwt_secrets[0]: 'rsa_public_key' must be set when 'algorithm' is 'RS256'",
            "2:41: consumers[0].jwt_secrets[0]: warning: loaded, but without effect: no plugin of this build reads it",
        ],
    );
}

#[test]
fn what_this_build_cannot_serve() {
    check("services: [{name: a, url: 'https://h', tls_verify: true, tls_verify_depth: 2}]", &[]);
    check(
        "services: [{name: a, host: h, tls_verify: true, path: /x, protocol: grpc}]",
        &[
            "2:43: services[0].tls_verify: must not be set when 'protocol' is 'grpc'; it is for https, grpcs and tls",
            "2:55: services[0].path: must not be set when 'protocol' is 'grpc'",
        ],
    );
    check("services: [{name: a, url: 'tcp://h:1', routes: [{protocols: [tcp], destinations: [{port: 9000}]}]}]", &[]);
    check(
        "services: [{name: a, url: 'tls://h:1', tls_verify: true, routes: [{protocols: [tls_passthrough], snis: [a.com]}]}]",
        &[],
    );
    check(
        "services: [{name: a, url: 'udp://h:1', proxy_protocol: v2}]",
        &["2:56: services[0].proxy_protocol: warning: without effect on datagrams: a header begins connections only"],
    );
    check("routes: [{protocols: [grpc], paths: [/a]}]", &[]);
    check("routes: [{protocols: [https], snis: [a.com]}]", &[]);
    for kind in ["http", "https", "tcp", "grpc", "grpcs"] {
        check(
            &format!("upstreams: [{{name: u, healthchecks: {{active: {{type: {kind}, healthy: {{interval: 5}}}}}}}}]"),
            &[],
        );
    }
    check("services: [{url: 'grpcs://h:1', tls_verify: true, tls_verify_depth: 2}]", &[]);
    check(
        "services: [{url: 'https://h', http2: true}, {url: 'grpc://h', http2: true}, {url: 'http://h', http2: false}]",
        &[],
    );
    check(
        "services: [{url: 'http://h', http2: true}, {url: 'grpcs://h', http2: false}]",
        &[
            "2:37: services[0].http2: must not be true when 'protocol' is 'http'; HTTP/2 is agreed on in TLS: use https",
            "2:70: services[1].http2: must not be false when 'protocol' is 'grpcs', which is always HTTP/2",
        ],
    );
    let pem = "\"-----BEGIN CERTIFICATE-----\\nYWJj\\n-----END CERTIFICATE-----\"";
    let key = "\"-----BEGIN PRIVATE KEY-----\\nYWJj\\n-----END PRIVATE KEY-----\"";
    check(&format!("certificates:\n- cert: {pem}\n  key: {key}\n  snis: [{{name: '*.a.com'}}]\n"), &[]);
    check(
        "ca_certificates: [{cert: x}]",
        &["2:26: ca_certificates[0].cert: not a certificate in PEM form (-----BEGIN CERTIFICATE-----)"],
    );
}

#[test]
fn diagnostics_know_their_entity_and_never_a_secret() {
    let text =
        "_format_version: '3.0'\nconsumers: [{username: bob, keyauth_credentials: [{key: [topsecret], tgs: []}]}]";
    let problems = load_yaml(text).expect_err("refused");
    let entity = problems[0].entity.clone().expect("has an entity");
    assert_eq!((entity.kind.as_str(), entity.name), ("keyauth_credentials", None));
    assert_eq!(problems[0].severity, Severity::Error);
    assert!(!format!("{problems:?}").contains("topsecret"));
    let json = serde_json::to_value(&problems[0]).expect("serialises");
    assert_eq!(json["path"], "consumers[0].keyauth_credentials[0].key");
    assert_eq!(json["severity"], "error");
}

#[test]
fn a_flood_of_problems_is_counted() {
    let body: String = (0..3_000).map(|n| format!("- {{nmae: s{n}}}\n")).collect();
    let problems = load_yaml(&format!("_format_version: '3.0'\nservices:\n{body}")).expect_err("refused");
    assert_eq!(problems.len(), 1_001);
    assert_eq!(problems[1_000].message, "and 5000 more like these; fix the ones above and check again");
}

#[test]
fn resilience_of_upstreams() {
    check(
        "upstreams:\n- name: u\n  resilience:\n    per_try_timeout: 0\n    hedging: {}\n    retry_on_statuses: [404]\n    retry_budget: {percent: 101}\n    curcuit_breaker: {}\n",
        &[
            "5:22: upstreams[0].resilience.per_try_timeout: 0 is not between 1 and 3600000",
            "6:14: upstreams[0].resilience.hedging: at least one of these is needed: delay_ms, percentile",
            "7:25: upstreams[0].resilience.retry_on_statuses[0]: 404 is not between 500 and 599",
            "8:29: upstreams[0].resilience.retry_budget.percent: 101 is not between 0 and 100",
            "9:5: upstreams[0].resilience.curcuit_breaker: unknown field - did you mean 'circuit_breaker'?",
        ],
    );
}

#[test]
fn priorities_of_routes() {
    check("routes: [{paths: [/], tags: ['gateward:priority=high', 'priority=x']}]", &[]);
    check(
        "routes: [{paths: [/], tags: ['gateward:priority=urgent']}]",
        &["2:30: routes[0].tags[0]: 'urgent' is no priority; use one of: critical, high, normal, low"],
    );
}
