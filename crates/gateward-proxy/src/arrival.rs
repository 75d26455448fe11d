//! A connection to a listener that takes PROXY headers or speaks TLS: who its client is, before it is served like any other.
//!
//! As for nginx's realip module, only a trusted peer may say who the client is; a header of another peer is taken off
//! and not believed. Where the address is taken from it (`real_ip_header = proxy_protocol`), the client it names becomes
//! the peer of the connection, also for the question whose `X-Forwarded-*` are believed: a balancer of connections
//! adds no fields, so these come from the client. Only the first header counts; another is malformed HTTP or TLS.

use crate::connection;
use crate::forwarded::is_trusted;
use crate::secure;
use crate::session::Arrival;
use crate::settings::RealIp;
use crate::worker::Worker;
use gateward_net::listen::AddressPermit;
use gateward_net::proxy_protocol::receive::{ReceiveError, receive};
use gateward_net::proxy_protocol::{Addresses, Command, Header, Mode};
use gateward_net::{ListenerFlags, Stream};
use gateward_plugin::ProxyOrigin;
use gateward_telemetry::{Counter, ProxyProtocolOutcome as Outcome};
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::TcpStream;

/// How the connections of a listener begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// What is done about PROXY headers.
    pub(crate) mode: Mode,
    pub(crate) flags: ListenerFlags,
}

/// Take the header off `tcp` if there may be one, do the TLS handshake if there is one, and serve the connection.
pub(crate) async fn serve(worker: Rc<Worker>, tcp: TcpStream, peer: SocketAddr, local: SocketAddr, manner: Manner) {
    let Some(client) = client(&worker, &tcp, peer, manner).await else { return };
    let stream = match manner.flags.ssl {
        true => secure::handshake(&worker, tcp, client.address, manner.flags).await,
        false => Some(Stream::plain(tcp)),
    };
    if let Some(stream) = stream {
        let tls = stream.tls().map(secure::describe);
        let number = worker.node.number_connection();
        let arrival = Arrival { number, peer: client.address, local, origin: client.origin, tls };
        connection::serve(worker, stream, arrival).await;
    }
}

/// Whose connection it is.
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) origin: Option<Arc<ProxyOrigin>>,
    _permit: Option<AddressPermit>,
}

/// Whose connection it is, from its header where there may be one; `None`: it is not served.
pub(crate) async fn client(worker: &Worker, tcp: &TcpStream, peer: SocketAddr, manner: Manner) -> Option<Client> {
    if manner.mode == Mode::Off {
        return Some(Client { address: peer, origin: None, _permit: None });
    }
    identify(worker, tcp, peer, manner).await
}

async fn identify(worker: &Worker, tcp: &TcpStream, peer: SocketAddr, manner: Manner) -> Option<Client> {
    let Manner { mode, flags } = manner;
    let header = match take(worker, tcp, mode).await {
        Ok(header) => header,
        Err(outcome) => {
            refuse(worker, peer, mode, outcome);
            return None;
        }
    };
    let trusted = is_trusted(peer.ip().to_canonical(), &worker.node.settings);
    let (outcome, origin) = judge(header, peer, trusted);
    let vpce_id = origin.as_ref().and_then(|origin| origin.vpce_id.as_deref());
    worker.metrics.proxied(mode == Mode::Require, outcome, vpce_id);
    let named = origin.as_ref().and_then(|origin| origin.source);
    // A stream has no fields in which its client could be named otherwise.
    let believed = flags.stream || worker.node.settings.real_ip == RealIp::ProxyProtocol;
    let address = named.filter(|_| believed).unwrap_or(peer);
    // An untrusted peer was counted when it was accepted.
    let permit = if trusted { worker.node.addresses.admit(address.ip()).map(Some) } else { Some(None) };
    let Some(permit) = permit else {
        worker.metrics.count(Counter::ConnectionsRefused);
        return None;
    };
    Some(Client { address, origin: origin.map(Arc::new), _permit: permit })
}

/// The header of a connection, within the time for a request head: a balancer may wait for the client's first bytes.
async fn take(worker: &Worker, tcp: &TcpStream, mode: Mode) -> Result<Option<Box<Header>>, Outcome> {
    let deadline = worker.deadlines.register();
    deadline.arm_fresh(worker.node.settings.limits.header_timeout_ms);
    match deadline.guard(receive(tcp, mode)).await {
        Ok(Ok(header)) => Ok(header),
        Ok(Err(ReceiveError::Missing)) => Err(Outcome::Missing),
        Ok(Err(ReceiveError::Malformed(_))) => Err(Outcome::Malformed),
        Ok(Err(ReceiveError::Closed | ReceiveError::Io(_))) => Err(Outcome::Closed),
        Err(_) => Err(Outcome::Timeout),
    }
}

/// Close without an answer, as nginx does: what the peer speaks is not known.
fn refuse(worker: &Worker, peer: SocketAddr, mode: Mode, outcome: Outcome) {
    worker.metrics.proxied(mode == Mode::Require, outcome, None);
    let reason = match outcome {
        Outcome::Missing => "proxy_protocol_missing",
        Outcome::Malformed => "proxy_protocol_malformed",
        Outcome::Timeout => {
            worker.metrics.count(Counter::ClientTimeouts);
            return;
        }
        // Peers that look whether the port is open are nobody's fault.
        _ => return,
    };
    worker.metrics.refuse(reason);
    tracing::debug!(%peer, reason, "a connection without a usable PROXY header was closed");
}

/// What a header comes to, and what of it may be believed.
fn judge(header: Option<Box<Header>>, peer: SocketAddr, trusted: bool) -> (Outcome, Option<ProxyOrigin>) {
    let Some(header) = header else { return (Outcome::Absent, None) };
    if !trusted {
        return (Outcome::Untrusted, None);
    }
    if header.command == Command::Local {
        return (Outcome::Local, None);
    }
    let (source, destination) = match &header.addresses {
        Addresses::Inet { source, destination, .. } => (Some(*source), Some(*destination)),
        Addresses::Unknown | Addresses::Unix { .. } => (None, None),
    };
    let outcome = if source.is_some() { Outcome::Proxied } else { Outcome::Unknown };
    let tlvs = header.tlvs;
    let origin = ProxyOrigin {
        balancer: peer,
        source,
        destination,
        vpce_id: tlvs.vpce_id.filter(|id| !id.is_empty()),
        azure_link_id: tlvs.azure_link_id,
        authority: tlvs.authority,
        unique_id: tlvs.unique_id.as_deref().map(hex),
        tls: tlvs.ssl.is_some_and(|ssl| ssl.client & 1 != 0),
    };
    (outcome, Some(origin))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateward_net::proxy_protocol::Version;

    #[test]
    fn only_what_a_trusted_peer_says_about_others_is_believed() {
        let peer: SocketAddr = "10.0.0.1:1".parse().unwrap();
        let client: SocketAddr = "192.0.2.1:2".parse().unwrap();
        let proxied = || Header::tcp(Version::V2, client, "10.0.0.9:443".parse().unwrap());
        let (outcome, origin) = judge(Some(Box::new(proxied())), peer, true);
        assert_eq!((outcome, origin.unwrap().source), (Outcome::Proxied, Some(client)));
        assert_eq!(judge(Some(Box::new(proxied())), peer, false), (Outcome::Untrusted, None));
        let local = Header { command: Command::Local, ..proxied() };
        assert_eq!(judge(Some(Box::new(local)), peer, true), (Outcome::Local, None));
        assert_eq!(judge(None, peer, true), (Outcome::Absent, None));
        let unknown = Header { addresses: Addresses::Unknown, ..proxied() };
        let (outcome, origin) = judge(Some(Box::new(unknown)), peer, true);
        assert_eq!((outcome, origin.unwrap().source), (Outcome::Unknown, None));
    }
}
