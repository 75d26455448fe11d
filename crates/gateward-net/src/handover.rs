//! Listening sockets that another process has, too: who of the two stops accepting, and how.
//!
//! A process that hands its sockets to a successor must not close them as it does at the end: shrinking the queue
//! would shrink the successor's. It just lets go of them, and whoever waits in the queue is the successor's.

use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// How to stop accepting on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// It is ours alone: whoever is in its queue is lost when it is closed.
    Close,
    /// Another process has it: dropping it changes nothing for those in its queue.
    LetGo,
}

/// Who has the listening sockets of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Holder {
    /// This process alone.
    #[default]
    Ours,
    /// A process that is starting has them, too.
    Offered,
    /// Another process accepts on the sockets with these addresses.
    Given(Arc<[SocketAddr]>),
}

/// The state of a hand-over, shared by all workers.
#[derive(Debug, Clone, Default)]
pub struct Handover {
    holder: Arc<watch::Sender<Holder>>,
}

impl Handover {
    /// The sockets are being passed to another process. `false`: they were given away already.
    pub fn offer(&self) -> bool {
        self.holder.send_if_modified(|holder| {
            let free = !matches!(holder, Holder::Given(_));
            if free {
                *holder = Holder::Offered;
            }
            free
        })
    }

    /// The other process did not start.
    pub fn withdraw(&self) {
        self.holder.send_if_modified(|holder| {
            let offered = *holder == Holder::Offered;
            if offered {
                *holder = Holder::Ours;
            }
            offered
        });
    }

    /// The other process accepts on the sockets with these addresses from now on.
    pub fn give(&self, addresses: &[SocketAddr]) {
        self.holder.send_replace(Holder::Given(addresses.into()));
    }

    /// Whether another process accepts instead of this one.
    pub fn is_given(&self) -> bool {
        matches!(*self.holder.borrow(), Holder::Given(_))
    }

    /// Whether another process accepts on the socket with this address.
    pub fn has(&self, address: SocketAddr) -> bool {
        matches!(&*self.holder.borrow(), Holder::Given(addresses) if addresses.contains(&address))
    }

    /// Whether another process has the socket with this address, or may have it soon.
    pub fn shares(&self, address: SocketAddr) -> bool {
        *self.holder.borrow() == Holder::Offered || self.has(address)
    }

    /// Wait until another process accepts on the socket with this address.
    pub async fn given(&self, address: SocketAddr) {
        let mut receiver = self.holder.subscribe();
        let given = |holder: &Holder| matches!(holder, Holder::Given(addresses) if addresses.contains(&address));
        // The sender lives in `self`, so waiting cannot fail.
        let _ = receiver.wait_for(given).await;
    }
}
