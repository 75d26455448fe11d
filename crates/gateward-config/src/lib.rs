//! Kong's declarative format (YAML, JSON) to the model, reporting every problem at its place.
//!
//! ```text
//! text -> yaml | json -> tree (values with positions) -> collect (entities, flat) -> resolve, per kind:
//!         walk (schema, defaults, vault) -> references -> ids -> finish -> checks -> support -> build -> Config
//! ```
//!
//! The crate is pure: environment variables and the time come in through [`Options`]. It reads no file. A
//! reader's mistake is a [`Diagnostic`], never a panic; dimensions of a file are bounded in `limits`.

mod build;
mod checks;
mod collect;
mod diagnostic;
mod dump;
mod finish;
pub mod fuzzing;
mod kinds;
mod limits;
mod names;
mod pem;
mod resolve;
mod rules;
mod schema_json;
mod schemas;
mod support;
mod uri;
mod vault;
mod walk;

pub use diagnostic::{Diagnostic, EntityRef, Place, Severity};
pub use dump::dump;
pub use names::{Host, HostPort, host_port};
pub use pem::{is_pem, pem_blocks};
pub use schema_json::schema_to_json;

use diagnostic::Report;
use gateward_model::schema::{Check, PluginSchemas, Schema};
use gateward_model::{Config, EntityId, RouterFlavor};
use gateward_yaml::{Node, Path as FieldPath, Position, SyntaxError};
use md5::{Digest, Md5};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2.
    Yaml,
    /// JSON (RFC 8259).
    Json,
}

impl Format {
    /// By the file's extension: `.json` is JSON, anything else YAML.
    pub fn of_path(path: &Path) -> Self {
        let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if json { Self::Json } else { Self::Yaml }
    }
}

/// What loading a file depends on besides its text.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The plugins there are.
    pub plugins: &'a dyn PluginSchemas,
    /// Which kind of routes the router takes.
    pub flavor: RouterFlavor,
    /// Environment variables, for `{vault://env/NAME}`.
    pub vault: &'a dyn Fn(&str) -> Option<String>,
    /// Unix seconds: `created_at` and `updated_at` of entities that give none.
    pub now: u64,
}

/// A file that was right.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The entities.
    pub config: Config,
    /// MD5 of the text in hex, as Kong reports it.
    pub hash: String,
    /// What in the file has no effect, in file order.
    pub warnings: Vec<Diagnostic>,
    /// Where routes and plugins stand, for problems that show only when they are compiled.
    pub places: HashMap<EntityId, Place>,
}

/// Load a declarative file. An error lists all problems in file order, warnings included.
pub fn load(text: &[u8], format: Format, options: &Options<'_>) -> Result<Loaded, Vec<Diagnostic>> {
    let mut report = Report::default();
    let (config, places) = match parse(text, format) {
        Ok(root) => {
            let collected = collect::collect(&root, &mut report);
            let (resolved, places) = resolve::resolve(&collected, options, &mut report);
            let right = !report.has_errors();
            (if right { build::build(resolved, &mut report) } else { Config::default() }, places)
        }
        Err(error) => {
            report.error(error.position, &FieldPath::Text(""), error.message, None);
            (Config::default(), HashMap::new())
        }
    };
    if report.has_errors() {
        return Err(report.into_sorted());
    }
    Ok(Loaded { config, hash: hash(text), warnings: report.into_sorted(), places })
}

/// The schema of an entity (`services`, `routes`, ...); a plugin's `config` is [`PluginSchemas`]' affair.
pub fn entity_schema(kind: &str) -> Option<&'static Schema> {
    kinds::index_of(kind).map(|index| &kinds::KINDS[index].schema)
}

/// Why `pattern` is no regular expression that a schema's `is_regex` takes.
///
/// # Errors
/// A text for the user.
pub fn check_regex(pattern: &str) -> Result<(), String> {
    rules::regex(pattern).map(drop)
}

/// The field at fault (path, may be empty) and the text when `record` breaks `check`.
pub fn broken_check(check: &Check, record: &Value) -> Option<(String, String)> {
    rules::broken_check(check, record, &[])
}

fn parse(text: &[u8], format: Format) -> Result<Node, SyntaxError> {
    match format {
        Format::Json => gateward_yaml::parse_json(text),
        Format::Yaml => match gateward_yaml::parse_yaml(text)? {
            nothing if nothing.is_null() => {
                let message = "the file is empty; it needs at least _format_version";
                Err(SyntaxError::new(Position::START, message))
            }
            root => Ok(root),
        },
    }
}

fn hash(text: &[u8]) -> String {
    Md5::digest(text).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
