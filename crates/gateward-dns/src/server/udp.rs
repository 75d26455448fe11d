//! Answering over UDP: a thread per core, each with a socket of its own on the same port.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::Cache;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::OwnedSemaphorePermit;

use super::batch::{Batch, WayBack, prepare};
use super::limit::{Limited, Quotas, RateLimiter};
use super::log::QueryLog;
use super::slow::{Ask, Slow};
use super::stats::{Drop, Stats};
use super::{Answers, Shared};
use crate::answer::{Context, Reply, Transport, Verdict, respond, slip};
use crate::message;
use crate::store::ZoneMap;

/// Octets of queries that may wait in the kernel while a worker is busy.
const RECEIVE_BUFFER: usize = 4 << 20;
const SEND_BUFFER: usize = 4 << 20;
/// How long a worker waits for a query before it looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(200);

/// A socket that shares its port with others: the kernel deals datagrams out by their source.
///
/// # Errors
/// When the address cannot be bound.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    // The kernel may give less; that is no reason not to serve.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    socket.set_read_timeout(Some(PATIENCE))?;
    let socket = UdpSocket::from(socket);
    // Before it is bound: the first datagram must be told like every other.
    prepare(&socket, address)?;
    SockRef::from(&socket).bind(&address.into())?;
    Ok(socket)
}

/// One thread that answers.
pub(crate) struct Worker {
    pub(crate) socket: Arc<UdpSocket>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) limiter: RateLimiter,
    pub(crate) quotas: Quotas,
    pub(crate) slow: Arc<dyn Slow>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) log: Option<QueryLog>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Worker {
    /// Answers until told to stop.
    ///
    /// # Errors
    /// When the socket has no address; after any later error it receives again.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let with_local = self.socket.local_addr()?.ip().is_unspecified();
        let mut batch = Batch::new(with_local);
        let shared = Arc::clone(&self.shared);
        let mut zones = Cache::new(shared.zones.shared());
        let mut settings = Cache::new(&shared.answers);
        while !self.stop.load(Ordering::Relaxed) {
            // Nothing came for a while, a signal came, or an earlier answer met a closed port.
            let Ok(count) = batch.receive(&self.socket) else { continue };
            // One look at the clock for the whole batch.
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
            let (zones, answers) = (zones.load(), settings.load());
            for index in 0..count {
                self.serve(&mut batch, index, zones, answers, now);
            }
            let lost = batch.send(&self.socket);
            self.stats.dropped(Drop::Unsent, lost);
        }
        Ok(())
    }

    /// Answers one datagram of a batch.
    #[inline]
    fn serve(&mut self, batch: &mut Batch, index: usize, zones: &ZoneMap, answers: &Answers, now: u64) {
        let Some((query, out, client)) = batch.exchange(index) else {
            return self.stats.dropped(Drop::Malformed, 1);
        };
        let context = Context {
            zones,
            settings: &answers.settings,
            cookies: &answers.cookies,
            now,
            client: client.ip(),
            transport: Transport::Udp,
            room: 0,
        };
        match respond(&context, query, out) {
            Verdict::Silent => self.stats.dropped(Drop::Malformed, 1),
            Verdict::Elsewhere => {
                let Some(place) = self.admit(query, client, now) else { return };
                let octets = query.to_vec();
                self.elsewhere(octets, client, batch.way_back(index), place);
            }
            Verdict::Reply(mut reply) => {
                let sent = match self.judge(&reply, client, now) {
                    Limited::Drop => 0,
                    Limited::Slip => {
                        slip(&mut reply, out);
                        reply.len
                    }
                    Limited::Send => {
                        self.stats.answered(Transport::Udp, &reply);
                        reply.len
                    }
                };
                if let Some(log) = &self.log {
                    self.stats.logged(log.offer(query, &reply, sent, client, Transport::Udp, now));
                }
                if sent > 0 {
                    batch.reply(index, sent);
                }
            }
        }
    }

    /// Whether an answer goes out.
    #[inline]
    fn judge(&mut self, reply: &Reply, client: SocketAddr, now: u64) -> Limited {
        if let Some(zone) = reply.zone
            && !self.quotas.take(zone, reply.zone_limit, now)
        {
            self.stats.dropped(Drop::Quota, 1);
            return Limited::Drop;
        }
        let limited = self.limiter.check(reply, client.ip(), now);
        match limited {
            Limited::Send => {}
            Limited::Slip => self.stats.dropped(Drop::Slipped, 1),
            Limited::Drop => self.stats.dropped(Drop::Limited, 1),
        }
        limited
    }

    /// A place for a message that is served elsewhere, if its sender's network and the server have one left.
    fn admit(&mut self, query: &[u8], client: SocketAddr, now: u64) -> Option<OwnedSemaphorePermit> {
        if !self.limiter.admits(client.ip(), now) {
            self.stats.dropped(Drop::Limited, 1);
            return None;
        }
        let place = self.shared.places.take(Transport::Udp);
        match &place {
            None => self.stats.dropped(Drop::Busy, 1),
            Some(_) => self.stats.exchange(message::opcode(query).unwrap_or_default()),
        }
        place
    }

    /// Hands a message to the control side.
    fn elsewhere(&self, octets: Vec<u8>, client: SocketAddr, back: WayBack, place: OwnedSemaphorePermit) {
        let (answers, mut answered) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
        let (socket, slow) = (Arc::clone(&self.socket), Arc::clone(&self.slow));
        self.runtime.spawn(async move {
            let serve = slow.serve(Ask { octets, client, transport: Transport::Udp, answers });
            let send = async {
                while let Some(answer) = answered.recv().await {
                    // As for any datagram: what cannot be sent is lost.
                    let _ = back.send(&socket, &answer);
                }
            };
            tokio::join!(serve, send);
            drop(place);
        });
    }
}
