//! Resolved entities to the typed model. The field names agree, so serde does the work.

use crate::diagnostic::Report;
use crate::kinds::{KINDS, index_of};
use crate::resolve::Resolved;
use gateward_model::{Config, GenericEntity};
use gateward_yaml::{Path, Position};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// Kinds that have no type of their own yet.
const GENERIC: &[&str] =
    &["key_sets", "keys", "jwt_secrets", "hmacauth_credentials", "oauth2_credentials", "filter_chains"];

/// Build the model.
pub(crate) fn build(mut resolved: Resolved, report: &mut Report) -> Config {
    let mut config = Config {
        services: take("services", &mut resolved, report),
        routes: take("routes", &mut resolved, report),
        upstreams: take("upstreams", &mut resolved, report),
        targets: take("targets", &mut resolved, report),
        consumers: take("consumers", &mut resolved, report),
        keyauth_credentials: take("keyauth_credentials", &mut resolved, report),
        basicauth_credentials: take("basicauth_credentials", &mut resolved, report),
        acls: take("acls", &mut resolved, report),
        plugins: take("plugins", &mut resolved, report),
        certificates: take("certificates", &mut resolved, report),
        snis: take("snis", &mut resolved, report),
        ca_certificates: take("ca_certificates", &mut resolved, report),
        vaults: take("vaults", &mut resolved, report),
        others: std::collections::BTreeMap::new(),
    };
    for kind in GENERIC {
        let entities: Vec<Arc<GenericEntity>> = take(kind, &mut resolved, report);
        if !entities.is_empty() {
            config.others.insert((*kind).to_owned(), entities);
        }
    }
    config
}

fn take<T: DeserializeOwned>(kind: &str, resolved: &mut Resolved, report: &mut Report) -> Vec<Arc<T>> {
    let Some(kind) = index_of(kind) else { return Vec::new() };
    let mut entities = Vec::with_capacity(resolved[kind].len());
    for (index, fields) in std::mem::take(&mut resolved[kind]).into_iter().enumerate() {
        match serde_json::from_value(Value::Object(fields)) {
            Ok(entity) => entities.push(Arc::new(entity)),
            // The schema lets nothing through that the type refuses; should it, the file is refused, not the process ended.
            Err(error) => {
                let message = format!("{}[{index}] cannot be represented: {error}", KINDS[kind].name);
                report.error(Position { line: 1, column: 1 }, &Path::Text(KINDS[kind].name), message, None);
            }
        }
    }
    entities
}
