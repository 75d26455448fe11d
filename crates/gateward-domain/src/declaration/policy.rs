//! The policy file of a zone: who may write what, and what may not happen to it, in the form that `gateward-zone` reads.

use gateward_zone::policy::Policy;
use gateward_zone::{Name, Rtype};
use serde_json::{Map, Value, json};

use super::{Declaration, Guardrails, Limits, Server, Zone};

/// The file's text: JSON, which is YAML too.
pub(crate) fn text(declaration: &Declaration, zone: &Zone) -> String {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| {
        let empty = value.is_null()
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(Map::is_empty);
        if !empty {
            fields.insert(name.to_owned(), value);
        }
    };
    let rails = &zone.settings.guardrails;
    put("owner", json!(zone.owner));
    put("keys", grants(zone));
    let group = declaration.groups.get(&zone.group);
    let transfer_key = group.and_then(|group| group.transfer_key.as_deref());
    put("transfers", transfer_key.map_or(Value::Null, |key| json!({"keys": [key]})));
    put("secondaries", secondaries(declaration.servers_of(zone), transfer_key));
    put("protected", json!(rails.deletion_protection));
    put("max_deleted_percent", json!(rails.max_deleted_percent));
    put("max_changed_percent", json!(rails.max_changed_percent));
    put("percent_floor", json!(rails.percent_floor));
    put("lock_apex", json!(rails.lock_apex));
    put("ttl", present(&[("min", rails.min_ttl), ("max", rails.max_ttl)]));
    put("addresses", rails.allowed_addresses.iter().map(ToString::to_string).collect());
    put("protected_names", json!(rails.protected_names));
    put("never_empty", json!(rails.never_empty));
    put("freezes", freezes(rails));
    put("force", force(rails));
    put("limits", limits(&zone.settings.limits));
    let mut text = serde_json::to_string_pretty(&Value::Object(fields)).expect("texts, numbers and lists of these");
    text.push('\n');
    text
}

/// Whether two policy files say the same, however they are written.
pub(crate) fn is_same(origin: &Name, a: &str, b: &str) -> bool {
    let read = |text: &str| Policy::from_yaml(text.as_bytes(), origin, "").ok();
    a == b || read(a).is_some_and(|a| read(b) == Some(a))
}

fn grants(zone: &Zone) -> Value {
    let types = |types: &[Rtype]| types.iter().map(ToString::to_string).collect::<Vec<_>>();
    let grants = zone.grants.iter();
    grants
        .map(|grant| json!({"key": grant.key, "subtree": grant.subtree.to_string(), "types": types(&grant.types)}))
        .collect()
}

/// The servers behind the primary: told of changes where they are asked.
fn secondaries(servers: &[Server], key: Option<&str>) -> Value {
    let at = |server: &Server| match server.query {
        Some(at) => Some((at.ip(), at.port())),
        None => server.addresses.first().map(|address| (*address, 53)),
    };
    let primary = servers.first().and_then(at);
    let others = servers.iter().skip(1).filter_map(at).filter(|other| Some(*other) != primary);
    others
        .map(|(address, port)| match key {
            Some(key) => json!({"address": address.to_string(), "port": port, "key": key}),
            None => json!({"address": address.to_string(), "port": port}),
        })
        .collect()
}

fn freezes(rails: &Guardrails) -> Value {
    let freezes = rails.freezes.iter();
    freezes.map(|freeze| json!({"start": freeze.start, "end": freeze.end, "reason": freeze.reason})).collect()
}

fn force(rails: &Guardrails) -> Value {
    if rails.force.keys.is_empty() {
        return Value::Null;
    }
    let mut force = present(&[("signatures", rails.force.signatures), ("max_hours", rails.force.max_hours)]);
    force["keys"] = json!(rails.force.keys);
    force
}

fn limits(limits: &Limits) -> Value {
    present(&[
        ("queries_per_second", limits.queries_per_second),
        ("updates_per_second", limits.updates_per_second),
        ("records", limits.records),
    ])
}

fn present(numbers: &[(&str, Option<u32>)]) -> Value {
    let given = numbers.iter().filter_map(|(name, number)| number.map(|number| ((*name).to_owned(), json!(number))));
    Value::Object(given.collect())
}
