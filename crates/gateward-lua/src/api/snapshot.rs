//! What is served: `snapshot_generation()` and `entities(kind, from, most)`, entities of a kind as Kong's database has them.

use crate::convert::to_lua;
use crate::shared::Shared;
use gateward_model::Config;
use mlua::{Lua, Result, Table, Value};
use serde::Serialize;
use serde_json::Value as Json;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    let generation =
        lua.create_function(move |_, ()| Ok(own.snapshot.borrow().as_ref().map_or(0, |snapshot| snapshot.generation)))?;
    functions.raw_set("snapshot_generation", generation)?;
    let own = shared.clone();
    let entities = lua.create_function(move |lua, (kind, from, most): (String, usize, usize)| {
        let found = lua.create_table()?;
        let Some(snapshot) = own.snapshot.borrow().clone() else { return Ok(found) };
        for row in rows(&snapshot.config, &kind, from..from.saturating_add(most)) {
            found.raw_push(to_lua(lua, &row, &Value::Nil)?)?;
        }
        Ok(found)
    })?;
    functions.raw_set("entities", entities)
}

fn rows(config: &Config, kind: &str, range: Range<usize>) -> Vec<Json> {
    match kind {
        "services" => list(&config.services, range, &[]),
        "routes" => list(&config.routes, range, &["service"]),
        "upstreams" => list(&config.upstreams, range, &["client_certificate"]),
        "targets" => list(&config.targets, range, &["upstream"]),
        "consumers" => list(&config.consumers, range, &[]),
        "plugins" => list(&config.plugins, range, &["route", "service", "consumer"]),
        "certificates" => list(&config.certificates, range, &[]),
        "snis" => list(&config.snis, range, &["certificate"]),
        "ca_certificates" => list(&config.ca_certificates, range, &[]),
        "keyauth_credentials" => list(&config.keyauth_credentials, range, &["consumer"]),
        "basicauth_credentials" => list(&config.basicauth_credentials, range, &["consumer"]),
        "acls" => list(&config.acls, range, &["consumer"]),
        _ => Vec::new(),
    }
}

/// References to other entities are `{ id = ... }`.
fn list<T: Serialize>(entities: &[Arc<T>], range: Range<usize>, references: &[&str]) -> Vec<Json> {
    let row = |entity: &Arc<T>| {
        let mut row = serde_json::to_value(entity).unwrap_or_default();
        for name in references {
            if let Some(reference @ Json::String(_)) = row.get_mut(*name) {
                *reference = serde_json::json!({ "id": reference.take() });
            }
        }
        row
    };
    let range = range.start.min(entities.len())..range.end.min(entities.len());
    entities[range].iter().map(row).collect()
}
