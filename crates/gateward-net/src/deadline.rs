//! Deadlines for thousands of connections at the price of a memory store each.
//!
//! A timer per read or write would cost a clock read and a timer-wheel operation per request. Instead every
//! connection owns a slot with "expires at"; one task per worker looks at all slots every [`TICK_MS`] and wakes
//! the owners of those that passed. Arming is a store. The price is precision: an operation is cut between 0 and
//! two ticks late, never early.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// How often slots are looked at; milliseconds.
pub const TICK_MS: u64 = 20;

/// Milliseconds a new connection has for its first request while idle ones are ended.
pub const FRESH_MS: u64 = 1_000;

const NEVER: u64 = u64::MAX;

/// All slots of one worker, and its coarse clock.
#[derive(Debug)]
pub struct Deadlines {
    origin: Instant,
    now_ms: Cell<u64>,
    slots: RefCell<Vec<Rc<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    at_ms: Cell<u64>,
    waiting: Cell<Waiting>,
    fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What a connection waits for, as far as a shutdown cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Waiting {
    /// Something under way.
    #[default]
    Busy,
    /// A next request, which need not come.
    Idle,
    /// Its first request, since then.
    Fresh { since_ms: u64 },
}

/// One connection's deadline. Dropping it frees the slot at the next tick.
#[derive(Debug)]
pub struct Deadline {
    slot: Rc<Slot>,
    clock: Rc<Deadlines>,
}

/// The deadline passed before the operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deadline passed")]
pub struct Expired;

impl Deadlines {
    /// An empty set; the clock starts at 0.
    pub fn new() -> Rc<Self> {
        Rc::new(Self { origin: Instant::now(), now_ms: Cell::new(0), slots: RefCell::default() })
    }

    /// Milliseconds since the worker started, as of the last tick.
    pub fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// A new, disarmed deadline.
    pub fn register(self: &Rc<Self>) -> Deadline {
        let slot = Rc::new(Slot { at_ms: Cell::new(NEVER), ..Slot::default() });
        self.slots.borrow_mut().push(slot.clone());
        Deadline { slot, clock: self.clone() }
    }

    /// Advance the clock, wake the owners of passed deadlines, forget dropped slots. Call every [`TICK_MS`].
    pub fn tick(&self) {
        let now = self.origin.elapsed().as_millis() as u64;
        self.now_ms.set(now);
        self.slots.borrow_mut().retain(|slot| {
            if slot.at_ms.get() <= now {
                slot.fire();
            }
            Rc::strong_count(slot) > 1
        });
    }

    /// End every wait that was armed with [`Deadline::arm_idle`], and those armed with [`Deadline::arm_fresh`] more
    /// than [`FRESH_MS`] ago: the connections have nothing under way.
    pub fn expire_idle(&self) {
        let now = self.now_ms.get();
        for slot in self.slots.borrow().iter() {
            match slot.waiting.get() {
                Waiting::Idle => slot.fire(),
                Waiting::Fresh { since_ms } if now.saturating_sub(since_ms) >= FRESH_MS => slot.fire(),
                Waiting::Fresh { .. } | Waiting::Busy => {}
            }
        }
    }

    /// Run the ticks of this worker until the runtime ends.
    pub async fn run(self: Rc<Self>) {
        let mut interval = tokio::time::interval(Duration::from_millis(TICK_MS));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.tick();
        }
    }
}

impl Slot {
    fn fire(&self) {
        self.at_ms.set(NEVER);
        self.fired.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Deadline {
    /// Allow `after_ms` from now for what follows.
    pub fn arm(&self, after_ms: u64) {
        self.slot.fired.set(false);
        self.slot.waiting.set(Waiting::Busy);
        // The clock may be a tick old, so a tick is added: late, never early.
        self.slot.at_ms.set(self.clock.now_ms.get().saturating_add(after_ms).saturating_add(TICK_MS));
    }

    /// Likewise for a wait during which the connection has nothing under way.
    pub fn arm_idle(&self, after_ms: u64) {
        self.arm(after_ms);
        self.slot.waiting.set(Waiting::Idle);
    }

    /// Likewise for the wait of a new connection for its first request, which gets a moment even when idle
    /// connections are ended.
    pub fn arm_fresh(&self, after_ms: u64) {
        self.arm(after_ms);
        self.slot.waiting.set(Waiting::Fresh { since_ms: self.clock.now_ms.get() });
    }

    /// No limit for what follows.
    pub fn disarm(&self) {
        self.slot.fired.set(false);
        self.slot.waiting.set(Waiting::Busy);
        self.slot.at_ms.set(NEVER);
    }

    /// The coarse clock of the worker; milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Run `operation` until it ends or the armed deadline passes.
    pub async fn guard<F: Future>(&self, operation: F) -> Result<F::Output, Expired> {
        let mut operation = pin!(operation);
        poll_fn(|context| {
            if let Poll::Ready(output) = operation.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            if self.slot.fired.get() {
                return Poll::Ready(Err(Expired));
            }
            let mut waker = self.slot.waker.borrow_mut();
            match waker.as_ref() {
                Some(known) if known.will_wake(context.waker()) => {}
                _ => *waker = Some(context.waker().clone()),
            }
            Poll::Pending
        })
        .await
    }

    /// Write all of `bytes`, allowing `timeout_ms` between two writes that make progress.
    ///
    /// # Errors
    /// `TimedOut` when no byte could be written for that long; otherwise the stream's own error.
    pub async fn write_all(
        &self,
        mut stream: impl AsyncWrite + Unpin,
        mut bytes: &[u8],
        timeout_ms: u64,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            self.arm(timeout_ms);
            let written = self.guard(stream.write(bytes)).await.map_err(|Expired| io::ErrorKind::TimedOut)??;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn a_wait_is_cut_after_its_deadline_and_not_before() {
        local(async {
            let deadlines = Deadlines::new();
            let deadline = deadlines.register();
            let started = Instant::now();
            deadline.arm(60);
            let ticks = deadlines.clone().run();
            let cut = deadline.guard(std::future::pending::<()>());
            tokio::select! {
                () = ticks => unreachable!("ticks never end"),
                outcome = cut => assert_eq!(outcome, Err(Expired)),
            }
            assert!(started.elapsed() >= Duration::from_millis(60));
        });
    }

    #[test]
    fn what_ends_in_time_is_not_cut_and_rearming_forgets_the_past() {
        local(async {
            let deadlines = Deadlines::new();
            let deadline = deadlines.register();
            deadline.arm(0);
            assert_eq!(deadline.guard(std::future::ready(7)).await, Ok(7));
            deadline.slot.fire();
            deadline.arm(1000);
            assert!(!deadline.slot.fired.get());
        });
    }

    #[test]
    fn only_idle_waits_end_when_told() {
        local(async {
            let deadlines = Deadlines::new();
            let (idle, busy, fresh) = (deadlines.register(), deadlines.register(), deadlines.register());
            idle.arm_idle(1000);
            fresh.arm_fresh(1000);
            busy.arm(1000);
            deadlines.expire_idle();
            assert_eq!(idle.guard(std::future::pending::<()>()).await, Err(Expired));
            assert!(!busy.slot.fired.get() && !fresh.slot.fired.get());
            deadlines.now_ms.set(FRESH_MS);
            deadlines.expire_idle();
            assert!(!busy.slot.fired.get() && fresh.slot.fired.get());
        });
    }

    #[test]
    fn dropped_deadlines_are_forgotten() {
        let deadlines = Deadlines::new();
        drop(deadlines.register());
        let kept = deadlines.register();
        deadlines.tick();
        assert_eq!(deadlines.slots.borrow().len(), 1);
        drop(kept);
    }
}
