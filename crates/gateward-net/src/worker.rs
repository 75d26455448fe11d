//! Worker threads: each one OS thread with a single-threaded runtime of its own.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// How many workers to start when nobody says: one per core this process may use.
pub fn default_count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Start thread `name`, and run the future that `work` makes on a runtime of that thread until it ends.
///
/// The future may spawn tasks that are not `Send` with `tokio::task::spawn_local`; those still running when it
/// ends are dropped.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn spawn<F>(name: String, work: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>>
where
    F: Future<Output = ()>,
{
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    std::thread::Builder::new().name(name).spawn(move || LocalSet::new().block_on(&runtime, work()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_runs_its_future_on_its_own_thread() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let handle = spawn("w-0".into(), move || async move {
            let not_send = std::rc::Rc::new(7);
            let value = tokio::task::spawn_local(async move { *not_send }).await.unwrap();
            sender.send((value, std::thread::current().name().map(str::to_owned))).unwrap();
        });
        assert_eq!(receiver.recv().unwrap(), (7, Some("w-0".to_owned())));
        handle.unwrap().join().unwrap();
    }
}
