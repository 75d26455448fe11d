//! Plugins and options for the tests, and the one helper most of them go through.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use gateward_config::{Diagnostic, Format, Loaded, Options, load};
use gateward_model::schema::{Check, Field, PluginSchemas, Rule, Schema, Shorthand};
use gateward_model::{PluginConfig, RouterFlavor};
use std::sync::{Arc, LazyLock};

/// A few plugins in the shape of Kong's.
pub struct Plugins;

static KEY_AUTH: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    Arc::new(Schema::new([
        ("key_names", Field::array(Field::string()).default(serde_json::json!(["apikey"]))),
        ("hide_credentials", Field::boolean().default(false)),
        ("anonymous", Field::string()),
    ]))
});
static ACL: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let schema = Schema::new([
        ("allow", Field::array(Field::string())),
        ("deny", Field::array(Field::string())),
        ("hide_groups_header", Field::boolean().default(false)),
    ]);
    Arc::new(schema.check(Check::OnlyOneOf(vec!["allow".into(), "deny".into()])))
});
static RATE_LIMITING: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let redis = Schema::new([
        ("host", Field::string()),
        ("port", Field::integer().between(0, 65535).default(6379)),
        ("password", Field::string().secret().referenceable()),
    ]);
    let schema = Schema::new([
        ("minute", Field::number().rule(Rule::Gt(0.0))),
        ("policy", Field::string().one_of(&["local", "redis"]).default("local")),
        ("redis", Field::record(redis).required()),
        ("names", Field::set(Field::string())),
    ]);
    Arc::new(schema.shorthand(Shorthand {
        name: "redis_host".into(),
        field: Field::string(),
        expand: Arc::new(|value| Ok(vec![("redis.host".to_owned(), value.clone())])),
        deprecated: Some("use redis.host".into()),
    }))
});
static FREE: LazyLock<Arc<Schema>> =
    LazyLock::new(|| Arc::new(Schema::new([("config", Field::any()), ("add", Field::any())])));

impl PluginSchemas for Plugins {
    fn config_schema(&self, plugin: &str) -> Option<Arc<Schema>> {
        match plugin {
            "key-auth" | "basic-auth" => Some(KEY_AUTH.clone()),
            "acl" => Some(ACL.clone()),
            "rate-limiting" => Some(RATE_LIMITING.clone()),
            "cors" | "request-transformer" | "request-termination" | "free" => Some(FREE.clone()),
            _ => None,
        }
    }

    fn plugin_names(&self) -> Vec<String> {
        ["key-auth", "basic-auth", "acl", "rate-limiting", "cors", "request-transformer", "request-termination"]
            .map(str::to_owned)
            .to_vec()
    }

    fn check_scope(&self, plugin: &PluginConfig) -> Result<(), String> {
        match (plugin.name.as_str(), plugin.consumer) {
            ("key-auth", Some(_)) => Err("cannot be applied to a consumer".to_owned()),
            _ => Ok(()),
        }
    }
}

pub const NOW: u64 = 1_700_000_000;

fn environment(name: &str) -> Option<String> {
    match name {
        "REDIS_PASSWORD" => Some("hunter2".to_owned()),
        "SECURE_KEY" => Some(r#"{"api":"k-1"}"#.to_owned()),
        _ => None,
    }
}

pub fn options(flavor: RouterFlavor) -> Options<'static> {
    Options { plugins: &Plugins, flavor, vault: &environment, now: NOW }
}

pub fn load_yaml(text: &str) -> Result<Loaded, Vec<Diagnostic>> {
    load(text.as_bytes(), Format::Yaml, &options(RouterFlavor::TraditionalCompatible))
}

/// A file that must load.
pub fn good(text: &str) -> Loaded {
    match load_yaml(text) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{}\n{text}", show(&problems).join("\n")),
    }
}

pub fn show(problems: &[Diagnostic]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// `body` follows the `_format_version` line, so its lines count from 2. `expected` lists every diagnostic.
pub fn check(body: &str, expected: &[&str]) {
    check_flavor(body, RouterFlavor::TraditionalCompatible, expected);
}

pub fn check_flavor(body: &str, flavor: RouterFlavor, expected: &[&str]) {
    let text = format!("_format_version: \"3.0\"\n{body}");
    let problems = match load(text.as_bytes(), Format::Yaml, &options(flavor)) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    };
    assert_eq!(show(&problems), expected, "\n{text}");
}
