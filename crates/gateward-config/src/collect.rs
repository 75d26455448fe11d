//! From the tree of a file to flat lists of entities, one list per kind, in file order.
//!
//! Also checks what stands at the top level besides entities.

use crate::diagnostic::Report;
use crate::kinds::{KINDS, children, index_of};
use crate::walk::yaml11_boolean;
use gateward_yaml::{Key, Node, Path, Tree, did_you_mean};

/// An entity as the file has it.
pub(crate) struct Raw<'t> {
    pub(crate) node: &'t Node,
    pub(crate) entries: &'t [(Key, Node)],
    pub(crate) path: String,
    pub(crate) parent: Option<Parent>,
}

/// Where an entity is nested.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parent {
    /// The field that names the parent when written flat.
    pub(crate) field: &'static str,
    /// Kind and index of the parent.
    pub(crate) kind: usize,
    pub(crate) index: usize,
}

/// A file's entities, and its settings.
pub(crate) struct Collected<'t> {
    /// By index of the kind.
    pub(crate) by_kind: Vec<Vec<Raw<'t>>>,
    /// Hash what is in clear text (`_transform`, default true).
    pub(crate) transform: bool,
    /// The format is older than 3.0: paths need rewriting.
    pub(crate) old_paths: bool,
}

/// Keys that decK and Kong's paid edition write and that mean nothing here.
const IGNORED: &[&str] = &[
    "_info",
    "_workspace",
    "_konnect",
    "_plugin_configs",
    "consumer_groups",
    "rbac_roles",
    "service_packages",
    "licenses",
    "partials",
    "custom_entities",
    "cloned_plugins",
    "custom_plugins",
];

/// State that Kong keeps in its database while running.
const RUNTIME: &[&str] =
    &["oauth2_tokens", "oauth2_authorization_codes", "sessions", "acme_storage", "parameters", "workspaces"];

/// Take a file apart.
pub(crate) fn collect<'t>(root: &'t Node, report: &mut Report) -> Collected<'t> {
    let by_kind = KINDS.iter().map(|_| Vec::new()).collect();
    let mut collected = Collected { by_kind, transform: true, old_paths: false };
    let here = Path::Text("");
    let Tree::Map(entries) = &root.value else {
        let message = format!("expected a map with _format_version and entities; found {}", root.describe());
        report.error(root.position, &here, message, None);
        return collected;
    };
    collected.old_paths = format_version(root, report);
    for (key, node) in entries {
        let at = Path::Key(&here, &key.text);
        match key.text.as_str() {
            "_format_version" => {}
            "_transform" => match &node.value {
                Tree::Bool(value) => collected.transform = *value,
                Tree::String { text, plain: true } if yaml11_boolean(text).is_some() => {
                    collected.transform = yaml11_boolean(text).unwrap_or(true);
                }
                Tree::Null => {}
                _ => report.error(node.position, &at, format!("expected a boolean; found {}", node.describe()), None),
            },
            "_comment" | "_ignore" => extra(key, node, &at, report),
            name if IGNORED.contains(&name) => {
                report.warning(key.position, &at, "ignored: nothing in this gateway reads it".to_owned(), None);
            }
            name if RUNTIME.contains(&name) => {
                let message = "ignored: run-time state is not loaded from a file".to_owned();
                report.warning(key.position, &at, message, None);
            }
            name => match index_of(name) {
                Some(kind) => list(kind, node, &at, None, report, &mut collected),
                None => {
                    let known = KINDS.iter().map(|kind| kind.name).chain(["_format_version", "_transform", "_comment"]);
                    let message = format!("unknown entity{}", did_you_mean(name, known));
                    report.error(key.position, &at, message, None);
                }
            },
        }
    }
    collected
}

/// Whether the format is older than 3.0.
fn format_version(root: &Node, report: &mut Report) -> bool {
    let here = Path::Text("_format_version");
    let Some(node) = root.get("_format_version").filter(|node| !node.is_null()) else {
        let message = "required field is missing; add _format_version: \"3.0\"".to_owned();
        report.error(root.position, &here, message, None);
        return false;
    };
    match (&node.value, node.as_str()) {
        (_, Some("3.0")) => return false,
        (_, Some("1.1" | "2.1")) => return true,
        (Tree::Float(_) | Tree::Int(_), _) => {
            let message = "expected a string; found a number; put it in quotes: \"3.0\"".to_owned();
            report.error(node.position, &here, message, None);
        }
        _ => {
            let message = "not a known version; expected \"1.1\", \"2.1\" or \"3.0\"".to_owned();
            report.error(node.position, &here, message, None);
        }
    }
    false
}

/// `_comment` is text, `_ignore` a list of anything; neither has an effect.
fn extra(key: &Key, node: &Node, at: &Path<'_>, report: &mut Report) {
    let expected = match (key.text.as_str(), &node.value) {
        ("_comment", Tree::String { .. }) | ("_ignore", Tree::Seq(_)) | (_, Tree::Null) => return,
        ("_comment", _) => "a string",
        _ => "a list",
    };
    report.error(node.position, at, format!("expected {expected}; found {}", node.describe()), None);
}

fn list<'t>(
    kind: usize,
    node: &'t Node,
    at: &Path<'_>,
    parent: Option<Parent>,
    report: &mut Report,
    collected: &mut Collected<'t>,
) {
    let items = match &node.value {
        Tree::Seq(items) => items,
        Tree::Null => return,
        Tree::Map(entries) if entries.is_empty() => return,
        _ => {
            let message = format!("expected a list of {}; found {}", KINDS[kind].name, node.describe());
            report.error(node.position, at, message, None);
            return;
        }
    };
    for (index, item) in items.iter().enumerate() {
        let at = Path::Index(at, index);
        let Some(entries) = item.as_map() else {
            let message =
                format!("expected a map with the fields of one of {}; found {}", KINDS[kind].name, item.describe());
            report.error(item.position, &at, message, None);
            continue;
        };
        for (key, node) in entries.iter().filter(|(key, _)| EXTRAS.contains(&key.text.as_str())) {
            extra(key, node, &Path::Key(&at, &key.text), report);
        }
        let index = collected.by_kind[kind].len();
        collected.by_kind[kind].push(Raw { node: item, entries, path: at.to_string(), parent });
        for (child, field) in children(KINDS[kind].name) {
            if let Some(node) = item.get(KINDS[child].name) {
                let parent = Parent { field, kind, index };
                list(child, node, &Path::Key(&at, KINDS[child].name), Some(parent), report, collected);
            }
        }
    }
}

/// Keys allowed in every entity without being a field.
pub(crate) const EXTRAS: &[&str] = &["_comment", "_ignore"];
