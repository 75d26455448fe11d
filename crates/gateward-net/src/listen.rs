//! Listening sockets: one per worker and address, sharing the port with SO_REUSEPORT.
//!
//! The kernel spreads new connections over the sockets of a port, so workers never hand connections to each
//! other, and a new process can listen beside an old one during a rolling restart.

use crate::proxy_protocol::Mode;
use crate::stream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Length of the queue of connections not yet accepted, as nginx and Kong set it on Linux.
pub const BACKLOG: i32 = 16_384;

/// How long a closing listener accepts what the kernel had already queued.
const LAST_CALL: Duration = Duration::from_millis(20);
/// Connections taken at the very end, so that a flood cannot keep a listener open.
const LATEST_MAX: usize = 1024;

/// A bound socket that is not yet tied to a runtime. Make one per worker, all with the same address.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    proxy_protocol: Mode,
    flags: ListenerFlags,
}

/// Whether the other side of a listener's connections is probed (nginx: `so_keepalive`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Probes {
    /// As for all connections.
    #[default]
    AsSet,
    /// Not.
    Off,
    /// After this idle time.
    After(Duration),
}

/// How a listener's connections are spoken to, in the words of Kong's listener flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListenerFlags {
    /// They begin with a TLS handshake, after the PROXY header if there is one.
    pub ssl: bool,
    /// HTTP/2 is offered in that handshake.
    pub http2: bool,
    /// They carry streams of any protocol, not HTTP.
    pub stream: bool,
    /// They are probed.
    pub probes: Probes,
}

impl Listener {
    /// Bind `address` (port 0: any) with SO_REUSEPORT and listen.
    ///
    /// # Errors
    /// What the operating system said, e.g. the address is in use by a socket without SO_REUSEPORT.
    pub fn bind(address: SocketAddr, backlog: i32) -> io::Result<Self> {
        let listener = Self::reserve(address)?;
        listener.listen(backlog)?;
        Ok(listener)
    }

    /// Bind `address` without listening: no connection comes before [`Listener::listen`].
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn reserve(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(Self { socket: socket.into(), proxy_protocol: Mode::Off, flags: ListenerFlags::default() })
    }

    /// Take PROXY headers as `mode` says; without this they are not expected.
    #[must_use]
    pub fn with_proxy_protocol(mut self, mode: Mode) -> Self {
        self.proxy_protocol = mode;
        self
    }

    /// Speak to its connections as these flags say; without this in the clear.
    #[must_use]
    pub fn with_flags(mut self, flags: ListenerFlags) -> Self {
        self.flags = flags;
        self
    }

    /// How its connections are spoken to.
    pub fn flags(&self) -> ListenerFlags {
        self.flags
    }

    /// What is done about PROXY headers.
    pub fn proxy_protocol(&self) -> Mode {
        self.proxy_protocol
    }

    /// Listen with a queue of this length; on a socket that listens already, change the length.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn listen(&self, backlog: i32) -> io::Result<()> {
        SockRef::from(&self.socket).listen(backlog)
    }

    /// Take a listening socket over from another process.
    ///
    /// # Errors
    /// It is not a TCP socket that listens.
    pub fn adopt(descriptor: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(descriptor);
        let tcp = socket.r#type()? == Type::STREAM && socket.protocol()? == Some(Protocol::TCP);
        if !tcp || !socket.is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a TCP socket that listens"));
        }
        socket.set_nonblocking(true)?;
        Ok(Self { socket: socket.into(), proxy_protocol: Mode::Off, flags: ListenerFlags::default() })
    }

    /// The same socket once more. It is closed when both are.
    ///
    /// # Errors
    /// No more files may be opened.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// The address bound, with the port the system chose.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The idle time after which the other side of its connections is probed, where `set` is that of all.
    pub fn probed_after(&self, set: Option<Duration>) -> Option<Duration> {
        match self.flags.probes {
            Probes::AsSet => set,
            Probes::Off => None,
            Probes::After(idle) => Some(idle),
        }
    }

    /// Probe the other side of accepted connections after this idle time. They inherit it, so it costs them nothing.
    pub fn keep_alive(&self, idle: Duration) {
        stream::keep_alive(&SockRef::from(&self.socket), idle);
    }

    /// Tie the socket to the current runtime.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn into_tokio(self) -> io::Result<TcpListener> {
        TcpListener::from_std(self.socket)
    }
}

/// Accept what is left in the queue of a listener that is about to close.
///
/// Closing a socket resets the connections in its queue. Shrinking the queue first makes the kernel drop new
/// connection attempts, which the client's TCP repeats a second later towards a socket that is still there.
/// Linux can move queued connections itself (`net.ipv4.tcp_migrate_req`, 5.14), but that is off by default.
pub async fn last_call(listener: TcpListener, mut accepted: impl FnMut(TcpStream, SocketAddr)) {
    // A second listen() only changes the length of the queue; should it fail, the queue keeps its length.
    let _ = SockRef::from(&listener).listen(0);
    let _ = tokio::time::timeout(LAST_CALL, async {
        while let Ok((stream, peer)) = listener.accept().await {
            accepted(stream, peer);
        }
    })
    .await;
    // The reactor may not have been told of the latest: the socket itself is asked, and closed at once after it
    // says that there is nobody.
    let Ok(socket) = listener.into_std() else { return };
    for _ in 0..LATEST_MAX {
        let Ok((stream, peer)) = socket.accept() else { return };
        let adopted = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = adopted {
            accepted(stream, peer);
        }
    }
}

/// How many connections each client address has open on this node: the limit per address is for the node, so
/// the counts are shared. Touched when a connection opens and closes, never per request.
#[derive(Debug, Clone)]
pub struct AddressCounts {
    limit: u32,
    counts: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

/// One connection's place in its address' count, given back when dropped.
#[derive(Debug)]
pub struct AddressPermit {
    counts: Option<(AddressCounts, IpAddr)>,
}

impl AddressCounts {
    /// Allow `limit` connections per address; 0: no limit.
    pub fn new(limit: u32) -> Self {
        Self { limit, counts: Arc::default() }
    }

    /// Count one more connection of `address`, `None` when it has its limit already.
    pub fn admit(&self, address: IpAddr) -> Option<AddressPermit> {
        if self.limit == 0 {
            return Some(AddressPermit { counts: None });
        }
        let mut counts = self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = counts.entry(address).or_insert(0);
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(AddressPermit { counts: Some((self.clone(), address)) })
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let Some((shared, address)) = self.counts.take() else { return };
        let mut counts = shared.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_listeners_share_a_port() {
        let first = Listener::bind("127.0.0.1:0".parse().unwrap(), BACKLOG).unwrap();
        let second = Listener::bind(first.local_addr().unwrap(), BACKLOG).unwrap();
        assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
    }

    #[test]
    fn a_socket_goes_on_in_other_hands() {
        let first = Listener::bind("127.0.0.1:0".parse().unwrap(), BACKLOG).unwrap();
        let address = first.local_addr().unwrap();
        let waiting = std::net::TcpStream::connect(address).unwrap();
        let second = Listener::adopt(first.duplicate().unwrap()).unwrap();
        drop(first);
        assert_eq!(second.socket.accept().unwrap().1, waiting.local_addr().unwrap());
    }

    #[test]
    fn only_listening_sockets_are_adopted() {
        let bound = Listener::reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(Listener::adopt(bound.duplicate().unwrap()).is_err(), "it does not listen");
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(Listener::adopt(datagrams.into()).is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Listener::adopt(file.into()).is_err());
        bound.listen(BACKLOG).unwrap();
        assert!(Listener::adopt(bound.duplicate().unwrap()).is_ok());
    }

    #[test]
    fn an_address_has_its_limit_and_gets_its_places_back() {
        let counts = AddressCounts::new(2);
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        let first = counts.admit(here).unwrap();
        let _second = counts.admit(here).unwrap();
        assert!(counts.admit(here).is_none());
        assert!(counts.admit("127.0.0.2".parse().unwrap()).is_some());
        drop(first);
        assert!(counts.admit(here).is_some());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_last_call_serves_what_was_queued() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), BACKLOG).unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let mut served = Vec::new();
        last_call(listener.into_tokio().unwrap(), |stream, _| served.push(stream)).await;
        assert_eq!(served.len(), clients.len());
    }
}
