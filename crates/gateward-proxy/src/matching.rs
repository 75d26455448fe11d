//! From a request to its route: normalise the path, look it up, and prepare what the upstream will be asked.

use crate::client::Connection;
use crate::error::{ProxyError, status_message};
use crate::grpc;
use crate::instance::ChainId;
use crate::outcome::Verdict;
use crate::worker::WorkerPlan;
use gateward_http::Method;
use gateward_http::headers::Name;
use gateward_http::uri::{escape_path, normalize_path, split_authority};
use gateward_plugin::{Exchange, LocalResponse, Scheme};
use gateward_route::{Found, Input, PathMatch, upstream_path};
use std::net::SocketAddr;

const MAX_FORWARDS: Name<'static> = Name::new("max-forwards");

/// What looking for a route came to.
pub(crate) enum Matched {
    /// A route; its plugins are these.
    Route { chain: ChainId },
    /// The request is answered without one.
    Ended(Verdict),
}

impl Matched {
    pub(crate) fn ended(verdict: Verdict) -> Self {
        Self::Ended(verdict)
    }
}

/// Find the route and set everything of the exchange that follows from it. An OPTIONS request that may go no
/// further is answered here (RFC 9110 section 7.6.2).
pub(crate) fn find(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Matched {
    let session = &mut *connection.session;
    let exchange = &mut session.exchange;
    if exchange.request.method == Method::Options && exchange.request.headers.get(MAX_FORWARDS) == Some(b"0") {
        return Matched::Ended(Verdict::Respond(LocalResponse::empty(200)));
    }
    if normalize_path(exchange.request.raw_path(), true, &mut exchange.path).is_err() {
        return Matched::Ended(Verdict::Fail(ProxyError::Path));
    }
    let Some(found) = plan.shared.router.find(&input(exchange, session.local)) else {
        return Matched::Ended(Verdict::Fail(ProxyError::NoRoute));
    };
    session.route = Some(found.index);
    let (route, service) = plan.entry(found.index);
    exchange.matched(route, service.as_ref());

    let matched = capture(&found, exchange);
    session.scratch.clear();
    exchange.upstream.path.clear();
    let service_path = service.as_ref().and_then(|service| service.path.as_deref());
    upstream_path(service_path, route.strip_path, &exchange.path, matched, &mut session.scratch);
    escape_path(&session.scratch, &mut exchange.upstream.path);
    // A plugin may have set another before; nothing in place of one that is empty.
    exchange.upstream.query = match exchange.upstream.query.take() {
        Some(query) => Some(query).filter(|query| !query.is_empty()),
        None => exchange.request.query().map(str::to_owned),
    };
    if route.strip_path && matched > 1 && exchange.client.forwarded_prefix.is_empty() {
        let prefix = exchange.path.get(..matched).unwrap_or_default();
        exchange.client.forwarded_prefix.push_str(prefix.strip_suffix('/').unwrap_or(prefix));
    }

    let route_plan = &plan.shared.routes[found.index];
    if route_plan.https_only && exchange.client.forwarded_proto == Scheme::Http {
        let answer = https_required(exchange, route.https_redirect_status_code);
        return Matched::Ended(Verdict::Respond(answer));
    }
    if let Some(answer) = grpc::refusal(exchange, route_plan) {
        return Matched::Ended(Verdict::Respond(answer));
    }
    Matched::Route { chain: route_plan.chain }
}

fn input(exchange: &Exchange, local: SocketAddr) -> Input<'_> {
    let request = &exchange.request;
    let (host, port) = split_authority(&request.authority);
    Input {
        method: exchange.upstream.method.as_ref().unwrap_or(&request.method).as_str(),
        host,
        port,
        local_port: local.port(),
        path: &exchange.path,
        query: request.query(),
        headers: &request.headers,
        scheme: match exchange.client.scheme {
            Scheme::Http => gateward_route::Scheme::Http,
            Scheme::Https => gateward_route::Scheme::Https,
        },
        sni: exchange.client.tls.as_deref().and_then(|tls| tls.sni.as_deref()),
        vpce_id: exchange.client.origin.as_deref().and_then(|origin| origin.vpce_id.as_deref()),
        src: SocketAddr::new(exchange.client.ip, exchange.client.peer.port()),
        dst: local,
    }
}

/// Bytes of the path that the route's rule matched; fills the captures of a regex.
fn capture(found: &Found<'_>, exchange: &mut Exchange) -> usize {
    let regex = match found.path {
        PathMatch::None => return 0,
        PathMatch::Prefix(length) => return length,
        PathMatch::Regex(regex) => regex,
    };
    let Some(captures) = regex.captures(&exchange.path) else { return 0 };
    let text = |group: Option<regex::Match<'_>>| group.map(|group| group.as_str().to_owned()).unwrap_or_default();
    exchange.captures.unnamed.extend(captures.iter().map(text));
    let named = regex.capture_names().flatten().map(|name| (name.to_owned(), text(captures.name(name))));
    exchange.captures.named.extend(named);
    captures.get(0).map_or(0, |whole| whole.len())
}

/// Kong's answer for a route that takes HTTPS only (kong/runloop/handler.lua, access).
fn https_required(exchange: &Exchange, status: u16) -> LocalResponse {
    if status == 426 {
        return LocalResponse::message(426, status_message(426))
            .header("Connection", "Upgrade")
            .header("Upgrade", "TLS/1.2, HTTP/1.1");
    }
    let location = format!("https://{}{}", exchange.forwarded_host(), exchange.request.target);
    LocalResponse::message(status, "Moved").header("Location", location)
}
