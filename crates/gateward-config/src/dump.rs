//! The model written as a file again: `_format_version: "3.0"`, flat, every field explicit.
//!
//! Loading a dump gives the same configuration, ids and times included. `_transform: false` keeps password
//! hashes from being hashed again. Vault references have been resolved by then: a dump holds the secrets.

use crate::Format;
use gateward_model::Config;
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Write `config` as a declarative file.
pub fn dump(config: &Config, format: Format) -> String {
    let mut root = Map::new();
    root.insert("_format_version".to_owned(), Value::from("3.0"));
    root.insert("_transform".to_owned(), Value::from(false));
    section(&mut root, "vaults", &config.vaults);
    section(&mut root, "certificates", &config.certificates);
    section(&mut root, "snis", &config.snis);
    section(&mut root, "ca_certificates", &config.ca_certificates);
    section(&mut root, "services", &config.services);
    section(&mut root, "routes", &config.routes);
    section(&mut root, "upstreams", &config.upstreams);
    section(&mut root, "targets", &config.targets);
    section(&mut root, "consumers", &config.consumers);
    section(&mut root, "keyauth_credentials", &config.keyauth_credentials);
    section(&mut root, "basicauth_credentials", &config.basicauth_credentials);
    section(&mut root, "acls", &config.acls);
    section(&mut root, "plugins", &config.plugins);
    for (kind, entities) in &config.others {
        section(&mut root, kind, entities);
    }
    let root = Value::Object(root);
    match format {
        Format::Json => format!("{root:#}\n"),
        Format::Yaml => {
            let mut out = String::new();
            write_yaml(&root, 0, &mut out);
            out
        }
    }
}

fn section<T: Serialize>(root: &mut Map<String, Value>, kind: &str, entities: &[Arc<T>]) {
    let written = entities.iter().filter_map(|entity| {
        let mut value = serde_json::to_value(entity).ok()?;
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        Some(value)
    });
    let written: Vec<Value> = written.collect();
    if !written.is_empty() {
        root.insert(kind.to_owned(), Value::Array(written));
    }
}

/// A map or list in block style at `indent`, ending with a line break.
fn write_yaml(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) => {
            for (position, (key, value)) in fields.iter().enumerate() {
                if position > 0 || out.is_empty() || out.ends_with('\n') {
                    out.push_str(&" ".repeat(indent));
                }
                push_text(key, out);
                out.push(':');
                write_child(value, indent + 2, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(&" ".repeat(indent));
                out.push('-');
                match item {
                    Value::Object(fields) if !fields.is_empty() => {
                        out.push(' ');
                        write_yaml(item, indent + 2, out);
                    }
                    item => write_child(item, indent + 2, out),
                }
            }
        }
        scalar => write_child(scalar, indent, out),
    }
}

/// What follows `key:` or `-`.
fn write_child(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) if fields.is_empty() => out.push_str(" {}\n"),
        Value::Array(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Object(_) | Value::Array(_) => {
            out.push('\n');
            write_yaml(value, indent, out);
        }
        Value::String(text) => {
            out.push(' ');
            push_text(text, out);
            out.push('\n');
        }
        scalar => {
            out.push(' ');
            out.push_str(&scalar.to_string());
            out.push('\n');
        }
    }
}

/// A text as a YAML scalar: bare where no reader could take it for something else.
fn push_text(text: &str, out: &mut String) {
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '/'))
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_/.-".contains(&b))
        && text.len() < 200
        && !words.contains(&text.to_ascii_lowercase().as_str());
    if bare {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            // Line separators, byte order marks and controls would be changed or refused by a reader.
            c if c.is_alphanumeric() => out.push(c),
            c => out.push_str(&escape(c)),
        }
    }
    out.push('"');
}

fn escape(c: char) -> String {
    match u32::from(c) {
        code @ 0..=0xFF => format!("\\x{code:02X}"),
        code @ 0x100..=0xFFFF => format!("\\u{code:04X}"),
        code => format!("\\U{code:08X}"),
    }
}
