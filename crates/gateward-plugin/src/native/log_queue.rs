//! The queue between requests and log destinations: bounded, never blocks a worker, delivers in the background.
//!
//! A plugin instance owns the entry side ([`LogQueue`]); one task on the background runtime takes batches out and
//! hands them to a [`Sink`], with exponential back-off on failure, as Kong's queues do (kong/tools/queue.lua).
//! Dropping the instance closes the entry side: the task delivers what is queued, for [`FLUSH_BOUND`] at most,
//! and ends.
//!
//! What is not queued or not delivered is counted in [`PluginStats`]. When the queue is full the newest record is
//! dropped (Kong drops the oldest): that needs no lock between workers.

use crate::native::complaints::Complaints;
use crate::{PluginEnv, PluginStats};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

/// How long a closed queue may take to deliver what it holds.
pub const FLUSH_BOUND: Duration = Duration::from_secs(10);

/// Where batches go.
pub trait Sink: Send + Sync + 'static {
    /// Deliver a batch of at least one record; the error is a text for the log.
    fn deliver(&self, batch: &[String]) -> impl Future<Output = Result<(), String>> + Send;
}

/// Bounds and pace of a queue.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Records waiting.
    pub max_entries: usize,
    /// Bytes of records waiting or being delivered.
    pub max_bytes: usize,
    /// Records per batch.
    pub max_batch_size: usize,
    /// How long a batch may wait to fill up, from its first record.
    pub max_coalescing_delay: Duration,
    /// How long a batch is tried again; zero: once.
    pub max_retry_time: Duration,
    /// Pause before the second try; doubles with every further one.
    pub initial_retry_delay: Duration,
    /// Longest pause.
    pub max_retry_delay: Duration,
    /// Batches under way at once.
    pub concurrency: usize,
}

/// The entry side, owned by the plugin instance.
pub struct LogQueue {
    entries: mpsc::Sender<String>,
    shared: Arc<Shared>,
    /// Dropped with the instance: that is how the task learns of the end.
    _open: watch::Sender<()>,
}

struct Shared {
    /// For messages: plugin and entity id.
    name: String,
    limits: Limits,
    stats: Arc<PluginStats>,
    waiting_bytes: AtomicUsize,
    /// Records accepted and not yet settled.
    unsettled: AtomicU64,
    complaints: Complaints,
}

impl LogQueue {
    /// Start the task that delivers to `sink`, on the background runtime of `env`.
    pub fn start(name: String, limits: Limits, sink: impl Sink, env: &PluginEnv) -> Self {
        let (entries, receiver) = mpsc::channel(limits.max_entries.clamp(1, 1_000_000));
        let (open, closed) = watch::channel(());
        let shared = Arc::new(Shared {
            name,
            limits,
            stats: env.stats.clone(),
            waiting_bytes: AtomicUsize::new(0),
            unsettled: AtomicU64::new(0),
            complaints: Complaints::new(),
        });
        env.background.spawn(run(receiver, closed, Arc::new(sink), shared.clone()));
        Self { entries, shared, _open: open }
    }

    /// Queue a record, or count it as dropped when there is no room. Never blocks.
    pub fn push(&self, entry: String) {
        let shared = &self.shared;
        let size = entry.len();
        if shared.waiting_bytes.fetch_add(size, Ordering::Relaxed) + size > shared.limits.max_bytes {
            shared.waiting_bytes.fetch_sub(size, Ordering::Relaxed);
            return shared.dropped("too many bytes are waiting");
        }
        // Counted before it is sent, so that the count never goes below zero on the other side.
        shared.unsettled.fetch_add(1, Ordering::Relaxed);
        if self.entries.try_send(entry).is_err() {
            shared.unsettled.fetch_sub(1, Ordering::Relaxed);
            shared.waiting_bytes.fetch_sub(size, Ordering::Relaxed);
            shared.dropped("the queue is full");
        }
    }
}

impl Shared {
    fn dropped(&self, reason: &str) {
        self.stats.log_entries_dropped.fetch_add(1, Ordering::Relaxed);
        if self.complaints.may_complain() {
            let dropped = self.stats.log_entries_dropped.load(Ordering::Relaxed);
            tracing::warn!(queue = self.name, dropped, "log records are dropped: {reason}");
        }
    }

    fn settle(&self, batch: &[String], delivered: bool) {
        let count = batch.len() as u64;
        let bytes = batch.iter().map(String::len).sum();
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.unsettled.fetch_sub(count, Ordering::Relaxed);
        if delivered {
            self.stats.log_entries_delivered.fetch_add(count, Ordering::Relaxed);
        } else {
            self.stats.log_entries_failed.fetch_add(count, Ordering::Relaxed);
            self.stats.log_batches_failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The task: everything until the end, or until the bound after the end of the instance.
async fn run<S: Sink>(
    receiver: mpsc::Receiver<String>,
    mut closed: watch::Receiver<()>,
    sink: Arc<S>,
    shared: Arc<Shared>,
) {
    let bound = async {
        // Nothing is ever sent: it resolves when the instance is gone.
        let _ = closed.changed().await;
        sleep(FLUSH_BOUND).await;
    };
    tokio::select! {
        () = deliver_all(receiver, sink, shared.clone()) => {}
        () = bound => {
            let lost = shared.unsettled.load(Ordering::Relaxed);
            shared.stats.log_entries_failed.fetch_add(lost, Ordering::Relaxed);
            tracing::warn!(queue = shared.name, lost, "log records could not be delivered after the plugin was removed");
        }
    }
}

async fn deliver_all<S: Sink>(mut receiver: mpsc::Receiver<String>, sink: Arc<S>, shared: Arc<Shared>) {
    // Dropping the set, when the bound cuts this future off, ends the deliveries under way.
    let mut under_way = JoinSet::new();
    while let Some(batch) = next_batch(&mut receiver, &shared.limits).await {
        let (sink, task) = (sink.clone(), shared.clone());
        under_way.spawn(async move {
            let delivered = deliver(&*sink, &batch, &task).await;
            task.settle(&batch, delivered);
        });
        while under_way.len() >= shared.limits.concurrency.max(1) {
            under_way.join_next().await;
        }
    }
    while under_way.join_next().await.is_some() {}
}

/// The next batch; `None` when the queue is closed and empty.
async fn next_batch(receiver: &mut mpsc::Receiver<String>, limits: &Limits) -> Option<Vec<String>> {
    let mut batch = vec![receiver.recv().await?];
    let deadline = Instant::now() + limits.max_coalescing_delay;
    while batch.len() < limits.max_batch_size {
        let room = limits.max_batch_size - batch.len();
        match timeout_at(deadline, receiver.recv_many(&mut batch, room)).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    Some(batch)
}

/// Tries until it works or the time is over. Whether it worked.
async fn deliver(sink: &impl Sink, batch: &[String], shared: &Shared) -> bool {
    let limits = &shared.limits;
    let started = Instant::now();
    let mut delay = limits.initial_retry_delay;
    loop {
        let Err(error) = sink.deliver(batch).await else { return true };
        let gives_up = started.elapsed() >= limits.max_retry_time;
        if shared.complaints.may_complain() {
            tracing::warn!(queue = shared.name, records = batch.len(), gives_up, "log delivery failed: {error}");
        }
        if gives_up {
            return false;
        }
        sleep(delay.min(limits.max_retry_delay)).await;
        delay = delay.saturating_mul(2).min(limits.max_retry_delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing::environment;
    use std::sync::Mutex;
    use tokio::runtime::Handle;

    /// Fails as often as told, then records batches.
    #[derive(Clone, Default)]
    struct Recorder {
        failures: Arc<AtomicU64>,
        takes: Duration,
        batches: Arc<Mutex<Vec<Vec<String>>>>,
    }

    impl Sink for Recorder {
        async fn deliver(&self, batch: &[String]) -> Result<(), String> {
            sleep(self.takes).await;
            let fails =
                self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            if fails {
                return Err("refused".to_owned());
            }
            self.batches.lock().unwrap().push(batch.to_vec());
            Ok(())
        }
    }

    fn limits() -> Limits {
        Limits {
            max_entries: 100,
            max_bytes: 1_000,
            max_batch_size: 3,
            max_coalescing_delay: Duration::from_secs(1),
            max_retry_time: Duration::from_secs(60),
            initial_retry_delay: Duration::from_millis(10),
            max_retry_delay: Duration::from_secs(60),
            concurrency: 1,
        }
    }

    fn start(limits: Limits, recorder: &Recorder) -> (LogQueue, Arc<PluginStats>) {
        let mut env = environment();
        env.background = Handle::current();
        (LogQueue::start("test".to_owned(), limits, recorder.clone(), &env), env.stats.clone())
    }

    fn figures(stats: &PluginStats) -> [u64; 4] {
        let counters = [
            &stats.log_entries_dropped,
            &stats.log_entries_failed,
            &stats.log_batches_failed,
            &stats.log_entries_delivered,
        ];
        counters.map(|counter| counter.load(Ordering::Relaxed))
    }

    fn sizes(recorder: &Recorder) -> Vec<usize> {
        recorder.batches.lock().unwrap().iter().map(Vec::len).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn batches_fill_up_or_leave_after_the_delay() {
        let recorder = Recorder::default();
        let (queue, stats) = start(limits(), &recorder);
        (0..4).for_each(|number| queue.push(number.to_string()));
        sleep(Duration::from_millis(500)).await;
        assert_eq!(sizes(&recorder), [3]);
        sleep(Duration::from_millis(600)).await;
        assert_eq!(sizes(&recorder), [3, 1]);
        assert_eq!(figures(&stats), [0, 0, 0, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_batch_is_tried_again_with_growing_pauses() {
        let recorder = Recorder { failures: Arc::new(5.into()), ..Recorder::default() };
        let (queue, stats) = start(Limits { max_batch_size: 1, ..limits() }, &recorder);
        queue.push("a".to_owned());
        // 10 + 20 + 40 + 80 + 160 ms.
        sleep(Duration::from_millis(305)).await;
        assert_eq!(sizes(&recorder), [0; 0]);
        sleep(Duration::from_millis(10)).await;
        assert_eq!(sizes(&recorder), [1]);
        assert_eq!(figures(&stats), [0, 0, 0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_given_up_after_the_retry_time_and_the_next_one_goes_on() {
        let recorder = Recorder { failures: Arc::new(1_000.into()), ..Recorder::default() };
        let (queue, stats) = start(Limits { max_batch_size: 2, ..limits() }, &recorder);
        queue.push("a".to_owned());
        queue.push("b".to_owned());
        sleep(Duration::from_secs(200)).await;
        assert_eq!(figures(&stats), [0, 2, 1, 0]);
        recorder.failures.store(0, Ordering::Relaxed);
        queue.push("c".to_owned());
        sleep(Duration::from_secs(2)).await;
        assert_eq!(figures(&stats), [0, 2, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_is_dropped_and_counted() {
        let recorder = Recorder { takes: Duration::from_secs(5), ..Recorder::default() };
        let (queue, stats) = start(Limits { max_entries: 10, max_bytes: 50, ..limits() }, &recorder);
        (0..15).for_each(|_| queue.push("x".to_owned()));
        queue.push("y".repeat(41));
        assert_eq!(figures(&stats), [6, 0, 0, 0]);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(figures(&stats), [6, 0, 0, 10]);
        queue.push("y".repeat(50));
        assert_eq!(figures(&stats)[0], 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_queue_is_flushed_without_waiting_for_the_batch_to_fill() {
        let recorder = Recorder::default();
        let (queue, stats) = start(Limits { max_coalescing_delay: Duration::from_secs(3600), ..limits() }, &recorder);
        (0..5).for_each(|number| queue.push(number.to_string()));
        drop(queue);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(sizes(&recorder), [3, 2]);
        assert_eq!(figures(&stats), [0, 0, 0, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_flush_is_bounded_and_what_is_left_counts_as_failed() {
        let recorder = Recorder { failures: Arc::new(u64::MAX.into()), ..Recorder::default() };
        let (queue, stats) = start(limits(), &recorder);
        (0..5).for_each(|number| queue.push(number.to_string()));
        drop(queue);
        sleep(FLUSH_BOUND + Duration::from_secs(1)).await;
        assert_eq!(figures(&stats), [0, 5, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn batches_go_out_side_by_side_when_allowed() {
        let recorder = Recorder { takes: Duration::from_secs(1), ..Recorder::default() };
        let (queue, _) = start(Limits { max_batch_size: 1, concurrency: 4, ..limits() }, &recorder);
        (0..8).for_each(|number| queue.push(number.to_string()));
        sleep(Duration::from_millis(2_500)).await;
        assert_eq!(sizes(&recorder).len(), 8);
    }
}
