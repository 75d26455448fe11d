//! The last touches on an entity whose fields are known: derived fields, normal forms, hashes, times.
//!
//! What Kong does in `transformations`, auto fields and shorthands of its entities.

use crate::kinds::EntityKind;
use crate::{names, pem, uri};
use gateward_yaml::Node;
use serde_json::{Map, Value};
use sha1::{Digest, Sha1};
use std::fmt::Write;

/// What the head of the file says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Hash what is in clear text.
    pub(crate) transform: bool,
    /// Paths are written in the form before 3.0.
    pub(crate) old_paths: bool,
}

/// Before the id is made from the fields. Gives warnings: (field, text).
pub(crate) fn before_id(
    kind: &str,
    fields: &mut Map<String, Value>,
    node: &Node,
    settings: Settings,
) -> Vec<(&'static str, String)> {
    match kind {
        "routes" => {
            route(fields, node, settings);
            Vec::new()
        }
        "upstreams" => upstream(fields, node),
        "ca_certificates" => {
            let digest = fields.get("cert").and_then(Value::as_str).and_then(|cert| pem::digest(cert).ok());
            if let Some(digest) = digest {
                fields.entry("cert_digest").or_insert(Value::from(digest));
            }
            Vec::new()
        }
        _ => Vec::new(),
    }
}

fn route(fields: &mut Map<String, Value>, node: &Node, settings: Settings) {
    // An empty list matches nothing and is the same as none.
    fields.retain(|_, value| match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        _ => true,
    });
    if let (true, Some(Value::Array(paths))) = (settings.old_paths, fields.get_mut("paths")) {
        for path in paths {
            if let Some(text) = path.as_str() {
                *path = Value::from(uri::migrate(text));
            }
        }
    }
    let protocols = fields.get("protocols").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let grpc = protocols.iter().any(|protocol| matches!(protocol.as_str(), Some("grpc" | "grpcs")));
    if grpc && node.get("strip_path").is_none_or(Node::is_null) {
        fields.insert("strip_path".to_owned(), Value::from(false));
    }
    if fields.contains_key("expression") {
        fields.entry("priority").or_insert(Value::from(0));
    }
}

fn upstream(fields: &mut Map<String, Value>, node: &Node) -> Vec<(&'static str, String)> {
    let hashes = fields.get("hash_on").and_then(Value::as_str).is_some_and(|hash_on| hash_on != "none");
    if !hashes {
        return Vec::new();
    }
    let explicit = node.get("algorithm").and_then(Node::as_str);
    let warning = explicit.filter(|algorithm| *algorithm != "consistent-hashing").map(|_| {
        ("algorithm", "ignored: 'hash_on' sets the algorithm to consistent-hashing; remove one of them".to_owned())
    });
    fields.insert("algorithm".to_owned(), Value::from("consistent-hashing"));
    warning.into_iter().collect()
}

/// After the id is known.
pub(crate) fn after_id(kind: &str, fields: &mut Map<String, Value>, settings: Settings) {
    match kind {
        "targets" => {
            let parsed = fields.get("target").and_then(Value::as_str).and_then(names::host_port);
            if let Some(parsed) = parsed {
                let text = format!("{}:{}", parsed.host, parsed.port.unwrap_or(DEFAULT_TARGET_PORT));
                fields.insert("target".to_owned(), Value::from(text));
            }
        }
        "basicauth_credentials" if settings.transform => {
            let text = |name: &str| fields.get(name).and_then(Value::as_str);
            if let (Some(password), Some(consumer)) = (text("password"), text("consumer")) {
                let digest = Sha1::new().chain_update(password).chain_update(consumer).finalize();
                let hash = digest.iter().fold(String::new(), |mut hex, byte| {
                    // Writing to a String cannot fail.
                    let _ = write!(hex, "{byte:02x}");
                    hex
                });
                fields.insert("password".to_owned(), Value::from(hash));
            }
        }
        _ => {}
    }
}

/// Kong's port for a target without one.
const DEFAULT_TARGET_PORT: u16 = 8000;

/// Whole seconds; `now` where the file says nothing.
pub(crate) fn timestamps(kind: &EntityKind, fields: &mut Map<String, Value>, now: u64) {
    let names: &[&str] = if kind.has_updated_at { &["created_at", "updated_at"] } else { &["created_at"] };
    for name in names {
        let given = fields.get(*name).and_then(|value| value.as_u64().or_else(|| value.as_f64().map(seconds)));
        fields.insert((*name).to_owned(), Value::from(given.unwrap_or(now)));
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the schema bounds it to 0..2^53")]
fn seconds(time: f64) -> u64 {
    time as u64
}
