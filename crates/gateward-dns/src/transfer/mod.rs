//! Zone transfers (AXFR, RFC 5936; IXFR, RFC 1995), both ways, without IO: records become messages, messages become a zone or differences.

mod difference;
mod receive;
mod request;
mod send;

#[cfg(test)]
mod tests;

pub use difference::{Difference, NotThere, condense, onto};
pub use receive::{Incoming, Limits, Received, TransferError};
pub use request::{Kind, Request, parse_request};
pub use send::{Outgoing, Plan, TooLarge, axfr, current, datagram, ixfr, plan};
