//! `sync_rate` above 0: requests are counted here and the counts exchanged with Redis in batches.
//!
//! The node's own count of a caller (in [`Counters`]) is what Redis knew of the others plus what was admitted here. A
//! request that is admitted is also told to a task of the instance, over a bounded queue that nobody waits for. The task
//! sums up, adds the sums to Redis once per `sync_rate`, all keys in one pipeline, learns from the answers what the
//! others added meanwhile, and raises the node's counts by that.
//!
//! So all nodes together admit at most the limit and what each admits before it hears of the others: in one `sync_rate`
//! and a round trip. What a failed exchange may have told Redis is not told again; what it certainly did not is.

use crate::counter_store::MAX_COUNTERS;
use crate::counters::{Counters, Key};
use crate::native::complaints::Complaints;
use crate::native::rate_limiting::identifier::key;
use crate::native::rate_limiting::window::{PERIODS, Period};
use crate::{Addition, Ask, CounterStore, PluginEnv, PluginStats, StoreError};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Shortest time between two exchanges; Kong's `sync_rate: 0` means as soon as possible.
const SHORTEST: Duration = Duration::from_millis(20);
/// Longest, so that a moment can be reckoned from it.
const LONGEST_S: f64 = 86_400.0;
/// Requests that wait to be summed up; beyond, they are not told to Redis and counted as that.
const EVENTS: usize = 65_536;
/// Counters an instance keeps sums of; likewise.
const COUNTERS: usize = 100_000;
/// Events taken from the queue at a time.
const HANDFUL: usize = 1_024;

/// What Redis knew when a counter began here, by place among the instance's periods; `None`: it had begun already.
pub(super) type Bases = [Option<u64>; PERIODS.len()];

/// The workers' side.
pub(super) struct Sync {
    events: mpsc::Sender<Event>,
    healthy: Arc<AtomicBool>,
    nonce: u64,
    stats: Arc<PluginStats>,
}

/// What the task is told of a request.
#[derive(Debug)]
struct Event {
    identity: u64,
    /// Of the keys.
    stem: Vec<u8>,
    now_s: u64,
    bases: Option<Bases>,
    counted: bool,
}

impl Sync {
    /// Start the task of an instance on the background runtime; it ends with the instance, after a last exchange.
    pub(super) fn start(
        store: Arc<dyn CounterStore>,
        rate_s: f64,
        periods: Vec<&'static Period>,
        env: &PluginEnv,
    ) -> Self {
        static INSTANCES: AtomicU64 = AtomicU64::new(0);
        let (events, receiver) = mpsc::channel(EVENTS);
        let healthy = Arc::new(AtomicBool::new(true));
        let book = Book {
            periods,
            counters: env.counters.clone(),
            stats: env.stats.clone(),
            entries: HashMap::new(),
            unpushed: 0,
        };
        let task = Task {
            store,
            rate: Duration::from_secs_f64(rate_s.clamp(0.0, LONGEST_S)).max(SHORTEST),
            healthy: healthy.clone(),
            book,
            complaints: Complaints::new(),
        };
        env.background.spawn(task.run(receiver));
        let nonce = INSTANCES.fetch_add(1, Ordering::Relaxed);
        Self { events, healthy, nonce, stats: env.stats.clone() }
    }

    /// Tells the instance's counters in the node's tables from all others.
    pub(super) fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Whether the last exchange succeeded.
    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Redis answers again.
    pub(super) fn recovered(&self) {
        self.healthy.store(true, Ordering::Relaxed);
    }

    /// A request was admitted.
    pub(super) fn counted(&self, identity: u64, stem: Vec<u8>, now_s: u64, bases: Option<Bases>) {
        self.tell(Event { identity, stem, now_s, bases, counted: true });
    }

    /// Counters began here, and perhaps the request that asked was admitted.
    pub(super) fn learned(&self, identity: u64, stem: Vec<u8>, now_s: u64, bases: Bases, counted: bool) {
        if counted || bases.iter().any(Option::is_some) {
            self.tell(Event { identity, stem, now_s, bases: Some(bases), counted });
        }
    }

    fn tell(&self, event: Event) {
        let counted = event.counted;
        if self.events.try_send(event).is_err() && counted {
            self.stats.redis.uncounted.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The instance's sums, by key in Redis.
struct Book {
    periods: Vec<&'static Period>,
    counters: Arc<Counters>,
    stats: Arc<PluginStats>,
    entries: HashMap<Vec<u8>, Entry>,
    /// Sum over the entries.
    unpushed: u64,
}

#[derive(Debug)]
struct Entry {
    counter: Key,
    window_end_s: u64,
    ttl_s: u64,
    /// Admitted here and not yet told.
    unpushed: u64,
    /// Admitted here and told.
    pushed: u64,
    /// What the others have, as far as the node's count contains it; unknown until its begin is heard of.
    others: Option<u64>,
}

impl Book {
    fn note(&mut self, event: &Event) {
        for (index, period) in self.periods.iter().enumerate() {
            let window = period.window(event.now_s);
            let key = key(&event.stem, period, &window);
            if self.entries.len() >= COUNTERS && !self.entries.contains_key(&key) {
                self.stats.redis.uncounted.fetch_add(u64::from(event.counted), Ordering::Relaxed);
                continue;
            }
            let entry = self.entries.entry(key).or_insert_with(|| Entry {
                counter: Key { period: period.index, window: window.number, identity: event.identity },
                window_end_s: window.end_s,
                ttl_s: period.ttl_s(&window, event.now_s),
                unpushed: 0,
                pushed: 0,
                others: None,
            });
            entry.unpushed += u64::from(event.counted);
            self.unpushed += u64::from(event.counted);
            if let Some(base) = event.bases.and_then(|bases| bases[index]) {
                // A counter that begins again was lost from the table; what it began with contains what was told.
                let told = if entry.others.is_some() { entry.pushed } else { 0 };
                entry.others = Some(base.saturating_sub(told));
            }
        }
    }

    /// What is to be told. Counters whose window is over, and told, are forgotten.
    fn batch(&mut self, now_s: u64) -> Vec<Addition> {
        self.entries.retain(|_, entry| entry.unpushed > 0 || entry.window_end_s > now_s);
        let due = self.entries.iter_mut().filter(|(_, entry)| entry.unpushed > 0);
        let batch = due.map(|(key, entry)| {
            let amount = std::mem::take(&mut entry.unpushed);
            Addition { key: key.clone(), amount, ttl_s: entry.ttl_s }
        });
        let batch = batch.collect();
        self.unpushed = 0;
        batch
    }

    /// What came of telling.
    fn settle(&mut self, told: &[Addition], outcome: &Result<Vec<u64>, StoreError>) {
        match outcome {
            Ok(totals) => told.iter().zip(totals).for_each(|(addition, total)| self.told(addition, *total)),
            Err(error) if error.nothing_sent() => {
                for addition in told {
                    if let Some(entry) = self.entries.get_mut(&addition.key) {
                        entry.unpushed += addition.amount;
                        self.unpushed += addition.amount;
                    }
                }
            }
            Err(_) => self.lose(told),
        }
    }

    fn told(&mut self, addition: &Addition, total: u64) {
        let Some(entry) = self.entries.get_mut(&addition.key) else { return };
        entry.pushed += addition.amount;
        let Some(others) = entry.others else { return };
        let others_now = total.saturating_sub(entry.pushed);
        let news = u32::try_from(others_now.saturating_sub(others)).unwrap_or(u32::MAX);
        if news > 0 {
            self.counters.add(entry.counter, news);
        }
        entry.others = Some(others_now);
    }

    fn lose(&self, told: &[Addition]) {
        let lost = told.iter().map(|addition| addition.amount).sum();
        self.stats.redis.uncounted.fetch_add(lost, Ordering::Relaxed);
    }
}

struct Task {
    store: Arc<dyn CounterStore>,
    rate: Duration,
    healthy: Arc<AtomicBool>,
    book: Book,
    complaints: Complaints,
}

/// A part of a batch, and what came of it.
type Part = (Vec<Addition>, Result<Vec<u64>, StoreError>);
type Told = Vec<Part>;

impl Task {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut handful = Vec::with_capacity(HANDFUL);
        let mut due: Option<Instant> = None;
        let mut under_way: Option<Pin<Box<dyn Future<Output = Told> + Send>>> = None;
        loop {
            let next = due.filter(|_| under_way.is_none());
            tokio::select! {
                count = events.recv_many(&mut handful, HANDFUL) => {
                    if count == 0 {
                        break;
                    }
                    handful.drain(..).for_each(|event| self.book.note(&event));
                }
                told = arrival(&mut under_way) => {
                    under_way = None;
                    self.settle(&told);
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    due = None;
                    under_way = Some(Box::pin(tell(self.store.clone(), self.book.batch(now_s()))));
                }
            }
            if self.book.unpushed > 0 && due.is_none() {
                due = Some(Instant::now() + self.rate);
            }
        }
        if let Some(under_way) = under_way {
            let told = under_way.await;
            self.settle(&told);
        }
        let told = tell(self.store.clone(), self.book.batch(now_s())).await;
        self.settle(&told);
        // There is no next time.
        let rest = self.book.batch(0);
        self.book.lose(&rest);
    }

    fn settle(&mut self, told: &[Part]) {
        for (additions, outcome) in told {
            if let Err(error) = outcome
                && self.complaints.may_complain()
            {
                tracing::error!(counters = additions.len(), "rate-limiting: counts could not be exchanged: {error}");
            }
            self.healthy.store(outcome.is_ok(), Ordering::Relaxed);
            self.book.settle(additions, outcome);
        }
    }
}

/// Never, without anything under way.
async fn arrival(under_way: &mut Option<Pin<Box<dyn Future<Output = Told> + Send>>>) -> Told {
    match under_way {
        Some(telling) => telling.await,
        None => std::future::pending().await,
    }
}

/// Add everything, as much at a time as may be asked.
async fn tell(store: Arc<dyn CounterStore>, mut batch: Vec<Addition>) -> Told {
    let mut told = Vec::new();
    while !batch.is_empty() {
        let rest = batch.split_off(batch.len().min(MAX_COUNTERS));
        let outcome = store.ask(Ask::Add(batch.clone())).await;
        told.push((batch, outcome));
        batch = rest;
    }
    told
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-02-28 22:58:20 UTC, in a minute that ends at ...:23:00.
    const NOW_S: u64 = 1_709_161_100;

    fn book() -> Book {
        let periods = vec![&PERIODS[1]];
        Book {
            periods,
            counters: Arc::new(Counters::with_slots(64)),
            stats: Arc::default(),
            entries: HashMap::new(),
            unpushed: 0,
        }
    }

    fn event(base: Option<u64>) -> Event {
        let mut bases = [None; PERIODS.len()];
        bases[0] = base;
        Event { identity: 7, stem: b"k:".to_vec(), now_s: NOW_S, bases: Some(bases), counted: true }
    }

    fn counter() -> Key {
        Key { period: 1, window: PERIODS[1].window(NOW_S).number, identity: 7 }
    }

    #[test]
    fn what_others_counted_is_added_once() {
        let mut book = book();
        assert!(book.counters.begin(counter(), 10));
        for base in [Some(10), None, None] {
            assert!(book.counters.take(counter(), 100).is_ok());
            book.note(&event(base));
        }
        let batch = book.batch(NOW_S);
        assert_eq!(batch.len(), 1);
        assert_eq!((batch[0].amount, batch[0].ttl_s, book.unpushed), (3, 65, 0));
        // 10 before, 3 of ours, 4 of others.
        book.settle(&batch, &Ok(vec![17]));
        assert_eq!(book.counters.usage(counter()), 17);
        book.settle(&batch[..0], &Ok(vec![]));
        book.note(&event(None));
        assert!(book.counters.take(counter(), 100).is_ok());
        let batch = book.batch(NOW_S);
        book.settle(&batch, &Ok(vec![18]));
        assert_eq!(book.counters.usage(counter()), 18, "nothing new of others");
    }

    #[test]
    fn what_was_certainly_not_told_is_told_later_and_the_rest_is_counted_as_lost() {
        let mut book = book();
        book.note(&event(Some(0)));
        let batch = book.batch(NOW_S);
        book.settle(&batch, &Err(StoreError::Unavailable("gone".to_owned())));
        assert_eq!(book.unpushed, 1);
        book.note(&event(None));
        let batch = book.batch(NOW_S);
        assert_eq!(batch[0].amount, 2);
        book.settle(&batch, &Err(StoreError::TimedOut(5)));
        assert_eq!((book.unpushed, book.stats.redis.uncounted.load(Ordering::Relaxed)), (0, 2));
    }

    #[test]
    fn windows_that_are_over_are_forgotten_once_told() {
        let mut book = book();
        book.note(&event(Some(0)));
        assert_eq!(book.batch(NOW_S + 60).len(), 1);
        assert_eq!(book.entries.len(), 1);
        assert_eq!(book.batch(NOW_S + 60).len(), 0);
        assert_eq!(book.entries.len(), 0);
    }

    #[test]
    fn a_full_book_takes_no_new_counters() {
        let mut book = book();
        for caller in 0..COUNTERS + 3 {
            book.note(&Event { stem: caller.to_string().into_bytes(), ..event(None) });
        }
        assert_eq!(book.entries.len(), COUNTERS);
        assert_eq!(book.stats.redis.uncounted.load(Ordering::Relaxed), 3);
    }
}
