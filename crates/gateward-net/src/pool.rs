//! Idle upstream connections of one worker, newest first.
//!
//! A connection is handed out only while nothing arrived on it: bytes or an end of stream on an idle connection
//! mean that the next response would not be ours. Noticing costs no system call, because the reactor has already
//! noted readiness.

use crate::{Lease, Stream};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

/// Limits of a pool, with Kong's names and defaults (`upstream_keepalive_*`).
#[derive(Debug, Clone, Copy)]
pub struct PoolSettings {
    /// Idle connections kept per peer and worker; 0 keeps none.
    pub size: usize,
    /// Requests after which a connection is closed; 0: no limit.
    pub max_requests: u32,
    /// Milliseconds a connection may be idle; 0: no limit.
    pub idle_timeout_ms: u64,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self { size: 512, max_requests: 10_000, idle_timeout_ms: 60_000 }
    }
}

/// A connection to an upstream address.
#[derive(Debug)]
pub struct UpstreamConnection {
    /// The stream.
    pub stream: Rc<Stream>,
    /// Where it leads.
    pub peer: Peer,
    /// Requests sent on it so far.
    pub requests: u32,
    /// Its place among the connections of an upstream that limits them.
    pub lease: Option<Lease>,
}

/// Where a connection leads and as whom it speaks: only requests with the same may share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The address.
    pub address: SocketAddr,
    /// With TLS: the session's side of the identity.
    pub tls: Option<TlsPeer>,
}

/// How a TLS upstream was verified, what it was shown, and under which name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsPeer {
    /// [`crate::tls::Client::id`]: verification, authorities and client certificate.
    pub client: u64,
    /// The server name it was asked for.
    pub name: Rc<str>,
}

impl From<SocketAddr> for Peer {
    /// In the clear.
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }
}

struct Idle {
    connection: UpstreamConnection,
    since_ms: u64,
}

/// The idle connections of one worker.
pub struct Pool {
    settings: PoolSettings,
    idle: RefCell<FxHashMap<Peer, Vec<Idle>>>,
}

impl Pool {
    /// An empty pool.
    pub fn new(settings: PoolSettings) -> Self {
        Self { settings, idle: RefCell::default() }
    }

    /// The most recently used connection to `peer` that is still good, and how many were found dead.
    ///
    /// `once`: the request must not be sent twice, so look closely whether the other side is closing.
    pub fn take(&self, peer: &Peer, once: bool, now_ms: u64) -> (Option<UpstreamConnection>, u64) {
        let mut idle = self.idle.borrow_mut();
        let Some(connections) = idle.get_mut(peer) else { return (None, 0) };
        let mut discarded = 0;
        while let Some(candidate) = connections.pop() {
            let spoken = candidate.connection.stream.has_spoken(once);
            if !spoken && !self.is_expired(&candidate, now_ms) {
                return (Some(candidate.connection), discarded);
            }
            discarded += 1;
        }
        (None, discarded)
    }

    /// Keep `connection` for later, unless it has served its requests, or was answered before all of one was sent. When the
    /// pool for its peer is full, the oldest goes.
    pub fn put(&self, connection: UpstreamConnection, now_ms: u64) {
        let PoolSettings { size, max_requests, .. } = self.settings;
        if size == 0 || !connection.stream.is_sent() || (max_requests > 0 && connection.requests >= max_requests) {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let connections = match idle.get_mut(&connection.peer) {
            Some(connections) => connections,
            None => idle.entry(connection.peer.clone()).or_default(),
        };
        if connections.len() >= size {
            connections.remove(0);
        }
        connections.push(Idle { connection, since_ms: now_ms });
    }

    /// Close one idle connection for which `is_wanted` holds, the longest idle of its address; whether there was one.
    pub fn evict(&self, is_wanted: impl Fn(&UpstreamConnection) -> bool) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.values_mut().any(|connections| {
            let found = connections.iter().position(|idle| is_wanted(&idle.connection));
            found.map(|index| connections.remove(index)).is_some()
        })
    }

    /// Close what is expired or has been closed by the other side; how many that were. Call about once a second.
    pub fn sweep(&self, now_ms: u64) -> u64 {
        let mut closed = 0;
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain(|idle| {
                let keep = !self.is_expired(idle, now_ms) && !idle.connection.stream.has_spoken(false);
                closed += u64::from(!keep);
                keep
            });
            !connections.is_empty()
        });
        closed
    }

    /// How many connections are idle.
    pub fn len(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }

    /// Whether no connection is idle.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_expired(&self, idle: &Idle, now_ms: u64) -> bool {
        let timeout = self.settings.idle_timeout_ms;
        timeout > 0 && now_ms.saturating_sub(idle.since_ms) >= timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    async fn pair(listener: &TcpListener) -> (UpstreamConnection, TcpStream) {
        let address = listener.local_addr().unwrap();
        let (stream, accepted) = tokio::join!(Stream::connect(address), listener.accept());
        let stream = Rc::new(stream.unwrap());
        (UpstreamConnection { stream, peer: address.into(), requests: 1, lease: None }, accepted.unwrap().0)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_newest_comes_first_and_the_oldest_goes_when_full() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = Pool::new(PoolSettings { size: 2, ..PoolSettings::default() });
        let mut servers = Vec::new();
        let mut ports = Vec::new();
        for now in 0..3 {
            let (connection, server) = pair(&listener).await;
            ports.push(connection.stream.tcp().local_addr().unwrap());
            pool.put(connection, now);
            servers.push(server);
        }
        let address = listener.local_addr().unwrap();
        assert_eq!(pool.len(), 2);
        assert_eq!(pool.take(&address.into(), false, 3).0.unwrap().stream.tcp().local_addr().unwrap(), ports[2]);
        assert_eq!(pool.take(&address.into(), false, 3).0.unwrap().stream.tcp().local_addr().unwrap(), ports[1]);
        assert!(pool.take(&address.into(), false, 3).0.is_none());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn expired_worn_out_closed_and_talkative_connections_are_not_handed_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pool = Pool::new(PoolSettings { max_requests: 5, idle_timeout_ms: 100, ..PoolSettings::default() });

        let (connection, _server) = pair(&listener).await;
        pool.put(connection, 0);
        assert_eq!(pool.take(&address.into(), false, 100).1, 1, "expired");

        let (mut connection, _server) = pair(&listener).await;
        connection.requests = 5;
        pool.put(connection, 0);
        assert!(pool.is_empty(), "worn out");

        let (connection, _server) = pair(&listener).await;
        connection.stream.post(&mut b"GET / HTTP/1.1\r\n\r\n".to_vec(), Vec::new());
        pool.put(connection, 0);
        assert!(pool.is_empty(), "owes its peer a request");

        let (connection, server) = pair(&listener).await;
        pool.put(connection, 0);
        drop(server);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let (taken, discarded) = pool.take(&address.into(), true, 1);
        assert!(taken.is_none() && discarded == 1, "closed");

        let (connection, mut server) = pair(&listener).await;
        pool.put(connection, 0);
        server.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(pool.sweep(1), 1, "talkative");
    }
}
