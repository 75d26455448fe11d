//! UDP sockets of a node: one per worker and address, sharing the port with SO_REUSEPORT.
//!
//! A socket on all addresses of the machine has to say for each answer from which of them it goes out, or else the client
//! gets it from an address that it has not asked. So every datagram is received with the address it was sent to, and
//! answered from there (IP_PKTINFO, ip(7); IPV6_PKTINFO, RFC 3542 section 6).

use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt};
use nix::{cmsg_space, libc};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Longest datagram there is.
pub const DATAGRAM_MAX: usize = 65_535;

/// A bound socket that is not yet tied to a runtime. Make one per worker, all with the same address.
#[derive(Debug)]
pub struct DatagramListener {
    socket: std::net::UdpSocket,
}

/// One that is.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    local: SocketAddr,
}

/// Where a datagram came from, and to which address it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes of it.
    pub length: usize,
    /// The sender.
    pub from: SocketAddr,
    /// The address it was sent to, with the port of the socket.
    pub to: SocketAddr,
}

impl DatagramListener {
    /// Bind `address` (port 0: any) with SO_REUSEPORT. What comes from now on waits in the socket's buffer.
    ///
    /// # Errors
    /// What the operating system said, e.g. the address is in use by a socket without SO_REUSEPORT.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        Self::prepare(socket, address.is_ipv6())
    }

    /// Take a socket over from another process.
    ///
    /// # Errors
    /// It is not a UDP socket that is bound.
    pub fn adopt(descriptor: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(descriptor);
        let udp = socket.r#type()? == Type::DGRAM && socket.protocol()? == Some(Protocol::UDP);
        match socket.local_addr()?.as_socket() {
            Some(local) if udp && local.port() != 0 => Self::prepare(socket, local.is_ipv6()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a UDP socket that is bound")),
        }
    }

    fn prepare(socket: Socket, v6: bool) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        if v6 {
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
        }
        Ok(Self { socket: socket.into() })
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

    /// Tie the socket to the current runtime.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn into_tokio(self) -> io::Result<Datagrams> {
        let local = self.socket.local_addr()?;
        Ok(Datagrams { socket: UdpSocket::from_std(self.socket)?, local })
    }
}

impl Datagrams {
    /// The address bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Receive the next datagram. One longer than `buf` is cut off.
    ///
    /// # Errors
    /// Those of `recvmsg(2)`.
    pub async fn receive(&self, buf: &mut [u8]) -> io::Result<Received> {
        loop {
            self.socket.readable().await?;
            match self.socket.try_io(Interest::READABLE, || self.receive_now(buf)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
    }

    fn receive_now(&self, buf: &mut [u8]) -> io::Result<Received> {
        let mut control = cmsg_space!(libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(buf)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let from = message.address.and_then(address_of);
        let from = from.ok_or_else(|| io::Error::other("a datagram came from no address"))?;
        let mut to = self.local;
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    to.set_ip(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => to.set_ip(Ipv6Addr::from(info.ipi6_addr.s6_addr).into()),
                _ => {}
            }
        }
        Ok(Received { length: message.bytes, from, to })
    }

    /// Send a datagram to `to` from the address `from`, which is one of the socket's; at once or not at all.
    ///
    /// # Errors
    /// Those of `sendmsg(2)`; `WouldBlock` when there is no room for it.
    pub fn send(&self, bytes: &[u8], to: SocketAddr, from: IpAddr) -> io::Result<()> {
        let (v4, v6);
        let control = match from {
            IpAddr::V4(ip) => {
                let source = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                v4 = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: libc::in_addr { s_addr: 0 } };
                ControlMessage::Ipv4PacketInfo(&v4)
            }
            IpAddr::V6(ip) => {
                v6 = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
                ControlMessage::Ipv6PacketInfo(&v6)
            }
        };
        let address = SockaddrStorage::from(to);
        let parts = [IoSlice::new(bytes)];
        self.socket.try_io(Interest::WRITABLE, || {
            let flags = MsgFlags::MSG_DONTWAIT;
            Ok(sendmsg(self.socket.as_raw_fd(), &parts, &[control], flags, Some(&address))?)
        })?;
        Ok(())
    }
}

fn address_of(storage: SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    storage.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port())))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(bound: &str, asked: &str) {
        let listener = DatagramListener::bind(bound.parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = listener.into_tokio().unwrap();
        let client = UdpSocket::bind(SocketAddr::new(asked.parse().unwrap(), 0)).await.unwrap();
        // Connected, so that an answer from another address would not arrive.
        client.connect(SocketAddr::new(asked.parse().unwrap(), port)).await.unwrap();
        client.send(b"question").await.unwrap();
        let mut buf = [0; 100];
        let received = server.receive(&mut buf).await.unwrap();
        assert_eq!(&buf[..received.length], b"question");
        assert_eq!((received.from, received.to.ip().to_string()), (client.local_addr().unwrap(), asked.to_owned()));
        server.send(b"answer", received.from, received.to.ip()).unwrap();
        let length = client.recv(&mut buf).await.unwrap();
        assert_eq!(&buf[..length], b"answer");
    }

    #[tokio::test]
    async fn answers_come_from_where_was_asked() {
        check("127.0.0.1:0", "127.0.0.1").await;
        check("0.0.0.0:0", "127.0.0.1").await;
        check("0.0.0.0:0", "127.0.0.2").await;
        if std::net::UdpSocket::bind("[::1]:0").is_ok() {
            check("[::]:0", "::1").await;
        }
    }

    #[tokio::test]
    async fn sockets_are_shared_and_passed_on() {
        let first = DatagramListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(DatagramListener::bind(address).unwrap().local_addr().unwrap(), address);
        let again = DatagramListener::adopt(first.duplicate().unwrap()).unwrap();
        assert_eq!(again.local_addr().unwrap(), address);
        let stream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(DatagramListener::adopt(stream.into()).is_err());
        let unbound = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        assert!(DatagramListener::adopt(unbound.into()).is_err());
    }
}
