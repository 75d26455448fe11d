//! What the data plane needs from the operating system: worker threads with their own runtimes, listeners,
//! deadlines, dialling, upstream connection pools, and the stages of a shutdown.
//!
//! Nothing here knows HTTP. A worker is one thread; everything it owns is `!Send` and needs no lock.

pub mod clock;
pub mod deadline;
pub mod drain;
pub mod listen;
pub mod pool;
pub mod resolve;
pub mod worker;

use std::future::poll_fn;
use std::io;
use tokio::net::TcpStream;

pub use clock::monotonic_us;
pub use deadline::{Deadline, Deadlines, Expired};
pub use drain::{Drain, Stage};
pub use listen::{AddressCounts, Listener};
pub use pool::{Pool, PoolSettings, UpstreamConnection};
pub use resolve::{ResolveError, Resolver};

/// Wait until there is something to read, so that a buffer is needed only then.
///
/// # Errors
/// The runtime is shutting down.
pub async fn readable(stream: &TcpStream) -> io::Result<()> {
    // tokio's own `readable` may be waited on from several tasks, which takes a list this one does without.
    poll_fn(|context| stream.poll_read_ready(context)).await
}
