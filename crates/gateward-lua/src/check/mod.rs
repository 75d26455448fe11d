//! What can be said of Lua plugins before any of them is used: do they load, what are they, and is what they need here?

mod lexer;
mod scan;

use crate::code::{Code, stamps};
use crate::instance::Info;
use crate::schema;
use crate::state::Phase;
use crate::vm::Vm;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// What was found of one plugin.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedPlugin {
    /// Its name.
    pub name: String,
    /// Its VERSION, if its handler loads and says one.
    pub version: Option<String>,
    /// Its PRIORITY, if its handler loads.
    pub priority: Option<i32>,
    /// The phases it has functions for.
    pub phases: Vec<&'static str>,
    /// The fields of its `config`, if its schema loads.
    pub settings: Vec<String>,
    /// The modules it asks for.
    pub modules: Vec<Module>,
    /// What will not work, and what might not.
    pub findings: Vec<Finding>,
}

/// A module that a plugin asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Module {
    /// As `require` is given it.
    pub name: String,
    /// Where it comes from.
    pub from: Origin,
}

/// Where a module comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A file of the folder.
    Folder,
    /// The gateway.
    Gateway,
    /// Nowhere.
    Missing,
}

/// Something to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether the plugin will not work.
    pub severity: Severity,
    /// File and line, where there is one.
    pub place: Option<String>,
    /// What it is.
    pub message: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It will not work.
    Error,
    /// It may not do what it was written for.
    Warning,
}

impl CheckedPlugin {
    /// Whether nothing says that it will not work.
    pub fn ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Warning)
    }

    fn error(&mut self, place: Option<String>, message: impl Into<String>) {
        self.findings.push(Finding { severity: Severity::Error, place, message: message.into() });
    }

    fn warning(&mut self, place: Option<String>, message: impl Into<String>) {
        self.findings.push(Finding { severity: Severity::Warning, place, message: message.into() });
    }
}

/// Check the plugins of these folders.
///
/// # Errors
/// The folders cannot be read.
pub fn check(folders: &[PathBuf]) -> Result<Vec<CheckedPlugin>, String> {
    let code = Arc::new(Code::read(folders, &stamps(folders)?)?);
    let vm = Vm::new(&code)?;
    code.plugins.iter().map(|name| plugin(&code, &vm, name)).collect()
}

fn plugin(code: &Arc<Code>, vm: &Vm, name: &str) -> Result<CheckedPlugin, String> {
    let mut checked = CheckedPlugin {
        name: name.to_owned(),
        version: None,
        priority: None,
        phases: Vec::new(),
        settings: Vec::new(),
        modules: Vec::new(),
        findings: Vec::new(),
    };
    match vm.inspect(name) {
        Ok(info) => checked.describe(&info),
        Err(error) => checked.error(None, first_line(&error)),
    }
    let schema = vm
        .describe(code, name)
        .and_then(|described| described.map(|described| schema::of(code, name, &described)).transpose());
    match schema {
        Ok(Some(schema)) => checked.settings = schema.config.fields.iter().map(|(name, _)| name.to_string()).collect(),
        Ok(None) => {
            checked.error(None, "there is no schema.lua: no configuration is checked, and Kong refuses the plugin");
        }
        Err(error) => checked.error(None, first_line(&error)),
    }
    files(code, vm, name, &mut checked)?;
    Ok(checked)
}

impl CheckedPlugin {
    fn describe(&mut self, info: &Info) {
        self.version.clone_from(&info.version);
        self.priority = Some(info.priority);
        self.phases = Phase::ALL.iter().filter(|phase| info.has(**phase)).map(|phase| phase.as_str()).collect();
        if info.version.is_none() {
            self.warning(None, "the handler has no VERSION; Kong refuses a plugin without");
        }
        if self.phases.is_empty() {
            self.warning(None, "the handler has no function for any phase: the plugin does nothing");
        }
    }
}

/// Look through the plugin's own files, and those of the folder that they ask for.
fn files(code: &Code, vm: &Vm, name: &str, checked: &mut CheckedPlugin) -> Result<(), String> {
    let own = format!("kong.plugins.{name}.");
    let mut left: Vec<String> = code.names().filter(|module| module.starts_with(&own)).map(str::to_owned).collect();
    let mut seen: BTreeSet<String> = left.iter().cloned().collect();
    let mut modules: BTreeMap<String, Origin> = BTreeMap::new();
    while let Some(module) = left.pop() {
        let Some(source) = code.module(&module) else { continue };
        let found = scan::scan(&String::from_utf8_lossy(&source.text));
        let place = |line: &usize| Some(format!("{}:{line}", source.path.display()));
        for (wanted, line) in found.modules.iter().chain(&found.tried) {
            let from = match (code.module(wanted), vm.brings(wanted)?) {
                (_, true) => Origin::Gateway,
                (Some(_), false) => Origin::Folder,
                (None, false) => Origin::Missing,
            };
            modules.insert(wanted.clone(), from);
            if from == Origin::Folder && seen.insert(wanted.clone()) {
                left.push(wanted.clone());
            }
            if from == Origin::Missing {
                let message = missing_module(wanted);
                match found.modules.contains_key(wanted) {
                    true => checked.error(place(line), message),
                    false => checked.warning(place(line), message),
                }
            }
        }
        for (chain, line) in &found.chains {
            if let Some(missing) = vm.missing(chain)? {
                match missing.strip_prefix("ngx.var.") {
                    // Plugins go on with nil.
                    Some(_) => checked
                        .warning(place(line), format!("{missing} is always nil: nginx has it, the gateway has not")),
                    None => checked.error(place(line), missing_name(&missing)),
                }
            }
        }
    }
    checked.modules = modules.into_iter().map(|(name, from)| Module { name, from }).collect();
    checked.findings.sort_by(|a, b| (a.place.is_some(), &a.place).cmp(&(b.place.is_some(), &b.place)));
    Ok(())
}

fn missing_module(name: &str) -> String {
    let why = match name {
        "ffi" | "jit" | "debug" => "plugins cannot reach it: it breaks out of the machine",
        "socket" | "socket.http" | "socket.tcp" | "ssl.https" | "ssl" | "ltn12" | "mime" => {
            "LuaSocket holds up all requests of a worker; use resty.http"
        }
        _ if name.starts_with("lfs") || name.starts_with("posix") => "plugins cannot reach the system",
        _ => "neither among the files of the folder nor among what the gateway brings",
    };
    format!("module '{name}' is not there: {why}")
}

fn missing_name(path: &str) -> String {
    let root = path.split('.').next().unwrap_or_default();
    match root {
        "kong" | "ngx" | "ndk" => format!("{path} is not there"),
        "dofile" | "loadfile" => format!("{path} is not there: code is loaded with require"),
        _ => format!("{path} is not there: plugins cannot reach the system or break out of the machine"),
    }
}

fn first_line(error: &str) -> String {
    error.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
