//! Route, service and consumer of the request as tables with Kong's fields.

use crate::convert::to_lua;
use crate::shared::Shared;
use gateward_model::{Consumer, EntityId};
use gateward_plugin::record::{consumer_json, route_json, service_json};
use gateward_plugin::{Authentication, Credential, Exchange};
use mlua::{Lua, Result, Table, Value};
use rustc_hash::FxHashMap;
use serde_json::Value as Json;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

/// Tables kept of entities; a configuration that was replaced leaves some behind.
const KEPT: usize = 4096;

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let (own, tables) = (shared.clone(), Tables::default());
    let route = lua.create_function(move |lua, ()| {
        let route = own.state.read(|exchange| exchange.route.clone()).flatten();
        tables.of(lua, route, |route| route.id, route_json)
    })?;
    functions.raw_set("route", route)?;
    let (own, tables) = (shared.clone(), Tables::default());
    let service = lua.create_function(move |lua, ()| {
        let service = own.state.read(|exchange| exchange.service.clone()).flatten();
        tables.of(lua, service, |service| service.id, service_json)
    })?;
    functions.raw_set("service", service)?;
    let own = shared.clone();
    let consumer = lua.create_function(move |lua, ()| {
        let consumer = own.state.read(|exchange| exchange.auth.consumer.as_deref().map(consumer_json)).flatten();
        consumer.map_or(Ok(Value::Nil), |consumer| to_lua(lua, &consumer, &Value::Nil))
    })?;
    functions.raw_set("consumer", consumer)?;
    let own = shared.clone();
    let credential = lua.create_function(move |lua, ()| {
        let credential = own.state.read(|exchange| credential(&exchange.auth)).flatten();
        credential.map_or(Ok(Value::Nil), |credential| to_lua(lua, &credential, &Value::Nil))
    })?;
    functions.raw_set("credential", credential)?;
    let own = shared.clone();
    let authenticate = lua.create_function(move |_, (consumer, credential): (Option<Table>, Option<Table>)| {
        let (consumer, credential) = (consumer.as_ref().map(known_consumer), credential.as_ref().map(known_credential));
        own.state.exchange(|exchange| accept(exchange, consumer, credential));
        Ok(())
    })?;
    functions.raw_set("authenticate", authenticate)?;
    let own = shared.clone();
    let load = lua.create_function(move |lua, (key, by_name): (String, bool)| {
        let served = own.served.borrow().clone();
        let directory = &served.directory;
        let by_id = EntityId::parse(&key).and_then(|id| directory.consumer(id));
        let found = by_id.or_else(|| by_name.then(|| directory.consumer_by_id_or_username(&key)).flatten());
        found.map_or(Ok(Value::Nil), |consumer| to_lua(lua, &consumer_json(consumer), &Value::Nil))
    })?;
    functions.raw_set("load_consumer", load)?;
    functions.raw_set("is_uuid", lua.create_function(|_, text: String| Ok(EntityId::parse(&text).is_some()))?)
}

/// Tables made of entities, each as long as the entity is the same.
struct Tables<T>(RefCell<FxHashMap<EntityId, (Weak<T>, Value)>>);

impl<T> Default for Tables<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> Tables<T> {
    fn of(&self, lua: &Lua, entity: Option<Arc<T>>, id: fn(&T) -> EntityId, view: fn(&T) -> Json) -> Result<Value> {
        let Some(entity) = entity else { return Ok(Value::Nil) };
        let id = id(&entity);
        if let Some((known, table)) = self.0.borrow().get(&id)
            && known.as_ptr() == Arc::as_ptr(&entity)
        {
            return Ok(table.clone());
        }
        let table = to_lua(lua, &view(&entity), &Value::Nil)?;
        let mut kept = self.0.borrow_mut();
        if kept.len() >= KEPT {
            kept.retain(|_, (known, _)| known.strong_count() > 0);
        }
        kept.insert(id, (Arc::downgrade(&entity), table.clone()));
        Ok(table)
    }
}

fn credential(auth: &Authentication) -> Option<Json> {
    let credential = auth.credential.as_ref()?;
    let mut view = serde_json::Map::new();
    view.insert("id".to_owned(), credential.id.to_string().into());
    if let Some(username) = &credential.identifier {
        view.insert("username".to_owned(), username.clone().into());
    }
    if let Some(consumer) = &auth.consumer {
        view.insert("consumer".to_owned(), serde_json::json!({ "id": consumer.id.to_string() }));
    }
    Some(Json::Object(view))
}

fn text(table: &Table, name: &str) -> Option<String> {
    match table.raw_get::<Value>(name) {
        Ok(Value::String(text)) => Some(text.to_string_lossy()),
        _ => None,
    }
}

/// The id in a table; what has none that is one gets one of its own that is always the same.
fn id_of(table: &Table, kind: &str) -> EntityId {
    let id = text(table, "id").unwrap_or_default();
    EntityId::parse(&id).unwrap_or_else(|| EntityId::derived(kind, &id))
}

fn known_consumer(table: &Table) -> Consumer {
    Consumer {
        id: id_of(table, "consumers"),
        username: text(table, "username"),
        custom_id: text(table, "custom_id"),
        tags: None,
        created_at: 0,
        updated_at: 0,
    }
}

fn known_credential(table: &Table) -> Credential {
    Credential { id: id_of(table, "credentials"), identifier: text(table, "username") }
}

fn accept(exchange: &mut Exchange, consumer: Option<Consumer>, credential: Option<Credential>) {
    exchange.auth.consumer = consumer.map(Arc::new);
    exchange.auth.credential = credential;
}
