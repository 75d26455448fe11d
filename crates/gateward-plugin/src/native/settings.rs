//! What every native plugin does with its entity: read the configuration into a type, and say where it may stand.

use crate::contract::BuildError;
use crate::env::BuildContext;
use gateward_model::schema::{Field, Rule};
use gateward_model::{PluginConfig, Protocol};
use serde::Deserialize;
use serde_json::Value;

/// The entity's configuration as the plugin's own type. It fails only when schema and type disagree.
pub fn read<'a, T: Deserialize<'a>>(context: &BuildContext<'a>) -> Result<T, BuildError> {
    T::deserialize(&context.entity.config).map_err(|error| refuse(context, error.to_string()))
}

/// A refusal of the context's entity for this reason.
pub fn refuse(context: &BuildContext<'_>, reason: impl Into<String>) -> BuildError {
    BuildError { plugin: context.entity.name.clone(), id: context.entity.id, reason: reason.into() }
}

/// Scope rule of plugins that work on HTTP requests (Kong's `protocols_http`).
pub fn http(plugin: &PluginConfig) -> Result<(), String> {
    protocols(plugin, &[Protocol::Http, Protocol::Https, Protocol::Grpc, Protocol::Grpcs])
}

/// Scope rule of plugins that work on HTTP requests before the consumer is known (Kong's `no_consumer`).
pub fn http_without_consumer(plugin: &PluginConfig) -> Result<(), String> {
    if plugin.consumer.is_some() {
        return Err(format!(
            "plugin '{}' runs before the consumer is known and cannot be configured for one: remove `consumer`",
            plugin.name
        ));
    }
    http(plugin)
}

/// Scope rule of plugins that work on HTTP requests and on streams.
pub fn http_and_streams(plugin: &PluginConfig) -> Result<(), String> {
    use Protocol::{Grpc, Grpcs, Http, Https, Tcp, Tls, TlsPassthrough, Udp};
    protocols(plugin, &[Http, Https, Grpc, Grpcs, Tcp, Tls, TlsPassthrough, Udp])
}

fn protocols(plugin: &PluginConfig, allowed: &[Protocol]) -> Result<(), String> {
    let Some(protocol) = plugin.protocols.iter().find(|protocol| !allowed.contains(protocol)) else {
        return Ok(());
    };
    let word = |protocol| serde_json::to_value(protocol).ok().and_then(|word| word.as_str().map(str::to_owned));
    let words: Vec<String> = allowed.iter().filter_map(word).collect();
    let refused = word(protocol).unwrap_or_default();
    Err(format!("plugin '{}' does not work with protocol '{refused}': use {}", plugin.name, words.join(", ")))
}

/// A header name as Kong's schemas allow it (`typedefs.header_name`).
pub fn header_name() -> Field {
    Field::string().rule(Rule::Custom(check_header_name))
}

fn check_header_name(value: &Value) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    match value.as_str() {
        Some(text) if !text.is_empty() && text.bytes().all(allowed) => Ok(()),
        _ => Err(format!("bad header name {value}: allowed are A-Z, a-z, 0-9, '_' and '-'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::{key_auth, testing};
    use gateward_model::EntityId;
    use serde_json::json;

    #[test]
    fn scopes_are_checked() {
        let mut plugin = testing::entity(&key_auth::definition(), json!({}));
        assert_eq!(http_without_consumer(&plugin), Ok(()));
        plugin.consumer = Some(EntityId::default());
        assert!(http_without_consumer(&plugin).unwrap_err().contains("remove `consumer`"));
        assert_eq!(http(&plugin), Ok(()));
        plugin.protocols = vec![Protocol::Http, Protocol::Tcp];
        let refused = "plugin 'key-auth' does not work with protocol 'tcp': use http, https, grpc, grpcs";
        assert_eq!(http(&plugin).unwrap_err(), refused);
        assert_eq!(http_and_streams(&plugin), Ok(()));
        plugin.protocols = vec![Protocol::Ws];
        assert!(http_and_streams(&plugin).is_err());
    }

    #[test]
    fn header_names_are_plain() {
        for (name, good) in [("X-A_1", true), ("", false), ("a b", false), ("a:b", false), ("é", false)] {
            assert_eq!(check_header_name(&json!(name)).is_ok(), good, "{name:?}");
        }
    }
}
