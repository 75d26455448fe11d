//! TLS of client connections: the handshake, bounded in time and number, and what of it requests get to see.

use crate::hello;
use crate::worker::Worker;
use gateward_net::tls::{Facts, HandshakeError};
use gateward_net::{ListenerFlags, Stream};
use gateward_plugin::{ClientCertificate, ClientTls};
use gateward_telemetry::Counter;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::TcpStream;

/// What a client gets that speaks HTTP where TLS is spoken (nginx answers the same).
const CLEARTEXT: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 55\r\n\
Connection: close\r\n\r\nThe plain HTTP request was sent to HTTPS port: use TLS\n";

/// Do the handshake of a new connection of `client`; `None`: it failed, which is counted.
pub(crate) async fn handshake(
    worker: &Rc<Worker>,
    tcp: TcpStream,
    client: SocketAddr,
    flags: ListenerFlags,
) -> Option<Stream> {
    let limits = &worker.node.settings.limits;
    let Some(_place) = Place::take(worker, limits.tls_handshakes) else {
        worker.metrics.refuse("tls_too_many_handshakes");
        return None;
    };
    let deadline = worker.deadlines.register();
    // Also a connection accepted at the last moment of the process gets its chance.
    deadline.arm_fresh(limits.tls_handshake_timeout_ms);
    // The newest configuration: connections that exist keep the certificate they began with.
    let plan = worker.plan();
    let server = &plan.shared.tls.server;
    let accepting = async {
        match flags.stream {
            _ if !plan.shared.certificate_plugins.is_empty() => {
                Box::pin(hello::accept(worker, &plan, tcp, client, flags)).await
            }
            false => Stream::accept_tls(server, tcp, flags.http2).await.map_err(|(tcp, error)| (Some(tcp), error)),
            true => Stream::accept_tls_of_stream(server, tcp).await.map_err(|error| (None, error)),
        }
    };
    let accepted = deadline.guard(accepting).await;
    match accepted {
        Ok(Ok(stream)) => {
            worker.metrics.count(Counter::TlsHandshakes);
            if stream.tls().is_some_and(|facts| facts.resumed) {
                worker.metrics.count(Counter::TlsResumptions);
            }
            Some(stream)
        }
        Ok(Err((tcp, HandshakeError { reason, message, cleartext }))) => {
            worker.metrics.refuse(reason);
            tracing::debug!(reason, message, "a TLS handshake with a client failed");
            if let Some(tcp) = tcp.filter(|_| cleartext) {
                // As far as it fits; a socket just opened has room.
                let _ = tcp.try_write(CLEARTEXT);
            }
            None
        }
        Err(_) => {
            worker.metrics.refuse("tls_timeout");
            worker.metrics.count(Counter::ClientTimeouts);
            None
        }
    }
}

/// The handshake's facts as plugins, logs and routes see them.
pub(crate) fn describe(facts: &Facts) -> Arc<ClientTls> {
    let certificate = facts.client.as_ref().map(|certificate| ClientCertificate {
        subject: certificate.subject.clone(),
        issuer: certificate.issuer.clone(),
        serial: certificate.serial.clone(),
        fingerprint: certificate.fingerprint.clone(),
        verified: certificate.verified,
        chain: certificate.chain.clone(),
    });
    Arc::new(ClientTls {
        version: facts.version,
        cipher: facts.cipher,
        sni: facts.sni.as_deref().map(str::to_owned),
        certificate,
    })
}

/// Tell a client with nothing under way that the connection ends on purpose.
pub(crate) fn goodbye(stream: &Stream) {
    if stream.tls().is_some() {
        // The connection ends either way.
        let _ = stream.finish();
    }
}

/// One of the handshakes that may be under way at once; given back when dropped.
struct Place<'a>(&'a Worker);

impl<'a> Place<'a> {
    fn take(worker: &'a Worker, most: usize) -> Option<Self> {
        let under_way = worker.handshakes.get();
        (under_way < most).then(|| worker.handshakes.set(under_way + 1))?;
        Some(Self(worker))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.handshakes.set(self.0.handshakes.get() - 1);
    }
}
