//! Which upstreams are spoken to in HTTP/2, and the place where a connection to one is made.

use crate::error::ProxyError;
use crate::h2_client::{Destination, Leased, Unavailable};
use crate::worker::Worker;
use gateward_model::{Protocol, Service};
use gateward_net::{Deadline, Stream};
use http::uri::Scheme;
use std::net::SocketAddr;

/// Whether `service` is asked over HTTP/2 without asking first whether it speaks it.
pub(super) fn is_for(service: &Service) -> bool {
    service.protocol == Protocol::Grpc
}

/// A stream to `address`, and whether it is on a connection that was there. A new connection keeps what `keep`
/// gives for as long as it lasts.
pub(super) async fn connect<K: 'static>(
    worker: &Worker,
    deadline: &Deadline,
    service: &Service,
    address: SocketAddr,
    keep: impl Fn() -> K,
) -> Result<(Leased, bool), ProxyError> {
    deadline.arm(u64::from(service.connect_timeout));
    let destination = Destination { address };
    let dial = async || Stream::connect(address).await;
    let leased = worker.http2.lease(&destination, Scheme::HTTP, &worker.deadlines, dial, keep);
    match deadline.guard(leased).await {
        Ok(leased) => leased.map_err(|unavailable| match unavailable {
            Unavailable::Connect => ProxyError::Connect,
            Unavailable::Full => ProxyError::UpstreamFull,
        }),
        Err(_) => Err(ProxyError::ConnectTimeout),
    }
}
