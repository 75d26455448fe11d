//! Where a stream goes: as its service says, or as a plugin wants it.

use super::error::StreamError;
use super::session::Session;
use crate::detour::Detoured;
use crate::error::ProxyError;
use crate::plan::Backend;
use crate::worker::WorkerPlan;
use gateward_model::Service;
use gateward_net::tls::Client;

/// See the module's text.
pub(super) enum Way<'a> {
    Straight { service: &'a Service, backend: Backend, tls: Option<&'a Client> },
    Detoured(Box<Detoured>),
}

impl<'a> Way<'a> {
    /// The way of a stream that takes `route`.
    ///
    /// # Errors
    /// The route has no service, or what a plugin wants of TLS cannot be used.
    pub(super) fn of(plan: &'a WorkerPlan, session: &Session, route: usize) -> Result<Self, StreamError> {
        let entry = &plan.shared.stream_router.routes()[route];
        let route = &plan.shared.stream_routes[route];
        let (Some(service), Some(backend)) = (entry.service.as_deref(), route.backend) else {
            return Err(StreamError::NoService);
        };
        let Some(detour) = &session.exchange.detour else {
            return Ok(Self::Straight { service, backend, tls: route.tls.as_deref() });
        };
        let detoured = Detoured::new(&plan.shared, service, backend, route.tls.as_ref(), detour);
        let detoured = detoured.map_err(|error| {
            tracing::warn!(service = service.name, %error, "a plugin's TLS settings cannot be used");
            ProxyError::UpstreamTls
        })?;
        Ok(Self::Detoured(Box::new(detoured)))
    }

    pub(super) fn service(&self) -> &Service {
        match self {
            Self::Straight { service, .. } => service,
            Self::Detoured(detoured) => &detoured.service,
        }
    }

    pub(super) fn backend(&self) -> Backend {
        match self {
            Self::Straight { backend, .. } => *backend,
            Self::Detoured(detoured) => detoured.backend,
        }
    }

    pub(super) fn tls(&self) -> Option<&Client> {
        match self {
            Self::Straight { tls, .. } => *tls,
            Self::Detoured(detoured) => detoured.tls.as_deref(),
        }
    }
}
