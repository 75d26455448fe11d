//! Asking a plugin where the next try goes, after one that failed.

use crate::client::Connection;
use crate::detour::{AsSaid, Detoured};
use crate::error::ProxyError;
use crate::plan::Backend;
use crate::upstream::Asking;
use gateward_http::BodyFraming;

/// The way that a plugin wants the next try to take; `None`: the one of the last try. As in Kong, nobody is asked where the
/// targets of an upstream are balanced over.
///
/// # Errors
/// What the plugin wants of TLS cannot be used.
pub(crate) fn other_way(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    said: &AsSaid<'_>,
) -> Result<Option<Box<Detoured>>, ProxyError> {
    let exchange = &mut connection.session.exchange;
    let asked = exchange.upstream.detour.as_ref().and_then(|detour| detour.before_retry.clone());
    let (Some(asked), Backend::Host(_)) = (asked, asking.backend) else { return Ok(None) };
    let streams = exchange.body.is_none() && exchange.request.framing != BodyFraming::None;
    let goes = asked.ask(exchange);
    if streams && exchange.body.take().is_some() {
        tracing::warn!(
            "a plugin gives a request another body between two tries: the client's is on its way already and stays"
        );
    }
    match &exchange.upstream.detour {
        Some(detour) if goes => said.detoured(detour).map(Some),
        _ => Ok(None),
    }
}
