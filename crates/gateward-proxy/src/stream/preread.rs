//! Before the upstream is dialled: which route a stream takes, and what the plugins say to it (Kong's preread phase).

use super::error::StreamError;
use super::session::Session;
use crate::error::ProxyError;
use crate::instance::{Panicked, heard};
use crate::secure;
use crate::worker::{Worker, WorkerPlan};
use gateward_net::client_hello::receive::{HelloError, receive};
use gateward_net::{ListenerFlags, Stream};
use gateward_plugin::Preread;
use gateward_route::StreamProtocol::{Tcp, Tls, TlsPassthrough};
use gateward_telemetry::Counter;
use std::rc::Rc;
use tokio::net::TcpStream;

/// The route of a new connection, and the stream to be relayed: as it came, or without its TLS.
pub(super) async fn find_route(
    worker: &Rc<Worker>,
    plan: &WorkerPlan,
    tcp: TcpStream,
    session: &mut Session,
    flags: ListenerFlags,
) -> Result<(Stream, usize), StreamError> {
    let router = &plan.shared.stream_router;
    if !flags.ssl
        && let Some(route) = session.find(router)
    {
        debug_assert_eq!(session.carried, Tcp);
        return Ok((Stream::plain(tcp), route));
    }
    if router.serves(TlsPassthrough) {
        session.carried_by(TlsPassthrough);
        session.exchange.sni = server_name(worker, &tcp).await?;
        if let Some(route) = session.find(router) {
            return Ok((Stream::plain(tcp), route));
        }
    }
    if !flags.ssl || !router.serves(Tls) {
        return Err(StreamError::NoRoute);
    }
    session.carried_by(Tls);
    let stream = secure::handshake(worker, tcp, session.exchange.client, flags).await.ok_or(StreamError::Handshake)?;
    session.exchange.tls = stream.tls().map(secure::describe);
    session.exchange.sni = session.exchange.tls.as_ref().and_then(|tls| tls.sni.clone());
    let route = session.find(router).ok_or(StreamError::NoRoute)?;
    Ok((stream, route))
}

/// The name a client asks for; nothing of what it sends is taken.
async fn server_name(worker: &Worker, tcp: &TcpStream) -> Result<Option<String>, StreamError> {
    let deadline = worker.deadlines.register();
    // Also a connection accepted at the last moment of the process gets its chance.
    deadline.arm_fresh(worker.node.settings.limits.preread_timeout_ms);
    match deadline.guard(receive(tcp)).await {
        Ok(Ok(hello)) => Ok(hello.server_name),
        Ok(Err(HelloError::NotTls)) => Err(StreamError::NotTls),
        Ok(Err(HelloError::Malformed(malformed))) => Err(StreamError::Hello(malformed)),
        Ok(Err(HelloError::Closed | HelloError::Io(_))) => Err(StreamError::ClientGone),
        Err(_) => {
            worker.metrics.count(Counter::ClientTimeouts);
            Err(StreamError::HelloTimeout)
        }
    }
}

/// The preread phase of the route's plugins: all are asked, the first that closes decides.
pub(super) async fn ask_plugins(
    worker: &Worker,
    plan: &WorkerPlan,
    session: &mut Session,
    route: usize,
) -> Result<(), StreamError> {
    let chain = &plan.shared.chains[plan.shared.stream_routes[route].chain.0 as usize];
    let mut verdict = Ok(());
    for index in chain.links.iter().filter_map(|link| link.select(None)) {
        let instance = &plan.shared.instances[index as usize];
        session.plugins.push(instance.clone());
        if !instance.needs.phases.preread {
            continue;
        }
        let exchange = &mut session.exchange;
        let asked = heard(&worker.metrics, instance, |plugin| plugin.preread(exchange));
        let said = match asked.await {
            Ok(Preread::Next) => Ok(()),
            Ok(Preread::Close(status)) => Err(StreamError::Closed(status)),
            Err(Panicked) => Err(ProxyError::PluginPanic.into()),
        };
        verdict = verdict.and(said);
    }
    verdict
}
