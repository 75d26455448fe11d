//! The schema of every entity of the format, as data (kong/db/schema/entities/*.lua).
//!
//! One file per family. Rules that need more than one field and cannot be said as data are in `checks`.

mod access;
mod proxy;
mod resilience;
mod tls;

use gateward_model::schema::{Field, Rule, Schema};

pub(crate) use access::{
    acls, basicauth_credentials, consumers, filter_chains, hmacauth_credentials, jwt_secrets, keyauth_credentials,
    oauth2_credentials, plugins,
};
pub(crate) use proxy::{routes, services, targets, upstreams};
pub(crate) use tls::{ca_certificates, certificates, key_sets, keys, snis, vaults};

/// An entity's schema: the fields all entities share, and its own.
fn entity(fields: Vec<(&'static str, Field)>) -> Schema {
    let mut all = vec![
        ("id", Field::string().rule(Rule::IsUuid)),
        ("created_at", Field::number().rule(Rule::Between(0.0, MAX_TIME))),
    ];
    all.extend(fields);
    all.push(("tags", Field::set(Field::string().rule(Rule::Custom(crate::names::tag)))));
    Schema::new(all)
}

/// Unix seconds an entity may be dated to: 2^53, beyond which a float is not exact.
const MAX_TIME: f64 = 9_007_199_254_740_992.0;

fn updated_at() -> (&'static str, Field) {
    ("updated_at", Field::number().rule(Rule::Between(0.0, MAX_TIME)))
}

/// The unique name of an entity.
fn name() -> Field {
    Field::string().rule(Rule::Custom(crate::names::name))
}

/// Any text but the empty one.
fn text() -> Field {
    Field::string().rule(Rule::LenMin(1))
}

fn port() -> Field {
    Field::integer().between(0, 65535)
}

/// `protocol` of services, routes and plugins. `ws` and `wss` exist in Kong's paid edition only.
fn protocol() -> Field {
    Field::string().one_of(&["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"])
}
