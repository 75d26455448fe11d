//! Asking a plugin where the next try goes, after one that failed.

use crate::client::Connection;
use crate::detour::{AsSaid, Detoured};
use crate::error::ProxyError;
use crate::instance::fence;
use crate::plan::Backend;
use crate::upstream::Asking;
use gateward_http::BodyFraming;
use gateward_plugin::{BeforeRetry, Exchange};
use gateward_telemetry::WorkerMetrics;

/// The way that a plugin wants the next try to take; `None`: the one of the last try. As in Kong, nobody is asked where the
/// targets of an upstream are balanced over.
///
/// # Errors
/// What the plugin wants of TLS cannot be used, or it panicked.
pub(crate) fn other_way(
    connection: &mut Connection<'_>,
    asking: &Asking<'_>,
    said: &AsSaid<'_>,
) -> Result<Option<Box<Detoured>>, ProxyError> {
    let exchange = &mut connection.session.exchange;
    let asked = exchange.upstream.detour.as_ref().and_then(|detour| detour.before_retry.clone());
    let (Some(asked), Backend::Host(_)) = (asked, asking.backend) else { return Ok(None) };
    let streams = exchange.body.is_none() && exchange.request.framing != BodyFraming::None;
    let goes = ask(&connection.worker.metrics, &*asked, exchange)?;
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

/// Whether the next try goes by what was said. A panic ends the request, as in any phase.
fn ask(metrics: &WorkerMetrics, asked: &dyn BeforeRetry, exchange: &mut Exchange) -> Result<bool, ProxyError> {
    fence(metrics, || asked.ask(exchange)).map_err(|_| {
        tracing::error!(?asked, "a plugin panicked that was asked where the next try goes; the request got a 500");
        ProxyError::PluginPanic
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateward_telemetry::{Counter, Limits, Telemetry};

    /// Knows one way, and nothing to do after that.
    #[derive(Debug)]
    struct Once;

    impl BeforeRetry for Once {
        fn ask(&self, exchange: &mut Exchange) -> bool {
            assert!(exchange.upstream.detour.is_none(), "as a test");
            exchange.upstream.detour_mut().target = Some(("b.test".to_owned(), 80));
            true
        }
    }

    #[test]
    fn a_panic_of_who_is_asked_costs_the_request_only() {
        let telemetry = Telemetry::new(1, Limits::default());
        let metrics = telemetry.worker(0);
        let mut exchange = Exchange::new();
        assert_eq!(ask(&metrics, &Once, &mut exchange), Ok(true));
        assert!(exchange.upstream.detour.is_some());
        assert_eq!(ask(&metrics, &Once, &mut exchange), Err(ProxyError::PluginPanic));
        assert_eq!(telemetry.snapshot().counter(Counter::PluginPanics), 1);
    }
}
