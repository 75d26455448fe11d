//! Consumers and their credentials, indexed for the request path.

use crate::{AclGroup, BasicAuthCredential, Config, Consumer, EntityId, KeyAuthCredential};
use std::collections::HashMap;
use std::sync::Arc;

/// Look-ups that authentication and authorisation make per request. Built once per snapshot.
#[derive(Debug, Default)]
pub struct Directory {
    by_id: HashMap<EntityId, Arc<Consumer>>,
    by_username: HashMap<String, Arc<Consumer>>,
    keys: HashMap<String, (Arc<KeyAuthCredential>, Arc<Consumer>)>,
    basic: HashMap<String, (Arc<BasicAuthCredential>, Arc<Consumer>)>,
    groups: HashMap<EntityId, Vec<Arc<AclGroup>>>,
}

impl Directory {
    /// Index `config`. Credentials whose consumer does not exist are left out (the loader refuses them).
    pub fn new(config: &Config) -> Self {
        let mut directory = Self::default();
        for consumer in &config.consumers {
            directory.by_id.insert(consumer.id, consumer.clone());
            if let Some(username) = &consumer.username {
                directory.by_username.insert(username.clone(), consumer.clone());
            }
        }
        for credential in &config.keyauth_credentials {
            if let Some(consumer) = directory.by_id.get(&credential.consumer) {
                let entry = (credential.clone(), consumer.clone());
                directory.keys.insert(credential.key.expose().to_owned(), entry);
            }
        }
        for credential in &config.basicauth_credentials {
            if let Some(consumer) = directory.by_id.get(&credential.consumer) {
                let entry = (credential.clone(), consumer.clone());
                directory.basic.insert(credential.username.clone(), entry);
            }
        }
        for group in &config.acls {
            directory.groups.entry(group.consumer).or_default().push(group.clone());
        }
        directory
    }

    /// The consumer with this id.
    pub fn consumer(&self, id: EntityId) -> Option<&Arc<Consumer>> {
        self.by_id.get(&id)
    }

    /// The consumer a plugin's `anonymous` setting names: by id or by username.
    pub fn consumer_by_id_or_username(&self, text: &str) -> Option<&Arc<Consumer>> {
        EntityId::parse(text).and_then(|id| self.by_id.get(&id)).or_else(|| self.by_username.get(text))
    }

    /// The credential with this API key, and its consumer.
    pub fn key(&self, key: &str) -> Option<&(Arc<KeyAuthCredential>, Arc<Consumer>)> {
        self.keys.get(key)
    }

    /// The credential with this basic-auth user name, and its consumer.
    pub fn basic(&self, username: &str) -> Option<&(Arc<BasicAuthCredential>, Arc<Consumer>)> {
        self.basic.get(username)
    }

    /// The groups of a consumer.
    pub fn groups(&self, consumer: EntityId) -> &[Arc<AclGroup>] {
        self.groups.get(&consumer).map_or(&[], Vec::as_slice)
    }
}
