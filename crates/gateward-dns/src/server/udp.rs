//! Answering over UDP: a thread per core, each with a socket of its own on the same port.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::Cache;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::batch::{Batch, prepare};
use super::limit::{Limited, Quotas, RateLimiter};
use super::log::QueryLog;
use super::slow::{Ask, Slow};
use super::stats::{Drop, Stats};
use super::{Shared, slow};
use crate::answer::{Context, Transport, Verdict, respond};
use crate::message::TC;

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
        let mut batch = Batch::new();
        let mut quotas = Quotas::default();
        let shared = Arc::clone(&self.shared);
        let mut zones = Cache::new(shared.zones.shared());
        let mut settings = Cache::new(&shared.answers);
        while !self.stop.load(Ordering::Relaxed) {
            let count = match batch.receive(&self.socket, with_local) {
                Ok(count) => count,
                // Nothing came for a while, a signal came, or an earlier answer met a closed port.
                Err(_) => continue,
            };
            // One look at the clock for the whole batch.
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
            let (zones, answers) = (zones.load(), settings.load());
            for index in 0..count {
                let Some((query, out, client)) = batch.exchange(index) else {
                    self.stats.dropped(Drop::Malformed, 1);
                    continue;
                };
                let context = Context {
                    zones,
                    settings: &answers.settings,
                    cookies: &answers.cookies,
                    now,
                    client: client.ip(),
                    transport: Transport::Udp,
                };
                let send = match respond(&context, query, out) {
                    Verdict::Silent => {
                        self.stats.dropped(Drop::Malformed, 1);
                        None
                    }
                    Verdict::Elsewhere => {
                        let query = query.to_vec();
                        self.elsewhere(query, client);
                        None
                    }
                    Verdict::Reply(reply) => {
                        let verdict = self.judge(&mut quotas, &reply, client, now);
                        if let Some(log) = &mut self.log {
                            log.offer(query, &reply, client, Transport::Udp, now);
                        }
                        match verdict {
                            Limited::Drop => None,
                            Limited::Slip => Some(empty(query, out)),
                            Limited::Send => {
                                self.stats.answered(Transport::Udp, &reply);
                                Some(reply.len)
                            }
                        }
                    }
                };
                if let Some(len) = send {
                    batch.reply(index, len);
                }
            }
            let lost = batch.send(&self.socket);
            self.stats.dropped(Drop::Unsent, lost);
        }
        Ok(())
    }

    /// Whether an answer goes out.
    #[inline]
    fn judge(&mut self, quotas: &mut Quotas, reply: &crate::answer::Reply, client: SocketAddr, now: u64) -> Limited {
        if let Some(zone) = reply.zone
            && !quotas.take(zone, reply.zone_limit, now)
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

    /// Hands a message to the control side, if that is not busy.
    fn elsewhere(&self, octets: Vec<u8>, client: SocketAddr) {
        let Some(permit) = slow::permit(&self.shared.waiting) else { return self.stats.dropped(Drop::Busy, 1) };
        let (answers, mut answered) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
        let (socket, slow) = (Arc::clone(&self.socket), Arc::clone(&self.slow));
        self.runtime.spawn(async move {
            let serve = slow.serve(Ask { octets, client, transport: Transport::Udp, answers });
            let send = async {
                while let Some(answer) = answered.recv().await {
                    // As for any datagram: what cannot be sent is lost.
                    let _ = socket.send_to(&answer, client);
                }
            };
            tokio::join!(serve, send);
            drop(permit);
        });
    }
}

/// The question with TC and nothing else.
fn empty(query: &[u8], out: &mut [u8]) -> usize {
    let len = crate::message::parse(query)
        .ok()
        .and_then(|request| request.question.map(|question| question.wire.len()))
        .unwrap_or(0);
    out[2] |= TC;
    out[6..12].fill(0);
    12 + len
}
