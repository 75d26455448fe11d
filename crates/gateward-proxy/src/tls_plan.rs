//! TLS of a plan: certificates by server name for clients, and how each service's upstream is spoken to.
//!
//! Everything that can be wrong with a certificate is found here, off the request path, and named by entity; a snapshot
//! with one that cannot be used is not served.

use gateward_model::{Certificate, Config, EntityId, Protocol, Service, Upstream};
use gateward_net::tls::{
    Certificates, Client, ClientOptions, Context, Identity, KeyPair, Server, TlsError, check_authority,
};
use gateward_plugin::Detour;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Services without verification that a warning names.
const NAMED: usize = 5;

/// What of TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsPlanError {
    /// A certificate, an authority or what a service says.
    #[error("{kind} '{id}': {error}")]
    Entity {
        /// The entity's kind, in the singular.
        kind: &'static str,
        /// The entity.
        id: EntityId,
        /// What is wrong.
        error: TlsError,
    },
    /// Settings of the process leave nothing to speak TLS with.
    #[error(transparent)]
    Settings(TlsError),
}

/// What a plugin wants otherwise of the TLS of a service's upstream; equal ones have one client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Change {
    service: EntityId,
    verify: Option<bool>,
    depth: Option<u8>,
    /// Fingerprints.
    authorities: Option<[u8; 32]>,
    identity: Option<[u8; 32]>,
}

/// Changed clients that are kept.
const CHANGED: usize = 1024;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct TlsPlan {
    pub(crate) server: Server,
    /// What clients may be shown, by entity.
    shown: Vec<(EntityId, Arc<KeyPair>)>,
    default: Arc<KeyPair>,
    /// By service.
    clients: HashMap<EntityId, Arc<Client>>,
    /// What every service that speaks HTTP says about TLS, for plugins that want it otherwise for one request.
    said: HashMap<EntityId, ClientOptions>,
    context: Arc<Context>,
    /// Made for them.
    changed: Mutex<HashMap<Change, Arc<Client>>>,
    /// Likewise for the active checks of upstreams.
    checks: HashMap<EntityId, Arc<Client>>,
    /// Services whose upstreams are not verified.
    unverified: Vec<String>,
}

impl TlsPlan {
    /// Everything of `config` that concerns TLS.
    ///
    /// # Errors
    /// All that cannot be used.
    pub(crate) fn compile(config: &Config, context: &Arc<Context>) -> Result<Self, Vec<TlsPlanError>> {
        let mut errors = Vec::new();
        let pairs = pairs(config, &mut errors);
        for authority in &config.ca_certificates {
            if let Err(error) = check_authority(&authority.cert) {
                errors.push(TlsPlanError::Entity { kind: "CA certificate", id: authority.id, error });
            }
        }
        let mut certificates = Certificates::default();
        for sni in &config.snis {
            if let Some(identity) = pairs.get(&sni.certificate) {
                certificates.insert(&sni.name, identity.pair.clone());
            }
        }
        let server = context.server(certificates).map_err(|error| errors.push(TlsPlanError::Settings(error)));
        let server = match server {
            Ok(server) if errors.is_empty() => server,
            _ => return Err(errors),
        };
        let shown = pairs.iter().map(|(id, identity)| (*id, identity.pair.clone())).collect();
        let default = context.default_certificate().clone();
        let (clients, checks) = (HashMap::new(), HashMap::new());
        let said = config.services.iter().map(|service| (service.id, options(service, config, &pairs))).collect();
        let (kept, changed) = (context.clone(), Mutex::default());
        let unverified = Vec::new();
        let mut plan = Self { server, shown, default, clients, said, context: kept, changed, checks, unverified };
        for service in config.services.iter().filter(|service| speaks_tls(service)) {
            match context.client(options(service, config, &pairs)) {
                Ok(client) => {
                    if !client.verifies() {
                        plan.unverified.push(service.name.clone().unwrap_or_else(|| service.id.to_string()));
                    }
                    plan.clients.insert(service.id, client);
                }
                Err(error) => errors.push(TlsPlanError::Entity { kind: "service", id: service.id, error }),
            }
        }
        for upstream in config.upstreams.iter().filter(|upstream| is_checked_over_tls(upstream)) {
            match context.client(check_options(upstream, &pairs)) {
                Ok(client) => drop(plan.checks.insert(upstream.id, client)),
                Err(error) => errors.push(TlsPlanError::Entity { kind: "upstream", id: upstream.id, error }),
            }
        }
        if errors.is_empty() { Ok(plan) } else { Err(errors) }
    }

    /// How the upstream of a service is spoken to; `None` in the clear.
    pub(crate) fn client(&self, service: EntityId) -> Option<Arc<Client>> {
        self.clients.get(&service).cloned()
    }

    /// How the upstream of a service is spoken to over TLS when a plugin wants it verified otherwise, or shown another
    /// certificate.
    ///
    /// # Errors
    /// There is nothing to verify with, or what the plugin gave cannot be used.
    pub(crate) fn changed_client(&self, service: EntityId, detour: &Detour) -> Result<Arc<Client>, TlsError> {
        let change = Change {
            service,
            verify: detour.tls_verify,
            depth: detour.tls_verify_depth,
            authorities: detour.tls_authorities.as_ref().map(|authorities| authorities.fingerprint()),
            identity: detour.tls_identity.as_ref().map(|identity| identity.fingerprint()),
        };
        let changed = || self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = changed().get(&change) {
            return Ok(client.clone());
        }
        // Made without the lock: others are not to wait for it.
        let client = self.context.client(self.changed_options(service, detour)?)?;
        let mut changed = changed();
        // Certificates of plugins may be without number: all are made anew from time to time.
        if changed.len() >= CHANGED {
            changed.clear();
        }
        changed.insert(change, client.clone());
        Ok(client)
    }

    fn changed_options(&self, service: EntityId, detour: &Detour) -> Result<ClientOptions, TlsError> {
        let mut options = self.said.get(&service).cloned().unwrap_or_default();
        options.verify = detour.tls_verify.or(options.verify);
        options.depth = detour.tls_verify_depth.or(options.depth);
        if let Some(authorities) = &detour.tls_authorities {
            options.authorities = Some(authorities.certs().to_vec());
            options.with_trusted = authorities.with_trusted();
        }
        if let Some(identity) = &detour.tls_identity {
            let pair = KeyPair::parse(identity.cert(), identity.key().expose(), None)?;
            // An entity's text may be two certificates for two kinds of keys: never the same as one with its chain.
            options.identity = Some(Identity { pair: Arc::new(pair), cert: format!("\0{}", identity.cert()) });
        }
        Ok(options)
    }

    /// Certificates that are out of their time at `now` (seconds since 1970), and how.
    pub(crate) fn lapsed(&self, now: u64) -> Vec<(EntityId, String)> {
        self.shown.iter().filter_map(|(id, pair)| Some((*id, pair.lapse(now)?))).collect()
    }

    /// What an operator should know about the rest, at `now`.
    pub(crate) fn warnings(&self, now: u64) -> Vec<String> {
        let default = self.default.lapse(now).map(|lapse| format!("the default certificate {lapse}"));
        default.into_iter().chain(self.unverified_warning()).collect()
    }

    /// How the targets of an upstream are checked; `None` in the clear, or not at all.
    pub(crate) fn checks(&self, upstream: EntityId) -> Option<Arc<Client>> {
        self.checks.get(&upstream).cloned()
    }

    /// That upstreams are not verified is Kong's default and no good one.
    fn unverified_warning(&self) -> Option<String> {
        let count = self.unverified.len();
        let named = self.unverified.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if count > NAMED { ", ..." } else { "" };
        (count > 0).then(|| {
            format!(
                "{count} service(s) do not verify their upstream's certificate ({named}{more}): anyone in between can read \
                 and change what is sent; set tls_verify: true on them, or --tls-certificate-verify on for all"
            )
        })
    }
}

fn speaks_tls(service: &Service) -> bool {
    matches!(service.protocol, Protocol::Https | Protocol::Grpcs | Protocol::Tls)
}

fn is_checked_over_tls(upstream: &Upstream) -> bool {
    let active = &upstream.healthchecks.0["active"];
    let runs = |kind: &str| active[kind]["interval"].as_f64().is_some_and(|seconds| seconds > 0.0);
    matches!(active["type"].as_str(), Some("https" | "grpcs")) && (runs("healthy") || runs("unhealthy"))
}

/// Authorities and depth are the process' (lua-resty-healthcheck, `run_single_check`).
fn check_options(upstream: &Upstream, pairs: &HashMap<EntityId, Identity>) -> ClientOptions {
    let verify = upstream.healthchecks.0["active"]["https_verify_certificate"].as_bool();
    ClientOptions {
        verify: Some(verify.unwrap_or(true)),
        identity: upstream.client_certificate.and_then(|id| pairs.get(&id).cloned()),
        ..ClientOptions::default()
    }
}

/// Every certificate with its key, by id.
fn pairs(config: &Config, errors: &mut Vec<TlsPlanError>) -> HashMap<EntityId, Identity> {
    let mut pairs = HashMap::new();
    for certificate in &config.certificates {
        let Certificate { id, cert, key, cert_alt, key_alt, .. } = &**certificate;
        let alternative = cert_alt.as_deref().zip(key_alt.as_ref().map(|key| key.expose()));
        match KeyPair::parse(cert, key.expose(), alternative) {
            Ok(pair) => {
                let cert = format!("{cert}{}", cert_alt.as_deref().unwrap_or_default());
                pairs.insert(*id, Identity { pair: Arc::new(pair), cert });
            }
            Err(error) => errors.push(TlsPlanError::Entity { kind: "certificate", id: *id, error }),
        }
    }
    pairs
}

/// What a service says, and for the client certificate its upstream when the service says nothing
/// (kong/runloop/balancer/init.lua).
fn options(service: &Service, config: &Config, pairs: &HashMap<EntityId, Identity>) -> ClientOptions {
    let upstream = || config.upstreams.iter().find(|upstream| upstream.name == service.host)?.client_certificate;
    let certificate = service.client_certificate.or_else(upstream);
    let authority = |id: &EntityId| Some(config.ca_certificates.iter().find(|it| it.id == *id)?.cert.clone());
    let authorities = service.ca_certificates.as_ref().filter(|ids| !ids.is_empty());
    ClientOptions {
        verify: service.tls_verify,
        depth: service.tls_verify_depth,
        authorities: authorities.map(|ids| ids.iter().filter_map(authority).collect()),
        with_trusted: false,
        identity: certificate.and_then(|id| pairs.get(&id).cloned()),
    }
}
