//! What a file becomes: defaults, nesting, references, ids, hashes, and back to a file.

mod support;

use gateward_config::{Format, dump, entity_schema, load, schema_to_json};
use gateward_model::{Algorithm, EntityId, Protocol, RouterFlavor};
use serde_json::{Value, json};
use support::{NOW, good, options, show};

/// Reloads the dump of `config` in both formats, at another time.
fn check_round_trip(config: &gateward_model::Config) {
    for format in [Format::Yaml, Format::Json] {
        let text = dump(config, format);
        let options = gateward_config::Options { now: NOW + 99, ..options(RouterFlavor::TraditionalCompatible) };
        match load(text.as_bytes(), format, &options) {
            Ok(again) => assert_eq!(&again.config, config, "{text}"),
            Err(problems) => panic!("{}\n{text}", show(&problems).join("\n")),
        }
    }
}

fn body(text: &str) -> gateward_config::Loaded {
    good(&format!("_format_version: \"3.0\"\n{text}"))
}

/// The first entity of `kind` as JSON, without what differs from file to file.
fn entity(config: &gateward_model::Config, kind: &str) -> Value {
    let mut all = serde_json::to_value(config).expect("serialises");
    let mut first = all[kind][0].take();
    let fields = first.as_object_mut().expect("an entity");
    fields.retain(|name, value| !value.is_null() && name != "id" && name != "created_at" && name != "updated_at");
    first
}

#[test]
fn service_and_route_defaults() {
    let config = body("services: [{host: h, routes: [{paths: [/]}]}]").config;
    assert_eq!(
        entity(&config, "services"),
        json!({"host": "h", "protocol": "http", "port": 80, "retries": 5, "connect_timeout": 60000,
               "write_timeout": 60000, "read_timeout": 60000, "enabled": true})
    );
    assert_eq!(
        entity(&config, "routes"),
        json!({"protocols": ["http", "https"], "paths": ["/"], "regex_priority": 0, "strip_path": true,
               "preserve_host": false, "path_handling": "v0", "https_redirect_status_code": 426,
               "request_buffering": true, "response_buffering": true, "service": config.services[0].id})
    );
    assert_eq!((config.services[0].created_at, config.routes[0].updated_at), (NOW, NOW));
}

#[test]
fn upstream_and_target_defaults() {
    let config = body("upstreams: [{name: u, targets: [{target: a}]}]").config;
    let upstream = entity(&config, "upstreams");
    let healthchecks = upstream["healthchecks"].clone();
    assert_eq!(
        upstream,
        json!({"name": "u", "algorithm": "round-robin", "hash_on": "none", "hash_fallback": "none",
               "hash_on_cookie_path": "/", "slots": 10000, "use_srv_name": false, "healthchecks": healthchecks})
    );
    assert_eq!(
        healthchecks,
        json!({
            "threshold": 0,
            "active": {
                "type": "http", "timeout": 1, "concurrency": 10, "http_path": "/", "https_verify_certificate": true,
                "healthy": {"interval": 0, "successes": 0, "http_statuses": [200, 302]},
                "unhealthy": {"interval": 0, "tcp_failures": 0, "timeouts": 0, "http_failures": 0,
                              "http_statuses": [429, 404, 500, 501, 502, 503, 504, 505]},
            },
            "passive": {
                "type": "http",
                "healthy": {"successes": 0, "http_statuses":
                    [200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308]},
                "unhealthy": {"tcp_failures": 0, "timeouts": 0, "http_failures": 0, "http_statuses": [429, 500, 503]},
            },
        })
    );
    assert_eq!(
        entity(&config, "targets"),
        json!({"target": "a:8000", "weight": 100, "upstream": config.upstreams[0].id})
    );
}

#[test]
fn resilience_is_off_and_its_parts_have_defaults() {
    let upstream = |fields: &str| {
        let config = body(&format!("upstreams: [{{name: u, {fields}}}]")).config;
        check_round_trip(&config);
        entity(&config, "upstreams")["resilience"].clone()
    };
    assert_eq!(upstream("slots: 10"), Value::Null);
    assert_eq!(upstream("resilience: {}"), json!({}));
    assert_eq!(
        upstream("resilience: {circuit_breaker: {max_requests: 5}, retry_budget: {}, hedging: {delay_ms: 50}}"),
        json!({
            "circuit_breaker": {"max_connections": 0, "max_pending": 0, "max_requests": 5},
            "retry_budget": {"percent": 20.0, "min_per_second": 10},
            "hedging": {"delay_ms": 50},
        })
    );
    assert_eq!(
        upstream("resilience: {outlier_detection: {}, slow_start: {window: 60}}"),
        json!({
            "outlier_detection": {
                "consecutive_failures": 5, "consecutive_gateway_failures": 0, "success_rate_stdev_factor": 0.0, "minimum_hosts": 5, "request_volume": 100,
                "interval": 10.0, "base_ejection_time": 30.0, "max_ejection_time": 300.0, "max_ejection_percent": 10,
            },
            "slow_start": {"window": 60.0, "aggression": 1.0, "min_weight_percent": 10.0},
        })
    );
    assert_eq!(
        upstream("resilience: {per_try_timeout: 250, retry_on_statuses: [502, 503], hedging: {percentile: 99.5}}"),
        json!({"per_try_timeout": 250, "retry_on_statuses": [502, 503], "hedging": {"percentile": 99.5}})
    );
}

#[test]
fn plugin_and_credential_defaults() {
    let config = body(
        "plugins: [{name: rate-limiting}]\nconsumers:\n- username: a\n  jwt_secrets: [{key: k, secret: s}]\n  oauth2_credentials: [{name: o, client_id: i, client_secret: s}]\nvaults: [{name: env, prefix: my-env}]",
    )
    .config;
    assert_eq!(
        entity(&config, "plugins"),
        json!({"name": "rate-limiting", "enabled": true, "protocols": ["grpc", "grpcs", "http", "https"],
               "config": {"policy": "local", "redis": {"port": 6379}}})
    );
    assert_eq!(config.others["jwt_secrets"][0].fields["algorithm"], "HS256");
    let oauth2 = &config.others["oauth2_credentials"][0].fields;
    assert_eq!((&oauth2["hash_secret"], &oauth2["client_type"]), (&json!(false), &json!("confidential")));
    assert_eq!(config.vaults[0].config, json!({"base64_decode": false}));
}

#[test]
fn ids_are_those_kong_makes() {
    let config = body(concat!(
        "services: [{name: example, host: h, routes: [{name: example-route, paths: [/], plugins: [{name: cors}]}]}]\n",
        "upstreams: [{name: u.internal, targets: [{target: 10.0.0.1}]}]\n",
        "consumers: [{username: bob, keyauth_credentials: [{key: k1}], basicauth_credentials: [{username: b, password: pw}]}]\n",
    ))
    .config;
    let check = |id: EntityId, expected: &str| assert_eq!(id.to_string(), expected);
    check(config.services[0].id, "89dd9e9d-3f98-5e11-ab72-c90b6c2d30a2");
    check(config.routes[0].id, "eeb325b8-afd4-5ba2-a113-c34eeb969c1d");
    check(config.plugins[0].id, "8f0348c1-5fa8-56ce-be19-b4779b08a6c6");
    check(config.upstreams[0].id, "2e106757-7776-5663-9b64-81878562601d");
    check(config.targets[0].id, "d1ad0bbc-474b-5037-b835-3adc4c9276ea");
    check(config.keyauth_credentials[0].id, "9bcaf3b7-5606-5db0-bb51-67e4591952a0");
    assert_eq!(config.basicauth_credentials[0].password.expose(), "52544aa6601b0b2a3c7f741292b54e578c2fcb85");
}

#[test]
fn ids_of_unnamed_entities_depend_on_content_only() {
    let first = body("routes: [{paths: [/a]}, {paths: [/b]}, {paths: [/a]}]").config;
    let second = body(
        "tags: ~\nroutes: [{paths: [/b]}, {paths: [/a], created_at: 1}, {paths: [/a]}]".trim_start_matches("tags: ~\n"),
    )
    .config;
    assert_eq!(first.routes[1].id, second.routes[0].id);
    assert_eq!(first.routes[0].id, second.routes[2].id);
    assert_ne!(first.routes[0].id, first.routes[2].id);
}

#[test]
fn nested_and_flat_are_the_same() {
    let nested = body(concat!(
        "services: [{name: s, host: h, routes: [{name: r, paths: [/], plugins: [{name: cors}]}], plugins: [{name: acl, config: {allow: [g]}}]}]\n",
        "consumers: [{username: c, acls: [{group: g}], plugins: [{name: cors}]}]\n",
    ));
    let flat = body(concat!(
        "plugins:\n- {name: acl, config: {allow: [g]}, service: s}\n- {name: cors, route: {name: r}}\n- {name: cors, consumer: {username: c}}\n",
        "acls: [{group: g, consumer: CONSUMER}]\nroutes: [{name: r, paths: [/], service: {id: SERVICE}}]\n",
        "consumers: [{username: c}]\nservices: [{name: s, host: h}]\n",
    )
    .replace("CONSUMER", &EntityId::derived("consumers", "c").to_string())
    .replace("SERVICE", &EntityId::derived("services", "s").to_string())
    .as_str());
    let sorted = |config: &gateward_model::Config| {
        let mut config = config.clone();
        config.plugins.sort_by_key(|plugin| plugin.id);
        config
    };
    assert_eq!(sorted(&nested.config), sorted(&flat.config));
}

#[test]
fn a_self_hosted_backend_file_loads() {
    let loaded = good(include_str!("files/self-hosted.yml"));
    let config = &loaded.config;
    assert_eq!(
        show(&loaded.warnings),
        ["67:15: services[2].protocol: warning: ignored, because 'url' is given and sets this field; remove one"]
    );
    let realtime = &config.services[2];
    assert_eq!(
        (realtime.protocol, realtime.host.as_str(), realtime.port),
        (Protocol::Http, "realtime-dev.realtime", 4000)
    );
    assert_eq!(realtime.path.as_deref(), Some("/socket"));
    assert_eq!((config.services.len(), config.routes.len(), config.plugins.len()), (5, 5, 8));
    assert_eq!(config.acls[1].consumer, config.consumers[2].id);
    assert_eq!(config.basicauth_credentials[0].password.expose().len(), 40);
    assert_eq!(loaded.hash.len(), 32);
    check_round_trip(config);
}

#[test]
fn a_deck_dump_loads() {
    let loaded = good(include_str!("files/deck-dump.yaml"));
    let warnings = show(&loaded.warnings);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(loaded.config.targets[1].target, "10.0.0.2:8000");
    assert_eq!(loaded.config.plugins.len(), 2);
    check_round_trip(&loaded.config);
}

#[test]
fn paths_of_old_formats_are_rewritten() {
    let config = good("_format_version: '1.1'\nroutes: [{paths: [/a//b, '/x/\\d+']}]").config;
    assert_eq!(config.routes[0].paths.as_deref(), Some(&["/a/b".to_owned(), "~/x/\\d+".to_owned()][..]));
}

#[test]
fn passwords_stay_as_they_are_without_transform() {
    let config =
        body("_transform: false\nconsumers: [{username: a, basicauth_credentials: [{username: b, password: pw}]}]")
            .config;
    assert_eq!(config.basicauth_credentials[0].password.expose(), "pw");
}

#[test]
fn vault_references_resolve() {
    let config = body(concat!(
        "vaults: [{name: env, prefix: mine, config: {prefix: secure_}}]\n",
        "plugins: [{name: rate-limiting, config: {redis: {password: '{vault://env/redis-password}'}}}]\n",
        "consumers: [{username: a, keyauth_credentials: [{key: '{vault://mine/key/api}'}]}]\n",
    ))
    .config;
    assert_eq!(config.plugins[0].config["redis"]["password"], "hunter2");
    assert_eq!(config.keyauth_credentials[0].key.expose(), "k-1");
}

#[test]
fn derived_values() {
    let config = body(concat!(
        "upstreams: [{name: u, hash_on: ip, targets: [{target: '::1'}]}]\n",
        "services: [{url: 'http://[::1]:81'}]\nroutes: [{paths: [/], hosts: [], headers: {}}]\n",
        "plugins: [{name: rate-limiting, config: {redis_host: r, redis: {port: 1}}}]\n",
    ))
    .config;
    assert_eq!(config.upstreams[0].algorithm, Algorithm::ConsistentHashing);
    assert_eq!(config.targets[0].target, "[::1]:8000");
    assert_eq!((config.services[0].host.as_str(), config.services[0].port), ("::1", 81));
    assert_eq!((&config.routes[0].hosts, &config.routes[0].headers), (&None, &None));
    assert_eq!(config.plugins[0].config["redis"], json!({"host": "r", "port": 1}));
    check_round_trip(&config);
}

#[test]
fn every_kind_survives_a_dump() {
    let pem = "\"-----BEGIN CERTIFICATE-----\\nYWJj\\n-----END CERTIFICATE-----\\n\"";
    let key = "\"-----BEGIN PRIVATE KEY-----\\nYWJj\\n-----END PRIVATE KEY-----\\n\"";
    let config = body(&format!(
        "certificates: [{{cert: {pem}, key: {key}, snis: [{{name: a.com}}]}}]\nca_certificates: [{{cert: {pem}}}]\n\
         key_sets: [{{name: set, keys: [{{kid: k, pem: {{public_key: p}}}}]}}]\n\
         consumers: [{{username: 'ü \"x\\\\ \u{2028}: # \u{fffe}', hmacauth_credentials: [{{username: h, secret: s}}], tags: ['yes', '1', '~', '', 'a b'], \
         keyauth_credentials: [{{key: '  k ', ttl: 3}}], custom_id: 'true'}}]\n\
         plugins: [{{name: free, config: {{config: [1, 1.5, -0.0, 1e300, [], {{}}, [[a], {{b: [~]}}], \"\\n\\t\\0\\x7f\"], add: ~}}}}]\n"
    ).replace(", '', 'a b'", ", 'a b'"))
    .config;
    check_round_trip(&config);
}

#[test]
fn merge_keys_and_anchors_work_in_entities() {
    let config =
        body("_ignore: [&base {retries: 1, read_timeout: 5}]\nservices: [{<<: *base, name: a, host: h, retries: 2}]")
            .config;
    assert_eq!((config.services[0].retries, config.services[0].read_timeout), (2, 5));
}

#[test]
fn schemas_have_kongs_shape() {
    let schema = schema_to_json(entity_schema("services").expect("known"));
    let fields = schema["fields"].as_array().expect("a list");
    let field = |name: &str| fields.iter().find_map(|field| field.get(name)).expect("known").clone();
    assert_eq!(field("retries"), json!({"type": "integer", "required": true, "default": 5, "between": [0.0, 32767.0]}));
    assert_eq!(field("client_certificate"), json!({"type": "foreign", "reference": "certificates"}));
    assert_eq!(schema["shorthand_fields"][0]["url"]["type"], "string");
    assert!(entity_schema("nothing").is_none());
    assert_eq!(Format::of_path("a/KONG.JSON".as_ref()), Format::Json);
    assert_eq!(Format::of_path("kong.yml".as_ref()), Format::Yaml);
}

/// Nothing in the loader may be quadratic in the number of entities.
#[test]
fn many_routes_load_in_linear_time() {
    let mut text = "_format_version: \"3.0\"\nservices:\n- name: s\n  host: h\n  routes:\n".to_owned();
    for n in 0..5_000 {
        text.push_str(&format!("  - name: r{n}\n    paths: [/p/{n}]\n    tags: [a]\n"));
    }
    let started = std::time::Instant::now();
    assert_eq!(good(&text).config.routes.len(), 5_000);
    let wrong = text.replace("paths:", "pahts:").replace("name: s\n", "name: s\n  x: 1\n");
    assert!(support::load_yaml(&wrong).is_err());
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
