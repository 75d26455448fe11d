//! TLS on both sides, with rustls: what clients are shown, what upstreams must show, and the facts of a handshake.
//!
//! The rest of the gateway knows names, PEM texts and [`Facts`]; rustls' types stay in here. A [`Context`] holds what
//! lives as long as the process (the default certificate, ticket keys, authorities); a [`Server`] and the
//! [`Client`]s are made from it for every configuration, and connections keep the one they began with.

mod client;
mod context;
mod facts;
#[doc(hidden)]
pub mod fuzzing;
mod hello;
mod names;
mod pem;
mod server;
pub(crate) mod session;
mod settings;
#[cfg(test)]
mod tests;
mod verify;

pub use client::{Client, ClientOptions, Identity, Offer};
pub use context::Context;
pub use facts::{Facts, PeerCertificate};
pub use hello::{Carries, Hello, Wishes};
pub use names::NameTable;
pub use pem::{KeyPair, TlsError, check_authority};
pub use server::{Certificates, Server};
pub use session::HandshakeError;
pub use settings::{Authorities, ClientVerify, TlsSettings, is_suite};

/// ALPN's name of HTTP/1.1 (RFC 7301 section 6).
pub const HTTP_1_1: &[u8] = b"http/1.1";
/// ALPN's name of HTTP/2 over TLS (RFC 9113 section 3.1).
pub const HTTP_2: &[u8] = b"h2";
