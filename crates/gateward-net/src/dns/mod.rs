//! Names to addresses, for a whole node.
//!
//! [`Names`] holds every name in use. A task per name, on the control side, looks it up and again when its answer runs
//! out; what it found is published by swapping a pointer, so that a worker reads it without a lock and without a clock.
//! `client` asks (hickory-resolver, in the order of `dns_order`, the hosts file first), `course` decides what to
//! publish and when to ask again, [`crate::resolve`] is a worker's view.
//!
//! Kong's settings and rules (kong.conf.default, lua-resty-dns-client), but for three things it is known for: a record
//! of time to live 0 is not asked for by each request, an answer that ran out is served only while asking fails, and a
//! server that fails does not change the kind of record a name is known by.

mod client;
mod course;
mod hosts;
mod names;
mod settings;

pub use course::{Answer, Endpoint, Failure};
pub use names::{DnsStats, Name, NameCounts, Names};
pub use settings::{DnsError, DnsSettings, RecordKind};
