//! Replacing the program without losing a connection: a new process takes the listening sockets of the running one.
//!
//! The running process listens on a Unix socket ([`give`]). A new one started with the same setting connects to it
//! ([`take`]), receives the sockets themselves, serves with them, and says that it is ready; only then does the old
//! one stop accepting and drain. Until that word everything can fail without anybody noticing: the old process has
//! never stopped. What the two say to each other is in [`wire`].

mod give;
mod invocation;
mod path;
mod succession;
mod take;
mod wire;

pub(crate) use give::{Giver, Offer};
pub(crate) use invocation::Invocation;
pub(crate) use succession::Succession;
pub(crate) use take::Inherited;

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Clients.
    Proxy,
    /// Streams.
    Stream,
    /// Datagrams.
    Datagram,
    /// The Admin API.
    Admin,
    /// The status port.
    Status,
}

impl Role {
    /// Whether its sockets are for datagrams.
    pub(crate) fn is_datagram(self) -> bool {
        matches!(self, Self::Datagram)
    }

    /// The name on the wire, which is the flag's.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Proxy => "proxy-listen",
            Self::Stream | Self::Datagram => "stream-listen",
            Self::Admin => "admin-listen",
            Self::Status => "status-listen",
        }
    }
}
