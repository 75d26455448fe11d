//! TLS of upstream connections: as whom one speaks, and under which name.

use crate::announce::announce;
use crate::error::ProxyError;
use crate::session::Session;
use gateward_model::Service;
use gateward_net::tls::Client;
use gateward_net::{Peer, Stream, TlsPeer};
use std::net::SocketAddr;

/// Who is at `address`. With TLS the server name is the host that is asked for, without a port, as Kong has it
/// (`proxy_ssl_name $upstream_host`): what a plugin or `preserve_host` says, otherwise `host`.
pub(super) fn peer<'a>(
    session: &Session,
    address: SocketAddr,
    tls: Option<&Client>,
    host: impl FnOnce() -> &'a str,
) -> Peer {
    let Some(client) = tls else { return address.into() };
    let exchange = &session.exchange;
    let preserved = exchange.route.as_deref().is_some_and(|route| route.preserve_host);
    let asked = match &exchange.upstream.host {
        Some(host) => host,
        None if preserved && !exchange.request.authority.is_empty() => &exchange.request.authority,
        None => host(),
    };
    Peer { address, tls: Some(TlsPeer { client: client.id(), name: bare_host(asked).into() }) }
}

/// Connect, tell the upstream the client if the service asks for that, and do the handshake where there is one.
pub(super) async fn dial(
    peer: &Peer,
    tls: Option<&Client>,
    service: &Service,
    session: &Session,
) -> Result<Stream, ProxyError> {
    let stream = Stream::connect(peer.address).await.map_err(|_| ProxyError::Connect)?;
    if let Some(version) = service.proxy_protocol {
        announce(session, &stream, version).await.map_err(|_| ProxyError::Connect)?;
    }
    let (Some(client), Some(TlsPeer { name, .. })) = (tls, &peer.tls) else { return Ok(stream) };
    stream.into_tls(client, peer.address.ip(), name).await.map_err(|error| {
        if error.kind() != std::io::ErrorKind::InvalidData {
            return ProxyError::Connect;
        }
        tracing::warn!(address = %peer.address, name = &**name, %error, "TLS handshake with an upstream failed");
        ProxyError::UpstreamTls
    })
}

/// A host without its port or the brackets of an IPv6 address.
fn bare_host(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(address, _)| address);
    }
    match authority.split_once(':') {
        // More than one colon: an address without brackets.
        Some((host, port)) if !port.contains(':') => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_brackets_are_no_part_of_a_name() {
        for (authority, host) in
            [("a.test", "a.test"), ("a.test:8443", "a.test"), ("[::1]:443", "::1"), ("[::1]", "::1"), ("::1", "::1")]
        {
            assert_eq!(bare_host(authority), host);
        }
    }
}
