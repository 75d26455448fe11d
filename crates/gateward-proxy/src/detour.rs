//! Where a request goes that a plugin sends elsewhere than its service says, or in another way.

use crate::error::ProxyError;
use crate::plan::{Backend, Plan};
use gateward_model::{Protocol, Service};
use gateward_net::resolve::literal;
use gateward_net::tls::{Client, TlsError};
use gateward_plugin::{Detour, Scheme};
use std::sync::Arc;

/// What the configuration says about the way of a request.
pub(crate) struct AsSaid<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) service: &'a Service,
    pub(crate) backend: Backend,
    pub(crate) tls: Option<&'a Arc<Client>>,
}

impl AsSaid<'_> {
    /// What `detour` makes of it.
    ///
    /// # Errors
    /// What it wants of TLS cannot be used, which is logged.
    pub(crate) fn detoured(&self, detour: &Detour) -> Result<Box<Detoured>, ProxyError> {
        let detoured = Detoured::new(self.plan, self.service, self.backend, self.tls, detour);
        detoured.map(Box::new).map_err(|error| {
            tracing::error!(service = self.service.name, %error, "a plugin's TLS settings cannot be used");
            ProxyError::UpstreamTls
        })
    }
}

/// A service as one request sees it.
pub(crate) struct Detoured {
    pub(crate) service: Service,
    pub(crate) backend: Backend,
    pub(crate) tls: Option<Arc<Client>>,
}

impl Detoured {
    /// What `detour` makes of `service`.
    ///
    /// # Errors
    /// Its certificate cannot be verified, because there are no authorities, or what the plugin gave for TLS cannot be used.
    pub(crate) fn new(
        plan: &Plan,
        service: &Service,
        backend: Backend,
        tls: Option<&Arc<Client>>,
        detour: &Detour,
    ) -> Result<Self, TlsError> {
        let mut changed = Self { service: service.clone(), backend, tls: tls.cloned() };
        if let Some(name) = &detour.upstream
            && let Some(index) = plan.upstreams.iter().position(|upstream| upstream.entity.name == *name)
        {
            changed.backend = Backend::Upstream(index as u32);
        }
        if let Some((host, port)) = &detour.target {
            changed.backend = Backend::Host(literal(host));
            changed.service.host.clone_from(host);
            changed.service.port = *port;
        }
        if let Some(retries) = detour.retries {
            changed.service.retries = retries;
        }
        if let Some([connect, write, read]) = detour.timeouts_ms {
            let Service { connect_timeout, write_timeout, read_timeout, .. } = &mut changed.service;
            (*connect_timeout, *write_timeout, *read_timeout) = (connect, write, read);
        }
        changed.choose_tls(plan, detour)?;
        Ok(changed)
    }

    fn choose_tls(&mut self, plan: &Plan, detour: &Detour) -> Result<(), TlsError> {
        let protocol = &mut self.service.protocol;
        *protocol = match (detour.scheme, *protocol) {
            // A stream's is the service's affair.
            (None, protocol) | (_, protocol @ (Protocol::Tcp | Protocol::Tls | Protocol::Udp)) => protocol,
            (Some(Scheme::Http), Protocol::Grpc | Protocol::Grpcs) => Protocol::Grpc,
            (Some(Scheme::Https), Protocol::Grpc | Protocol::Grpcs) => Protocol::Grpcs,
            (Some(Scheme::Http), _) => Protocol::Http,
            (Some(Scheme::Https), _) => Protocol::Https,
        };
        let speaks_tls = matches!(protocol, Protocol::Https | Protocol::Grpcs | Protocol::Tls);
        let as_said = self.tls.is_some()
            && detour.tls_verify.is_none()
            && detour.tls_verify_depth.is_none()
            && detour.tls_authorities.is_none()
            && detour.tls_identity.is_none();
        if !speaks_tls {
            self.tls = None;
        } else if !as_said {
            self.tls = Some(plan.tls.changed_client(self.service.id, detour)?);
        }
        Ok(())
    }
}
