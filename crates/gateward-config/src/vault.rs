//! `{vault://prefix/NAME}` references (kong/pdk/vault.lua, kong/vaults/env), environment variables only.
//!
//! The crate reads no environment itself: the caller passes the look-up. Messages name the variable, never
//! what it holds.

use std::collections::HashMap;

const OPENING: &str = "{vault://";

/// What leads from a reference to a value.
pub(crate) struct Vaults<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    /// By the prefix of a `vaults` entity: what its `config.prefix` puts before every name.
    prefixes: HashMap<String, String>,
}

impl<'a> Vaults<'a> {
    pub(crate) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        // Without any entity, the vault's own name works as prefix.
        Self { lookup, prefixes: HashMap::from([("env".to_owned(), String::new())]) }
    }

    /// A `vaults` entity: references that start with `prefix` look up `variable_prefix` + name.
    pub(crate) fn add(&mut self, prefix: &str, variable_prefix: &str) {
        self.prefixes.insert(prefix.to_owned(), variable_prefix.to_owned());
    }

    /// The value of a reference.
    pub(crate) fn resolve(&self, reference: &str) -> Result<String, String> {
        let inner = reference.strip_prefix(OPENING).and_then(|rest| rest.strip_suffix('}'));
        let inner = inner.ok_or("a vault reference has the form {vault://env/NAME}")?;
        // Options (`?ttl=..`) and versions (`#1`) mean nothing for the environment.
        let inner = inner.split(['?', '#']).next().unwrap_or(inner);
        let mut parts = inner.splitn(3, '/');
        let (vault, resource, key) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next());
        let Some(variable_prefix) = self.prefixes.get(vault) else {
            return Err(format!(
                "no vault with the prefix '{}'; use 'env' or declare one under 'vaults'",
                gateward_yaml::quote(vault)
            ));
        };
        if resource.is_empty() {
            return Err("a vault reference has the form {vault://env/NAME}".to_owned());
        }
        let variable = format!("{variable_prefix}{resource}").to_uppercase().replace('-', "_");
        let shown = gateward_yaml::quote(&variable);
        if variable.contains(['=', '\0']) {
            return Err(format!("'{shown}' cannot be the name of an environment variable"));
        }
        let value = (self.lookup)(&variable)
            .ok_or_else(|| format!("the environment variable {shown} that this vault reference names is not set"))?;
        let value = match key.filter(|key| !key.is_empty()) {
            None => value,
            Some(key) => json_key(&value, key).ok_or_else(|| {
                format!("the environment variable {shown} is not a JSON object with the requested key")
            })?,
        };
        if is_reference(&value) {
            return Err(format!("the environment variable {shown} holds a vault reference itself"));
        }
        Ok(value)
    }
}

/// Whether a text is meant as a reference.
pub(crate) fn is_reference(text: &str) -> bool {
    text.starts_with(OPENING)
}

fn json_key(value: &str, key: &str) -> Option<String> {
    match serde_json::from_str::<serde_json::Value>(value).ok()?.get(key)? {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Null => None,
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reference: &str, expected: Result<&str, &str>) {
        let lookup = |name: &str| match name {
            "MY_KEY" => Some("s3cret".to_owned()),
            "PRE_X" => Some(r#"{"a":"b","n":7}"#.to_owned()),
            "LOOP" => Some("{vault://env/LOOP}".to_owned()),
            _ => None,
        };
        let mut vaults = Vaults::new(&lookup);
        vaults.add("mine", "pre_");
        let outcome = vaults.resolve(reference);
        assert_eq!(outcome.as_deref().map_err(String::as_str), expected, "{reference}");
    }

    #[test]
    fn resolves_and_names_only_variables() {
        check("{vault://env/my-key}", Ok("s3cret"));
        check("{vault://env/MY_KEY?ttl=3}", Ok("s3cret"));
        check("{vault://mine/x/a}", Ok("b"));
        check("{vault://mine/x/n}", Ok("7"));
        check("{vault://mine/x/zz}", Err("the environment variable PRE_X is not a JSON object with the requested key"));
        check("{vault://env/nope}", Err("the environment variable NOPE that this vault reference names is not set"));
        check("{vault://aws/x}", Err("no vault with the prefix 'aws'; use 'env' or declare one under 'vaults'"));
        check("{vault://env/}", Err("a vault reference has the form {vault://env/NAME}"));
        check("{vault://env/x", Err("a vault reference has the form {vault://env/NAME}"));
        check("{vault://env/loop}", Err("the environment variable LOOP holds a vault reference itself"));
    }
}
