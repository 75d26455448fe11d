//! Entity ids: UUIDs, made from names the way Kong makes them so that ids agree across nodes and reloads.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Kong's namespace for ids generated from declarative configuration (kong/db/schema/others/declarative_config.lua).
const DECLARATIVE_NAMESPACE: Uuid = Uuid::from_u128(0xfd02801f_0957_4a15_a55a_c8d9606f30b5);

/// The id of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct EntityId(pub Uuid);

impl EntityId {
    /// The id for `key` of `entity` (`services`, `routes`, ...): UUIDv5 in the entity's own namespace.
    pub fn derived(entity: &str, key: &str) -> Self {
        let namespace = Uuid::new_v5(&DECLARATIVE_NAMESPACE, entity.as_bytes());
        Self(Uuid::new_v5(&namespace, key.as_bytes()))
    }

    /// The id written as text, `None` when it is not a UUID.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl std::fmt::Display for EntityId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}
