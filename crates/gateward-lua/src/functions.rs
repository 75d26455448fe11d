//! `pre-function` and `post-function`: plugins in Lua that the gateway brings, and what code in a configuration may do.

use mlua::{Lua, Table};

/// Names of the plugins in Lua that the gateway brings.
pub const NAMES: &[&str] = &["post-function", "pre-function"];

/// What code in a configuration may do (Kong's `untrusted_lua` and what belongs to it).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Untrusted {
    /// Whether it runs, and with what.
    pub mode: UntrustedMode,
    /// Modules that it may require in the sandbox.
    pub requires: Vec<String>,
    /// What of the environment of plugins it has in the sandbox beside the language, as paths (`string.rep`).
    pub environment: Vec<String>,
}

/// Kong's `untrusted_lua`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UntrustedMode {
    /// It does not run.
    Off,
    /// With `kong`, `ngx` and the language.
    #[default]
    Sandbox,
    /// With all that plugins have.
    On,
}

/// The modules that the gateway brings as files: what `require` calls them, and their text.
pub(crate) fn modules() -> Vec<(String, String)> {
    let mut modules = vec![
        ("kong.plugins.pre-function._handler".to_owned(), include_str!("lua/bundled/handler.lua").to_owned()),
        ("kong.plugins.pre-function._schema".to_owned(), include_str!("lua/bundled/schema.lua").to_owned()),
    ];
    for (plugin, priority) in [("pre-function", 1_000_000), ("post-function", -1000)] {
        modules.push((
            format!("kong.plugins.{plugin}.handler"),
            format!("return require('kong.plugins.pre-function._handler')('{plugin}', {priority})"),
        ));
        modules.push((
            format!("kong.plugins.{plugin}.schema"),
            format!("return require('kong.plugins.pre-function._schema')('{plugin}')"),
        ));
    }
    modules
}

/// For the machine: what `kong.tools.sandbox` goes by.
pub(crate) fn settings(lua: &Lua, untrusted: &Untrusted) -> mlua::Result<Table> {
    let settings = lua.create_table()?;
    settings.raw_set(
        "mode",
        match untrusted.mode {
            UntrustedMode::Off => "off",
            UntrustedMode::Sandbox => "sandbox",
            UntrustedMode::On => "on",
        },
    )?;
    settings.raw_set("requires", untrusted.requires.clone())?;
    settings.raw_set("environment", untrusted.environment.clone())?;
    Ok(settings)
}

#[cfg(test)]
mod tests;
