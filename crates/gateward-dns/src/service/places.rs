//! Places for transfers, out and in: so many at once, and of these so many for one client or primary, so that none of them keeps the others out.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::server::limit::network_of;

/// Transfers out at once; the next ones wait.
const MOST_OUT: usize = 64;
/// Transfers of one client at once; its next ones wait for these.
const MOST_OF_CLIENT: usize = 8;
/// Transfers of one client, those that wait included; it is told to come again for more.
const MOST_ASKED: usize = 128;
/// An IPv4 address is one client.
const IPV4_BITS: u32 = 32;
/// Zones that ask or transfer in at once; the next ones wait.
const MOST_IN: usize = 32;
/// Those of one primary: it may be slow, or silent, and takes a quarter at most.
const MOST_OF_PRIMARY: usize = MOST_IN / 4;

/// The places, shared by sides.
pub(super) struct Places<S: Side> {
    all: Semaphore,
    most_of_one: usize,
    most_asked: usize,
    sides: Mutex<HashMap<S, Share>>,
}

/// Who has a share of the places.
pub(super) trait Side: Copy + Eq + Hash {}

/// A client of transfers out: an address, or a network of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Client(u64);

impl Side for Client {}

impl Side for SocketAddr {}

struct Share {
    places: Arc<Semaphore>,
    asked: usize,
}

/// A place; it is given back when it is dropped.
pub(super) struct Place<'a, S: Side> {
    _all: SemaphorePermit<'a>,
    _own: OwnedSemaphorePermit,
    _asked: Asked<'a, S>,
}

/// One transfer that is asked for.
struct Asked<'a, S: Side> {
    places: &'a Places<S>,
    side: S,
}

impl Client {
    pub(super) fn at(address: IpAddr) -> Self {
        Client(network_of(address, IPV4_BITS))
    }
}

impl Places<Client> {
    /// For transfers out.
    pub(super) fn out() -> Self {
        Places::new(MOST_OUT, MOST_OF_CLIENT, MOST_ASKED)
    }
}

impl Places<SocketAddr> {
    /// For zones that are followed: there are not more of them than the operator asked for.
    pub(super) fn into_here() -> Self {
        Places::new(MOST_IN, MOST_OF_PRIMARY, usize::MAX)
    }
}

impl<S: Side> Places<S> {
    fn new(most: usize, most_of_one: usize, most_asked: usize) -> Self {
        Places { all: Semaphore::new(most), most_of_one, most_asked, sides: Mutex::default() }
    }

    /// Waits for a place; `None` when the side has asked for too many.
    pub(super) async fn enter(&self, side: S) -> Option<Place<'_, S>> {
        let (asked, own) = self.ask(side)?;
        // Its own first: what waits for those stands in nobody's way.
        let own = own.acquire_owned().await.ok()?;
        let all = self.all.acquire().await.ok()?;
        Some(Place { _all: all, _own: own, _asked: asked })
    }

    fn ask(&self, side: S) -> Option<(Asked<'_, S>, Arc<Semaphore>)> {
        let mut sides = self.sides();
        let new = || Share { places: Arc::new(Semaphore::new(self.most_of_one)), asked: 0 };
        let entry = sides.entry(side).or_insert_with(new);
        if entry.asked >= self.most_asked {
            return None;
        }
        entry.asked += 1;
        Some((Asked { places: self, side }, Arc::clone(&entry.places)))
    }

    fn sides(&self) -> MutexGuard<'_, HashMap<S, Share>> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Side> Drop for Asked<'_, S> {
    fn drop(&mut self) {
        let mut sides = self.places.sides();
        if let Some(share) = sides.get_mut(&self.side) {
            share.asked -= 1;
            if share.asked == 0 {
                sides.remove(&self.side);
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

    fn polled<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn ready<'a, S: Side>(future: Pin<&mut impl Future<Output = Option<Place<'a, S>>>>) -> Option<Place<'a, S>> {
        match polled(future) {
            Poll::Ready(place) => place,
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_client_leaves_places_to_the_others() {
        let places = Places::out();
        let client = |text: &str| Client::at(text.parse().expect(text));
        let mut greedy = Vec::new();
        for index in 0..MOST_ASKED {
            // All from one network of IPv6.
            let from = client(&format!("2001:db8::{index:x}"));
            greedy.push(Box::pin(places.enter(from)));
        }
        let held: Vec<_> = greedy.iter_mut().filter_map(|waiting| ready(waiting.as_mut())).collect();
        assert_eq!(held.len(), MOST_OF_CLIENT);
        assert!(
            matches!(polled(pin!(places.enter(client("2001:db8::ffff")))), Poll::Ready(None)),
            "it asked for too many"
        );
        let other = ready(pin!(places.enter(client("2001:db8:0:100::1"))));
        assert!(other.is_some(), "others get one at once");
        drop(held);
        for waiting in greedy.iter_mut().skip(MOST_OF_CLIENT) {
            assert!(matches!(polled(waiting.as_mut()), Poll::Ready(Some(_))), "what waited goes on");
        }
        drop(greedy);
        drop(other);
        assert!(places.sides().is_empty(), "nobody is remembered who asks for nothing");
    }

    #[test]
    fn a_primary_that_does_not_answer_leaves_places_to_the_others() {
        let places = Places::into_here();
        let primary = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        let mut silent: Vec<_> = (0..10 * MOST_IN).map(|_| Box::pin(places.enter(primary(53)))).collect();
        let held: Vec<_> = silent.iter_mut().filter_map(|waiting| ready(waiting.as_mut())).collect();
        assert_eq!(held.len(), MOST_IN / 4);
        let others: Vec<_> = (1..4).flat_map(|port| (0..MOST_IN / 4).map(move |_| port)).collect();
        let served: Vec<_> = others.iter().filter_map(|port| ready(pin!(places.enter(primary(*port))))).collect();
        assert_eq!(served.len(), others.len(), "each has its share");
        assert!(ready(pin!(places.enter(primary(4)))).is_none(), "and no more than all at once");
        drop(held);
        assert!(ready(silent[MOST_IN].as_mut()).is_none(), "the first that waits comes first");
        assert!(ready(silent[MOST_IN / 4].as_mut()).is_some());
    }
}
