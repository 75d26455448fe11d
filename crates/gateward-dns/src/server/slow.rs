//! Messages that a worker does not answer itself: updates, transfers, notifications, signed queries.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::answer::{Transport, header_only, rcode};

/// Datagrams of this kind under way at once; more are dropped. Apart from those of streams, because anybody can send them in
/// anybody's name.
const MOST_DATAGRAMS: usize = 256;
/// Messages of streams under way at once; more are answered with SERVFAIL. Twice what one network may have on all its connections.
const MOST_OF_STREAMS: usize = 1024;

/// A message to be served.
pub struct Ask {
    /// The message.
    pub octets: Vec<u8>,
    /// Who sent it.
    pub client: SocketAddr,
    /// How it came.
    pub transport: Transport,
    /// Where answers go, in order: one message each, without the length that streams put before it. Over UDP at most
    /// as long as the asker can take.
    pub answers: mpsc::Sender<Vec<u8>>,
}

/// Who serves such messages.
pub trait Slow: Send + Sync + 'static {
    /// Serves one. It ends when the last answer is sent into the channel.
    fn serve(&self, ask: Ask) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A server that takes no updates, transfers or notifications.
pub struct Nothing;

impl Slow for Nothing {
    fn serve(&self, ask: Ask) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut out = vec![0; 12];
            let code = if ask.octets.get(2).is_some_and(|flags| flags >> 3 & 15 == 0) {
                rcode::REFUSED
            } else {
                rcode::NOTIMP
            };
            header_only(&ask.octets, code, &mut out);
            // Whoever asked may be gone.
            let _ = ask.answers.send(out).await;
        })
    }
}

/// Places for messages under way. Nobody waits for one: who waits holds what others may need to go on.
pub(crate) struct Places {
    datagrams: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Places {
    pub(crate) fn new() -> Self {
        Places {
            datagrams: Arc::new(Semaphore::new(MOST_DATAGRAMS)),
            streams: Arc::new(Semaphore::new(MOST_OF_STREAMS)),
        }
    }

    /// A place, if there is one; given back when it is dropped.
    pub(crate) fn take(&self, transport: Transport) -> Option<OwnedSemaphorePermit> {
        let places = if transport == Transport::Udp { &self.datagrams } else { &self.streams };
        Arc::clone(places).try_acquire_owned().ok()
    }
}
