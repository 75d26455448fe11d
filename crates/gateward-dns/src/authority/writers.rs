//! The threads that make changes: few, of low priority, so that answers do not wait for them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

use super::Authority;
use super::line::Line;

/// Threads; a change waits for the disk most of the time.
const THREADS: usize = 4;
/// How far below the servers they stand (`nice`).
const NICENESS: i32 = 5;

/// Lines with something to do, each of them once.
#[derive(Default)]
pub(super) struct Ready {
    lines: Mutex<Option<VecDeque<Arc<Line>>>>,
    some: Condvar,
}

impl Ready {
    pub(super) fn new() -> Self {
        Ready { lines: Mutex::new(Some(VecDeque::new())), some: Condvar::new() }
    }

    pub(super) fn push(&self, line: Arc<Line>) {
        if let Some(lines) = self.lines.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            lines.push_back(line);
            self.some.notify_one();
        }
    }

    /// The next line; `None` when there will be no more.
    fn pop(&self) -> Option<Arc<Line>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = lines.as_mut()?.pop_front() {
                return Some(line);
            }
            lines = self.some.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets the threads end.
    pub(super) fn close(&self) {
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.some.notify_all();
    }
}

/// Starts the threads. They end when the authority does.
///
/// # Errors
/// The operating system has no thread left.
pub(super) fn start(authority: &Arc<Authority>) -> std::io::Result<()> {
    for number in 0..THREADS {
        let (ready, authority) = (authority.ready.clone(), Arc::downgrade(authority));
        std::thread::Builder::new().name(format!("dns-writer-{number}")).spawn(move || {
            // Without it changes are as important as answers, which is no reason not to make them.
            let _ = rustix::process::nice(NICENESS);
            work(&ready, &authority);
        })?;
    }
    Ok(())
}

fn work(ready: &Ready, authority: &Weak<Authority>) {
    while let Some(line) = ready.pop() {
        let Some(authority) = authority.upgrade() else { return };
        let turn = std::panic::AssertUnwindSafe(|| authority.turn(&line));
        if std::panic::catch_unwind(turn).is_err() {
            tracing::error!(zone = %line.origin, "a change of the zone ended in a panic; what it would have done is not known to be served");
            Authority::distrust(&line);
        }
        authority.release(line);
    }
}
