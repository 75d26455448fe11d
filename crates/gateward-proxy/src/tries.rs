//! Asking the upstream until it answers: try, and try again where that is allowed.
//!
//! A try is repeated when nothing went out, or when the method is idempotent and the body is still at hand
//! (RFC 9110 section 9.2.2; nginx `proxy_next_upstream error timeout`). A pooled connection that dies before any
//! byte came back says nothing about the target, so repeating on a new connection does not count as a retry. What an
//! upstream's `resilience` record adds is asked of its [`Protection`](crate::protection::Protection).

use crate::client::Connection;
use crate::detour::{AsSaid, Detoured};
use crate::error::ProxyError;
use crate::forward;
use crate::hashing;
use crate::hedge;
use crate::outcome::Local;
use crate::plan::Backend;
use crate::repeat;
use crate::retry;
use crate::upstream::{self, Answered, Asking, Failed, Tries, body_limit};
use crate::worker::WorkerPlan;
use gateward_http::BodyFraming;

/// Send the request of `connection` upstream until an answer's head is there.
pub(crate) async fn ask(connection: &mut Connection<'_>, plan: &WorkerPlan) -> Result<Box<Answered>, Local> {
    let session = &mut *connection.session;
    let backend = session.route.and_then(|route| plan.shared.routes[route].backend);
    let service = session.route.and_then(|route| plan.entry(route).1.as_deref());
    let (Some(service), Some(backend)) = (service, backend) else {
        return Err(Local::Error(ProxyError::NoService));
    };
    let tls = session.route.and_then(|route| plan.shared.routes[route].tls.as_ref());
    let said = AsSaid { plan: &plan.shared, service, backend, tls };
    let detoured = match &session.exchange.upstream.detour {
        None => None,
        Some(detour) => Some(said.detoured(detour).map_err(Local::Error)?),
    };
    let (service, backend, tls) = match &detoured {
        None => (service, backend, tls),
        Some(detoured) => (&detoured.service, detoured.backend, detoured.tls.as_ref()),
    };
    let (hash, protection) = match backend {
        Backend::Upstream(index) => {
            let upstream = plan.upstream(index, connection.worker).borrow();
            let ids = &connection.worker.ids;
            let hash = hashing::hash(upstream.entity(), &mut session.exchange, || {
                format!("{:016x}{:016x}", ids.next(), ids.next())
            });
            (hash, upstream.protection())
        }
        Backend::Host(_) => (None, None),
    };
    if announced_length(connection) > body_limit(connection) {
        return Err(Local::Error(ProxyError::BodyTooLarge));
    }
    adopt_buffered_body(connection);
    forward::count_down(&mut connection.session.exchange.request);
    if let Some(protection) = &protection {
        protection.begin();
    }
    let asking = Asking { plan, service, backend, hash, tls: tls.map(|tls| &**tls), protection };
    let answered = ask_until_answered(connection, &asking, &said).await;
    answered.map_err(|error| connection.session.course.get_mut().local(error))
}

async fn ask_until_answered(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    said: &AsSaid<'_>,
) -> Result<Box<Answered>, ProxyError> {
    let mut tries = Tries { left: asking.service.retries, fresh_only: false };
    let mut elsewhere: Option<Box<Detoured>> = None;
    loop {
        let outcome = match (&elsewhere, &asking.protection) {
            (Some(elsewhere), _) => Box::pin(ask_elsewhere(connection, asking, elsewhere, tries.fresh_only)).await,
            (None, None) => upstream::attempt(connection, asking, tries.fresh_only).await,
            (None, Some(protection)) => Box::pin(hedge::attempt(connection, asking, protection, &mut tries)).await,
        };
        match outcome {
            Ok(answered) => return Ok(answered),
            Err(failed) => {
                let stale = failed.stale;
                repeat::prepare(connection, asking, &mut tries, failed).map_err(|failed| failed.error)?;
                if !stale && let Some(other) = retry::other_way(connection, asking, said)? {
                    elsewhere = Some(other);
                }
            }
        }
    }
}

/// One try on the way that a plugin chose after an earlier one.
async fn ask_elsewhere(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    way: &Detoured,
    fresh_only: bool,
) -> Result<Box<Answered>, Failed> {
    let (service, backend, tls) = (&way.service, way.backend, way.tls.as_deref());
    let asking = Asking { plan: asking.plan, service, backend, hash: asking.hash, tls, protection: None };
    upstream::attempt(connection, &asking, fresh_only).await
}

/// Length of the request body as far as it is known before it is received.
fn announced_length(connection: &Connection<'_>) -> u64 {
    let exchange = &connection.session.exchange;
    match (&exchange.body, exchange.request.framing) {
        (Some(body), _) => body.len() as u64,
        (None, BodyFraming::Length(length)) => length,
        (None, _) => 0,
    }
}

/// Send a body that was buffered for plugins from memory.
fn adopt_buffered_body(connection: &mut Connection<'_>) {
    let session = &mut *connection.session;
    if session.exchange.body.is_some() {
        session.received_bytes += session.upload.body_bytes;
        session.upload.begin(BodyFraming::None, crate::body::Encoder::Raw);
    }
}
