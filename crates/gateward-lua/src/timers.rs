//! The timers of a machine: functions of plugins that run later, as tasks of the worker (`vm/timers.rs`).

use mlua::Function;
use std::cell::{Cell, RefCell};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Timers that wait, in one machine (Kong's lua_max_pending_timers).
const PENDING: usize = 16_384;
/// Timers that run at the same time (Kong's lua_max_running_timers).
pub(crate) const RUNNING: usize = 4096;
/// A function to call later.
pub(crate) struct Timer {
    pub(crate) delay: Duration,
    /// Again and again, each time this long after the last call ended.
    pub(crate) again: bool,
    /// Its own number, by which Lua knows what to call.
    pub(crate) number: f64,
    /// Number of the plugin instance that started it; 0: none.
    pub(crate) instance: u32,
}

/// The timers of one machine.
pub(crate) struct Timers {
    sender: UnboundedSender<Timer>,
    pub(crate) receiver: RefCell<Option<UnboundedReceiver<Timer>>>,
    /// Called with number, `again` and `premature`.
    pub(crate) function: RefCell<Option<Function>>,
    pub(crate) pending: Cell<usize>,
    pub(crate) running: Cell<usize>,
    pub(crate) ending: Cell<bool>,
    pub(crate) ended: Notify,
    /// Tells those that still run that they are not waited for any longer.
    pub(crate) given_up: Notify,
}

impl Default for Timers {
    fn default() -> Self {
        let (sender, receiver) = unbounded_channel();
        Self {
            sender,
            receiver: RefCell::new(Some(receiver)),
            function: RefCell::default(),
            pending: Cell::default(),
            running: Cell::default(),
            ending: Cell::default(),
            ended: Notify::new(),
            given_up: Notify::new(),
        }
    }
}

impl Timers {
    /// Start one.
    ///
    /// # Errors
    /// OpenResty's words for why not.
    pub(crate) fn start(&self, timer: Timer) -> Result<(), &'static str> {
        if self.ending.get() {
            return Err("process exiting");
        }
        if self.pending.get() >= PENDING {
            return Err("too many pending timers");
        }
        self.pending.set(self.pending.get() + 1);
        self.sender.send(timer).map_err(|_| "process exiting")
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.get()
    }

    pub(crate) fn running(&self) -> usize {
        self.running.get()
    }

    /// Wait for `delay`; whether it was cut short.
    pub(crate) async fn wait(&self, delay: Duration) -> bool {
        let ended = self.ended.notified();
        if self.ending.get() {
            return true;
        }
        tokio::select! {
            () = ended => true,
            () = tokio::time::sleep(delay) => false,
        }
    }
}
