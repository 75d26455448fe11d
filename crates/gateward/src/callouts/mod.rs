//! Callouts of Wasm filters: carried to services and upstreams as requests are, with their targets, health, names and TLS.
//!
//! `connections` are made and driven on the control runtime; what is asked on them runs where the filter's task does.
//! hyper speaks HTTP/1.1 and HTTP/2, gateward-net dials and does TLS, gateward-proxy says whom to ask (ADR 0017).

mod body;
mod connections;
mod grpc;
mod http;

use connections::{Connections, Exchange};
use gateward_proxy::{Callee, CalleeError, CalleeName, Callees, Node};
use gateward_wasm::callout::{CalloutStatus, GrpcCall, GrpcEvent, HttpCall, HttpReply, Messages};
use gateward_wasm::plugin::{Carried, Carrier, Destination};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Carries callouts of one node.
pub(crate) struct Callouts {
    connections: Arc<Connections>,
    /// Set when the node is there, which needs the filters first.
    callees: OnceLock<Callees>,
}

impl Callouts {
    /// With connections on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Arc<Self> {
        Arc::new(Self { connections: Connections::new(runtime), callees: OnceLock::new() })
    }

    /// From now on calls go to what `node` serves.
    pub(crate) fn serve(&self, node: &Arc<Node>) {
        self.callees.get_or_init(|| Callees::new(node));
    }

    /// A connection to whom `destination` names. Where one cannot be connected to, others are tried.
    async fn connect(&self, to: &Destination, grpc: bool, fresh: bool) -> Result<(Callee, Exchange), String> {
        let callees = self.callees.get().ok_or("the node is not serving yet")?;
        let mut tried: Vec<SocketAddr> = Vec::new();
        loop {
            let mut callee = match callees.find(name(to), grpc, &tried).await {
                Ok(callee) => callee,
                Err(error @ CalleeError::NoTarget(_)) if !tried.is_empty() => {
                    return Err(format!("{error}; {} could not be connected to", last(&tried)));
                }
                Err(error) => return Err(error.to_string()),
            };
            match self.connections.exchange(&callee, fresh).await {
                Ok(exchange) => return Ok((callee, exchange)),
                Err(error) => {
                    callee.broke();
                    tried.push(callee.address);
                    if tried.len() > usize::from(callee.retries) {
                        return Err(format!("{}: {error}", callee.address));
                    }
                }
            }
        }
    }
}

fn last(tried: &[SocketAddr]) -> String {
    tried.last().map(ToString::to_string).unwrap_or_default()
}

fn name(destination: &Destination) -> CalleeName<'_> {
    match destination {
        Destination::Service(name) => CalleeName::Service(name),
        Destination::Upstream(name) => CalleeName::Upstream(name),
        Destination::Host { host, port } => CalleeName::Host(host, *port),
    }
}

/// The carrier that filters have.
pub(crate) struct ByNode(pub(crate) Arc<Callouts>);

impl Carrier for ByNode {
    fn http(&self, destination: Destination, call: HttpCall, most: usize) -> Carried<HttpReply> {
        let callouts = self.0.clone();
        Box::pin(async move {
            let timeout = call.timeout;
            match tokio::time::timeout(timeout, http::ask(&callouts, &destination, &call, most)).await {
                Ok(reply) => reply.unwrap_or_else(HttpReply::failure),
                Err(_) => HttpReply::timed_out(timeout),
            }
        })
    }

    fn grpc(
        &self,
        destination: Destination,
        call: GrpcCall,
        sent: Messages,
        events: mpsc::Sender<GrpcEvent>,
        most: usize,
    ) -> Carried<CalloutStatus> {
        let callouts = self.0.clone();
        Box::pin(async move {
            let (timeout, began) = (call.timeout, tokio::time::Instant::now());
            let asked = grpc::ask(&callouts, &destination, &call, sent, &events, most);
            let outcome = match timeout {
                Some(timeout) => tokio::time::timeout(timeout, asked).await,
                None => Ok(asked.await),
            };
            match (outcome, timeout) {
                // The callee knows the deadline too and may say so first; what comes after it is late either way.
                (Ok(_), Some(timeout)) if began.elapsed() >= timeout => CalloutStatus::timed_out(timeout),
                (Ok(outcome), _) => outcome.unwrap_or_else(|failure| failure),
                (Err(_), timeout) => CalloutStatus::timed_out(timeout.unwrap_or_default()),
            }
        })
    }
}
