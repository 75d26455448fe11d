//! Accepting connections over TCP and TLS: how many there may be, and whose.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::conversation::{PATIENCE, Streams, hold};
use super::limit::network_of;
use super::stats::Drop;
use crate::answer::Transport;

/// Connections at once to one address of the server; the next waits in the kernel's queue.
const MOST_CONNECTIONS: usize = 4096;
/// Connections of one client at once: an IPv4 address, or an IPv6 network, of which anybody has as many addresses as they want.
const MOST_PER_CLIENT: usize = 128;
/// How many bits of IPv4 addresses are one client.
const CLIENT_BITS: u32 = 32;
/// How long it is waited when a connection cannot be accepted.
const PAUSE: Duration = Duration::from_millis(20);

/// Accepts connections on one port until it is dropped, and with it every connection.
pub(crate) async fn accept(
    streams: Arc<Streams>,
    clients: Arc<Clients>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, client)) => match clients.enter(client.ip()) {
                    Some(entered) => {
                        let (streams, tls) = (Arc::clone(&streams), tls.clone());
                        connections.spawn(async move {
                            // How a connection ends is its client's business.
                            let _ = serve(&streams, stream, client, tls).await;
                            drop(entered);
                        });
                    }
                    None => streams.dropped(Drop::Busy),
                },
                // Out of descriptors, or the client is gone already: neither is helped by trying at once.
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(
    streams: &Arc<Streams>,
    stream: TcpStream,
    client: SocketAddr,
    tls: Option<TlsAcceptor>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        None => hold(streams, stream, client, Transport::Tcp).await,
        Some(tls) => {
            let stream = timeout(PATIENCE, tls.accept(stream)).await??;
            hold(streams, stream, client, Transport::Tls).await
        }
    }
}

/// How many connections each client has.
#[derive(Default)]
pub(crate) struct Clients(Mutex<FxHashMap<u64, usize>>);

/// A connection that is counted until this is dropped.
struct Entered {
    clients: Arc<Clients>,
    network: u64,
}

impl Clients {
    /// Counts a connection, if its client may have another.
    fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Entered> {
        let network = network_of(client, CLIENT_BITS);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= MOST_PER_CLIENT {
            return None;
        }
        *count += 1;
        Some(Entered { clients: Arc::clone(self), network })
    }
}

impl std::ops::Drop for Entered {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_connections_however_many_addresses_it_has() {
        let clients = Arc::new(Clients::default());
        let enter = |address: &str| clients.enter(address.parse().expect("an address"));
        let mut entered: Vec<_> =
            (0..MOST_PER_CLIENT).filter_map(|index| enter(&format!("2001:db8::{index:x}"))).collect();
        assert_eq!(entered.len(), MOST_PER_CLIENT);
        assert!(enter("2001:db8:0:ff::1").is_none());
        assert!(enter("2001:db8:0:100::1").is_some() && enter("192.0.2.1").is_some());
        entered.pop();
        assert!(enter("2001:db8:0:ff::1").is_some());
        drop(entered);
        assert!(clients.0.lock().expect("not poisoned").is_empty());
    }
}
