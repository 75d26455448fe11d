//! The kinds of entities as the Admin API knows them: their paths, names, keys and parents.
//!
//! Values are shown as Kong shows them: references are `{"id": ...}`.

use gateward_model::{
    AclGroup, BasicAuthCredential, CaCertificate, Certificate, Config, Consumer, EntityId, GenericEntity,
    KeyAuthCredential, PluginConfig, Route, Service, Sni, Target, Upstream, Vault,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Fields that refer to another entity.
const REFERENCES: &[&str] = &["service", "route", "consumer", "upstream", "certificate", "client_certificate", "set"];

/// An entity of any kind.
pub(crate) trait Entity {
    /// Its id.
    fn id(&self) -> EntityId;
    /// The name by which it can be asked for besides its id.
    fn key(&self) -> Option<&str>;
    /// All fields, as in the model.
    fn fields(&self) -> Map<String, Value>;
    /// The entity that `field` refers to.
    fn parent(&self, field: &str) -> Option<EntityId>;
    /// Its tags.
    fn tags(&self) -> &[String];

    /// As Kong shows it.
    fn shown(&self) -> Value {
        let mut fields = self.fields();
        for name in REFERENCES {
            if let Some(value @ Value::String(_)) = fields.get_mut(*name) {
                *value = json!({ "id": value.take() });
            }
        }
        Value::Object(fields)
    }
}

fn fields_of(entity: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(entity) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Implements [`Entity`]: the key as an expression, and the fields that are parents.
macro_rules! entity {
    ($kind:ty, |$entity:ident| $key:expr, {$($parent:literal => $id:expr),*}) => {
        impl Entity for $kind {
            fn id(&self) -> EntityId {
                self.id
            }
            fn key(&self) -> Option<&str> {
                let $entity = self;
                $key
            }
            fn fields(&self) -> Map<String, Value> {
                fields_of(self)
            }
            fn parent(&self, field: &str) -> Option<EntityId> {
                let $entity = self;
                let _ = $entity;
                match field {
                    $($parent => $id,)*
                    _ => None,
                }
            }
            fn tags(&self) -> &[String] {
                self.tags.as_deref().unwrap_or_default()
            }
        }
    };
}

entity!(Service, |it| it.name.as_deref(), { "client_certificate" => it.client_certificate });
entity!(Route, |it| it.name.as_deref(), { "service" => it.service });
entity!(Upstream, |it| Some(&it.name), { "client_certificate" => it.client_certificate });
entity!(Target, |it| Some(&it.target), { "upstream" => Some(it.upstream) });
entity!(Consumer, |it| it.username.as_deref(), {});
entity!(KeyAuthCredential, |it| Some(it.key.expose()), { "consumer" => Some(it.consumer) });
entity!(BasicAuthCredential, |it| Some(&it.username), { "consumer" => Some(it.consumer) });
entity!(AclGroup, |it| Some(&it.group), { "consumer" => Some(it.consumer) });
entity!(PluginConfig, |it| it.instance_name.as_deref(),
    { "service" => it.service, "route" => it.route, "consumer" => it.consumer });
entity!(Certificate, |_it| None, {});
entity!(Sni, |it| Some(&it.name), { "certificate" => Some(it.certificate) });
entity!(CaCertificate, |_it| None, {});
entity!(Vault, |it| Some(&it.prefix), {});

impl Entity for GenericEntity {
    fn id(&self) -> EntityId {
        self.id
    }

    fn key(&self) -> Option<&str> {
        ["name", "key", "username", "client_id"].iter().find_map(|field| self.fields.get(*field)?.as_str())
    }

    fn fields(&self) -> Map<String, Value> {
        fields_of(self)
    }

    fn parent(&self, field: &str) -> Option<EntityId> {
        self.fields.get(field)?.as_str().and_then(EntityId::parse)
    }

    fn tags(&self) -> &[String] {
        // Tags of entities that nothing reads cannot be asked for.
        &[]
    }
}

/// One kind.
pub(crate) struct Kind {
    /// First segment of its path, and last of it below a parent.
    pub(crate) path: &'static str,
    /// Name in files, schemas and messages.
    pub(crate) name: &'static str,
    /// Path below a parent, where it differs from [`Kind::path`], and the fields of parents.
    nested: &'static str,
    parents: &'static [&'static str],
}

const fn kind(path: &'static str, name: &'static str, nested: &'static str, parents: &'static [&'static str]) -> Kind {
    Kind { path, name, nested, parents }
}

/// Every kind.
pub(crate) const KINDS: &[Kind] = &[
    kind("services", "services", "services", &["client_certificate"]),
    kind("routes", "routes", "routes", &["service"]),
    kind("upstreams", "upstreams", "upstreams", &["client_certificate"]),
    kind("targets", "targets", "targets", &["upstream"]),
    kind("consumers", "consumers", "consumers", &[]),
    kind("plugins", "plugins", "plugins", &["service", "route", "consumer"]),
    kind("certificates", "certificates", "certificates", &[]),
    kind("snis", "snis", "snis", &["certificate"]),
    kind("ca_certificates", "ca_certificates", "ca_certificates", &[]),
    kind("vaults", "vaults", "vaults", &[]),
    kind("key-auths", "keyauth_credentials", "key-auth", &["consumer"]),
    kind("basic-auths", "basicauth_credentials", "basic-auth", &["consumer"]),
    kind("acls", "acls", "acls", &["consumer"]),
    kind("jwts", "jwt_secrets", "jwt", &["consumer"]),
    kind("hmac-auths", "hmacauth_credentials", "hmac-auth", &["consumer"]),
    kind("oauth2", "oauth2_credentials", "oauth2", &["consumer"]),
    kind("keys", "keys", "keys", &["set"]),
    kind("key-sets", "key_sets", "key-sets", &[]),
    kind("filter-chains", "filter_chains", "filter-chains", &["service", "route"]),
];

impl Kind {
    /// The kind at the top of a path.
    pub(crate) fn at(path: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.path == path)
    }

    /// The kind below entities of `parent`, and its field that refers to them.
    pub(crate) fn below(parent: &Self, path: &str) -> Option<(&'static Self, &'static str)> {
        let kind = KINDS.iter().find(|kind| kind.nested == path)?;
        let field = kind.parents.iter().find(|field| kind_of(field) == parent.name)?;
        Some((kind, field))
    }

    /// The kind that `field` of this one refers to, for paths such as `/routes/{route}/service`.
    pub(crate) fn above(&self, field: &str) -> Option<&'static Self> {
        self.parents.contains(&field).then(|| KINDS.iter().find(|kind| kind.name == kind_of(field)))?
    }

    /// All entities of this kind, in file order.
    pub(crate) fn all<'a>(&self, config: &'a Config) -> Vec<&'a dyn Entity> {
        match self.name {
            "services" => list(&config.services),
            "routes" => list(&config.routes),
            "upstreams" => list(&config.upstreams),
            "targets" => list(&config.targets),
            "consumers" => list(&config.consumers),
            "plugins" => list(&config.plugins),
            "certificates" => list(&config.certificates),
            "snis" => list(&config.snis),
            "ca_certificates" => list(&config.ca_certificates),
            "vaults" => list(&config.vaults),
            "keyauth_credentials" => list(&config.keyauth_credentials),
            "basicauth_credentials" => list(&config.basicauth_credentials),
            "acls" => list(&config.acls),
            other => config.others.get(other).map(|entities| list(entities)).unwrap_or_default(),
        }
    }

    /// The entity of this kind with this id or name.
    pub(crate) fn find<'a>(&self, config: &'a Config, id_or_key: &str) -> Option<&'a dyn Entity> {
        find(&self.all(config), id_or_key)
    }
}

fn list<E: Entity>(entities: &[Arc<E>]) -> Vec<&dyn Entity> {
    entities.iter().map(|entity| &**entity as &dyn Entity).collect()
}

/// The entity with this id or name. An id wins.
pub(crate) fn find<'a>(entities: &[&'a dyn Entity], id_or_key: &str) -> Option<&'a dyn Entity> {
    let by_id = EntityId::parse(id_or_key).and_then(|id| entities.iter().find(|entity| entity.id() == id));
    by_id.or_else(|| entities.iter().find(|entity| entity.key() == Some(id_or_key))).copied()
}

/// The kind that a field refers to.
fn kind_of(field: &str) -> &'static str {
    match field {
        "service" => "services",
        "route" => "routes",
        "consumer" => "consumers",
        "upstream" => "upstreams",
        "set" => "key_sets",
        _ => "certificates",
    }
}
