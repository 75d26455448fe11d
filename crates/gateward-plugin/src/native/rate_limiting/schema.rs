//! The settings of `rate-limiting`: Kong's record, its defaults and its rules across fields.

use crate::native::rate_limiting::window::PERIODS;
use crate::native::settings;
use gateward_model::schema::{Check, Field, Rule, Schema, Shorthand};
use serde_json::Value;
use std::sync::Arc;

/// The `config` record.
pub(super) fn schema() -> Schema {
    let limit = || Field::number().rule(Rule::Gt(0.0));
    let periods = ["second", "minute", "hour", "day", "month", "year"];
    let mut schema = Schema::new([
        ("second", limit()),
        ("minute", limit()),
        ("hour", limit()),
        ("day", limit()),
        ("month", limit()),
        ("year", limit()),
        (
            "limit_by",
            Field::string().default("consumer").one_of(&["consumer", "credential", "ip", "service", "header", "path"]),
        ),
        ("header_name", settings::header_name()),
        ("path", Field::string().rule(Rule::StartsWith("/".into()))),
        ("policy", Field::string().default("local").one_of(&["local", "cluster", "redis"])),
        ("fault_tolerant", Field::boolean().required().default(true)),
        ("redis", Field::record(redis_schema()).required()),
        ("hide_client_headers", Field::boolean().required().default(false)),
        // Kong takes any number above 0; what is no status code cannot be sent.
        ("error_code", Field::number().default(429).between(100, 599)),
        ("error_message", Field::string().default("API rate limit exceeded")),
        ("sync_rate", Field::number().required().default(-1)),
    ])
    .check(Check::AtLeastOneOf(periods.map(Into::into).to_vec()))
    .check(Check::Custom(check_order))
    .check(Check::Custom(check_policy))
    .check(Check::Custom(check_sync_rate))
    .check(Check::RequiredWhen { when: "policy".into(), equals: "redis".into(), then: "redis.host".into() })
    .check(Check::RequiredWhen { when: "policy".into(), equals: "redis".into(), then: "redis.port".into() })
    .check(Check::RequiredWhen { when: "policy".into(), equals: "redis".into(), then: "redis.timeout".into() })
    .check(Check::RequiredWhen { when: "limit_by".into(), equals: "header".into(), then: "header_name".into() })
    .check(Check::RequiredWhen { when: "limit_by".into(), equals: "path".into(), then: "path".into() });
    schema.shorthands = redis_shorthands();
    schema
}

fn redis_schema() -> Schema {
    Schema::new([
        ("host", Field::string()),
        ("port", Field::integer().default(6379).between(0, 65535)),
        ("timeout", Field::integer().default(2000).between(0, 2_147_483_646)),
        ("username", Field::string().referenceable()),
        ("password", Field::string().referenceable().secret()),
        ("database", Field::integer().default(0)),
        ("ssl", Field::boolean().default(false)),
        ("ssl_verify", Field::boolean().default(false)),
        ("server_name", Field::string()),
    ])
}

/// The flat `redis_*` fields of Kong before 3.6.
fn redis_shorthands() -> Vec<Shorthand> {
    macro_rules! shorthand {
        ($name:literal, $field:expr) => {
            Shorthand {
                name: concat!("redis_", $name).into(),
                field: $field,
                expand: Arc::new(|value| Ok(vec![(concat!("redis.", $name).to_owned(), value.clone())])),
                deprecated: Some(concat!("use redis.", $name, " instead").into()),
            }
        };
    }
    vec![
        shorthand!("host", Field::string()),
        shorthand!("port", Field::integer()),
        shorthand!("timeout", Field::integer()),
        shorthand!("username", Field::string()),
        shorthand!("password", Field::string().secret()),
        shorthand!("database", Field::integer()),
        shorthand!("ssl", Field::boolean()),
        shorthand!("ssl_verify", Field::boolean()),
        shorthand!("server_name", Field::string()),
    ]
}

/// A longer period cannot have a lower limit than a shorter one.
fn check_order(config: &Value) -> Result<(), (String, String)> {
    let limits = PERIODS.iter().filter_map(|period| Some((period.name, config.get(period.name)?.as_f64()?)));
    let mut shorter: Option<(&str, f64)> = None;
    for (name, limit) in limits {
        if let Some((below, floor)) = shorter
            && limit < floor
        {
            let text = format!("the limit for {name} ({limit}) cannot be lower than the limit for {below} ({floor})");
            return Err((name.to_owned(), text));
        }
        shorter = Some((name, limit));
    }
    Ok(())
}

fn check_policy(config: &Value) -> Result<(), (String, String)> {
    match config.get("policy").and_then(Value::as_str) {
        Some("cluster") => Err((
            "policy".to_owned(),
            "policy 'cluster' keeps its counters in Kong's database, which this build does not have: use 'redis' \
             (counters shared by all nodes) or 'local' (counters per node)"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

fn check_sync_rate(config: &Value) -> Result<(), (String, String)> {
    match config.get("sync_rate").and_then(Value::as_f64) {
        Some(rate) if rate < 0.0 && rate != -1.0 => {
            let text = format!("{rate} is neither -1 (every request asks Redis) nor a number of seconds");
            Err(("sync_rate".to_owned(), text))
        }
        _ => Ok(()),
    }
}
