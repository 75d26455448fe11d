//! Where a connection comes from beyond its addresses. The record shows it as it is here, under `proxy_protocol`.

use serde::Serialize;
use std::net::SocketAddr;

/// What a PROXY header of a trusted load balancer said about a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProxyOrigin {
    /// The load balancer: the TCP peer.
    pub balancer: SocketAddr,
    /// The client of the load balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SocketAddr>,
    /// Where the client connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<SocketAddr>,
    /// The AWS VPC endpoint the client came through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpce_id: Option<String>,
    /// The Azure private endpoint's link the client came through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure_link_id: Option<u32>,
    /// The server name of the client's TLS handshake with the load balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// The load balancer's id of the connection, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_id: Option<String>,
    /// The client spoke TLS to the load balancer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
}
