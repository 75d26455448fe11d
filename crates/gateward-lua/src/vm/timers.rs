//! Running the timers of a machine.
//!
//! Timers that are started before the machine belongs to a worker wait until it does. A machine whose sources nobody uses
//! any more calls what is left with `premature` set, so that what a plugin holds back is not lost, waits a while for those that
//! run, and ends.

use super::Vm;
use crate::timers::{RUNNING, Timer};
use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_local;

/// How often a machine looks whether it is still wanted.
const LOOK: Duration = Duration::from_secs(1);
/// How long the timers of a machine that ends may take, and how often it looks whether they are done.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_AT_STOP: Duration = Duration::from_secs(5);
const WAIT: Duration = Duration::from_millis(20);

/// Run the timers of `vm` from now on, as tasks of this worker. Once for each machine.
pub(super) fn serve(vm: &Rc<Vm>) {
    let Some(receiver) = vm.shared().timers.receiver.take() else { return };
    spawn_local(keep(Rc::downgrade(vm), receiver));
}

async fn keep(vm: Weak<Vm>, mut receiver: UnboundedReceiver<Timer>) {
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            timer = receiver.recv() => {
                let (Some(vm), Some(timer)) = (vm.upgrade(), timer) else { return };
                spawn_local(serve_one(Rc::downgrade(&vm), timer));
            }
            _ = look.tick() => {
                let Some(vm) = vm.upgrade() else { return };
                vm.shared().sockets.pools.sweep();
                vm.clear_slots();
                if !vm.is_wanted() {
                    return end(&vm, receiver).await;
                }
            }
        }
    }
}

/// Call what is left in a machine that nobody needs any more.
async fn end(vm: &Rc<Vm>, mut receiver: UnboundedReceiver<Timer>) {
    vm.forget();
    hurry(vm);
    while let Ok(timer) = receiver.try_recv() {
        spawn_local(serve_one(Rc::downgrade(vm), timer));
    }
    settle(vm, PATIENCE).await;
}

/// Likewise in one whose worker ends.
pub(super) async fn stop(vm: &Rc<Vm>) {
    hurry(vm);
    settle(vm, PATIENCE_AT_STOP).await;
}

fn hurry(vm: &Rc<Vm>) {
    let timers = &vm.shared().timers;
    timers.ending.set(true);
    timers.ended.notify_waiters();
}

async fn settle(vm: &Rc<Vm>, patience: Duration) {
    let timers = &vm.shared().timers;
    // Of a machine that never was a worker's nothing runs.
    if timers.receiver.borrow().is_some() {
        return;
    }
    let deadline = tokio::time::Instant::now() + patience;
    while timers.pending() + timers.running() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(WAIT).await;
    }
    // A timer that goes on for ever would keep the machine for ever.
    if timers.running() > 0 {
        tracing::warn!(
            "{} timers of Lua plugins still ran when their machine ended: they were broken off",
            timers.running()
        );
        timers.given_up.notify_waiters();
    }
}

/// A number that goes up, and down again when dropped.
struct Counted<'c>(&'c Cell<usize>);

impl<'c> Counted<'c> {
    fn new(count: &'c Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn serve_one(vm: Weak<Vm>, timer: Timer) {
    loop {
        let Some(shared) = vm.upgrade().map(|vm| vm.shared().clone()) else { return };
        let premature = shared.timers.wait(timer.delay).await;
        shared.timers.pending.set(shared.timers.pending.get() - 1);
        drop(shared);
        let Some(vm) = vm.upgrade() else { return };
        let timers = &vm.shared().timers;
        if timers.running.get() >= RUNNING {
            tracing::error!("more than {RUNNING} timers of Lua plugins run at once: one was not called");
        } else {
            let _running = Counted::new(&timers.running);
            tokio::select! {
                () = vm.run_timer(&timer, premature) => {}
                () = timers.given_up.notified() => return,
            }
        }
        if premature || !timer.again {
            return;
        }
        timers.pending.set(timers.pending.get() + 1);
    }
}
