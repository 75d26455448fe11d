//! Every name in use on a node, and the tasks that keep their answers fresh.

use super::client::{Client, Memory};
use super::course::{Answer, Course, Failure, Outcome, Step};
use super::settings::{DnsError, DnsSettings};
use arc_swap::ArcSwapOption;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};

/// Look-ups under way at a time on a node; more wait for their turn.
const LOOK_UPS: usize = 256;
/// How often a name of the configuration that failed is looked up again while nobody wants it.
const UNWANTED_RETRY: Duration = Duration::from_secs(30);

/// The names of a node.
pub struct Names {
    table: Mutex<FxHashMap<Arc<str>, Arc<Name>>>,
    client: Client,
    settings: DnsSettings,
    runtime: Handle,
    permits: Semaphore,
    stats: DnsStats,
    /// Told when a name leads elsewhere.
    changed: Notify,
}

/// A name and what is known of it.
#[derive(Debug)]
pub struct Name {
    host: Arc<str>,
    /// Nothing while it was never looked up, or what is known is too old.
    answer: ArcSwapOption<Answer>,
    /// Somebody asked since the last look-up ended.
    wanted: AtomicBool,
    /// The configuration has it.
    held: AtomicBool,
    /// Nobody looks it up any more.
    gone: AtomicBool,
    /// Its task sleeps until somebody wants it.
    resting: AtomicBool,
    stale: AtomicBool,
    wake: Notify,
    /// Counts publications.
    published: watch::Sender<u64>,
}

/// Look-ups by what they came to, since the start.
#[derive(Debug, Default)]
pub struct DnsStats {
    /// There were addresses.
    pub found: AtomicU64,
    /// There is nothing of that name.
    pub not_found: AtomicU64,
    /// Nobody could tell, and an earlier answer goes on being used.
    pub stale: AtomicU64,
    /// Nobody could tell, and there is no such answer.
    pub failed: AtomicU64,
    /// Names that were not looked up because too many are known.
    pub refused: AtomicU64,
}

/// How many names there are, by what is known of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NameCounts {
    /// With addresses.
    pub fresh: usize,
    /// With addresses whose time is over, because asking fails.
    pub stale: usize,
    /// Without addresses.
    pub failed: usize,
    /// Not looked up yet.
    pub pending: usize,
}

impl Names {
    /// No names yet; they will be looked up on `runtime`.
    ///
    /// # Errors
    /// When the system's configuration of name resolution cannot be used.
    pub fn new(settings: DnsSettings, runtime: Handle) -> Result<Arc<Self>, DnsError> {
        let entered = runtime.enter();
        let client = Client::new(&settings)?;
        drop(entered);
        Ok(Arc::new(Self {
            table: Mutex::default(),
            client,
            settings,
            runtime,
            permits: Semaphore::new(LOOK_UPS),
            stats: DnsStats::default(),
            changed: Notify::new(),
        }))
    }

    /// The name of `host`, which from now on is being looked up; `None` when too many are known.
    pub fn name(self: &Arc<Self>, host: &str) -> Option<Arc<Name>> {
        let mut table = lock(&self.table);
        if let Some(name) = table.get(host) {
            return Some(name.clone());
        }
        if table.len() >= self.settings.cache_size && !make_room(&mut table, self.settings.cache_size) {
            self.stats.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.begin(&mut table, host, false))
    }

    /// Keep the names of `hosts`, however many and whether used or not, and no others for their own sake.
    pub fn hold<'a>(self: &Arc<Self>, hosts: impl IntoIterator<Item = &'a str>) {
        let hosts: FxHashSet<&str> = hosts.into_iter().collect();
        let mut table = lock(&self.table);
        for name in table.values() {
            name.held.store(hosts.contains(&*name.host), Ordering::Relaxed);
        }
        for host in hosts {
            if !table.contains_key(host) {
                self.begin(&mut table, host, true);
            }
        }
    }

    /// Wait until some name leads elsewhere than at the last call. For one task.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Where names are looked up.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// What look-ups came to.
    pub fn stats(&self) -> &DnsStats {
        &self.stats
    }

    /// How many names there are.
    pub fn counts(&self) -> NameCounts {
        let mut counts = NameCounts::default();
        for name in lock(&self.table).values() {
            let count = match name.answer.load().as_deref() {
                None if name.resting.load(Ordering::Relaxed) => &mut counts.failed,
                None => &mut counts.pending,
                Some(Answer::Failed(_)) => &mut counts.failed,
                Some(Answer::Found(_)) if name.stale.load(Ordering::Relaxed) => &mut counts.stale,
                Some(Answer::Found(_)) => &mut counts.fresh,
            };
            *count += 1;
        }
        counts
    }

    fn begin(self: &Arc<Self>, table: &mut FxHashMap<Arc<str>, Arc<Name>>, host: &str, held: bool) -> Arc<Name> {
        let name = Arc::new(Name::new(host, held));
        table.insert(name.host.clone(), name.clone());
        self.runtime.spawn(self.clone().keep(name.clone()));
        name
    }

    /// Look `name` up, again and again, for as long as somebody may want it.
    async fn keep(self: Arc<Self>, name: Arc<Name>) {
        let (mut memory, mut course, mut standing) = (Memory::default(), Course::default(), None);
        loop {
            let outcome = {
                // Never closed.
                let _permit = self.permits.acquire().await;
                self.client.look_up(&name.host, &mut memory).await
            };
            let reason = outcome_reason(&outcome);
            let step = course.step(outcome, Instant::now(), &self.settings);
            self.count(&step);
            // What is asked from now on is asked of this answer.
            name.wanted.store(false, Ordering::SeqCst);
            log(&name.host, &mut standing, &step, &reason);
            self.publish(&name, &step);
            sleep(step.again).await;
            let wanted = name.wanted.load(Ordering::SeqCst);
            if !wanted && !name.held.load(Ordering::Relaxed) {
                if self.forget(&name) {
                    return;
                }
            } else if !wanted && matches!(*step.answer, Answer::Failed(_)) {
                self.rest(&name).await;
            }
        }
    }

    /// What was remembered of a failure is over and nobody wants to know: wait until somebody does.
    async fn rest(&self, name: &Name) {
        name.answer.store(None);
        self.changed.notify_one();
        name.resting.store(true, Ordering::SeqCst);
        if !name.wanted.load(Ordering::SeqCst) {
            let _ = timeout(UNWANTED_RETRY, name.wake.notified()).await;
        }
        name.resting.store(false, Ordering::SeqCst);
    }

    /// Take `name` out, unless somebody wants it just now.
    fn forget(&self, name: &Arc<Name>) -> bool {
        let mut table = lock(&self.table);
        if name.held.load(Ordering::Relaxed) {
            return false;
        }
        if table.get(&*name.host).is_some_and(|known| Arc::ptr_eq(known, name)) {
            table.remove(&*name.host);
        }
        drop(table);
        name.gone.store(true, Ordering::SeqCst);
        name.published.send_modify(|count| *count += 1);
        true
    }

    fn publish(&self, name: &Name, step: &Step) {
        name.stale.store(step.stale, Ordering::Relaxed);
        // Where nothing differs the pointer stays: that is how others tell.
        if name.answer.load().as_ref() != Some(&step.answer) {
            name.answer.store(Some(step.answer.clone()));
            self.changed.notify_one();
        }
        name.published.send_modify(|count| *count += 1);
    }

    fn count(&self, step: &Step) {
        let counter = match (&*step.answer, step.stale) {
            (Answer::Found(_), false) => &self.stats.found,
            (Answer::Found(_), true) => &self.stats.stale,
            (Answer::Failed(Failure::NotFound), _) => &self.stats.not_found,
            (Answer::Failed(Failure::Failed), _) => &self.stats.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Names").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Name {
    fn new(host: &str, held: bool) -> Self {
        Self {
            host: host.into(),
            answer: ArcSwapOption::empty(),
            wanted: AtomicBool::new(false),
            held: AtomicBool::new(held),
            gone: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            wake: Notify::new(),
            published: watch::Sender::new(0),
        }
    }

    /// The name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What is known of it now; `None`: nothing, see [`Self::wait`].
    pub fn answer(&self) -> Option<Arc<Answer>> {
        self.answer.load_full()
    }

    /// Whether `answer` is still what is known, without touching its count.
    pub fn is_current(&self, answer: &Arc<Answer>) -> bool {
        self.answer.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, answer))
    }

    /// Say that somebody uses it, so that it goes on being looked up.
    pub fn want(&self) {
        if self.wanted.load(Ordering::Relaxed) {
            return;
        }
        self.wanted.store(true, Ordering::SeqCst);
        if self.resting.load(Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }

    /// Nobody looks it up any more: ask [`Names::name`] for it anew.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// What is known of it, as soon as something is; `None` when it is gone.
    pub async fn wait(&self) -> Option<Arc<Answer>> {
        let mut published = self.published.subscribe();
        loop {
            self.want();
            if let Some(answer) = self.answer() {
                return Some(answer);
            }
            if self.is_gone() || published.changed().await.is_err() {
                return None;
            }
        }
    }
}

/// Take out a name that nobody wants, if those the configuration does not hold are too many.
fn make_room(table: &mut FxHashMap<Arc<str>, Arc<Name>>, most: usize) -> bool {
    let free = |name: &Name| !name.held.load(Ordering::Relaxed);
    if table.values().filter(|name| free(name)).count() < most {
        return true;
    }
    let unwanted = table.values().find(|name| free(name) && !name.wanted.load(Ordering::Relaxed)).cloned();
    // Its task finds out when it looks.
    unwanted.is_some_and(|name| table.remove(&*name.host).is_some())
}

fn outcome_reason(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Found(..) => String::new(),
        Outcome::NotFound => "no such name, or no records of the kinds in dns-order".to_owned(),
        Outcome::Failed(reason) => reason.clone(),
    }
}

/// How a name stands, as far as the log is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    Stale,
    Failed(Failure),
}

/// Say how a name stands, when it stands otherwise than `before`.
fn log(name: &str, before: &mut Option<Standing>, step: &Step, reason: &str) {
    let now = match (&*step.answer, step.stale) {
        (Answer::Found(_), false) => Standing::Good,
        (Answer::Found(_), true) => Standing::Stale,
        (Answer::Failed(failure), _) => Standing::Failed(*failure),
    };
    let addresses = step.answer.endpoints().len();
    match (before.replace(now), now) {
        (Some(before), now) if before == now => {}
        (_, Standing::Stale) => tracing::warn!(name, reason, "name resolution fails; the last addresses stay in use"),
        (_, Standing::Failed(_)) => tracing::warn!(name, reason, "name resolution failed"),
        (None, Standing::Good) => tracing::debug!(name, addresses, "name resolved"),
        (Some(_), Standing::Good) => tracing::info!(name, addresses, "name resolution works again"),
    }
}

/// Nothing that holds these locks leaves things half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
