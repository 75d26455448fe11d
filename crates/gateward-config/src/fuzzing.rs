//! What the fuzz target `config` and its replay in the tests do with their input.

use crate::{Diagnostic, Format, Options, dump, load};
use gateward_model::RouterFlavor;
use gateward_model::schema::{Field, PluginSchemas, Schema};
use std::sync::{Arc, LazyLock};

/// Plugins enough to reach all paths of the loader.
struct Plugins;

static CONFIG: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    Arc::new(Schema::new([
        ("flag", Field::boolean().default(false)),
        ("names", Field::set(Field::string())),
        ("secret", Field::string().secret().referenceable()),
        ("free", Field::any()),
        ("limits", Field::map(Field::string(), Field::number())),
    ]))
});

impl PluginSchemas for Plugins {
    fn config_schema(&self, plugin: &str) -> Option<Arc<Schema>> {
        matches!(plugin, "key-auth" | "cors" | "acl" | "rate-limiting").then(|| CONFIG.clone())
    }

    fn plugin_names(&self) -> Vec<String> {
        ["key-auth", "cors", "acl", "rate-limiting"].map(str::to_owned).to_vec()
    }
}

/// The first byte chooses format and router flavour, the rest is the file. Panics when a property is broken:
/// loading never panics, and loading a dump gives the same configuration.
pub fn config(data: &[u8]) {
    let _ = check(data);
}

/// The same for a file that must load, so that the second property is really tested.
pub fn config_must_load(data: &[u8]) {
    if let Err(problems) = check(data) {
        panic!("refused: {problems:?}");
    }
}

fn check(data: &[u8]) -> Result<(), Vec<Diagnostic>> {
    let Some((choice, text)) = data.split_first() else { return Ok(()) };
    let format = if choice & 1 == 0 { Format::Yaml } else { Format::Json };
    let flavor = if choice & 2 == 0 { RouterFlavor::TraditionalCompatible } else { RouterFlavor::Expressions };
    let vault = |name: &str| (name == "SET").then(|| "value".to_owned());
    let options = Options { plugins: &Plugins, flavor, vault: &vault, now: 1_700_000_000 };
    let loaded = load(text, format, &options)?;
    let later = Options { now: 1_800_000_000, ..options };
    for format in [Format::Yaml, Format::Json] {
        let text = dump(&loaded.config, format);
        match load(text.as_bytes(), format, &later) {
            Ok(again) => assert_eq!(again.config, loaded.config, "a dump read back differs:\n{text}"),
            Err(problems) => panic!("a dump is refused: {problems:?}\n{text}"),
        }
    }
    Ok(())
}
