//! Policy `redis`: the counters are in Redis, where all nodes see them, under Kong's keys.
//!
//! With `sync_rate` -1 every request asks Redis once, for all its periods together, and is counted there unless one of
//! them is used up: exact over all nodes, Kong's included. With a positive rate the counts are kept here (see
//! [`sync`](super::sync)); Redis is asked once when a window begins for a caller.
//!
//! When Redis cannot say, `fault_tolerant` does: the request passes without limit and without header fields about limits,
//! or is answered with Kong's 500.

use crate::counter_store::Decision;
use crate::counters::Counters;
use crate::native::complaints::Complaints;
use crate::native::rate_limiting::identifier::{key, scope};
use crate::native::rate_limiting::sync::Sync;
use crate::native::rate_limiting::window::Period;
use crate::native::rate_limiting::{Rule, Settings};
use crate::native::settings;
use crate::{
    Answer, Ask, BuildContext, BuildError, CounterStore, Exchange, Limited, LocalResponse, Outcome, PluginStats,
    RedisSettings, Step, StoreError,
};
use serde::Deserialize;
use std::hash::Hasher;
use std::sync::Arc;

/// What an instance needs besides its rule.
pub(super) struct Shared {
    store: Arc<dyn CounterStore>,
    /// What its keys begin with.
    scope: String,
    fault_tolerant: bool,
    /// `None`: every request asks Redis.
    sync: Option<Sync>,
    stats: Arc<PluginStats>,
    complaints: Complaints,
    /// For messages: which Redis.
    name: String,
}

impl Shared {
    /// Where `settings` say.
    pub(super) fn build(
        context: &BuildContext<'_>,
        settings: &Settings,
        limits: &[(&'static Period, u32)],
    ) -> Result<Self, BuildError> {
        let redis = RedisSettings::deserialize(&settings.redis)
            .map_err(|error| settings::refuse(context, format!("redis: {error}")))?;
        let store =
            context.env.redis.store(&redis).map_err(|reason| settings::refuse(context, format!("redis: {reason}")))?;
        let periods = limits.iter().map(|(period, _)| *period).collect();
        let sync =
            (settings.sync_rate >= 0.0).then(|| Sync::start(store.clone(), settings.sync_rate, periods, context.env));
        Ok(Self {
            store,
            scope: scope(context.entity.route, context.entity.service),
            fault_tolerant: settings.fault_tolerant,
            sync,
            stats: context.env.stats.clone(),
            complaints: Complaints::new(),
            name: redis.to_string(),
        })
    }

    /// The access phase.
    pub(super) fn access<'a>(&'a self, rule: &'a Rule, counters: &'a Counters, exchange: &'a mut Exchange) -> Step<'a> {
        match &self.sync {
            None => self.ask(rule, exchange),
            Some(sync) => self.decide_here(sync, rule, counters, exchange),
        }
    }

    /// Let Redis decide.
    fn ask<'a>(&'a self, rule: &'a Rule, exchange: &'a mut Exchange) -> Step<'a> {
        let now_s = exchange.started_at_ms / 1000;
        let mut usages = rule.usages(0, now_s);
        let stem = rule.identify(exchange).stem(&self.scope);
        let counters = usages.slice().iter().zip(&rule.limits).map(|(usage, (period, limit))| Limited {
            key: key(&stem, period, &usage.window),
            limit: *limit,
            ttl_s: period.ttl_s(&usage.window, now_s),
        });
        let answer = self.store.ask(Ask::Take(counters.collect()));
        Step::Wait(Box::pin(async move {
            let used = match answer.await {
                Ok(used) => used,
                Err(error) => return self.without_answer(&error),
            };
            for ((usage, (_, limit)), used) in usages.slice().iter_mut().zip(&rule.limits).zip(used) {
                usage.remaining = limit.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX));
            }
            let passes = usages.slice().iter().all(|usage| usage.remaining > 0);
            if passes {
                usages.slice().iter_mut().for_each(|usage| usage.remaining -= 1);
            }
            self.outcome(rule.conclude(exchange, usages.slice(), now_s, passes))
        }))
    }

    /// Decide by what is known here; ask Redis first when something is not.
    fn decide_here<'a>(
        &'a self,
        sync: &'a Sync,
        rule: &'a Rule,
        counters: &'a Counters,
        exchange: &'a mut Exchange,
    ) -> Step<'a> {
        let now_s = exchange.started_at_ms / 1000;
        let mut hasher = counters.hasher();
        hasher.write_u64(sync.nonce());
        let identifier = rule.identify(exchange);
        identifier.hash(&mut hasher);
        let mut usages = rule.usages(hasher.finish(), now_s);
        if sync.is_healthy() && usages.slice().iter().all(|usage| counters.is_known(usage.key)) {
            let passes = rule.count(counters, usages.slice());
            if passes {
                sync.counted(usages.all[0].key.identity, identifier.stem(&self.scope), now_s, None);
            }
            return self.outcome(rule.conclude(exchange, usages.slice(), now_s, passes)).into();
        }
        let stem = identifier.stem(&self.scope);
        let answer = self.read(rule, &stem, usages.slice());
        Step::Wait(Box::pin(async move {
            let remote = match answer.await {
                Ok(remote) => remote,
                Err(error) => return self.without_answer(&error),
            };
            sync.recovered();
            let mut bases = [None; super::PERIODS.len()];
            for ((usage, base), remote) in usages.slice().iter().zip(&mut bases).zip(remote) {
                let start = u32::try_from(remote).unwrap_or(u32::MAX);
                *base = counters.begin(usage.key, start).then_some(remote);
            }
            let passes = rule.count(counters, usages.slice());
            sync.learned(usages.all[0].key.identity, stem, now_s, bases, passes);
            self.outcome(rule.conclude(exchange, usages.slice(), now_s, passes))
        }))
    }

    fn read(&self, rule: &Rule, stem: &[u8], usages: &[super::Usage]) -> Answer<'_> {
        let keys = usages.iter().zip(&rule.limits).map(|(usage, (period, _))| key(stem, period, &usage.window));
        self.store.ask(Ask::Read(keys.collect()))
    }

    fn outcome(&self, refusal: Option<LocalResponse>) -> Outcome {
        match refusal {
            None => {
                self.stats.redis.decided(Decision::Passed);
                Outcome::Next
            }
            Some(response) => {
                self.stats.redis.decided(Decision::Limited);
                Outcome::Respond(response)
            }
        }
    }

    /// Redis cannot say.
    fn without_answer(&self, error: &StoreError) -> Outcome {
        if self.complaints.may_complain() {
            let fate = if self.fault_tolerant { "requests pass unlimited" } else { "requests fail with 500" };
            tracing::error!(redis = self.name, "rate-limiting: {error}; {fate} (fault_tolerant)");
        }
        if self.fault_tolerant {
            self.stats.redis.decided(Decision::Unchecked);
            return Outcome::Next;
        }
        self.stats.redis.decided(Decision::Failed);
        Outcome::Respond(LocalResponse::message(500, "An unexpected error occurred"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::rate_limiting::definition;
    use crate::native::testing::{Memory, access, build_with, environment, lines, request, summary};
    use crate::{Plugin, PluginEnv};
    use gateward_model::Config;
    use serde_json::{Value, json};
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    /// 2024-02-28 22:58:20 UTC.
    const NOW_MS: u64 = 1_709_161_100_500;
    const MINUTE: &str = "ratelimit:00000000-0000-0000-0000-000000000000:00000000-0000-0000-0000-000000000000:0.0.0.0:1709161080000:minute";
    const HOUR: &str = "ratelimit:00000000-0000-0000-0000-000000000000:00000000-0000-0000-0000-000000000000:0.0.0.0:1709157600000:hour";

    /// A plugin with these settings besides, its Redis and its node.
    fn plugin(more: &Value) -> (Box<dyn Plugin>, Memory, PluginEnv) {
        let memory = Memory::default();
        let env = PluginEnv { redis: Arc::new(memory.clone()), ..environment() };
        let mut config =
            json!({ "minute": 2, "hour": 10, "limit_by": "ip", "policy": "redis", "redis": { "host": "r" } });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (build_with(&definition(), config, &Config::default(), &env), memory, env)
    }

    fn ask(plugin: &dyn Plugin) -> (String, Vec<String>) {
        let mut exchange = request("GET", "/", &[]);
        exchange.started_at_ms = NOW_MS;
        let answer = summary(access(plugin, &mut exchange).as_ref());
        (answer, lines(&exchange.response.early))
    }

    fn count(env: &PluginEnv, decision: Decision) -> u64 {
        env.stats.redis.decisions[decision as usize].load(Ordering::Relaxed)
    }

    #[track_caller]
    fn eventually(condition: impl Fn() -> bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let end = tokio::time::Instant::now() + Duration::from_secs(10);
            while !condition() {
                assert!(tokio::time::Instant::now() < end, "the condition did not come true");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }

    #[test]
    fn every_request_asks_once_for_all_periods_and_says_the_same_as_policy_local() {
        let (plugin, memory, env) = plugin(&json!({}));
        for (answer, left) in [("next", 1), ("next", 0), ("429 API rate limit exceeded", 0)] {
            let (found, headers) = ask(&*plugin);
            assert_eq!(found, answer);
            assert_eq!(headers[1], format!("X-RateLimit-Remaining-Minute: {left}"));
            assert_eq!(
                headers[4..7],
                [
                    "RateLimit-Limit: 2".to_owned(),
                    format!("RateLimit-Remaining: {left}"),
                    "RateLimit-Reset: 40".to_owned()
                ]
            );
            assert_eq!(headers.get(7).map(String::as_str), (answer != "next").then_some("Retry-After: 40"));
        }
        let limited = |key: &str, limit, ttl_s| Limited { key: key.into(), limit, ttl_s };
        let asked = Ask::Take(vec![limited(MINUTE, 2, 65), limited(HOUR, 10, 3605)]);
        assert_eq!(*memory.asked.lock().unwrap(), [asked.clone(), asked.clone(), asked]);
        assert_eq!(*memory.counters.lock().unwrap(), [(HOUR.to_owned(), 2), (MINUTE.to_owned(), 2)].into());
        assert_eq!((count(&env, Decision::Passed), count(&env, Decision::Limited)), (2, 1));
    }

    #[test]
    fn without_an_answer_fault_tolerant_decides() {
        for rate in [-1.0, 1.0] {
            for (tolerant, answer, decision) in
                [(true, "next", Decision::Unchecked), (false, "500 An unexpected error occurred", Decision::Failed)]
            {
                let (plugin, memory, env) = plugin(&json!({ "fault_tolerant": tolerant, "sync_rate": rate }));
                *memory.failure.lock().unwrap() = Some(StoreError::Unavailable("gone".to_owned()));
                assert_eq!(ask(&*plugin), (answer.to_owned(), vec![]), "{rate} {tolerant}");
                assert_eq!(count(&env, decision), 1);
                *memory.failure.lock().unwrap() = None;
                let (answer, headers) = ask(&*plugin);
                assert_eq!((answer.as_str(), headers.len()), ("next", 7), "{rate} {tolerant}");
            }
        }
    }

    #[test]
    fn with_a_sync_rate_redis_is_read_once_per_window_and_told_sums() {
        let (plugin, memory, _env) = plugin(&json!({ "minute": 5, "sync_rate": 0.02 }));
        memory.counters.lock().unwrap().insert(MINUTE.to_owned(), 1);
        for left in [3, 2, 1] {
            assert_eq!(ask(&*plugin).1[1], format!("X-RateLimit-Remaining-Minute: {left}"));
        }
        let total = |key: &str| memory.counters.lock().unwrap().get(key).copied().unwrap_or(0);
        eventually(|| total(MINUTE) == 4 && total(HOUR) == 3);
        let reads =
            |memory: &Memory| memory.asked.lock().unwrap().iter().filter(|ask| matches!(ask, Ask::Read(_))).count();
        assert_eq!(reads(&memory), 1);
        assert!(!memory.asked.lock().unwrap().iter().any(|ask| matches!(ask, Ask::Take(_))));
        // Another node admits one; the next exchange tells.
        *memory.counters.lock().unwrap().get_mut(MINUTE).unwrap() += 1;
        assert_eq!(ask(&*plugin).0, "next", "not heard of yet");
        eventually(|| total(MINUTE) == 6);
        assert_eq!(ask(&*plugin).0, "429 API rate limit exceeded");
        // The last word of an instance.
        let (other, memory, _env) = self::plugin(&json!({ "sync_rate": 3600 }));
        assert_eq!(ask(&*other).0, "next");
        drop(other);
        eventually(|| memory.counters.lock().unwrap().get(HOUR) == Some(&1));
    }
}
