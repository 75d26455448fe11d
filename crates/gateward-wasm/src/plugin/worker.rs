//! Instances of a configured filter: one per worker, again after a failure.
//!
//! An instance is used by its worker's thread; timers, queues and answers that belong to no request are handled on the
//! background runtime. The lock around it is contended only when both meet. A filter that is slow to start should not hold
//! requests up, so the first instances are started with the filter, before its snapshot is served, and wait for their workers; after a
//! failure, or when one has grown, the next is made on the background runtime. Only a worker for which none was left, because there was
//! no room for so many or its instance did not start, starts its first itself.

use super::known::Known;
use super::under_way::UnderWay;
use super::{Carrier, ConfiguredStatus};
use crate::callout_stats::CalloutStats;
use crate::failure::{BackOff, Failure, FailureKind, PAUSE_PER_TIMEOUT};
use crate::filter::Filter;
use crate::host::ROOT;
use crate::instance::Instance;
use crate::types::Phase;
use gateward_plugin::WorkerState;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Threads with an instance of their own; more share.
const WORKERS: usize = 256;

/// A configured filter with its instances.
pub(crate) struct Shared {
    pub(super) filter: Arc<Filter>,
    pub(super) known: Arc<Known>,
    pub(super) carrier: Arc<dyn Carrier>,
    pub(super) background: Handle,
    pub(super) callouts: Arc<CalloutStats>,
    pub(super) settings: Settings,
    /// Filters made later have higher ones.
    pub(super) serial: u64,
    began: Instant,
    /// Instances that are started and have no worker yet.
    spare: Mutex<Vec<Spare>>,
    slots: [OnceLock<Mutex<Slot>>; WORKERS],
}

/// An instance without a worker.
struct Spare {
    instance: Instance,
    /// Wakes its keeper, once it has one.
    keeper: Arc<Notify>,
}

/// What is set beside a filter's module and does not concern its instances.
#[derive(Debug, Clone, Hash)]
pub(super) struct Settings {
    /// Whether the filter is shown request bodies.
    pub(super) request_body: bool,
    /// The version that its author gave it.
    pub(super) version: Option<String>,
}

/// One worker's place.
#[derive(Default)]
struct Slot {
    running: Option<Arc<Running>>,
    back_off: BackOff,
    /// A new instance is being made.
    pending: bool,
}

/// A live instance.
pub(crate) struct Running {
    pub(super) shared: Weak<Shared>,
    instance: Mutex<Instance>,
    /// A stream may have been resumed by another context's callback.
    pub(super) resumed: Arc<Notify>,
    pub(super) under_way: UnderWay,
    keeper: Arc<Notify>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of this thread among those that use filters.
fn worker() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<Option<usize>> = const { Cell::new(None) };
    }
    OWN.get().unwrap_or_else(|| {
        let own = NEXT.fetch_add(1, Ordering::Relaxed) % WORKERS;
        OWN.set(Some(own));
        own
    })
}

impl Shared {
    pub(super) fn new(
        filter: Arc<Filter>,
        known: Arc<Known>,
        carrier: Arc<dyn Carrier>,
        background: Handle,
        callouts: Arc<CalloutStats>,
        settings: Settings,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let slots = std::array::from_fn(|_| OnceLock::new());
        let (began, spare) = (Instant::now(), Mutex::default());
        Arc::new(Self { filter, known, carrier, background, callouts, settings, serial, began, spare, slots })
    }

    /// Start instances for this many workers, as long as there is plenty of room for others. One that does not start, and those
    /// behind it, are left to their workers, which deal with failures.
    pub(super) fn prepare(&self, workers: usize) {
        let made =
            (0..workers).map_while(|_| if self.filter.has_room() { Spare::make(&self.filter).ok() } else { None });
        lock(&self.spare).extend(made);
    }

    /// Do `work` for a new stream with this worker's instance; `None`: it failed and there is no new one yet.
    pub(super) fn with<T>(self: &Arc<Self>, work: impl FnOnce(&Arc<Running>, &mut Instance) -> T) -> Option<T> {
        {
            let slot = lock(self.slots[worker()].get_or_init(Mutex::default));
            if let Some(running) = &slot.running {
                let mut instance = running.instance();
                if instance.dead().is_none() && !instance.is_grown() {
                    return Some(work(running, &mut instance));
                }
            }
        }
        let running = self.running()?;
        let mut instance = running.instance();
        Some(work(&running, &mut instance))
    }

    /// This worker's instance for a new stream.
    fn running(self: &Arc<Self>) -> Option<Arc<Running>> {
        let number = worker();
        let mut slot = lock(self.slots[number].get_or_init(Mutex::default));
        if let Some(running) = &slot.running {
            let instance = running.instance();
            if instance.dead().is_none() {
                let grown = instance.is_grown();
                drop(instance);
                let running = running.clone();
                if grown && !slot.pending && slot.back_off.may_start(self.now_ms()) {
                    // It serves on until there is another; streams under way keep it until they end.
                    self.restart_beside(&mut slot, number);
                }
                return Some(running);
            }
            let cause = instance.cause();
            drop(instance);
            slot.running = None;
            if let Some(cause) = cause {
                slot.back_off.failed(self.now_ms(), self.least_pause_ms(cause), number as u64 * 7);
            }
        }
        if slot.pending || !slot.back_off.may_start(self.now_ms()) {
            return None;
        }
        if slot.back_off.failures() > 0 {
            self.restart_beside(&mut slot, number);
            return None;
        }
        self.start(&mut slot)
    }

    /// Make the next instance off the worker.
    fn restart_beside(self: &Arc<Self>, slot: &mut Slot, number: usize) {
        slot.pending = true;
        let shared = self.clone();
        self.background.spawn_blocking(move || shared.restart(number));
    }

    fn restart(self: &Arc<Self>, number: usize) {
        let made = Running::make(self);
        let mut slot = lock(self.slots[number].get_or_init(Mutex::default));
        slot.pending = false;
        self.took(&mut slot, made);
    }

    fn start(self: &Arc<Self>, slot: &mut Slot) -> Option<Arc<Running>> {
        let spare = lock(&self.spare).pop();
        let made = match spare {
            Some(spare) => Ok(Running::of(self, spare)),
            None => Running::make(self),
        };
        self.took(slot, made)
    }

    fn took(&self, slot: &mut Slot, made: Result<Arc<Running>, Failure>) -> Option<Arc<Running>> {
        slot.back_off.started(self.now_ms());
        match made {
            Ok(running) => slot.running = Some(running),
            Err(failure) => {
                slot.back_off.failed(self.now_ms(), 0, 0);
                tracing::error!(filter = self.filter.config().name, %failure, "a Wasm filter does not start");
            }
        }
        slot.running.clone()
    }

    fn least_pause_ms(&self, cause: FailureKind) -> u64 {
        match cause {
            FailureKind::Timeout => (self.filter.config().limits.callback * PAUSE_PER_TIMEOUT).as_millis() as u64,
            _ => 0,
        }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    pub(super) fn status(&self) -> ConfiguredStatus {
        let totals = self.filter.totals();
        let calls = Phase::ALL.iter().zip(totals.calls).filter(|(_, count)| *count > 0);
        let failures = FailureKind::ALL.iter().map(|kind| (kind, totals.failed(*kind))).filter(|(_, count)| *count > 0);
        ConfiguredStatus {
            hash: self.filter.hash().to_string(),
            instances: totals.instances,
            instances_made: totals.instances_made,
            memory_bytes: totals.memory_bytes,
            streams: totals.streams,
            calls: calls.map(|(phase, count)| (phase.as_str(), count)).collect(),
            failures: failures.map(|(kind, count)| (kind.as_str(), count)).collect(),
            workers: self.workers(),
        }
    }

    /// The state on each worker that used the filter.
    pub(super) fn workers(&self) -> Vec<WorkerState> {
        let state = |slot: &Mutex<Slot>| {
            let slot = lock(slot);
            match &slot.running {
                Some(running) if running.instance().dead().is_none() => WorkerState::Running,
                Some(_) => WorkerState::Failed,
                None if slot.pending || slot.back_off.failures() > 0 => WorkerState::Waiting,
                None => WorkerState::Idle,
            }
        };
        self.slots.iter().filter_map(OnceLock::get).map(state).collect()
    }
}

impl Spare {
    fn make(filter: &Arc<Filter>) -> Result<Self, Failure> {
        let keeper = Arc::new(Notify::new());
        let wake = keeper.clone();
        let instance = filter.prepare(Box::new(move || wake.notify_one()))?;
        Ok(Self { instance, keeper })
    }
}

impl Running {
    fn make(shared: &Arc<Shared>) -> Result<Arc<Self>, Failure> {
        Ok(Self::of(shared, Spare::make(&shared.filter)?))
    }

    /// From now on `spare` has a timer, is told of its queues, and what it asks for is done.
    fn of(shared: &Arc<Shared>, spare: Spare) -> Arc<Self> {
        let Spare { instance, keeper } = spare;
        instance.listen();
        let tick_ms = instance.tick_ms();
        let running = Arc::new(Self {
            shared: Arc::downgrade(shared),
            instance: Mutex::new(instance),
            resumed: Arc::default(),
            under_way: UnderWay::default(),
            keeper,
        });
        let keeper = running.keeper.clone();
        shared.background.spawn(keep(Arc::downgrade(&running), keeper, tick_ms));
        running.settle();
        running
    }

    /// The instance, for one call. One in which a call panicked has failed.
    pub(super) fn instance(&self) -> MutexGuard<'_, Instance> {
        self.instance.lock().unwrap_or_else(|poisoned| {
            self.instance.clear_poison();
            let mut instance = poisoned.into_inner();
            instance.panicked();
            instance
        })
    }

    /// Call the instance outside of any request.
    pub(super) fn told(self: &Arc<Self>, call: impl FnOnce(&mut Instance) -> Result<(), Failure>) {
        let outcome = call(&mut self.instance());
        if let Err(failure) = outcome {
            report(&failure);
        }
        self.settle();
        self.resumed.notify_waiters();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.keeper.notify_one();
    }
}

pub(super) fn report(failure: &Failure) {
    if failure.kind != FailureKind::Dead {
        tracing::error!(kind = failure.kind.as_str(), "a Wasm filter failed: {}", failure.text);
    }
}

/// Timer and queues of one instance, until it is gone.
async fn keep(running: Weak<Running>, wake: Arc<Notify>, mut tick_ms: Option<u32>) {
    loop {
        let ticked = match tick_ms {
            Some(period) => {
                let sleep = tokio::time::sleep(Duration::from_millis(u64::from(period)));
                tokio::select! {
                    () = sleep => true,
                    () = wake.notified() => false,
                }
            }
            None => {
                wake.notified().await;
                false
            }
        };
        let Some(running) = running.upgrade() else { return };
        if running.shared.strong_count() == 0 {
            return;
        }
        running.told(|instance| if ticked { instance.tick() } else { instance.queues_ready() });
        let instance = running.instance();
        if instance.dead().is_some() {
            return;
        }
        tick_ms = instance.tick_ms();
    }
}

/// A stream's context in an instance, given back when dropped.
pub(super) struct Ticket {
    pub(super) running: Arc<Running>,
    pub(super) context: u32,
    pub(super) ended: Cell<bool>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.ended.get() && self.context != ROOT {
            self.running.instance().abandon(self.context);
            // What was asked for on its behalf is given up.
            self.running.settle();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callout::Upstreams;
    use crate::logging::LogSink;
    use crate::plugin::NoCarrier;
    use crate::plugin::run::FilterPlugin;
    use crate::plugin::testing::{Panicking, noting};
    use crate::{FilterConfig, Runtime, Services};
    use gateward_plugin::{Exchange, Flow, Plugin};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc::channel;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A filter whose instances for `workers` are made by this thread.
    fn shared(host: &Arc<Runtime>, background: &tokio::runtime::Runtime, wat: &str, workers: usize) -> Arc<Shared> {
        let module = host.load(&wat::parse_str(wat).unwrap()).unwrap();
        let known = Arc::new(Known::new(Default::default(), &[]));
        let upstreams: Arc<dyn Upstreams> = known.clone();
        let filter = Filter::new(host, &module, FilterConfig::new("test"), upstreams).unwrap();
        let settings = Settings { request_body: true, version: None };
        let background = background.handle().clone();
        let shared = Shared::new(filter, known, Arc::new(NoCarrier), background, Arc::default(), settings);
        shared.prepare(workers);
        shared
    }

    fn host(log: Arc<dyn LogSink>) -> Arc<Runtime> {
        Runtime::new(Services::new(log), None).unwrap()
    }

    fn background() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// A stream on a thread of its own: the thread, and how many streams its instance has.
    fn worker(shared: &Arc<Shared>) -> (std::thread::ThreadId, Option<usize>) {
        let shared = shared.clone();
        let work = move || {
            let streams = shared.with(|_, instance| {
                instance.create_stream().unwrap();
                instance.streams()
            });
            (std::thread::current().id(), streams)
        };
        std::thread::spawn(work).join().unwrap()
    }

    #[test]
    fn workers_start_instances_only_where_none_was_prepared() {
        let (lines, background) = (Arc::new(noting::Lines::default()), background());
        let shared = shared(&host(lines.clone()), &background, noting::CONFIGURED, 2);
        let here = std::thread::current().id();
        // The trial, and one for each worker.
        assert_eq!(lines.take(), [here; 3]);
        assert_eq!(shared.filter.totals().instances, 2);
        for _ in 0..2 {
            assert_eq!((worker(&shared).1, lines.take().len()), (Some(1), 0), "each has an instance to itself");
        }
        assert_eq!(shared.workers(), [WorkerState::Running; 2]);
        // A thread that nobody counted on makes its own.
        let (own, streams) = worker(&shared);
        assert_eq!((streams, lines.take()), (Some(1), vec![own]));
        assert_eq!(shared.filter.totals().instances_made, 4);
    }

    #[test]
    fn instances_without_a_worker_keep_no_items_to_themselves() {
        let (lines, background) = (Arc::new(noting::Lines::default()), background());
        let host = host(lines.clone());
        let shared = shared(&host, &background, noting::QUEUE, 3);
        let space = host.services().shared.space("test");
        let queue = space.resolve(b"q").unwrap();
        let told = || {
            let line = async {
                while lines.take().is_empty() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            background.block_on(async { tokio::time::timeout(PATIENCE, line).await }).expect("somebody is told");
        };
        // The first who serves is told of what came before, and then of everything.
        space.enqueue(queue, b"before").unwrap();
        worker(&shared);
        told();
        for _ in 0..4 {
            space.enqueue(queue, b"later").unwrap();
            told();
        }
    }

    #[test]
    fn a_panic_in_a_callback_costs_the_instance_and_no_more() {
        let background = background();
        let shared = shared(&host(Arc::new(Panicking)), &background, noting::REQUEST, 1);
        let (plugin, failing) = (FilterPlugin::new(shared.clone()), shared.clone());
        let (done, ended) = channel();
        std::thread::spawn(move || {
            let request = || plugin.request_head(&mut Exchange::new(), true);
            let first = catch_unwind(AssertUnwindSafe(request));
            let refused = |flow| matches!(flow, Flow::Respond(response) if response.status == 503);
            done.send((first.is_err(), refused(request()), failing.workers()))
        });
        assert_eq!(ended.recv_timeout(PATIENCE), Ok((true, true, vec![WorkerState::Waiting])));
        assert_eq!(shared.filter.totals().failed(FailureKind::Trap), 1);
    }
}
