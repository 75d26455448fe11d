//! What is served: `snapshot_generation()` and `entities(kind)`, all entities of a kind as Kong's database has them.

use crate::convert::to_lua;
use crate::shared::Shared;
use gateward_model::Config;
use mlua::{Lua, Result, Table, Value};
use serde::Serialize;
use serde_json::Value as Json;
use std::rc::Rc;
use std::sync::Arc;

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    let generation =
        lua.create_function(move |_, ()| Ok(own.snapshot.borrow().as_ref().map_or(0, |snapshot| snapshot.generation)))?;
    functions.raw_set("snapshot_generation", generation)?;
    let own = shared.clone();
    let entities = lua.create_function(move |lua, kind: String| {
        let Some(snapshot) = own.snapshot.borrow().clone() else { return lua.create_table() };
        let list = rows(&snapshot.config, &kind);
        let rows = list.iter().map(|row| to_lua(lua, row, &Value::Nil)).collect::<Result<Vec<_>>>()?;
        lua.create_sequence_from(rows)
    })?;
    functions.raw_set("entities", entities)
}

fn rows(config: &Config, kind: &str) -> Vec<Json> {
    match kind {
        "services" => list(&config.services, &[]),
        "routes" => list(&config.routes, &["service"]),
        "upstreams" => list(&config.upstreams, &["client_certificate"]),
        "targets" => list(&config.targets, &["upstream"]),
        "consumers" => list(&config.consumers, &[]),
        "plugins" => list(&config.plugins, &["route", "service", "consumer"]),
        "certificates" => list(&config.certificates, &[]),
        "snis" => list(&config.snis, &["certificate"]),
        "ca_certificates" => list(&config.ca_certificates, &[]),
        "keyauth_credentials" => list(&config.keyauth_credentials, &["consumer"]),
        "basicauth_credentials" => list(&config.basicauth_credentials, &["consumer"]),
        "acls" => list(&config.acls, &["consumer"]),
        _ => Vec::new(),
    }
}

/// References to other entities are `{ id = ... }`.
fn list<T: Serialize>(entities: &[Arc<T>], references: &[&str]) -> Vec<Json> {
    let row = |entity: &Arc<T>| {
        let mut row = serde_json::to_value(entity).unwrap_or_default();
        for name in references {
            if let Some(reference @ Json::String(_)) = row.get_mut(*name) {
                *reference = serde_json::json!({ "id": reference.take() });
            }
        }
        row
    };
    entities.iter().map(row).collect()
}
