//! What stands beside a module: `NAME.meta.json`, Kong's file for a filter's schema, with our settings in it.

use crate::config::FilterConfig;
use crate::failure::FailurePolicy;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// The file. Kong's `config_schema` is taken and not checked: the filter itself refuses what it cannot use.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meta {
    #[serde(default, rename = "config_schema")]
    _config_schema: Option<Value>,
    #[serde(default, rename = "metadata")]
    _metadata: Option<Value>,
    #[serde(default)]
    gateward: Settings,
}

/// Settings of this gateway.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    version: Option<String>,
    failure_policy: Option<Policy>,
    memory_limit_bytes: Option<usize>,
    recycle_bytes: Option<usize>,
    callback_timeout_ms: Option<u64>,
    start_timeout_ms: Option<u64>,
    callout_timeout_ms: Option<u64>,
    callout_body_bytes: Option<usize>,
    callouts: Option<u16>,
    callouts_per_request: Option<u16>,
    body_bytes: Option<usize>,
    request_body: Option<bool>,
    root_id: Option<String>,
    vm_id: Option<String>,
    vm_configuration: Option<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    hosts: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Policy {
    FailOpen,
    FailClosed,
}

impl Meta {
    pub(super) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// The version that its author gave the filter.
    pub(super) fn version(&self) -> Option<&str> {
        self.gateward.version.as_deref()
    }

    /// Hosts that may be called without being a service or an upstream.
    pub(super) fn hosts(&self) -> &[String] {
        &self.gateward.hosts
    }

    /// Whether request bodies are held for the filter.
    pub(super) fn shows_request_body(&self) -> bool {
        self.gateward.request_body.unwrap_or(true)
    }

    /// The filter `name` with this configuration.
    pub(super) fn filter_config(&self, name: &str, configuration: Vec<u8>) -> FilterConfig {
        let settings = self.gateward.clone();
        let mut config = FilterConfig::new(name);
        config.configuration = configuration;
        let set = |place: &mut String, value: Option<String>| *place = value.unwrap_or(std::mem::take(place));
        set(&mut config.root_id, settings.root_id);
        set(&mut config.vm_id, settings.vm_id);
        config.vm_configuration = settings.vm_configuration.unwrap_or_default().into_bytes();
        config.environment = settings.environment.into_iter().collect();
        config.failure = match settings.failure_policy {
            Some(Policy::FailOpen) => FailurePolicy::Open,
            Some(Policy::FailClosed) | None => FailurePolicy::Closed,
        };
        let limits = &mut config.limits;
        if let Some(bytes) = settings.memory_limit_bytes {
            limits.memory_bytes = bytes;
            limits.recycle_bytes = bytes / 4 * 3;
        }
        limits.recycle_bytes = settings.recycle_bytes.unwrap_or(limits.recycle_bytes);
        limits.body_bytes = settings.body_bytes.unwrap_or(limits.body_bytes);
        let ms = |place: &mut Duration, value: Option<u64>| *place = value.map_or(*place, Duration::from_millis);
        ms(&mut limits.callback, settings.callback_timeout_ms);
        ms(&mut limits.start, settings.start_timeout_ms);
        ms(&mut limits.callout_timeout, settings.callout_timeout_ms);
        limits.callout_body_bytes = settings.callout_body_bytes.unwrap_or(limits.callout_body_bytes);
        limits.callouts = settings.callouts.unwrap_or(limits.callouts);
        limits.callouts_per_stream = settings.callouts_per_request.unwrap_or(limits.callouts_per_stream);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_unknown_ones_refused() {
        let text = br#"{"config_schema": {"type": "object"}, "gateward": {"failure_policy": "fail_open",
            "memory_limit_bytes": 1048576, "callback_timeout_ms": 20, "callouts": 7, "callouts_per_request": 3, "environment": {"A": "1"}, "hosts": ["a:1"]}}"#;
        let meta = Meta::parse(text).unwrap();
        let config = meta.filter_config("f", b"c".to_vec());
        assert_eq!((config.failure, config.limits.memory_bytes), (FailurePolicy::Open, 1 << 20));
        assert_eq!((config.limits.callback, config.limits.recycle_bytes), (Duration::from_millis(20), 786_432));
        assert_eq!((config.limits.callouts, config.limits.callouts_per_stream), (7, 3));
        assert_eq!((config.environment.len(), meta.hosts().len(), config.root_id.as_str()), (1, 1, "f"));
        assert!(Meta::parse(br#"{"gateward": {"failure": "open"}}"#).is_err());
        assert_eq!(Meta::default().filter_config("f", Vec::new()), FilterConfig::new("f"));
    }
}
