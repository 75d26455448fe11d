//! Stops callbacks that use too much processor time.
//!
//! A ticker moves the engine's epoch; a guest whose deadline has come calls back, and only then is the thread's own
//! clock read. So a callback that ends in time pays nothing, and one whose thread was merely not scheduled is not blamed.

use rustix::time::{ClockId, clock_gettime};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;
use wasmtime::{Engine, UpdateDeadline};

/// Time between two ticks.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Ticks until a guest is looked at first: at least one whole tick.
pub(crate) const FIRST_LOOK_TICKS: u64 = 2;

/// A callback used more processor time than it may.
#[derive(Debug, thiserror::Error)]
#[error("more than {} ms of processor time", limit.as_millis())]
pub(crate) struct Overtime {
    limit: Duration,
}

/// Watches the callback under way in one instance.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    limit: Duration,
    /// Processor time of the thread when it looked first.
    first_look: Option<Duration>,
}

impl Watch {
    /// A callback begins.
    pub(crate) fn begin(&mut self, limit: Duration) {
        self.limit = limit;
        self.first_look = None;
    }

    /// The guest's deadline has come.
    pub(crate) fn look(&mut self) -> wasmtime::Result<UpdateDeadline> {
        self.judge(thread_time()).map_err(wasmtime::Error::from)
    }

    fn judge(&mut self, now: Duration) -> Result<UpdateDeadline, Overtime> {
        let since = now.saturating_sub(*self.first_look.get_or_insert(now));
        // Up to the first look it ran for a tick or more.
        if since + TICK > self.limit { Err(Overtime { limit: self.limit }) } else { Ok(UpdateDeadline::Continue(1)) }
    }
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Moves an engine's epoch until dropped.
#[derive(Debug)]
pub(crate) struct Ticker {
    _stop: Sender<()>,
}

impl Ticker {
    /// # Errors
    /// No thread could be started.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let engine = engine.weak();
        let (stop, stopped) = channel::<()>();
        std::thread::Builder::new().name("wasm-ticker".to_owned()).spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        })?;
        Ok(Self { _stop: stop })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_of_the_thread_counts() {
        let mut watch = Watch::default();
        watch.begin(Duration::from_millis(20));
        let ms = Duration::from_millis;
        for (now, stops) in [(ms(1000), false), (ms(1000), false), (ms(1015), false), (ms(1016), true)] {
            assert_eq!(watch.judge(now).is_err(), stops, "{now:?}");
        }
        watch.begin(Duration::from_millis(20));
        assert!(watch.judge(ms(2000)).is_ok());
    }

    #[test]
    fn a_limit_below_the_tick_ends_at_the_first_look() {
        let mut watch = Watch::default();
        watch.begin(Duration::from_millis(1));
        let overtime = watch.judge(Duration::ZERO).err().unwrap();
        assert!(overtime.to_string().contains("1 ms"), "{overtime}");
    }
}
