//! Consumers, their credentials and groups; plugins and filter chains.

use super::{entity, name, protocol, text, updated_at};
use gateward_model::schema::{Check, Field, Rule, Schema};
use serde_json::json;

pub(crate) fn consumers() -> Schema {
    entity(vec![updated_at(), ("username", text()), ("custom_id", text())])
        .check(Check::AtLeastOneOf(vec!["username".into(), "custom_id".into()]))
}

fn consumer() -> (&'static str, Field) {
    ("consumer", Field::foreign("consumers").required())
}

/// A secret that may come from a vault.
fn secret() -> Field {
    text().secret().referenceable()
}

pub(crate) fn keyauth_credentials() -> Schema {
    let ttl = Field::integer().rule(Rule::Between(0.0, 100_000_000.0));
    entity(vec![("key", secret()), ("ttl", ttl), consumer()])
}

pub(crate) fn basicauth_credentials() -> Schema {
    entity(vec![("username", text().required()), ("password", secret().required()), consumer()])
}

pub(crate) fn acls() -> Schema {
    entity(vec![("group", text().required()), consumer()])
}

pub(crate) fn jwt_secrets() -> Schema {
    let algorithms = [
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512",
        "EdDSA",
    ];
    entity(vec![
        ("key", text().referenceable()),
        ("secret", secret()),
        ("rsa_public_key", text()),
        ("algorithm", Field::string().one_of(&algorithms).default("HS256")),
        consumer(),
    ])
}

pub(crate) fn hmacauth_credentials() -> Schema {
    entity(vec![("username", text().required()), ("secret", secret()), consumer()])
}

pub(crate) fn oauth2_credentials() -> Schema {
    entity(vec![
        ("name", text().required()),
        ("client_id", text()),
        ("client_secret", secret()),
        ("redirect_uris", Field::array(text())),
        ("hash_secret", Field::boolean().default(false)),
        ("client_type", Field::string().one_of(&["confidential", "public"]).default("confidential")),
        consumer(),
    ])
}

/// `config` is walked with the plugin's own schema, which depends on `name`.
pub(crate) fn plugins() -> Schema {
    let protocols = Field::set(protocol()).rule(Rule::LenMin(1)).default(json!(["grpc", "grpcs", "http", "https"]));
    entity(vec![
        updated_at(),
        ("name", text().required()),
        ("instance_name", name()),
        ("enabled", Field::boolean().default(true)),
        ("protocols", protocols),
        ("route", Field::foreign("routes")),
        ("service", Field::foreign("services")),
        ("consumer", Field::foreign("consumers")),
        ("config", Field::any()),
    ])
}

pub(crate) fn filter_chains() -> Schema {
    let filter = Schema::new([
        ("name", text().required()),
        ("enabled", Field::boolean().default(true)),
        ("config", Field::any()),
    ]);
    entity(vec![
        updated_at(),
        ("name", name()),
        ("enabled", Field::boolean().default(true)),
        ("route", Field::foreign("routes")),
        ("service", Field::foreign("services")),
        ("filters", Field::array(Field::record(filter)).rule(Rule::LenMin(1)).required()),
    ])
}
