//! Who carries callouts: this crate only says where they go.

use crate::callout::{CalloutStatus, GrpcCall, GrpcEvent, HttpCall, HttpReply, Messages};
use std::future::Future;
use std::pin::Pin;
use tokio::sync::mpsc;

/// Where a callout goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// To a service of the configuration being served, by name.
    Service(String),
    /// To an upstream, likewise.
    Upstream(String),
    /// To any other host that the filter may call.
    Host {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

/// What carrying a callout comes to. Dropping it gives the callout up.
pub type Carried<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Carries callouts. Implemented by the node.
pub trait Carrier: Send + Sync + 'static {
    /// Send `call` to `destination` and read at most `most` bytes of content. A failure is an answer too; it comes within
    /// the call's time.
    fn http(&self, destination: Destination, call: HttpCall, most: usize) -> Carried<HttpReply>;

    /// Make a gRPC call whose messages are `sent` (that of `call` is among them). What comes back, of messages of at most
    /// `most` bytes, goes to `events`, and is not read faster than it is taken there. The end is the answer.
    fn grpc(
        &self,
        destination: Destination,
        call: GrpcCall,
        sent: Messages,
        events: mpsc::Sender<GrpcEvent>,
        most: usize,
    ) -> Carried<CalloutStatus>;
}

/// Carries nothing: every callout fails.
pub struct NoCarrier;

impl Carrier for NoCarrier {
    fn http(&self, _: Destination, _: HttpCall, _: usize) -> Carried<HttpReply> {
        Box::pin(async { HttpReply::failure("nothing is carried") })
    }

    fn grpc(
        &self,
        _: Destination,
        _: GrpcCall,
        _: Messages,
        _: mpsc::Sender<GrpcEvent>,
        _: usize,
    ) -> Carried<CalloutStatus> {
        Box::pin(async { CalloutStatus::new(CalloutStatus::UNAVAILABLE, "nothing is carried") })
    }
}
