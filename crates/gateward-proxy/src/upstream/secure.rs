//! TLS of upstream connections: as whom one speaks, and under which name.

use crate::announce::announce;
use crate::error::ProxyError;
use crate::server_name::bare_host;
use crate::session::Session;
use gateward_model::Service;
use gateward_net::tls::{Client, HTTP_2, Offer};
use gateward_net::{Peer, Stream, TlsPeer};
use std::io::ErrorKind;
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
    offer: Offer,
) -> Result<Stream, ProxyError> {
    let stream = Stream::connect(peer.address).await.map_err(|_| ProxyError::Connect)?;
    if let Some(version) = service.proxy_protocol {
        announce(session, &stream, version).await.map_err(|_| ProxyError::Connect)?;
    }
    let (Some(client), Some(TlsPeer { name, .. })) = (tls, &peer.tls) else { return Ok(stream) };
    let no_http2 = |agreed: &str| {
        let service = service.name.clone().unwrap_or_else(|| service.id.to_string());
        let address = peer.address;
        tracing::warn!(service, %address, name = &**name, agreed, "an upstream does not speak HTTP/2 over TLS");
        ProxyError::UpstreamNoHttp2
    };
    match stream.negotiate_tls(client, peer.address.ip(), name, offer).await {
        Ok(stream) if offer == Offer::Http2 && stream.alpn() != Some(HTTP_2) => {
            Err(no_http2(&String::from_utf8_lossy(stream.alpn().unwrap_or_default())))
        }
        Ok(stream) => Ok(stream),
        Err(error) if offer == Offer::Http2 && error.kind() == ErrorKind::Unsupported => Err(no_http2("")),
        Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::Unsupported) => {
            tracing::warn!(address = %peer.address, name = &**name, %error, "TLS handshake with an upstream failed");
            Err(ProxyError::UpstreamTls)
        }
        Err(_) => Err(ProxyError::Connect),
    }
}
