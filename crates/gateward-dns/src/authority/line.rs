//! The line of changes that wait for one zone, and what the authority keeps of the zone.
//!
//! Changes of a zone are made in the order in which they came, by one writer at a time; zones do not wait for one another.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use gateward_zone::policy::Policy;
use gateward_zone::{Name, Problem};
use tokio::sync::oneshot;

use super::Authority;
use super::proposal::{Applied, Edit, Proposal, Refused};
use super::quota::Bucket;
use crate::folder::{Included, Stamp};
use crate::journal::History;
use crate::store::Zone;

/// Changes that may wait for a zone; more are refused at once.
const MAX_WAITING: usize = 4_096;
/// Changes that share one sync.
const MAX_BATCH: usize = 256;

/// Where the answer to a change goes.
pub(super) type Reply = oneshot::Sender<Result<Applied, Refused>>;

/// Something that a zone's writer does.
pub(super) type Work = dyn FnOnce(&Authority, &Line, &mut State) + Send;

/// Something to do in the zone's turn.
pub(super) enum Job {
    /// A change.
    Change(Box<Proposal>, Reply),
    /// Anything else that must not meet a change.
    Turn(Box<Work>),
}

impl Job {
    fn is_change(&self) -> bool {
        matches!(self, Job::Change(..))
    }

    /// Whether it may share a turn with changes before it. Going back starts from a version that is stored.
    fn may_follow(&self) -> bool {
        matches!(self, Job::Change(proposal, _) if !matches!(proposal.edit, Edit::Rollback(_)))
    }
}

/// A zone's line.
pub(super) struct Line {
    pub(super) origin: Name,
    queue: Mutex<Queue>,
    state: Mutex<State>,
    /// What listings show, without waiting for a writer.
    pub(super) info: ArcSwap<Info>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// A writer has the line, or will get it.
    is_scheduled: bool,
    /// The zone is gone and so is the line: whoever still holds it must look for the new one.
    is_dead: bool,
}

/// What a zone is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Changes are made here.
    Primary,
    /// It is copied from its primary.
    Secondary,
    /// A list of zones (RFC 9432).
    Catalog,
}

/// What is known of a zone besides its content.
#[derive(Debug, Clone)]
pub struct Info {
    /// What it is.
    pub kind: Kind,
    /// Its policy; that of zones without a policy file when there is none.
    pub policy: Arc<Policy>,
    /// What is wrong with its files; an older version is served, if any. Empty when all is well.
    pub problems: Arc<[Problem]>,
    /// Whether the server answers for the zone, if only with SERVFAIL.
    pub(super) is_here: bool,
}

impl Default for Info {
    fn default() -> Self {
        Info { kind: Kind::Primary, policy: Arc::default(), problems: Arc::from([]), is_here: false }
    }
}

/// What only the zone's writer touches.
pub(super) struct State {
    /// The version that is served; `None` when there is none.
    pub(super) zone: Option<Arc<Zone>>,
    /// Its content's digest, once somebody had to know.
    pub(super) digest: Option<u128>,
    /// Its steps.
    pub(super) history: History,
    /// Steps that the zone file does not have.
    pub(super) unmerged: u64,
    /// The serial in the zone file when it was last taken over or written; it may lag behind when its content was taken with a higher one.
    pub(super) file_serial: Option<u32>,
    /// The digest of what the zone file held then; `None` where that is the version that is served.
    pub(super) file_digest: Option<u128>,
    /// How the zone file looked when it was last judged or written. One that looks different holds an edit that nobody has judged yet, and
    /// is not overwritten.
    pub(super) seen: Option<Stamp>,
    /// Files that it includes, as they looked before they were read then.
    pub(super) includes: Vec<Included>,
    /// The zone file was edited or removed while nobody looked; the version before is served until that is judged.
    pub(super) is_unjudged: bool,
    /// The zone is new, and there is no good copy of it yet.
    pub(super) lacks_copy: bool,
    /// A policy file was read, or found missing: the policy is the zone's own.
    pub(super) is_policy_known: bool,
    /// The policy file cannot be read: nothing may be changed until it can.
    pub(super) bad_policy: Vec<Problem>,
    /// The zone file cannot be used; the version that is served goes on and may change.
    pub(super) bad_file: Vec<Problem>,
    /// Acknowledged changes cannot be read: only a whole new zone helps.
    pub(super) damaged: Vec<Problem>,
    pub(super) bucket: Bucket,
    /// Journal size from which on the zone file is written anew, when the last try failed.
    pub(super) retry_at_bytes: u64,
}

impl State {
    pub(super) fn new() -> Self {
        State {
            zone: None,
            digest: None,
            history: History::default(),
            unmerged: 0,
            file_serial: None,
            file_digest: None,
            seen: None,
            includes: Vec::new(),
            is_unjudged: false,
            lacks_copy: false,
            is_policy_known: false,
            bad_policy: Vec::new(),
            bad_file: Vec::new(),
            damaged: Vec::new(),
            bucket: Bucket::new(Instant::now()),
            retry_at_bytes: 0,
        }
    }
}

impl State {
    /// Whether the server answers for the zone.
    pub(super) fn is_here(&self) -> bool {
        self.zone.is_some() || !self.damaged.is_empty() || !self.bad_file.is_empty()
    }
}

/// What became of an attempt to get in line.
pub(super) enum Queued {
    /// The line has to be given to a writer.
    Schedule,
    /// A writer has it.
    Waiting,
    /// It leads nowhere any more.
    Dead(Job),
    /// Too many are waiting.
    Full(Job),
}

impl Line {
    pub(super) fn new(origin: Name, info: Info, state: State) -> Self {
        Line { origin, queue: Mutex::default(), state: Mutex::new(state), info: ArcSwap::from_pointee(info) }
    }

    pub(super) fn push(&self, job: Job) -> Queued {
        let mut queue = lock(&self.queue);
        if queue.is_dead {
            return Queued::Dead(job);
        }
        if queue.jobs.len() >= MAX_WAITING && job.is_change() {
            return Queued::Full(job);
        }
        queue.jobs.push_back(job);
        if std::mem::replace(&mut queue.is_scheduled, true) { Queued::Waiting } else { Queued::Schedule }
    }

    /// The next jobs to do at once: several changes, or one other.
    pub(super) fn take(&self) -> Vec<Job> {
        let mut queue = lock(&self.queue);
        let mut jobs = Vec::new();
        while let Some(job) = queue.jobs.front() {
            let is_change = job.is_change();
            if !jobs.is_empty() && !job.may_follow() || jobs.len() >= MAX_BATCH {
                break;
            }
            jobs.extend(queue.jobs.pop_front());
            if !is_change {
                break;
            }
        }
        jobs
    }

    /// The writer is done with what it took; whether there is more. A line of no zone that nobody waits in dies.
    pub(super) fn release(&self) -> Released {
        // A copy that has not come yet keeps its line, which knows that it is one.
        let is_empty = !self.state().is_here() && self.info.load().kind == Kind::Primary;
        let mut queue = lock(&self.queue);
        if !queue.jobs.is_empty() {
            return Released::More;
        }
        queue.is_scheduled = false;
        queue.is_dead = is_empty;
        if is_empty { Released::Dead } else { Released::Idle }
    }

    /// What the writer keeps; whoever else looks waits for the writer.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// What is left of a line after a turn.
pub(super) enum Released {
    More,
    Idle,
    Dead,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
