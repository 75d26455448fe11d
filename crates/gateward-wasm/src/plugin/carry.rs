//! Who carries callouts: this crate only says where they go.

use crate::callout::{HttpCall, HttpReply};
use std::future::Future;
use std::pin::Pin;

/// Where a callout goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Carries callouts. Implemented by the node.
pub trait Carrier: Send + Sync + 'static {
    /// Send `call` to `destination` and read at most `most` bytes of content. A failure is an answer too; it comes within
    /// the call's time.
    fn http(
        &self,
        destination: Destination,
        call: HttpCall,
        most: usize,
    ) -> Pin<Box<dyn Future<Output = HttpReply> + Send>>;
}
