//! The stages of a shutdown, as one value that workers read per request and wait on.
//!
//! Behind a load balancer a node must fail its readiness first, keep accepting while the balancer takes notice,
//! tell clients to go (`Connection: close`), and only then stop.

use crate::handover::{Handover, Release};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::sync::watch;

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Serving.
    Running,
    /// Readiness fails, new connections are still accepted, every response says `Connection: close`.
    Draining,
    /// Listeners are closed, idle connections are closed, exchanges under way may finish.
    Closing,
}

/// The stage, shared by all workers.
#[derive(Debug, Clone)]
pub struct Drain {
    shared: Arc<Shared>,
    handover: Handover,
}

#[derive(Debug)]
struct Shared {
    /// For those who wait.
    stage: watch::Sender<Stage>,
    /// The same for those who look: per request, so without a lock.
    now: AtomicU8,
}

impl Drain {
    /// A node that is running.
    pub fn new() -> Self {
        let shared = Shared { stage: watch::Sender::new(Stage::Running), now: AtomicU8::new(Stage::Running as u8) };
        Self { shared: Arc::new(shared), handover: Handover::default() }
    }

    /// Whether another process takes over the listening sockets.
    pub fn handover(&self) -> &Handover {
        &self.handover
    }

    /// The stage now.
    pub fn stage(&self) -> Stage {
        match self.shared.now.load(Ordering::Acquire) {
            0 => Stage::Running,
            1 => Stage::Draining,
            _ => Stage::Closing,
        }
    }

    /// Move on. A stage is never left backwards: an earlier one is ignored.
    pub fn advance(&self, to: Stage) {
        self.shared.stage.send_if_modified(|stage| {
            let moves = to > *stage;
            if moves {
                *stage = to;
                self.shared.now.store(to as u8, Ordering::Release);
            }
            moves
        });
    }

    /// Wait until the stage is `at_least` this one.
    pub async fn reached(&self, at_least: Stage) {
        let mut receiver = self.shared.stage.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = receiver.wait_for(|stage| *stage >= at_least).await;
    }

    /// Wait until accepting on the socket with this address has to end, and how.
    pub async fn release(&self, address: SocketAddr) -> Release {
        tokio::select! {
            () = self.handover.given(address) => Release::LetGo,
            () = self.reached(Stage::Closing) => match self.handover.shares(address) {
                true => Release::LetGo,
                false => Release::Close,
            },
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn stages_only_go_forward_and_wake_waiters() {
        let drain = Drain::new();
        let waiter = drain.clone();
        let waiting = tokio::spawn(async move { waiter.reached(Stage::Draining).await });
        drain.advance(Stage::Closing);
        drain.advance(Stage::Running);
        assert_eq!(drain.stage(), Stage::Closing);
        waiting.await.unwrap();
    }

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn sockets_given_away_are_let_go_and_the_others_closed() {
        let drain = Drain::new();
        assert!(drain.handover().offer());
        drain.handover().give(&[address(1)]);
        assert_eq!(drain.release(address(1)).await, Release::LetGo);
        assert!(!drain.handover().offer(), "what was given away cannot be given again");
        drain.handover().withdraw();
        assert!(drain.handover().is_given());
        drain.advance(Stage::Closing);
        assert_eq!(drain.release(address(2)).await, Release::Close);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_process_that_is_starting_keeps_the_queue() {
        let drain = Drain::new();
        assert!(drain.handover().offer());
        drain.advance(Stage::Closing);
        assert_eq!(drain.release(address(1)).await, Release::LetGo);
        drain.handover().withdraw();
        assert_eq!(drain.release(address(1)).await, Release::Close);
    }
}
