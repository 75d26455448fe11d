//! The kinds of entities: their schemas, keys, and which may be nested in which.
//!
//! Everything the loader knows about a kind besides its schema is in this one table.

use crate::schemas;
use gateward_model::schema::{Kind, Schema};
use std::sync::LazyLock;

/// One kind of entity.
pub(crate) struct EntityKind {
    /// `services`, ...
    pub(crate) name: &'static str,
    pub(crate) schema: Schema,
    /// The field by which others may refer to an entity, and from which its id is made.
    pub(crate) key: Option<&'static str>,
    /// The key is a secret and must not show in messages.
    pub(crate) key_is_secret: bool,
    /// Combinations of fields that no two entities may share. A combination applies when its first field is set.
    pub(crate) unique: &'static [&'static [&'static str]],
    /// (field, kind) of references.
    pub(crate) references: Vec<(&'static str, &'static str)>,
    pub(crate) has_updated_at: bool,
}

/// Every kind; a kind stands after those it refers to, so that going through them in order meets no reference
/// to something that has no id yet.
pub(crate) static KINDS: LazyLock<Vec<EntityKind>> = LazyLock::new(|| {
    vec![
        kind("vaults", schemas::vaults(), Some("prefix"), &[&["prefix"]]),
        kind("certificates", schemas::certificates(), None, &[]),
        kind("ca_certificates", schemas::ca_certificates(), Some("cert_digest"), &[&["cert_digest"]]),
        kind("key_sets", schemas::key_sets(), Some("name"), &[&["name"]]),
        kind("consumers", schemas::consumers(), Some("username"), &[&["username"], &["custom_id"]]),
        kind("services", schemas::services(), Some("name"), &[&["name"]]),
        kind("upstreams", schemas::upstreams(), Some("name"), &[&["name"]]),
        kind("routes", schemas::routes(), Some("name"), &[&["name"]]),
        kind("targets", schemas::targets(), Some("target"), &[&["target", "upstream"]]),
        kind("snis", schemas::snis(), Some("name"), &[&["name"]]),
        kind("keys", schemas::keys(), Some("name"), &[&["name"], &["kid", "set"]]),
        kind("keyauth_credentials", schemas::keyauth_credentials(), Some("key"), &[&["key"]]),
        kind("basicauth_credentials", schemas::basicauth_credentials(), Some("username"), &[&["username"]]),
        kind("acls", schemas::acls(), None, &[&["group", "consumer"]]),
        kind("jwt_secrets", schemas::jwt_secrets(), Some("key"), &[&["key"]]),
        kind("hmacauth_credentials", schemas::hmacauth_credentials(), Some("username"), &[&["username"]]),
        kind("oauth2_credentials", schemas::oauth2_credentials(), Some("client_id"), &[&["client_id"]]),
        kind("plugins", schemas::plugins(), None, &[&["name", "route", "service", "consumer"], &["instance_name"]]),
        kind("filter_chains", schemas::filter_chains(), Some("name"), &[&["name"]]),
    ]
});

fn kind(
    name: &'static str,
    schema: Schema,
    key: Option<&'static str>,
    unique: &'static [&'static [&'static str]],
) -> EntityKind {
    let references = schema.fields.iter().filter_map(|(field, definition)| match (field, &definition.kind) {
        (std::borrow::Cow::Borrowed(field), Kind::Foreign(target)) => Some((*field, *target)),
        _ => None,
    });
    let references = references.collect();
    let key_is_secret = key.and_then(|key| schema.field(key)).is_some_and(|field| field.secret);
    let has_updated_at = schema.field("updated_at").is_some();
    EntityKind { name, schema, key, key_is_secret, unique, references, has_updated_at }
}

/// (parent, child, the child's field): which entities may be written inside others.
const NESTED: &[(&str, &str, &str)] = &[
    ("services", "routes", "service"),
    ("services", "plugins", "service"),
    ("services", "filter_chains", "service"),
    ("routes", "plugins", "route"),
    ("routes", "filter_chains", "route"),
    ("upstreams", "targets", "upstream"),
    ("certificates", "snis", "certificate"),
    ("key_sets", "keys", "set"),
    ("consumers", "plugins", "consumer"),
    ("consumers", "keyauth_credentials", "consumer"),
    ("consumers", "basicauth_credentials", "consumer"),
    ("consumers", "acls", "consumer"),
    ("consumers", "jwt_secrets", "consumer"),
    ("consumers", "hmacauth_credentials", "consumer"),
    ("consumers", "oauth2_credentials", "consumer"),
];

/// Index in [`KINDS`].
pub(crate) fn index_of(name: &str) -> Option<usize> {
    KINDS.iter().position(|kind| kind.name == name)
}

/// (child kind, its field that names the parent) of what may be nested in `parent`.
pub(crate) fn children(parent: &str) -> impl Iterator<Item = (usize, &'static str)> {
    let of_parent = NESTED.iter().filter(move |(name, _, _)| *name == parent);
    of_parent.filter_map(|(_, child, field)| index_of(child).map(|child| (child, *field)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_point_backwards() {
        for (at, kind) in KINDS.iter().enumerate() {
            for (field, target) in &kind.references {
                assert!(index_of(target).expect("kind exists") < at, "{}.{field}", kind.name);
            }
        }
    }

    #[test]
    fn nesting_agrees_with_references() {
        for (parent, child, field) in NESTED {
            let child = &KINDS[index_of(child).expect("kind exists")];
            assert!(child.references.contains(&(field, parent)), "{parent} {field}");
        }
    }
}
