//! Work that would hold a worker up: keys that are made of primes, passwords that are hashed a million times.
//!
//! It is done on a thread of its own beside the workers while the coroutine that asked waits. Few such threads run at a time,
//! and they leave the processor to the traffic. Work whose coroutine is gone before it began is not begun; what runs goes on to
//! its end, as the library behind it cannot be stopped, and keeps its place until then.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Semaphore, oneshot};

/// Threads at a time, in the whole process.
const THREADS: usize = 2;
/// Pieces of work that were asked for and that somebody waits for, those that run included. More are refused with an error.
const ASKED_MOST: usize = 64;
/// What these threads add to their nice value.
const NICE: i32 = 10;

/// Where the work of all machines is done.
pub(crate) static BENCH: Bench = Bench::new(THREADS, ASKED_MOST);

/// Places to work at, and who waits for one.
pub(crate) struct Bench {
    places: Semaphore,
    asked: AtomicUsize,
    most: usize,
}

/// One of those that are counted in `asked`.
struct Asked(&'static Bench);

impl Bench {
    const fn new(places: usize, most: usize) -> Self {
        Self { places: Semaphore::const_new(places), asked: AtomicUsize::new(0), most }
    }

    /// Do `work` when there is a place; nothing happens before the result is first polled.
    ///
    /// # Errors
    /// Too many wait already.
    pub(crate) fn beside<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<impl Future<Output = Result<T, String>> + 'static, String> {
        let asked = Asked::new(self)?;
        Ok(async move {
            let place = self.places.acquire().await.map_err(|_| "there is no place to work at".to_owned())?;
            let (sender, receiver) = oneshot::channel();
            let run = move || {
                leave_the_processor_to_others();
                let result = work();
                drop(place);
                let _ = sender.send(result);
            };
            let thread = std::thread::Builder::new().name("lua-work".into());
            thread.spawn(run).map_err(|error| format!("there is no thread for the work: {error}"))?;
            let result = receiver.await.map_err(|_| "the work came to nothing".to_owned());
            drop(asked);
            result
        })
    }
}

impl Asked {
    fn new(bench: &'static Bench) -> Result<Self, String> {
        let one_more = |asked| (asked < bench.most).then_some(asked + 1);
        match bench.asked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Self(bench)),
            Err(most) => Err(format!("{most} pieces of such work are waited for already, no more are taken")),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.asked.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Linux has a nice value for every thread.
fn leave_the_processor_to_others() {
    let own = rustix::thread::gettid();
    let lowered = rustix::process::getpriority_process(Some(own))
        .and_then(|nice| rustix::process::setpriority_process(Some(own), nice + NICE));
    if let Err(error) = lowered {
        tracing::debug!(%error, "work of plugins has the priority of the traffic");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::block_on;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;
    use std::task::Poll;

    fn bench(places: usize, most: usize) -> &'static Bench {
        Box::leak(Box::new(Bench::new(places, most)))
    }

    #[test]
    fn work_is_done_on_another_thread_of_less_priority() {
        let asked = BENCH.beside(|| {
            let own = rustix::thread::gettid();
            (std::thread::current().id(), rustix::process::getpriority_process(Some(own)).unwrap())
        });
        let usual = rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let (thread, nice) = block_on(asked.unwrap()).unwrap();
        assert_ne!(thread, std::thread::current().id());
        assert_eq!(nice, (usual + NICE).min(19));
    }

    #[test]
    fn what_is_too_much_is_refused_and_what_panics_gives_its_place_back() {
        let bench = bench(1, 2);
        let (first, second) = (bench.beside(|| 1).unwrap(), bench.beside(|| panic!("as a test")).unwrap());
        let refused = bench.beside(|| 3).err().unwrap();
        assert!(refused.contains("2 pieces"), "{refused}");
        assert_eq!(block_on(first), Ok(1));
        assert_eq!(block_on(second), Err::<(), _>("the work came to nothing".to_owned()));
        assert_eq!(block_on(bench.beside(|| 3).unwrap()), Ok(3));
        assert_eq!(bench.asked.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_nobody_waits_for_is_not_begun_and_places_are_kept_while_work_runs() {
        let bench = bench(1, 2);
        let (go, wait) = mpsc::channel::<()>();
        let begun = Arc::new(AtomicBool::new(false));
        block_on(async {
            let mut running = Box::pin(bench.beside(move || wait.recv()).unwrap());
            let waker = begun.clone();
            let mut waiting = Box::pin(bench.beside(move || waker.store(true, Ordering::Relaxed)).unwrap());
            poll_fn(|context| {
                assert!(running.as_mut().poll(context).is_pending());
                assert!(waiting.as_mut().poll(context).is_pending(), "the only place is taken");
                Poll::Ready(())
            })
            .await;
            // Both clients go.
            drop((running, waiting));
            assert_eq!(bench.asked.load(Ordering::Relaxed), 0, "others may ask");
            let mut next = pin!(bench.beside(|| 5).unwrap());
            let waits = poll_fn(|context| Poll::Ready(next.as_mut().poll(context).is_pending())).await;
            assert!(waits, "one still runs");
            go.send(()).unwrap();
            assert_eq!(next.await, Ok(5));
        });
        assert!(!begun.load(Ordering::Relaxed));
    }
}
