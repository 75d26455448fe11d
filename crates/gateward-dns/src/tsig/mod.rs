//! Signed messages (TSIG, RFC 8945): keys, and both sides of a signed exchange.
//!
//! Time comes in as an argument, in seconds since 1970. A server verifies a request ([`verify_request`]) and signs what it answers
//! with the [`Signer`] that comes out of it, one message or many; a client signs a request ([`sign_request`]) and verifies what it
//! gets with the [`ClientSession`]. Why this is our own code: `docs/adr/0020-own-tsig.md`.

mod client;
mod key;
mod mac;
mod record;
mod server;

#[cfg(test)]
mod tests;

pub use client::{ClientSession, VerifyError, sign_request};
pub use key::{Algorithm, Key, KeyError, Keys};
pub use record::Error;
pub use server::{Refusal, Rejected, Signed, Signer, verify_request};

/// Seconds by which clocks may differ (RFC 8945, 10).
pub const FUDGE_SECONDS: u16 = 300;
