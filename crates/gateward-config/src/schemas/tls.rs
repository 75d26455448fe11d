//! Certificates, server names, certificate authorities, vaults, keys and key sets.

use super::{entity, name, text, updated_at};
use gateward_model::schema::{Check, Field, Rule, Schema};

fn key() -> Field {
    text().secret().referenceable()
}

pub(crate) fn certificates() -> Schema {
    entity(vec![
        updated_at(),
        ("cert", text().referenceable().required()),
        ("key", key().required()),
        ("cert_alt", text().referenceable()),
        ("key_alt", key()),
    ])
    .check(Check::MutuallyRequired(vec!["cert_alt".into(), "key_alt".into()]))
}

pub(crate) fn snis() -> Schema {
    entity(vec![
        updated_at(),
        ("name", Field::string().rule(Rule::Custom(crate::names::sni)).required()),
        ("certificate", Field::foreign("certificates").required()),
    ])
}

pub(crate) fn ca_certificates() -> Schema {
    entity(vec![updated_at(), ("cert", text().required()), ("cert_digest", text())])
}

pub(crate) fn vaults() -> Schema {
    entity(vec![
        updated_at(),
        ("prefix", Field::string().rule(Rule::Match("^[a-z][a-z0-9-]*[a-z0-9]$".into())).required()),
        ("name", Field::string().one_of(&["env"]).required()),
        ("description", Field::string()),
        ("config", Field::record(env_vault()).required()),
    ])
}

/// Settings of the `env` vault (kong/vaults/env/schema.lua). Resolved values are kept for a whole snapshot, so
/// the times to live are accepted and have no effect.
fn env_vault() -> Schema {
    let seconds = || Field::number().rule(Rule::Between(0.0, 100_000_000.0));
    Schema::new([
        ("prefix", Field::string().rule(Rule::Match("^[A-Za-z0-9_-]*$".into()))),
        ("base64_decode", Field::boolean().rule(Rule::OneOf(vec![false.into()])).default(false)),
        ("ttl", seconds()),
        ("neg_ttl", seconds()),
        ("resurrect_ttl", seconds()),
    ])
}

pub(crate) fn key_sets() -> Schema {
    entity(vec![updated_at(), ("name", name())])
}

pub(crate) fn keys() -> Schema {
    let pem = Schema::new([("private_key", key()), ("public_key", text().referenceable())])
        .check(Check::AtLeastOneOf(vec!["private_key".into(), "public_key".into()]));
    entity(vec![
        updated_at(),
        ("name", name()),
        ("kid", text().required()),
        ("jwk", key()),
        ("pem", Field::record(pem)),
        ("set", Field::foreign("key_sets")),
    ])
    .check(Check::OnlyOneOf(vec!["jwk".into(), "pem".into()]))
}
