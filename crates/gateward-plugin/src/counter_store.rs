//! Counters that several nodes share: what plugins ask of a Redis server, and what they are told.
//!
//! The node implements this ([`Redis`] is part of [`PluginEnv`](crate::PluginEnv)); a plugin knows neither sockets nor
//! the protocol. Every question is one round trip, is bounded by the server's time-out, and may be asked from any
//! runtime: a worker waits for the answer and serves others meanwhile.

use gateward_model::Secret;
use serde::Deserialize;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most counters of one [`Ask`]: what fits into a pipeline that does not hold Redis up.
pub const MAX_COUNTERS: usize = 4_096;

/// Where a Redis server is and how to be let in; Kong's record `redis` of plugins (kong/tools/redis/schema.lua).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct RedisSettings {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Milliseconds for connecting, and for every answer.
    pub timeout: u64,
    /// User of Redis' access control lists (Redis 6 and later); without: the default user.
    pub username: Option<String>,
    /// Without, or empty: no AUTH is sent.
    pub password: Option<Secret>,
    /// Database to select.
    pub database: i64,
    /// Speak TLS.
    pub ssl: bool,
    /// Verify the server's certificate and name.
    pub ssl_verify: bool,
    /// Name to ask for and to verify; without: `host`.
    pub server_name: Option<String>,
}

impl fmt::Display for RedisSettings {
    /// For messages: nothing secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{} database {}", self.host, self.port, self.database)
    }
}

/// The way to Redis servers.
pub trait Redis: Send + Sync + 'static {
    /// The store with these settings; the same one, with the same connection, for everybody who asks while it is held.
    ///
    /// # Errors
    /// What of the settings cannot be used; whether the server can be reached shows later.
    fn store(&self, settings: &RedisSettings) -> Result<Arc<dyn CounterStore>, String>;
}

/// Counters in a Redis server.
pub trait CounterStore: Send + Sync + 'static {
    /// Ask, in one round trip. One figure per counter, in their order; which is said at [`Ask`].
    fn ask(&self, ask: Ask) -> Answer<'_>;
}

/// The answer to an [`Ask`], to be waited for.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Vec<u64>, StoreError>> + Send + 'a>>;

/// A question about counters, at most [`MAX_COUNTERS`]. Each is answered as one step that no other node's can come
/// between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Add 1 to every counter, unless one of them has reached its limit: then to none. Figures: what they were before.
    Take(Vec<Limited>),
    /// Figures: what they are.
    Read(Vec<Vec<u8>>),
    /// Add to counters. Figures: what they are then.
    Add(Vec<Addition>),
}

/// A counter with a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// Key in the server.
    pub key: Vec<u8>,
    /// Reached when the counter is not below it.
    pub limit: u32,
    /// Seconds a new counter lives.
    pub ttl_s: u64,
}

/// An amount for a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// Key in the server.
    pub key: Vec<u8>,
    /// How much.
    pub amount: u64,
    /// Seconds a new counter lives.
    pub ttl_s: u64,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no connection, and the last attempt to make one failed: nothing was sent.
    #[error("no connection to Redis: {0}")]
    Unavailable(String),
    /// The question may or may not have been answered.
    #[error("no answer from Redis within {0} ms")]
    TimedOut(u64),
    /// The connection ended: the question may or may not have been answered.
    #[error("the connection to Redis ended before the answer")]
    Lost,
    /// Too many questions wait for an answer: nothing was sent.
    #[error("too many questions wait for an answer of Redis")]
    Busy,
    /// The server refused, or answered something else than figures.
    #[error("Redis refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// Every reason, as labels; [`Self::index`] counts in this order.
    pub const REASONS: [&str; 5] = ["unavailable", "timeout", "lost", "busy", "refused"];

    /// Place among [`Self::REASONS`].
    pub fn index(&self) -> usize {
        match self {
            Self::Unavailable(_) => 0,
            Self::TimedOut(_) => 1,
            Self::Lost => 2,
            Self::Busy => 3,
            Self::Refused(_) => 4,
        }
    }

    /// Whether the counters certainly are as they were.
    pub fn nothing_sent(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy)
    }
}

/// What came of a decision that depends on counters in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Decision {
    /// Within the limits.
    Passed,
    /// Beyond a limit.
    Limited,
    /// Redis failed, and the request passed for that (`fault_tolerant`).
    Unchecked,
    /// Redis failed, and the request failed with it.
    Failed,
}

impl Decision {
    /// Every decision, as labels.
    pub const OUTCOMES: [&str; 4] = ["passed", "limited", "unchecked", "failed"];
}

/// What was asked of Redis since the process started; read with `Relaxed` loads.
#[derive(Debug, Default)]
pub struct RedisStats {
    /// In the order of [`Decision::OUTCOMES`].
    pub decisions: [AtomicU64; Decision::OUTCOMES.len()],
    /// In the order of [`StoreError::REASONS`].
    pub errors: [AtomicU64; StoreError::REASONS.len()],
    /// Requests that were admitted and not told to Redis: a batch failed half-way, or there was no room to keep them.
    pub uncounted: AtomicU64,
    /// Answers, and microseconds waited for them.
    pub answers: AtomicU64,
    /// See `answers`.
    pub answers_us: AtomicU64,
}

impl RedisStats {
    /// Count a decision.
    pub fn decided(&self, decision: Decision) {
        self.decisions[decision as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Count a failure.
    pub fn failed(&self, error: &StoreError) {
        self.errors[error.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Count an answer that took this long.
    pub fn answered(&self, took_us: u64) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.answers_us.fetch_add(took_us, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_reason_of_its_own_and_passwords_do_not_show() {
        let errors = [
            StoreError::Unavailable("refused".to_owned()),
            StoreError::TimedOut(5),
            StoreError::Lost,
            StoreError::Busy,
            StoreError::Refused("NOPERM".to_owned()),
        ];
        for (index, error) in errors.iter().enumerate() {
            assert_eq!(error.index(), index);
            assert_eq!(error.nothing_sent(), matches!(StoreError::REASONS[index], "unavailable" | "busy"));
        }
        let settings: RedisSettings = serde_json::from_value(serde_json::json!({
            "host": "r", "port": 6379, "timeout": 5, "password": "geheim", "database": 2, "ssl": false, "ssl_verify": false,
        }))
        .unwrap();
        assert_eq!(settings.to_string(), "r:6379 database 2");
        assert!(!format!("{settings:?}").contains("geheim"));
    }
}
