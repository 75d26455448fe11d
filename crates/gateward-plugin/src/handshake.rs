//! A client's TLS handshake, as plugins see it: its hello was read, nothing was answered.

use crate::Context;
use std::net::SocketAddr;

/// State of a handshake.
#[derive(Debug)]
pub struct Handshake {
    /// The client: the peer, or who a trusted PROXY header named.
    pub client: SocketAddr,
    /// The address it came in on.
    pub local: SocketAddr,
    /// The name the client asks for, in lower case.
    pub sni: Option<String>,
    /// Ask it for a certificate.
    pub request_certificate: bool,
    /// Let nobody resume this session later.
    pub no_resumption: bool,
    /// What plugins keep until the handshake is over.
    pub context: Context,
}

/// What a plugin says to a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Go on.
    Next,
    /// End it with an alert.
    Refuse,
}
