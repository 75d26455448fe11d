//! Stopping a handler that does not come back.
//!
//! One thread of the process looks every few milliseconds whether a machine is still in the same call. Then it sends the
//! machine's thread a signal, whose handler sets a debug hook: what LuaJIT (built with CHECKHOOK) looks at even in
//! compiled loops, and what it allows a signal handler to do. The hook asks how much processor time the thread has used
//! since it was first asked, and when it is too much raises an error, again at every instruction until the call is over,
//! because a plugin may catch it. A machine that merely waits for a busy processor is left alone. Calls that are short
//! cost one store at their beginning and end.
#![expect(unsafe_code, reason = "a signal handler and a debug hook; see SAFETY below")]

use mlua::ffi;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::cell::Cell;
use std::ffi::c_int;
use std::ptr::null;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

/// How often machines are looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Processor time a call may take after it was first found running, which is one or two looks after it began.
const ALLOWED: Duration = Duration::from_millis(40);
/// Meant for timers of processor time, and used by nobody else in this process.
const SIGNAL: Signal = Signal::SIGVTALRM;
/// What the call ends with.
const WHY: &[u8] = b"stopped: it ran for 50 ms without waiting for anything";

/// What the watchdog knows of a machine.
#[derive(Debug)]
struct Watch {
    /// Odd while a call is under way; never the same for two calls.
    call: AtomicU64,
    /// The last call that was found running for long.
    suspect: AtomicU64,
    /// The machine.
    state: *mut ffi::lua_State,
    /// Of the machine's thread: whether a hook may be set, which call was asked first at what processor time, and whether
    /// the call under way was stopped.
    armed: Cell<bool>,
    first_of: Cell<u64>,
    first_ns: Cell<u64>,
    stopped: Cell<bool>,
}

// SAFETY: the watchdog's thread uses `call` and `suspect` only.
unsafe impl Sync for Watch {}
// SAFETY: likewise; the machine is closed by its own thread.
unsafe impl Send for Watch {}

/// A machine that is watched; not any more when dropped.
pub(crate) struct Watched {
    watch: Arc<Watch>,
}

/// A machine as the watchdog's thread keeps it.
struct Entry {
    watch: Arc<Watch>,
    thread: Pthread,
    seen: u64,
}

static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());
static START: Once = Once::new();

thread_local! {
    /// The machine in which this thread is.
    static CURRENT: Cell<*const Watch> = const { Cell::new(null()) };
}

fn entries() -> MutexGuard<'static, Vec<Entry>> {
    ENTRIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Set up the handler and start the thread.
fn start() {
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does what a handler may do, see there.
    let handled = unsafe { sigaction(SIGNAL, &action) }.map_err(std::io::Error::from);
    let started = handled.and_then(|_| std::thread::Builder::new().name("lua-watchdog".into()).spawn(run));
    if let Err(error) = started {
        tracing::error!(%error, "no watchdog: Lua plugins that loop will not be stopped");
    }
}

impl Watched {
    /// Watch the machine with this main state, which must outlive the result. To be called, used and dropped on the
    /// machine's thread.
    pub(crate) fn new(state: *mut ffi::lua_State) -> Self {
        START.call_once(start);
        let watch = Arc::new(Watch {
            call: AtomicU64::new(0),
            suspect: AtomicU64::new(0),
            state,
            armed: Cell::new(false),
            first_of: Cell::new(0),
            first_ns: Cell::new(0),
            stopped: Cell::new(false),
        });
        entries().push(Entry { watch: watch.clone(), thread: pthread_self(), seen: 0 });
        Self { watch }
    }

    /// Run `call` under the watchdog's eyes; whether it was stopped.
    pub(crate) fn during<R>(&self, call: impl FnOnce() -> R) -> (R, bool) {
        let watch = &*self.watch;
        let number = watch.call.load(Ordering::Relaxed);
        if number % 2 == 1 {
            // A call within a call is part of it.
            return (call(), false);
        }
        watch.call.store(number + 1, Ordering::Release);
        let over = Over { watch, outer: CURRENT.replace(watch), number: number + 2 };
        let result = call();
        drop(over);
        (result, watch.stopped.replace(false))
    }
}

/// Takes the call from the watchdog's eyes when it is over, however it ends.
struct Over<'w> {
    watch: &'w Watch,
    outer: *const Watch,
    number: u64,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.outer);
        self.watch.call.store(self.number, Ordering::Release);
        if self.watch.armed.replace(false) {
            // SAFETY: the machine's own thread, and the machine is alive.
            unsafe { ffi::lua_sethook(self.watch.state, None, 0, 0) };
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        entries().retain(|entry| !Arc::ptr_eq(&entry.watch, &self.watch));
    }
}

/// The watchdog's thread.
#[expect(clippy::disallowed_methods, reason = "a thread of its own")]
fn run() {
    loop {
        std::thread::sleep(LOOK);
        for entry in entries().iter_mut() {
            let call = entry.watch.call.load(Ordering::Acquire);
            if call % 2 == 1 && call == entry.seen {
                entry.watch.suspect.store(call, Ordering::Release);
                // The thread is there: it takes its entry out before it ends.
                let _ = pthread_kill(entry.thread, SIGNAL);
            }
            entry.seen = call;
        }
    }
}

/// In the middle of anything the machine's thread does.
extern "C" fn on_signal(_: c_int) {
    // SAFETY: `during` set it on this thread, and takes it out before the watch is gone.
    let Some(watch) = (unsafe { CURRENT.get().as_ref() }) else { return };
    let call = watch.call.load(Ordering::Relaxed);
    if watch.suspect.load(Ordering::Relaxed) == call {
        watch.armed.set(true);
        // SAFETY: LuaJIT allows it at any moment; its own command line program does the same.
        unsafe { ffi::lua_sethook(watch.state, Some(hook), ffi::LUA_MASKCOUNT, 1) };
    }
}

/// Between two instructions of Lua. Without values to drop: an error leaves it by a jump.
extern "C-unwind" fn hook(state: *mut ffi::lua_State, _: *mut ffi::lua_Debug) {
    // SAFETY: as in `on_signal`.
    let Some(watch) = (unsafe { CURRENT.get().as_ref() }) else { return };
    let now = thread_ns();
    let (first, call) = (watch.first_ns.get(), watch.call.load(Ordering::Relaxed));
    if watch.first_of.replace(call) != call {
        watch.first_ns.set(now);
    } else if now.saturating_sub(first) >= ALLOWED.as_nanos() as u64 {
        watch.stopped.set(true);
        // SAFETY: a hook may raise an error. The hook stays, so that catching the error is of no use.
        unsafe {
            ffi::lua_pushlstring(state, WHY.as_ptr().cast(), WHY.len());
            ffi::lua_error(state)
        }
    }
    // Until the watchdog asks again.
    // SAFETY: the machine's own thread.
    unsafe { ffi::lua_sethook(state, None, 0, 0) };
}

/// Processor time of this thread in nanoseconds.
fn thread_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlua::{Lua, LuaOptions, StdLib};
    use std::time::Instant;

    fn machine() -> (Lua, Watched) {
        // SAFETY: no C modules are loaded.
        let lua = unsafe { Lua::unsafe_new_with(StdLib::ALL, LuaOptions::default()) };
        let mut state = std::ptr::null_mut();
        // SAFETY: only looks where it is.
        unsafe { lua.exec_raw::<()>((), |main| state = main) }.unwrap();
        let watched = Watched::new(state);
        (lua, watched)
    }

    /// The loops are hot, so that they are compiled.
    #[test]
    fn a_loop_is_stopped_and_the_machine_goes_on() {
        let (lua, watched) = machine();
        for source in [
            "while true do end",
            "local n = 0 for i = 1, 1e12 do n = n + i % 7 end",
            "while true do pcall(function() while true do end end) end",
            "local co = coroutine.wrap(function() while true do end end) co()",
        ] {
            let began = Instant::now();
            let (outcome, stopped) = watched.during(|| lua.load(source).exec());
            assert!(stopped && outcome.unwrap_err().to_string().contains("stopped"), "{source}");
            assert!(began.elapsed() < Duration::from_secs(2), "{source}: {:?}", began.elapsed());
            let (sum, stopped) = watched.during(|| lua.load("return 1 + 1").eval::<u32>());
            assert_eq!((sum.unwrap(), stopped), (2, false));
        }
    }

    #[test]
    fn a_call_that_panics_is_over_too() {
        let (lua, watched) = machine();
        let call = || watched.during(|| panic!("as a test"));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        assert!(panicked.is_err() && CURRENT.get().is_null());
        let (outcome, stopped) = watched.during(|| lua.load("while true do end").exec());
        assert!(outcome.is_err() && stopped, "the next call is watched like any");
    }

    #[test]
    fn short_calls_are_left_alone_however_many() {
        let (lua, watched) = machine();
        let work = lua.load("local n = 0 for i = 1, 1000 do n = n + i end return n").into_function().unwrap();
        let until = Instant::now() + Duration::from_millis(120);
        while Instant::now() < until {
            let (sum, stopped) = watched.during(|| work.call::<u64>(()));
            assert_eq!((sum.unwrap(), stopped), (500_500, false));
        }
    }
}
