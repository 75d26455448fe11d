//! What the data plane needs from the operating system: worker threads with their own runtimes, listeners,
//! deadlines, TLS, name resolution, dialling, upstream connection pools, and the stages of a shutdown.
//!
//! Nothing here knows HTTP. A worker is one thread; everything it owns is `!Send` and needs no lock.

pub mod client_hello;
pub mod clock;
pub mod datagrams;
pub mod deadline;
pub mod departure;
pub mod descriptors;
pub mod dns;
pub mod drain;
pub mod gate;
pub mod handover;
pub mod listen;
pub mod outbox;
pub mod pool;
pub mod proxy_protocol;
pub mod resolve;
mod socket;
pub mod stream;
pub mod tls;
pub mod worker;

pub use clock::monotonic_us;
pub use datagrams::{DatagramListener, Datagrams};
pub use deadline::{Deadline, Deadlines, Expired};
pub use departure::Departure;
pub use drain::{Drain, Stage};
pub use gate::{Gate, Lease};
pub use handover::{Handover, Release};
pub use listen::{AddressCounts, Listener, ListenerFlags, Probes};
pub use outbox::Outbox;
pub use pool::{Peer, Pool, PoolSettings, TlsPeer, UpstreamConnection};
pub use resolve::{ResolveError, Resolver};
pub use stream::Stream;
