//! One Redis server: the connection that is there, or why it is not; questions with a bound on their time and number.
//!
//! While a first connection is being made, or one anew after an end, questions wait for it. Once an attempt failed they
//! fail at once, until an attempt in the background succeeds: a server that is gone costs no request its time-out. A
//! connection on which a question found no answer in time, and nobody else one meanwhile, is given up: the server is
//! gone or stands still, and what is asked next would wait as long.

use super::{commands, link};
use arc_swap::ArcSwap;
use gateward_net::tls;
use gateward_plugin::{Answer, Ask, CounterStore, PluginStats, RedisSettings, StoreError};
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Questions without an answer at once, of all workers.
const UNANSWERED: usize = 16_384;
/// Pauses between attempts to connect: the first, and the longest; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// `timeout: 0` means nginx' default.
const DEFAULT_TIMEOUT_MS: u64 = 60_000;

/// A server with settings.
pub(super) struct Store {
    shared: Arc<Shared>,
    /// Makes the connection and holds it.
    keeper: AbortHandle,
}

struct Shared {
    settings: RedisSettings,
    timeout: Duration,
    tls: Option<Arc<tls::Client>>,
    stats: Arc<PluginStats>,
    state: ArcSwap<State>,
    /// The state is another.
    changed: Notify,
    /// Questions without an answer.
    unanswered: AtomicUsize,
}

enum State {
    Connecting,
    Up(Link),
    Down(String),
}

/// A connection.
struct Link {
    connection: MultiplexedConnection,
    /// Answers so far.
    answers: AtomicU64,
    /// It is of no use.
    given_up: Arc<Notify>,
}

impl Store {
    /// Open a connection, on `runtime`; whether that succeeds shows later.
    pub(super) fn open(
        runtime: &Handle,
        settings: RedisSettings,
        tls: Option<Arc<tls::Client>>,
        stats: Arc<PluginStats>,
    ) -> Arc<Self> {
        let timeout_ms = if settings.timeout == 0 { DEFAULT_TIMEOUT_MS } else { settings.timeout };
        let shared = Arc::new(Shared {
            timeout: Duration::from_millis(timeout_ms),
            settings,
            tls,
            stats,
            state: ArcSwap::from_pointee(State::Connecting),
            changed: Notify::new(),
            unanswered: AtomicUsize::new(0),
        });
        let keeper = runtime.spawn(keep(shared.clone())).abort_handle();
        Arc::new(Self { shared, keeper })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl CounterStore for Store {
    fn ask(&self, ask: Ask) -> Answer<'_> {
        let shared = &*self.shared;
        Box::pin(async move {
            let asked = Instant::now();
            let outcome = shared.ask(&ask, asked + shared.timeout).await;
            match &outcome {
                Ok(_) => shared.stats.redis.answered(asked.elapsed().as_micros() as u64),
                Err(error) => shared.stats.redis.failed(error),
            }
            outcome
        })
    }
}

impl Shared {
    async fn ask(&self, ask: &Ask, deadline: Instant) -> Result<Vec<u64>, StoreError> {
        let _place = Place::take(&self.unanswered)?;
        let state = self.settled(deadline).await?;
        let link = match &*state {
            State::Up(link) => link,
            State::Down(reason) => return Err(StoreError::Unavailable(reason.clone())),
            State::Connecting => return Err(StoreError::Unavailable("it is being made".to_owned())),
        };
        let answers_before = link.answers.load(Ordering::Relaxed);
        let pipeline = commands::commands(ask);
        let mut connection = link.connection.clone();
        match timeout_at(deadline, pipeline.query_async::<Vec<Value>>(&mut connection)).await {
            Ok(Ok(values)) => {
                link.answers.fetch_add(1, Ordering::Relaxed);
                commands::read(values, commands::figures(ask)).map_err(StoreError::Refused)
            }
            Ok(Err(error)) => Err(link.failed(&error)),
            Err(_) => {
                if link.answers.load(Ordering::Relaxed) == answers_before {
                    link.given_up.notify_one();
                }
                Err(StoreError::TimedOut(self.timeout.as_millis() as u64))
            }
        }
    }

    /// The state, unless it is about to be another: then that.
    async fn settled(&self, deadline: Instant) -> Result<Arc<State>, StoreError> {
        let state = self.state.load_full();
        if !matches!(*state, State::Connecting) {
            return Ok(state);
        }
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Before looking, so that no change is missed.
            changed.as_mut().enable();
            let state = self.state.load_full();
            if !matches!(*state, State::Connecting) {
                return Ok(state);
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Err(StoreError::Unavailable("it is being made".to_owned()));
            }
        }
    }

    fn set(&self, state: State) {
        self.state.store(Arc::new(state));
        self.changed.notify_waiters();
    }
}

/// One of the questions that may be without an answer at once.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(unanswered: &'a AtomicUsize) -> Result<Self, StoreError> {
        let place = Self(unanswered);
        if unanswered.fetch_add(1, Ordering::Relaxed) < UNANSWERED { Ok(place) } else { Err(StoreError::Busy) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    fn failed(&self, error: &RedisError) -> StoreError {
        if error.is_io_error() || error.is_unrecoverable_error() {
            return StoreError::Lost;
        }
        self.answers.fetch_add(1, Ordering::Relaxed);
        // A primary that became a replica: the name may lead to the new one by now.
        if error.code() == Some("READONLY") {
            self.given_up.notify_one();
        }
        StoreError::Refused(error.to_string())
    }
}

/// Keep a connection, for ever.
async fn keep(shared: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    let mut complained = false;
    loop {
        let opened = timeout(shared.timeout, link::open(&shared.settings, shared.tls.as_deref())).await;
        let reason = match opened {
            Ok(Ok((connection, driver))) => {
                tracing::info!(redis = %shared.settings, "connected to Redis");
                complained = false;
                let since = Instant::now();
                let reason = hold(&shared, connection, driver).await;
                tracing::warn!(redis = %shared.settings, "the connection to Redis ended: {reason}");
                if since.elapsed() > LONGEST_PAUSE {
                    // It was of use: again, at once, and whoever asks meanwhile waits for it.
                    shared.set(State::Connecting);
                    pause = FIRST_PAUSE;
                    continue;
                }
                reason
            }
            Ok(Err(reason)) => reason,
            Err(_) => format!("not connected within {} ms", shared.timeout.as_millis()),
        };
        if !complained {
            complained = true;
            tracing::error!(redis = %shared.settings, "no connection to Redis: {reason}; trying again with pauses of up to {LONGEST_PAUSE:?}");
        }
        shared.set(State::Down(reason));
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Serve with a connection until it ends; why it did.
async fn hold(shared: &Shared, connection: MultiplexedConnection, driver: link::Driver) -> String {
    let given_up = Arc::new(Notify::new());
    shared.set(State::Up(Link { connection, answers: AtomicU64::new(0), given_up: given_up.clone() }));
    tokio::select! {
        () = driver => "the server closed it".to_owned(),
        () = given_up.notified() => "it was given up: no answer in time, or from a replica".to_owned(),
    }
}
