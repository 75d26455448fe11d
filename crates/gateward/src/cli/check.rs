//! `gateward check`: every problem of declarative files, those that only compiling finds included.

use crate::callouts::Callouts;
use crate::cli::{FAILURE, USAGE, complain, print};
use crate::counter_store::NoStores;
use crate::egress::Egress;
use crate::hosts::{self, Network};
use crate::reload::{Compiler, problem, sniff};
use crate::settings::{OutputFormat, WasmOptions, router_flavor, untrusted_lua};
use crate::watch::FILE_BYTES;
use clap::ValueEnum;
use gateward_config::{Diagnostic, Format, Severity};
use gateward_lua::{LuaOptions, Untrusted, UntrustedMode};
use gateward_model::RouterFlavor;
use gateward_net::dns::Names;
use gateward_net::tls::Context;
use gateward_plugin::{NativePlugins, PluginEnv};
use gateward_telemetry::{Limits, Telemetry};
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// The name that means standard input.
const STANDARD_INPUT: &str = "-";

/// Flags of `gateward check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Declarative files (.json, otherwise YAML); - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Form of the output
    #[arg(long, value_enum, default_value = "text")]
    format: Form,
    /// Router flavour the files are for: traditional_compatible or expressions
    #[arg(long, value_name = "FLAVOR", value_parser = router_flavor, default_value = "traditional_compatible")]
    router_flavor: RouterFlavor,
    /// Folders of the Lua plugins that the files use, separated by commas
    #[arg(long, value_name = "DIRS", value_delimiter = ',')]
    plugins_dir: Vec<PathBuf>,
    /// What Lua in a configuration may do: off, sandbox or on
    #[arg(long, value_name = "MODE", env = "KONG_UNTRUSTED_LUA", default_value = "sandbox", value_parser = untrusted_lua)]
    untrusted_lua: UntrustedMode,
    /// Folder of the Wasm filters that the files use
    #[arg(long, value_name = "DIR", env = "KONG_WASM_FILTERS_PATH")]
    wasm_filters_path: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Form {
    Text,
    Json,
}

impl From<Form> for OutputFormat {
    fn from(form: Form) -> Self {
        match form {
            Form::Text => Self::Text,
            Form::Json => Self::Json,
        }
    }
}

/// A file and what was found in it.
struct Checked {
    file: String,
    diagnostics: Vec<Diagnostic>,
}

impl Checked {
    fn ok(&self) -> bool {
        !self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// Check the files and print what was found.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start a thread: {error}"));
            return ExitCode::from(FAILURE);
        }
    };
    let filters_path = arguments.wasm_filters_path.clone();
    let wasm = WasmOptions { enabled: filters_path.is_some(), filters_path, cache_path: None };
    let untrusted = Untrusted { mode: arguments.untrusted_lua, ..Untrusted::default() };
    let lua = LuaOptions { folders: arguments.plugins_dir.clone(), untrusted, ..LuaOptions::default() };
    let compiler = match compiler(arguments.router_flavor, &lua, &wasm, runtime.handle()) {
        Ok(compiler) => compiler,
        Err(error) => {
            complain(&format!("{error:#}"));
            return ExitCode::from(FAILURE);
        }
    };
    let mut checked = Vec::new();
    for path in &arguments.files {
        match read(path) {
            Ok(text) => checked.push(check(&compiler, path, &text)),
            Err(error) => {
                complain(&format!(
                    "error: cannot read {}: {error}; name declarative files, or - for standard input",
                    path.display()
                ));
                return ExitCode::from(USAGE);
            }
        }
    }
    match arguments.format.into() {
        OutputFormat::Text => print(&text(&checked)),
        OutputFormat::Json => print(&format!("{:#}\n", as_json(&checked))),
    }
    // Plugins of a checked file must not hold the process.
    runtime.shutdown_background();
    if checked.iter().all(Checked::ok) { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) }
}

/// One byte more than a file may have is enough to refuse it.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let most = FILE_BYTES + 1;
    if path == Path::new(STANDARD_INPUT) {
        io::stdin().lock().take(most).read_to_end(&mut text)?;
    } else {
        File::open(path)?.take(most).read_to_end(&mut text)?;
    }
    Ok(text)
}

/// A compiler whose plugins serve nobody.
///
/// # Errors
/// The default certificate cannot be made, or a folder of plugins or filters cannot be read.
pub(crate) fn compiler(
    flavor: RouterFlavor,
    lua: &LuaOptions,
    wasm: &WasmOptions,
    runtime: &tokio::runtime::Handle,
) -> anyhow::Result<Arc<Compiler>> {
    let settings = gateward_proxy::Settings { flavor, ..gateward_proxy::Settings::default() };
    let tls = Arc::new(Context::new(settings.tls.clone())?);
    let egress = Arc::new(Egress::new(runtime.clone(), tls.clone()));
    let network = Network { names: Names::new(settings.dns.clone(), runtime.clone())?, tls: tls.clone() };
    let hosts = hosts::set_up(lua, wasm, &Callouts::new(runtime.clone()), network, 0)?;
    let env = PluginEnv {
        background: runtime.clone(),
        counters: Arc::default(),
        http: egress,
        redis: Arc::new(NoStores),
        stats: Arc::default(),
        templates: hosts.all.templates(),
    };
    let telemetry = Telemetry::new(0, Limits::default());
    let plugins = NativePlugins::and(hosts.all.clone());
    Ok(Arc::new(Compiler {
        settings,
        env,
        plugins,
        host: hosts.all,
        telemetry,
        tls,
        filters: hosts.wasm,
        lua: Some(hosts.lua),
    }))
}

fn check(compiler: &Compiler, path: &Path, text: &[u8]) -> Checked {
    let format = if path == Path::new(STANDARD_INPUT) { sniff(text) } else { Format::of_path(path) };
    let diagnostics = match compiler.compile(text, format, 1) {
        Ok(compiled) => compiled.warnings,
        Err(problems) if problems.is_empty() => vec![problem("the configuration cannot be compiled".to_owned())],
        Err(problems) => problems,
    };
    Checked { file: path.display().to_string(), diagnostics }
}

fn text(checked: &[Checked]) -> String {
    let mut out = String::new();
    for Checked { file, diagnostics } in checked {
        for diagnostic in diagnostics {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{file}:{diagnostic}");
        }
    }
    for found in checked.iter().filter(|found| found.ok()) {
        let _ = writeln!(out, "{}: ok", found.file);
    }
    out
}

fn as_json(checked: &[Checked]) -> Value {
    let file = |found: &Checked| json!({ "file": found.file, "ok": found.ok(), "diagnostics": found.diagnostics });
    json!({ "files": checked.iter().map(file).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn checked(config: &str) -> Checked {
        let compiler = compiler(
            RouterFlavor::default(),
            &LuaOptions::default(),
            &WasmOptions::default(),
            &tokio::runtime::Handle::current(),
        )
        .unwrap();
        check(&compiler, Path::new("kong.yml"), config.as_bytes())
    }

    #[tokio::test]
    async fn problems_are_lines_of_file_line_column_path_message() {
        let found = checked("_format_version: '3.0'\nservices:\n- nam: a\n  host: b\n- host: 7\n").await;
        assert!(!found.ok());
        let text = text(std::slice::from_ref(&found));
        assert!(text.lines().count() >= 2, "{text}");
        assert!(text.starts_with("kong.yml:3:"), "{text}");
        assert_eq!(as_json(&[found])["files"][0]["ok"], false);
    }

    #[tokio::test]
    async fn the_example_is_right() {
        let found = checked(include_str!("../../../../examples/quickstart/kong.yml")).await;
        assert_eq!(text(&[found]), "kong.yml: ok\n");
    }
}
