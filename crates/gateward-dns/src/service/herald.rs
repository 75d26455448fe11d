//! Tells secondaries of changes (RFC 1996): the sockets and the clock around [`Notifier`].

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gateward_zone::Name;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use super::dial::random;
use super::keeper::Keeper;
use super::transfers::soa_of;
use super::unix_seconds;
use crate::notify::{Notifier, Outcome, Send};
use crate::server::Shared;
use crate::tsig::{ClientSession, sign_request};

/// Messages sent without a pause; a server that starts with many zones does not flood its secondaries.
const BURST: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);
/// Signed messages whose answers are waited for; beyond it the oldest are forgotten, and their repetitions count.
const MAX_SESSIONS: usize = 10_000;

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
        let mut teller = Teller { shared, keeper, notifier: Notifier::default(), sessions: HashMap::new(), v4, v6 };
        let (mut from_v4, mut from_v6) = (vec![0; 4096], vec![0; 4096]);
        loop {
            // The lock is let go of before the keeper is asked: whoever announces a change may hold the keeper's.
            let changed = std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner));
            teller.take(changed);
            teller.send().await;
            let wait = teller.notifier.deadline().map(tokio::time::Instant::from_std);
            tokio::select! {
                () = self.wake.notified() => {}
                () = until(wait) => {}
                Ok((len, from)) = teller.v4.recv_from(&mut from_v4) => teller.answered(&from_v4[..len], from),
                Ok((len, from)) = receive(teller.v6.as_ref(), &mut from_v6) => teller.answered(&from_v6[..len], from),
            }
        }
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
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
    sessions: HashMap<(SocketAddr, u16), ClientSession>,
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

    async fn send(&mut self) {
        for (index, send) in self.notifier.poll(Instant::now()).into_iter().enumerate() {
            if index > 0 && index % BURST == 0 {
                tokio::time::sleep(PAUSE).await;
            }
            self.send_one(send).await;
        }
    }

    async fn send_one(&mut self, send: Send) {
        let Send { target, key, zone, mut message } = send;
        if let Some(name) = key {
            let keys = self.keeper.keys();
            let Some(key) = keys.find(&name) else {
                return tracing::warn!(%zone, %target, key = %name, "a secondary is not told of a change: its key is not known here");
            };
            let id = u16::from_be_bytes([message[0], message[1]]);
            let session = sign_request(key, &mut message, unix_seconds());
            if self.sessions.len() >= MAX_SESSIONS {
                self.sessions.clear();
            }
            self.sessions.insert((target, id), session);
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
        let Some(id) = message.get(..2).map(|id| u16::from_be_bytes([id[0], id[1]])) else { return };
        if let Some(session) = self.sessions.get_mut(&(from, id)) {
            if session.verify(message, unix_seconds()).is_err() {
                return;
            }
            self.sessions.remove(&(from, id));
        }
        if let Outcome::Refused(rcode) = self.notifier.answered(from, message, Instant::now()) {
            tracing::warn!(secondary = %from, %rcode, "a secondary refuses a NOTIFY message; check that this server is among its primaries");
        }
    }
}
