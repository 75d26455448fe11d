//! The one path by which zones change: zone files, the control API, dynamic updates, leases, transfers and catalogs all end here.
//!
//! A change waits in the line of its zone. In its turn it is held against the version that is served (compare and set), the
//! lint, the guardrails and the zone's quotas; gets its serial; is written to the zone's journal and synced, together with the others that
//! waited; and is served. Then it is acknowledged, noted in the audit log, and told to who listens. Nothing here is global but the
//! map of lines and the audit log's end.

mod audit;
mod commit;
mod copies;
mod counts;
mod digest;
mod file;
mod guard;
mod kept;
mod line;
mod load;
mod plan;
mod policy;
mod proposal;
mod quota;
mod removal;
mod text;
mod turn;
mod writers;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use gateward_zone::policy::Policy;
use gateward_zone::{Name, Problem, ZoneView};
use tokio::sync::{broadcast, oneshot};

use crate::folder::Folder;
use crate::journal::{Delta, Entry, JournalError};
use crate::sources::Sources;
use crate::store::{Zone, Zones};

pub use audit::AuditLog;
pub use line::{Info, Kind};
pub use load::{Loaded, Prepared};
pub(crate) use proposal::problem;
pub use proposal::{Actor, Applied, Base, Decide, Door, Edit, Numbering, PolicyBase, Proposal, Refused};
pub use text::{Parsed, parse};

use line::{Job, Line, Queued, Released, State};
use writers::Ready;

/// Events that a listener may be behind before it has to look at everything.
const EVENTS: usize = 4_096;

/// Records that a transfer of differences may have however small the zone is.
const MIN_DIFFERENCE: u64 = 1_000;

/// What holds for every zone.
#[derive(Debug, Clone)]
pub struct Options {
    /// Versions of each zone to keep.
    pub versions: usize,
    /// Most records of a zone.
    pub max_records: usize,
    /// Most changes of a zone in a second; 0 is no limit.
    pub max_changes_per_second: u32,
    /// Octets of a journal from which on the zone file is written anew; more for large zones.
    pub journal_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { versions: 20, max_records: 5_000_000, max_changes_per_second: 2_000, journal_bytes: 1 << 20 }
    }
}

/// Something that happened to a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The zone.
    pub origin: Name,
    /// What happened.
    pub what: Happened,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// It is served now, and was not before.
    Added(u32),
    /// A version with this serial is served.
    Changed(u32),
    /// It is served no more.
    Removed,
    /// Its policy is another.
    Policy,
}

/// Who decides about the zones of a server.
pub struct Authority {
    zones: Arc<Zones>,
    folder: Folder,
    options: Options,
    sources: Sources,
    lines: RwLock<HashMap<Name, Arc<Line>>>,
    ready: Arc<Ready>,
    audit: AuditLog,
    counts: counts::Counts,
    events: broadcast::Sender<Event>,
}

impl Authority {
    /// An authority over the zones in `folder`, which are served through `zones`; none is loaded yet.
    ///
    /// # Errors
    /// The audit log cannot be opened, or goes on behind damage; where copies come from cannot be read; no thread can be started.
    pub fn new(folder: Folder, zones: Arc<Zones>, options: Options) -> io::Result<Arc<Self>> {
        let audit = AuditLog::open(&folder.audit_file())?;
        let sources = Sources::open(&folder)?;
        let authority = Arc::new(Authority {
            zones,
            folder,
            options,
            sources,
            lines: RwLock::default(),
            ready: Arc::new(Ready::new()),
            audit,
            counts: counts::Counts::default(),
            events: broadcast::channel(EVENTS).0,
        });
        writers::start(&authority)?;
        Ok(authority)
    }

    /// What is served.
    #[must_use]
    pub fn zones(&self) -> &Arc<Zones> {
        &self.zones
    }

    /// Where the zones' files are.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// What became of changes, as Prometheus reads it.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.counts.render()
    }

    /// What happens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Asks for a change and waits for what comes of it. When it returns `Ok`, the change is durable and served.
    ///
    /// # Errors
    /// [`Refused`]: nothing changed.
    pub async fn apply(&self, proposal: Proposal) -> Result<Applied, Refused> {
        self.submit(proposal).await.unwrap_or_else(|_| Err(lost()))
    }

    /// As [`Self::apply`], for threads that may wait.
    ///
    /// # Errors
    /// [`Refused`]: nothing changed.
    pub fn apply_blocking(&self, proposal: Proposal) -> Result<Applied, Refused> {
        self.submit(proposal).blocking_recv().unwrap_or_else(|_| Err(lost()))
    }

    /// Asks for a change.
    #[must_use = "the answer comes through it"]
    pub fn submit(&self, proposal: Proposal) -> oneshot::Receiver<Result<Applied, Refused>> {
        let (reply, answer) = oneshot::channel();
        let origin = proposal.origin.clone();
        self.enqueue(&origin, Job::Change(Box::new(proposal), reply));
        answer
    }

    /// Does something in the zone's turn; `None` when it never came, for lack of a thread or by a panic.
    async fn in_turn<T: Send + 'static>(
        &self,
        origin: &Name,
        work: impl FnOnce(&Authority, &Line, &mut State) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Turn(Box::new(move |authority, line, state| {
            // Nobody may be waiting any more.
            let _ = reply.send(work(authority, line, state));
        }));
        self.enqueue(origin, job);
        answer.await.ok()
    }

    /// As [`Self::in_turn`], for what may be refused.
    async fn ask_in_turn<T: Send + 'static>(
        &self,
        origin: &Name,
        work: impl FnOnce(&Authority, &Line, &mut State) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        self.in_turn(origin, work).await.unwrap_or_else(|| Err(lost()))
    }

    /// As [`Self::in_turn`], for threads that may wait.
    fn in_turn_blocking<T: Send + 'static>(
        &self,
        origin: &Name,
        work: impl FnOnce(&Authority, &Line, &mut State) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Turn(Box::new(move |authority, line, state| {
            let _ = reply.send(work(authority, line, state));
        }));
        self.enqueue(origin, job);
        answer.blocking_recv().ok()
    }

    fn enqueue(&self, origin: &Name, mut job: Job) {
        loop {
            let line = self.line(origin);
            match line.push(job) {
                Queued::Schedule => return self.ready.push(line),
                Queued::Waiting => return,
                Queued::Full(Job::Change(_, reply)) => {
                    let per_second = self.options.max_changes_per_second;
                    let busy = Refused::Busy { per_second, retry_after_ms: 1_000 };
                    self.counts.bad(&busy);
                    // Nobody may be waiting any more.
                    let _ = reply.send(Err(busy));
                    return;
                }
                Queued::Full(Job::Turn(_)) => return,
                Queued::Dead(back) => {
                    self.forget(&line);
                    job = back;
                }
            }
        }
    }

    /// The line of a zone; made when it is not there.
    fn line(&self, origin: &Name) -> Arc<Line> {
        if let Some(line) = self.known(origin) {
            return line;
        }
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Line::new(origin.clone(), self.first_info(origin), State::new()));
        lines.entry(origin.clone()).or_insert_with(new).clone()
    }

    /// As [`Self::known`], for those who cannot do without.
    fn must_know(&self, origin: &Name) -> Result<Arc<Line>, Refused> {
        self.known(origin).ok_or_else(|| Refused::NoZone(origin.clone()))
    }

    fn known(&self, origin: &Name) -> Option<Arc<Line>> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner).get(origin).cloned()
    }

    fn forget(&self, line: &Arc<Line>) {
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        if lines.get(&line.origin).is_some_and(|known| Arc::ptr_eq(known, line)) {
            lines.remove(&line.origin);
        }
    }

    /// A writer panicked in its turn: what is stored may not be what is served, until the zone is loaded again.
    fn distrust(line: &Line) {
        let message = format!("a change of {} ended in an internal error", line.origin);
        let mut state = line.state();
        state.damaged = vec![problem("internal", message, "send SIGHUP: the zone is loaded from its files again")];
        Authority::show(line, &state);
    }

    /// A writer's turn with a line is over.
    fn release(&self, line: Arc<Line>) {
        match line.release() {
            Released::More => self.ready.push(line),
            Released::Dead => self.forget(&line),
            Released::Idle => {}
        }
    }

    fn tell(&self, origin: &Name, what: Happened) {
        // Nobody has to listen.
        let _ = self.events.send(Event { origin: origin.clone(), what });
    }

    /// The version of a zone that is served.
    #[must_use]
    pub fn zone(&self, origin: &Name) -> Option<Arc<Zone>> {
        self.zones.map().slot(origin)?.zone()
    }

    /// What is known of a zone besides its content; `None` when it is not known here.
    #[must_use]
    pub fn info(&self, origin: &Name) -> Option<Arc<Info>> {
        self.known(origin).map(|line| line.info.load_full()).filter(|info| info.is_here)
    }

    /// All zones that are known, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<(Name, Arc<Info>)> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        let all = lines.iter().map(|(origin, line)| (origin.clone(), line.info.load_full()));
        all.filter(|(_, info)| info.is_here).collect()
    }

    /// The policy of a zone.
    #[must_use]
    pub fn policy(&self, origin: &Name) -> Arc<Policy> {
        self.info(origin).map(|info| info.policy.clone()).unwrap_or_default()
    }

    /// The steps of a zone that are kept, the oldest first. Waits for the disk.
    #[must_use]
    pub fn versions(&self, origin: &Name) -> Vec<Entry> {
        let Some(line) = self.known(origin) else { return Vec::new() };
        let mut state = line.state();
        let now = state.position();
        now.map(|now| state.history.entries(&self.folder.versions_dir(origin), now)).unwrap_or_default()
    }

    /// The steps that lead from the version `from` to the one that is served, for a transfer of differences (RFC 1995). `None` when they are
    /// not kept, or are more than the whole zone. Waits for the disk.
    #[must_use]
    pub fn differences(&self, origin: &Name, from: u32) -> Option<Vec<Delta>> {
        let line = self.known(origin)?;
        let mut state = line.state();
        let most = (state.zone.as_ref()?.record_count() as u64).max(MIN_DIFFERENCE);
        self.steps_since(&line, &mut state, from, most).unwrap_or_else(|error| {
            tracing::warn!(zone = %origin, %error, "differences cannot be read; whole transfers go on");
            None
        })
    }

    /// The version with that serial. Waits for the disk.
    ///
    /// # Errors
    /// [`Refused::NoZone`], [`Refused::NoVersion`].
    pub fn version(&self, origin: &Name, serial: u32) -> Result<Arc<Zone>, Refused> {
        let line = self.must_know(origin)?;
        let mut state = line.state();
        let zone = state.zone.clone().ok_or_else(|| Refused::NoZone(origin.clone()))?;
        if zone.serial() == serial {
            return Ok(zone);
        }
        let back = self.way_back(&line, &mut state, serial)?;
        zone.with(&back).map(Arc::new).map_err(|error| plan::refused(&error))
    }

    /// The changes that lead from the version that is served back to the one with `serial`.
    fn way_back(&self, line: &Line, state: &mut State, serial: u32) -> Result<Vec<gateward_zone::Change>, Refused> {
        let deltas = self.steps_since(line, state, serial, u64::MAX).map_err(Refused::failed)?;
        let deltas = deltas.ok_or(Refused::NoVersion(serial))?;
        Ok(deltas.iter().rev().flat_map(Delta::undone).collect())
    }

    fn steps_since(
        &self,
        line: &Line,
        state: &mut State,
        from: u32,
        most: u64,
    ) -> Result<Option<Vec<Delta>>, JournalError> {
        let Some(now) = state.position() else { return Ok(None) };
        if now.serial == from {
            return Ok(Some(Vec::new()));
        }
        state.history.differences(&self.folder.versions_dir(&line.origin), now, from, most)
    }

    /// The zone's primary was not reached for too long (RFC 1035, 3.3.13): questions get SERVFAIL until a version comes.
    pub fn expire(&self, origin: &Name) {
        self.zones.put_empty(origin);
    }

    /// Counts and notes what became of a change of something else than records.
    fn told(&self, line: &Line, actor: &Actor, made: Result<(), Refused>, now: SystemTime) -> Result<(), Refused> {
        match &made {
            Ok(()) => self.counts.good(true),
            Err(error) => self.note_refusal(line, actor, error, now),
        }
        made
    }

    /// Counts what was refused, and notes why.
    fn note_refusal(&self, line: &Line, actor: &Actor, error: &Refused, now: SystemTime) {
        self.counts.bad(error);
        self.audit.refusal(line, actor, error, now);
    }

    /// The zone is here no more: nothing is known of it, and what is found in its line next begins anew.
    fn let_go(&self, line: &Line, state: &mut State) {
        self.zones.remove(&line.origin);
        *state = State::new();
        line.info.store(Arc::new(self.first_info(&line.origin)));
    }

    /// Lets listings see how the zone is.
    fn show(line: &Line, state: &State) {
        let problems: Arc<[Problem]> =
            state.damaged.iter().chain(&state.bad_file).chain(&state.bad_policy).cloned().collect();
        let is_here = state.is_here();
        line.info.rcu(|info| {
            let is_here = is_here || info.kind != Kind::Primary;
            Info { problems: problems.clone(), is_here, ..Info::clone(info) }
        });
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.ready.close();
    }
}

/// The answer never came: a writer panicked.
fn lost() -> Refused {
    Refused::Failed("an internal error; the log has more".to_owned())
}

#[cfg(test)]
mod tests;
