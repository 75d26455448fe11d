//! `rate-limiting`: so many requests per calendar window and caller; Kong's plugin with policy `local`.
//!
//! Settings, header names and values are those of Kong 3.9 (kong/plugins/rate-limiting). Windows are aligned to
//! the calendar in UTC and a request belongs to the window it *arrived* in. All periods are looked at first and
//! counted only when none is exhausted; counting itself is exact across workers (see [`counters`](crate::counters)). Periods are
//! counted shortest first: whoever loses a race for a longer window also could not have kept the shorter one, so
//! what is given back never turned away a request that should have passed.
//!
//! Departures from Kong: a fractional limit is rounded up; the kind of identifier takes part in the counter, so a
//! header that spells an address cannot use up that address's allowance; a counter lives until its window ends
//! (Kong's local counters expire 30 or 365 days after the first request of a month or year).
//!
//! Policy `redis` keeps Kong's keys in Redis, so nodes of both kinds can share one: `shared` decides there, `sync`
//! keeps counts here and exchanges them every `sync_rate` seconds. Policy `cluster` is refused with a clear text.

mod identifier;
mod schema;
mod shared;
mod sync;
mod window;

use crate::counters::{Counters, Key};
use crate::native::rate_limiting::identifier::{Identifier, LimitBy};
use crate::native::rate_limiting::shared::Shared;
use crate::native::rate_limiting::window::{PERIODS, Period, Window};
use crate::native::settings;
use crate::{BuildContext, BuildError, Definition, Exchange, LocalResponse, Needs, Phases, Plugin, Step};
use serde::Deserialize;
use serde_json::Value;
use std::hash::Hasher;
use std::sync::Arc;

/// The plugin's entry in the registry.
pub fn definition() -> Definition {
    Definition { name: "rate-limiting", priority: 910, schema: schema::schema, check_scope: settings::http, build }
}

#[derive(Deserialize)]
struct Settings {
    second: Option<f64>,
    minute: Option<f64>,
    hour: Option<f64>,
    day: Option<f64>,
    month: Option<f64>,
    year: Option<f64>,
    limit_by: LimitBy,
    header_name: Option<String>,
    path: Option<String>,
    policy: String,
    fault_tolerant: bool,
    sync_rate: f64,
    /// Read only when it is used.
    redis: Value,
    hide_client_headers: bool,
    error_code: f64,
    error_message: String,
}

struct RateLimiting {
    counters: Arc<Counters>,
    /// Where the counters are that other nodes see, too; `None` with policy `local`.
    shared: Option<Shared>,
    rule: Rule,
}

/// What is configured, whoever keeps the counters.
struct Rule {
    /// Shortest period first.
    limits: Vec<(&'static Period, u32)>,
    /// The scope of the instance: counters survive a change of its settings, as in Kong.
    scope: [u8; 32],
    limit_by: LimitBy,
    header_name: String,
    path: String,
    hide_client_headers: bool,
    error_code: u16,
    error_message: String,
}

/// One period as a request finds it.
#[derive(Debug, Clone, Copy)]
struct Usage {
    key: Key,
    window: Window,
    remaining: u32,
}

/// All periods that have limits, in their order.
#[derive(Debug, Clone, Copy)]
struct Usages {
    all: [Usage; PERIODS.len()],
    len: usize,
}

impl Plugin for RateLimiting {
    fn needs(&self) -> Needs {
        Needs { phases: Phases { access: true, ..Phases::default() }, ..Needs::default() }
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        if let Some(shared) = &self.shared {
            return shared.access(&self.rule, &self.counters, exchange);
        }
        let now_s = exchange.started_at_ms / 1000;
        let mut hasher = self.counters.hasher();
        hasher.write(&self.rule.scope);
        self.rule.identify(exchange).hash(&mut hasher);
        let mut usages = self.rule.usages(hasher.finish(), now_s);
        let passes = self.rule.count(&self.counters, usages.slice());
        match self.rule.conclude(exchange, usages.slice(), now_s, passes) {
            None => Step::Next,
            Some(response) => Step::Respond(response),
        }
    }
}

impl Usages {
    fn slice(&mut self) -> &mut [Usage] {
        &mut self.all[..self.len]
    }
}

impl Rule {
    /// Who is limited.
    fn identify<'a>(&'a self, exchange: &'a Exchange) -> Identifier<'a> {
        self.limit_by.identify(exchange, &self.header_name, &self.path)
    }

    /// The counters of a caller at this moment; what is left is yet to be found out.
    fn usages(&self, identity: u64, now_s: u64) -> Usages {
        let none = Usage { key: Key { period: 0, window: 0, identity }, window: Window::default(), remaining: 0 };
        let mut usages = Usages { all: [none; PERIODS.len()], len: self.limits.len() };
        for (usage, (period, _)) in usages.slice().iter_mut().zip(&self.limits) {
            usage.window = period.window(now_s);
            usage.key = Key { period: period.index, window: usage.window.number, identity };
        }
        usages
    }

    /// Count the request in the node's tables, in every period or in none. Whether it passes.
    fn count(&self, counters: &Counters, usages: &mut [Usage]) -> bool {
        for (usage, (_, limit)) in usages.iter_mut().zip(&self.limits) {
            usage.remaining = limit.saturating_sub(counters.usage(usage.key));
        }
        usages.iter().all(|usage| usage.remaining > 0) && self.take(counters, usages)
    }

    /// Count the request in every period, or in none when one of them filled up meanwhile.
    fn take(&self, counters: &Counters, usages: &mut [Usage]) -> bool {
        for index in 0..usages.len() {
            let limit = self.limits[index].1;
            match counters.take(usages[index].key, limit) {
                Ok(used) => usages[index].remaining = limit - used - 1,
                Err(_) => {
                    usages[index].remaining = 0;
                    for usage in &mut usages[..index] {
                        counters.give_back(usage.key);
                        usage.remaining += 1;
                    }
                    return false;
                }
            }
        }
        true
    }

    /// Tell the caller what is left, and refuse the request if it does not pass.
    fn conclude(&self, exchange: &mut Exchange, usages: &[Usage], now_s: u64, passes: bool) -> Option<LocalResponse> {
        let reset_s = self.write_headers(exchange, usages, now_s);
        if passes {
            return None;
        }
        if let Some(reset_s) = reset_s {
            exchange.response.early.set("Retry-After", itoa::Buffer::new().format(reset_s));
        }
        Some(LocalResponse::message(self.error_code, self.error_message.clone()))
    }

    /// The fields about limits; seconds until the tightest limit resets, `None` when nothing may be told.
    ///
    /// `RateLimit-*` tells of the period with the least left, and of the longest when several tie.
    fn write_headers(&self, exchange: &mut Exchange, usages: &[Usage], now_s: u64) -> Option<u64> {
        if self.hide_client_headers {
            return None;
        }
        let headers = &mut exchange.response.early;
        let mut number = itoa::Buffer::new();
        let mut tightest = 0;
        for (index, (usage, (period, limit))) in usages.iter().zip(&self.limits).enumerate() {
            headers.set(period.limit_header, number.format(*limit));
            headers.set(period.remaining_header, number.format(usage.remaining));
            if usage.remaining <= usages[tightest].remaining {
                tightest = index;
            }
        }
        let (period, limit) = self.limits[tightest];
        let reset_s = period.reset_s(&usages[tightest].window, now_s);
        headers.set("RateLimit-Limit", number.format(limit));
        headers.set("RateLimit-Remaining", number.format(usages[tightest].remaining));
        headers.set("RateLimit-Reset", number.format(reset_s));
        Some(reset_s)
    }
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let settings: Settings = settings::read(context)?;
    let limits = [settings.second, settings.minute, settings.hour, settings.day, settings.month, settings.year];
    // A cast to u32 saturates: four thousand million requests per window are no limit.
    let limits = PERIODS.iter().zip(limits).filter_map(|(period, limit)| Some((period, limit?.ceil() as u32)));
    let limits: Vec<_> = limits.inspect(|(period, _)| context.env.counters.prepare(period.index)).collect();
    let shared = match settings.policy.as_str() {
        "local" => None,
        "redis" => Some(Shared::build(context, &settings, &limits)?),
        other => return Err(settings::refuse(context, format!("policy '{other}' is not served by this build"))),
    };
    let mut scope = [0; 32];
    scope[..16].copy_from_slice(context.entity.route.unwrap_or_default().0.as_bytes());
    scope[16..].copy_from_slice(context.entity.service.unwrap_or_default().0.as_bytes());
    let rule = Rule {
        limits,
        scope,
        limit_by: settings.limit_by,
        header_name: settings.header_name.unwrap_or_default(),
        path: settings.path.unwrap_or_default(),
        hide_client_headers: settings.hide_client_headers,
        error_code: settings.error_code as u16,
        error_message: settings.error_message,
    };
    Ok(Box::new(RateLimiting { counters: context.env.counters.clone(), shared, rule }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Credential;
    use crate::native::rate_limiting::schema::schema;
    use crate::native::testing::{access, build_with, entity, environment, lines, problems, request, summary};
    use gateward_model::{Config, Consumer, EntityId};
    use serde_json::json;

    /// 2024-02-28 22:58:20 UTC, 20 seconds into a minute.
    const NOW_MS: u64 = 1_709_161_100_500;

    fn plugin(config: Value) -> Box<dyn Plugin> {
        build_with(&definition(), config, &Config::default(), &environment())
    }

    fn ask(plugin: &dyn Plugin, at_ms: u64) -> (String, Vec<String>) {
        let mut exchange = request("GET", "/", &[]);
        exchange.started_at_ms = at_ms;
        let answer = summary(access(plugin, &mut exchange).as_ref());
        (answer, lines(&exchange.response.early))
    }

    #[test]
    fn tells_every_period_and_the_tightest() {
        let plugin = plugin(json!({ "second": 5, "hour": 6 }));
        let (answer, headers) = ask(&*plugin, NOW_MS);
        assert_eq!(answer, "next");
        assert_eq!(
            headers,
            [
                "X-RateLimit-Limit-Second: 5",
                "X-RateLimit-Remaining-Second: 4",
                "X-RateLimit-Limit-Hour: 6",
                "X-RateLimit-Remaining-Hour: 5",
                "RateLimit-Limit: 5",
                "RateLimit-Remaining: 4",
                "RateLimit-Reset: 1",
            ]
        );
        // A second later the hour is the tighter one: 4 of 5 against 4 of 6, and the longer period wins the tie.
        let (_, headers) = ask(&*plugin, NOW_MS + 1000);
        assert_eq!(headers[4..], ["RateLimit-Limit: 6", "RateLimit-Remaining: 4", "RateLimit-Reset: 99"]);
    }

    #[test]
    fn answers_429_with_retry_after_and_counts_nothing_more() {
        let plugin = plugin(json!({ "minute": 2, "hour": 100 }));
        assert_eq!(ask(&*plugin, NOW_MS).0, "next");
        assert_eq!(ask(&*plugin, NOW_MS).0, "next");
        for _ in 0..3 {
            let (answer, headers) = ask(&*plugin, NOW_MS);
            assert_eq!(answer, "429 API rate limit exceeded");
            assert_eq!(
                headers,
                [
                    "X-RateLimit-Limit-Minute: 2",
                    "X-RateLimit-Remaining-Minute: 0",
                    "X-RateLimit-Limit-Hour: 100",
                    "X-RateLimit-Remaining-Hour: 98",
                    "RateLimit-Limit: 2",
                    "RateLimit-Remaining: 0",
                    "RateLimit-Reset: 40",
                    "Retry-After: 40",
                ]
            );
        }
        assert_eq!(ask(&*plugin, NOW_MS + 40_000).0, "next");
    }

    #[test]
    fn hides_every_header_on_request_and_answers_as_configured() {
        let plugin = plugin(
            json!({ "minute": 1, "hide_client_headers": true, "error_code": 403, "error_message": "slow down" }),
        );
        assert_eq!(ask(&*plugin, NOW_MS), ("next".to_owned(), vec![]));
        assert_eq!(ask(&*plugin, NOW_MS), ("403 slow down".to_owned(), vec![]));
    }

    #[test]
    fn callers_are_told_apart_by_what_is_configured() {
        type Change = fn(&mut Exchange);
        let consumer: Change = |exchange| {
            exchange.auth.consumer = Some(Arc::new(Consumer {
                id: EntityId::derived("consumers", "ann"),
                username: None,
                custom_id: None,
                tags: None,
                created_at: 0,
                updated_at: 0,
            }));
        };
        let credential: Change = |exchange| {
            exchange.auth.credential = Some(Credential { id: EntityId::derived("keys", "k"), identifier: None });
        };
        let address: Change = |exchange| exchange.client.ip = [10, 0, 0, 9].into();
        let header: Change = |exchange| {
            exchange.request.headers.add("X-Tenant", "0.0.0.0");
        };
        let path: Change = |exchange| exchange.path = "/pay".to_owned();
        // (limit_by, change of the second request, whether it counts for another caller)
        let cases: [(&str, Change, bool); 10] = [
            ("consumer", consumer, true),
            ("consumer", credential, true),
            ("consumer", address, true),
            ("credential", credential, true),
            ("credential", consumer, false),
            ("ip", consumer, false),
            ("ip", address, true),
            ("header", header, true),
            ("path", path, true),
            ("service", header, false),
        ];
        for (limit_by, change, other) in cases {
            let plugin =
                plugin(json!({ "minute": 1, "limit_by": limit_by, "header_name": "x-tenant", "path": "/pay" }));
            assert_eq!(ask(&*plugin, NOW_MS).0, "next");
            let mut exchange = request("GET", "/", &[]);
            exchange.started_at_ms = NOW_MS;
            change(&mut exchange);
            assert_eq!(access(&*plugin, &mut exchange).is_none(), other, "{limit_by}");
        }
    }

    #[test]
    fn instances_of_different_scopes_count_apart_and_a_reload_keeps_counts() {
        let env = environment();
        let instance = |route: &str| {
            let mut entity = entity(&definition(), json!({ "hour": 1 }));
            entity.route = Some(EntityId::derived("routes", route));
            let directory = Arc::default();
            build(&BuildContext { entity: &entity, directory: &directory, env: &env }).unwrap()
        };
        assert_eq!(ask(&*instance("a"), NOW_MS).0, "next");
        assert_eq!(ask(&*instance("b"), NOW_MS).0, "next");
        assert_eq!(ask(&*instance("a"), NOW_MS).0, "429 API rate limit exceeded");
    }

    #[test]
    fn workers_together_admit_exactly_the_limit_of_each_period() {
        let plugin = plugin(json!({ "second": 700, "minute": 700, "hour": 1000 }));
        let admitted = std::sync::atomic::AtomicU32::new(0);
        for (at_ms, total) in [(NOW_MS, 700), (NOW_MS + 1000, 700), (NOW_MS + 60_000, 1000)] {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..300 {
                            let passed = ask(&*plugin, at_ms).0 == "next";
                            admitted.fetch_add(passed.into(), std::sync::atomic::Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(admitted.load(std::sync::atomic::Ordering::Relaxed), total);
        }
    }

    #[test]
    fn what_cannot_be_served_or_makes_no_sense_is_refused() {
        let cases = [
            (json!({}), "one of"),
            (
                json!({ "minute": 10, "hour": 5 }),
                "hour: the limit for hour (5) cannot be lower than the limit for minute (10)",
            ),
            (
                json!({ "minute": 10, "policy": "cluster" }),
                "policy: policy 'cluster' keeps its counters in Kong's database",
            ),
            (json!({ "minute": 10, "sync_rate": -0.5 }), "sync_rate: -0.5 is neither -1"),
            (json!({ "minute": 10, "limit_by": "cookie" }), "not one of"),
        ];
        for (config, expected) in cases {
            let found = problems(&schema(), config.clone());
            assert!(found.iter().any(|text| text.contains(expected)), "{config}: {found:?}");
        }
        assert_eq!(
            problems(
                &schema(),
                json!({ "minute": 10, "hour": 10, "policy": "redis", "redis_host": "r", "sync_rate": 1 })
            ),
            [""; 0]
        );
    }
}
