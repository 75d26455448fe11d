//! Places for transfers out: so many at once, and of these so many for one client, so that none of them keeps the others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::server::limit::network_of;

/// Transfers at once; the next ones wait.
const MOST: usize = 64;
/// Transfers of one client at once; its next ones wait for these.
const MOST_OF_CLIENT: usize = 8;
/// Transfers of one client, those that wait included; it is told to come again for more.
const MOST_ASKED: usize = 128;
/// An IPv4 address is one client.
const IPV4_BITS: u32 = 32;

/// The places.
pub(super) struct Places {
    all: Semaphore,
    clients: Mutex<HashMap<u64, Client>>,
}

struct Client {
    places: Arc<Semaphore>,
    asked: usize,
}

/// A place; it is given back when it is dropped.
pub(super) struct Place<'a> {
    _all: SemaphorePermit<'a>,
    _own: OwnedSemaphorePermit,
    _asked: Asked<'a>,
}

/// One transfer that a client asked for.
struct Asked<'a> {
    places: &'a Places,
    client: u64,
}

impl Places {
    pub(super) fn new() -> Self {
        Places { all: Semaphore::new(MOST), clients: Mutex::default() }
    }

    /// Waits for a place; `None` when the client has asked for too many.
    pub(super) async fn enter(&self, client: IpAddr) -> Option<Place<'_>> {
        let (asked, own) = self.ask(client)?;
        // Its own first: what waits for those stands in nobody's way.
        let own = own.acquire_owned().await.ok()?;
        let all = self.all.acquire().await.ok()?;
        Some(Place { _all: all, _own: own, _asked: asked })
    }

    fn ask(&self, client: IpAddr) -> Option<(Asked<'_>, Arc<Semaphore>)> {
        let client = network_of(client, IPV4_BITS);
        let mut clients = self.clients();
        let new = || Client { places: Arc::new(Semaphore::new(MOST_OF_CLIENT)), asked: 0 };
        let entry = clients.entry(client).or_insert_with(new);
        if entry.asked >= MOST_ASKED {
            return None;
        }
        entry.asked += 1;
        Some((Asked { places: self, client }, Arc::clone(&entry.places)))
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<u64, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut clients = self.places.clients();
        if let Some(client) = clients.get_mut(&self.client) {
            client.asked -= 1;
            if client.asked == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    fn polled<'a>(future: Pin<&mut impl Future<Output = Option<Place<'a>>>>) -> Poll<Option<Place<'a>>> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn one_client_leaves_places_to_the_others() {
        let places = Places::new();
        let client = |text: &str| text.parse::<IpAddr>().expect(text);
        let mut greedy = Vec::new();
        for index in 0..MOST_ASKED {
            // All from one network of IPv6.
            let from = client(&format!("2001:db8::{index:x}"));
            greedy.push(Box::pin(places.enter(from)));
        }
        let held: Vec<Place<'_>> = greedy
            .iter_mut()
            .filter_map(|waiting| match polled(waiting.as_mut()) {
                Poll::Ready(place) => place,
                Poll::Pending => None,
            })
            .collect();
        assert_eq!(held.len(), MOST_OF_CLIENT);
        assert!(
            matches!(polled(pin!(places.enter(client("2001:db8::ffff")))), Poll::Ready(None)),
            "it asked for too many"
        );
        let other = match polled(pin!(places.enter(client("2001:db8:0:100::1")))) {
            Poll::Ready(place) => place,
            Poll::Pending => None,
        };
        assert!(other.is_some(), "others get one at once");
        drop(held);
        for waiting in greedy.iter_mut().skip(MOST_OF_CLIENT) {
            assert!(matches!(polled(waiting.as_mut()), Poll::Ready(Some(_))), "what waited goes on");
        }
        drop(greedy);
        drop(other);
        assert!(places.clients().is_empty(), "nobody is remembered who asks for nothing");
    }
}
