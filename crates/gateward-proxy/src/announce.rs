//! Telling an upstream who the client is, with a PROXY header before the first byte of its connection.
//!
//! Gateward's own field `proxy_protocol` of services asks for it. Such a connection is one client's and serves one
//! exchange: it never enters the pool.

use crate::session::Session;
use gateward_model::ProxyProtocolVersion;
use gateward_net::Stream;
use gateward_net::proxy_protocol::{Header, Tlvs, Version};
use gateward_plugin::{Client, ProxyOrigin};
use std::io;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;

/// Write the header for the client of `session` to `stream`, a new connection, before anything else.
pub(crate) async fn announce(session: &Session, stream: &Stream, version: ProxyProtocolVersion) -> io::Result<()> {
    send(&header(&session.exchange.client, session.local, version), stream).await
}

/// Write a header to `stream`, a new connection, before anything else.
pub(crate) async fn send(header: &Header, stream: &Stream) -> io::Result<()> {
    let mut bytes = Vec::new();
    header.write(&mut bytes);
    (&mut &*stream).write_all(&bytes).await
}

fn header(client: &Client, local: SocketAddr, version: ProxyProtocolVersion) -> Header {
    // Where a request field named the client, its port is not known.
    let same = client.peer.ip().to_canonical() == client.ip;
    let source = SocketAddr::new(client.ip, if same { client.peer.port() } else { 0 });
    header_of(source, local, client.origin.as_deref(), version)
}

/// The header of a connection from `source` that came in on `local`.
pub(crate) fn header_of(
    source: SocketAddr,
    local: SocketAddr,
    origin: Option<&ProxyOrigin>,
    version: ProxyProtocolVersion,
) -> Header {
    let source = SocketAddr::new(source.ip().to_canonical(), source.port());
    let destination = origin.and_then(|origin| origin.destination).unwrap_or(local);
    let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
    let version = match version {
        ProxyProtocolVersion::V1 => Version::V1,
        ProxyProtocolVersion::V2 => Version::V2,
    };
    let tlvs = Tlvs {
        authority: origin.and_then(|origin| origin.authority.clone()),
        vpce_id: origin.and_then(|origin| origin.vpce_id.clone()),
        azure_link_id: origin.and_then(|origin| origin.azure_link_id),
        ..Tlvs::default()
    };
    Header { tlvs, ..Header::tcp(version, source, destination) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateward_plugin::Exchange;
    use std::sync::Arc;

    #[test]
    fn the_client_is_the_source_and_facts_are_passed_on() {
        let mut client = Exchange::new().client;
        (client.peer, client.ip) = ("[::ffff:192.0.2.7]:9".parse().unwrap(), "192.0.2.7".parse().unwrap());
        let local = "10.0.0.1:8000".parse().unwrap();
        let of = |client: &Client| {
            let mut line = Vec::new();
            header(client, local, ProxyProtocolVersion::V1).write(&mut line);
            String::from_utf8(line).unwrap()
        };
        assert_eq!(of(&client), "PROXY TCP4 192.0.2.7 10.0.0.1 9 8000\r\n");
        client.ip = "2001:db8::1".parse().unwrap();
        assert_eq!(of(&client), "PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 0 8000\r\n");
        client.origin = Some(Arc::new(ProxyOrigin {
            balancer: local,
            source: None,
            destination: Some("[2001:db8::2]:443".parse().unwrap()),
            vpce_id: Some("vpce-1".into()),
            azure_link_id: None,
            authority: None,
            unique_id: None,
            tls: false,
        }));
        assert_eq!(of(&client), "PROXY TCP6 2001:db8::1 2001:db8::2 0 443\r\n");
        let passed = header(&client, local, ProxyProtocolVersion::V2);
        assert_eq!(passed.tlvs.vpce_id.as_deref(), Some("vpce-1"));
    }
}
