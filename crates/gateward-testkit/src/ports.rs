//! Ports for servers that a test starts and that bind them themselves.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;

/// Of those that Linux gives to no client (`ip_local_port_range`): until the server has bound it, a port that was only found free would be
/// any client's. dig and its like share ports with whoever does (SO_REUSEPORT), as our DNS servers do, and with the server's own port would
/// ask themselves.
const PORTS: Range<u16> = 20_000..32_000;

/// A port of 127.0.0.1 that is free for UDP and TCP.
///
/// # Panics
/// When there is none.
#[track_caller]
pub fn free_port() -> SocketAddr {
    free_port_of(Ipv4Addr::LOCALHOST)
}

/// As [`free_port`], of an address of this machine.
///
/// # Panics
/// When there is none.
#[track_caller]
pub fn free_port_of(host: Ipv4Addr) -> SocketAddr {
    for _ in 0..1_000 {
        let address = SocketAddr::from((host, PORTS.start + any() % (PORTS.end - PORTS.start)));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port is free for UDP and TCP");
}

/// A number that others seldom draw at the same time.
fn any() -> u16 {
    let drawn = RandomState::new().build_hasher().finish();
    u16::from_le_bytes([drawn.to_le_bytes()[0], drawn.to_le_bytes()[1]])
}
