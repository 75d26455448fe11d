//! Connections below HTTP as the functions of plugins see them: an exchange stands for the stream, so that what asks about a
//! client, a route or tables of its own is the same for both; what a request does not have is in [`Wire`].

use gateward_model::Protocol;
use gateward_plugin::{Exchange, Handshake, Scheme, StreamExchange};

/// What an exchange has that stands for a connection.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// What carries it; `None` during a handshake, before that is known.
    pub(crate) protocol: Option<Protocol>,
    /// The server name of the client's hello.
    pub(crate) sni: Option<String>,
    /// What plugins printed.
    pub(crate) printed: Vec<u8>,
    /// What plugins want of a handshake.
    pub(crate) request_certificate: bool,
    pub(crate) no_resumption: bool,
}

/// The exchange that stands for a stream, kept in it.
struct StandIn(Exchange);

/// The exchange that stands for `stream`; made for its first plugin in Lua.
pub(crate) fn stand_in(stream: &mut StreamExchange) -> &mut Exchange {
    if stream.context.kept::<StandIn>().is_none() {
        let exchange = exchange_of(stream);
        stream.context.put(StandIn(exchange));
    }
    &mut stream.context.kept_mut::<StandIn>().expect("it was put there when it was missing").0
}

/// Likewise of a stream that is over; `None`: no plugin in Lua took part in it.
pub(crate) fn stood_in(stream: &StreamExchange) -> Option<&Exchange> {
    stream.context.kept::<StandIn>().map(|stand_in| &stand_in.0)
}

/// Take over what plugins did to the exchange that stands for `stream`.
pub(crate) fn take_over(stream: &mut StreamExchange) {
    let exchange = stand_in(stream);
    let detour = exchange.upstream.detour.clone();
    let printed = exchange.kept_mut::<Wire>().map(|wire| std::mem::take(&mut wire.printed)).unwrap_or_default();
    stream.detour = detour;
    stream.greeting.extend_from_slice(&printed);
}

/// An exchange that stands for `stream` as it is now.
pub(crate) fn exchange_of(stream: &StreamExchange) -> Exchange {
    let mut exchange = Exchange::new();
    exchange.started_at_ms = stream.started_at_ms;
    exchange.client.connection = stream.connection;
    exchange.client.peer = stream.client;
    exchange.client.ip = stream.client.ip();
    exchange.client.local_ip = stream.local.ip();
    exchange.client.port = stream.local.port();
    exchange.client.tls.clone_from(&stream.tls);
    exchange.client.origin.clone_from(&stream.origin);
    exchange.route.clone_from(&stream.route);
    exchange.service.clone_from(&stream.service);
    exchange.put(Wire { protocol: Some(stream.protocol), sni: stream.sni.clone(), ..Wire::default() });
    exchange
}

/// The exchange that stands for a handshake; made for its first plugin in Lua.
pub(crate) fn stand_in_of(handshake: &mut Handshake) -> &mut Exchange {
    if handshake.context.kept::<StandIn>().is_none() {
        let mut exchange = Exchange::new();
        exchange.client.peer = handshake.client;
        exchange.client.ip = handshake.client.ip();
        exchange.client.local_ip = handshake.local.ip();
        exchange.client.port = handshake.local.port();
        exchange.client.scheme = Scheme::Https;
        exchange.put(Wire { sni: handshake.sni.clone(), ..Wire::default() });
        handshake.context.put(StandIn(exchange));
    }
    &mut handshake.context.kept_mut::<StandIn>().expect("it was put there when it was missing").0
}

/// Take over what plugins want of the handshake.
pub(crate) fn take_over_wishes(handshake: &mut Handshake) {
    let wire = stand_in_of(handshake).kept::<Wire>();
    let (certificate, once) = wire.map_or((false, false), |wire| (wire.request_certificate, wire.no_resumption));
    handshake.request_certificate |= certificate;
    handshake.no_resumption |= once;
}
