//! `gateward plugin check FOLDER`: what of Lua plugins will not work, before any of them is used.

use crate::cli::check::Form;
use crate::cli::{FAILURE, complain, print};
use gateward_lua::{CheckedPlugin, Origin, Severity};
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Check the plugins of `folder` and print what was found.
pub(super) fn check(folder: &Path, format: Form) -> ExitCode {
    let folders: [PathBuf; 1] = [folder.to_owned()];
    let plugins = match gateward_lua::check(&folders) {
        Ok(plugins) if plugins.is_empty() => {
            complain(&format!(
                "error: there is no Lua plugin in {}: looked for kong/plugins/NAME/handler.lua and NAME/handler.lua",
                folder.display()
            ));
            return ExitCode::from(FAILURE);
        }
        Ok(plugins) => plugins,
        Err(error) => {
            complain(&format!("error: {error}"));
            return ExitCode::from(FAILURE);
        }
    };
    let ok = plugins.iter().all(CheckedPlugin::ok);
    match format {
        Form::Json => print(&format!("{:#}\n", json!({ "ok": ok, "plugins": plugins }))),
        Form::Text => print(&text(&plugins)),
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) }
}

fn text(plugins: &[CheckedPlugin]) -> String {
    let mut out = String::new();
    for plugin in plugins {
        // Writing to a String cannot fail.
        let _ = one(&mut out, plugin);
    }
    let count = |severity| {
        let findings = plugins.iter().flat_map(|plugin| &plugin.findings);
        findings.filter(|finding| finding.severity == severity).count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let _ = writeln!(out, "{} plugins, {errors} errors, {warnings} warnings", plugins.len());
    out
}

fn one(out: &mut String, plugin: &CheckedPlugin) -> std::fmt::Result {
    let or_dash = |words: Vec<String>| if words.is_empty() { "-".to_owned() } else { words.join(", ") };
    let version = plugin.version.as_deref().unwrap_or("-");
    let priority = plugin.priority.map_or_else(|| "-".to_owned(), |priority| priority.to_string());
    writeln!(out, "{}: {}", plugin.name, if plugin.ok() { "ok" } else { "will not work" })?;
    writeln!(out, "  version   {version}")?;
    writeln!(out, "  priority  {priority}")?;
    writeln!(out, "  phases    {}", or_dash(plugin.phases.iter().map(ToString::to_string).collect()))?;
    writeln!(out, "  settings  {}", or_dash(plugin.settings.clone()))?;
    for (word, from) in [("own files", Origin::Folder), ("brought", Origin::Gateway), ("missing", Origin::Missing)] {
        let names = plugin.modules.iter().filter(|module| module.from == from);
        let names: Vec<String> = names.map(|module| module.name.clone()).collect();
        if !names.is_empty() {
            writeln!(out, "  {word:<9} {}", names.join(", "))?;
        }
    }
    for finding in &plugin.findings {
        let word = if finding.severity == Severity::Error { "error" } else { "warning" };
        let place = finding.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        writeln!(out, "  {word}: {place}{}", finding.message)?;
    }
    Ok(())
}
