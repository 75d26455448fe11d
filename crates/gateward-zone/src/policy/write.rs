//! A policy as JSON, which is YAML too: what it says reads back as the same policy.

use serde_json::{Map, Value, json};

use super::Policy;

impl Policy {
    /// The policy in the form of its file; names are absolute. What is as by default is left out, but for the bounds on shares and the
    /// apex lock, which a reader should see.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let texts = |items: &mut dyn Iterator<Item = String>| Value::from(items.collect::<Vec<_>>());
        let strings = |items: &[String]| json!(items);
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| {
            let empty = value.is_null()
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(Map::is_empty);
            if !empty {
                fields.insert(name.to_owned(), value);
            }
        };
        put("owner", json!(self.owner));
        put("principals", strings(&self.principals));
        put("subtrees", self.subtrees_json());
        put("keys", self.keys_json());
        put("transfers", self.transfers_json());
        put("secondaries", self.secondaries_json());
        put("protected", json!(self.protected));
        put("protected_names", texts(&mut self.protected_names.iter().map(ToString::to_string)));
        put("never_empty", texts(&mut self.never_empty.iter().map(ToString::to_string)));
        put("max_deleted_percent", json!(self.max_deleted_percent));
        put("max_changed_percent", json!(self.max_changed_percent));
        put("percent_floor", json!(self.percent_floor));
        put("lock_apex", json!(self.lock_apex));
        put("ttl", json!({"min": self.ttl.min, "max": self.ttl.max, "clamp": self.ttl.clamp}));
        put("addresses", texts(&mut self.addresses.iter().map(ToString::to_string)));
        put("targets", texts(&mut self.targets.iter().map(ToString::to_string)));
        put("freezes", self.freezes_json());
        put("force", self.force_json());
        put("limits", self.limits_json());
        Value::Object(fields)
    }

    fn subtrees_json(&self) -> Value {
        let subtrees = self.subtrees.iter().map(|subtree| {
            json!({
                "subtree": subtree.name.to_string(), "owner": subtree.owner, "principals": subtree.principals,
                "types": subtree.types.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        });
        subtrees.collect()
    }

    fn keys_json(&self) -> Value {
        let grants = self.keys.iter().map(|grant| {
            json!({
                "key": grant.key.to_string(), "subtree": grant.subtree.to_string(), "labels": grant.labels,
                "types": grant.types.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        });
        grants.collect()
    }

    fn transfers_json(&self) -> Value {
        let keys: Vec<String> = self.transfers.keys.iter().map(ToString::to_string).collect();
        let networks: Vec<String> = self.transfers.networks.iter().map(ToString::to_string).collect();
        if keys.is_empty() && networks.is_empty() { Value::Null } else { json!({"keys": keys, "networks": networks}) }
    }

    fn secondaries_json(&self) -> Value {
        let secondaries = self.secondaries.iter().map(|secondary| {
            let key = secondary.key.as_ref().map(ToString::to_string);
            json!({"address": secondary.address.to_string(), "port": secondary.port, "key": key})
        });
        secondaries.collect()
    }

    fn freezes_json(&self) -> Value {
        let time = |seconds| jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default();
        let freezes = self.freezes.iter().map(|freeze| {
            json!({
                "start": time(freeze.start), "end": time(freeze.end), "reason": freeze.reason,
                "except": freeze.except.iter().map(|kind| kind.as_str()).collect::<Vec<_>>(),
            })
        });
        freezes.collect()
    }

    fn limits_json(&self) -> Value {
        let super::Limits { queries_per_second, updates_per_second, records } = self.limits;
        let given = [
            ("queries_per_second", queries_per_second),
            ("updates_per_second", updates_per_second),
            ("records", records),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))).collect()
    }

    fn force_json(&self) -> Value {
        if self.force == crate::force::ForcePolicy::default() {
            return Value::Null;
        }
        let keys: Map<String, Value> =
            self.force.keys.iter().map(|(person, key)| (person.clone(), key.to_base64().into())).collect();
        json!({"keys": keys, "signatures": self.force.signatures, "max_hours": self.force.max_seconds / 3_600})
    }
}
