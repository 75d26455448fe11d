//! One datagram socket: `ngx.socket.udp`.

use super::{Failure, Sockets, within, words};
use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{UdpSocket, UnixDatagram};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A socket and whom it speaks to.
pub(crate) struct Udp {
    peer: RefCell<Option<Rc<Peer>>>,
    pub(crate) timeout: Cell<Duration>,
}

enum Peer {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Default for Udp {
    fn default() -> Self {
        Self { peer: RefCell::default(), timeout: Cell::new(TIMEOUT) }
    }
}

impl Udp {
    fn peer(&self) -> Result<Rc<Peer>, Failure> {
        self.peer.borrow().clone().ok_or("not connected".into())
    }

    /// Whom to speak to: `host` is a name, an address, or `unix:PATH`.
    pub(crate) async fn set_peer(&self, sockets: &Sockets, host: &str, port: u16) -> Result<(), Failure> {
        let peer = within(self.timeout.get(), async {
            if let Some(path) = host.strip_prefix("unix:") {
                let socket = UnixDatagram::unbound().map_err(|error| words(&error))?;
                socket.connect(path).map_err(|error| words(&error))?;
                return Ok(Peer::Unix(socket));
            }
            let address = sockets.resolve(host, port).await?;
            let any: SocketAddr =
                if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
            let socket = UdpSocket::bind(any).await.map_err(|error| words(&error))?;
            socket.connect(address).await.map_err(|error| words(&error))?;
            Ok(Peer::Udp(socket))
        });
        let peer = peer.await?;
        *self.peer.borrow_mut() = Some(Rc::new(peer));
        Ok(())
    }

    /// Send one datagram.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        let peer = self.peer()?;
        within(self.timeout.get(), async {
            let sent = match &*peer {
                Peer::Udp(socket) => socket.send(bytes).await,
                Peer::Unix(socket) => socket.send(bytes).await,
            };
            sent.map(drop).map_err(|error| words(&error))
        })
        .await
    }

    /// Receive one; what is longer than `most` is cut.
    pub(crate) async fn receive(&self, most: usize) -> Result<Vec<u8>, Failure> {
        let peer = self.peer()?;
        within(self.timeout.get(), async {
            let mut buffer = vec![0; most];
            let received = match &*peer {
                Peer::Udp(socket) => socket.recv(&mut buffer).await,
                Peer::Unix(socket) => socket.recv(&mut buffer).await,
            };
            buffer.truncate(received.map_err(|error| words(&error))?);
            Ok(buffer)
        })
        .await
    }

    pub(crate) fn close(&self) -> Result<(), Failure> {
        self.peer.take().map(drop).ok_or("closed".into())
    }
}
