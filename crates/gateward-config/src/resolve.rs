//! Turns collected entities into complete ones: schema walk, references, ids, uniqueness, checks.
//!
//! Kinds are taken in the order of [`KINDS`], so that what an entity refers to is complete before it. An entity
//! that is wrong stays in the index, so that those who refer to it are not reported as well.
//!
//! # Ids
//! An entity without `id` gets the UUIDv5 of its name (and parent), exactly as Kong makes it, so that ids agree
//! with a Kong that loads the same file. Where Kong takes a random id (routes without name, certificates, ...)
//! the id is made from the entity's content, its parent, and an ordinal among equal ones, so that it is the
//! same on every node and after every reload, wherever the entity stands in the file.

use crate::checks::{self, Subject};
use crate::collect::{Collected, EXTRAS, Raw};
use crate::diagnostic::{EntityRef, Place, Report};
use crate::kinds::{EntityKind, KINDS, children, index_of};
use crate::vault::Vaults;
use crate::walk::{Record, Walk, join};
use crate::{Options, finish, limits, support};
use gateward_model::schema::{Field, Schema};
use gateward_model::{EntityId, PluginConfig};
use gateward_yaml::{Node, Path, Position, Tree, did_you_mean, quote};
use serde_json::{Map, Value};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

/// Complete entities by index of their kind, in file order: ids as texts, defaults filled.
pub(crate) type Resolved = Vec<Vec<Map<String, Value>>>;

/// Where entities stand, by id.
pub(crate) type Places = HashMap<EntityId, Place>;

/// Kinds of entities that may turn out wrong only when they are compiled.
const COMPILED: [&str; 6] = ["routes", "plugins", "services", "certificates", "ca_certificates", "filter_chains"];

/// Resolve a whole file. The result is only meaningful when no error was reported.
pub(crate) fn resolve(collected: &Collected<'_>, options: &Options<'_>, report: &mut Report) -> (Resolved, Places) {
    let settings = finish::Settings { transform: collected.transform, old_paths: collected.old_paths };
    let mut loader = Loader {
        options,
        report,
        settings,
        vaults: Vaults::new(options.vault),
        indexes: Vec::with_capacity(KINDS.len()),
        searches: limits::SUGGESTION_SEARCHES,
    };
    let mut resolved = Vec::with_capacity(KINDS.len());
    for (kind, raws) in KINDS.iter().zip(&collected.by_kind) {
        let mut index = Index::default();
        let entities = raws.iter().map(|raw| loader.entity(kind, raw, &mut index)).collect();
        loader.indexes.push(index);
        resolved.push(entities);
    }
    let places = places(collected, &loader.indexes);
    (resolved, places)
}

fn places(collected: &Collected<'_>, indexes: &[Index]) -> Places {
    let kinds =
        KINDS.iter().zip(&collected.by_kind).zip(indexes).filter(|((kind, _), _)| COMPILED.contains(&kind.name));
    let entities = kinds.flat_map(|((kind, raws), index)| {
        raws.iter().zip(&index.ids).map(|(raw, id)| {
            let Position { line, column } = raw.node.position;
            (*id, Place { line, column, path: raw.path.clone(), entity: entity_ref(kind, raw.node) })
        })
    });
    entities.collect()
}

struct Loader<'o, 'r> {
    options: &'o Options<'o>,
    report: &'r mut Report,
    settings: finish::Settings,
    vaults: Vaults<'o>,
    indexes: Vec<Index>,
    /// "Did you mean" among entity names that may still be made.
    searches: usize,
}

/// The entities of one kind so far.
#[derive(Default)]
struct Index {
    ids: Vec<EntityId>,
    by_id: HashMap<EntityId, Position>,
    /// In order, so that suggestions are the same on every run.
    by_key: BTreeMap<String, EntityId>,
    /// Per unique combination of fields: where each value was first given.
    unique: HashMap<(usize, String), Position>,
    /// How many entities without key had the same content so far.
    ordinals: HashMap<EntityId, u32>,
}

impl Loader<'_, '_> {
    fn entity(&mut self, kind: &'static EntityKind, raw: &Raw<'_>, index: &mut Index) -> Map<String, Value> {
        let reference = entity_ref(kind, raw.node);
        let errors = self.report.error_count();
        let Record { mut fields, mut failed } = self.walk(kind, raw, &reference);
        self.references(kind, raw, &reference, &mut fields, &mut failed);
        let key_text = kind.key.and_then(|key| fields.get(key)).and_then(Value::as_str).map(str::to_owned);
        let early = finish::before_id(kind.name, &mut fields, raw.node, self.settings);
        for (field, message) in early {
            self.report.warning(raw.node.locate(field), &at(raw, field).as_path(), message, Some(&reference));
        }
        let id = self.id(kind, raw, &reference, &fields, index);
        fields.insert("id".to_owned(), Value::from(id.to_string()));
        finish::after_id(kind.name, &mut fields, self.settings);
        let repeated = self.unique(kind, raw, &reference, (&fields, &failed), index);
        // An id made from fields that were wrong may well repeat another.
        self.index(id, raw, &reference, repeated || !failed.is_empty(), index);
        if let Some(key) = key_text {
            index.by_key.entry(key).or_insert(id);
        }
        let mut subject =
            Subject { kind, fields: &fields, node: raw.node, path: &raw.path, entity: &reference, report: self.report };
        checks::check(&mut subject, self.options.flavor);
        support::check(&mut subject);
        finish::timestamps(kind, &mut fields, self.options.now);
        if self.report.error_count() == errors {
            self.complete(kind, raw, &reference, &fields);
        }
        fields
    }

    /// What can be done with an entity only when all of it was right.
    fn complete(&mut self, kind: &EntityKind, raw: &Raw<'_>, reference: &EntityRef, fields: &Map<String, Value>) {
        match kind.name {
            "vaults" => {
                let prefix = fields.get("prefix").and_then(Value::as_str).unwrap_or_default();
                let variables = fields.get("config").and_then(|config| config["prefix"].as_str()).unwrap_or_default();
                self.vaults.add(prefix, variables);
            }
            "plugins" => {
                let plugin = serde_json::from_value::<PluginConfig>(Value::Object(fields.clone()));
                let checked = plugin
                    .map_err(|error| error.to_string())
                    .and_then(|plugin| self.options.plugins.check_scope(&plugin));
                if let Err(message) = checked {
                    self.report.error(raw.node.position, &Path::Text(&raw.path), message, Some(reference));
                }
            }
            _ => {}
        }
    }

    fn walk(&mut self, kind: &EntityKind, raw: &Raw<'_>, reference: &EntityRef) -> Record {
        let nested = children(kind.name).map(|(child, _)| KINDS[child].name);
        let others: Vec<&str> = nested.chain(EXTRAS.iter().copied()).collect();
        let mut walk = Walk { report: self.report, vaults: &self.vaults, entity: reference };
        let path = Path::Text(&raw.path);
        let mut record = walk.record(&kind.schema, raw.node, raw.entries, &path, &others);
        if kind.name == "plugins" {
            self.plugin_config(raw, reference, &mut record);
        }
        record
    }

    fn plugin_config(&mut self, raw: &Raw<'_>, reference: &EntityRef, record: &mut Record) {
        let Some(name) = record.fields.get("name").and_then(Value::as_str) else { return };
        if let Some(text) = self.options.plugins.remark(name) {
            let node = raw.node.get("name").unwrap_or(raw.node);
            self.report.warning(node.position, &at(raw, "name").as_path(), text, Some(reference));
        }
        if self.options.plugins.is_open(name) {
            return self.open_config(raw, reference, record);
        }
        let Some(schema) = self.options.plugins.config_schema(name) else {
            let message = support::missing_plugin(name, &self.options.plugins.plugin_names());
            let node = raw.node.get("name").unwrap_or(raw.node);
            self.report.error(node.position, &at(raw, "name").as_path(), message, Some(reference));
            record.failed.push("config".to_owned());
            return;
        };
        let untold = raw.node.get("protocols").is_none_or(Node::is_null);
        if let Some(protocols) = self.options.plugins.default_protocols(name).filter(|_| untold) {
            record.fields.insert("protocols".to_owned(), Value::from(protocols));
        }
        let node = raw.node.get("config").filter(|node| !node.is_null());
        let path = Path::Text(&raw.path);
        let path = Path::Key(&path, "config");
        let mut walk = Walk { report: self.report, vaults: &self.vaults, entity: reference };
        let config = match node.map(|node| (node, &node.value)) {
            None => walk.record(&schema, raw.node, &[], &path, &[]),
            Some((node, Tree::Map(entries))) => walk.record(&schema, node, entries, &path, &[]),
            Some((node, Tree::Seq(items))) if items.is_empty() => walk.record(&schema, node, &[], &path, &[]),
            Some((node, _)) => {
                let message = format!("expected a map; found {}", node.describe());
                self.report.error(node.position, &path, message, Some(reference));
                Record { failed: vec!["config".to_owned()], ..Record::default() }
            }
        };
        if !config.failed.is_empty() {
            record.failed.push("config".to_owned());
        }
        record.fields.insert("config".to_owned(), Value::Object(config.fields));
    }

    /// The configuration of a plugin that checks it itself.
    fn open_config(&mut self, raw: &Raw<'_>, reference: &EntityRef, record: &mut Record) {
        let schema = Schema::new([("config", Field::any())]);
        let path = Path::Text(&raw.path);
        let mut walk = Walk { report: self.report, vaults: &self.vaults, entity: reference };
        let entries: Vec<_> = raw.entries.iter().filter(|(key, _)| key.text == "config").cloned().collect();
        let mut config = walk.record(&schema, raw.node, &entries, &path, &[]);
        record.failed.append(&mut config.failed);
        record.fields.insert("config".to_owned(), config.fields.remove("config").unwrap_or_default());
    }

    /// Replace references by the ids they lead to.
    fn references(
        &mut self,
        kind: &EntityKind,
        raw: &Raw<'_>,
        reference: &EntityRef,
        fields: &mut Map<String, Value>,
        failed: &mut Vec<String>,
    ) {
        for (field, target) in &kind.references {
            let given = fields.remove(*field);
            let node = raw.node.get(field).filter(|node| !node.is_null());
            let path = at(raw, field);
            let id = match (raw.parent.filter(|parent| parent.field == *field), given, node) {
                (Some(_), _, Some(node)) => {
                    let message = format!("nested under its {field} and naming one as well; remove '{field}'");
                    self.report.error(node.position, &path.as_path(), message, Some(reference));
                    None
                }
                (Some(parent), _, None) => self.indexes[parent.kind].ids.get(parent.index).copied(),
                (None, Some(Value::String(text)), _) => {
                    self.lookup(target, &text, node.unwrap_or(raw.node), &path.as_path(), reference)
                }
                _ if node.is_none() => {
                    if kind.schema.field(field).is_some_and(|field| field.required) {
                        let message = format!("required field is missing; nest this under its {field} or name one");
                        self.report.error(raw.node.position, &path.as_path(), message, Some(reference));
                        failed.push((*field).to_owned());
                    }
                    continue;
                }
                _ => None,
            };
            match id {
                Some(id) => drop(fields.insert((*field).to_owned(), Value::from(id.to_string()))),
                None => failed.push((*field).to_owned()),
            }
        }
        if kind.name == "services" {
            self.authorities(raw, reference, fields);
        }
    }

    /// A service's `ca_certificates` are ids in a list.
    fn authorities(&mut self, raw: &Raw<'_>, reference: &EntityRef, fields: &Map<String, Value>) {
        let ids = fields.get("ca_certificates").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for (index, id) in ids.iter().filter_map(Value::as_str).enumerate() {
            let field = format!("ca_certificates[{index}]");
            let position = Node { position: raw.node.locate(&field), value: Tree::Null };
            self.lookup("ca_certificates", id, &position, &at(raw, &field).as_path(), reference);
        }
    }

    fn lookup(
        &mut self,
        target: &'static str,
        text: &str,
        node: &Node,
        path: &Path<'_>,
        reference: &EntityRef,
    ) -> Option<EntityId> {
        let index = &self.indexes[index_of(target)?];
        let by_id = || EntityId::parse(text).filter(|id| index.by_id.contains_key(id));
        if let Some(id) = index.by_key.get(text).copied().or_else(by_id) {
            return Some(id);
        }
        let mut message = format!("there is no '{}' in {target}", quote(text));
        if self.searches > 0 {
            self.searches -= 1;
            message.push_str(&did_you_mean(text, index.by_key.keys().map(String::as_str)));
        }
        self.report.error(node.position, path, message, Some(reference));
        None
    }

    fn id(
        &mut self,
        kind: &EntityKind,
        raw: &Raw<'_>,
        reference: &EntityRef,
        fields: &Map<String, Value>,
        index: &mut Index,
    ) -> EntityId {
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        if let Some(id) = EntityId::parse(text("id")) {
            if index.by_id.contains_key(&id) {
                let first = index.by_id[&id];
                let message = format!("the id {id} is already used at {}:{}", first.line, first.column);
                let node = raw.node.get("id").unwrap_or(raw.node);
                self.report.error(node.position, &at(raw, "id").as_path(), message, Some(reference));
            }
            return id;
        }
        match kind.name {
            "plugins" => {
                let scope = format!("{}:{}:{}", text("route"), text("service"), text("consumer"));
                return EntityId::derived("plugins", &format!("plugins:*:{}:{scope}", text("name")));
            }
            "acls" => {
                return EntityId::derived("acls", &format!("acls:*:{}:{}", text("consumer"), text("group")));
            }
            "targets" => {
                return EntityId::derived("targets", &format!("{}:{}", text("target"), text("upstream")));
            }
            _ => {}
        }
        if let Some(key) = kind.key.filter(|key| fields.contains_key(*key)) {
            return EntityId::derived(kind.name, text(key));
        }
        let content = Value::Object(fields.clone()).to_string();
        let base = EntityId::derived(kind.name, &format!("content:{content}"));
        let ordinal = index.ordinals.entry(base).or_insert(0);
        *ordinal += 1;
        if *ordinal == 1 { base } else { EntityId::derived(kind.name, &format!("content:{content}:{ordinal}")) }
    }

    fn index(&mut self, id: EntityId, raw: &Raw<'_>, reference: &EntityRef, repeated: bool, index: &mut Index) {
        index.ids.push(id);
        let first = match index.by_id.entry(id) {
            Entry::Vacant(slot) => {
                slot.insert(raw.node.position);
                return;
            }
            Entry::Occupied(slot) => *slot.get(),
        };
        // Two entities of one name were reported as such; what remains is a name that meets another's explicit id.
        if reference.id.is_none() && !repeated {
            let message =
                format!("the id {id}, made from the name, is already used at {}:{}", first.line, first.column);
            self.report.error(raw.node.position, &at(raw, "id").as_path(), message, Some(reference));
        }
    }

    /// Whether the entity repeats another.
    fn unique(
        &mut self,
        kind: &EntityKind,
        raw: &Raw<'_>,
        reference: &EntityRef,
        (fields, failed): (&Map<String, Value>, &[String]),
        index: &mut Index,
    ) -> bool {
        let mut repeated = false;
        for (number, combination) in kind.unique.iter().enumerate() {
            let first = combination[0];
            if !fields.contains_key(first) || combination.iter().any(|field| failed.iter().any(|name| name == field)) {
                continue;
            }
            let values = combination.iter().map(|field| fields.get(*field).map_or_else(String::new, Value::to_string));
            let key = values.collect::<Vec<_>>().join("\0");
            let before = match index.unique.entry((number, key)) {
                Entry::Vacant(slot) => {
                    slot.insert(raw.node.position);
                    continue;
                }
                Entry::Occupied(slot) => *slot.get(),
            };
            let secret = kind.schema.field(first).is_some_and(|field| field.secret);
            let value = match fields.get(first).and_then(Value::as_str) {
                Some(text) if !secret => format!(" '{}'", quote(text)),
                _ => String::new(),
            };
            let others = match &combination[1..] {
                [] => String::new(),
                others => format!(" with the same {}", others.join(", ")),
            };
            let message = format!(
                "the {first}{value}{others} is already used by the entity at {}:{}",
                before.line, before.column
            );
            self.report.error(raw.node.locate(first), &at(raw, first).as_path(), message, Some(reference));
            repeated = true;
        }
        repeated
    }
}

/// A path made of an entity's path and a field.
struct FieldPath(String);

impl FieldPath {
    fn as_path(&self) -> Path<'_> {
        Path::Text(&self.0)
    }
}

fn at(raw: &Raw<'_>, field: &str) -> FieldPath {
    FieldPath(join(&Path::Text(&raw.path), field))
}

fn entity_ref(kind: &EntityKind, node: &Node) -> EntityRef {
    let text = |field: &str| node.get(field).and_then(Node::as_str).map(str::to_owned);
    let key = if kind.key_is_secret { None } else { kind.key };
    let tags = match node.get("tags").map(|tags| &tags.value) {
        Some(Tree::Seq(tags)) => tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    EntityRef { kind: kind.name.to_owned(), name: text(key.unwrap_or("name")), id: text("id"), tags }
}
