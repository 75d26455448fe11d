//! Tells secondaries of changes (RFC 1996): the sockets and the clock around [`Notifier`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gateward_zone::Name;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use super::dial::random;
use super::follow::until;
use super::keeper::Keeper;
use super::transfers::soa_of;
use super::unix_seconds;
use crate::notify::{Notifier, Outcome, Send};
use crate::server::Shared;
use crate::tsig::sign_request;

/// Messages sent at once, and the time until the next ones: a server that starts with many zones does not flood its secondaries, and
/// answers are read in between.
const PORTION: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Where changes are announced. Saying it costs no more than a lock; many changes of a zone between two looks are one.
#[derive(Default)]
pub struct Herald {
    changed: Mutex<BTreeSet<Name>>,
    wake: Notify,
}

impl Herald {
    /// A zone has a new version.
    pub fn changed(&self, zone: &Name) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(zone.clone());
        self.wake.notify_one();
    }

    /// Tells secondaries, until the task is dropped.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn run(self: Arc<Self>, shared: Arc<Shared>, keeper: Arc<dyn Keeper>) -> io::Result<()> {
        let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        // A machine without IPv6 has no secondaries there.
        let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await.ok();
        let mut teller = Teller { shared, keeper, notifier: Notifier::default(), rests_until: Instant::now(), v4, v6 };
        let (mut from_v4, mut from_v6) = (vec![0; 4096], vec![0; 4096]);
        loop {
            // The lock is let go of before the keeper is asked: whoever announces a change may hold the keeper's.
            let changed = std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner));
            teller.take(changed);
            teller.send_portion().await;
            let wait = teller.deadline();
            tokio::select! {
                () = self.wake.notified() => {}
                () = until(wait) => {}
                Ok((len, from)) = teller.v4.recv_from(&mut from_v4) => teller.answered(&from_v4[..len], from),
                Ok((len, from)) = receive(teller.v6.as_ref(), &mut from_v6) => teller.answered(&from_v6[..len], from),
            }
        }
    }
}

async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

struct Teller {
    shared: Arc<Shared>,
    keeper: Arc<dyn Keeper>,
    notifier: Notifier,
    /// Nothing is sent before.
    rests_until: Instant,
    v4: UdpSocket,
    v6: Option<UdpSocket>,
}

impl Teller {
    fn take(&mut self, changed: BTreeSet<Name>) {
        let map = self.shared.zones.map();
        for zone in changed {
            let soa = map.slot(&zone).and_then(|slot| slot.zone()).and_then(|version| soa_of(&version));
            let Some(soa) = soa else {
                self.notifier.forget(&zone);
                continue;
            };
            for (target, key) in self.keeper.secondaries(&zone) {
                self.notifier.changed(&zone, &soa, target, key.as_ref(), random(), Instant::now());
            }
        }
    }

    /// When the next portion goes out.
    fn deadline(&self) -> Option<Instant> {
        self.notifier.deadline().map(|due| due.max(self.rests_until))
    }

    async fn send_portion(&mut self) {
        let now = Instant::now();
        if now < self.rests_until {
            return;
        }
        let due = self.notifier.poll(now, PORTION);
        if !due.messages.is_empty() {
            self.rests_until = now + PAUSE;
        }
        for send in due.messages {
            self.send_one(send).await;
        }
        let mut silent: BTreeMap<SocketAddr, (Name, usize)> = BTreeMap::new();
        for (zone, target) in due.silent {
            silent.entry(target).or_insert((zone, 0)).1 += 1;
        }
        for (secondary, (zone, zones)) in silent {
            tracing::warn!(%secondary, %zone, zones, "a secondary answers no NOTIFY message; it will see the change at its next refresh");
        }
    }

    async fn send_one(&mut self, send: Send) {
        let Send { target, key, zone, mut message } = send;
        if let Some(name) = key {
            let keys = self.keeper.keys();
            let Some(key) = keys.find(&name) else {
                return tracing::warn!(%zone, %target, key = %name, "a secondary is not told of a change: its key is not known here");
            };
            let session = sign_request(key, &mut message, unix_seconds());
            self.notifier.signed(&zone, target, session);
        }
        let socket = if target.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
        // What is lost is sent again.
        if let Some(socket) = socket
            && let Err(error) = socket.send_to(&message, target).await
        {
            tracing::debug!(%zone, %target, %error, "a NOTIFY message cannot be sent");
        }
    }

    fn answered(&mut self, message: &[u8], from: SocketAddr) {
        match self.notifier.answered(from, message, Instant::now(), unix_seconds()) {
            Outcome::Told | Outcome::Unknown => {}
            Outcome::Refused(rcode) => {
                tracing::warn!(secondary = %from, %rcode, "a secondary refuses a NOTIFY message; check that this server is among its primaries");
            }
            Outcome::NotAuthentic(error) => {
                tracing::info!(secondary = %from, %error, "an answer to a NOTIFY message does not count; check the key on both sides");
            }
        }
    }
}
