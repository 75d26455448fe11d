//! The list of native plugins: the one place that knows them all.
//!
//! A plugin joins by its line in `listed`. The loader asks [`NativePlugins`] for schemas and scope rules, the
//! data plane asks [`definition`] for constructors; neither knows a plugin by its type.

use crate::contract::Definition;
use crate::env::Templates;
use crate::host::{NoHost, PluginHost};
use crate::native;
use gateward_model::PluginConfig;
use gateward_model::schema::{PluginSchemas, Schema};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Every native plugin, in the order they run: priority descending, then name descending
/// (kong/runloop/plugins_iterator.lua).
pub fn definitions() -> &'static [Definition] {
    static DEFINITIONS: LazyLock<Vec<Definition>> = LazyLock::new(|| {
        let mut definitions = listed();
        definitions.sort_by_key(|definition| Reverse((definition.priority, definition.name)));
        definitions
    });
    &DEFINITIONS
}

/// The plugin of this name.
pub fn definition(name: &str) -> Option<&'static Definition> {
    definitions().iter().find(|definition| definition.name == name)
}

/// Plugins that act on streams where their `protocols` are not set; others that can must be told to.
const ON_STREAMS_UNTOLD: &[&str] = &["ip-restriction"];

fn listed() -> Vec<Definition> {
    vec![
        native::acl::definition(),
        native::basic_auth::definition(),
        native::bot_detection::definition(),
        native::correlation_id::definition(),
        native::cors::definition(),
        native::file_log::definition(),
        native::grpc_web::definition(),
        native::http_log::definition(),
        native::ip_restriction::definition(),
        native::key_auth::definition(),
        native::prometheus::definition(),
        native::rate_limiting::definition(),
        native::redirect::definition(),
        native::request_size_limiting::definition(),
        native::request_termination::definition(),
        native::request_transformer::definition(),
        native::response_transformer::definition(),
    ]
}

/// Schemas and scope rules of the native plugins, for the configuration loader. Make one and keep it: the
/// schemas are built when it is made.
pub struct NativePlugins {
    schemas: BTreeMap<&'static str, (Arc<Schema>, &'static Definition)>,
    host: Arc<dyn PluginHost>,
}

impl NativePlugins {
    /// Builds every schema.
    pub fn new() -> Self {
        Self::and(Arc::new(NoHost))
    }

    /// Likewise, beside the plugins of `host`. Of plugins with the same name the native one counts.
    pub fn and(host: Arc<dyn PluginHost>) -> Self {
        let templates = host.templates();
        let schema = |definition: &Definition| match &templates {
            Some(templates) => hosted_schema(definition, templates),
            None => (definition.schema)(),
        };
        let schemas =
            definitions().iter().map(|definition| (definition.name, (Arc::new(schema(definition)), definition)));
        Self { schemas: schemas.collect(), host }
    }
}

/// The schema of a native plugin where `templates` evaluates the Lua in its settings.
fn hosted_schema(definition: &Definition, templates: &Arc<dyn Templates>) -> Schema {
    match definition.name {
        "file-log" => native::file_log::schema_with(templates.clone()),
        "http-log" => native::http_log::schema_with(templates.clone()),
        "request-transformer" => native::request_transformer::schema_with(templates.clone()),
        _ => (definition.schema)(),
    }
}

impl Default for NativePlugins {
    fn default() -> Self {
        Self::new()
    }
}

impl PluginSchemas for NativePlugins {
    fn config_schema(&self, plugin: &str) -> Option<Arc<Schema>> {
        match self.schemas.get(plugin) {
            Some((schema, _)) => Some(schema.clone()),
            None => self.host.schema(plugin),
        }
    }

    fn is_open(&self, plugin: &str) -> bool {
        !self.schemas.contains_key(plugin) && self.host.has(plugin) && self.host.schema(plugin).is_none()
    }

    fn remark(&self, plugin: &str) -> Option<String> {
        if self.schemas.contains_key(plugin) { None } else { self.host.remark(plugin) }
    }

    fn plugin_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.schemas.keys().map(|name| (*name).to_owned()).collect();
        names.extend(self.host.names());
        names.sort();
        names.dedup();
        names
    }

    fn default_protocols(&self, plugin: &str) -> Option<Vec<String>> {
        if !self.schemas.contains_key(plugin) {
            return self.host.default_protocols(plugin);
        }
        let all = ["grpc", "grpcs", "http", "https", "tcp", "tls"];
        ON_STREAMS_UNTOLD.contains(&plugin).then(|| all.map(str::to_owned).to_vec())
    }

    fn check_scope(&self, plugin: &PluginConfig) -> Result<(), String> {
        match self.schemas.get(plugin.name.as_str()) {
            Some((_, definition)) => (definition.check_scope)(plugin),
            None => self.host.check_scope(plugin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn plugins_run_in_kongs_order() {
        let order: Vec<(&str, i32)> = definitions().iter().map(|plugin| (plugin.name, plugin.priority)).collect();
        let expected = [
            ("correlation-id", 100_001),
            ("bot-detection", 2500),
            ("cors", 2000),
            ("key-auth", 1250),
            ("basic-auth", 1100),
            ("ip-restriction", 990),
            ("request-size-limiting", 951),
            ("acl", 950),
            ("rate-limiting", 910),
            ("request-transformer", 801),
            ("response-transformer", 800),
            ("redirect", 779),
            ("prometheus", 13),
            ("http-log", 12),
            ("file-log", 9),
            ("grpc-web", 3),
            ("request-termination", 2),
        ];
        let expected: Vec<_> = expected.into_iter().filter(|(name, _)| definition(name).is_some()).collect();
        assert_eq!(order, expected);
    }

    /// The least a configuration must say.
    fn least(plugin: &str) -> Value {
        match plugin {
            "acl" => json!({"allow": ["a"]}),
            "ip-restriction" => json!({"deny": ["192.0.2.1"]}),
            "redirect" => json!({"location": "https://a.example"}),
            "rate-limiting" => json!({"minute": 5}),
            "http-log" => json!({"http_endpoint": "http://a.example/"}),
            "file-log" => json!({"path": "/dev/null"}),
            _ => json!({}),
        }
    }

    #[test]
    fn schemas_and_constructors_agree() {
        let plugins = NativePlugins::new();
        assert_eq!(plugins.plugin_names().len(), definitions().len());
        for plugin in definitions() {
            let schema = plugins.config_schema(plugin.name).unwrap();
            assert_eq!(testing::problems(&schema, least(plugin.name)), [""; 0], "{}", plugin.name);
            let entity = testing::entity(plugin, least(plugin.name));
            assert_eq!(plugins.check_scope(&entity), Ok(()), "{}", plugin.name);
            let needs = testing::build(plugin, least(plugin.name)).needs();
            assert_ne!(needs.phases, crate::Phases::default(), "{} takes part in no phase", plugin.name);
        }
        assert!(plugins.config_schema("nothing").is_none());
    }

    /// Through the real loader, whose defaults are also what the helper of the other tests must come to.
    #[test]
    fn the_loader_takes_every_plugin() {
        for plugin in definitions() {
            for config in [least(plugin.name), curious(plugin.name)] {
                let entity = json!({"name": plugin.name, "config": config});
                let file = json!({"_format_version": "3.0", "plugins": [entity]}).to_string();
                let options = gateward_config::Options {
                    plugins: &NativePlugins::new(),
                    flavor: gateward_model::RouterFlavor::default(),
                    vault: &|_| None,
                    now: 0,
                };
                let loaded = gateward_config::load(file.as_bytes(), gateward_config::Format::Json, &options);
                let loaded = loaded.unwrap_or_else(|problems| panic!("{file}: {problems:?}"));
                assert_eq!(loaded.warnings, [], "{file}");
                let [loaded] = loaded.config.plugins.as_slice() else { panic!("{file}: {loaded:?}") };
                assert_eq!(loaded.config, testing::entity(plugin, config).config, "{file}");
            }
        }
    }

    /// The most a configuration can make a plugin look at.
    fn curious(plugin: &str) -> Value {
        match plugin {
            "key-auth" => json!({"key_in_body": true, "hide_credentials": true, "key_names": ["a", "b"]}),
            "cors" => json!({"origins": ["(.*)a", "b"], "credentials": true}),
            "redirect" => json!({"location": "https://a.example", "keep_incoming_path": true}),
            "request-termination" => json!({"echo": true}),
            "correlation-id" => json!({"echo_downstream": true}),
            _ => least(plugin),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn no_request_makes_a_plugin_panic(
            method in "GET|POST|OPTIONS",
            query in r"[ -~]{0,16}|(a|b|%61)=[ -~é]{0,8}",
            fields in proptest::collection::vec(
                ("Authorization|Origin|User-Agent|Content-Type|Access-Control-Request-Method|a|b",
                 "[ -~é]{0,24}|Basic [A-Za-z0-9+/=]{0,12}|application/json|[a-z]{1,5}://[a-z:@/.0-9]{0,9}"), 0..6),
            body in proptest::option::of(r#"[ -~é]{0,16}|\{"a":[ -~]{0,6}\}|a=[ -~]{0,8}"#),
        ) {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            for plugin in definitions() {
                let mut exchange = testing::request(&method, &format!("/?{query}"), &fields);
                exchange.body = body.clone().map(String::into_bytes);
                let plugin = testing::build(plugin, curious(plugin.name));
                testing::access(plugin.as_ref(), &mut exchange);
                plugin.header_filter(&mut exchange);
            }
        }
    }
}
