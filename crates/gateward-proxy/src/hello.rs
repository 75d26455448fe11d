//! A TLS handshake in which plugins have a say (Kong's certificate phase).

use crate::instance::heard;
use crate::worker::{Worker, WorkerPlan};
use gateward_net::tls::{Carries, HandshakeError, Hello, Wishes};
use gateward_net::{ListenerFlags, Stream};
use gateward_plugin::{Admission, Context, Handshake};
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Do the handshake on `tcp`, of `client`, asking the plan's plugins first.
///
/// # Errors
/// As a handshake without them, or one refused; with the socket, where a word in the clear may help.
pub(crate) async fn accept(
    worker: &Worker,
    plan: &WorkerPlan,
    tcp: TcpStream,
    client: SocketAddr,
    flags: ListenerFlags,
) -> Result<Stream, (Option<TcpStream>, HandshakeError)> {
    let hello = match Hello::receive(&tcp).await {
        Ok(hello) => hello,
        Err(error) => return Err((Some(tcp).filter(|_| !flags.stream), error)),
    };
    let mut handshake = Handshake {
        client,
        local: tcp.local_addr().unwrap_or(client),
        sni: hello.server_name(),
        request_certificate: false,
        no_resumption: false,
        context: Context::default(),
    };
    for index in &plan.shared.certificate_plugins {
        let instance = &plan.shared.instances[*index as usize];
        let said = heard(&worker.metrics, instance, |plugin| plugin.certificate(&mut handshake)).await;
        if !matches!(said, Ok(Admission::Next)) {
            hello.refuse(&tcp);
            let message = format!("the plugin {} refused it", instance.entity.name);
            return Err((None, HandshakeError { reason: "tls_refused_by_plugin", message, cleartext: false }));
        }
    }
    let carries = match flags {
        ListenerFlags { stream: true, .. } => Carries::Stream,
        ListenerFlags { http2: true, .. } => Carries::Http2,
        _ => Carries::Http1,
    };
    let wishes = Wishes { client_certificate: handshake.request_certificate, no_resumption: handshake.no_resumption };
    let server = &plan.shared.tls.server;
    Stream::answer_tls(hello, server, tcp, carries, wishes).await.map_err(|error| (None, error))
}
